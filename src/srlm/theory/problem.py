"""What a plan is made for, and the searches over its T-round bound: rounds, pairs, beta."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from srlm.theory.bounds import Bound
from srlm.theory.recursion import final_failure, iterate_kappa, statistical_error

MOST_PAIRS = 10**30
MOST_ROUNDS = 1000


@dataclass(frozen=True)
class Problem:
    """What is given: the start, the constants of the theorem, and the failure that is tolerated.

    kappa0: >= 1.  margin: gamma, nats.  confidence: mu.  beta.  complexity: log|Pi|, nats.
    log_responses: log C_loss, nats.  target: tolerated P[p* <= 1/2].  rho.  constant: c.
    """

    kappa0: float
    margin: float
    confidence: float
    beta: float
    complexity: float
    log_responses: float
    target: float
    rho: float
    constant: float

    def eps(self, samples: float) -> float:
        """The statistical error of a round with this many pairs, nats."""
        return statistical_error(
            samples, self.complexity, self.log_responses, self.rho, self.constant
        )

    def failure(self, rounds: int, eps: float, beta: float | None = None) -> Bound:
        """The T-round bound, iterated."""
        return final_failure(
            self.kappa0,
            rounds,
            eps=eps,
            beta=self.beta if beta is None else beta,
            margin=self.margin,
            mu=self.confidence,
        )

    def rounds_for(self, eps: float, beta: float | None = None) -> int | None:
        """Least T whose bound is at most the target; None if no T up to 1,000."""
        path = iterate_kappa(
            self.kappa0,
            MOST_ROUNDS,
            eps=eps,
            beta=self.beta if beta is None else beta,
            margin=self.margin,
            mu=self.confidence,
        )
        best = int(path.argmin())  # the bound rises with kappa, so nothing later is better
        for rounds in range(1, best + 2):
            if self.failure(rounds, eps, beta).raw <= self.target:
                return rounds
            if rounds > 1 and path[rounds - 1] == path[rounds - 2]:
                return None
        return None

    def best_rounds(self, eps: float) -> int:
        """Least T, up to 1,000, whose bound is within a thousandth of the least over T."""
        path = iterate_kappa(
            self.kappa0,
            MOST_ROUNDS,
            eps=eps,
            beta=self.beta,
            margin=self.margin,
            mu=self.confidence,
        )
        return 1 + int(np.argmax(path <= 1.001 * path.min()))

    def samples_for(self, rounds: int) -> int | None:
        """Least n whose T-round bound is at most the target; None if none up to 1e30."""
        if self.failure(rounds, self.eps(MOST_PAIRS)).raw > self.target:
            return None
        low, high = 0.0, math.log(MOST_PAIRS)
        for _ in range(80):  # eps falls with n (B > 2), and the bound with it
            middle = (low + high) / 2.0
            enough = self.failure(rounds, self.eps(math.exp(middle))).raw <= self.target
            low, high = (low, middle) if enough else (middle, high)
        return math.ceil(math.exp(high))

    def beta_for(self) -> float:
        """Largest beta with which some number of rounds meets the target, given endless data."""
        low, high = 0.0, self.beta
        for _ in range(60):
            middle = (low + high) / 2.0
            enough = self.rounds_for(0.0, middle) is not None
            low, high = (middle, high) if enough else (low, middle)
        return low
