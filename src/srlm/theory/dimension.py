"""What replaces log|Pi| for a parametric class: covering number and effective dimension.

[SR] Def. 6.1, Thm 6.2, Cor. 6.4, App. F and G. Spectra
are eigenvalues of the covariance of the features phi (the unit of phi squared), largest first.
The three decay bounds hold with the constants stated, for every ridge l > 0: each is our own.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from srlm.errors import UserError
from srlm.theory.checks import check_count, check_not_negative, check_positive


def log_covering_number(dimension: int, radius: float, epsilon: float) -> float:
    """log N <= d log(1 + 4R/epsilon): what takes the place of log|Pi|, nats.

    With |phi| <= 1, |theta - theta'| <= epsilon/2 moves every log-ratio
    log pi(y|x)/pi(y'|x) by at most epsilon, and a ball of radius R in d dimensions is covered by
    (1 + 2R/r)^d balls of radius r = epsilon/2.

    dimension: d >= 1.  radius: R > 0.  epsilon: nats, > 0.
    Source: [SR] App. F.  Raises UserError by name.

    >>> round(log_covering_number(10, 5.0, 0.1), 3)
    53.033
    """
    dimension = check_count("dimension", dimension)
    return dimension * math.log1p(
        4.0 * check_positive("radius", radius) / check_positive("epsilon", epsilon)
    )


def check_spectrum(spectrum_D: ArrayLike) -> np.ndarray:
    """The spectrum as a float array, largest first; raises UserError if it is not one.

    Negative values no larger than 1e-10 of the largest are rounding, and become 0.
    """
    values = np.sort(np.asarray(spectrum_D, dtype=float).ravel())[::-1]
    if values.size == 0 or not np.all(np.isfinite(values)) or values[0] <= 0.0:
        raise UserError(
            "the spectrum is empty, not finite, or has no positive eigenvalue",
            "give the eigenvalues of a covariance",
        )
    if values[-1] < -1e-10 * values[0]:
        raise UserError(
            f"the spectrum has the negative eigenvalue {values[-1]:.3g}",
            "give the eigenvalues of a covariance: they are never negative",
        )
    return np.maximum(values, 0.0)


def effective_dimension(spectrum_D: ArrayLike, ridge: float) -> float:
    """d_eff(l) = sum_i s_i/(s_i + l): the dimension that a ridge l still sees, in [0, D].

    spectrum_D: eigenvalues, (D,).  ridge: l > 0, the unit of the eigenvalues.
    Source: [SR] Cor. 6.4, App. G.  Raises UserError by name.  Cost O(D).

    >>> effective_dimension([1.0, 1.0, 0.0], 1.0)
    1.0
    """
    values = check_spectrum(spectrum_D)
    return float(np.sum(values / (values + check_positive("ridge", ridge))))


def exponential_bound(scale: float, rate: float, ridge: float) -> float:
    """If s_i <= C exp(-alpha i), i >= 1: d_eff(l) <= log(1 + C/l)/alpha.

    The terms fall with i, so the sum is below int_0^inf dx/(1 + (l/C) e^{alpha x}), which is
    that. It is above the sum by less than C/(C+l) < 1.

    scale: C > 0.  rate: alpha > 0.  ridge: l > 0.  Source: [SR] Cor. 6.4, constants our own.

    >>> round(exponential_bound(1.0, 0.5, 0.01), 3)
    9.23
    """
    scale = check_positive("scale", scale)
    return math.log1p(scale / check_positive("ridge", ridge)) / check_positive("rate", rate)


def polynomial_bound(scale: float, rate: float, ridge: float) -> float:
    """If s_i <= C i^-alpha, alpha > 1: d_eff(l) <= (C/l)^(1/alpha) (pi/alpha)/sin(pi/alpha).

    The sum is below int_0^inf dx/(1 + (l/C) x^alpha), which is that; above the sum by less than 1.

    scale: C > 0.  rate: alpha > 1.  ridge: l > 0.  Source: [SR] Cor. 6.4, constants our own.

    >>> round(polynomial_bound(1.0, 2.0, 0.01), 3)
    15.708
    """
    scale = check_positive("scale", scale)
    ridge = check_positive("ridge", ridge)
    if not (math.isfinite(rate) and rate > 1.0):
        raise UserError(f"rate is {rate}", "give a finite rate above 1: else the trace diverges")
    angle = math.pi / rate
    return float((scale / ridge) ** (1.0 / rate) * angle / math.sin(angle))


def spiked_bound(rank: int, tail_mass: float, ridge: float) -> float:
    """If all but r eigenvalues sum to tau: d_eff(l) <= r + tau/l.

    Each of the first r terms is below 1, each other below s_i/l.

    rank: r >= 0.  tail_mass: tau >= 0, unit of the eigenvalues.  ridge: l > 0.
    Source: [SR] Cor. 6.4.  Raises UserError by name.

    >>> spiked_bound(3, 0.5, 0.25)
    5.0
    """
    rank = check_count("rank", rank, least=0)
    tail_mass = check_not_negative("tail_mass", tail_mass)
    return rank + tail_mass / check_positive("ridge", ridge)
