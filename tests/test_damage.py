"""A damaged run folder: nothing is used silently, nothing ends in a traceback."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from srlm import runner
from srlm.config import RunConfig
from srlm.errors import UserError
from srlm.report.summary import summarise
from srlm.run_folder import RunFolder, record
from srlm.run_folder.check import check
from srlm.run_folder.lock import Lock
from srlm.runner import run
from tests import tiny
from tests.faults import folders
from tests.faults.folders import contents

Whole = tuple[RunConfig, Path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A finished run of three rounds, with its page."""
    base = tmp_path_factory.mktemp("damage")
    tiny.linear().save(base / "linear")
    file = tiny.write_prompts(base / "vectors.jsonl", tiny.vectors(24), ["r0", "r1"] * 12)
    square = {"update.kind": "square", "pairs.kind": "pairs", "samples.prompts": 10}
    config = tiny.config(base / "linear", file, rounds=3, stop="auto", **square)
    run(config, base / "whole")
    return config, base / "whole"


@pytest.fixture
def copy(whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Whole:
    """A copy of it, without a page when it is run again."""
    monkeypatch.setattr(runner, "write_page", lambda summary: summary.folder / "report.html")
    shutil.copytree(whole[1], tmp_path / "out")
    return whole[0], tmp_path / "out"


def test_every_damage_is_named_by_check_and_by_what_reads_the_file(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "write_page", lambda summary: None)
    some = [f for f in folders.faults(whole[1]) if f.damage is folders.flip]
    assert len(some) > 25
    for fault in some:
        for command in ("check", "report"):
            found = folders.outcome(fault, whole[1], whole[0], command, tmp_path / "case")
            assert found in ("named", "same"), (fault, command)


@pytest.mark.parametrize("kind", ["pairs.parquet", "files.json", "policy/model.safetensors"])
def test_a_damaged_stage_is_made_again_to_the_same_bytes(
    kind: str, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "write_page", lambda summary: summary.folder / "report.html")
    for fault in folders.faults(whole[1]):
        if fault.kind == kind and fault.damage is folders.flip:
            found = folders.outcome(fault, whole[1], whole[0], "run", tmp_path / "case")
            unread = kind.startswith("policy") and fault.where == "earlier"
            assert found == ("same" if unread else "rebuilt"), fault


def test_what_others_rest_on_is_not_replaced_by_something_else(copy: Whole) -> None:
    """Round 1's record says that other pairs made its policy: round 0's are not made again so."""
    config, out = copy
    made = record.read_record(out, 0)
    assert made is not None
    made.files["pairs.parquet"] = "0" * 64
    record.write_record(out, made)
    before = contents(out)
    with pytest.raises(UserError, match=r"rounds/000/pairs.parquet.*not the same") as caught:
        run(config, out)
    assert "delete rounds/000" in caught.value.remedy
    assert contents(out) == before
    assert {d.name for d in check(out).damage} == {"rounds/000/pairs.parquet", "rounds/001"}
    for t in range(4):
        shutil.rmtree(out / f"rounds/00{t}")
    run(config, out)
    assert not check(out).damage


def test_without_manifest_and_settings_the_rounds_still_know_theirs(copy: Whole) -> None:
    config, out = copy
    before = contents(out)
    for name in ("manifest.json", "config.yaml"):
        (out / name).unlink()
        for other in (
            config.model_copy(update={"seed": 7}),
            config.model_copy(update={"update": config.update.model_copy(update={"lr": 1.0})}),
        ):
            with pytest.raises(UserError, match="made with other settings"):
                run(other, out)
        tiny.linear(seed=5).save(out.parent / f"not-{name}")
        with pytest.raises(UserError, match="made from other files"):
            run(config.model_copy(update={"model": str(out.parent / f"not-{name}")}), out)
    run(config, out)
    after = contents(out)
    assert after.keys() == before.keys()
    assert [n for n in before if after[n] != before[n] and n != "manifest.json"] == []


def test_the_same_model_by_another_path_is_the_same_model(
    copy: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = copy
    rounds = {n: x for n, x in contents(out).items() if n.startswith("rounds")}
    model, file = Path(config.model), Path(str(config.prompts.file))
    monkeypatch.chdir(model.parent)
    prompts = config.prompts.model_copy(update={"file": file.name})
    run(config.model_copy(update={"model": model.name, "prompts": prompts}), out)
    shutil.copytree(model, out.parent / "moved")
    run(config.model_copy(update={"model": str(out.parent / "moved")}), out)
    assert {n: x for n, x in contents(out).items() if n.startswith("rounds")} == rounds
    assert not check(out).damage


def test_prompts_from_a_pipe_are_kept_and_compared(copy: Whole, tmp_path: Path) -> None:
    config, out = copy
    data = Path(str(config.prompts.file)).read_bytes()
    (kept,) = (out / "inputs").glob("0000-*")
    assert kept.read_bytes() == data

    def piped(data: bytes) -> None:
        there, here = os.pipe()
        os.write(here, data)
        os.close(here)
        prompts = config.prompts.model_copy(update={"file": f"/dev/fd/{there}"})
        try:
            run(config.model_copy(update={"prompts": prompts}), out)
        finally:
            os.close(there)

    piped(data)
    with pytest.raises(UserError, match="made from other files"):
        piped(data + b'{"prompt": [1, 2, 3]}\n')


def test_a_deleted_lock_lets_nobody_in(copy: Whole) -> None:
    config, out = copy
    made = record.read_record(out, 0)
    assert made is not None
    with RunFolder(out, config, lambda folder: tiny.linear(), made.inputs):
        (out / ".lock").unlink()
        with pytest.raises(UserError, match="in use by another process"):
            Lock(out)
    run(config, out)


def test_a_folder_deleted_meanwhile_is_named(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    real = runner.self_reward

    def rounds(*given: object, **named: object) -> Iterator[object]:
        for made in real(*given, **named):  # type: ignore[arg-type]
            yield made
            shutil.rmtree(out)

    monkeypatch.setattr(runner, "self_reward", rounds)
    with pytest.raises(UserError, match="deleted or moved while the run went on"):
        run(whole[0], out)
    assert not out.exists()


def test_a_lone_settings_file_of_the_users_stays(whole: Whole, tmp_path: Path) -> None:
    mine = json.dumps({"model": "m", "prompts": {"file": "p"}, "rounds": 3})
    (tmp_path / "config.yaml").write_text(mine)
    with pytest.raises(UserError, match="no run's"):
        run(whole[0], tmp_path)
    assert (tmp_path / "config.yaml").read_text() == mine


def test_summaries_do_not_depend_on_which_copy_of_a_record_is_lost(copy: Whole) -> None:
    _, out = copy
    shown = repr(summarise(out).rounds)
    (out / "metrics.jsonl").write_text("")
    assert repr(summarise(out).rounds) == shown
