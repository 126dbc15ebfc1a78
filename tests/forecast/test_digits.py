"""The forecast against trained loops: softmax regression on digits (theory.md section 3)."""

from __future__ import annotations

import pytest

from srlm import loop, pairs
from srlm import train as update
from srlm.config import MeasureSettings, SampleSettings, UpdateSettings
from srlm.forecast.make import Forecast, make_forecast
from srlm.grading import EXACT
from srlm.lab.digits import digits
from srlm.rewards.likelihood import likelihood
from srlm.rounds import Method
from srlm.types import Prompt
from tests.forecast.drawn import Drawn


def forecast(held_out: list[Prompt], rounds: int) -> Forecast:
    """From 64 samples per prompt and the searched modes; never from the table itself."""
    return make_forecast(
        Drawn(digits()[0]), held_out, grader=EXACT, rounds=rounds, samples=64,
        max_tokens=1, betas=(1.0, 2.0, 4.0),
    )  # fmt: skip


def compare(found: Forecast, held_out: list[Prompt], beta: float) -> None:
    """Accuracy within .01 and kappa within 5 % of a loop with 4,000 pairs a round, every round.

    1,000 prompts, 8 draws of each two by two, square loss, exact minimiser; the trained policy is
    measured by enumeration on the same held-out prompts.
    """
    policy, train, _ = digits()
    recipe = Method(
        SampleSettings(per_prompt=8, max_tokens=1),
        likelihood,
        lambda samples, reward_R: pairs.pairs(samples, reward_R),
        update.square_objective,
        UpdateSettings(kind="square", beta=beta),
        MeasureSettings(prompts=len(held_out)),
    )
    points = found.trajectories[beta]
    rounds = loop.self_reward(policy, train, held_out, method=recipe, rounds=len(points) - 1)
    for point, done in zip(points, rounds, strict=True):
        assert point.supported
        trained = {k: done.estimates[k].value for k in ("kappa", "sampling_accuracy")}
        assert point.kappa.value == pytest.approx(trained["kappa"], rel=0.05)
        assert point.sampling_accuracy.value == pytest.approx(
            trained["sampling_accuracy"], abs=0.01
        )


def test_two_rounds_on_a_hundred_digits() -> None:
    held_out = digits()[2][:100]
    compare(forecast(held_out, 2), held_out, 2.0)


@pytest.mark.slow
def test_five_rounds_on_all_digits() -> None:
    held_out = digits()[2]
    found = forecast(held_out, 5)
    for beta in (1.0, 2.0, 4.0):
        compare(found, held_out, beta)
