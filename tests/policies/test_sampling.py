"""Draws that share rows: the same draws, each distinct prefix run once, in bounded batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srlm.errors import UserError
from srlm.policies import sampling as decoding
from srlm.policies.base import uniforms
from srlm.policies.cache import RowCache
from srlm.policies.hf import CausalLM
from srlm.policies.shared_rows import children, places, whole
from srlm.types import Samples
from tests import tiny
from tests.naive import decoding as naive

H = 6
K = 16
PROMPTS = tiny.texts(7)


def counted(policy: CausalLM, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the tokens that the model is given from now on."""
    shapes: list[tuple[int, ...]] = []

    def count(name: str) -> None:
        run = getattr(policy, name)

        def counting(token_BL: torch.Tensor, *rest: Any, **more: Any) -> Any:
            shapes.append(tuple(token_BL.shape))
            return run(token_BL, *rest, **more)

        monkeypatch.setattr(policy, name, counting)

    count("forward")
    count("step")
    return shapes


def prefixes(samples: Samples) -> list[int]:
    """Distinct pairs of prompt and prefix that some draw went on from, by length from 1."""
    pairs = list(zip(samples.prompt_R, samples.tokens_R, strict=True))
    return [len({(p, y[:t]) for p, y in pairs if len(y) > t}) for t in range(1, H)]


# ---- draws


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_sharing_changes_no_draw(family: str, seed: int) -> None:
    """Against the slow twin, one draw at a time, and in batches that go on in many parts."""
    policy = tiny.policy(family, batch_rows=1000)
    samples = policy.sample(PROMPTS, K, seed=seed, max_tokens=H)
    known: dict[tuple[int, tuple[int, ...]], list[float]] = {}
    for r, (p, y) in enumerate(zip(samples.prompt_R, samples.tokens_R, strict=True)):
        u_T = uniforms(seed, PROMPTS[p].id, K, H)[r % K]
        assert y == naive.sample(policy, PROMPTS[p], u_T)
        if (p, y) not in known:
            with torch.no_grad():
                known[p, y] = naive.token_log_probs(policy, PROMPTS[p], y).tolist()
        assert samples.token_logp_R[r] == pytest.approx(known[p, y], abs=1e-5)
    for rows in (1, 3, 16, 40):
        policy.batch_rows = rows
        other = policy.sample(PROMPTS, K, seed=seed, max_tokens=H)
        assert other.tokens_R == samples.tokens_R
        np.testing.assert_allclose(other.logp_R, samples.logp_R, atol=1e-4)


def test_each_distinct_prefix_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy(batch_rows=1000)
    shapes = counted(policy, monkeypatch)
    samples = policy.sample(PROMPTS, K, seed=0, max_tokens=H)
    distinct = prefixes(samples)
    assert distinct[0] < distinct[-1] < len(samples)  # they branch, and some stay shared
    assert shapes == [
        (len(PROMPTS), max(len(policy.encode(x)) for x in PROMPTS)),
        *((whole(n), 1) for n in distinct),
    ]


@pytest.mark.parametrize("rows", [1, 4, 16])
def test_rows_run_at_once_are_bounded(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With powers of two no row is idle but in the last part of a step."""
    policy = tiny.policy(batch_rows=rows)
    shapes = counted(policy, monkeypatch)
    samples = policy.sample(PROMPTS[:1], 64, seed=0, max_tokens=H)
    assert max(B for B, _ in shapes) <= rows
    run = sum(B for B, L in shapes[1:])
    distinct = sum(prefixes(samples))
    assert distinct <= run <= 2 * distinct
    if rows == 1:
        assert run == distinct


def test_draws_of_a_sure_policy_cost_as_much_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy(batch_rows=1000)
    with torch.no_grad():
        policy.model.lm_head.weight.mul_(1000)
    shapes = counted(policy, monkeypatch)
    samples = policy.sample(PROMPTS, K, seed=0, max_tokens=H)
    assert samples.tokens_R == tuple(np.repeat(np.array(samples.tokens_R, object)[::K], K))
    assert max(B for B, _ in shapes) <= whole(len(PROMPTS))


def test_a_prompt_may_come_twice() -> None:
    policy = tiny.policy()
    samples = policy.sample([PROMPTS[0], PROMPTS[0]], 5, seed=0, max_tokens=H)
    assert samples.tokens_R[:5] == samples.tokens_R[5:]


def test_the_prompt_without_numbers_is_the_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a number in one row leaves the search in the other rows alone."""
    policy = tiny.policy()
    forward = policy.forward
    asked = tiny.prompts(["aa", "bb", "cc", "dd"])

    def broken(*arguments: Any, **more: Any) -> Any:
        out = forward(*arguments, **more)
        out[2] = torch.nan
        return out

    monkeypatch.setattr(policy, "forward", broken)
    with pytest.raises(UserError, match="not numbers for the prompt on line 3"):
        policy.sample(asked, K, seed=0, max_tokens=H)


# ---- choice


@pytest.mark.parametrize("at_once", [1, 3 * 11, 1 << 17])
def test_a_token_is_where_the_distribution_function_passes_u(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(decoding.AT_ONCE, "cpu", at_once)
    rng = np.random.default_rng(0)
    B, V, D = 8, 11, 500
    logp_BV = torch.log_softmax(torch.from_numpy(rng.standard_normal((B, V))).float() * 4, dim=-1)
    row_D, u_D = rng.integers(0, B, D), rng.random(D)
    place_D = decoding._inverse(logp_BV, row_D, u_D).numpy()
    edge_BV = np.cumsum(np.exp(logp_BV.double().numpy()), axis=1)
    edge_DV = edge_BV[row_D]
    expected_D = (edge_DV <= (u_D * edge_DV[:, -1])[:, None]).sum(1)
    assert (place_D == row_D * V + expected_D).all()


def test_the_ends_of_the_unit_interval() -> None:
    """Tokens of no probability are not drawn, and the row after is not entered."""
    p_BV = torch.tensor([[0.0, 1.0, 0.0], [0.25, 0.75, 0.0], [1.0, 0.0, 0.0]])
    row_D = np.arange(3).repeat(2)
    u_D = np.tile([0.0, 0.75], 3)
    assert decoding._inverse(p_BV.log(), row_D, u_D).tolist() == [1, 1, 3, 4, 6, 6]
    place_D = decoding._inverse(p_BV.log(), np.arange(3), np.full(3, np.nextafter(1, 0)))
    assert (place_D.numpy() // 3 == np.arange(3)).all()


# ---- rows

Parents = st.lists(st.integers(0, 70), min_size=1, max_size=150)


@given(Parents, st.integers(0, 60))
def test_places_hold_every_child_once(parents: list[int], more: int) -> None:
    parent_C = np.sort(parents)
    rows = int(parent_C[-1]) + 1 + more
    found = places(parent_C, rows)
    assert found.rows == whole(len(parents))
    assert len(set(found.row_C)) == len(parents)
    assert not set(found.to) & set(found.source)
    assert len(set(found.to)) == len(found.to)
    held = {row: row for row in range(rows)} | dict(zip(found.to, found.source, strict=True))
    assert [held[row] for row in found.row_C] == parent_C.tolist()
    assert all(row in held for row in range(found.rows))
    assert len(set(found.source[: len(parents)]) - set(parents)) == 0


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(1, 20))
def test_parts_hold_every_draw_once(place: list[int], most: int) -> None:
    place_D = np.array(place)
    draw_D = np.arange(len(place)) + 100
    then = children(place_D, draw_D, V=7)
    assert (then.parent_C * 7 + then.token_C).tolist() == sorted(set(place))
    seen = {}
    parts = list(then.parts(most))
    assert len(parts) == -(-len(then.parent_C) // most)
    for part in parts:
        assert 1 <= len(part.parent_C) <= most
        own = part.parent_C * 7 + part.token_C
        seen |= dict(zip(part.draw_D.tolist(), own[part.child_D].tolist(), strict=True))
    assert seen == dict(zip(draw_D.tolist(), place, strict=True))


def test_a_row_cache_keeps_what_its_rows_hold() -> None:
    """Moves, growth in both directions and copies against plain indexing."""
    rng = torch.Generator().manual_seed(0)
    cache = RowCache(2, most=8)
    held = torch.zeros(3, 2, 0, 4)
    steps: list[tuple[int, list[int], list[int]]] = [
        (3, [], []),
        (8, [3, 4, 5, 6, 7], [0, 2, 2, 1, 0]),
        (4, [1], [7]),
        (4, [], []),
        (8, [0, 4, 5, 6, 7], [3, 3, 3, 2, 2]),
        (2, [], []),
    ]
    for rows, to, source in steps:
        if held.shape[2]:
            cache.move(rows, *(torch.tensor(x, dtype=torch.int64) for x in (to, source)))
        index = torch.arange(8)
        index[to] = torch.tensor(source, dtype=torch.int64)
        held = held[index[:rows]]
        new = torch.randn(rows, 2, 1, 4, generator=rng)
        held = torch.cat([held, new], dim=2)
        for layer in range(2):
            keys, values = cache.update(new + layer, -new, layer)
            assert torch.equal(keys, held + layer)
            assert torch.equal(values, -held)
    other = RowCache(2, most=4)
    other.fill(cache, torch.tensor([1, 0, 1]))
    keys, _ = other.update(new[[0, 1, 0]], new[[0, 1, 0]], 0)
    assert torch.equal(keys[:, :, :-1], held[[1, 0, 1]])
