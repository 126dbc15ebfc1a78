"""Finite-sample bounds over T rounds: one round, the condition-number step, and their iteration.

[SR] Theorem 5.3 and Appendix C. All logs natural; gamma (`margin`) in nats is the least
log pi_t(y*) - max_{y != y*} log pi_t(y) and mu the least confidence, over prompts and rounds;
beta is the weight of the update. Everything is up to the universal constant c inside the
statistical error. The failure event is about *confidence* alone, pi_T(y*_T|x) <= 1/2; it says
nothing of whether the mode is still the first one (fidelity), or right (correctness).
"""

from __future__ import annotations

import math

import numpy as np

from srlm.errors import UserError
from srlm.theory.checks import (
    check_count,
    check_kappa,
    check_not_negative,
    check_positive,
    check_probability,
)
from srlm.theory.compact import compact_recursion, geometric_bound


def statistical_error(
    n: float, log_class: float, log_responses: float, rho: float = 0.05, c: float = 1.0
) -> float:
    """eps of one round: eps^2 = c B^2 log(|Pi|/rho) / n with B = log(2 n C_loss |Pi| / rho).

    n: pairs of the round, >= 1.  log_class: log|Pi|, nats, >= 0.
    log_responses: log C_loss with C_loss >= |Y|, nats, >= 0 (taken in logs: |Y| is astronomical).
    rho: failure probability of the guarantee, in (0, 1].  c: the universal constant, > 0.
    Returns eps, nats. Source: [SR] Theorem 5.3, App. C.  Raises UserError by name.  Cost O(1).

    >>> round(statistical_error(1e6, 50.0, 10.0), 4)
    0.5642
    """
    n = check_positive("n", n)
    if n < 1.0:
        raise UserError(f"n is {n}", "give n as 1 pair or more")
    log_class = check_not_negative("log_class", log_class)
    log_responses = check_not_negative("log_responses", log_responses)
    log_rho = math.log(check_probability("rho", rho))
    c = check_positive("c", c)
    spread = math.log(2.0 * n) + log_responses + log_class - log_rho
    return math.sqrt(c * spread**2 * (log_class - log_rho) / n)


def round_error(kappa: float, eps: float, beta: float, margin: float) -> float:
    """A_t = ( sqrt(kappa_t) eps + beta log kappa_t ) / gamma: a bound on E[1 - pi_{t+1}(y*)].

    kappa: kappa_t >= 1.  eps, beta >= 0 (nats).  margin: gamma > 0, nats.
    The second term alone is exact sharpening's: gamma (1 - pi') <= beta log(1/p*), then Jensen.
    Source: [SR] Theorem 5.3.  Raises UserError by name.

    >>> round_error(4.0, 0.01, 0.0, 0.5)
    0.04
    """
    kappa = check_kappa("kappa", kappa)
    eps = check_not_negative("eps", eps)
    beta = check_not_negative("beta", beta)
    margin = check_positive("margin", margin)
    return (math.sqrt(kappa) * eps + beta * math.log(kappa)) / margin


def kappa_step(a: float, mu: float) -> float:
    """Largest kappa_{t+1} that the one-round bound allows, by the exact tail integral of 1/p*.

    kappa_{t+1} <= 1 + int_1^{1/mu} min(1, A z/(z-1)) dz
                 = 1 + A/mu + A log( (1-A)(1-mu)/(mu A) )  if A < 1 - mu,  else 1/mu.

    a: A_t >= 0.  mu: least confidence in (0, 1].
    Source: [SR] App. C.  Raises UserError by name.  Cost O(1).

    >>> round(kappa_step(0.01, 0.1), 6), kappa_step(0.95, 0.1), kappa_step(0.0, 0.1)
    (1.167923, 10.0, 1.0)
    """
    a = check_not_negative("A_t", a)
    mu = check_probability("confidence", mu)
    if a >= 1.0 - mu:
        return 1.0 / mu
    if a == 0.0:
        return 1.0
    tail = math.log1p(-a) + math.log1p(-mu) - math.log(mu) - math.log(a)
    return min(1.0 / mu, 1.0 + a / mu + a * tail)


def iterate_kappa(
    kappa0: float, rounds: int, *, eps: float, beta: float, margin: float, mu: float
) -> np.ndarray:
    """kappa_0..kappa_T of the recursion iterated numerically, each capped at 1/mu: (T+1,).

    Exact and tighter than the closed forms. kappa0 must not exceed 1/mu (every 1/p* is at most
    that).  Source: [SR] App. C.  Raises UserError by name.  Cost O(T).

    >>> iterate_kappa(4.0, 3, eps=0.001, beta=0.0, margin=0.5, mu=0.1).round(4)
    array([4.    , 1.0709, 1.038 , 1.0375])
    """
    mu = check_probability("confidence", mu)
    kappa = check_start(kappa0, mu)
    path = [kappa]
    for _ in range(check_count("rounds", rounds, least=0)):
        kappa = kappa_step(round_error(kappa, eps, beta, margin), mu)
        path.append(kappa)
    return np.array(path)


def check_start(kappa0: float, mu: float) -> float:
    """Returns kappa0 if it can go with least confidence mu (kappa0 <= 1/mu), or a UserError."""
    kappa0 = check_kappa("kappa0", kappa0)
    if kappa0 * mu > 1.0 + 1e-9:
        raise UserError(
            f"kappa0 is {kappa0:g} but the least confidence {mu:g} allows at most {1 / mu:g}",
            "kappa0 is a mean of 1/p*, so it cannot exceed 1/confidence: mend one of the two",
        )
    return min(kappa0, 1.0 / mu)


def final_failure(
    kappa0: float, rounds: int, *, eps: float, beta: float, margin: float, mu: float
) -> float:
    """P_x[ pi_T(y*_T|x) <= 1/2 ] <= 2 A_{T-1}, kappa_{T-1} by iterating the exact step.

    From 1 on it says nothing: it is vacuous.

    rounds: T >= 1.  Others as in `iterate_kappa`.  Source: [SR] Theorem 5.3.  Cost O(T).

    >>> round(final_failure(4.0, 3, eps=0.001, beta=0.0, margin=0.5, mu=0.1), 6)
    0.004075
    """
    rounds = check_count("rounds", rounds)
    path = iterate_kappa(kappa0, rounds - 1, eps=eps, beta=beta, margin=margin, mu=mu)
    return 2.0 * round_error(float(path[-1]), eps, beta, margin)


def final_failure_closed(
    kappa0: float, rounds: int, *, eps: float, beta: float, margin: float, mu: float
) -> float:
    """The T-round bound in closed form, never below `final_failure`.

    (2/gamma) ( eps ( sqrt(u*) + lambda^((T-1)/2) sqrt(kappa_0) ) + beta log kappa_{T-1} ),
    with kappa_{T-1} <= u* + lambda^(T-1) max(kappa_0 - u*, 0) and u*, lambda of
    `compact_recursion`.

    Source: [SR] Theorem 5.3.  Raises UserError by name.

    >>> round(final_failure_closed(4.0, 3, eps=0.001, beta=0.0, margin=0.5, mu=0.1), 6)
    0.004211
    """
    rounds = check_count("rounds", rounds)
    kappa0 = check_start(kappa0, check_probability("confidence", mu))
    compact = compact_recursion(eps, beta, margin, mu)
    kappa = geometric_bound(kappa0, rounds - 1, compact.a, compact.slope)
    forgotten = compact.contraction ** ((rounds - 1) / 2.0)
    root = math.sqrt(compact.fixed_point) + forgotten * math.sqrt(kappa0)
    return 2.0 / margin * (eps * root + beta * math.log(kappa))
