"""The run folder: whatever kills a run, the same command ends in the same bytes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from srlm import runner, writing
from srlm import samples as sampling
from srlm.config import RunConfig
from srlm.errors import UserError
from srlm.policies import devices
from srlm.policies import load as loading
from srlm.run_folder import RunFolder, manifest, read_run, record
from srlm.run_folder import tables as runs
from srlm.runner import run
from srlm.types import Round
from srlm.writing import read_json, write_text
from tests import killing, tiny

HERE = Path(__file__).parent.parent


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the page out: it takes most of a small run's time."""
    monkeypatch.setattr(runner, "write_page", lambda summary: summary.folder / "report.html")


def linear_job(folder: Path, **changes: Any) -> RunConfig:
    """Square loss on pairs, two rounds, from folder/linear."""
    if not folder.exists():
        folder.mkdir()
        tiny.linear().save(folder / "linear")
        tiny.write_prompts(folder / "vectors.jsonl", tiny.vectors(24), ["r0", "r1"] * 12)
    square = {"update.kind": "square", "pairs.kind": "pairs", "samples.prompts": 10}
    return tiny.config(folder / "linear", folder / "vectors.jsonl", **square | changes)


def causal_job(folder: Path, **changes: Any) -> RunConfig:
    """Weighted loss on groups, from folder/lm."""
    if not folder.exists():
        folder.mkdir()
        tiny.saved(folder / "lm")
        tiny.write_prompts(folder / "texts.jsonl", tiny.texts(20), ["a"] * 20)
    return tiny.config(folder / "lm", folder / "texts.jsonl", **changes)


JOBS = {"linear": linear_job, "causal": causal_job}


def contents(folder: Path) -> dict[str, Any]:
    """What must be the same, by path: bytes, and parsed JSON where a time stands in it."""
    out: dict[str, Any] = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.is_dir() or file.name in (".lock", "report.html"):
            continue
        out[name] = file.read_bytes()
        if file.name == "files.json":
            out[name] = json.loads(file.read_text()) | {"seconds": None, "sha256": None}
        if file.name == "metrics.jsonl":
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            out[name] = [json.dumps(line | {"seconds": None}) for line in lines]
        if file.name == "manifest.json":
            out[name] = json.loads(file.read_text()) | {"created": None, "sha256": None}
    return out


def assert_same(one: Path, other: Path) -> None:
    a, b = contents(one), contents(other)
    assert sorted(a) == sorted(b)
    assert [name for name in a if a[name] != b[name]] == []


def check(answer: dict[str, Any], folder: Path) -> None:
    """Every killed run was killed, went on, and ended as the whole one."""
    assert answer["codes"].pop("whole") == [0], answer["stderr"]
    for name, (first, second) in answer["codes"].items():
        assert first == -9 or name.startswith("random"), name
        assert second == 0, f"{name}: {answer['stderr']}"
        assert_same(folder / "whole", folder / name)


# ---- killed


def test_killed_at_some_writes(tmp_path: Path) -> None:
    """Of one round; at every write of two rounds, and of networks: the slow tests."""
    config = linear_job(tmp_path / "in", rounds=1).model_dump(mode="json")
    kills = [["some", "middle"], [1, "before"], [-1, "after"]]
    answer = killing.start(config, tmp_path / "runs", kills)
    assert answer["writes"] > 15
    expected = {"config.yaml", "manifest.json", "metrics.jsonl"}
    for t in range(2):
        names = ["round.json", "prompts.parquet", "held_out.parquet"]
        made = ["config.json", "model.safetensors", "srlm.json"] if t else ["base.json"]
        names += [f"policy/{name}" for name in made]
        names += ["samples.parquet", "pairs.parquet"] if t < 1 else []
        expected |= {f"rounds/{t:03d}/{name}" for name in names}
    assert set(contents(tmp_path / "runs" / "whole")) >= expected
    check(answer, tmp_path / "runs")


META = {
    "reward": "meta-judge",
    "judge.template": "{prompt}{response}",
    "judge.scores": "a=1,b=0",
    "judge.pattern": "[ab]",
    "judge.max_tokens": 8,
    "judge.judgements": 6,
    "judge.meta_template": "{prompt}{first}",
    "judge.choices": "a,b",
    "judge.train": True,
}


@pytest.mark.slow
def test_networks_killed_at_some_writes(tmp_path: Path) -> None:
    """In the middle of round 1's policy and its measurement, and after its policy; with a judge in
    training about its update: its questions are in no file of prompts, but in the pairs."""
    plain, judge = tmp_path / "plain", tmp_path / "judge"
    kills = {
        plain: [["001/policy", "middle"], ["001/round.json", "middle"], ["001/policy", "after"]],
        judge: [["001/policy", "before"], ["001/pairs.parquet", "middle"]],
    }
    jobs = [
        {"config": config.model_dump(mode="json"), "folder": str(out), "kills": kills[out]}
        for out, config in (
            (plain, causal_job(tmp_path / "in")),
            (judge, causal_job(tmp_path / "other", **META)),
        )
    ]
    for answer, out in zip(killing.start_all(jobs), (plain, judge), strict=True):
        check(answer, out)
    assert len(runs.read_pairs(judge / "whole/rounds/000/pairs.parquet").asked) > 2


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("phase", killing.PHASES)
def test_killed_at_every_write_in_every_phase(name: str, phase: str, tmp_path: Path) -> None:
    config = JOBS[name](tmp_path / "in").model_dump(mode="json")
    check(killing.start(config, tmp_path / "runs", [["every", phase]]), tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_killed_at_random_times(name: str, tmp_path: Path) -> None:
    config = JOBS[name](tmp_path / "in").model_dump(mode="json")
    check(killing.start(config, tmp_path / "runs", [], random=25), tmp_path / "runs")


@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize("name", JOBS)
def test_a_finished_run_given_again_changes_nothing(name: str, tmp_path: Path) -> None:
    config = JOBS[name](tmp_path / "in")
    first = run(config, tmp_path / "out")
    before = contents(tmp_path / "out")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "rounds").rglob("*.parquet")}
    again = run(config, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    assert [r.to_json() for r in again.rounds] == [r.to_json() for r in first.rounds]
    assert {p: p.stat().st_mtime_ns for p in times} == times


@pytest.mark.parametrize("name", JOBS)
def test_a_finished_run_given_more_rounds_ends_as_one_of_so_many(
    name: str, tmp_path: Path, no_page: None
) -> None:
    """Byte for byte, also with a stop rule whose word on the shorter run is withdrawn."""
    config = JOBS[name](tmp_path / "in", rounds=3, stop="auto")
    run(config, tmp_path / "whole")
    short = config.model_copy(update={"rounds": 1})
    run(short, tmp_path / "out")
    assert read_json(tmp_path / "out" / "stop.json")["round"] == 1
    more = run(config, tmp_path / "out")
    assert_same(tmp_path / "whole", tmp_path / "out")
    assert len(more.rounds) == len(run(config, tmp_path / "whole").rounds)
    fewer = run(short, tmp_path / "out")  # nothing that is done is undone
    assert len(fewer.rounds) == len(more.rounds)


def test_a_forecast_is_of_its_own_round_alone(tmp_path: Path, no_page: None) -> None:
    """The file of a round does not grow with the rounds before it or with those asked for."""
    run(linear_job(tmp_path / "in", rounds=4), tmp_path / "out")
    made = [read_json(tmp_path / f"out/rounds/00{t}/forecast.json") for t in range(5)]
    assert [len(forecast["later"]) for forecast in made] == [8] * 5
    assert [forecast["share"] is None for forecast in made] == [True] + [False] * 4


def test_the_policy_is_loaded_once_where_work_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_page: None
) -> None:
    config = linear_job(tmp_path / "in", rounds=1)
    run(config, tmp_path / "out")
    real, opened = loading.load, []

    def load(model: Any, **options: Any) -> Any:
        opened.append(Path(model).parent.name)
        return real(model, **options)

    monkeypatch.setattr(loading, "load", load)
    run(config, tmp_path / "out")
    assert opened == ["001"]
    opened.clear()
    run(config.model_copy(update={"rounds": 2}), tmp_path / "out")
    assert opened == ["001"]  # an exact policy needs no base for the KL either


def test_a_record_comes_back_as_it_was(tmp_path: Path, no_page: None) -> None:
    """One class in memory, on disk and for the report; every estimate, whatever its name."""
    config = linear_job(tmp_path / "in", rounds=1)
    run(config, tmp_path / "out")
    read = read_run(tmp_path / "out").rounds[1]
    assert Round.from_json(json.loads(json.dumps(read.to_json()))).to_json() == read.to_json()
    other = Round.from_json({"round": 7, "speed": {"value": 2.0, "n": 1}})
    assert other["speed"].value == 2.0
    assert other["kappa"].note == "not recorded"
    assert read.table is not None
    assert read["kappa"].value == pytest.approx(np.mean(1 / read.table.p_star))


def test_a_record_names_what_it_rests_on(tmp_path: Path, no_page: None) -> None:
    """All files of its folder and those that its policy was made from, by their hashes."""
    config = linear_job(tmp_path / "in", rounds=1)
    run(config, tmp_path / "out")
    for t in range(2):
        made = record.read_record(tmp_path / "out", t)
        assert made is not None
        place = tmp_path / f"out/rounds/00{t}"
        files = {f.relative_to(place).as_posix() for f in place.rglob("*") if f.is_file()}
        assert set(made.files) == files - {"files.json"}
        for name, sha256 in made.files.items():
            assert hashlib.sha256((place / name).read_bytes()).hexdigest() == sha256
        before = tmp_path / "out/rounds/000"
        assert set(made.made_from) == ({"policy/base.json", "pairs.parquet"} if t else set())
        for name, sha256 in made.made_from.items():
            assert hashlib.sha256((before / name).read_bytes()).hexdigest() == sha256
        assert made.inputs["model"] == manifest.hash_model(config.model)
        assert made.settings["seed"] == 0
        assert {"torch", "srlm", "python"} <= set(made.versions)


# ---- refused


@pytest.fixture
def linear(tmp_path: Path, no_page: None) -> Iterator[tuple[RunConfig, Path]]:
    """A finished run of one round, with its settings."""
    config = linear_job(tmp_path / "in", rounds=1)
    run(config, tmp_path / "out")
    before = contents(tmp_path / "out")
    yield config, tmp_path / "out"
    assert contents(tmp_path / "out") == before


def test_another_config_is_refused_with_the_differences(linear: tuple[RunConfig, Path]) -> None:
    config, out = linear
    update = config.update.model_copy(update={"beta": 3.0})
    other = config.model_copy(update={"seed": 5, "update": update})
    with pytest.raises(UserError) as caught:
        run(other, out)
    assert "made with other settings: seed: 0 -> 5; update.beta: 1.0 -> 3.0" in str(caught.value)
    assert "another --out" in caught.value.remedy
    run(config, out)  # the refused run holds no lock, though its error is kept


def test_changed_prompts_are_refused(linear: tuple[RunConfig, Path], tmp_path: Path) -> None:
    config, out = linear
    file = tmp_path / "in" / "vectors.jsonl"
    before = file.read_bytes()
    file.write_bytes(before + json.dumps({"prompt": [1, 2, 3]}).encode() + b"\n")
    with pytest.raises(UserError, match=r"prompts: '[0-9a-f]{64}' -> "):
        run(config, out)
    file.write_bytes(before)
    run(config, out)


def test_a_changed_model_is_refused(linear: tuple[RunConfig, Path], tmp_path: Path) -> None:
    config, out = linear
    shutil.rmtree(tmp_path / "in" / "linear")
    tiny.linear(seed=9).save(tmp_path / "in" / "linear")
    with pytest.raises(UserError, match=r"model: '[0-9a-f]{64}' -> "):
        run(config, out)


def record_inputs(out: Path) -> dict[str, str]:
    made = record.read_record(out, 0)
    assert made is not None
    return dict(made.inputs)


def test_a_folder_in_use_is_refused(linear: tuple[RunConfig, Path]) -> None:
    config, out = linear
    prompts = config.prompts.model_copy(update={"answer": "text"})  # what auto was settled to
    settled = config.model_copy(update={"prompts": prompts})

    def unused(_: Any) -> Any:
        raise AssertionError

    with (
        RunFolder(out, settled, unused, record_inputs(out)),
        pytest.raises(UserError, match="in use by another process"),
    ):
        run(config, out)
    run(config, out)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("thesis.tex", b"x"),
        ("config.yaml", b"- a list\n"),
        ("config.yaml", b"a: [\n"),
        ("config.yaml", b"optimizer: adam\n"),
        ("config.yaml", b""),
    ],
)
def test_a_foreign_folder_is_refused_and_left_as_it_is(
    name: str, data: bytes, tmp_path: Path
) -> None:
    config = linear_job(tmp_path / "in")
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    (out / name).write_bytes(data)
    (out / "deep" / "download.partial").write_bytes(b"half")
    before = contents(out)
    with pytest.raises(UserError, match=str(out)) as caught:
        run(config, out)
    assert "--out" in caught.value.remedy
    assert contents(out) == before


def test_an_out_that_cannot_be_a_folder(tmp_path: Path) -> None:
    config = linear_job(tmp_path / "in")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="not a folder"):
        run(config, file)
    with pytest.raises(UserError, match="cannot be made or written to: Not a directory"):
        run(config, file / "below")


@pytest.mark.usefixtures("no_page")
def test_leftovers_of_a_killed_run_are_cleared_and_the_users_files_are_not(tmp_path: Path) -> None:
    config = linear_job(tmp_path / "in", rounds=1)
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.yaml.other-host.77.partial").write_text("rou")
    run(config, out)
    half = out / "rounds" / "000" / "policy.other-host.77.partial"
    half.mkdir()
    (half / "x").touch()
    mine = [out / "download.partial", out / "rounds/000/thesis.partial", out / "notes.9.partial"]
    for file in mine:
        file.write_text("mine")
    run(config, out)
    assert sorted(out.rglob("*.partial")) == sorted(mine)


# ---- a full disk


@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize("name", JOBS)
def test_a_full_disk_loses_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write fails halfway, again and again; the same call goes on to the same end."""
    config = JOBS[name](tmp_path / "in")
    run(config, tmp_path / "whole")
    real, left = writing.commit, 0

    def commit(path: Path, write: Any) -> None:
        nonlocal left
        left -= 1
        dies = left == 0

        def full(partial: Path) -> None:
            write(partial)
            if dies:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(partial))

        real(path, full)

    monkeypatch.setattr(writing, "commit", commit)
    for after in (1, 4, 6, 9, 7, 8):
        left = after
        with pytest.raises(OSError, match="No space left"):
            run(config, tmp_path / "out")
        assert list((tmp_path / "out").rglob("*.partial")) == []
    run(config, tmp_path / "out")
    assert_same(tmp_path / "whole", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A small disk by mount: exit code 2, and after making room the same end."""
    config = causal_job(tmp_path / "in", rounds=2)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        settings = tmp_path / "settings.yaml"
        settings.write_text(json.dumps(config.model_dump(mode="json")))
        command = [sys.executable, "-m", "srlm", "run", "--config", str(settings)]
        command += ["--out", str(disk / "out")]
        full = subprocess.run(command, capture_output=True, text=True, check=False)
        assert full.returncode == 2, full.stderr
        assert "no space left on the disk" in full.stderr
        assert "Traceback" not in full.stderr
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        subprocess.run(command, check=True, capture_output=True)
        run(config, tmp_path / "whole")
        assert_same(tmp_path / "whole", disk / "out")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# ---- an update that fails


@pytest.mark.usefixtures("no_page")
def test_a_failed_update_keeps_the_last_good_policy(tmp_path: Path) -> None:
    config = causal_job(tmp_path / "in", **{"update.lr": 1e30, "update.clip": 1e30})
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"not finite.*the last good policy is kept"):
        run(config, out)
    assert (out / "rounds" / "000" / "policy" / "base.json").exists()
    assert not (out / "rounds" / "001" / "policy").exists()
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 1
    before = contents(out)
    with pytest.raises(UserError, match="not finite"):
        run(config, out)
    assert contents(out) == before


# ---- what is read back is what was written


def test_tables_come_back_as_they_were(tmp_path: Path) -> None:
    policy, x = tiny.policy(), tiny.texts(5)
    samples = policy.sample(x, 3, seed=0, max_tokens=4)
    runs.write_samples(x, [samples], tmp_path / "samples.parquet")
    back = runs.read_samples(tmp_path / "samples.parquet")
    for name in ("tokens_R", "text_R"):
        assert getattr(back, name) == getattr(samples, name)
    for one_T, other_T in zip(back.token_logp_R, samples.token_logp_R, strict=True):
        np.testing.assert_array_equal(one_T, other_T)
    for name in ("prompt_R", "logp_R", "weight_R", "finished_R"):
        np.testing.assert_array_equal(getattr(back, name), getattr(samples, name))
        assert getattr(back, name).dtype == getattr(samples, name).dtype
    from srlm import pairs

    made = pairs.groups(samples, samples.logp_R, reward_floor=2.0)
    runs.write_pairs(x, made, tmp_path / "pairs.parquet")
    again = runs.read_pairs(tmp_path / "pairs.parquet")
    assert (again.tokens_R, again.samples) == (made.tokens_R, made.samples)
    for name in ("group_R", "prompt_R", "reference_R", "reward_R", "weight_R"):
        np.testing.assert_array_equal(getattr(again, name), getattr(made, name))
        assert getattr(again, name).flags.writeable  # else torch warns
    assert again.scale_G is None  # files of older runs have no column for it
    made = pairs.voted(samples, samples.logp_R)
    runs.write_pairs(x, made, tmp_path / "voted.parquet")
    np.testing.assert_array_equal(runs.read_pairs(tmp_path / "voted.parquet").scale_G, made.scale_G)


def test_commit_leaves_the_old_file_where_writing_fails(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_text(file, "old")

    def failing(partial: Path) -> None:
        partial.write_text("ne")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        writing.commit(file, failing)
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_manifest_names_what_the_run_was_made_of(linear: tuple[RunConfig, Path]) -> None:
    config, out = linear
    made = json.loads((out / "manifest.json").read_text())
    assert {"srlm", "torch", "transformers", "numpy", "python"} <= set(made["versions"])
    assert made["prompts"]["train"] + made["prompts"]["held_out"] == 24
    assert made["model"]["sha256"] == manifest.hash_model(config.model)
    assert made["seed"] == 0


# ---- parts


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {
                "update.kind": "dpo",
                "pairs.kind": "voted",
                "reward": "consistency",
                "prompts.answer": "regex:[a-h]",  # so that answers agree by chance
                "samples.per_prompt": 8,
                "samples.max_tokens": 12,
            },
            id="voted",
        ),
        pytest.param(
            {"update.kind": "best-of-n", "samples.mu": 1.0}, marks=pytest.mark.slow, id="adaptive"
        ),
    ],
)
def test_parts_change_no_result(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_page: None
) -> None:
    """Draws held in memory five prompts at a time, or all at once: one row group or four."""
    monkeypatch.setattr(sampling, "CHUNK", 4)
    monkeypatch.setitem(devices.POSITIONS, "cpu", 1)  # a row at a time: the same bits
    config = causal_job(tmp_path / "in", **changes)
    run(config, tmp_path / "whole")
    monkeypatch.setattr(
        sampling, "PART_TOKENS", 5 * config.samples.per_prompt * config.samples.max_tokens
    )
    run(config, tmp_path / "parts")
    groups = []
    for name in ("whole", "parts"):
        drawn = tmp_path / name / "rounds" / "000" / "samples.parquet"
        groups.append(pq.ParquetFile(drawn).num_row_groups)
        back = runs.read_samples(drawn)
        assert np.array_equal(back.prompt_R, np.sort(back.prompt_R))
    assert groups == [1, 4]
    one, other = (contents(tmp_path / name) for name in ("whole", "parts"))
    differing = {Path(name).name for name in one if one[name] != other[name]}
    assert differing - {"rewards.json", "round.json", "metrics.jsonl", "files.json"} == {
        "samples.parquet"
    }
    for t in range(2):
        here, there = (
            read_json(tmp_path / name / f"rounds/00{t}/rewards.json") for name in ("whole", "parts")
        )
        assert here.pop("facts") == pytest.approx(there.pop("facts"), rel=1e-12)
        assert here == there
