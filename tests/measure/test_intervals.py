"""Intervals: coverage by simulation, closed forms, and the edges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from srlm.measure import intervals
from srlm.measure.intervals import (
    by_prompt,
    clopper_pearson,
    mean,
    mean_interval,
    ratio_interval,
    resamples,
    share,
    share_interval,
)
from srlm.types import Floats

Draw = Callable[[np.random.Generator], Floats]
TRIALS = 400


def covered(truth: float, draw: Draw) -> tuple[float, float]:
    """Share of intervals that hold the truth: studentised, and plain percentile beside it."""
    ours = plain = 0
    for trial in range(TRIALS):
        values = draw(np.random.default_rng([5, trial]))
        low, high = mean_interval(values, trial, count=500)
        ours += low <= truth <= high
        means = np.concatenate([c @ values for c in resamples(len(values), trial, 500)])
        low, high = np.quantile(means / len(values), [0.025, 0.975])
        plain += low <= truth <= high
    return ours / TRIALS, plain / TRIALS


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda r: 1 / r.beta(8, 6, 256), 13 / 7),  # 1/p*, E = (a+b-1)/(a-1)
        (lambda r: 1 / r.beta(5, 5, 512), 9 / 4),
        (lambda r: 1 + r.lognormal(0, 1, 256), 1 + np.exp(0.5)),
        (lambda r: r.binomial(16, r.beta(2, 1, 128)) / 16, 2 / 3),  # shares of 16 draws
    ],
)
def test_mean_interval_covers(draw: Draw, truth: float) -> None:
    """At least nominal less three standard errors of the simulation (.95 - .033)."""
    ours, _ = covered(truth, draw)
    assert ours >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / TRIALS)


@pytest.mark.parametrize("n", [64, 256])
@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda r, n: (r.random(n) < 0.01) * 1.0, 0.01),
        (lambda r, n: (r.random(n) < 0.99) * 1.0, 0.99),
        (lambda r, n: r.binomial(16, r.beta(0.02, 0.2, n)) / 16, 1 / 11),
        (lambda r, n: r.binomial(16, 0.5 * (r.random(n) < 0.03)) / 16, 0.015),
        (lambda r, n: r.binomial(16, r.beta(8, 1, n)) / 16, 8 / 9),
    ],
)
def test_shares_are_covered_near_zero_and_one(
    draw: Callable[[np.random.Generator, int], Floats], truth: float, n: int
) -> None:
    """Where the bootstrap covered .775 (p = .01, 256 prompts)."""
    ours = 0
    for trial in range(TRIALS):
        e = mean(draw(np.random.default_rng([6, trial]), n), trial, "m", least=0, most=1)
        assert e.low is not None and e.high is not None
        ours += e.low <= truth <= e.high
    assert ours / TRIALS >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / TRIALS)


def test_shares_of_flips_are_clopper_pearsons() -> None:
    values = np.r_[np.ones(3), np.zeros(37)]
    assert share_interval(values) == pytest.approx(clopper_pearson(3, 40))
    assert share_interval(1 - values) == pytest.approx(clopper_pearson(37, 40))
    assert share_interval(np.full(9, 0.3)) == pytest.approx((0.3, 0.3))


def test_studentised_covers_heavy_tails_better_than_percentiles() -> None:
    """1/p* with infinite kurtosis, 64 prompts: neither reaches .95, ours misses less."""
    ours, plain = covered(1 + 1 / 1.5, lambda r: 1 + r.pareto(2.5, 64))
    assert ours > plain + 0.02
    assert ours > 0.88


def test_clopper_pearson_covers_exactly() -> None:
    """Coverage summed over outcomes, at every p of a grid: never below .95."""
    n = 17
    ends = np.array([clopper_pearson(s, n) for s in range(n + 1)])
    for p in np.linspace(0.01, 0.99, 99):
        holds = (ends[:, 0] <= p) & (p <= ends[:, 1])
        assert stats.binom.pmf(np.arange(n + 1), n, p)[holds].sum() >= 0.95


def test_clopper_pearson_equals_scipy() -> None:
    for s, n in [(0, 5), (5, 5), (3, 10), (500, 512)]:
        ci = stats.binomtest(s, n).proportion_ci(method="exact")
        assert clopper_pearson(s, n) == pytest.approx((ci.low, ci.high), abs=1e-12)


def test_ratio_interval_covers() -> None:
    hits = 0
    for trial in range(TRIALS):
        rng = np.random.default_rng([6, trial])
        bottom = 0.35 + 0.5 * rng.standard_normal(256)
        top = 0.8 * bottom + 0.2 * rng.standard_normal(256)
        ends = ratio_interval(top, bottom, trial, count=500)
        assert ends is not None
        hits += ends[0] <= 0.8 <= ends[1]
    assert hits / TRIALS >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / TRIALS)


def test_ratio_without_a_denominator_has_no_interval() -> None:
    rng = np.random.default_rng(0)
    assert ratio_interval(rng.standard_normal(50), rng.standard_normal(50), 0) is None


def test_clusters_not_draws_are_resampled() -> None:
    """Draws of a prompt that all agree carry no more than one: the interval must not shrink."""
    rng = np.random.default_rng(1)
    value_P = rng.random(100)
    prompt_R = np.repeat(np.arange(100), 50)
    spread_P = by_prompt(np.repeat(value_P, 50), np.full(5000, 1 / 50), prompt_R, 100)
    assert spread_P == pytest.approx(value_P)
    assert mean_interval(spread_P, 3) == pytest.approx(mean_interval(value_P, 3))


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(2).random(40)
    assert mean_interval(values, 9) == mean_interval(values, 9)
    assert mean_interval(values, 9) != mean_interval(values, 10)


def test_resamples_do_not_depend_on_blocks_or_on_being_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = np.concatenate(list(resamples(7, 0, 50)))
    assert (np.concatenate(list(resamples(7, 0, 50))) == whole).all()
    monkeypatch.setattr(intervals, "CHUNK", 30)
    assert (np.concatenate(list(resamples(7, 0, 50))) == whole).all()
    monkeypatch.setattr(intervals, "KEPT", 100)
    assert (np.concatenate(list(resamples(7, 0, 50))) == whole).all()
    assert (whole.sum(1) == 7).all()


def test_edges() -> None:
    assert mean(np.ones(50), 0, "m", least=0, most=1).low == pytest.approx(0.9289, abs=1e-4)
    assert mean(np.full(50, 3.0), 0, "m").high == 3.0
    assert mean(np.array([]), 0, "m").value is None
    assert mean(np.array([0.3]), 0, "m").low is None
    assert mean(np.array([1.0, np.inf]), 0, "m").high is None
    assert share(0, 0).value is None
    scale = mean_interval(np.array([1e300, 2e300, 5e300, 3e300]), 0)
    assert np.isfinite(scale).all()


def test_zero_weight_rows_of_no_probability_count_nothing() -> None:
    value_R = np.array([-np.inf, 2.0])
    assert by_prompt(value_R, np.array([0.0, 1.0]), np.array([0, 0]), 1)[0] == 2.0
