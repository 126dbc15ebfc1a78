"""Draws that share rows: the same draws, each distinct prefix run once, in bounded batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from srlm.errors import UserError
from srlm.policies import sampling as decoding
from srlm.policies.base import uniforms
from srlm.policies.hf import CausalLM
from srlm.types import Samples
from tests import tiny
from tests.naive import decoding as naive

H = 6
K = 16
PROMPTS = tiny.texts(7)


def counted(policy: CausalLM, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the tokens that the model is given from now on."""
    shapes: list[tuple[int, ...]] = []

    run = policy.network.scores
    assert policy.network.kind.keyed  # found out before anything is counted

    def counting(token_BL: torch.Tensor, *rest: Any, **more: Any) -> Any:
        shapes.append(tuple(token_BL.shape))
        return run(token_BL, *rest, **more)

    monkeypatch.setattr(policy.network, "scores", counting)
    return shapes


def prefixes(samples: Samples) -> list[int]:
    """Distinct pairs of prompt and prefix that some draw went on from, by length from 1."""
    pairs = list(zip(samples.prompt_R, samples.tokens_R, strict=True))
    return [len({(p, y[:t]) for p, y in pairs if len(y) > t}) for t in range(1, H)]


# ---- draws


@pytest.mark.parametrize(("seed", "family"), list(enumerate(tiny.FAMILIES)))
def test_sharing_changes_no_draw(seed: int, family: str) -> None:
    """Against the slow twin, one draw at a time, and in batches that go on in many parts."""
    policy = tiny.policy(family)
    samples = policy.sample(PROMPTS, K, seed=seed, max_tokens=H)
    known: dict[tuple[int, tuple[int, ...]], list[float]] = {}
    for r, (p, y) in enumerate(zip(samples.prompt_R, samples.tokens_R, strict=True)):
        u_T = uniforms(seed, PROMPTS[p].id, K, H)[r % K]
        assert y == naive.sample(policy, PROMPTS[p], u_T)
        if (p, y) not in known:
            with torch.no_grad():
                known[p, y] = naive.token_log_probs(policy, PROMPTS[p], y).tolist()
        assert samples.token_logp_R[r] == pytest.approx(known[p, y], abs=1e-5)
    for positions in (1, 60):
        policy.budget.positions = positions
        other = policy.sample(PROMPTS, K, seed=seed, max_tokens=H)
        assert other.tokens_R == samples.tokens_R
        np.testing.assert_allclose(other.logp_R, samples.logp_R, atol=1e-4)


def test_each_distinct_prefix_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy()
    shapes = counted(policy, monkeypatch)
    samples = policy.sample(PROMPTS, K, seed=0, max_tokens=H)
    distinct = prefixes(samples)
    assert distinct[0] < distinct[-1] < len(samples)  # they branch, and some stay shared
    assert shapes == [
        (len(PROMPTS), max(len(policy.encode(x)) for x in PROMPTS)),
        *((n, 1) for n in distinct),
    ]


@pytest.mark.parametrize("rows", [1, 4, 16])
def test_rows_run_at_once_are_bounded(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy(pass_tokens=rows * (len(tiny.policy().encode(PROMPTS[0])) + H))
    shapes = counted(policy, monkeypatch)
    policy.sample(PROMPTS[:1], 64, seed=0, max_tokens=H)
    assert max(B for B, _ in shapes) <= rows


def test_draws_of_a_sure_policy_cost_as_much_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy()
    with torch.no_grad():
        policy.model.lm_head.weight.mul_(1000)
    shapes = counted(policy, monkeypatch)
    samples = policy.sample(PROMPTS, K, seed=0, max_tokens=H)
    assert samples.tokens_R == tuple(np.repeat(np.array(samples.tokens_R, object)[::K], K))
    assert max(B for B, _ in shapes) <= len(PROMPTS)


def test_a_prompt_may_come_twice() -> None:
    policy = tiny.policy()
    samples = policy.sample([PROMPTS[0], PROMPTS[0]], 5, seed=0, max_tokens=H)
    assert samples.tokens_R[:5] == samples.tokens_R[5:]


def test_the_prompt_without_numbers_is_the_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a number in one row leaves the search in the other rows alone."""
    policy = tiny.policy()
    assert policy.network.kind.keyed
    forward = policy.network.scores
    asked = tiny.prompts(["aa", "bb", "cc", "dd"])

    def broken(*arguments: Any, **more: Any) -> Any:
        out = forward(*arguments, **more)
        out[2] = torch.nan
        return out

    monkeypatch.setattr(policy.network, "scores", broken)
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


@pytest.mark.parametrize("pass_tokens", [None, 40])
def test_progress_is_told_as_tokens_are_made_and_adds_up_to_the_prompts(
    pass_tokens: int | None,
) -> None:
    policy = tiny.policy(pass_tokens=pass_tokens)
    parts: list[float] = []
    samples = policy.sample(PROMPTS, K, seed=0, max_tokens=H, advance=parts.append)
    assert len(parts) >= max(map(len, samples.tokens_R))
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(len(PROMPTS), rel=1e-12)
