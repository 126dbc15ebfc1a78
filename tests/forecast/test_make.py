"""The whole forecast: exact where the policy is, close from draws, honest where it cannot be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from srlm.errors import UserError
from srlm.forecast.make import Forecast, make_forecast, to_json
from srlm.forecast.trajectory import trajectory
from srlm.grading import EXACT, Grader
from srlm.policies.tabular import Tabular, rows
from srlm.types import Floats, Prompt
from tests import tiny
from tests.forecast.drawn import Drawn

P, M = 40, 8
NAMES = {
    "verdict", "reason", "kappa", "failure_fraction", "margin", "least_confidence",
    "greedy_is_mode", "mode_accuracy", "sampling_accuracy", "majority_vote", "trajectory",
}  # fmt: skip
POINT = {
    "beta", "exponent", "kappa", "failure_fraction", "sampling_accuracy", "length", "entropy",
    "effective_sample_size", "supported",
}  # fmt: skip


def policy(scale: float = 1.5) -> Tabular:
    return Tabular(scale * np.random.default_rng(0).standard_normal((P, M)))


def prompts(answers: bool = True) -> list[Prompt]:
    """The answer is the mode on four prompts in five, else response 0."""
    best = policy().theta.reshape(P, M).argmax(1)
    return [
        replace(x, answers=(str(best[i] if i % 5 else 0),) if answers else ())
        for i, x in enumerate(rows(P))
    ]


def forecast(given: Any, asked: Sequence[Prompt] | None = None, **change: Any) -> Forecast:
    settings: dict[str, Any] = {"grader": EXACT, "max_tokens": 1, "rounds": 3, "beta": 2.0}
    return make_forecast(given, prompts() if asked is None else asked, **settings | change)


def powers(beta: float, rounds: int = 3) -> list[Floats]:
    log = policy().log_table(rows(P))
    out = []
    for t in range(rounds + 1):
        pi = np.exp((1 + 1 / beta) ** t * log)
        out.append(pi / pi.sum(1, keepdims=True))
    return out


@pytest.mark.parametrize("beta", [1.0, 2.0, 4.0])
def test_an_exact_policy_gets_exact_numbers(beta: float) -> None:
    found = forecast(policy(), beta=beta)
    answer = np.array([int(x.answers[0]) for x in prompts()])
    for point, pi in zip(found.points, powers(beta), strict=True):
        assert point.supported
        assert point.effective_sample_size == np.inf
        top = pi.max(1)
        for name, want in {
            "kappa": (1 / top).mean(),
            "log10_kappa": np.log10((1 / top).mean()),
            "failure_fraction": (top <= 0.5).mean(),
            "confidence": top.mean(),
            "sampling_accuracy": pi[np.arange(P), answer].mean(),
            "answer_accuracy": (pi.argmax(1) == answer).mean(),
            "length": 1.0,
            "entropy": -(pi * np.log(pi)).sum(1).mean(),
        }.items():
            assert getattr(point, name).value == pytest.approx(want), name
    assert found.end.sampling_accuracy.value == pytest.approx(
        found.measurement.estimates["mode_accuracy"].value
    )
    assert found.end.kappa.value == pytest.approx(1.0)


def test_draws_come_near_the_exact_forecast() -> None:
    exact, near = forecast(policy()), forecast(Drawn(policy()), samples=64)
    assert near.verdict.verdict == exact.verdict.verdict == "go"
    for one, other in zip(near.points, exact.points, strict=True):
        assert one.kappa.value == pytest.approx(other.kappa.value, rel=0.05)
        assert one.sampling_accuracy.value == pytest.approx(other.sampling_accuracy.value, abs=0.02)
        assert one.kappa.guarantee in ("estimate", "extrapolation")


def test_slower_training_stays_on_the_path() -> None:
    """At efficiency e the exponent is p_t^e, and every number is that of the power."""
    found = forecast(policy())
    slow = trajectory(found.evidence, beta=2.0, rounds=3, efficiency=0.5)
    assert [p.exponent for p in slow] == pytest.approx([1.5 ** (t / 2) for t in range(4)])
    assert slow[2].kappa.value == pytest.approx(found.points[1].kappa.value)


def test_answers_are_summed_over_their_responses() -> None:
    """Two responses of one answer: neither is the mode, together they are the likeliest answer."""
    logits = np.log(np.tile([0.4, 0.3, 0.29, 0.01], (P, 1)))
    logits += 1e-3 * np.random.default_rng(0).standard_normal(logits.shape)
    given = Tabular(logits, text_M=("7", "a: 8", "b: 8", "9"))
    asked = [replace(x, answers=("8",)) for x in rows(P)]
    last = Grader("last", lambda text: text[-1], str)
    found = forecast(Drawn(given), asked, samples=64, grader=last)
    assert found.points[0].answer_accuracy.value == 1.0
    assert found.end.answer_accuracy.value == 0.0  # the mode wins in the end
    assert found.answers is not None
    sequence = found.measurement.estimates["kappa"].value
    assert sequence is not None
    certain = found.answers.certain.kappa().value
    assert certain == pytest.approx(1 / 0.59, rel=0.01)
    assert certain < sequence
    assert found.answers.tested is not None
    tested = found.answers.tested.kappa().value
    assert tested is not None
    assert tested > certain
    assert found.answers.majority[32].value == pytest.approx(0.87, abs=0.05)


def test_undrawn_modes_count_at_the_answer_level() -> None:
    """kappa of answers never exceeds kappa, however few the draws."""
    given = Tabular(np.random.default_rng(1).standard_normal((P, 200)))
    found = forecast(Drawn(given), rows(P), samples=2)
    assert found.answers is not None
    certain = found.answers.certain.kappa().value
    kappa = found.measurement.estimates["kappa"].value
    assert certain is not None
    assert kappa is not None
    assert certain <= kappa + 1e-9


def test_json_holds_the_names_and_is_json() -> None:
    for given in (policy(), Drawn(policy())):
        data = to_json(forecast(given))
        assert set(data) >= NAMES
        assert all(set(point) >= POINT for point in data["trajectory"])
        assert [point["round"] for point in data["trajectory"]] == [0, 1, 2, 3]
        assert set(data["trajectories"]) == {"0.5", "1", "2"}
        json.dumps(data, allow_nan=False)


def test_same_seed_same_numbers() -> None:
    one, other = (to_json(forecast(Drawn(policy()), seed=5)) for _ in range(2))
    assert one == other
    assert to_json(forecast(Drawn(policy()), seed=6)) != one


def test_without_answers_no_accuracy_is_claimed() -> None:
    found = forecast(Drawn(policy()), prompts(answers=False))
    assert not found.has_answers
    assert found.points[0].sampling_accuracy.value is None
    assert found.end.answer_accuracy.value is None
    assert found.answers is not None
    assert not found.answers.majority
    assert found.verdict.verdict == "unclear"
    assert "accuracy" not in found.verdict.reason
    data = to_json(found)
    assert data["majority_vote"] == {}
    assert data["sampling_accuracy"]["value"] is None


def test_prompts_without_answers_count_in_all_but_accuracy() -> None:
    asked = [x if i < 30 else replace(x, answers=()) for i, x in enumerate(prompts())]
    some, every = forecast(policy(), asked), forecast(policy())
    assert some.points[1].kappa.value == every.points[1].kappa.value
    assert some.points[1].sampling_accuracy.n == 30
    assert some.verdict.gain is not None
    assert some.verdict.gain.n == 30


def test_few_draws_are_flagged_as_extrapolation() -> None:
    given = Tabular(np.random.default_rng(1).standard_normal((P, 400)))
    found = forecast(Drawn(given), rows(P), samples=9)
    assert found.points[0].supported
    assert not found.points[2].supported
    assert found.points[2].kappa.guarantee == "extrapolation"
    assert not found.points[2].to_json()["supported"]


def test_a_draw_alone_is_refused() -> None:
    with pytest.raises(UserError, match="--samples 1"):
        forecast(Drawn(policy()), samples=1)


def test_impossible_responses_are_no_trouble() -> None:
    logits = policy().theta.reshape(P, M).copy()
    logits[:, 3] = -np.inf
    for given in (Tabular(logits), Drawn(Tabular(logits))):
        data = to_json(forecast(given, prompts(answers=False)))
        assert data["trajectory"][3]["entropy"]["value"] >= 0
        assert data["trajectory"][3]["kappa"]["value"] >= 1


def test_prompts_whose_every_draw_is_cut_off_are_named() -> None:
    found = make_forecast(
        tiny.policy(), tiny.texts(6), grader=EXACT, rounds=1, samples=4, max_tokens=2
    )
    cut = [p for p in range(6) if not found.measurement.samples.finished_R[4 * p : 4 * p + 4].any()]
    assert cut
    assert list(found.cut_off) == cut
    assert to_json(found)["cut_off"] == [p + 1 for p in cut]


def test_a_model_that_gives_nan_is_named() -> None:
    broken = tiny.policy()
    with torch.no_grad():
        next(iter(broken.model.parameters()))[:] = float("nan")
    with pytest.raises(UserError, match="not numbers"):
        make_forecast(broken, tiny.texts(3), grader=EXACT, samples=4, max_tokens=3)


def test_a_network_is_forecast_within_its_limit() -> None:
    found = make_forecast(
        tiny.policy(), tiny.texts(4), grader=EXACT, rounds=2, samples=16, max_tokens=4
    )
    kappas = [p.kappa.value or 0.0 for p in found.points]
    assert kappas[0] >= kappas[1] >= kappas[2] >= 1.0
    assert found.points[0].kappa.value == pytest.approx(
        found.measurement.estimates["kappa"].value, rel=0.5
    )
