"""Whether a number changed between two rounds, stayed, or too few prompts tell.

The same held-out prompts are measured in every round, so the differences are paired: the
interval is that of the mean difference over the prompts, far narrower than the two intervals
put side by side. Where no table of prompts is there, the two intervals are combined as if
independent, which errs on the side of no change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri, stdtrit

from srlm.measure.intervals import FEWEST, enough
from srlm.types import Estimate, Floats, PromptTable, Round

LEAST_CHANGE = 0.005
"""Smaller changes count as none (times the value where it is above 1), however sure they are."""
SAME = 0.05
"""A number is level where its change is surely smaller than this (times the value where it is above
1)."""

BINARY = ("failure_fraction", "mode_accuracy", "greedy_accuracy", "vote_accuracy", "fidelity")

Direction = Literal["rose", "fell", "level", "unclear", "unknown"]


@dataclass(frozen=True, slots=True)
class Change:
    """``end - start`` of a number between two rounds, with its interval over the prompts."""

    name: str
    start_round: int
    end_round: int
    start: Estimate
    end: Estimate
    low: float | None
    high: float | None
    method: str
    n: int
    """Prompts behind it."""
    moved: int
    """Those of them whose own number changed; all, where that is not known."""

    @property
    def value(self) -> float | None:
        if self.start.value is None or self.end.value is None:
            return None
        return self.end.value - self.start.value

    @property
    def direction(self) -> Direction:
        """``rose`` or ``fell`` where the interval leaves out 0, the change is ``LEAST_CHANGE`` or
        more and ``FEWEST`` prompts moved; ``level`` where the interval, a prompt's weight added to
        either side, is within ``SAME``; ``unknown`` without an interval; else ``unclear``: too few
        prompts to tell."""
        if self.value is None or self.low is None or self.high is None:
            return "unknown"
        least, same, one = (self._scale * x for x in (LEAST_CHANGE, SAME, 1 / max(self.n, 1)))
        if abs(self.value) >= least and self.moved >= FEWEST and (self.low > 0 or self.high < 0):
            return "rose" if self.low > 0 else "fell"
        within = self.low - one >= -same and self.high + one <= same
        return "level" if within else "unclear"

    @property
    def needed(self) -> int:
        """Prompts with which the interval would be ``SAME`` to either side, at least."""
        if self.low is None or self.high is None:
            return 0
        half = (self.high - self.low) / 2 + self._scale / max(self.n, 1)
        return enough(self.n, half, SAME * self._scale)

    @property
    def _scale(self) -> float:
        return max(1.0, abs(self.start.value or 0.0))


def change(name: str, start: Round, end: Round, *, among: int = 1) -> Change:
    """The change of the number ``name`` from round ``start`` to round ``end``.

    Args:
        name: of the estimate.
        start, end: rounds.
        among: changes that it is the most striking one of: its interval has the level
            1 - 0.05 / among, so that all of them hold together (Bonferroni).
    """
    a, b = start[name], end[name]
    low, high, method = None, None, "undefined"
    n = moved = min(a.n, b.n)
    paired = _paired(name, start.table, end.table, among)
    if a.value is None or b.value is None:
        pass
    elif paired is not None and np.isclose(paired.mean, b.value - a.value, rtol=1e-3, atol=1e-6):
        low, high, n, moved = paired.low, paired.high, paired.n, paired.moved
        method = f"paired over {n} prompts"
    elif a.low is not None and a.high is not None and b.low is not None and b.high is not None:
        wider = float(ndtri(1 - 0.025 / among) / ndtri(0.975))
        low = b.value - a.value - wider * float(np.hypot(b.value - b.low, a.high - a.value))
        high = b.value - a.value + wider * float(np.hypot(b.high - b.value, a.value - a.low))
        method = "two intervals combined as independent"
    else:
        method = "no interval can be given"
    return Change(name, start.round, end.round, a, b, low, high, method, n, moved)


def per_prompt(name: str, table: PromptTable) -> Floats | None:
    """The number of each prompt whose mean over prompts is the estimate ``name``."""
    columns = {
        "kappa": lambda: 1 / np.where(table.p_star > 0, table.p_star, np.nan),
        "confidence": lambda: table.p_star,
        "failure_fraction": lambda: np.where(np.isnan(table.p_star), np.nan, table.p_star <= 0.5),
        "fidelity": lambda: table.mode_is_base_mode,
        "sampling_accuracy": lambda: table.sampling_accuracy,
        "mode_accuracy": lambda: table.mode_correct,
        "greedy_accuracy": lambda: table.greedy_correct,
        "vote_accuracy": lambda: table.vote_correct,
        "vote_share": lambda: table.vote_share,
        "kappa_vote": lambda: 1 / np.where(table.vote_share > 0, table.vote_share, np.nan),
    }
    return columns[name]() if name in columns else None


@dataclass(frozen=True, slots=True)
class _Paired:
    """The mean difference over prompts and its interval."""

    mean: float
    low: float
    high: float
    n: int
    moved: int


def _paired(
    name: str, start: PromptTable | None, end: PromptTable | None, among: int
) -> _Paired | None:
    """Student's t; widened by 1/n for 0/1 values."""
    if start is None or end is None or start.prompt_id != end.prompt_id:
        return None
    a, b = per_prompt(name, start), per_prompt(name, end)
    if a is None or b is None:
        return None
    d = (b - a)[np.isfinite(b - a)]
    n = len(d)
    if n < 2:
        return None
    half = float(stdtrit(n - 1, 1 - 0.025 / among) * d.std(ddof=1) / np.sqrt(n))
    mean = float(d.mean())
    low, high = mean - half, mean + half
    if name in BINARY:
        low, high = max(low - 1 / n, -1.0), min(high + 1 / n, 1.0)
    return _Paired(mean, low, high, n, int(np.count_nonzero(d)))
