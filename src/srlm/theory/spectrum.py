"""Which decay regime a spectrum follows: exponential, polynomial, spiked, or it cannot be told.

The three regimes of [SR] Cor. 6.4. The criterion is stated in `fit_decay` and its numbers come
with the answer; the constants are raised until the regime's inequality holds for every eigenvalue,
so that the bound on d_eff holds for this spectrum whatever the fit is worth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from srlm.errors import UserError
from srlm.theory.checks import check_positive
from srlm.theory.dimension import (
    check_spectrum,
    exponential_bound,
    polynomial_bound,
    spiked_bound,
)

CANNOT_BE_TOLD = "cannot be told"
LEAST_EIGENVALUES = 8
LEAST_R2 = 0.98
LEAST_LEAD = 1.4


@dataclass(frozen=True)
class DecayFit:
    """A decay regime with the evidence for it.

    regime:      "exponential", "polynomial", "spiked" or "cannot be told"
    reason:      why, in words with numbers
    r2:          share of the variance of log s explained, by regime
    rms:         root mean square residual of log s (nats, degrees of freedom paid), by regime
    scale, rate: C and alpha of the regime's inequality (nan for spiked and for no answer)
    rank, tail_mass: r and tau of the spiked regime (0 and the whole trace elsewhere)
    used:        eigenvalues above the floor, those that the fit saw
    """

    regime: str
    reason: str
    r2: dict[str, float]
    rms: dict[str, float]
    scale: float
    rate: float
    rank: int
    tail_mass: float
    used: int

    def bound(self, ridge: float) -> float:
        """The regime's upper bound on d_eff(ridge); UserError where there is no regime."""
        if self.regime == "exponential":
            return exponential_bound(self.scale, self.rate, ridge)
        if self.regime == "polynomial":
            return polynomial_bound(self.scale, self.rate, ridge)
        if self.regime == "spiked":
            return spiked_bound(self.rank, self.tail_mass, ridge)
        raise UserError("the spectrum follows no regime", "use effective_dimension itself")


def fit_decay(spectrum_D: ArrayLike, floor: float = 1e-10) -> DecayFit:
    """The decay regime of a spectrum, by least squares on log s over the eigenvalues above a floor.

    Three descriptions of log s_i: a line in i (exponential), a line in log i (polynomial), two
    levels with a step after i = r (spiked, best r of 1..D-1). Each residual pays for its
    parameters (2, 2, 3). The best is the answer if it explains at least 98% of the variance of
    log s, and leaves a residual at least 1.4 times smaller than the next best; a polynomial rate
    must exceed 1. Otherwise, or with fewer than 8 eigenvalues above the floor, it cannot be told.

    spectrum_D: eigenvalues, (D,).  floor: relative to the largest; what lies below is rounding.
    Source: the regimes [SR] Cor. 6.4; the criterion is our own.  Raises UserError by name.
    Cost O(D^2) at most, by way of cumulative sums O(D).

    >>> fit_decay([0.8**i for i in range(40)]).regime
    'exponential'
    >>> fit_decay([(i + 1) ** -2.0 for i in range(40)]).regime
    'polynomial'
    >>> fit_decay([9.0, 8.0, 7.0] + [0.1] * 37).rank
    3
    >>> fit_decay([1.0] * 40).regime
    'cannot be told'
    """
    values = check_spectrum(spectrum_D)
    kept = values[values > check_positive("floor", floor) * values[0]]
    log_s = np.log(kept)
    count, trace = len(kept), float(values.sum())
    spread = float(np.sum((log_s - log_s.mean()) ** 2))

    def answer(regime: str, reason: str, **found: float) -> DecayFit:
        return DecayFit(
            regime=regime,
            reason=reason,
            r2=r2,
            rms=rms,
            scale=found.get("scale", math.nan),
            rate=found.get("rate", math.nan),
            rank=int(found.get("rank", 0)),
            tail_mass=found.get("tail_mass", trace),
            used=count,
        )

    r2: dict[str, float] = {}
    rms: dict[str, float] = {}
    if count < LEAST_EIGENVALUES:
        return answer(
            CANNOT_BE_TOLD, f"{count} eigenvalues above the floor, {LEAST_EIGENVALUES} needed"
        )
    if spread <= 1e-6 * count:
        return answer(CANNOT_BE_TOLD, "the eigenvalues are all equal: there is no decay")
    index = np.arange(1, count + 1, dtype=float)
    exponential, sum_exponential = _line(index, log_s)
    polynomial, sum_polynomial = _line(np.log(index), log_s)
    rank, sum_spiked = _step(log_s)
    sums = {"exponential": sum_exponential, "polynomial": sum_polynomial, "spiked": sum_spiked}
    for name, total in sums.items():
        r2[name] = 1.0 - total / spread
        rms[name] = math.sqrt(total / (count - (3 if name == "spiked" else 2)))
    best, second = sorted(rms, key=rms.__getitem__)[:2]
    if r2[best] < LEAST_R2:
        return answer(
            CANNOT_BE_TOLD,
            f"{best} fits best but explains {r2[best]:.3f} of the variance of log s, "
            f"below {LEAST_R2}",
        )
    lead = rms[second] / max(rms[best], 1e-12)
    if lead < LEAST_LEAD:
        return answer(
            CANNOT_BE_TOLD,
            f"{second} fits nearly as well as {best}: residuals {rms[second]:.3g} and "
            f"{rms[best]:.3g} nats, a ratio of {lead:.2f}, below {LEAST_LEAD}",
        )
    reason = (
        f"explains {r2[best]:.3f} of the variance of log s over {count} eigenvalues; residual "
        f"{rms[best]:.3g} nats, next best ({second}) {rms[second]:.3g}"
    )
    if best == "spiked":
        return answer(best, reason, rank=rank, tail_mass=float(values[rank:].sum()))
    rate = -(exponential if best == "exponential" else polynomial)
    if best == "polynomial" and rate <= 1.0:
        return answer(CANNOT_BE_TOLD, f"polynomial with rate {rate:.3f}: the regime needs above 1")
    decay = rate * (index if best == "exponential" else np.log(index))
    scale = math.exp(float(np.max(log_s + decay)))
    # what lies under the floor must satisfy the inequality too
    below = values[count:]
    if below.size:
        later = np.arange(count + 1, len(values) + 1, dtype=float)
        decay = rate * (later if best == "exponential" else np.log(later))
        with np.errstate(divide="ignore"):
            scale = max(scale, math.exp(float(np.max(np.log(below) + decay))))
    return answer(best, reason, scale=scale, rate=rate)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and residual sum of squares of the least-squares line of y on x."""
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    residual = y - y.mean() - slope * centred
    return slope, float(residual @ residual)


def _step(y: np.ndarray) -> tuple[int, float]:
    """The r that makes two constant levels fit y best, and the residual sum of squares."""
    ranks = np.arange(1, len(y))
    sums, squares = np.cumsum(y), float(y @ y)
    head, tail = sums[:-1], sums[-1] - sums[:-1]
    residual = squares - head**2 / ranks - tail**2 / (len(y) - ranks)
    best = int(np.argmin(residual))
    return int(ranks[best]), max(float(residual[best]), 0.0)
