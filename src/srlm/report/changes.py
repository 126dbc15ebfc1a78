"""Whether a number changed between two rounds, or only wobbled.

The same held-out prompts are measured in every round, so the differences are paired: the
interval is that of the mean difference over the prompts, far narrower than the two intervals
put side by side. Where no table of prompts is there, the two intervals are combined as if
independent, which errs on the side of no change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from srlm.types import Estimate, Floats, PromptTable, Round

LEAST_CHANGE = 0.005
"""Smaller changes count as none (times the value where it is above 1), however sure they are."""

BINARY = ("failure_fraction", "mode_accuracy", "fidelity")

Direction = Literal["rose", "fell", "level", "unknown"]


@dataclass(frozen=True, slots=True)
class Change:
    """``end - start`` of a number between two rounds, with its 95% interval over the prompts."""

    name: str
    start_round: int
    end_round: int
    start: Estimate
    end: Estimate
    low: float | None
    high: float | None
    method: str

    @property
    def value(self) -> float | None:
        if self.start.value is None or self.end.value is None:
            return None
        return self.end.value - self.start.value

    @property
    def direction(self) -> Direction:
        """``level`` inside the interval or under LEAST_CHANGE; ``unknown`` without an interval."""
        if self.value is None or self.start.value is None:
            return "unknown"
        if abs(self.value) < LEAST_CHANGE * max(1.0, abs(self.start.value)):
            return "level"
        if self.low is None or self.high is None:
            return "unknown"
        return "rose" if self.low > 0 else "fell" if self.high < 0 else "level"


def change(name: str, start: Round, end: Round) -> Change:
    """The change of the number ``name`` from round ``start`` to round ``end``."""
    a, b = start[name], end[name]
    low, high, method = None, None, "undefined"
    paired = _paired(name, start.table, end.table)
    if a.value is None or b.value is None:
        pass
    elif paired is not None and np.isclose(paired[0], b.value - a.value, rtol=1e-3, atol=1e-6):
        low, high, method = paired[1], paired[2], f"paired over {paired[3]} prompts"
    elif a.low is not None and a.high is not None and b.low is not None and b.high is not None:
        low = b.value - a.value - float(np.hypot(b.value - b.low, a.high - a.value))
        high = b.value - a.value + float(np.hypot(b.high - b.value, a.value - a.low))
        method = "two intervals combined as independent"
    else:
        method = "no interval can be given"
    return Change(name, start.round, end.round, a, b, low, high, method)


def per_prompt(name: str, table: PromptTable) -> Floats | None:
    """The number of each prompt whose mean over prompts is the estimate ``name``."""
    columns = {
        "kappa": lambda: 1 / np.where(table.p_star > 0, table.p_star, np.nan),
        "confidence": lambda: table.p_star,
        "failure_fraction": lambda: np.where(np.isnan(table.p_star), np.nan, table.p_star <= 0.5),
        "fidelity": lambda: table.mode_is_base_mode,
        "sampling_accuracy": lambda: table.sampling_accuracy,
        "mode_accuracy": lambda: table.mode_correct,
        "vote_share": lambda: table.vote_share,
        "kappa_vote": lambda: 1 / np.where(table.vote_share > 0, table.vote_share, np.nan),
    }
    return columns[name]() if name in columns else None


def _paired(
    name: str, start: PromptTable | None, end: PromptTable | None
) -> tuple[float, float, float, int] | None:
    """Mean difference, its interval (Student's t; widened by 1/n for 0/1 values), and n."""
    if start is None or end is None or start.prompt_id != end.prompt_id:
        return None
    a, b = per_prompt(name, start), per_prompt(name, end)
    if a is None or b is None:
        return None
    d = (b - a)[np.isfinite(b - a)]
    n = len(d)
    if n < 2:
        return None
    half = float(stdtrit(n - 1, 0.975) * d.std(ddof=1) / np.sqrt(n))
    mean = float(d.mean())
    if name in BINARY:
        half += 1 / n
        return mean, max(mean - half, -1.0), min(mean + half, 1.0), n
    return mean, mean - half, mean + half, n
