"""align: the same loop on every kind of policy, with the closed forms that it must reach."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from srlm import loop, pairs
from srlm import train as update
from srlm.config import MeasureSettings, RunConfig, SampleSettings, UpdateSettings
from srlm.errors import UserError
from srlm.policies.listed import Listed
from srlm.policies.tabular import rows
from srlm.rewards.likelihood import likelihood
from srlm.rounds import Method, derived, efficiency, round_prompts
from srlm.run_folder import Memory
from srlm.runner import method_of
from srlm.types import Estimate, Floats, Prompt, Round
from tests import tiny
from tests.golden import trajectories

OBJECTIVES = {"square": update.square_objective, "weighted": update.weighted_objective}
T = 3


def recipe(objective: str = "square", source: str = "enumerate", **changes: Any) -> Method:
    every: dict[str, Any] = {
        "samples": SampleSettings(source=source, per_prompt=4, max_tokens=4),  # type: ignore[arg-type]
        "reward": likelihood,
        "pair": pairs.groups,
        "objective": OBJECTIVES[objective],
        "update": UpdateSettings(lr=3e-3, prompts_per_step=4),
        "measure": MeasureSettings(samples=4),
    }
    return Method(**every | changes)


def policies(policy: Any, x: list[Prompt], how: Method, rounds: int = T, **more: Any) -> Any:
    """[(round, policy)] of a run in memory."""
    memory = Memory()
    out: list[tuple[Round, Any]] = []
    for done in loop.self_reward(policy, x, x, method=how, rounds=rounds, folder=memory, **more):
        out.append((done, memory.policy if done.round else policy))
    return out


def table(policy: Listed, x: list[Prompt]) -> Floats:
    return np.exp(policy.log_table(x))


def margin(p_PM: Floats) -> Floats:
    top = np.sort(np.log(p_PM), axis=1)
    return np.asarray(top[:, -1] - top[:, -2])


exact = st.tuples(
    st.floats(0.7, 20), st.integers(0, 10**6), st.booleans(), st.sampled_from(list(OBJECTIVES))
)


@given(exact)
@settings(max_examples=25)
def test_rounds_are_powers_of_the_base(drawn: tuple[float, int, bool, str]) -> None:
    """pi_t = pi_0^((1 + 1/beta)^t); the mode stays, the margin grows by 1 + 1/beta, kappa falls."""
    beta, seed, vectors, objective = drawn
    x = tiny.vectors(6) if vectors else rows(5)
    base: Listed = (
        tiny.linear(seed=seed, scale=0.8) if vectors else tiny.tabular(seed=seed, scale=0.8)
    )
    start = base.log_table(x)
    how = recipe(objective, update=UpdateSettings(beta=beta))
    run = policies(base, x, how)
    factor = 1 + 1 / beta
    before = table(base, x)
    kappas = []
    for t, (done, policy) in enumerate(run):
        p = table(policy, x)
        np.testing.assert_allclose(
            p, np.exp(log_softmax(factor**t * start, axis=1)), atol=1e-9, rtol=0
        )
        clear = margin(before) > 1e-6
        assert (p.argmax(1) == before.argmax(1))[clear].all()
        # A solver stops where the gradient, a difference of probabilities, is some 1e-13: that is
        # what the second response's probability is known to, its logarithm to 1e-13 / p2.
        second_P = np.sort(p, axis=1)[:, -2]
        off_P = np.abs(margin(p) - factor**t * margin(before))
        assert (off_P <= 1e-6 + factor**t * 1e-12 / second_P).all()
        kappas.append(np.mean(1 / p.max(1)))
        assert done.estimates["kappa"].value == pytest.approx(kappas[-1], rel=1e-12)
        assert done.round == t
        assert (done.update is None) == (t == 0)
        if bool(clear.all()):
            assert done.estimates["fidelity"].value == 1.0
        if np.ptp(start) > 0.1 and p.min() > 1e-9:  # rarer ones are solved for less exactly
            assert done.estimates["exponent"].value == pytest.approx(factor**t, rel=1e-4)
            if t:
                assert done.estimates["efficiency"].value == pytest.approx(1, abs=1e-4)
    assert all(b <= a + 1e-12 for a, b in pairwise(kappas))
    np.testing.assert_array_equal(base.log_table(x), start)


@pytest.mark.parametrize("kind", [pairs.groups, pairs.pairs])
def test_rounds_from_draws_are_exact_where_they_span(
    kind: Callable[..., Any],
) -> None:
    x, base = tiny.vectors(40), tiny.linear(scale=0.5)
    how = recipe(
        source="sampling",
        pair=kind,
        update=UpdateSettings(beta=2.0),
        samples=SampleSettings(per_prompt=32),
    )
    for t, (_, policy) in enumerate(policies(base, x, how)):
        np.testing.assert_allclose(
            table(policy, x),
            np.exp(log_softmax(1.5**t * base.log_table(x), axis=1)),
            atol=1e-9,
        )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_same_loop_on_a_network(objective: str) -> None:
    base = tiny.policy("llama")
    x = tiny.texts(16)
    how = recipe(
        objective, "sampling", update=UpdateSettings(lr=1e-2, prompts_per_step=4, epochs=4)
    )
    before = base.greedy(x, max_tokens=4)
    run = policies(base, x, how, rounds=2)
    again = policies(base, x, how, rounds=2)
    kappa = [done.estimates["kappa"].value for done, _ in run]
    assert kappa == [done.estimates["kappa"].value for done, _ in again]
    assert kappa[0] > kappa[1] > kappa[2] > 1
    assert 1 < run[1][0].estimates["exponent"].value < run[2][0].estimates["exponent"].value
    for done, _ in run[1:]:
        assert done.update is not None
        assert done.update.loss_after < done.update.loss_before
        assert 0 < done.estimates["kl_to_base"].value < 5
    assert (base.greedy(x, max_tokens=4).logp_R == before.logp_R).all()
    other = policies(base, x, how, rounds=1, seed=1)
    assert other[1][0].estimates["kappa"].value != kappa[1]


@pytest.mark.smoke
@pytest.mark.parametrize("name", trajectories.MADE)
def test_golden(name: str) -> None:
    expected = json.loads((trajectories.FOLDER / f"{name}.json").read_text())
    close = 1e-9 if name == "linear" else 1e-4
    found = trajectories.MADE[name]()
    assert len(found) == len(expected) == 4
    for t, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a == pytest.approx(b, rel=close, abs=close), f"round {t}"


def test_enumeration_needs_an_exact_policy() -> None:
    with pytest.raises(
        UserError, match=r"CausalLM: responses cannot be enumerated.*--source sampling"
    ):
        policies(tiny.policy(), tiny.texts(3), recipe(source="enumerate"), rounds=1)


def test_rewards_of_ones_own() -> None:
    """A reward is a function; here label 0 is wanted: pi_1 proportional to pi_0 exp(r / beta)."""
    base, x = tiny.tabular(), rows(5)

    def first(policy: Any, prompts: Any, samples: Any) -> Floats:
        return np.array([float(t == (0,)) for t in samples.tokens_R])

    how = recipe("weighted", reward=first, update=UpdateSettings(beta=0.5))
    (_, (_, policy)) = policies(base, x, how, rounds=1)
    wanted = table(base, x) * np.where(np.arange(4) == 0, np.exp(2.0), 1.0)
    np.testing.assert_allclose(table(policy, x), wanted / wanted.sum(1, keepdims=True), atol=1e-9)


def test_a_reward_without_a_number_anywhere_is_named() -> None:
    def none(policy: Any, prompts: Any, samples: Any) -> Floats:
        return np.full(len(samples), np.nan)

    with pytest.raises(UserError, match="no response of this round has a reward"):
        policies(tiny.tabular(), rows(5), recipe(reward=none), rounds=1)


def test_prompts_of_a_round() -> None:
    x = rows(20)
    assert round_prompts(x, None, 0, 0) == x
    assert round_prompts(x, 20, 0, 0) == x
    some = [round_prompts(x, 7, seed, t) for seed in (0, 1) for t in (0, 1)]
    for chosen in some:
        numbers = [p.content for p in chosen]
        assert len(set(numbers)) == 7
        assert numbers == sorted(numbers)
    assert len({tuple(p.content for p in chosen) for chosen in some}) == 4
    assert round_prompts(x, 7, 0, 0) == some[0]


def test_seeds_differ_by_purpose_and_round() -> None:
    made = {
        derived(seed, purpose, t)
        for seed in range(3)
        for purpose in ("samples", "update", "measure", "prompts")
        for t in range(3)
    }
    assert len(made) == 36
    assert all(0 <= s < 2**63 for s in made)


def test_settings_name_functions() -> None:
    flat: dict[str, Any] = {"model": "m", "prompts": {"file": "p"}}
    made = method_of(RunConfig.model_validate(flat))
    assert made.objective is update.weighted_objective
    assert made.reward is likelihood
    other = {"update": {"kind": "square"}, "pairs": {"kind": "pairs", "reward_floor": 1.5}}
    made = method_of(RunConfig.model_validate(flat | other))
    assert made.objective is update.square_objective
    samples = tiny.tabular(1, 4, scale=4).sample(rows(1), 40, seed=0, max_tokens=1)
    paired = made.pair(samples, samples.logp_R)
    assert paired.groups == 20
    gap = np.array([np.ptp(paired.reward_R[paired.group_R == g]) for g in range(20)])
    assert gap.max() == pytest.approx(1.5)


def test_efficiency() -> None:
    def at(value: float | None, low: float | None, high: float | None, t: int) -> Estimate:
        return efficiency(Estimate(value, low, high, 9, "slope"), t, 1.0)

    assert at(4.0, 2.0, 8.0, 2).value == pytest.approx(1)
    assert at(4.0, 2.0, 8.0, 2).low == pytest.approx(0.5)
    assert at(4.0, 2.0, 8.0, 2).high == pytest.approx(1.5)
    assert at(2.0, -1.0, None, 2).low is None
    for none in (at(1.0, 1.0, 1.0, 0), at(None, None, None, 1), at(-0.5, -1.0, 0.0, 1)):
        assert (none.value, none.guarantee) == (None, "undefined")
