"""Settings left open: what is chosen, that it is written down, and that it can be asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srlm import runner
from srlm.config import BETA, BETAS, UpdateSettings, beta_of, beta_of_parts, reward_parts
from srlm.defaults import SHORT, settle
from srlm.errors import UserError
from srlm.forecast.answers import Shares
from srlm.forecast.reward_paths import VOTES, About, vote_path
from srlm.grading import EXACT, grader
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


@pytest.mark.parametrize("reward", [*BETAS, "consistency:2,likelihood:0.1"])
def test_a_run_and_its_forecast_have_one_beta(reward: str) -> None:
    """By the reward where none is asked for; that of pairs knows none."""
    config = tiny.config(Path("m"), Path("p"), **OPEN | {"update.beta": None, "reward": reward})
    asked = (tiny.policy(), 24, EXACT, 4)
    made = settle(config, *asked).config.update.beta
    assert made == beta_of(reward) == beta_of_parts(reward_parts(reward))
    dpo = config.model_copy(update={"update": UpdateSettings(kind="dpo")})
    assert settle(dpo, *asked).config.update.beta == BETA
    own = config.model_copy(update={"update": UpdateSettings(beta=0.3)})
    assert settle(own, *asked).config.update.beta == 0.3


def test_votes_of_a_file_have_the_beta_of_a_run() -> None:
    drawn = [Shares(np.full((400, 2), 0.5), 0)]
    about = About(0, 0.9)
    made = {name: vote_path(name, drawn, [0], None, 1, about).beta for name in VOTES}
    assert made == {"vote share": 0.1, "log-vote": 0.5, "hard vote": 0.1}
    assert vote_path("vote share", drawn, [0], 0.7, 1, about).beta == 0.7


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
