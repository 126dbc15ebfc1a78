"""Which policies a run keeps; the rest goes when the next is complete."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from srlm import cli, runner
from srlm.config import RunConfig
from srlm.defaults import KEPT, settle
from srlm.errors import UserError
from srlm.grading import EXACT
from srlm.policies.load import load
from srlm.policies.places import located
from srlm.run_folder import read_run
from srlm.run_folder.check import check
from srlm.runner import run
from tests import killing, tiny
from tests.test_run_folder import assert_same, causal_job, linear_job
from tests.test_run_folder import check as check_killed


@pytest.fixture(autouse=True)
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "write_page", lambda summary: summary.folder / "report.html")


def weights(out: Path) -> list[int]:
    """The rounds whose policy has weights."""
    files = out.glob("rounds/*/policy/model*.safetensors")
    return sorted({int(file.parent.parent.name) for file in files})


def test_what_is_asked_for_is_kept(tmp_path: Path) -> None:
    for keep, expected in (("all", [1, 2, 3, 4]), ("1", [4]), ("2", [3, 4])):
        out = tmp_path / keep
        run(linear_job(tmp_path / "in", rounds=4, keep=keep), out)
        assert weights(out) == expected
        assert check(out).damage == ()
        assert len(read_run(out).rounds) == 5
    told = json.loads((tmp_path / "1/rounds/002/dropped.json").read_text())
    assert told == {"files": ["policy/model.safetensors", "policy/README.md"]}
    with pytest.raises(UserError, match="not kept") as caught:
        load(tmp_path / "1/rounds/002/policy")
    assert "--keep all" in caught.value.remedy


def test_best_and_last(tmp_path: Path) -> None:
    """The best by what the stop rule goes by, the last, and no other; and the run goes on."""
    config = linear_job(tmp_path / "in", rounds=4, keep="best-and-last", stop="auto")
    summary = run(config, tmp_path / "out")
    last = len(summary.rounds) - 1
    best = int(summary.stop["best"])
    assert weights(tmp_path / "out") == sorted({best, last} - {0})
    load(tmp_path / "out" / "rounds" / f"{last:03d}" / "policy")
    load(tmp_path / "out" / "rounds" / "000" / "policy")  # where the base is


def test_a_run_that_keeps_less_is_the_same_run(tmp_path: Path) -> None:
    """And may change its mind; files of one's own stay."""
    run(linear_job(tmp_path / "in", rounds=3), tmp_path / "whole")
    out = tmp_path / "out"
    run(linear_job(tmp_path / "in", rounds=2), out)
    mine = out / "rounds" / "001" / "policy" / "notes.txt"
    mine.write_text("mine")
    run(linear_job(tmp_path / "in", rounds=3, keep="1"), out)
    assert weights(out) == [3]
    assert mine.read_text() == "mine"
    for t in range(4):
        names = ["round.json", "held_out.parquet"]
        for one, other in (
            (tmp_path / "whole" / f"rounds/{t:03d}/{n}", out / f"rounds/{t:03d}/{n}") for n in names
        ):
            assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_killed_about_what_is_dropped(tmp_path: Path) -> None:
    config = linear_job(tmp_path / "in", rounds=3, keep="1").model_dump(mode="json")
    kills = [["001/dropped.json", phase] for phase in killing.PHASES]
    kills += [["002/round.json", "after"]]
    answer = killing.start(config, tmp_path / "runs", kills)
    assert weights(tmp_path / "runs" / "whole") == [3]
    check_killed(answer, tmp_path / "runs")


def test_large_models_keep_best_and_last(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy()
    config = tiny.config(Path("m"), Path("p"))
    assert policy.budget.shape.parameters < KEPT
    assert settle(config, policy, 24, EXACT, 4).config.keep == "all"
    monkeypatch.setattr("srlm.defaults.KEPT", policy.budget.shape.parameters - 1)
    assert settle(config, policy, 24, EXACT, 4).config.keep == "best-and-last"
    asked = config.model_copy(update={"keep": "3"})
    assert settle(asked, policy, 24, EXACT, 4).config.keep == "3"
    for wrong in ("0", "-1", "some", ""):
        with pytest.raises(ValueError, match="keep"):
            RunConfig.model_validate(config.model_dump() | {"keep": wrong})


def test_adapters_are_kept_and_can_be_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each on the policy before, and the first on the base where it is; the same bits merged."""
    config = causal_job(tmp_path / "in", **{"update.lora": 2, "keep": "1"})
    run(config, tmp_path / "out")
    assert weights(tmp_path / "out") == []
    place = tmp_path / "out" / "rounds" / "002" / "policy"
    assert {"adapter_config.json", "adapter_model.safetensors", "srlm.json"} == {
        f.name for f in place.iterdir() if f.name != "README.md"
    }
    told = json.loads((tmp_path / "out/rounds/000/policy/base.json").read_text())
    assert told["model"] == str((tmp_path / "in" / "lm").resolve())
    monkeypatch.setattr(sys, "argv", ["srlm", "merge", str(place), str(tmp_path / "merged")])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code in (0, None)
    x = tiny.texts(5)
    one, other, base = (load(p) for p in (place, tmp_path / "merged", tmp_path / "in" / "lm"))
    made = one.sample(x, 3, seed=0, max_tokens=4)
    args = (x, made.prompt_R, made.tokens_R)
    np.testing.assert_array_equal(one.log_prob(*args), other.log_prob(*args))
    assert np.abs(one.log_prob(*args) - base.log_prob(*args)).max() > 1e-4


def test_a_hub_id_has_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache as huggingface_hub lays it out; the run names the revision and the files' hash."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "cache" / "models--some--one"
    tiny.saved(place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *_, **__: str(place / "snapshots" / commit)
    )
    assert located("some/one", download=False).name == commit
    file = tiny.write_prompts(tmp_path / "p.jsonl", tiny.texts(20))
    config = tiny.config(Path("some/one"), file, rounds=1)
    run(config, tmp_path / "out")
    told = json.loads((tmp_path / "out/rounds/000/policy/base.json").read_text())
    assert (told["name"], told["revision"]) == ("some/one", commit)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["model"]["sha256"] == told["sha256"] != "some/one"
    run(config, tmp_path / "again")
    assert_same(tmp_path / "out", tmp_path / "again")
