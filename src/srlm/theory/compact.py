"""The compact recursion kappa_{t+1} <= a + b sqrt(kappa_t) + c log kappa_t and its contraction.

[SR] Appendix C and Corollary 5.7. Its constants (a, b, c) follow from the exact step of
`srlm.theory.recursion`; fixed point, rate and rounds to forget follow from those in closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from srlm.theory.checks import (
    check_count,
    check_kappa,
    check_not_negative,
    check_positive,
    check_probability,
)


@dataclass(frozen=True)
class Compact:
    """kappa_{t+1} <= a + b sqrt(kappa_t) + c log(kappa_t), and its contraction.

    a >= 1, b >= 0, c >= 0, no unit.  [SR] App. C; the names follow the paper.

    >>> step = Compact(a=1.1, b=0.2, c=0.1)
    >>> round(step.slope, 4), round(step.fixed_point, 4), round(step.contraction, 4)
    (0.2736, 1.4268, 0.1145)
    """

    a: float
    b: float
    c: float

    def step(self, kappa: float) -> float:
        """a + b sqrt(kappa) + c log kappa."""
        return self.a + self.b * math.sqrt(kappa) + self.c * math.log(kappa)

    @property
    def slope(self) -> float:
        """B' = b + (2/e) c, since log k <= (2/e) sqrt k for k >= 1 (equal at k = e^2).

        The paper takes log k <= sqrt k, B' = b + c; 2/e is the best constant and costs nothing.
        """
        return self.b + 2.0 / math.e * self.c

    @property
    def fixed_point(self) -> float:
        """u* of g(u) = a + B' sqrt(u)."""
        return fixed_point(self.a, self.slope)

    @property
    def contraction(self) -> float:
        """lambda < 1/2, the slope of g at u*."""
        return contraction_factor(self.a, self.slope)


def fixed_point(a: float, slope: float) -> float:
    """u* = ( (B' + sqrt(B'^2 + 4a))/2 )^2, the one solution of u = a + B' sqrt(u).

    a > 0, slope B' >= 0.  Source: [SR] App. C.  Raises UserError by name.

    >>> fixed_point(2.0, 1.0)
    4.0
    """
    a = check_positive("a", a)
    slope = check_not_negative("slope", slope)
    return ((slope + math.sqrt(slope**2 + 4.0 * a)) / 2.0) ** 2


def contraction_factor(a: float, slope: float) -> float:
    """lambda = B'/(B' + sqrt(B'^2 + 4a)) = g'(u*) < 1/2.

    |g(u) - g(v)| <= lambda |u - v| for u, v >= u*.  Source: [SR] App. C.

    >>> contraction_factor(2.0, 1.0)
    0.25
    """
    a = check_positive("a", a)
    slope = check_not_negative("slope", slope)
    return slope / (slope + math.sqrt(slope**2 + 4.0 * a))


def geometric_bound(kappa0: float, t: int, a: float, slope: float) -> float:
    """kappa_t <= u* + lambda^t max(kappa_0 - u*, 0).

    Holds since g is concave and rising with slope lambda at u*.  Source: [SR] App. C.

    >>> geometric_bound(20.0, 2, 2.0, 1.0)
    5.0
    """
    kappa0 = check_kappa("kappa0", kappa0)
    t = check_count("t", t, least=0)
    u_star = fixed_point(a, slope)
    return u_star + float(contraction_factor(a, slope) ** t) * max(kappa0 - u_star, 0.0)


def compact_recursion(eps: float, beta: float, margin: float, mu: float) -> Compact:
    """The compact recursion of the exact step: its (a, b, c).

    For every z in (1, 1/mu], cutting the tail integral at z and bounding the rest by A u/(u-1),

        kappa_{t+1} <= z + s A_t,   s = 1/mu - z + log( (1/mu - 1)/(z - 1) ),

    the tangent of the (concave) exact step at A = 1 - 1/z. So a = z, b = s eps/gamma and
    c = s beta/gamma. z is the one with the least fixed point u*.

    Source: [SR] App. C; the choice of z is our own.  Raises UserError by name.
    Cost: some 300 scalar evaluations.

    >>> round(compact_recursion(0.001, 0.0, 0.5, 0.1).fixed_point, 4)
    1.0375
    """
    eps = check_not_negative("eps", eps)
    beta = check_not_negative("beta", beta)
    margin = check_positive("margin", margin)
    mu = check_probability("confidence", mu)
    if mu == 1.0:
        return Compact(1.0, 0.0, 0.0)

    top = math.log(1.0 / mu - 1.0)

    def at(log_excess: float) -> Compact:  # z = 1 + e^log_excess
        excess = math.exp(log_excess)
        s = 1.0 / mu - 1.0 - excess + top - log_excess
        s = s if s > 1e-9 else 0.0  # at the top of the range only rounding is left
        return Compact(a=1.0 + excess, b=s * eps / margin, c=s * beta / margin)

    grid = np.linspace(top - 60.0, top, 241)
    heights = [at(float(x)).fixed_point for x in grid]
    best = int(np.argmin(heights))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    found = minimize_scalar(
        lambda x: at(float(x)).fixed_point,
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-10},
    )
    refined = at(float(found.x))
    return refined if refined.fixed_point < heights[best] else at(float(grid[best]))


def rounds_to_forget(kappa0: float, a: float, slope: float) -> int:
    """Least T >= 1 with lambda^((T-1)/2) sqrt(kappa_0) <= sqrt(u*): logarithmic in kappa_0.

    Source: [SR] Corollary 5.7.  Raises UserError by name.  Cost O(1).

    >>> rounds_to_forget(4.0, 2.0, 1.0), rounds_to_forget(4.0 * 64, 2.0, 1.0)
    (1, 4)
    """
    kappa0 = check_kappa("kappa0", kappa0)
    u_star, factor = fixed_point(a, slope), contraction_factor(a, slope)
    if kappa0 <= u_star:
        return 1
    if factor == 0.0:
        return 2
    # a hair of slack, so that an exact power does not cost a round to rounding
    return 1 + math.ceil(math.log(kappa0 / u_star) / -math.log(factor) - 1e-12)
