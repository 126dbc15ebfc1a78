"""Single-step lower bound, in closed form and inverted.

[SR] Theorem 4.1 ([SM] Theorem 3.1'): some instance with condition number kappa_0 and class size
|Pi| makes every learner that sees n sample-and-evaluate triples (x, y, log pi_0(y|x)) lose an
expected mass of about delta of the prompts, where

    n = c * kappa_0 * log|Pi| / (delta^2 * (1 + log(kappa_0/delta))).

Which c makes it true. On the family of `srlm.theory.hard_family`, to leading order, the
adversary picks Delta = sqrt(d (kappa_0-1)/(2n)) and the best learner loses Delta/sqrt(e), so the
c that fits is (kappa_0-1)/(2 e kappa_0), approached
from above as n grows. It goes to 0 with kappa_0 -> 1, where nothing is hidden: no c > 0 serves all
kappa_0 >= 1, and the statement needs kappa_0 bounded away from 1. For kappa_0 >= 2 it is at least
1/(4e) = 0.09197; `STATED_CONSTANT` = 0.09 is that, rounded down. With it the formula holds wherever
it says at most `STATED_CEILING` = 1/2 (checked: d 1 to 1,024, kappa_0 2 to 1,024, n 3 to 1e10).
Nearer to 1 it does not, since the instance itself saturates; but the loss never rises with n, so
min(1/2, formula) holds for every n.
With log|Pi| given and d whole, rounding costs a little: checked from log|Pi| = 75 nats on (at 30
the loss was 0.91 of the formula at worst, at 20 0.79).

Slopes of the loss (four decades of n, kappa_0 from 2 to 256). With d fixed: -1/2 in n, and 1/2 in
kappa_0 - 1, which is 0.557 in kappa_0. With log|Pi| = 200 fixed: 0.51 to 0.53 in kappa_0, and -0.53
to -0.54 in n, as the formula's own logarithm has it. No one parametrisation gives both halves.
"""

from __future__ import annotations

import math

from scipy.special import lambertw

from srlm.theory.checks import check_kappa, check_positive, check_probability

STATED_CONSTANT = 0.09
STATED_CEILING = 0.5


def lower_bound_samples(
    delta: float, kappa0: float, log_class: float, c: float = STATED_CONSTANT
) -> float:
    """Triples that do not suffice to lose less than delta of the mass: n(delta).

    n = c * kappa_0 * log|Pi| / (delta^2 * (1 + log(kappa_0/delta))).

    delta: lost mass in (0, 1].  kappa0: condition number of the start, >= 1.
    log_class: log|Pi| in nats, > 0.  c: the constant, > 0.
    Source: [SR] Theorem 4.1.  Raises UserError by name.  Cost O(1).

    >>> round(lower_bound_samples(0.1, 4.0, 100.0, c=1.0), 2)
    8530.82
    """
    delta = check_probability("delta", delta)
    kappa0 = check_kappa("kappa0", kappa0)
    log_class = check_positive("log_class", log_class)
    c = check_positive("c", c)
    return c * kappa0 * log_class / (delta**2 * (1.0 + math.log(kappa0 / delta)))


def lower_bound_delta(
    n: float, kappa0: float, log_class: float, c: float = STATED_CONSTANT
) -> float:
    """Mass that any learner loses on some instance after n triples: the inverse of n(delta).

    With Q = c * kappa_0 * log|Pi| / n and v = -W_{-1}( -2Q/(e kappa_0)^2 ),
    delta = e * kappa_0 * exp(-v/2), capped at 1 (reached when Q >= 1 + log kappa_0).
    Solved in logs: v - log v = y with y = 2 (1 + log kappa_0) - log(2Q); nothing under- or
    overflows. Below the cap v >= 2: branch -1, and far from its branch point.

    n: triples, > 0.  Others as in `lower_bound_samples`.
    Source: [SR] Theorem 4.1.  Raises UserError by name.  Cost O(1).

    >>> round(lower_bound_delta(8530.82, 4.0, 100.0, c=1.0), 6)
    0.1
    >>> lower_bound_delta(3, 4.0, 100.0, c=1.0)
    1.0
    """
    n = check_positive("n", n)
    kappa0 = check_kappa("kappa0", kappa0)
    log_class = check_positive("log_class", log_class)
    c = check_positive("c", c)
    log_q = math.log(c) + math.log(kappa0) + math.log(log_class) - math.log(n)
    if log_q >= math.log1p(math.log(kappa0)):
        return 1.0
    y = 2.0 * (1.0 + math.log(kappa0)) - math.log(2.0) - log_q
    v = -float(lambertw(-math.exp(-y), -1).real) if y < 700.0 else y + math.log(y)
    for _ in range(3):  # Newton on v - log v - y: makes the far tail as exact as the rest
        v -= (v - math.log(v) - y) / (1.0 - 1.0 / v)
    return min(1.0, math.exp(1.0 + math.log(kappa0) - v / 2.0))
