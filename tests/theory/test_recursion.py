"""The recursion against quadrature, brute force and measured exact rounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from srlm.errors import UserError
from srlm.theory.compact import (
    Compact,
    compact_recursion,
    contraction_factor,
    fixed_point,
    geometric_bound,
    rounds_to_forget,
)
from srlm.theory.recursion import (
    final_failure,
    final_failure_closed,
    iterate_kappa,
    kappa_step,
    round_error,
    statistical_error,
)


def step_by_quadrature(a: float, mu: float) -> float:
    kink = 1.0 / (1.0 - a) if a < 1.0 else math.inf
    top = 1.0 / mu
    head = min(kink, top) - 1.0
    if kink >= top:
        return 1.0 + head
    tail, _ = quad(
        lambda s: a * (1.0 + math.exp(s)),
        math.log(kink - 1.0),
        math.log(top - 1.0),
        epsabs=1e-13,
        epsrel=1e-13,
        limit=400,
    )  # z - 1 = e^s
    return float(1.0 + head + tail)


@pytest.mark.parametrize("mu", [1e-4, 0.03, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("a", [0.0, 1e-12, 1e-6, 0.01, 0.3, 0.8999, 0.95, 5.0])
def test_tail_integral_equals_quadrature(a: float, mu: float) -> None:
    expected = 1.0 if a == 0.0 else step_by_quadrature(a, mu)
    assert kappa_step(a, mu) == pytest.approx(expected, rel=1e-9)


def test_step_is_attained() -> None:
    """No better step exists: some distribution of 1/p* has exactly the tails of the bound."""
    a, mu, rng = 0.02, 0.1, np.random.default_rng(0)
    u = rng.random(400_000)  # P(1/p* > z) = min(1, A z/(z-1)) solved for z, cut at 1/mu
    inverse = np.where(u <= a, 1.0 / mu, np.minimum(u / np.maximum(u - a, 1e-12), 1.0 / mu))
    error = inverse.std() / math.sqrt(len(u))
    assert abs(inverse.mean() - kappa_step(a, mu)) < 4.0 * error


def test_statistical_error() -> None:
    n, log_class, log_responses, rho, c = 1e5, 30.0, 7.0, 0.1, 2.0
    b = math.log(2.0 * n * math.exp(log_responses) * math.exp(log_class) / rho)
    assert statistical_error(n, log_class, log_responses, rho, c) == pytest.approx(
        math.sqrt(c * b**2 * math.log(math.exp(log_class) / rho) / n), rel=1e-12
    )
    assert statistical_error(1e5, 1e6, 1e7) > 0.0  # |Pi| and |Y| beyond floating point


def test_exact_rounds_never_exceed_the_bounds() -> None:
    """Exact sharpening (eps = 0) of 300 random policies, round by round, against every bound."""
    rng = np.random.default_rng(3)
    tried = 0
    for _ in range(300):
        prompts, responses = int(rng.integers(1, 30)), int(rng.integers(2, 12))
        logits = rng.normal(size=(prompts, responses)) * rng.uniform(0.2, 4.0)
        policy = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        beta = float(np.exp(rng.uniform(-7.0, 0.7)))
        ranked = np.sort(policy, axis=1)
        margin = float(np.log(ranked[:, -1] / ranked[:, -2]).min())
        mu = float(ranked[:, -1].min())
        kappa = float(np.mean(1.0 / policy.max(axis=1)))
        after = (policy / policy.max(axis=1, keepdims=True)) ** (1.0 + 1.0 / beta)
        after /= after.sum(axis=1, keepdims=True)
        best = after.max(axis=1)
        a = round_error(kappa, 0.0, beta, margin)
        assert np.mean(1.0 - best) <= a + 1e-12
        for delta in (0.1, 0.5, 0.9):
            assert np.mean(best <= 1.0 - delta) <= a / delta + 1e-12
        measured = float(np.mean(1.0 / best))
        assert measured <= kappa_step(a, mu) + 1e-12  # mu of before: p* only rises
        compact = compact_recursion(0.0, beta, margin, mu)
        assert measured <= compact.step(kappa) + 1e-9
        tried += a < 1.0 - mu
    assert tried > 50  # the bound said something


GRID = [
    (eps, beta, gamma, mu)
    for eps in (0.0, 1e-4, 0.01, 0.3)
    for beta in (0.0, 0.01, 0.5)
    for gamma in (0.1, 2.0)
    for mu in (0.01, 0.2, 0.7, 1.0)
]


@pytest.mark.parametrize(("eps", "beta", "gamma", "mu"), GRID)
def test_compact_dominates_the_exact_step(eps: float, beta: float, gamma: float, mu: float) -> None:
    best = compact_recursion(eps, beta, gamma, mu)
    for kappa in np.geomspace(1.0, 1.0 / mu, 9):
        exact = kappa_step(round_error(float(kappa), eps, beta, gamma), mu)
        assert exact <= best.step(float(kappa)) + 1e-9
        assert best.step(float(kappa)) <= best.a + best.slope * math.sqrt(kappa) + 1e-9
    for z in [1.0 + (1.0 / mu - 1.0) * x for x in (1e-6, 0.01, 0.5, 1.0)] if mu < 1 else []:
        s = max(1.0 / mu - z + math.log((1.0 / mu - 1.0) / (z - 1.0)), 0.0)  # its tangent at z
        other = Compact(z, s * eps / gamma, s * beta / gamma)
        assert best.fixed_point <= other.fixed_point * (1 + 1e-9)


@pytest.mark.parametrize(("eps", "beta", "gamma", "mu"), GRID)
def test_closed_forms_dominate_the_iterated(
    eps: float, beta: float, gamma: float, mu: float
) -> None:
    kappa0 = 0.9 / mu + 0.1
    numbers = {"eps": eps, "beta": beta, "margin": gamma, "mu": mu}
    compact = compact_recursion(eps, beta, gamma, mu)
    path = iterate_kappa(kappa0, 12, **numbers)
    for t, kappa in enumerate(path):
        assert kappa <= geometric_bound(kappa0, t, compact.a, compact.slope) + 1e-9
    for rounds in (1, 2, 5, 12):
        exact = final_failure(kappa0, rounds, **numbers)
        closed = final_failure_closed(kappa0, rounds, **numbers)
        assert exact <= closed + 1e-12


@pytest.mark.parametrize(("a", "slope"), [(1.0, 0.0), (1.0, 1e-6), (1.3, 0.7), (2.0, 40.0)])
def test_fixed_point_and_contraction(a: float, slope: float) -> None:
    u = 1.0
    for _ in range(2000):
        u = a + slope * math.sqrt(u)
    assert fixed_point(a, slope) == pytest.approx(u, rel=1e-12)
    factor = contraction_factor(a, slope)
    assert 0.0 <= factor < 0.5
    step = 1e-6 * u
    assert factor == pytest.approx(slope * (math.sqrt(u + step) - math.sqrt(u)) / step, abs=1e-5)
    above = u * np.geomspace(1.0, 1e4, 30)
    g = a + slope * np.sqrt(above)
    assert np.all(np.abs(np.diff(g)) <= factor * np.diff(above) + 1e-9)


def test_slope_constant_is_the_best() -> None:
    k = np.geomspace(1.0, 1e6, 10_001)
    assert np.max(np.log(k) / np.sqrt(k)) == pytest.approx(2.0 / math.e, abs=1e-6)


@pytest.mark.parametrize("kappa0", [1.0, 1.5, 4.0, 100.0, 1e9])
@pytest.mark.parametrize(("a", "slope"), [(1.0, 0.0), (1.2, 0.5), (2.0, 1.0), (1.0, 30.0)])
def test_rounds_to_forget(kappa0: float, a: float, slope: float) -> None:
    factor, u = contraction_factor(a, slope), fixed_point(a, slope)
    rounds = 1
    while factor ** ((rounds - 1) / 2) * math.sqrt(kappa0) > math.sqrt(u) * (1 + 1e-9):
        rounds += 1
    assert rounds_to_forget(kappa0, a, slope) == rounds


def test_first_round_is_of_the_order_of_the_lower_bound() -> None:
    """T = 1, beta = 0: 2 sqrt(kappa_0) eps/gamma, so kappa_0^(1/2), as in section 4."""
    values = [final_failure(k, 1, eps=1e-4, beta=0.0, margin=1.0, mu=1e-3) for k in (4.0, 400.0)]
    assert values[1] / values[0] == pytest.approx(10.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: statistical_error(0, 10.0, 5.0),
        lambda: statistical_error(10, -1.0, 5.0),
        lambda: statistical_error(10, 10.0, 5.0, rho=0.0),
        lambda: statistical_error(10, 10.0, 5.0, c=0.0),
        lambda: round_error(0.9, 0.1, 0.1, 1.0),
        lambda: round_error(2.0, 0.1, 0.1, 0.0),
        lambda: round_error(2.0, -0.1, 0.1, 1.0),
        lambda: kappa_step(0.1, 0.0),
        lambda: kappa_step(0.1, 1.5),
        lambda: kappa_step(float("nan"), 0.5),
        lambda: iterate_kappa(20.0, 3, eps=0.1, beta=0.1, margin=1.0, mu=0.1),
        lambda: final_failure(2.0, 0, eps=0.1, beta=0.1, margin=1.0, mu=0.1),
        lambda: fixed_point(0.0, 1.0),
        lambda: contraction_factor(1.0, -1.0),
        lambda: rounds_to_forget(0.5, 1.0, 1.0),
    ],
)
def test_bad_parameters_have_names(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError):
        call()


def test_compact_is_plain() -> None:
    assert Compact(1.0, 0.5, 0.0).step(4.0) == 2.0
