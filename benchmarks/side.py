"""What a side of ``benchmarks/round.py`` is: it takes a model through one self-rewarding round.

Every side gets the same model, prompts and numbers of samples, passes and optimiser steps, and
trains the model in place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

STAGES = ("samples", "pairs", "train")


@dataclass(frozen=True, slots=True)
class Setting:
    """The numbers of a round; learning rate and beta are each side's own, the others are equal."""

    lr: float = 5e-4
    """Peak learning rate of AdamW (betas 0.9 and 0.99, no weight decay, a tenth of warm-up, then
    linear to zero, gradient norm at most 1)."""
    beta: float = 0.5
    per_prompt: int = 4
    """Samples per prompt."""
    max_tokens: int = 16
    prompts_per_step: int = 128
    epochs: int = 2
    """Passes over the round's pairs."""
    lora: int | None = None
    """Rank of adapters on every linear layer, alpha twice that; None: all weights."""

    def pairs_per_step(self, pairs: int, prompts: int) -> int:
        """Pairs a step, so that as many passes end in as many steps whatever a step is made of.

        >>> Setting().pairs_per_step(3300, 4096), Setting().pairs_per_step(8192, 4096)
        (104, 256)
        """
        return max(1, -(-pairs // -(-prompts // self.prompts_per_step)))


@dataclass(slots=True)
class Timed:
    """What a side's round came to."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by stage, of ``STAGES``."""
    tokens: int = 0
    """Tokens sampled, the end token included."""
    steps: int = 0
    """Optimiser steps taken."""
    pairs: int = 0
    """Pairs or groups trained on, each ``epochs`` times."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time inside to a stage."""
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    @property
    def total(self) -> float:
        """Seconds of the whole round."""
        return sum(self.seconds.values())


Side = Callable[[Any, Any, Sequence[Any], Setting, int], Timed]
"""(model, tokenizer, prompts, setting, seed) -> what the round came to. Trains the model."""
