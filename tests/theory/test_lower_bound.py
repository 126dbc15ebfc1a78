"""The lower bound against root finding, its instance against enumeration and simulation."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy.optimize import brentq

from srlm.errors import UserError
from srlm.theory.adversary import envelope
from srlm.theory.hard_family import (
    HardInstance,
    failure_probability,
    hard_instance,
    log_all_seen,
    simulate_failure,
)
from srlm.theory.lower_bound import (
    STATED_CEILING,
    STATED_CONSTANT,
    lower_bound_delta,
    lower_bound_samples,
)


def log_slope(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


@pytest.mark.parametrize("kappa0", [1.0, 2.0, 37.5, 1e6])
@pytest.mark.parametrize("log_class", [1e-3, 5.0, 1e5])
@pytest.mark.parametrize("n", [1.0, 1e3, 1e9, 1e200, 1e300])
def test_closed_form_is_the_root(kappa0: float, log_class: float, n: float) -> None:
    found = lower_bound_delta(n, kappa0, log_class, c=1.0)

    def excess(log_delta: float) -> float:  # log n(delta) - log n
        return (
            math.log(kappa0 * log_class / n)
            - 2.0 * log_delta
            - math.log1p(math.log(kappa0) - log_delta)
        )

    if excess(0.0) >= 0.0:
        assert found == 1.0
    else:
        assert math.log(found) == pytest.approx(brentq(excess, -800.0, 0.0, xtol=1e-12), abs=1e-9)


@pytest.mark.parametrize("delta", [1e-100, 1e-6, 0.03, 0.999])
def test_inverse(delta: float) -> None:
    n = lower_bound_samples(delta, 12.0, 300.0, c=0.3)
    assert lower_bound_delta(n, 12.0, 300.0, c=0.3) == pytest.approx(delta, rel=1e-12)


def by_enumeration(instance: HardInstance, n: int) -> float:
    """All sequences of n triples as one hard prompt sees them: 0 is 'another prompt'."""
    d, m, mass = instance.prompts, instance.responses, instance.hard_mass
    other = (1.0 - 2.0 / m) / (m - 1)
    chance = [1.0 - mass / d] + [mass / d * 2.0 / m] + [mass / d * other] * (m - 1)
    total = 0.0
    for sequence in product(range(m + 1), repeat=n):
        seen = set(sequence) - {0}
        if 1 not in seen:
            weight = math.prod(chance[i] for i in sequence)
            total += weight * (1.0 - 1.0 / (m - len(seen)))
    return mass * total


@pytest.mark.parametrize(
    ("kappa0", "d", "m", "n"),
    [
        (2.0, 1, 4, 0),
        (2.0, 1, 4, 1),
        (2.0, 1, 4, 7),
        (1.5, 2, 5, 6),
        (3.0, 1, 6, 6),
        (1.1, 3, 4, 5),
    ],
)
def test_failure_equals_enumeration(kappa0: float, d: int, m: int, n: int) -> None:
    instance = hard_instance(kappa0, d, m)
    exact = by_enumeration(instance, n)
    assert failure_probability(instance, n) == pytest.approx(exact, rel=1e-11)


def all_seen_by_matrix(n: int, coupons: int, q: float) -> float:
    """The chain of the number of coupons seen, multiplied out: no cancellation either."""
    seen = np.arange(coupons + 1)
    step = np.diag(1.0 - (coupons - seen) * q) + np.diag((coupons - seen[:-1]) * q, 1)
    return float(np.linalg.matrix_power(step, n)[0, coupons])


@pytest.mark.parametrize(
    ("n", "coupons", "q"),
    [(4, 4, 0.25), (5, 4, 0.2), (40, 12, 0.05), (300, 60, 0.01), (4000, 100, 0.001), (50, 3, 0.01)],
)
def test_all_seen(n: int, coupons: int, q: float) -> None:
    exact = all_seen_by_matrix(n, coupons, q)
    assert log_all_seen(n, coupons, q) == pytest.approx(math.log(exact), abs=1e-9)


@pytest.mark.parametrize(
    ("kappa0", "d", "m", "n"), [(4.0, 8, 14, 300), (2.0, 3, 4, 12), (16.0, 4, 64, 300)]
)
def test_simulation(kappa0: float, d: int, m: int, n: int) -> None:
    instance = hard_instance(kappa0, d, m)
    mean, error = simulate_failure(instance, n, 400, np.random.default_rng(7))
    assert abs(mean - failure_probability(instance, n)) < 4.0 * error


def test_kappa_is_exact() -> None:
    instance = hard_instance(4.0, 32, 62)
    kappa = 1.0 - instance.hard_mass + instance.hard_mass * instance.responses / 2.0
    assert kappa == pytest.approx(4.0, rel=1e-14)
    assert instance.hit * 32 / instance.hard_mass == pytest.approx(2.0 / 62)


@pytest.mark.parametrize(
    ("n", "kappa0", "d"), [(3, 2.0, 1), (300, 4.0, 32), (2000, 20.0, 5), (40, 1.2, 2)]
)
def test_envelope_is_the_best_of_all(n: int, kappa0: float, d: int) -> None:
    least = max(4, math.ceil(2 * kappa0))
    every = [failure_probability(hard_instance(kappa0, d, m), n) for m in range(least, 3000)]
    assert envelope(n, kappa0, prompts=d).failure == pytest.approx(max(every), rel=1e-4)


def test_envelope_within_a_class() -> None:
    worst = envelope(2000, 4.0, log_class=60.0)
    assert worst.instance.log_class <= 60.0 * (1 + 1e-9)
    every = [
        failure_probability(hard_instance(4.0, d, m), 2000)
        for d in range(1, 29)
        for m in range(8, min(400, math.floor(math.exp(60.0 / d))) + 1)
    ]
    assert worst.failure == pytest.approx(max(every), rel=2e-3)


@pytest.mark.parametrize("kappa0", [4.0, 32.0])
def test_orientation_figures(kappa0: float) -> None:
    sizes = np.unique(np.geomspace(3e2, 1e6, 25).astype(int))
    worst = [envelope(int(n), kappa0, prompts=32) for n in sizes]
    assert abs(log_slope(sizes, np.array([w.failure for w in worst])) + 0.5) < 0.005
    assert min(w.ratio for w in worst) > 0.40
    assert max(w.ratio for w in worst) < 0.47


KAPPAS = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]


def test_slopes_at_fixed_prompts() -> None:
    """Four decades of n: -1/2 in n; 1/2 in kappa_0 - 1, and .557 in kappa_0 itself."""
    sizes = [10**power for power in range(5, 10)]
    failure = np.array([[envelope(n, k, prompts=32).failure for n in sizes] for k in KAPPAS])
    for row in failure:
        assert abs(log_slope(np.array(sizes), row) + 0.5) < 0.001
    for column in failure.T:
        assert abs(log_slope(np.array(KAPPAS) - 1.0, column) - 0.5) < 0.001
        assert log_slope(np.array(KAPPAS), column) == pytest.approx(0.557, abs=0.001)


def test_slopes_at_fixed_class() -> None:
    """log|Pi| held fixed, the theorem's own terms: 1/2 in kappa_0; in n its formula's -.53."""
    sizes = [10**power for power in range(5, 9)]
    failure = np.array([[envelope(n, k, log_class=200.0).failure for n in sizes] for k in KAPPAS])
    for column in failure.T:
        assert abs(log_slope(np.array(KAPPAS), column) - 0.5) < 0.03
    for k, row in zip(KAPPAS, failure, strict=True):
        formula = np.array([lower_bound_delta(n, k, 200.0) for n in sizes])
        assert log_slope(np.array(sizes), row) == pytest.approx(
            log_slope(np.array(sizes), formula), abs=0.02
        )


@pytest.mark.parametrize("d", [1, 8, 128, 1024])
def test_never_below_the_formula(d: int) -> None:
    for kappa0 in (2.0, 3.0, 16.0, 256.0, 1024.0):
        for n in np.unique(np.geomspace(3, 1e10, 25).astype(int)):
            worst = envelope(int(n), kappa0, prompts=d)
            formula = lower_bound_delta(float(n), kappa0, worst.instance.log_class)
            assert worst.failure >= min(STATED_CEILING, formula)


def test_constant_is_nearly_the_best() -> None:
    """At kappa_0 = 2 and n -> infinity the fitting c comes down to 1/(4e) = .0920."""
    assert STATED_CONSTANT < 1.0 / (4.0 * math.e) < 1.03 * STATED_CONSTANT
    assert 1.0 / (4.0 * math.e) < envelope(10**12, 2.0, prompts=1).ratio ** 2 < 0.104


def test_nothing_is_hidden_at_kappa_one() -> None:
    """Why kappa_0 must be bounded away from 1: the loss vanishes, the formula does not."""
    worst = envelope(10_000, 1.001, prompts=32)
    assert worst.failure < 0.2 * lower_bound_delta(1e4, 1.001, worst.instance.log_class)


@pytest.mark.parametrize(
    "call",
    [
        lambda: lower_bound_delta(0, 4.0, 10.0),
        lambda: lower_bound_delta(10, 0.5, 10.0),
        lambda: lower_bound_delta(10, 4.0, 0.0),
        lambda: lower_bound_samples(0.0, 4.0, 10.0),
        lambda: lower_bound_samples(1.5, 4.0, 10.0),
        lambda: lower_bound_samples(0.5, float("nan"), 10.0),
        lambda: hard_instance(1.0, 4, 8),
        lambda: hard_instance(8.0, 4, 15),
        lambda: envelope(0, 4.0, prompts=3),
        lambda: envelope(10, 4.0),
        lambda: envelope(10, 4.0, log_class=1.0),
    ],
)
def test_bad_parameters_have_names(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError):
        call()
