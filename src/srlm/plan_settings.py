"""The numbers that ``srlm plan`` takes, as settings, so that all wrong ones are named at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from srlm.config import Count, Positive, Settings
from srlm.flags import Flags

AtLeastOne = Annotated[float, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class PlanConfig(Settings):
    """Parameters of ``srlm.theory.plan``."""

    kappa0: AtLeastOne = Field(description="condition number of the start, at least 1")
    margin: Positive = Field(description="least margin gamma, nats")
    confidence: Share = Field(description="least confidence mu, at most 1/kappa0")
    beta: Positive = Field(description="one exact round is pi^(1 + 1/beta)")
    complexity: Positive = Field(description="log|Pi| or a log covering number, nats")
    rounds: Count | None = Field(None, description="T; chosen if left out")
    samples: Count | None = Field(None, description="pairs a round; chosen if left out")
    target: Share = Field(0.1, description="tolerated share of prompts with p* <= 1/2")


class RunPlanConfig(Settings):
    """Parameters of ``srlm.planning.plan_run``: what is left out comes from the run."""

    kappa0: AtLeastOne | None = None
    margin: Positive | None = None
    confidence: Share | None = None
    beta: Positive | None = None
    complexity: Positive | None = None
    rounds: Count | None = None
    samples: Count | None = None
    target: Share = 0.1


PLAN: Flags = {
    "Numbers": {f"--{name}": name for name in ("kappa0", "margin", "confidence", "beta")}
    | {"--complexity": "complexity"},
    "Question": {"--rounds": "rounds", "--samples": "samples", "--target": "target"},
}
