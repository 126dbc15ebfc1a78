"""Covering number, effective dimension with its decay bounds, and the regime fit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from srlm.errors import UserError
from srlm.theory.dimension import (
    effective_dimension,
    exponential_bound,
    log_covering_number,
    polynomial_bound,
    spiked_bound,
)
from srlm.theory.spectrum import CANNOT_BE_TOLD, fit_decay

RIDGES = [1e-9, 1e-4, 0.01, 0.3, 1.0, 50.0]


def test_covering_number_covers() -> None:
    """In one dimension the smallest covering can be counted: it fits under the bound."""
    radius, epsilon = 3.0, 0.25
    needed = math.ceil(2 * radius / epsilon)  # intervals of length 2 r = epsilon
    assert math.log(needed) <= log_covering_number(1, radius, epsilon)
    assert log_covering_number(7, radius, epsilon) == pytest.approx(
        7 * log_covering_number(1, radius, epsilon)
    )


def test_covering_radius_moves_log_ratios_by_epsilon() -> None:
    rng = np.random.default_rng(0)
    epsilon = 0.2
    features = rng.normal(size=(30, 5))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    for _ in range(200):
        move = rng.normal(size=5)
        move *= epsilon / 2 / np.linalg.norm(move)
        shifts = features @ move
        assert shifts.max() - shifts.min() <= epsilon + 1e-12


@pytest.mark.parametrize("ridge", RIDGES)
def test_effective_dimension_is_a_trace(ridge: float) -> None:
    rng = np.random.default_rng(1)
    root = rng.normal(size=(6, 9))
    covariance = root @ root.T
    hat = covariance @ np.linalg.inv(covariance + ridge * np.eye(6))
    spectrum = np.linalg.eigvalsh(covariance)
    assert effective_dimension(spectrum, ridge) == pytest.approx(np.trace(hat), rel=1e-8)


@pytest.mark.parametrize("ridge", RIDGES)
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_decay_bounds(ridge: float, scale: float) -> None:
    """Above the computed value, and above it by less than 1 where the sum is long enough."""
    index = np.arange(1, 400_001, dtype=float)
    for rate in (0.05, 0.7, 3.0):
        spectrum = scale * np.exp(-rate * index[:20_000])
        exact = effective_dimension(spectrum, ridge)
        assert exact <= exponential_bound(scale, rate, ridge) + 1e-9
        assert exponential_bound(scale, rate, ridge) <= exact + 1.0 + 1e-6
    for rate in (1.2, 2.0, 4.0):
        spectrum = scale * index**-rate
        exact = effective_dimension(spectrum, ridge)
        bound = polynomial_bound(scale, rate, ridge)
        assert exact <= bound
        tail = scale * len(index) ** (1.0 - rate) / (rate - 1.0) / ridge  # what was cut off
        assert bound <= exact + 1.0 + tail
    for rank in (0, 3, 20):
        spectrum = np.append(np.linspace(5.0, 9.0, rank), np.full(200, 0.01))
        assert effective_dimension(spectrum, ridge) <= spiked_bound(rank, 2.0, ridge) + 1e-9


def test_polynomial_integral() -> None:
    from scipy.integrate import quad

    value, _ = quad(lambda x: 1.0 / (1.0 + 0.01 / 2.0 * x**1.7), 0.0, np.inf)
    assert polynomial_bound(2.0, 1.7, 0.01) == pytest.approx(value, rel=1e-7)


def sampled(spectrum: np.ndarray, rows: int, rng: np.random.Generator) -> np.ndarray:
    draws = rng.normal(size=(rows, len(spectrum))) * np.sqrt(spectrum)
    return np.linalg.eigvalsh(draws.T @ draws / rows)


INDEX = np.arange(1, 41, dtype=float)
SPECTRA = {
    "exponential": [np.exp(-rate * INDEX) for rate in (0.05, 0.2, 0.5)],
    "polynomial": [3.0 * INDEX**-rate for rate in (1.3, 2.0, 3.0)],
    "spiked": [np.append(np.full(r, 10.0), np.full(40 - r, 0.05)) for r in (3, 8, 20)],
}


@pytest.mark.parametrize("regime", list(SPECTRA))
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("noisy", [False, True])
def test_regime_is_recovered(regime: str, which: int, noisy: bool) -> None:
    truth = SPECTRA[regime][which]
    spectrum = sampled(truth, 4000, np.random.default_rng(which)) if noisy else truth
    fit = fit_decay(spectrum)
    assert fit.regime == regime, fit.reason
    for ridge in RIDGES:
        assert effective_dimension(spectrum, ridge) <= fit.bound(ridge) * (1 + 1e-9)
    if regime == "spiked":
        assert fit.rank == [3, 8, 20][which]


def test_regime_cannot_be_told() -> None:
    rng = np.random.default_rng(8)
    for spectrum in (
        np.ones(30),
        [3.0, 2.0, 1.0],
        np.exp(rng.normal(size=60)),
        sampled(np.ones(40), 80, rng),
        INDEX**-0.6,
        np.exp(-0.3 * np.sqrt(INDEX) * 2.0),  # between exponential and polynomial
    ):
        fit = fit_decay(spectrum)
        assert fit.regime == CANNOT_BE_TOLD, (fit.regime, fit.reason)
        assert fit.reason
        with pytest.raises(UserError):
            fit.bound(0.1)


def test_bound_holds_below_the_floor_too() -> None:
    spectrum = np.append(np.exp(-np.arange(1.0, 20.0)), np.full(500, 1e-11))
    fit = fit_decay(spectrum)
    assert fit.regime == "exponential"
    for ridge in RIDGES:
        assert effective_dimension(spectrum, ridge) <= fit.bound(ridge)


@pytest.mark.parametrize(
    "call",
    [
        lambda: log_covering_number(0, 1.0, 1.0),
        lambda: log_covering_number(3, 0.0, 1.0),
        lambda: effective_dimension([], 0.1),
        lambda: effective_dimension([1.0, -0.5], 0.1),
        lambda: effective_dimension([1.0, float("nan")], 0.1),
        lambda: effective_dimension([1.0], 0.0),
        lambda: polynomial_bound(1.0, 1.0, 0.1),
        lambda: exponential_bound(1.0, 0.0, 0.1),
        lambda: spiked_bound(-1, 0.5, 0.1),
    ],
)
def test_bad_parameters_have_names(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError):
        call()
