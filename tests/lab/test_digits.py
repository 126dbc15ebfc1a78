"""The digits: starts as promised, the quick rounds equal to the loop's."""

from __future__ import annotations

import numpy as np
import pytest

from srlm import pairs as pairing
from srlm import train as update
from srlm.config import MeasureSettings, SampleSettings, UpdateSettings
from srlm.errors import UserError
from srlm.lab.classes import class_rounds
from srlm.lab.digits import digits
from srlm.loop import self_reward
from srlm.rewards.likelihood import likelihood
from srlm.rounds import Method
from tests.naive.counted import Counted


@pytest.mark.parametrize(
    ("start", "kappa", "sampling", "mode"),
    [("good", 1.72, 0.633, 0.927), ("poor", 9.67, 0.102, 0.339)],
)
def test_starts(start: str, kappa: float, sampling: float, mode: float) -> None:
    policy, train, held_out = digits(start)
    pi_PM = np.exp(policy.log_table(held_out))
    right_P = np.array([int(x.answers[0]) for x in held_out])
    assert (len(train), len(held_out)) == (1000, 797)
    assert not {x.id for x in train} & {x.id for x in held_out}
    assert (1 / pi_PM.max(1)).mean() == pytest.approx(kappa, abs=0.02)
    assert pi_PM[np.arange(797), right_P].mean() == pytest.approx(sampling, abs=0.005)
    assert (pi_PM.argmax(1) == right_P).mean() == pytest.approx(mode, abs=0.005)


@pytest.mark.parametrize("pairs", [24, 900])
def test_rounds_are_those_of_the_loop(pairs: int) -> None:
    policy, train, held_out = digits("good")
    few = held_out[:40]
    recipe = Method(
        SampleSettings(),
        likelihood,
        pairing.pairs,
        update.square_objective,
        UpdateSettings(beta=2.0),
        MeasureSettings(prompts=len(few)),
    )
    seen = [
        done.estimates["kappa"].value
        for done in self_reward(Counted(policy, 4, 1, pairs), train, few, method=recipe, rounds=2)
    ]
    fast = class_rounds(policy, train, few, rounds=2, pairs=pairs, beta=2.0, seed=4, replicate=1)
    assert fast.kappa_T == pytest.approx(seen, abs=1e-6)


def test_an_unknown_start_is_named() -> None:
    with pytest.raises(UserError, match="start"):
        digits("middling")
