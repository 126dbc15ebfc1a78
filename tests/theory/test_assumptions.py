"""The three-way judgements, on cases whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from srlm.errors import UserError
from srlm.theory.assumptions import (
    Range,
    least_confidence,
    least_margin,
    probability_range,
    realizability,
    realizability_linear,
    unique_mode,
)

EXACT = probability_range([0.6, 0.5, 0.4])
RUNNER = probability_range([0.3, 0.2, 0.1])


def test_exact_quantities_are_decided() -> None:
    assert unique_mode(EXACT, RUNNER).state == "holds"
    assert unique_mode(EXACT, RUNNER).value == 1.0
    assert unique_mode(EXACT, probability_range([0.3, 0.5, 0.1])).state == "fails"
    least = float(np.log(2.0))
    assert least_margin(EXACT, RUNNER, least).state == "holds"
    assert least_margin(EXACT, RUNNER, least * 1.01).state == "fails"
    assert least_margin(EXACT, RUNNER, 0.1).value == pytest.approx(least)
    assert least_confidence(EXACT, 0.4).state == "holds"
    assert least_confidence(EXACT, 0.41).state == "fails"


def test_ranges_leave_it_open_exactly_when_both_are_possible() -> None:
    """Against brute force: what holds at every corner of the ranges holds; at none, fails."""
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(500):
        ends = np.sort(rng.random((2, 2)), axis=1)
        p_star = Range(ends[0, :1], ends[0, 1:])
        runner = Range(ends[1, :1], ends[1, 1:])
        required = float(rng.uniform(0.01, 1.0))
        corners = [np.log(p / r) >= required for p in ends[0] for r in ends[1]]
        state = "holds" if all(corners) else "cannot be told" if any(corners) else "fails"
        assert least_margin(p_star, runner, required).state == state
        corners = [p > r for p in ends[0] for r in ends[1]]
        state = "holds" if all(corners) else "cannot be told" if any(corners) else "fails"
        assert unique_mode(p_star, runner).state == state
        seen.add(state)
        mu = float(rng.uniform(0.01, 1.0))
        corners = [p >= mu for p in ends[0]]
        state = "holds" if all(corners) else "cannot be told" if any(corners) else "fails"
        assert least_confidence(p_star, mu).state == state
    assert seen == {"holds", "fails", "cannot be told"}


def test_one_refuted_prompt_is_enough() -> None:
    p_star = probability_range([0.2, 0.9], [0.9, 0.9])
    assert least_confidence(p_star, 0.5).state == "cannot be told"
    p_star = probability_range([0.2, 0.3], [0.9, 0.4])
    judged = least_confidence(p_star, 0.5)
    assert judged.state == "fails"
    assert "1 refuted, 1 open" in judged.evidence[0]


def test_sample_says_how_much_of_the_population() -> None:
    many = probability_range(np.full(299, 0.9))
    assert "1.00%" in least_confidence(many, 0.5).evidence[0]  # 1 - .05^(1/299)


def test_a_sure_policy_has_an_infinite_margin() -> None:
    assert least_margin(probability_range([1.0]), probability_range([0.0]), 5.0).value == np.inf
    assert least_margin(
        probability_range([0.0], [1.0]), probability_range([0.0], [1.0]), 1.0
    ).state == ("cannot be told")


def least_squares_residuals(realizable: bool) -> tuple[np.ndarray, np.ndarray]:
    """Linear softmax, one round by least squares; residuals on held-out pairs."""
    rng = np.random.default_rng(5)
    features = rng.normal(size=(600, 6))
    target = features @ rng.normal(size=6)
    used = features if realizable else features[:, :3]
    theta = np.linalg.lstsq(used[:300], target[:300], rcond=None)[0]
    return used[300:] @ theta - target[300:], target[300:]


def test_realizability_on_a_linear_class() -> None:
    inside = realizability(*least_squares_residuals(True), exact_minimiser=True)
    assert inside.state == "holds"
    assert inside.value == pytest.approx(1.0)
    outside = least_squares_residuals(False)
    assert realizability(*outside, exact_minimiser=True).state == "fails"
    assert realizability(*outside, exact_minimiser=False).state == "cannot be told"


def test_realizability_interval_covers() -> None:
    """The 95 % interval of the unexplained share holds the truth in 95 % of draws."""
    rng, inside = np.random.default_rng(6), 0
    for _ in range(400):
        target = rng.normal(size=200)
        residual = 0.3 * rng.normal(size=200)
        found = realizability(residual, target, exact_minimiser=False)
        low, high = found.evidence[0].split("[")[1].rstrip("]").split(", ")
        inside += float(low) <= 0.09 <= float(high)
    assert 0.90 < inside / 400 < 0.99


def test_realizability_linear_is_the_ball() -> None:
    assert realizability_linear(1.0, 2.0, 1.0).state == "holds"
    assert realizability_linear(1.0, 2.0, 0.99).state == "fails"


@pytest.mark.parametrize(
    "call",
    [
        lambda: probability_range([1.2]),
        lambda: probability_range([-0.1]),
        lambda: probability_range([0.5], [0.4]),
        lambda: probability_range([0.5, 0.5], [0.6]),
        lambda: probability_range([]),
        lambda: unique_mode(EXACT, probability_range([0.1])),
        lambda: least_margin(EXACT, RUNNER, 0.0),
        lambda: least_margin(EXACT, RUNNER, -1.0),
        lambda: least_confidence(EXACT, 0.0),
        lambda: least_confidence(EXACT, 1.1),
        lambda: realizability([1.0], [1.0], exact_minimiser=True),
        lambda: realizability([1.0, 1.0], [0.0, 0.0], exact_minimiser=True),
        lambda: realizability_linear(1.0, 1.0, 0.0),
    ],
)
def test_bad_parameters_have_names(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError):
        call()
