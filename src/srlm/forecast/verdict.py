"""Go or no-go, in one sentence, with the evidence behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from srlm.forecast.trajectory import Point
from srlm.measure.intervals import mean
from srlm.types import Estimate, Floats

WORTH = 0.01
"""Least gain in sampling accuracy that is worth a training."""
SHARED = 0.2
"""Share of prompts with one and the same mode from which on it is named."""
GROWTH = 0.05
"""Least growth from its share of the draws to its share of the modes that is a collapse."""
COLLAPSE = 0.5
"""Share of the base's mean length under which the destination is a collapse."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``go``, ``no-go`` or ``unclear``, and why."""

    verdict: str
    reason: str
    gain: Estimate | None
    """Mode accuracy minus sampling accuracy, paired over prompts; None without answers."""


@dataclass(frozen=True, slots=True)
class Commonest:
    """The mode that most prompts share."""

    text: str
    share: float


def commonest(mode_text_P: Sequence[str | None]) -> Commonest:
    """The likeliest response that most prompts share; share 0 where no two prompts share one."""
    counts = Counter(text for text in mode_text_P if text is not None)
    text, count = min(counts.items(), key=lambda item: (-item[1], item[0]), default=("", 0))
    return Commonest(text, count / len(mode_text_P)) if count > 1 else Commonest("", 0.0)


def decide(
    points: Sequence[Point],
    end: Point,
    mode_text_P: Sequence[str | None],
    sampling_P: Floats,
    mode_right_P: Floats,
    majority: tuple[int, float] | None,
    seed: int,
    *,
    drawn: Mapping[str, float],
) -> Verdict:
    """The verdict on likelihood self-reward from a forecast.

    With answers: go where the destination (mode accuracy) is above sampling accuracy by
    ``WORTH`` or more with 95 % confidence, no-go where it is below with 95 % confidence or where
    no gain above ``WORTH`` is left within it, else unclear. Without answers: no-go where the
    destination is a collapse (many modes one and the same response that is commoner among them
    than among the draws, or less than half of the length), else unclear, for confidence is no
    correctness.

    Args:
        points: rounds 0..T.
        end: the destination.
        mode_text_P: likeliest response of each prompt.
        sampling_P, mode_right_P: of each prompt with an answer (empty without).
        majority: (k, accuracy) of a majority vote over k draws.
        seed: of the bootstrap.
        drawn: the base's draws: share of each text.
    """
    first, last = points[0], points[-1]
    common = commonest(mode_text_P)
    shown = (
        f"{common.share:.0%} of prompts have one and the same likeliest response, "
        f"{_quoted(common.text)}"
    )
    shrinks = _value(end.length) < COLLAPSE * _value(first.length)
    if len(sampling_P) == 0:
        spreads = common.share >= max(SHARED, drawn.get(common.text, 0.0) + GROWTH)
        if spreads or shrinks:
            why = shown if spreads else _length(first, end)
            return Verdict("no-go", f"do not: {why}; self-rewarding leads there", None)
        return Verdict(
            "unclear",
            f"confidence is predicted to rise from {_n(first.confidence)} to "
            f"{_n(last.confidence)} in {_rounds(last.round)}; without answers nobody can tell "
            "whether the likeliest responses are good: read them below",
            None,
        )
    gain = mean(mode_right_P - sampling_P, seed, "mode accuracy - sampling accuracy, paired")
    assert gain.value is not None and gain.low is not None and gain.high is not None
    ceiling = float(np.mean(mode_right_P))
    before, after = _n(first.sampling_accuracy), _n(last.sampling_accuracy)
    if gain.low >= WORTH:
        reached = _reached(points, ceiling)
        text = (
            f"self-rewarding is predicted to raise sampling accuracy from {before} to "
            f"{_n(reached.sampling_accuracy)} in {_rounds(reached.round)}; it ends at mode "
            f"accuracy {ceiling:.2f}"
        )
        if majority is not None:
            text += f"; a majority vote over {majority[0]} draws already gives {majority[1]:.2f}"
        return Verdict("go", text, gain)
    if gain.high < 0:
        why = (
            shown
            if common.share >= SHARED
            else f"the likeliest responses are right on {ceiling:.2f}"
        )
        return Verdict(
            "no-go",
            f"do not: {why}; sampling accuracy is predicted to fall from {before} to {after} "
            f"(its end is mode accuracy {ceiling:.2f})",
            gain,
        )
    if gain.high < WORTH:
        return Verdict(
            "no-go",
            f"not worth it: mode accuracy {ceiling:.2f}, the ceiling, is no better than sampling "
            f"accuracy {before}",
            gain,
        )
    return Verdict(
        "unclear",
        f"the difference of mode accuracy {ceiling:.2f} and sampling accuracy {before} lies in "
        f"[{gain.low:+.2f}, {gain.high:+.2f}]: measure on more prompts",
        gain,
    )


def _reached(points: Sequence[Point], ceiling: float) -> Point:
    """The first round within .01 of the last supported round's accuracy."""
    carried = [p for p in points if p.supported] or list(points[:1])
    goal = _value(carried[-1].sampling_accuracy) - 0.01
    return next(p for p in carried if _value(p.sampling_accuracy) >= goal)


def _length(first: Point, end: Point) -> str:
    return (
        f"the mean length is predicted to fall from {_value(first.length):.1f} to "
        f"{_value(end.length):.1f} tokens"
    )


def _rounds(count: float) -> str:
    return "1 round" if count == 1 else f"{count:g} rounds"


def _quoted(text: str) -> str:
    short = text if len(text) <= 40 else text[:40] + "…"
    return "the empty one" if not short else f"“{short}”"


def _value(estimate: Estimate) -> float:
    return float("nan") if estimate.value is None else estimate.value


def _n(estimate: Estimate) -> str:
    return "?" if estimate.value is None else f"{estimate.value:.2f}"
