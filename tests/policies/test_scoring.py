"""Buckets against every parting there is; prompts run once against prompts run for every row."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given as example
from hypothesis import strategies as st

from srlm.policies import scoring as given
from srlm.types import Ints, Prompt
from tests import tiny
from tests.naive import decoding


def cost(size_R: Ints, groups: list[Ints]) -> int:
    return sum(len(rows) * int(size_R[rows].max()) + given.CALL for rows in groups)


def best_cost(size_R: Ints) -> int:
    """Over all partings of the sorted rows into runs."""
    order = np.argsort(size_R, kind="stable")
    R = len(order)
    return min(
        cost(size_R, np.split(order, cuts))
        for k in range(min(R, 4))
        for cuts in combinations(range(1, R), k)
    )


@example(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(1, 60))
def test_buckets_cost_the_least(sizes: list[int], times: int) -> None:
    size_R = np.repeat(np.array(sizes), times)
    found = given.buckets(size_R)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(size_R)))
    few = np.array(sizes) * times  # the same parting of rows that weigh ``times`` each
    assert cost(size_R, found) <= best_cost(few)


def test_many_lengths_are_rounded_up() -> None:
    size_R = np.arange(1, 2001)
    found = given.buckets(size_R)
    assert sorted(np.concatenate(found).tolist()) == list(range(2000))
    assert 10 < len(found) <= given.MOST_LENGTHS


@pytest.mark.parametrize("arch", tiny.FAMILIES)
@pytest.mark.parametrize("call", [0, 10**9], ids=["many-buckets", "whole-rows"])
def test_both_plans_give_the_slow_twins_probabilities(
    arch: str, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(given, "CALL", call)
    policy = tiny.policy(arch)
    prompts = [Prompt(str(i), text) for i, text in enumerate(["abc", "a", "cabbage"])]
    rng = np.random.default_rng(0)
    prompt_R = np.array([2, 0, 0, 2, 1, 0, 2])
    tokens_R = [tuple(rng.integers(3, 8, n).tolist()) for n in (1, 4, 2, 9, 1, 4, 3)]
    calls = []
    assert policy.network.kind.keyed
    states = policy.network.states
    monkeypatch.setattr(
        policy.network, "states", lambda *a, **k: calls.append(a[0].shape) or states(*a, **k)
    )
    fast = policy.log_prob_grad(prompts, prompt_R, tokens_R)
    assert len(calls) > 2 if call == 0 else len(calls) == 1
    slow = torch.stack(
        [
            decoding.token_log_probs(policy, prompts[p], y).sum()
            for p, y in zip(prompt_R, tokens_R, strict=True)
        ]
    )
    np.testing.assert_allclose(fast.detach(), slow.detach(), atol=1e-5)
