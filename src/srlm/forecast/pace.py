"""How fast trained rounds follow the path of exact updates, and where they go next.

Exact updates give pi_{t+1} proportional to pi_t^e with e = 1 + 1/beta. A trained round gives
about pi_t^(e^eta): its *efficiency* eta is read off the confidence that it reached,

    E_x max_y pi_t(y|x)^s / Z_s(x) = E_x p*_{t+1}(x),    eta = log s / log(1 + 1/beta),

s the round's exponent. Later rounds are forecast as powers of the *present* policy, from its own
samples and modes, so that the drift of the rounds done is in the forecast:
pi_{t+j} proportional to pi_t^(e^(eta j)), eta the mean of the efficiencies seen and of a quarter
of a round of efficiency 1. Accuracy falls short of what the power of the policy before would give,
for training sharpens wrong responses too (drift): the share that it kept in the last round done,
and a little less, is forecast for the later ones. (The slope p_eff on the base's samples is another
number: it weighs unlikely responses, which training hardly moves, and so understates how sharp the
modes become: docs/decisions/0002.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq

from srlm.errors import UserError
from srlm.forecast.powers import Known, sharpen
from srlm.forecast.trajectory import Evidence, Point, at_exponent, trajectory
from srlm.types import Estimate

PRIOR_EFFICIENCY = 1.0
"""Before any round is seen: that of exact updates."""
PRIOR_ROUNDS = 0.25
"""How many rounds that prior counts for. A round's exponent changes little over a run, and where it
changes it mostly grows."""
LATER_KEPT = 0.98
"""Share of its accuracy that a trained policy keeps in rounds after those seen, besides the share
kept in the last of them: drift goes on, and levels off."""
DEVIATION = 0.2
"""Standard deviation of a later round's efficiency around the forecast's, from the backtest."""
SATURATED = 0.995
"""Mean confidence above which a round's exponent cannot be read off any more."""
FORECAST = ("kappa", "confidence", "sampling_accuracy", "length")
"""What is forecast of a later round, and scored."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What one trained round did, as a power of the policy before it."""

    exponent: float | None
    """s; None where the policy before was certain already, or became less sure."""
    efficiency: float | None
    """log s / log(1 + 1/beta)."""
    why: str = ""
    """Why it is not known."""
    kept: float = 1.0
    """Accuracy after the round over that of pi_t^s, at most 1: what drift left of it."""


def pace(before: Known, confidence_before: float, confidence_after: float, beta: float) -> Pace:
    """The exponent of a trained round, from the mean confidence p* before and after.

    Args:
        before: what is known of the policy before the round.
        confidence_before, confidence_after: mean over the held-out prompts of p*.
        beta: of the update.

    Raises:
        UserError: beta is not positive.
    """
    if beta <= 0:
        raise UserError(f"beta {beta}: not positive", "give --beta above 0")
    if confidence_before >= SATURATED:
        return Pace(None, None, f"mean confidence was {confidence_before:.3f} already")
    if confidence_after <= confidence_before:
        return Pace(None, None, "confidence did not rise")

    def excess(log_s: float) -> float:
        reached = np.exp(sharpen(before, float(np.exp(log_s))).log_top_P).mean()
        return float(reached) - confidence_after

    most = np.log(1e4)
    if excess(most) < 0:
        return Pace(None, None, "surer than any power of the policy before: ties were broken")
    log_s = float(brentq(excess, 0.0, most, xtol=1e-6)) if excess(0.0) < 0 else 0.0
    return Pace(float(np.exp(log_s)), log_s / float(np.log1p(1 / beta)))


def pace_of_round(
    before: Evidence,
    measured_before: Mapping[str, Estimate],
    measured: Mapping[str, Estimate],
    beta: float,
) -> Pace:
    """``pace`` of a trained round from its estimates, with the accuracy that drift left.

    Args:
        before: what is known of the policy before the round.
        measured_before, measured: the estimates before and after it (``confidence``,
            ``sampling_accuracy``).
        beta: of the update.
    """
    start, end = measured_before["confidence"].value, measured["confidence"].value
    if start is None or end is None:
        return Pace(None, None, "confidence was not measured")
    made = pace(before.known, start, end, beta)
    accuracy = measured["sampling_accuracy"].value
    if made.exponent is None or accuracy is None:
        return made
    pure = at_exponent(before, made.exponent, beta=beta, number=0).sampling_accuracy.value
    return replace(made, kept=float(np.clip(accuracy / pure, 0.5, 1.0)) if pure else 1.0)


def expected_efficiency(paces: Sequence[Pace]) -> float:
    """Mean of the efficiencies seen and of ``PRIOR_ROUNDS`` of a round of efficiency 1.

    >>> round(expected_efficiency([Pace(2.0, 0.5), Pace(None, None, "sure already")]), 3)
    0.6
    """
    seen = [p.efficiency for p in paces if p.efficiency is not None]
    return (PRIOR_ROUNDS * PRIOR_EFFICIENCY + sum(seen)) / (PRIOR_ROUNDS + len(seen))


@dataclass(frozen=True, slots=True)
class Later:
    """A later round as forecast at the pace seen, with a slower and a faster one around it."""

    round: int
    expected: Point
    slow: Point
    """At an efficiency two standard deviations lower (0 at least)."""
    fast: Point

    def estimate(self, name: str) -> Estimate:
        """The expected value; its interval spans the slow and the fast forecast, theirs in."""
        each = [getattr(p, name) for p in (self.slow, self.expected, self.fast)]
        ends = [x for e in each for x in (e.value, e.low, e.high) if x is not None]
        return replace(each[1], low=min(ends, default=None), high=max(ends, default=None))

    def to_json(self) -> dict[str, Any]:
        """The round for programs."""
        return {
            "round": self.round,
            "exponent": self.expected.exponent,
            "supported": self.expected.supported,
            **{name: self.estimate(name).to_json() for name in FORECAST},
        }


def later_rounds(
    now: Evidence, done: int, paces: Sequence[Pace], *, beta: float, rounds: int
) -> list[Later]:
    """Rounds ``done + 1`` .. ``rounds`` from the policy of round ``done``.

    Args:
        now: what is known of pi_done, from its own held-out samples and modes.
        done: rounds done; 0 gives the exact trajectory of the base.
        paces: what each of them did.
        beta: of the update.
        rounds: T.

    Cost as three times ``trajectory``.
    """
    ahead = np.arange(1, rounds - done + 1)
    eta = expected_efficiency(paces)
    kept = paces[-1].kept * LATER_KEPT if paces else 1.0
    margin = 2 * DEVIATION / np.sqrt(ahead)

    def path(efficiency: Sequence[float]) -> list[Point]:
        points = trajectory(now, beta=beta, rounds=len(ahead), efficiency=[1.0, *efficiency])
        return [
            replace(p, round=done + p.round, sampling_accuracy=_scaled(p.sampling_accuracy, kept))
            for p in points[1:]
        ]

    slow, expected, fast = (
        path(np.maximum(eta + side * margin, 0.0).tolist()) for side in (-1, 0, 1)
    )
    each = zip(ahead.tolist(), expected, slow, fast, strict=True)
    return [Later(done + j, at_pace, below, above) for j, at_pace, below, above in each]


def forecast_json(done: int, paces: Sequence[Pace], later: Sequence[Later]) -> dict[str, Any]:
    """A forecast made after round ``done``, as a run folder keeps it.

    Returns:
        ``made`` (the round), ``efficiency`` (expected of later rounds), ``pace`` (of the round
        itself), ``later`` (each later round: estimates whose interval spans slow to fast).
    """
    return {
        "made": done,
        "efficiency": expected_efficiency(paces),
        "pace": asdict(paces[-1]) if paces else None,
        "later": [x.to_json() for x in later],
    }


@dataclass(frozen=True, slots=True)
class Score:
    """A forecast beside the rounds measured since: one quantity."""

    name: str
    rounds: int
    mean_error: float
    """Mean of |forecast - measured|; of kappa, relative to the measured one."""
    inside: int
    """Measured values within the forecast's interval."""


def score(
    later: Sequence[Mapping[str, Any]], measured: Mapping[int, Mapping[str, Estimate]]
) -> list[Score]:
    """How a forecast did on the rounds since, by quantity; those without a measured round left out.

    Args:
        later: ``forecast_json``'s ``later``.
        measured: the estimates of each round.
    """
    out = []
    for name in FORECAST:
        errors, inside = [], 0
        for row in later:
            seen = measured[row["round"]][name].value if row["round"] in measured else None
            value, low, high = (row[name][end] for end in ("value", "low", "high"))
            if seen is None or value is None:
                continue
            errors.append(abs(value - seen) / (seen if name == "kappa" else 1.0))
            inside += low <= seen <= high
        if errors:
            out.append(Score(name, len(errors), float(np.mean(errors)), inside))
    return out


def _scaled(e: Estimate, factor: float) -> Estimate:
    value, low, high = (None if x is None else x * factor for x in (e.value, e.low, e.high))
    return replace(e, value=value, low=low, high=high)
