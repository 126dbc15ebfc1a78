"""The adversary's choice: the worst hard instance for each number of triples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from srlm.errors import UserError
from srlm.theory.checks import check_count, check_kappa, check_positive
from srlm.theory.hard_family import HardInstance, failure_probability, hard_instance


@dataclass(frozen=True)
class Envelope:
    """The adversary's best instance for n triples.

    instance:  the worst member of the family.  failure: its exact expected lost mass.
    ratio:     failure / sqrt( kappa_0 log|Pi| / (n (1 + log(kappa_0/failure))) )
    """

    n: int
    instance: HardInstance
    failure: float
    ratio: float


def _failures(n: int, kappa0: float, prompts: int, responses_M: np.ndarray) -> np.ndarray:
    """`failure_probability` without its all-seen term, over many M at once: a search aid."""
    m = responses_M.astype(float)
    mass = (kappa0 - 1.0) / (m / 2.0 - 1.0)
    hit = 2.0 * mass / (prompts * m)
    miss = mass * (1.0 - 2.0 / m) / (prompts * (m - 1.0))
    unseen = np.exp(n * np.log1p(-np.minimum(hit, 1.0 - 1e-12)))
    failures: np.ndarray = mass * (unseen - np.exp(n * np.log1p(miss - hit)) / m)
    return failures


def _worst_responses(n: int, kappa0: float, prompts: int, most: float = 1e15) -> HardInstance:
    """The instance with d prompts and M <= most that loses most after n triples."""
    least = max(4, math.ceil(2.0 * kappa0))
    # leading order: Delta = sqrt(d (kappa_0-1)/(2n)), M = 2 + 2 (kappa_0-1)/Delta
    guess = 2.0 + 2.0 * math.sqrt(2.0 * max(n, 1) * (kappa0 - 1.0) / prompts)
    low, high = max(least, guess / 4.0), min(most, max(4.0 * guess, 2.0 * least))
    low = min(low, high)
    for _ in range(12):  # zoom on the best of a grid of whole numbers
        grid_M = np.unique(np.floor(np.geomspace(low, high, 65)))
        best = int(np.argmax(_failures(n, kappa0, prompts, grid_M)))
        low, high = grid_M[max(best - 1, 0)], grid_M[min(best + 1, len(grid_M) - 1)]
        if high - low <= 2.0:
            break
    candidates = {int(low), int(grid_M[best]), int(high)} | set(range(least, least + 4))
    instances = [hard_instance(kappa0, prompts, m) for m in sorted(candidates) if m <= most]
    return max(instances, key=lambda instance: failure_probability(instance, n))


def envelope(
    n: int, kappa0: float, *, prompts: int | None = None, log_class: float | None = None
) -> Envelope:
    """The adversary's choice for n triples: the hard instance on which the best learner loses most.

    Give `prompts` (d fixed, the adversary picks M and with it Delta; |Pi| = M^d varies) or
    `log_class` (the theorem's own terms: the adversary picks M and d with d log M <= log|Pi|).

    kappa0 > 1; n >= 1.  Source: [SR] Theorem 4.1.  Raises UserError by name.
    Cost: about a millisecond for fixed d, some tens of milliseconds for fixed log|Pi|.

    >>> worst = envelope(10_000, 4.0, prompts=32)
    >>> worst.instance.responses, round(worst.failure, 5), round(worst.ratio, 3)
    (88, 0.04189, 0.413)
    """
    n = check_count("n", n)
    kappa0 = check_kappa("kappa0", kappa0)
    if (prompts is None) == (log_class is None):
        raise UserError("envelope needs exactly one of prompts and log_class", "give one of them")
    if prompts is not None:
        worst = _worst_responses(n, kappa0, check_count("prompts", prompts))
    else:
        assert log_class is not None
        worst = _worst_in_class(n, kappa0, check_positive("log_class", log_class))
    failure = failure_probability(worst, n)
    scale = kappa0 * worst.log_class / (n * (1.0 + math.log(kappa0 / failure)))
    return Envelope(n=n, instance=worst, failure=failure, ratio=failure / math.sqrt(scale))


def _worst_in_class(n: int, kappa0: float, log_class: float) -> HardInstance:
    """The worst instance with d log M <= log_class over both d and M."""
    least = max(4, math.ceil(2.0 * kappa0))
    most_prompts = math.floor(log_class / math.log(least) * (1.0 + 1e-12))
    if most_prompts < 1:
        raise UserError(
            f"log_class is {log_class:g}, too small for one prompt with {least} responses",
            f"give log_class of at least log({least}) = {math.log(least):.3g}",
        )

    def binding(d: float) -> float:  # > 0 where the best M for d prompts does not fit the class
        return d * math.log(2.0 + 2.0 * math.sqrt(2.0 * n * (kappa0 - 1.0) / d)) - log_class

    if binding(1.0) >= 0.0:
        crossing = 1.0
    elif binding(most_prompts) <= 0.0:
        crossing = float(most_prompts)
    else:
        crossing = float(brentq(binding, 1.0, most_prompts))
    tries = np.unique(np.floor(np.linspace(0.9 * crossing, 1.15 * crossing + 1.0, 41)))
    worst = [
        _worst_responses(n, kappa0, int(d), most=math.exp(min(log_class / d, 34.0)) * (1 + 1e-12))
        for d in tries
        if 1 <= d <= most_prompts
    ]
    return max(worst, key=lambda instance: failure_probability(instance, n))
