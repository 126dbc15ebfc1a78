"""kappa: closed forms, certificates, the stop rule of adaptive sampling, sizes beyond floats."""

from __future__ import annotations

import numpy as np
import pytest

from srlm.errors import UserError
from srlm.measure import condition
from srlm.measure.modes import Modes, enumerated, improved
from srlm.measure.search import find_modes
from srlm.policies.tabular import Tabular, rows
from srlm.samples import blocks, gathered
from srlm.types import Estimate, Samples
from tests.measure.toy import ToyTree


def table(seed: int = 0, P: int = 60, M: int = 6) -> Tabular:
    return Tabular(1.5 * np.random.default_rng(seed).standard_normal((P, M)))


def of_modes(modes: Modes) -> Estimate:
    return condition.kappa(modes.logp_P, "search", seed=0, upper_P=modes.upper_P)


def test_enumeration_and_search_agree_with_the_definition() -> None:
    policy, prompts = table(), rows(60)
    p_PM = np.exp(policy.log_table(prompts))
    kappa = (1 / p_PM.max(1)).mean()
    for modes in (
        enumerated(policy.enumerate(prompts), 60),
        find_modes(policy.tree(prompts, max_tokens=1), 60, nodes=9),
    ):
        estimate = of_modes(modes)
        assert estimate.value == pytest.approx(kappa)
        assert estimate.guarantee == "exact"
        assert estimate.low is not None
        assert estimate.high is not None
        assert 1 <= estimate.low < kappa < estimate.high


def test_fixed_n_is_never_below() -> None:
    policy, prompts = table(), rows(60)
    truth = of_modes(enumerated(policy.enumerate(prompts), 60)).value
    for draws in (2, 4, 64):
        samples = policy.sample(prompts, draws, seed=1, max_tokens=1)
        estimate = condition.fixed_n(samples, 60)
        assert estimate.guarantee == "upper bound"
        assert estimate.method == f"fixed N = {draws}"
        assert estimate.value is not None
        assert truth is not None
        assert estimate.value >= truth - 1e-12


def test_certificate_of_a_search_cut_short_holds_the_truth() -> None:
    toy = ToyTree(4, 50, 4, 5, scale=1.0)
    truth = of_modes(find_modes(toy, 50, nodes=10**6)).value
    assert truth is not None
    for nodes in (1, 4, 6, 10):
        modes = find_modes(toy, 50, nodes=nodes)
        guarantee = of_modes(modes).guarantee
        if guarantee != "exact":
            low, high = (float(x) for x in guarantee.split("[")[1].rstrip("]").split(","))
            assert low <= truth * (1 + 1e-5)
            assert high >= truth * (1 - 1e-5)


def test_adaptive_sampling_is_kappa_at_the_best_of_the_samples() -> None:
    policy, prompts = table(5, 20), rows(20)
    found = condition.adaptive_sampling(policy, prompts, mu=2.0, seed=0, max_tokens=1, block=8)
    samples = gathered(blocks(policy, prompts, 2.0, 8, 0, 1))
    best_P = np.full(20, -np.inf)
    np.maximum.at(best_P, samples.prompt_R, samples.logp_R)
    assert found.value == pytest.approx(np.exp(-best_P).mean(), rel=1e-12)
    assert "probability >= 0.8647" in found.guarantee


def test_adaptive_sampling_says_when_the_limit_came_first() -> None:
    policy, prompts = table(5, 20), rows(20)
    found = condition.adaptive_sampling(policy, prompts, mu=50.0, seed=0, max_tokens=1, limit=10)
    assert "20 of 20 prompts stopped at the limit" in found.guarantee
    with pytest.raises(UserError, match="mu is 0"):
        condition.adaptive_sampling(policy, prompts, mu=0.0, seed=0, max_tokens=1)


def test_log10_kappa_where_kappa_overflows() -> None:
    logp_P = np.array([-2000.0, -2000.0, -2300.0, -1900.0])
    estimate = condition.log10_kappa(logp_P, "search", seed=0, upper_P=logp_P)
    assert estimate.value == pytest.approx((2300 - np.log(4)) / np.log(10))
    assert condition.kappa(logp_P, "search", seed=0, upper_P=logp_P).value == np.inf
    assert condition.kappa(logp_P, "search", seed=0, upper_P=logp_P).to_json()["value"] is None


def test_log10_kappa_is_the_log_of_kappa() -> None:
    logp_P = np.log(np.random.default_rng(0).beta(3, 3, 80))
    kappa = condition.kappa(logp_P, "m", seed=4)
    log10 = condition.log10_kappa(logp_P, "m", seed=4)
    for a, b in ((kappa.value, log10.value), (kappa.low, log10.low), (kappa.high, log10.high)):
        assert a is not None
        assert b is not None
        assert np.log10(a) == pytest.approx(b)


def test_a_few_prompts_that_carry_the_mean_are_told() -> None:
    logp_P = np.log(np.full(100, 0.5))
    assert condition.kappa(logp_P, "m", seed=0).note == ""
    logp_P[7] = np.log(1e-4)
    assert "1 of 100 prompts carry 98% of the mean" in condition.kappa(logp_P, "m", seed=0).note
    s = condition.spread(logp_P)
    assert s.heavy
    assert s.median == pytest.approx(np.log10(2))


def test_no_outcome_is_told_not_hidden() -> None:
    logp_P = np.array([-np.inf, -1.0, -2.0])
    estimate = condition.kappa(logp_P, "search", seed=0, upper_P=np.array([-0.5, -1.0, -2.0]))
    assert estimate.value == np.inf
    assert "no outcome found for 1 of 3" in estimate.note
    assert "inf]" in estimate.guarantee
    assert condition.spread(logp_P).top_share == 1.0


def test_draws_tighten_a_search_cut_short() -> None:
    toy = ToyTree(6, 10, 4, 5, scale=1.5)
    short, full = find_modes(toy, 10, nodes=1), find_modes(toy, 10, nodes=10**6)
    outcomes = [(p, t, v) for p in range(10) for t, v in toy.outcomes(p).items()]
    draws = Samples(
        prompt_R=np.array([p for p, _, _ in outcomes]),
        tokens_R=tuple(t for _, t, _ in outcomes),
        logp_R=np.array([v for _, _, v in outcomes]),
        weight_R=np.exp([v for _, _, v in outcomes]),
        finished_R=np.array([t[-1] == 0 for _, t, _ in outcomes]),
        text_R=("",) * len(outcomes),
    )
    better = improved(short, draws)
    assert not short.certified_P.all()
    assert better.tokens_P == full.tokens_P
    assert (better.logp_P == full.logp_P).all()
    assert (better.upper_P >= full.logp_P).all()
    same = improved(full, draws)
    assert (same.second_P == full.second_P).all()
    listed = enumerated(draws, 10)
    assert listed.tokens_P == full.tokens_P
    assert (listed.second_P == full.second_P).all()
    assert (listed.finished_P == full.finished_P).all()
