"""Passes of an update: all groups once, none too large, and what they keep is what was measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srlm.policies.hf import CausalLM
from srlm.room import FIRST, LEAST_BYTES, MOST, Room
from tests import tiny


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 200))
def test_every_group_is_in_one_pass_and_passes_are_full(sizes: list[int], tokens: int) -> None:
    size_G = np.array(sizes)
    chosen = np.random.default_rng(0).permutation(len(sizes))
    parts = list(Room(tokens, tiny_policy()).parted(size_G, chosen))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(sizes)))
    for part in parts:
        assert len(part) == 1 or size_G[part].sum() <= tokens
    in_order = size_G[np.concatenate(parts)]
    assert (np.diff(in_order) <= 0).all()
    least = -(-size_G.sum() // tokens)
    assert len(parts) <= 2 * least + 1


POLICY: list[CausalLM] = []


def tiny_policy() -> CausalLM:
    if not POLICY:
        POLICY.append(tiny.policy("llama"))
    return POLICY[0]


def test_what_a_token_keeps_is_measured_on_the_first_pass() -> None:
    policy = tiny_policy()
    room = Room(None, policy)
    assert room.tokens == FIRST
    x = torch.ones(1000, requires_grad=True)
    with room.weighed(10):
        y = (x.exp() * x).exp()  # keeps both exponentials, and x itself
    assert room.tokens == min(MOST, LEAST_BYTES // (3 * 4000 // 10))
    with room.weighed(1):  # only the first time
        y = y * y
    assert room.tokens == min(MOST, LEAST_BYTES // (3 * 4000 // 10))


def test_parameters_do_not_count() -> None:
    policy = tiny_policy()
    room = Room(None, policy)
    weight = policy.parameters()[0]
    x = torch.ones(1, dtype=weight.dtype)
    with room.weighed(1):
        (weight * weight).sum() + x
    assert room.tokens == MOST


@pytest.mark.parametrize("tokens", [1, 77])
def test_a_number_of_tokens_that_was_given_stays(tokens: int) -> None:
    room = Room(tokens, tiny_policy())
    with room.weighed(10):
        torch.ones(3, requires_grad=True).exp()
    assert room.tokens == tokens
