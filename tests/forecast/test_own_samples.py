"""Forecasts from a model's own samples: every reward, kept as they are made, gone on with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from srlm.cli import app
from srlm.engines import base, opened
from srlm.engines.files import open_samples
from srlm.errors import UserError
from srlm.forecast import dynamics
from srlm.forecast.from_samples import forecast_file
from srlm.forecast.sampling import counts_of_looks, forecast_rewards
from srlm.forecast.tally import known_answers
from srlm.grading import EXACT, grader
from srlm.measure import search
from srlm.policies.base import Policy
from srlm.policies.hf import CausalLM
from srlm.policies.tabular import Tabular
from srlm.types import Floats, Prompt, Samples
from tests import tiny
from tests.engines.played import Played, play


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    tiny.saved(folder)
    return folder


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "p.jsonl"
    rows = [{"prompt": x.content, "answer": "a"} for x in tiny.texts(12)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def srlm(*words: object) -> Any:
    return CliRunner().invoke(app, [str(x) for x in words], catch_exceptions=False)


def given(command: str, model: Path, prompts: Path, *words: object) -> list[object]:
    return [command, "--model", model, "--prompts", prompts, "--max-tokens", 4, "--samples", 8,
            "--answer", "text", "-q", *words]  # fmt: skip


def test_all_rewards_beside_each_other(model: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--reward", "all", "--rounds", 2, "--out", out]
    done = srlm(*given("forecast", model, prompts, *words))
    assert done.exit_code == 0, done.output
    found = json.loads((out / "forecast.json").read_text())
    assert (out / "forecast.html").is_file()
    names = [p["reward"] for p in found["paths"]]
    assert names[:3] == ["vote share", "log-vote", "hard vote"]
    assert {"likelihood", "likelihood-per-token", "self-certainty"} <= set(names)
    # the same samples as a file say the same
    file = forecast_file(
        open_samples(out), grader("text"), known=known_answers(prompts), rounds=2
    ).to_json()
    assert (found["base"], found["terms"]) == (file["base"], file["terms"])
    assert found["paths"][:5] == file["paths"]


def test_a_sum_of_rewards(model: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.json"
    spec = "self-certainty:0.5,likelihood-per-token"
    done = srlm(*given("forecast", model, prompts, "--reward", spec, "--json", out))
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert found["reward"] == spec == found["paths"][-1]["reward"]


@pytest.mark.parametrize("command", ["forecast", "measure"])
def test_an_interrupted_command_goes_on_to_the_same_result(
    command: str, model: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_rows", lambda policy, tokens: 32)  # three shards
    more = ["--reward", "self-certainty"] if command == "forecast" else []
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert srlm(*given(command, model, prompts, *more, "--out", whole)).exit_code == 0
    sample, calls = CausalLM.sample, []

    def stopping(self: Any, *args: Any, **named: Any) -> Samples:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return sample(self, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(CausalLM, "sample", stopping)
        done = srlm(*given(command, model, prompts, *more, "--out", broken))
    assert done.exit_code == 130
    parts = list((broken / "samples").glob("*.parquet"))
    assert len(parts) == 2 and not list(broken.rglob("*.partial"))
    assert len(list(open_samples(broken))) == 8 * 8
    assert srlm(*given(command, model, prompts, *more, "--out", broken)).exit_code == 0
    assert len(list((broken / "samples").glob("*.parquet"))) == 3
    name = f"{command}.json"
    assert (broken / name).read_bytes() == (whole / name).read_bytes()


COMMANDS = {
    "measure": ("measure", ()),
    "forecast": ("forecast", ()),
    "rewards": ("forecast", ("--reward", "self-certainty")),
    "looks": ("forecast", ("--reward", "consistency", "--until", "0.01", "--samples", 32)),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_workers_make_the_same(
    name: str, model: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples, search and scores by two workers of which one is lost again and again."""
    monkeypatch.setattr(base, "_rows", lambda policy, tokens: 32)
    monkeypatch.setattr(search, "LOT", 5)
    command, more = COMMANDS[name]
    words = given(command, model, prompts, *more)
    assert srlm(*words, "--out", tmp_path / "local").exit_code == 0
    ray = Played(2, loses=lambda n: n % 3 == 0)
    play(monkeypatch, ray)
    assert srlm(*words, "--out", tmp_path / "ray", "--engine", "ray").exit_code == 0
    assert ray.killed

    def kept(side: str, folder: str) -> dict[str, bytes]:
        files = (tmp_path / side / folder).rglob("*.*")
        return {str(p.relative_to(tmp_path / side)): p.read_bytes() for p in files}

    for folder in ("samples", "greedy", "scores"):
        assert kept("local", folder) == kept("ray", folder)
    assert bool(kept("ray", "modes")) == (not more)
    name = f"{command}.json"
    local, other = (json.loads((tmp_path / x / name).read_text()) for x in ("local", "ray"))
    assert local == other
    memory = tmp_path / "memory.json"
    assert srlm(*words, "--json", memory, "--engine", "ray").exit_code == 0


@pytest.mark.parametrize(
    ("command", "words", "match"),
    [
        ("measure", ["--server", "http://127.0.0.1:9/v1"], "asks no server"),
        ("measure", ["--engine", "server"], "no address"),
        ("measure", ["--ray-address", "127.0.0.1:9"], "no Ray cluster"),
        ("forecast", ["--engine", "vllm", "--server", "http://127.0.0.1:9/v1"], "asks no server"),
        ("forecast", ["--server", "http://a/v1,http://b/v1", "--reward", "consistency"], "one"),
    ],
)
def test_engines_that_do_not_fit_are_refused(
    command: str,
    words: list[str],
    match: str,
    model: Path,
    prompts: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(opened, "require_vllm", lambda: None)
    with pytest.raises(UserError, match=match):
        srlm(*given(command, model, prompts, *words))


@pytest.mark.parametrize("words", [["--seed", 3], ["--samples", 4], ["--most-prompts", 5]])
def test_other_settings_are_refused_by_name(
    words: list[object], model: Path, prompts: Path, tmp_path: Path
) -> None:
    first = given("forecast", model, prompts, "--reward", "consistency", "--out", tmp_path)
    assert srlm(*first).exit_code == 0
    assert srlm(*first, "--rounds", 3).exit_code == 0  # decides no sample
    with pytest.raises(UserError, match=str(words[0]).removeprefix("--").split("-")[-1]):
        srlm(*first, *words)


def test_a_frozen_reward_tilts_the_base() -> None:
    """On a table, against pi_0 exp(t r / beta) over all responses."""
    rng = np.random.default_rng(0)
    P, V = 60, 4
    logits = rng.normal(size=(P, V))
    prompts = [Prompt(f"{i:016x}", i, ("1",)) for i in range(P)]
    policy = Tabular(logits)

    def likes_one(policy: Policy, prompts: Sequence[Prompt], samples: Samples) -> Floats:
        return np.array([0.7 * (text == "1") for text in samples.text_R])

    found = forecast_rewards(
        policy,
        prompts,
        rewards={"likes one": likes_one},
        reward="likes one",
        grader=EXACT,
        beta=1.0,
        rounds=3,
        samples=64,
        max_tokens=1,
    )
    path = found.paths[-1]
    assert path.carried == 3  # a reward that does not move with the policy
    pi_PV = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
    for t, e in enumerate(path.accuracy):
        tilted = pi_PV * np.exp(0.7 * t * (np.arange(V) == 1))
        truth = (tilted / tilted.sum(1, keepdims=True))[:, 1].mean()
        assert abs((e.value or 0.0) - truth) < 0.03
    assert found.verdict == "go" and path.gain is not None
    share = next(p for p in found.paths if p.reward == "vote share").accuracy[1]
    moved = [dynamics.vote_round(v[None], dynamics.by_share, 1.0)[0, 1] for v in pi_PV]
    assert share.low is not None and share.high is not None
    assert share.low - 0.02 <= np.mean(moved) <= share.high + 0.02


def test_scores_that_move_with_the_policy_carry_one_round() -> None:
    prompts = [Prompt(f"{i:016x}", i, ("1",)) for i in range(20)]
    found = forecast_rewards(
        Tabular(np.random.default_rng(0).normal(size=(20, 4))),
        prompts,
        rewards={"judge": lambda policy, prompts, samples: np.ones(len(samples.text_R))},
        reward="judge",
        grader=EXACT,
        beta=1.0,
        rounds=3,
        samples=64,
        max_tokens=1,
    )
    assert found.paths[-1].carried == 1


def test_adaptive_samples_stop_where_the_vote_is_clear() -> None:
    P = 60
    logits = np.zeros((P, 4))
    logits[: P // 2, 1] = 6.0  # clear
    logits[P // 2 :, 1:3] = 1.0  # a tie
    prompts = [Prompt(f"{i:016x}", i, ("1",)) for i in range(P)]
    policy = Tabular(logits)
    found = forecast_rewards(
        policy, prompts, reward="consistency", samples=32, max_tokens=1, until="0.01"
    )
    every = (8 + 32) * P // 2
    assert 0.9 * every < found.total <= every and max(found.vote) == 32
    with pytest.raises(UserError, match="until"):
        forecast_rewards(policy, prompts, reward="likelihood", until="verdict")


def test_looks_add_up() -> None:
    assert [sum(counts_of_looks(n)) for n in (2, 8, 9, 64, 100)] == [2, 8, 9, 64, 100]
