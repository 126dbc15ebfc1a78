"""Updates: exact minimisers reach their target, gradient steps do not depend on the micro-batch."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from srlm import losses, pairs
from srlm import train as update
from srlm.config import UpdateSettings
from srlm.errors import UserError
from srlm.policies.hf import CausalLM
from srlm.policies.linear_softmax import LinearSoftmax
from srlm.policies.listed import Listed
from srlm.policies.tabular import Tabular, rows
from srlm.types import Floats, Pairs, Prompt, UpdateReport
from tests import tiny

OBJECTIVES = {"square": update.square_objective, "weighted": update.weighted_objective}
X = tiny.texts(12)


def enumerated(policy: Listed, x: list[Prompt], kind: Any = pairs.groups) -> Pairs:
    samples = policy.enumerate(x)
    return kind(samples, samples.logp_R)


def fitted(
    policy: Listed, x: list[Prompt], made: Pairs, objective: str, beta: float
) -> tuple[Listed, UpdateReport]:
    settings = UpdateSettings(beta=beta)
    new, report = update.fit(policy, x, made, OBJECTIVES[objective], settings, seed=0)  # type: ignore[arg-type]
    assert isinstance(new, Listed)
    return new, report


def power(policy: Listed, x: list[Prompt], exponent: float) -> Floats:
    """pi^exponent, normalised, [P, M]."""
    return np.exp(log_softmax(exponent * policy.log_table(x), axis=1))


# ---- exact minimisers


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(
    beta=st.floats(0.3, 20), seed=st.integers(0, 10**6), scale=st.floats(0.0, 2.0), D=st.booleans()
)
@settings(max_examples=25)
def test_the_minimiser_by_enumeration(
    objective: str, beta: float, seed: int, scale: float, D: bool
) -> None:
    """pi^(1 + 1/beta) to 1e-9, on a table and on linear features."""
    policy: Listed = (
        tiny.linear(seed=seed, scale=scale) if D else tiny.tabular(seed=seed, scale=scale)
    )
    x = tiny.vectors(6) if D else rows(5)
    new, report = fitted(policy, x, enumerated(policy, x), objective, beta)
    np.testing.assert_allclose(
        np.exp(new.log_table(x)), power(policy, x, 1 + 1 / beta), atol=1e-9, rtol=0
    )
    assert report.notes == ()
    assert report.loss_after == pytest.approx(report.loss_floor, abs=1e-9)
    assert report.loss_before >= report.loss_after - 1e-12


@pytest.mark.parametrize("kind", [pairs.groups, pairs.pairs])
@pytest.mark.parametrize("beta", [0.25, 1.0, 4.0])
def test_enough_sampled_pairs_reach_the_minimiser(kind: Any, beta: float) -> None:
    for policy, x in ((tiny.tabular(3, 3, scale=0.7), rows(3)), (tiny.linear(), tiny.vectors(9))):
        samples = policy.sample(x, 200, seed=0, max_tokens=1)
        new, report = fitted(policy, x, kind(samples, samples.logp_R), "square", beta)
        np.testing.assert_allclose(
            np.exp(new.log_table(x)), power(policy, x, 1 + 1 / beta), atol=1e-9, rtol=0
        )
        assert report.loss_after < 1e-18
        assert report.loss_before > 1e-3


def test_features_that_span_give_theta_times_one_plus_one_over_beta() -> None:
    """[SR] section 6: theta_{t+1} = (1 + 1/beta) theta_t."""
    rng = np.random.default_rng(0)
    policy = LinearSoftmax(
        rng.standard_normal(4), ("a", "b", "c"), phi_XMD=rng.standard_normal((9, 3, 4))
    )
    for objective in OBJECTIVES:
        new, _ = fitted(policy, rows(9), enumerated(policy, rows(9)), objective, 0.5)
        assert isinstance(new, LinearSoftmax)
        np.testing.assert_allclose(new.theta, 3 * policy.theta, atol=1e-9)


def test_directions_that_no_pair_compares_stay() -> None:
    """Only prompt 0 is seen, and of it only two of three responses."""
    policy = tiny.tabular(2, 3)
    samples = policy.enumerate(rows(2)).take(np.array([0, 1]))
    made = pairs.groups(samples, samples.logp_R)
    new, _ = fitted(policy, rows(2), made, "square", 1.0)
    assert isinstance(new, Tabular)
    change = (new.theta - policy.theta).reshape(2, 3)
    assert change[0, 2] == 0
    assert change[1].tolist() == [0, 0, 0]
    logp = samples.logp_R
    assert change[0, 0] - change[0, 1] == pytest.approx(logp[0] - logp[1])
    assert change[0, 0] == pytest.approx(-change[0, 1])  # the least change that does it


def test_weighted_on_draws_that_can_be_separated_says_so() -> None:
    policy = tiny.tabular(2, 3, scale=0.3)
    samples = policy.sample(rows(2), 1, seed=0, max_tokens=1)
    new, report = fitted(policy, rows(2), pairs.groups(samples, samples.logp_R), "weighted", 1.0)
    assert np.isfinite(new.log_table(rows(2))).all()
    assert report.loss_after < report.loss_before
    assert report.loss_after < 1e-3


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_responses_of_zero_probability_stay_so(objective: str) -> None:
    policy = Tabular(np.array([[0.0, -np.inf, 1.0], [2.0, 1.0, 0.0]]))
    new, _ = fitted(policy, rows(2), enumerated(policy, rows(2)), objective, 1.0)
    expected = np.array([[1, 0, np.e**2], [np.e**4, np.e**2, 1]])
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(np.exp(new.log_table(rows(2))), expected, atol=1e-9)


# ---- gradient descent


def drawn(policy: CausalLM, draws: int = 4) -> Pairs:
    samples = policy.sample(X, draws, seed=0, max_tokens=4)
    return pairs.groups(samples, samples.logp_R)


def trained(
    objective: str, seed: int = 0, **changes: Any
) -> tuple[CausalLM, UpdateReport, list[int]]:
    policy = tiny.policy("llama")
    made = drawn(policy)
    done: list[int] = []
    recipe = UpdateSettings(
        **{"beta": 1.0, "prompts_per_step": 5, "epochs": 2, "lr": 1e-2} | changes
    )
    new, report = update.fit(
        policy, X, made, OBJECTIVES[objective], recipe, seed=seed, advance=done.append
    )
    assert new is policy
    return policy, report, done


def flat(policy: CausalLM) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


def apart(one: CausalLM, other: CausalLM, start: torch.Tensor) -> float:
    """Distance of two policies over the length of the update, both Euclidean.

    Adam's step is gradient over its root mean square: an entry whose gradient is rounding alone
    moves by up to the learning rate either way, so that no bound holds for every entry.
    """
    return float((flat(one) - flat(other)).norm() / (flat(other) - start).norm())


CLOSE = 1e-3
"""The precision of float32, 6e-8, times a gradient's terms and the condition of Adam's step."""


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_step_does_not_depend_on_the_micro_batch(objective: str) -> None:
    """With whole groups in a pass, and with groups that are larger than one."""
    start = flat(tiny.policy("llama"))
    whole, report, _ = trained(objective, pass_tokens=10_000, lr=2e-3)
    for tokens_at_once in (1, 12, 60):
        parts, other, _ = trained(objective, pass_tokens=tokens_at_once, lr=2e-3)
        assert apart(parts, whole, start) < CLOSE
        assert other.loss_after == pytest.approx(report.loss_after, rel=CLOSE)
        assert other.loss_before == report.loss_before
    assert (flat(whole) - start).abs().max() > 5e-3


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_loss_falls(objective: str, family: str) -> None:
    policy = tiny.policy(family)
    made = drawn(policy, 8)
    recipe = UpdateSettings(prompts_per_step=4, epochs=6, lr=1e-2, beta=1.0)
    _, report = update.fit(policy, X, made, OBJECTIVES[objective], recipe, seed=0)
    assert report.steps == 18
    assert report.loss_floor <= report.loss_after
    fallen = (report.loss_before - report.loss_after) / (report.loss_before - report.loss_floor)
    assert fallen > 0.3


def test_losses_reported_are_those_of_the_round() -> None:
    policy = tiny.policy("llama")
    made = drawn(policy)
    recipe = UpdateSettings(prompts_per_step=5, epochs=1, lr=1e-2, beta=0.5)
    _, report = update.fit(policy, X, made, update.square_objective, recipe, seed=0)
    logp_R = torch.from_numpy(policy.log_prob(X, made.prompt_R, made.tokens_R))
    g = losses.Groups.of(made, 0.5)
    for now, loss in ((g.reference_R, report.loss_before), (logp_R, report.loss_after)):
        expected = losses.square(now, g).mean().item()
        assert loss == pytest.approx(expected, abs=1e-6)


def test_the_seed_orders_the_groups() -> None:
    one, same, other = (flat(trained("weighted", seed)[0]) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_every_group_counts_once_an_epoch() -> None:
    _, report, done = trained("weighted")
    assert done == [5, 5, 2] * 2
    assert report.steps == 6


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    ramp = [update._ramp(10, 0.3)(step) for step in range(11)]
    assert ramp[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert all(a >= b for a, b in pairwise(ramp[2:]))
    assert ramp[10] == 0
    assert min(ramp[:10]) > 0
    assert update._ramp(1, 0.1)(0) == 1.0


def test_one_step_is_the_slow_twins() -> None:
    """The first step of AdamW goes by the learning rate against the gradient's sign."""
    policy = tiny.policy("llama")
    before, made = flat(policy), drawn(policy)
    logp_R = policy.log_prob_grad(X, made.prompt_R, made.tokens_R)
    loss = losses.weighted(logp_R, losses.Groups.of(made, 1.0)).mean()
    grads = torch.autograd.grad(loss, policy.parameters())
    gradient = torch.cat([g.flatten() for g in grads])
    recipe = UpdateSettings(beta=1.0, prompts_per_step=100, epochs=1, lr=1e-3, clip=1e9, tail=0)
    update.fit(policy, X, made, update.weighted_objective, recipe, seed=0)
    clear = gradient.abs() > 1e-4
    assert clear.float().mean() > 0.5
    torch.testing.assert_close(
        (flat(policy) - before)[clear], -1e-3 * gradient[clear].sign(), atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_loss_that_is_no_number_stops_the_round(objective: str) -> None:
    policy = tiny.policy("llama")
    made = drawn(policy)
    with torch.no_grad():
        policy.parameters()[-1].fill_(torch.nan)
    with pytest.raises(UserError, match=r"not finite at step 1 of \d+.*--lr"):
        update.fit(policy, X, made, OBJECTIVES[objective], UpdateSettings(), seed=0)


def test_an_absurd_learning_rate_stops_the_round() -> None:
    with pytest.raises(UserError, match=r"not finite.*--lr"):
        trained("square", lr=1e30, clip=1e30)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_loss_that_rises_on_its_own_data_names_the_learning_rate(objective: str) -> None:
    with pytest.raises(UserError, match=r"rose from .* learning rate, 1, .*--lr 0.1"):
        trained(objective, lr=1.0, epochs=3)


def test_learning_rates_follow_the_size() -> None:
    sizes = 10 ** np.linspace(5, 11, 40)
    for lora in (False, True):
        rates = [update.recommended(int(n), lora=lora).lr for n in sizes]
        assert (np.diff(rates) <= 0).all()
        assert rates[0] == pytest.approx(5e-4)
    assert 1e-6 <= update.recommended(8 * 10**9).lr <= update.recommended(5 * 10**8).lr <= 1e-5


def test_the_learning_rate_is_the_sizes_where_none_is_given() -> None:
    chosen, _, _ = trained("weighted", lr=None)
    given_, _, _ = trained("weighted", lr=update.recommended(10**4).lr)
    assert torch.equal(flat(chosen), flat(given_))


# ---- number formats


def test_half_precision_weights_are_trained_in_float32() -> None:
    """Steps of a thousandth of a weight's last bit add up: the round moves bfloat16 parameters as
    far as float32 ones, up to rounding; without copies hardly any would move."""
    changes, first = {}, tiny.policy("llama").model.to(torch.bfloat16).float().state_dict()
    for dtype in (torch.float32, torch.bfloat16):
        policy = tiny.policy("llama")
        policy.model.load_state_dict(first)
        policy.model.to(dtype)
        start = flat(policy).float()
        made = drawn(policy)
        recipe = UpdateSettings(beta=1.0, prompts_per_step=1, epochs=20, lr=2e-5)
        update.fit(policy, X, made, update.weighted_objective, recipe, seed=0)
        assert {p.dtype for p in policy.parameters()} == {dtype}
        changes[dtype] = (flat(policy).float() - start).numpy(), start.numpy()
    half, start = changes[torch.bfloat16]
    full, _ = changes[torch.float32]
    spacing = np.abs(start) * torch.finfo(torch.bfloat16).eps
    assert np.mean(half != 0) > 0.2
    large = np.abs(full) > 2 * spacing
    assert large.mean() > 0.02
    assert np.corrcoef(half[large], full[large])[0, 1] > 0.5


def test_float16_is_refused_with_the_reason() -> None:
    policy = tiny.policy("llama")
    made = drawn(policy)
    policy.model.to(torch.float16)
    with pytest.raises(UserError, match=r"float16.*AdamW"):
        update.fit(policy, X, made, update.weighted_objective, UpdateSettings(), seed=0)


# ---- memory


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_layers_that_are_computed_again_give_the_same_gradient(family: str) -> None:
    policy = tiny.policy(family)
    made = drawn(policy)
    rows_R = (X, made.prompt_R, made.tokens_R)
    one = torch.autograd.grad(policy.log_prob_grad(*rows_R).sum(), policy.parameters())
    with policy.recomputing():
        assert policy.network.recomputes
        logp_R = policy.log_prob_grad(*rows_R)
        other = torch.autograd.grad(logp_R.sum(), policy.parameters())
    assert not policy.network.recomputes
    assert not any(module.training for module in policy.model.modules())
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fit_at", [30, 12, 0])
def test_an_update_goes_on_in_smaller_passes_when_memory_runs_out(
    fit_at: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Down to passes that fit, at last with layers computed again; the step stays the same."""
    whole, report, _ = trained("weighted", lr=2e-3)
    policy = tiny.policy("llama")
    made = drawn(policy)
    run = policy.log_prob_grad

    def limited(x: Any, prompt_R: Any, tokens_R: Any) -> torch.Tensor:
        size = sum(map(len, tokens_R))
        if torch.is_grad_enabled() and size > fit_at and not policy.network.recomputes:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")
        return run(x, prompt_R, tokens_R)

    monkeypatch.setattr(policy, "log_prob_grad", limited)
    recipe = UpdateSettings(beta=1.0, prompts_per_step=5, epochs=2, lr=2e-3)
    _, other = update.fit(policy, X, made, update.weighted_objective, recipe, seed=0)
    assert apart(policy, whole, flat(tiny.policy("llama"))) < CLOSE
    assert other.loss_after == pytest.approx(report.loss_after, rel=CLOSE)
    assert len(caplog.records) == 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 200))
def test_every_group_is_in_one_pass_and_passes_are_full(sizes: list[int], tokens: int) -> None:
    size_G = np.array(sizes)
    chosen = np.random.default_rng(0).permutation(len(sizes))
    parts = list(update.parted(size_G, chosen, tokens))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(sizes)))
    for part in parts:
        assert len(part) == 1 or size_G[part].sum() <= tokens
    in_order = size_G[np.concatenate(parts)]
    assert (np.diff(in_order) <= 0).all()
    least = -(-size_G.sum() // tokens)
    assert len(parts) <= 2 * least + 1


def test_what_is_neither_exact_nor_trainable() -> None:
    compared = enumerated(Tabular(np.zeros((2, 3))), rows(2))
    with pytest.raises(TypeError, match="neither LogLinear nor Differentiable"):
        update.fit(object(), rows(2), compared, update.square_objective, UpdateSettings(), seed=0)  # type: ignore[arg-type]


def test_rows_of_next_to_no_weight_are_left_out_of_gradient_descent_only() -> None:
    policy = tiny.policy("llama")
    made = drawn(policy, 16)
    seen: list[int] = []
    run = policy.log_prob_grad
    policy.log_prob_grad = lambda p, i, y: (seen.append(len(y)), run(p, i, y))[1]  # type: ignore[method-assign]
    recipe = UpdateSettings(beta=0.5, prompts_per_step=100, epochs=1, lr=1e-3)
    counts = {}
    for objective in ("weighted", "square"):
        for tail in (0.0, 0.05):
            seen.clear()
            settings = recipe.model_copy(update={"tail": tail})
            update.fit(policy, X, made, OBJECTIVES[objective], settings, seed=0)
            counts[objective, tail] = sum(seen)
    assert counts["weighted", 0.0] == counts["square", 0.0] == counts["square", 0.05]
    assert counts["weighted", 0.05] < 0.8 * counts["weighted", 0.0]
