"""Powers of a policy from its draws: exact on what is known, unbiased on the rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srlm.errors import UserError
from srlm.forecast.powers import Known, expect, exponents, kappa_next, known, sharpen
from srlm.measure.modes import enumerated
from srlm.policies.tabular import Tabular, rows
from srlm.types import Floats, Samples

P, M = 6, 5


def table(seed: int = 0, scale: float = 1.5, responses: int = M) -> Tabular:
    return Tabular(scale * np.random.default_rng(seed).standard_normal((P, responses)))


def listed(policy: Tabular) -> Known:
    samples = policy.enumerate(rows(P))
    modes = enumerated(samples, P)
    return known(samples, modes.tokens_P, modes.logp_P, exact=True)


def drawn(policy: Tabular, draws: int, seed: int, *, modes: bool = True) -> Known:
    samples = policy.sample(rows(P), draws, seed=seed, max_tokens=1)
    found = enumerated(policy.enumerate(rows(P)), P)
    if not modes:
        return known(samples, [()] * P, np.full(P, -np.inf))
    return known(samples, found.tokens_P, found.logp_P)


def power(policy: Tabular, p: float) -> Floats:
    """pi^p normalised, [P, M]."""
    pi = np.exp(p * policy.log_table(rows(P)))
    return np.asarray(pi / pi.sum(1, keepdims=True))


@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 4.0, 64.0])
def test_enumerated_responses_give_exact_powers(p: float) -> None:
    policy = table()
    everything = listed(policy)
    sharp = sharpen(everything, p)
    pi = power(policy, p)
    assert np.allclose(np.exp(sharp.log_top_P), pi.max(1))
    assert np.allclose(sharp.weight_R.reshape(P, M), pi)
    assert np.allclose(sharp.log_z_P, np.log(np.exp(p * policy.log_table(rows(P))).sum(1)))
    entropy = -(pi * np.log(np.maximum(pi, 1e-300))).sum(1)
    assert np.allclose(sharp.entropy_P, entropy, atol=1e-9)
    metric = np.random.default_rng(1).random(P * M)
    assert np.allclose(expect(everything, sharp, metric), (pi * metric.reshape(P, M)).sum(1))
    assert np.isinf(sharp.sample_size_P).all()
    assert sharp.supported_P.all()


def test_one_exponent_a_prompt() -> None:
    policy = table()
    p = np.linspace(1.0, 3.0, P)
    one_by_one = [float(sharpen(listed(policy), float(x)).log_top_P[i]) for i, x in enumerate(p)]
    assert np.allclose(sharpen(listed(policy), p).log_top_P, one_by_one)


@pytest.mark.parametrize("modes", [True, False])
def test_normaliser_and_sums_are_unbiased(modes: bool) -> None:
    """Mean over 800 sets of 4 draws against enumeration, within 4 standard errors."""
    policy = table(scale=1.0, responses=12)
    metric_M = np.random.default_rng(2).random(12)
    sets = [drawn(policy, 4, seed, modes=modes) for seed in range(800)]
    value = [np.array([metric_M[m] for m in tokens_of(policy, found)]) for found in sets]
    for p in (1.01, 1.5, 2.25):
        pi = np.exp(p * policy.log_table(rows(P)))
        sharp = [sharpen(found, p) for found in sets]
        z_SP = [np.exp(s.log_z_P) for s in sharp]
        sum_SP = [
            z * expect(found, s, m_R)
            for z, found, s, m_R in zip(z_SP, sets, sharp, value, strict=True)
        ]
        for got, want in ((z_SP, pi.sum(1)), (sum_SP, pi @ metric_M)):
            mean, error = np.mean(got, 0), np.std(got, 0) / np.sqrt(len(got))
            assert (np.abs(mean - want) < 4 * error + 1e-12).all()


def tokens_of(policy: Tabular, found: Known) -> list[int]:
    """Response of each known row, told by its log-probability (all differ)."""
    logp_PM = policy.log_table(rows(P))
    return [
        int(np.abs(logp_PM[p] - logp).argmin())
        for p, logp in zip(found.prompt_R, found.logp_R, strict=True)
    ]


def test_the_searched_mode_makes_the_estimate_tighter() -> None:
    """Spread over 150 sets of 4 draws of log Z_4, with and without the mode."""
    policy = table(scale=1.0, responses=30)
    spread = {
        modes: np.std(
            [sharpen(drawn(policy, 4, s, modes=modes), 4.0).log_z_P for s in range(150)], axis=0
        ).mean()
        for modes in (True, False)
    }
    assert spread[True] < 0.5 * spread[False]


def test_effective_sample_size_is_that_of_the_draws() -> None:
    policy = table()
    samples = policy.sample(rows(P), 16, seed=3, max_tokens=1)
    found = drawn(policy, 16, 3)
    weight = np.exp(0.5 * samples.logp_R).reshape(P, 16)
    want = weight.sum(1) ** 2 / (weight**2).sum(1)
    assert np.allclose(sharpen(found, 1.5).sample_size_P, want)
    assert np.allclose(sharpen(found, 1.0).sample_size_P, 16)


def test_a_mode_that_no_draw_hit_is_no_draw() -> None:
    """Two draws far below the mode: they carry nothing, and that is a number, not nan."""
    policy = Tabular(np.array([[0.0, -3.0, -3.1, -3.2]]))
    everything = policy.enumerate(rows(1))
    some = everything.take(np.array([1, 2]))
    found = known(some, [(0,)], everything.logp_R[:1])
    sharp = sharpen(found, 1e6)
    assert found.draws_R.tolist() == [1, 1, 0]
    assert sharp.sample_size_P[0] == pytest.approx(1.0)
    assert np.exp(sharp.log_top_P[0]) == pytest.approx(1.0)
    assert sharp.known_P[0] == pytest.approx(1.0)


def test_the_base_is_not_estimated() -> None:
    """Z_1 = 1: the confidence of round 0 is p*, whatever the samples are."""
    policy = table(scale=1.0, responses=12)
    found = drawn(policy, 4, 0)
    top_P = policy.log_table(rows(P)).max(1)
    assert (sharpen(found, 1.0).log_top_P == top_P).all()
    assert np.abs(sharpen(found, np.full(P, 1.0)).log_z_P).max() == 0


def test_a_mode_that_is_not_certified_supports_nothing() -> None:
    policy = Tabular(np.linspace(0, 1, 2000)[None])
    samples = policy.sample(rows(1), 4, seed=0, max_tokens=1)
    for certain in (True, False):
        found = known(samples, [(1999,)], np.array([-6.9]), certified_P=np.array([certain]))
        assert sharpen(found, 1e6).supported_P[0] == certain


def test_support_is_the_draws_or_what_is_certain() -> None:
    flat = Tabular(np.linspace(0, 1, 2000)[None])
    found = known(flat.sample(rows(1), 4, seed=0, max_tokens=1), [(1999,)], np.array([-6.9]))
    assert not sharpen(found, 1.0).supported_P[0]  # four draws are fewer than eight
    assert sharpen(found, 1e6).supported_P[0]  # all mass on the mode, which is known


@given(st.integers(0, 10_000), st.floats(1.0, 8.0), st.floats(1.01, 3.0))
def test_higher_powers_are_surer(seed: int, p: float, more: float) -> None:
    """kappa of pi^p never rises with p where everything is known (section 1)."""
    everything = listed(table(seed))
    top, higher = sharpen(everything, p).log_top_P, sharpen(everything, p * more).log_top_P
    assert (higher >= top - 1e-12).all()


def test_kappa_next_is_the_closed_form() -> None:
    """E_y pi(y)^(1/beta) / p*^(1 + 1/beta), theory.md section 1."""
    policy, beta = table(), 2.0
    samples = policy.enumerate(rows(P))
    found = kappa_next(samples, enumerated(samples, P), beta, seed=0, exact=True)
    pi = np.exp(policy.log_table(rows(P)))
    want = ((pi * pi ** (1 / beta)).sum(1) / pi.max(1) ** (1 + 1 / beta)).mean()
    assert found.value == pytest.approx(want)


def test_impossible_responses_of_an_enumeration_weigh_nothing() -> None:
    policy = Tabular(np.array([[0.0, -1.0, -np.inf], [0.0, -np.inf, -np.inf]]))
    samples = policy.enumerate(rows(2))
    modes = enumerated(samples, 2)
    found = known(samples, modes.tokens_P, modes.logp_P, exact=True)
    for p in (1.0, 2.0, 1e6):
        sharp = sharpen(found, p)
        assert np.isfinite(sharp.log_z_P).all()
        assert np.isfinite(sharp.entropy_P).all()
    assert sharpen(found, 2.0).entropy_P[1] == 0.0


def long_draws(logp: list[float]) -> Samples:
    R = len(logp)
    return Samples(
        prompt_R=np.zeros(R, dtype=np.int64),
        tokens_R=tuple((r, 0) for r in range(R)),
        logp_R=np.array(logp),
        weight_R=np.full(R, 1 / R),
        finished_R=np.ones(R, dtype=bool),
        text_R=tuple(str(r) for r in range(R)),
    )


def test_long_responses_keep_their_weights() -> None:
    """Distinct draws too unlikely for a float count once each at power 1."""
    found = known(long_draws([-900.0, -1000.0, -1100.0, -40.0]), [()], np.array([-np.inf]))
    sharp = sharpen(found, 1.0)
    assert np.allclose(sharp.weight_R, 0.25, rtol=1e-6)
    assert sharp.log_z_P[0] == pytest.approx(0.0, abs=1e-6)
    assert sharp.log_top_P[0] == pytest.approx(-40.0)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (long_draws([-1.0]), "1 samples for prompt 0"),
        (long_draws([-1.0, float("nan")]), "not numbers"),
        (long_draws([-1.0, -np.inf]), "probability zero"),
        (replace(long_draws([-1.0, -1.0]), prompt_R=np.array([1, 1])), "0 samples for prompt 0"),
    ],
)
def test_what_cannot_be_forecast_is_named(samples: Samples, words: str) -> None:
    prompts = int(samples.prompt_R.max()) + 1
    with pytest.raises(UserError, match=words):
        known(samples, [()] * prompts, np.full(prompts, -np.inf))


def test_exponents_refuse_a_beta_that_is_none() -> None:
    assert exponents(2.0, 2).tolist() == [1.0, 1.5, 2.25]
    with pytest.raises(UserError, match="beta 0"):
        exponents(0.0, 2)
