"""The planner against searches one number at a time; the calibrated planner on simulated runs."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from srlm.errors import UserError
from srlm.lab.bulk import bulk
from srlm.lab.instances import exponential, linear
from srlm.theory.backtesting import backtest
from srlm.theory.calibrate import fit_rounds, predict_rounds
from srlm.theory.planner import plan
from srlm.theory.recursion import final_failure, statistical_error


def failure(rounds: int, samples: float, beta: float = 0.05) -> float:
    eps = statistical_error(samples, 50.0, 50.0) if math.isfinite(samples) else 0.0
    return final_failure(4.0, rounds, eps=eps, beta=beta, margin=1.0, mu=0.1).raw


def test_chosen_numbers_are_the_least() -> None:
    made = plan(4.0, 1.0, 0.1, 0.05, 50.0)
    assert made.limited_by == "nothing"
    assert made.rounds is not None
    assert made.samples is not None
    assert made.failure is not None
    assert made.failure.raw == pytest.approx(failure(made.rounds, made.samples), rel=1e-12)
    assert failure(made.rounds, made.samples) <= 0.1 < failure(made.rounds, 0.999 * made.samples)
    assert failure(made.rounds - 1, made.samples) > 0.1
    assert made.pairs_needed == made.rounds * made.samples
    for rounds in (1, 2, 3, 8, 20):  # no other number of rounds is cheaper in all
        other = plan(4.0, 1.0, 0.1, 0.05, 50.0, rounds=rounds)
        assert other.pairs_needed is None or other.pairs_needed >= made.pairs_needed
    assert len(made.kappa_path) == made.rounds + 1
    assert list(made.kappa_path) == sorted(made.kappa_path, reverse=True)


def test_least_rounds_for_samples() -> None:
    samples = 10**10
    made = plan(4.0, 1.0, 0.1, 0.05, 50.0, samples=samples)
    expected = next(t for t in range(1, 100) if failure(t, samples) <= 0.1)
    assert made.rounds_needed == made.rounds == expected
    assert made.limited_by == "nothing"


def test_what_limits() -> None:
    few = plan(4.0, 1.0, 0.1, 0.05, 50.0, rounds=50, samples=10**6)
    assert few.limited_by == "pairs"
    assert min(failure(t, 10**6) for t in range(1, 60)) > 0.1
    short = plan(4.0, 1.0, 0.1, 0.05, 50.0, rounds=1, samples=10**12)
    assert short.limited_by == "rounds"
    assert failure(1, math.inf) > 0.1
    sharp = plan(4.0, 1.0, 0.1, 2.0, 50.0)
    assert sharp.limited_by == "beta"
    assert sharp.samples is None
    best = [
        min(failure(t, math.inf, sharp.beta_needed * f) for t in range(1, 60)) for f in (0.99, 1.01)
    ]
    assert best[0] <= 0.1 < best[1]
    for made in (few, short, sharp):
        assert any(character.isdigit() for character in made.why)


def test_vacuous_bounds_are_called_vacuous() -> None:
    made = plan(4.0, 1.0, 0.1, 0.05, 50.0, rounds=4, samples=1000)
    assert made.failure is not None
    assert made.failure_closed is not None
    assert made.failure.vacuous
    assert made.failure_closed.vacuous
    assert made.failure.value == 1.0


def test_upper_bound_lies_above_the_lower() -> None:
    for samples in (10**7, 10**9, 10**12):
        made = plan(50.0, 1.0, 0.01, 1e-4, 200.0, rounds=1, samples=samples)
        assert made.failure is not None
        assert made.failure.raw >= made.lower_bound > 0.0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"kappa0": 0.9}, "kappa0"),
        ({"kappa0": 11.0}, "kappa0"),
        ({"margin": 0.0}, "margin"),
        ({"margin": -1.0}, "margin"),
        ({"confidence": 0.0}, "confidence"),
        ({"confidence": 1.2}, "confidence"),
        ({"beta": 0.0}, "beta"),
        ({"complexity": 0.0}, "complexity"),
        ({"complexity": float("inf")}, "complexity"),
        ({"rounds": 0}, "rounds"),
        ({"samples": 0}, "samples"),
        ({"target": 0.0}, "target"),
        ({"rho": 1.5}, "rho"),
        ({"constant": 0.0}, "constant"),
        ({"log_responses": -1.0}, "log_responses"),
    ],
)
def test_bad_parameters_have_names(change: dict[str, float], word: str) -> None:
    numbers: dict[str, float] = {
        "kappa0": 4.0,
        "margin": 1.0,
        "confidence": 0.1,
        "beta": 0.05,
        "complexity": 50.0,
    }
    with pytest.raises(UserError) as caught:
        plan(**{**numbers, **change})  # type: ignore[arg-type]
    assert word in caught.value.problem


# The calibrated planner


def test_fit_recovers_its_own_recursion() -> None:
    kappa = [6.0]
    for _ in range(6):
        kappa.append(1.0 + 0.4 * (kappa[-1] - 1.0) + 0.3 * math.log(kappa[-1]))
    fit = fit_rounds(kappa)
    assert fit.coefficients["keep"] == pytest.approx(0.4, abs=1e-6)
    assert fit.coefficients["log"] == pytest.approx(0.3, abs=1e-6)
    assert fit.residual < 1e-9
    assert fit.limit == pytest.approx(1.0, abs=1e-6)
    compact = [6.0]
    for _ in range(8):
        compact.append(1.1 + 0.2 * math.sqrt(compact[-1]) + 0.5 * math.log(compact[-1]))
    fit = fit_rounds(compact, "compact")
    assert list(fit.coefficients.values()) == pytest.approx([1.1, 0.2, 0.5], abs=1e-5)
    assert fit.limit == pytest.approx(compact[-1], rel=1e-3)


def test_target_is_reached_when_the_recursion_says() -> None:
    ahead = predict_rounds([9.0, 5.0, 3.0], 20, target=1.1)
    assert ahead.reached is not None
    first = int(ahead.round_R[np.argmax(ahead.kappa_R <= 1.1)])
    assert ahead.reached == first
    assert ahead.reached_low is not None
    assert ahead.reached_low <= ahead.reached
    assert ahead.reached_high is None or ahead.reached <= ahead.reached_high
    assert np.all(ahead.low_R <= ahead.kappa_R)
    assert np.all(ahead.kappa_R <= ahead.high_R)
    assert np.all(np.diff(ahead.kappa_R) <= 0.0)


def test_target_never_reached_says_so() -> None:
    path = [4.0]
    for _ in range(8):
        path.append(2.0 + 0.3 * (path[-1] - 1.0))
    ahead = predict_rounds(path, 3, target=1.05)
    assert ahead.reached is None
    assert ahead.calibration.limit == pytest.approx(2.43, abs=0.15)


def test_already_there() -> None:
    assert predict_rounds([3.0, 2.0, 1.5, 1.2], 2, target=1.3).reached == 3


def sharpening_runs(count: int, seed: int) -> list[np.ndarray]:
    """Tabular policies sharpened at a random pace with drift; exact kappa of 9 rounds each."""
    rng = np.random.default_rng(seed)
    runs: list[np.ndarray] = []
    while len(runs) < count:
        prompts, responses = 128, int(rng.choice([8, 32, 128]))
        logits = rng.normal(size=(prompts, responses)) * rng.uniform(0.5, 3.0)
        logits *= rng.gamma(4.0, 0.25, size=(prompts, 1))
        logits[:, 0] += rng.uniform(0.0, 4.0)
        pace = rng.uniform(0.3, 1.0) / rng.uniform(0.5, 4.0)
        drift = rng.choice([0.0, 0.05, 0.2])
        path = []
        for _ in range(9):
            top = logits.max(axis=1, keepdims=True)
            path.append(float(np.mean(np.exp(logits - top).sum(axis=1))))
            logits = logits * (1.0 + pace) + drift * rng.normal(size=logits.shape)
        if 1.3 < path[0] < 100.0:
            runs.append(np.array(path))
    return runs


def test_backtest_on_runs_not_seen() -> None:
    score = backtest(sharpening_runs(60, seed=11), seen=4, replicates=100)
    assert score.runs == 60
    assert score.predicted == 300
    assert score.mean_error < 0.04
    assert score.mean_error < 0.35 * score.mean_error_of["compact"]
    assert score.mean_error < 0.2 * score.mean_error_of["as it was"]
    assert 0.82 < score.coverage <= 1.0


@pytest.mark.parametrize("pairs", [32, 64])
def test_intervals_hold_runs_that_settle_unseen(pairs: int) -> None:
    """Strong updates on few pairs: kappa falls fast for three rounds and then stays."""
    runs: list[np.ndarray] = []
    for seed in range(8):
        start = linear(exponential(8, 0.2), 6.0, prompts=64, responses=32, seed=seed)
        found = bulk(start, rounds=8, pairs=pairs, beta=1.0, noise=0.0, replicates=5, seed=seed)
        runs.extend(found.kappa_RT)
    late = np.array([path[4:] - 1.0 for path in runs])
    assert np.median(late[:, -1] / late[:, 0]) > 0.5
    assert 0.85 < backtest(runs, seen=4, replicates=100).coverage <= 1.0


def test_same_seed_same_interval() -> None:
    one, two = (predict_rounds([5.0, 3.0, 2.0, 1.7], 4, seed=3) for _ in range(2))
    assert np.array_equal(one.high_R, two.high_R)


@pytest.mark.parametrize(
    "call",
    [
        lambda: fit_rounds([2.0, 1.5]),
        lambda: fit_rounds([2.0, 0.9, 1.5]),
        lambda: fit_rounds([2.0, float("nan"), 1.5]),
        lambda: predict_rounds([3.0, 2.0, 1.5], 0),
        lambda: predict_rounds([3.0, 2.0, 1.5], 2, level=1.0),
        lambda: predict_rounds([3.0, 2.0, 1.5], 2, target=0.5),
        lambda: backtest([[3.0, 2.0, 1.5]], seen=4),
    ],
)
def test_bad_rounds_have_names(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError):
        call()


def test_import_is_light() -> None:
    heavy = ["torch", "transformers", "sklearn", "plotly"]
    code = f"import sys, srlm.theory; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
