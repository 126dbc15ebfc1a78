"""What is compared: a side takes a model through one self-rewarding round.

Every side gets the same model, prompts and numbers of draws, passes and optimiser steps, and
trains the model in place. Nothing here knows how a side goes about it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

STAGES = ("draw", "score", "update")


@dataclass(frozen=True, slots=True)
class Setting:
    """The numbers of a round; those above the line are the same for every side."""

    draws: int = 4
    """Responses a prompt."""
    max_tokens: int = 16
    batch_rows: int = 1024
    """Responses drawn or scored at once."""
    prompts_per_step: int = 128
    epochs: int = 2
    """Passes over the round's pairs."""
    # ----
    lr: float = 5e-4
    """Peak learning rate of AdamW (betas .9 and .99, no weight decay, a tenth of warm-up, then
    linear to zero, gradient norm at most 1)."""
    beta: float = 0.5
    sft: float = 0.0
    """DPO: weight of the likelihood of the chosen response beside, a mean over its tokens."""
    mu: float | None = None
    """Ours: draw blocks of ``draws`` until k draws have k times their greatest probability at least
    ``mu``, so that sure prompts have fewer."""
    precompute: bool = True
    """TRL's DPO: the reference's log-probabilities before training, else with every step."""

    def steps(self, prompts: int) -> int:
        """Optimiser steps of a round, whatever a step is made of."""
        return self.epochs * -(-prompts // self.prompts_per_step)

    def pairs_per_step(self, pairs: int, prompts: int) -> int:
        """Pairs a step, so that as many passes end in as many steps.

        >>> Setting().pairs_per_step(3300, 4096), Setting().pairs_per_step(8192, 4096)
        (104, 256)
        """
        return max(1, -(-pairs // (self.steps(prompts) // self.epochs)))


@dataclass(slots=True)
class Round:
    """What a side's round came to."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by stage, of ``STAGES``."""
    cpu: float = 0.0
    """Processor seconds of all stages: other work on the machine matters less to them."""
    tokens: int = 0
    """Tokens drawn, the end token included."""
    steps: int = 0
    """Optimiser steps taken."""
    pairs: int = 0
    """Pairs or groups trained on, each ``epochs`` times."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time inside to a stage."""
        began, worked = time.perf_counter(), time.process_time()
        yield
        self.cpu += time.process_time() - worked
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    @property
    def total(self) -> float:
        """Seconds of the whole round."""
        return sum(self.seconds.values())


Side = Callable[[Any, Any, Sequence[Any], Setting, int], Round]
"""(model, tokenizer, prompts, setting, seed) -> what the round came to. Trains the model."""
