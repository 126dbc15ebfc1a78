"""Greedy decoding on the trap family and on random policies."""

from __future__ import annotations

import math

import numpy as np
import pytest

from srlm.errors import UserError
from srlm.theory.greedy import TablePolicy, greedy_is_certain, greedy_trap


@pytest.mark.parametrize("p_star", [0.5, 0.499, 0.4, 1 / 3, 0.25, 0.1, 0.01, 0.001])
def test_trap(p_star: float) -> None:
    policy = greedy_trap(p_star)
    ranked = sorted(policy.probabilities, reverse=True)
    assert ranked[0] == p_star
    assert math.log(ranked[0] / ranked[1]) >= math.log(2.0) - 1e-9
    assert policy.mode() == (1, 0)
    assert policy.greedy() != policy.mode()
    assert not greedy_is_certain(p_star)


def random_policy(rng: np.random.Generator, p_star: float) -> TablePolicy:
    """Random binary-to-quaternary tree of depth 1 to 4, one leaf given probability p*."""
    leaves: list[tuple[int, ...]] = [()]
    for _ in range(int(rng.integers(1, 12))):
        leaf = leaves.pop(int(rng.integers(len(leaves))))
        leaves += [(*leaf, token) for token in range(int(rng.integers(2, 5)))]
    weights = rng.dirichlet(np.full(len(leaves), 0.3)) + 1e-12
    chosen = int(rng.integers(len(leaves)))
    weights[chosen] = 0.0
    weights *= (1.0 - p_star) / weights.sum()
    weights[chosen] = p_star
    return TablePolicy(tuple(leaves), tuple(weights.tolist()))


def test_above_a_half_greedy_never_misses() -> None:
    rng = np.random.default_rng(0)
    for _ in range(400):
        p_star = float(rng.uniform(0.5, 1.0)) + 1e-9
        policy = random_policy(rng, min(p_star, 1.0))
        assert greedy_is_certain(max(policy.probabilities))
        assert policy.greedy() == policy.mode()


def test_at_a_half_only_a_tie_is_lost() -> None:
    """Where the proposition's 'every p* <= 1/2' is tight: without a tie, 1/2 is still enough."""
    rng = np.random.default_rng(1)
    for _ in range(400):
        policy = random_policy(rng, 0.5)
        prefix: tuple[int, ...] = ()
        tie = False
        while step := policy.next_token(prefix):
            tie = tie or sorted(step.values())[-2:] == [0.5, 0.5]
            prefix = (*prefix, max(step, key=step.__getitem__))
        assert tie or policy.greedy() == policy.mode()
    tied = greedy_trap(0.5).next_token(())
    assert tied == {0: 0.5, 1: 0.5}


def test_next_token_multiplies_back() -> None:
    policy = random_policy(np.random.default_rng(2), 0.3)
    for response, probability in zip(policy.responses, policy.probabilities, strict=True):
        steps = [policy.next_token(response[:i])[token] for i, token in enumerate(response)]
        assert math.prod(steps) == pytest.approx(probability, rel=1e-9)


@pytest.mark.parametrize("p_star", [0.0, -1.0, 0.51, 1.1, float("nan")])
def test_bad_confidence(p_star: float) -> None:
    with pytest.raises(UserError):
        greedy_trap(p_star)


@pytest.mark.parametrize(
    ("responses", "probabilities"),
    [
        (((0,), (1,)), (0.5, 0.6)),
        (((0,), (0,)), (0.5, 0.5)),
        (((0,), (0, 1)), (0.5, 0.5)),
        (((0,),), (0.5, 0.5)),
        ((), ()),
    ],
)
def test_bad_tables(responses, probabilities) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError):
        TablePolicy(responses, probabilities)
