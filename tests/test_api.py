"""``import srlm``: the public names, and whole runs and forecasts from Python alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import srlm
from tests import tiny

PROMPTS = [{"prompt": x.content, "answer": "a"} for x in tiny.texts(30)]


def test_names_are_those_of_the_modules() -> None:
    assert set(srlm.__all__) == set(srlm._PLACES)
    assert dir(srlm) == sorted(srlm.__all__)
    assert 20 <= len(srlm.__all__) <= 45
    for name in srlm.__all__:
        assert getattr(srlm, name) is not None
        assert getattr(srlm, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'align'"):
        srlm.align  # noqa: B018


def test_a_run_with_defaults_alone() -> None:
    policy = tiny.policy()
    before = policy.greedy(tiny.texts(3), max_tokens=4).logp_R
    memory = srlm.Memory()
    method = srlm.Method(samples=srlm.SampleSettings(max_tokens=4))
    done = list(
        srlm.self_reward(policy, srlm.make_prompts(PROMPTS), rounds=2, method=method, folder=memory)
    )
    assert [r.round for r in done] == [0, 1, 2]
    assert done[0]["kappa"].value is not None
    assert done[0]["sampling_accuracy"].n == len(done[0].table or ())
    assert 0 < done[0]["sampling_accuracy"].n < 30  # a tenth is held out
    assert (policy.greedy(tiny.texts(3), max_tokens=4).logp_R == before).all()
    assert (memory.policy.greedy(tiny.texts(3), max_tokens=4).logp_R != before).any()
    assert memory.rounds == done


@pytest.mark.parametrize("name", ["weighted", "square", "dpo", "ipo", "best_of_n"])
def test_an_objective_brings_its_pairing(name: str) -> None:
    """Label 0 is wanted: its probability grows whatever the objective."""

    def first(policy: Any, prompts: Any, samples: srlm.Samples) -> Any:
        return np.array([float(t == (0,)) for t in samples.tokens_R])

    policy = tiny.tabular(40, 3, scale=0.3)
    prompts = srlm.make_prompts([str(i) for i in range(40)])
    method = srlm.Method(
        reward=first,
        objective=getattr(srlm, name),
        samples=srlm.SampleSettings(per_prompt=8),
        update=srlm.UpdateSettings(beta=1.0),
    )
    memory = srlm.Memory()
    list(srlm.self_reward(policy, prompts, prompts, rounds=1, method=method, folder=memory))
    after = memory.policy
    assert isinstance(after, srlm.Tabular)
    gain = np.exp(after.log_table(prompts))[:, 0] - np.exp(policy.log_table(prompts))[:, 0]
    assert gain.mean() > 0.05


def test_measure_and_forecast() -> None:
    policy, prompts = tiny.policy(), srlm.make_prompts(PROMPTS)
    measured = srlm.evaluate(policy, prompts, max_tokens=4)
    found = srlm.make_forecast(policy, prompts, max_tokens=4, samples=16, rounds=2)
    assert measured.estimates["kappa"].value == found.measurement.estimates["kappa"].value
    assert found.verdict.verdict in ("go", "no-go", "unclear")
    assert [p.exponent for p in found.points] == [1.0, 3.0, 9.0]


def test_prompts_that_are_none_are_named() -> None:
    with pytest.raises(srlm.UserError, match="value 2"):
        srlm.make_prompts(["fine", {"question": 3}])
