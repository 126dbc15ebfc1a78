"""Greedy decoding on the trap family and on random policies, by the production decoder."""

from __future__ import annotations

import math

import numpy as np
import pytest

from srlm.errors import UserError
from srlm.policies.tabular import Tabular, rows
from srlm.theory.greedy import greedy_trap

Tokens = tuple[int, ...]


def greedy(responses: tuple[Tokens, ...], probabilities: np.ndarray) -> Tokens:
    (found,) = Tabular(np.log([probabilities]), responses).greedy(rows(1), max_tokens=9).tokens_R
    return found


@pytest.mark.parametrize("p_star", [0.5, 0.499, 0.4, 1 / 3, 0.25, 0.1, 0.01, 0.001])
def test_trap(p_star: float) -> None:
    responses, probabilities = greedy_trap(p_star)
    ranked = sorted(probabilities, reverse=True)
    assert math.fsum(probabilities) == pytest.approx(1.0)
    assert ranked[0] == probabilities[0] == p_star
    assert math.log(ranked[0] / ranked[1]) >= math.log(2.0) - 1e-9
    assert greedy(responses, np.array(probabilities)) != responses[0]


def random_policy(rng: np.random.Generator, p_star: float) -> tuple[tuple[Tokens, ...], np.ndarray]:
    """Random binary-to-quaternary tree of depth 1 to 4, one leaf given probability p*."""
    leaves: list[Tokens] = [()]
    for _ in range(int(rng.integers(1, 12))):
        leaf = leaves.pop(int(rng.integers(len(leaves))))
        leaves += [(*leaf, token) for token in range(int(rng.integers(2, 5)))]
    weights = rng.dirichlet(np.full(len(leaves), 0.3)) + 1e-12
    chosen = int(rng.integers(len(leaves)))
    weights[chosen] = 0.0
    weights *= (1.0 - p_star) / weights.sum()
    weights[chosen] = p_star
    return tuple(leaves), weights


def test_above_a_half_greedy_never_misses() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        responses, probabilities = random_policy(rng, float(rng.uniform(0.5, 1.0)) + 1e-9)
        assert greedy(responses, probabilities) == responses[probabilities.argmax()]


@pytest.mark.parametrize("p_star", [0.0, -1.0, 0.51, 1.1, float("nan")])
def test_bad_confidence(p_star: float) -> None:
    with pytest.raises(UserError):
        greedy_trap(p_star)
