"""How fast trained rounds follow the path of exact ones, and where they go next.

Exact updates give pi_{t+1} proportional to pi_t^e with e = 1 + 1/beta. A trained round gives
about pi_t^(e^eta): its *efficiency* eta is read off the confidence that it reached,

    E_x max_y pi_t(y|x)^s / Z_s(x) = E_x p*_{t+1}(x),    eta = log s / log(1 + 1/beta),

s the step's exponent. Later rounds are foretold as powers of the *present* policy, from its own
draws and modes, so that the drift of the rounds done is in the forecast:
pi_{t+j} proportional to pi_t^(e^(eta j)), eta the mean of the efficiencies seen and of a quarter
of a round of efficiency 1. Accuracy falls short of what the power of the policy before would give,
for training sharpens wrong responses too (drift): the share that it kept in the last round done,
and a little less, is foretold for the later ones. (The slope p_eff on the base's draws is another
number: it weighs unlikely responses, which training hardly moves, and so understates how sharp the
modes become.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq

from srlm.errors import UserError
from srlm.forecast.powers import Known, sharpen
from srlm.forecast.trajectory import Evidence, Point, at_exponent
from srlm.types import Estimate, Floats

PRIOR_EFFICIENCY = 1.0
"""Before any round is seen: that of exact updates."""
PRIOR_ROUNDS = 0.25
"""How many rounds that prior counts for. A step's exponent changes little over a run's rounds, and
where it changes it mostly grows."""
LATER_KEPT = 0.98
"""Share of its accuracy that a trained policy keeps in rounds after those seen, besides the share
kept in the last of them: drift goes on, and levels off."""
SPREAD = 0.2
"""Standard deviation of a later round's efficiency around the forecast's, from the backtest."""
SATURATED = 0.995
"""Mean confidence above which a step's exponent cannot be read off any more."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one trained round did, as a power of the policy before it."""

    exponent: float | None
    """s; None where the policy before was sure already, or became less sure."""
    efficiency: float | None
    """log s / log(1 + 1/beta)."""
    why: str = ""
    """Why it cannot be told."""
    kept: float = 1.0
    """Accuracy after the round over that of pi_t^s, at most 1: what drift left of it."""


def step(before: Known, confidence_before: float, confidence_after: float, beta: float) -> Step:
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
        return Step(None, None, f"mean confidence was {confidence_before:.3f} already")
    if confidence_after <= confidence_before:
        return Step(None, None, "confidence did not rise")

    def gap(log_s: float) -> float:
        reached = np.exp(sharpen(before, float(np.exp(log_s))).log_top_P).mean()
        return float(reached) - confidence_after

    most = np.log(1e4)
    if gap(most) < 0:
        return Step(None, None, "surer than any power of the policy before: ties were broken")
    log_s = float(brentq(gap, 0.0, most, xtol=1e-6)) if gap(0.0) < 0 else 0.0
    return Step(float(np.exp(log_s)), log_s / float(np.log1p(1 / beta)))


def expected_efficiency(steps: Sequence[Step]) -> float:
    """Mean of the efficiencies seen and of ``PRIOR_ROUNDS`` of a round of efficiency 1.

    >>> round(expected_efficiency([Step(2.0, 0.5), Step(None, None, "sure already")]), 3)
    0.6
    """
    seen = [s.efficiency for s in steps if s.efficiency is not None]
    return (PRIOR_ROUNDS * PRIOR_EFFICIENCY + sum(seen)) / (PRIOR_ROUNDS + len(seen))


@dataclass(frozen=True, slots=True)
class Ahead:
    """A later round foretold at the pace seen, with a slower and a faster one around it."""

    round: int
    expected: Point
    slow: Point
    """At an efficiency two standard deviations lower (0 at least)."""
    fast: Point

    def told(self, name: str) -> Estimate:
        """The expected value, its band spanned by the slow and the fast forecast."""
        points = (self.slow, self.expected, self.fast)
        ends = [x for p in points for x in _ends(getattr(p, name)) if x is not None]
        return replace(
            getattr(self.expected, name), low=min(ends, default=None), high=max(ends, default=None)
        )

    def covers(self, name: str, value: float) -> bool:
        """Whether a measured value lies between the slow and the fast forecast, intervals in."""
        band = self.told(name)
        return band.low is not None and band.high is not None and band.low <= value <= band.high


def ahead(
    now: Evidence, done: int, steps: Sequence[Step], *, beta: float, rounds: int
) -> list[Ahead]:
    """Rounds ``done + 1`` .. ``rounds`` from the policy of round ``done``.

    Args:
        now: what is known of pi_done, from its own held-out draws and modes.
        done: rounds done; 0 gives the ideal forecast from the base.
        steps: what each of them did.
        beta: of the update.
        rounds: T.
    """
    eta = expected_efficiency(steps)
    ideal = float(np.log1p(1 / beta))

    kept = steps[-1].kept * LATER_KEPT if steps else 1.0

    def point(j: int, efficiency: float) -> Point:
        exponent = float(np.exp(efficiency * ideal * j))
        found = at_exponent(now, exponent, beta=beta, number=done + j)
        return replace(found, sampling_accuracy=_scaled(found.sampling_accuracy, kept))

    out = []
    for j in range(1, rounds - done + 1):
        spread = 2 * SPREAD / np.sqrt(j)
        out.append(
            Ahead(done + j, point(j, eta), point(j, max(eta - spread, 0.0)), point(j, eta + spread))
        )
    return out


@dataclass(frozen=True, slots=True)
class Score:
    """How well forecasts made after round ``made`` foretold what was then measured."""

    made: int
    kappa_error_T: Floats
    """(forecast - measured) / measured, by later round."""
    accuracy_error_T: Floats
    """forecast - measured; not-a-number without answers."""
    covered: int
    """Measured kappas within the forecast's band."""


def score(
    foretold: Sequence[Ahead], made: int, kappa_T: Sequence[float], accuracy_T: Sequence[float]
) -> Score:
    """Compare a forecast with the rounds that followed, in order."""
    pairs = list(zip(foretold, kappa_T, accuracy_T, strict=False))
    kappas = [_value(a.expected.kappa.value) / k - 1 for a, k, _ in pairs]
    accuracies = [_value(a.expected.sampling_accuracy.value) - acc for a, _, acc in pairs]
    return Score(
        made,
        np.array(kappas),
        np.array(accuracies),
        sum(a.covers("kappa", k) for a, k, _ in pairs),
    )


def kept_accuracy(before: Evidence, exponent: float | None, accuracy: float | None) -> float:
    """What drift left of the accuracy that pi_t^s would have: at most 1, at least 1/2.

    Args:
        before: of the policy before the round.
        exponent: s, the step's; None gives 1.
        accuracy: measured after the round; None gives 1.
    """
    if exponent is None or accuracy is None:
        return 1.0
    pure = at_exponent(before, exponent, beta=1.0, number=0).sampling_accuracy.value
    return 1.0 if not pure else float(np.clip(accuracy / pure, 0.5, 1.0))


def _scaled(e: Estimate, factor: float) -> Estimate:
    value, low, high = (None if x is None else x * factor for x in (e.value, e.low, e.high))
    return replace(e, value=value, low=low, high=high)


def _ends(e: Estimate) -> tuple[float | None, float | None, float | None]:
    return e.value, e.low, e.high


def _value(x: float | None) -> float:
    return float("nan") if x is None else x
