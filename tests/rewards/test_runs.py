"""Rewards in the loop and in a run folder: the report beside each round, notes, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from srlm.errors import UserError
from srlm.runner import reward_of, run
from tests import tiny
from tests.rewards.scripted import bytes_model

LETTERS = {
    "judge.read": "expected",
    "judge.template": "{prompt}{response}",
    "judge.scores": "a=1,b=0",
}


@pytest.mark.parametrize(
    "reward",
    ["likelihood-per-token", "consistency", "judge:2,likelihood:0.1"],
)
def test_a_run_keeps_the_report_of_its_rewards(tmp_path: Path, reward: str) -> None:
    model = tiny.saved(tmp_path / "model")
    file = tiny.write_prompts(tmp_path / "p.jsonl", tiny.texts(30))
    config = tiny.config(model, file, reward=reward, **LETTERS)
    out = tmp_path / "run"
    summary = run(config, out)
    kept = json.loads((out / "rounds/000/rewards.json").read_text())
    assert {**summary.rounds[1].rewards, "notes": kept["notes"]} == kept
    assert summary.rounds[0].rewards is None
    assert kept["rows"] > 0
    assert set(kept["notes"]) <= set(summary.rounds[1].notes)
    if "judge" in reward:
        assert kept["facts"]["judge: judgements"] > 0
    lines = (out / "metrics.jsonl").read_text()
    (out / "metrics.jsonl").unlink()
    run(config, out)  # nothing is made anew
    assert (out / "metrics.jsonl").read_text() == lines


@pytest.mark.parametrize("reward", ["judge", "judge-pairwise", "meta-judge"])
def test_judges_with_their_own_templates_run_in_the_loop(reward: str) -> None:
    """An untrained model says nothing that can be read; what it cannot say is counted."""
    policy = bytes_model()
    x = tiny.prompts(["one", "two"])
    config = tiny.config(
        Path("m"), Path("p"), reward=reward, **{"judge.max_tokens": 4, "judge.judgements": 2}
    )
    samples = policy.sample(x, 3, seed=0, max_tokens=4)
    found = reward_of(config)(policy, x, samples)
    facts = found.facts  # type: ignore[union-attr]
    assert any(name.endswith("unreadable") for name in facts)


def test_a_reward_that_is_missing_everywhere_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    model = tiny.saved(tmp_path / "model")
    file = tiny.write_prompts(tmp_path / "p.jsonl", tiny.texts(30))
    config = tiny.config(
        model, file, reward="consistency", **{"prompts.answer": "last-number"}
    )  # the tiny model knows no figures
    with pytest.raises(UserError, match="reward"):
        run(config, tmp_path / "run")
    kept = json.loads((tmp_path / "run/rounds/000/rewards.json").read_text())
    assert kept["missing"] == kept["rows"]
    assert any("no parseable answer" in note for note in kept["notes"])


def test_scores_that_the_model_cannot_say_are_refused(tmp_path: Path) -> None:
    model = tiny.saved(tmp_path / "model")
    file = tiny.write_prompts(tmp_path / "p.jsonl", tiny.texts(30))
    for changes in ({"reward": "judge", **LETTERS, "judge.scores": "y=1,n=0"},
                    {"reward": "judge-pairwise"}):  # fmt: skip
        with pytest.raises(UserError, match="no single token"):
            run(tiny.config(model, file, **changes), tmp_path / changes["reward"])


def test_a_judge_is_trained_by_the_meta_judge_alone() -> None:
    changes = {"reward": "judge", "judge.train": True}
    with pytest.raises(UserError, match="--judge-train"):
        reward_of(tiny.config(Path("m"), Path("p"), **changes))
    reward_of(tiny.config(Path("m"), Path("p"), **changes | {"reward": "judge:1,meta-judge:1"}))
