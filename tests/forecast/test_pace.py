from __future__ import annotations

import numpy as np
import pytest

from srlm.errors import UserError
from srlm.forecast.pace import Pace, expected_efficiency, later_rounds, pace
from srlm.forecast.powers import known, sharpen
from srlm.forecast.trajectory import gather
from srlm.policies.tabular import Tabular, rows

PROMPTS, RESPONSES = 40, 30


@pytest.fixture(scope="module")
def table() -> Tabular:
    return Tabular(np.random.default_rng(3).normal(size=(PROMPTS, RESPONSES)) * 1.5)


def evidence(policy: Tabular):
    prompts = rows(PROMPTS)
    every = policy.enumerate(prompts)
    logp = policy.log_table(prompts)
    modes = [(int(m),) for m in logp.argmax(1)]
    right = (np.array([t[0] for t in every.tokens_R]) % 2 == 0).astype(float)
    texts = [str(t[0]) for t in every.tokens_R]
    return gather(
        every,
        modes,
        logp.max(1),
        texts,
        [str(m[0]) for m in modes],
        right,
        np.array([float(m[0] % 2 == 0) for m in modes]),
        exact=True,
        seed=0,
    )


def confidence(policy: Tabular) -> float:
    return float(np.exp(policy.log_table(rows(PROMPTS))).max(1).mean())


@pytest.mark.parametrize("power", [1.1, 1.5, 3.0])
def test_pace_of_a_pure_power_is_that_power(table: Tabular, power: float) -> None:
    after = Tabular(power * table.theta.reshape(PROMPTS, -1))
    found = pace(evidence(table).known, confidence(table), confidence(after), beta=2.0)
    assert found.exponent == pytest.approx(power, rel=1e-4)
    assert found.efficiency == pytest.approx(np.log(power) / np.log(1.5), rel=1e-4)


def test_exact_rounds_are_forecast_exactly_once_their_efficiency_is_known(table: Tabular) -> None:
    done = Tabular(1.5 * table.theta.reshape(PROMPTS, -1))
    for a in later_rounds(evidence(done), 1, [Pace(1.5, 1.0)], beta=2.0, rounds=4):
        truth = Tabular(1.5**a.round * table.theta.reshape(PROMPTS, -1))
        kappa = 1.0 / np.exp(truth.log_table(rows(PROMPTS))).max(1)
        assert a.expected.kappa.value == pytest.approx(kappa.mean(), rel=1e-9)
        band = a.estimate("kappa")
        assert band.low is not None
        assert band.high is not None
        assert band.low <= kappa.mean() <= band.high


def test_slow_and_fast_lie_on_either_side(table: Tabular) -> None:
    for a in later_rounds(evidence(table), 0, [], beta=1.0, rounds=3):
        assert a.fast.kappa.value < a.expected.kappa.value < a.slow.kappa.value


def test_what_is_not_known_is_said(table: Tabular) -> None:
    listed = evidence(table).known
    assert "already" in pace(listed, 0.999, 1.0, beta=1.0).why
    assert "did not rise" in pace(listed, 0.5, 0.4, beta=1.0).why
    assert expected_efficiency([Pace(None, None, "?")]) == 1.0
    with pytest.raises(UserError, match="beta"):
        pace(listed, 0.5, 0.6, beta=0.0)


def test_sharpening_by_steps_is_sharpening_at_once(table: Tabular) -> None:
    prompts = rows(PROMPTS)
    half = Tabular(2.0 * table.theta.reshape(PROMPTS, -1))
    modes = [(int(m),) for m in table.log_table(prompts).argmax(1)]
    once = sharpen(evidence(table).known, 6.0).log_top_P
    every = half.enumerate(prompts)
    twice = sharpen(known(every, modes, half.log_table(prompts).max(1), exact=True), 3.0).log_top_P
    np.testing.assert_allclose(once, twice, atol=1e-12)
