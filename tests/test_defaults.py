"""Settings left open: what is chosen, that it is written down, and that it can be asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from srlm import runner
from srlm.config import BETA, ForecastConfig, RunConfig, SamplesConfig, UpdateSettings
from srlm.defaults import SHORT, settle
from srlm.errors import UserError
from srlm.grading import grader
from srlm.policies import devices
from srlm.runner import run
from srlm.train import LEAST_STEPS, RANK, recommended, settled
from srlm.writing import read_json
from tests import tiny

OPEN: dict[str, Any] = {
    "update.lr": None,
    "update.epochs": None,
    "update.prompts_per_step": None,
}


@pytest.mark.parametrize(("prompts", "batch"), [(3, 1), (8, 2), (24, 6), (511, 127), (4096, 128)])
def test_an_epoch_has_several_steps(prompts: int, batch: int) -> None:
    policy = tiny.policy()
    made = settled(UpdateSettings(), policy, prompts)
    suits = recommended(policy.budget.shape.parameters)
    assert (made.lr, made.epochs) == (suits.lr, suits.epochs)
    assert (made.prompts_per_step, made.lora) == (batch, 0)
    assert prompts < LEAST_STEPS or prompts // batch >= LEAST_STEPS


def test_what_is_asked_for_stays() -> None:
    asked = UpdateSettings(lr=3e-3, epochs=7, prompts_per_step=99, lora=2)
    assert settled(asked, tiny.policy(), 24) == asked
    some = settled(UpdateSettings(lora=2), tiny.policy(), 24)
    assert some.lr == recommended(1, lora=True).lr
    assert settled(UpdateSettings(), tiny.tabular(), 24) == UpdateSettings()


def test_adapters_where_all_weights_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy()
    monkeypatch.setattr("srlm.train.memory", lambda device: 2 * policy.budget.shape.states - 1)
    assert settled(UpdateSettings(), policy, 24).lora == RANK
    assert settled(UpdateSettings(lora=0), policy, 24).lora == 0
    monkeypatch.undo()
    assert devices.memory(torch.device("cpu")) > 2 * policy.budget.shape.states
    monkeypatch.setattr("srlm.train.LARGE", policy.budget.shape.parameters - 1)
    assert settled(UpdateSettings(), policy, 24).lora == RANK


@pytest.mark.parametrize(
    ("limit", "answer", "reward"),
    [
        (SHORT, "exact", "likelihood"),
        (SHORT, "last-number", "likelihood"),
        (SHORT + 1, "last-number", "consistency"),
        (SHORT + 1, "regex:x", "consistency"),
        (SHORT + 1, "exact", None),
        (SHORT + 1, "text", None),
    ],
)
def test_the_reward(limit: int, answer: str, reward: str | None) -> None:
    config = tiny.config(Path("m"), Path("p"))
    asked = (tiny.policy(), 24, grader(answer), limit)
    if reward is None:
        with pytest.raises(UserError, match="no --reward") as caught:
            settle(config, *asked)
        assert "--answer" in caught.value.remedy
        assert "--reward likelihood" in caught.value.remedy
    else:
        assert settle(config, *asked).config.reward == reward
    exact = settle(config, tiny.tabular(), *asked[1:])
    assert exact.config.reward == "likelihood"
    named = config.model_copy(update={"reward": "likelihood"})
    assert settle(named, *asked).config.reward == "likelihood"


def test_one_beta() -> None:
    needed = {"model": "m", "prompts": {"file": "p"}}
    assert RunConfig.model_validate(needed).update.beta == BETA
    assert ForecastConfig.model_validate(needed).beta == BETA
    assert SamplesConfig.model_validate({"file": "s"}).beta == BETA


def test_choices_are_kept_and_can_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder holds what was chosen; the same command goes on, and so does one that names it."""
    monkeypatch.setattr(runner, "write_page", lambda summary: summary.folder / "report.html")
    tiny.saved(tmp_path / "lm")
    file = tiny.write_prompts(tmp_path / "p.jsonl", tiny.texts(16), ["1", "2"] * 8)
    config = tiny.config(tmp_path / "lm", file, rounds=1, **OPEN | {"samples.max_tokens": 256})
    out = tmp_path / "out"
    kept = run(config, out).config
    asked = read_json(out / "manifest.json")["asked"]
    assert asked == config.model_dump(mode="json", exclude={"rounds"})
    assert (asked["reward"], asked["update"]["lr"]) == ("auto", None)
    assert kept["reward"] == "likelihood"  # the context is short
    assert kept["prompts.answer"] == "last-number"
    assert kept["samples.max_tokens"] < tiny.CONTEXT
    assert (kept["update.epochs"], kept["update.lr"], kept["update.lora"]) == (2, 5e-4, 0)
    assert kept["update.prompts_per_step"] == read_json(out / "manifest.json")["prompts"][
        "train"
    ] // (LEAST_STEPS)
    run(config, out)
    named = config.model_copy(
        update={"reward": "likelihood", "update": config.update.model_copy(update={"lr": 5e-4})}
    )
    run(named, out)
    other = config.model_copy(update={"update": config.update.model_copy(update={"lr": 1e-3})})
    with pytest.raises(UserError, match=r"update.lr: 0.0005 -> 0.001"):
        run(other, out)
