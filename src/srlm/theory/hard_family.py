"""The instances on which the single-step lower bound is attained, and the adversary's choice.

The family of [SR] Theorem 4.1 ([SM] Theorem 3.1'), with kappa_0 *exactly* and with the failure of
the best learner as an exact sum, not only a simulation: see `failure_probability`. The adversary
picks the member for each n: `envelope`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln

from srlm.errors import UserError
from srlm.theory.checks import check_count, check_kappa


@dataclass(frozen=True)
class HardInstance:
    """Prompts x_0..x_d: x_0 is sure; each x_i, i >= 1, hides a favourite among M responses.

    kappa0:    condition number, exact: 1 - Delta + Delta * M/2
    prompts:   d, the hard prompts, each of mass Delta/d
    responses: M >= 4; the favourite has probability 2/M, the others share the rest evenly
               (so all lie at most 1/2 of the favourite, the margin parameter of [SM])
    hard_mass: Delta in (0, 1]
    """

    kappa0: float
    prompts: int
    responses: int
    hard_mass: float

    @property
    def log_class(self) -> float:
        """log|Pi| = d log M, nats: one policy for each placing of the favourites."""
        return self.prompts * math.log(self.responses)

    @property
    def hit(self) -> float:
        """Chance that one triple shows the favourite of a given hard prompt: 2 Delta/(d M)."""
        return 2.0 * self.hard_mass / (self.prompts * self.responses)

    @property
    def miss(self) -> float:
        """Chance that one triple shows a given other response of a given hard prompt."""
        m = self.responses
        return self.hard_mass * (1.0 - 2.0 / m) / (self.prompts * (m - 1))


def hard_instance(kappa0: float, prompts: int, responses: int) -> HardInstance:
    """The hard instance with exactly this kappa_0: Delta = (kappa_0 - 1)/(M/2 - 1).

    kappa0 > 1; prompts d >= 1; responses M >= max(4, 2 kappa_0), so that Delta <= 1.
    Source: [SR] Theorem 4.1, proof; [SM] Theorem 3.1'.  Raises UserError by name.

    >>> hard_instance(4.0, 32, 62).hard_mass
    0.1
    """
    kappa0 = check_kappa("kappa0", kappa0)
    prompts = check_count("prompts", prompts)
    responses = check_count("responses", responses, least=4)
    if kappa0 == 1.0:
        raise UserError(
            "kappa0 is 1: every response is sure and nothing is hidden",
            "give kappa0 above 1 for the hard instance",
        )
    if responses < 2.0 * kappa0:
        raise UserError(
            f"responses is {responses}, below 2*kappa0 = {2 * kappa0:g}",
            "give at least 2*kappa0 responses: the mass of the hard prompts cannot exceed 1",
        )
    return HardInstance(kappa0, prompts, responses, (kappa0 - 1.0) / (responses / 2.0 - 1.0))


def log_all_seen(n: int, coupons: int, q: float) -> float:
    """log of n! [z^n] (e^{qz} - 1)^M e^{rz}, r = 1 - Mq: all M coupons of chance q seen in n
    samples.

    Cauchy's integral on the circle through the saddle point, by the trapezoid rule; every Taylor
    coefficient is positive, so there is no cancellation (inclusion-exclusion loses all digits for
    M of a hundred). Relative error about 1e-12; a few hundred complex evaluations.
    """
    if n < coupons:
        return -math.inf
    rest = max(0.0, 1.0 - coupons * q)

    def tilt(log_rho: float) -> float:
        rho = math.exp(log_rho)
        return coupons * q * rho / -math.expm1(-q * rho) + rest * rho - n

    if tilt(math.log(n) - 60.0) >= 0.0:  # n == coupons: each coupon once
        return float(gammaln(n + 1)) + n * math.log(q)
    log_rho = float(brentq(tilt, math.log(n) - 60.0, math.log(n) + 1.0, xtol=1e-14))
    rho = math.exp(log_rho)
    a = q * rho
    share = -math.expm1(-a)  # 1 - e^{-a}
    variance = rest * rho + coupons * a * (share - a * math.exp(-a)) / share**2
    half = min(math.pi, 12.0 / math.sqrt(max(variance, 1e-300)))
    theta = np.linspace(-half, half, 1601)
    z = rho * np.exp(1j * theta)
    shift = rho * (np.expm1(1j * theta))  # z - rho
    # log (e^{qz}-1)/(e^{q rho}-1) = q(z - rho) + log (1-e^{-qz})/(1-e^{-q rho})
    log_ratio = (
        (coupons * q + rest) * shift + coupons * np.log(-np.expm1(-q * z) / share) - 1j * n * theta
    )
    mean = float(np.trapezoid(np.exp(log_ratio).real, theta)) / (2.0 * math.pi)
    stirling = float(gammaln(n + 1)) - n * math.log(n) + n if n < 1e4 else _stirling(n)
    at_saddle = (coupons * q + rest) * rho + coupons * math.log(share)
    return stirling - n * (log_rho - math.log(n)) - n + at_saddle + math.log(mean)


def _stirling(n: int) -> float:
    """log n! - n log n + n for large n."""
    return 0.5 * math.log(2.0 * math.pi * n) + 1.0 / (12.0 * n) - 1.0 / (360.0 * n**3)


def failure_probability(instance: HardInstance, n: int) -> float:
    """Expected mass that the best learner loses on the instance after n triples: exact.

    The learner knows pi_0(y|x) of what it has seen, so it answers with the favourite once seen,
    and else with one of the responses not yet seen. With h = `hit`, q = `miss`:

        failure = Delta * [ (1-h)^n - ( (1-h+q)^n - A )/M ],
        A = sum_j (-1)^j C(M,j) (1-h+q-jq)^n,

    the second term being the lucky guesses, E[ 1{favourite unseen} / (unseen responses) ]; it
    follows from E[1/(U+1)] = int_0^1 E[s^U] ds on the generating function of the occupancy.

    n: triples, >= 0 (n = 0 is pure guessing).  Source: own derivation from [SR] Theorem 4.1.
    Raises UserError by name.

    >>> instance = hard_instance(4.0, 32, 62)
    >>> round(failure_probability(instance, 0), 6)          # Delta * (1 - 1/M)
    0.098387
    >>> round(failure_probability(instance, 10_000), 6)
    0.035524
    """
    n = check_count("n", n, least=0)
    m, hit, miss = instance.responses, instance.hit, instance.miss
    unseen = math.exp(n * math.log1p(-hit)) if hit < 1.0 else float(n == 0)
    total = 1.0 - hit + miss  # the favourite made as likely as the others
    equal = math.exp(n * math.log(total))
    if n == 0:
        guesses = 1.0 / m
    else:
        chance = miss / total
        # all-seen <= (1-(1-q)^n)^M (negative association): below 1e-18 it cannot be noticed
        ceiling = m * math.log(max(-math.expm1(n * math.log1p(-chance)), 1e-300))
        seen = math.exp(min(0.0, log_all_seen(n, m, chance))) if ceiling > -41.0 else 0.0
        guesses = equal * (1.0 - seen) / m
    return instance.hard_mass * max(0.0, unseen - guesses)


def simulate_failure(
    instance: HardInstance, n: int, replicates: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Mean lost mass of the best learner over simulated data, and its standard error.

    Each replicate samples n triples, then answers every hard prompt as `failure_probability` says.
    Cost O(replicates * n * Delta).  Raises UserError by name.

    >>> mean, error = simulate_failure(
    ...     hard_instance(4.0, 8, 14), 200, 50, np.random.default_rng(0))
    >>> abs(mean - failure_probability(hard_instance(4.0, 8, 14), 200)) < 4 * error
    True
    """
    n = check_count("n", n, least=0)
    replicates = check_count("replicates", replicates, least=2)
    d, m = instance.prompts, instance.responses
    weights = np.full(m, (1.0 - 2.0 / m) / (m - 1))
    weights[0] = 2.0 / m  # the favourite, unknown to the learner
    lost = np.empty(replicates)
    for replicate in range(replicates):
        hits = rng.binomial(n, instance.hard_mass)
        seen = np.zeros((d, m), dtype=bool)
        seen[rng.integers(d, size=hits), rng.choice(m, size=hits, p=weights)] = True
        unseen = m - seen.sum(axis=1)
        right = seen[:, 0] | (rng.random(d) * np.maximum(unseen, 1) < 1.0)
        lost[replicate] = instance.hard_mass * np.mean(~right)
    return float(lost.mean()), float(lost.std(ddof=1) / math.sqrt(replicates))
