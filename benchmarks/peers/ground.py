"""What the sides are compared on: a base, its prompts, and what a model is worth there."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from srlm.config import MeasureSettings
from srlm.data import read_prompts, split
from srlm.demo.base import recipe_of
from srlm.demo.corpus import named_start
from srlm.demo.network import blank_model
from srlm.demo.settings import settings
from srlm.grading import grader
from srlm.loop import derived
from srlm.measure.evaluate import evaluate
from srlm.policies.hf import CausalLM
from srlm.policies.load import load
from srlm.progress import Progress
from srlm.types import Prompt

from .side import Setting

HELD_OUT, DRAWS = 512, 16


@dataclass(frozen=True)
class Ground:
    """A base with prompts to train on and prompts held out."""

    model: Any
    tokenizer: Any
    train: list[Prompt]
    held_out: list[Prompt]
    seed: int

    def fresh(self) -> Any:
        """A copy of the base, to train."""
        return copy.deepcopy(self.model)

    def accuracy(self, model: Any, draws: int = DRAWS) -> float:
        """Share of right draws on the held-out prompts, the same random numbers each time."""
        policy = CausalLM(model, self.tokenizer)
        samples = policy.sample(
            self.held_out, draws, seed=derived(self.seed, "held out"), max_tokens=16
        )
        return float(
            grader("last-number")
            .grades(samples.text_R, samples.finished_R, self.held_out, samples.prompt_R)
            .mean()
        )

    def mode_accuracy(self) -> float:
        """Share of held-out prompts on which the base's likeliest response is right."""
        made = evaluate(
            CausalLM(self.model, self.tokenizer),
            self.held_out,
            grader("last-number"),
            MeasureSettings(samples=2),
            seed=self.seed,
            max_tokens=16,
            base=None,
        )
        value = made.estimates["mode_accuracy"].value
        assert value is not None
        return value


def demo(seed: int, prompts: int) -> Ground:
    """The demo's good start: 0.1 million parameters, sums of two numbers."""
    config = settings("good", seed, Progress(quiet=True))
    policy = load(config.model, device="cpu")
    assert isinstance(policy, CausalLM)
    train, held_out = split(read_prompts(config.prompts.file), config.prompts.held_out)
    return Ground(policy.model, policy.tokenizer, train[:prompts], held_out[:HELD_OUT], seed)


def large(prompts: int) -> Ground:
    """An untrained model of 3 million parameters on the same prompts: for times and memory."""
    small = demo(0, prompts)
    recipe = replace(recipe_of(named_start("good")), hidden=256, inner=704, layers=4)
    torch.manual_seed(0)
    return replace(small, model=blank_model("llama", recipe, small.tokenizer).eval())


LARGE = Setting(prompts_per_step=16)
"""As many steps from few prompts."""


def parameters(model: Any) -> int:
    """How many numbers the model has."""
    return sum(p.numel() for p in model.parameters())


def folder(seed: int) -> Path:
    """Where the demo's base lies."""
    return Path(settings("good", seed, Progress(quiet=True)).model)
