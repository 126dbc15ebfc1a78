"""Go or no-go from a forecast, with the reason and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from srlm.forecast.trajectory import Point
from srlm.measure.intervals import FEWEST, enough, mean
from srlm.types import Estimate, Floats

WORTH = 0.01
"""Least gain in sampling accuracy that is worth a training."""
TOLD = 0.05
"""Half-width of an interval of the gain that is narrow enough, where the gain is smaller."""
SHARED = 0.2
"""Share of prompts with one and the same mode from which on it is named."""
GROWTH = 0.05
"""Least growth from its share of the samples to its share of the modes that is a collapse."""
COLLAPSE = 0.5
"""Share of the base's mean length under which the limit is a collapse."""
ELSEWHERE = "Do not train on likelihood. A reward that tells right from wrong (judge) may help."


@dataclass(frozen=True, slots=True)
class Verdict:
    """``go``, ``no-go`` or ``unclear``, and why."""

    verdict: str
    reason: str
    advice: str
    """What to do, a sentence."""
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
    sampled: Mapping[str, float],
) -> Verdict:
    """The verdict on likelihood self-reward from a forecast.

    With answers: go where the limit (mode accuracy) is above sampling accuracy by
    ``WORTH`` or more with 95% confidence, no-go where it is below with 95% confidence or where
    no gain above ``WORTH`` is left within it (a prompt's weight added), else unclear. A gain or
    loss takes ``FEWEST`` prompts that show one. Without answers: no-go where the
    limit is a collapse (many modes one and the same response that is commoner among them
    than among the samples, or less than half of the length), else unclear, for confidence is no
    correctness.

    Args:
        points: rounds 0..T.
        end: the limit of infinitely many rounds.
        mode_text_P: likeliest response of each prompt.
        sampling_P, mode_right_P: of each prompt with an answer (empty without).
        majority: (k, accuracy) of a majority vote over k samples.
        seed: of the bootstrap.
        sampled: the base's samples: share of each text.
    """
    first, last = points[0], points[-1]
    common = commonest(mode_text_P)
    shown = f"{common.share:.0%} of prompts share one most likely response, {_quoted(common.text)}"
    if len(sampling_P) == 0:
        if common.share >= max(SHARED, sampled.get(common.text, 0.0) + GROWTH):
            return Verdict("no-go", f"collapse: {shown}", ELSEWHERE, None)
        if _value(end.length) < COLLAPSE * _value(first.length):
            shrinks = (
                f"collapse: mean length {_value(first.length):.1f} → {_value(end.length):.1f} "
                "tokens in the limit"
            )
            return Verdict("no-go", shrinks, ELSEWHERE, None)
        rise = f"confidence {_n(first.confidence)} → {_n(last.confidence)} by round {last.round:g}"
        return Verdict(
            "unclear",
            f"{rise}; without answers nothing says whether that is good",
            "Read the most likely responses below, or give prompts with answers.",
            None,
        )
    method = "mode accuracy - sampling accuracy, paired"
    gain = mean(mode_right_P - sampling_P, seed, method, least=-1.0, most=1.0)
    if gain.value is None or gain.low is None or gain.high is None:
        few = f"{gain.n} prompt with an answer gives no interval"
        return Verdict("unclear", few, "Measure on more prompts.", gain)
    told = np.count_nonzero(mode_right_P != sampling_P) >= FEWEST
    limit = f"limit: mode accuracy {np.mean(mode_right_P):.3f}"
    accuracy, before = "sampling accuracy", f"{np.mean(sampling_P):.3f}"
    if told and gain.low >= WORTH:
        reached = _reached(points)
        text = f"{accuracy} {before}; {limit}"
        if reached.round:
            need = _rounds(reached.round)
            advice = f"Train. Exact updates need {need}, gradient training more (--pilot)."
        else:
            advice = "Train. The samples do not tell how many rounds it takes (--pilot)."
        if majority is not None:
            text += f"; majority vote over {majority[0]} samples, no training: {majority[1]:.3f}"
            if majority[1] >= float(np.mean(mode_right_P)) - WORTH:
                advice += " Beside a majority vote it saves inference, not errors."
        return Verdict("go", text, advice, gain)
    if told and gain.high < 0:
        why = f"; {shown}" if common.share >= SHARED else ""
        return Verdict("no-go", f"{accuracy} {before}; {limit}{why}", ELSEWHERE, gain)
    if gain.n >= FEWEST and gain.high + 1 / gain.n < WORTH:
        text = f"nothing to gain: {accuracy} {before}, {limit}"
        return Verdict("no-go", text, "Keep the base.", gain)
    text = (
        f"{accuracy} {before}, {limit}: difference {gain.value:+z.3f} "
        f"[{gain.low:+z.3f}, {gain.high:+z.3f}]"
    )
    few = f"Measure on more prompts: {needed(gain):,} or more."
    return Verdict("unclear", text, few, gain)


def needed(gain: Estimate) -> int:
    """Prompts with which a gain of this size would be told from ``WORTH``, or one under ``TOLD``
    would have an interval of that half-width.

    >>> needed(Estimate(0.1, -0.01, 0.21, 24, ""))
    69
    """
    assert gain.value is not None and gain.low is not None and gain.high is not None
    half = (gain.high - gain.low) / 2 + 1 / gain.n
    return max(enough(gain.n, half, max(abs(gain.value - WORTH), TOLD)), gain.n + 1)


def _reached(points: Sequence[Point]) -> Point:
    """The first round within 0.01 of the last supported round's accuracy."""
    supported = [p for p in points if p.supported] or list(points[:1])
    goal = _value(supported[-1].sampling_accuracy) - 0.01
    return next(p for p in supported if _value(p.sampling_accuracy) >= goal)


def _rounds(count: float) -> str:
    return "1 round" if count == 1 else f"{count:g} rounds"


def _quoted(text: str) -> str:
    short = text if len(text) <= 40 else text[:40] + "…"
    return "the empty one" if not short else f"“{short}”"


def _value(estimate: Estimate) -> float:
    return float("nan") if estimate.value is None else estimate.value


def _n(estimate: Estimate) -> str:
    return "–" if estimate.value is None else f"{estimate.value:.3f}"
