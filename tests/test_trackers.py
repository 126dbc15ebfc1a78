"""Rounds reported to trackers: names and values, each once; to the packages that are installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from srlm import trackers
from srlm.config import RunConfig
from srlm.errors import UserError
from srlm.run_folder import read_run
from srlm.run_folder.beside import TRACKERS, read_beside
from srlm.runner import run
from srlm.trackers import Log, Tracked, metrics_of, tracking
from srlm.types import Estimate, Round, UpdateReport
from tests import tiny

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    tiny.linear().save(tmp_path / "model")
    file = tiny.write_prompts(tmp_path / "p.jsonl", tiny.vectors(20), ["r0", "r1"] * 10)
    return tiny.config(tmp_path / "model", file)


def expected(out: Path) -> dict[str, list[tuple[int, float]]]:
    """Every point by name, from the run folder."""
    found = read_run(out)
    points: dict[str, list[tuple[int, float]]] = {}
    for t in range(len(found.rounds)):
        for name, value in metrics_of(found.rounds[: t + 1], found.forecasts[: t + 1]).items():
            points.setdefault(name, []).append((t, value))
    return points


def test_names_and_values() -> None:
    base = Round(0, {"sampling_accuracy": Estimate(0.5, 0.4, 0.6, 9, "")})
    rewards = {"mean": {"value": 0.25}, "spread": {"value": None}}
    estimates = {"sampling_accuracy": Estimate(0.75, None, None, 9, "")}
    last = Round(1, estimates, UpdateReport(2.0, 1.5, 1.0, 7), rewards)
    ahead = {"round": 1, "sampling_accuracy": {"value": 0.7, "low": 0.6, "high": 0.8, "n": 9}}
    forecasts = [{"made": 0, "later": [ahead, {**ahead, "round": 2}]}]
    assert metrics_of([base], []) == {
        "srlm/sampling_accuracy": 0.5,
        "srlm/sampling_accuracy_low": 0.4,
        "srlm/sampling_accuracy_high": 0.6,
        "eval/accuracy": 0.5,
    }
    assert metrics_of([base, last], forecasts) == {
        "srlm/sampling_accuracy": 0.75,
        "eval/accuracy": 0.75,
        "train/loss": 1.5,
        "train/global_step": 7.0,
        "srlm/loss_before": 2.0,
        "srlm/loss_floor": 1.0,
        "train/reward": 0.25,
        "srlm/forecast/sampling_accuracy": 0.7,
        "srlm/forecast/sampling_accuracy_low": 0.6,
        "srlm/forecast/sampling_accuracy_high": 0.8,
    }


def test_what_cannot_be_reported_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name == "mlflow" else name)
    tracking("tensorboard, wandb")
    for names, told in (
        ("mlflow,wandb", "mlflow"),
        ("wandb,tenserboard", "tenserboard"),
        (",", ""),
    ):
        with pytest.raises(UserError, match=told):
            tracking(names)


def test_each_round_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the run goes on, and all of them to a tracker that is named later."""
    points: list[tuple[str, int]] = []

    @contextmanager
    def fake(of: Tracked) -> Iterator[Log]:
        yield lambda t, metrics: points.append((of.name, t))

    monkeypatch.setattr(trackers, "find_spec", lambda name: name)
    monkeypatch.setattr(trackers, "TRACKERS_BY_NAME", {"one": fake, "other": fake})
    config = tiny.config(tmp_path / "model", tmp_path / "p.jsonl")
    records = [Round(t, {}) for t in range(3)]

    def goes_on(names: str, last: int) -> None:
        """As a run does: the records that are there are told again."""
        with tracking(names)(tmp_path, config) as report:
            for t in range(last + 1):
                report(records[: t + 1], [])

    goes_on("one", 1)
    goes_on("one", 2)
    (name,) = {name for name, _ in points}
    assert name.startswith(tmp_path.name)
    assert [t for _, t in points] == [0, 1, 2]
    goes_on("one,other", 2)
    assert points[3:] == [(name, 0), (name, 1), (name, 2)]
    assert read_beside(tmp_path, TRACKERS)["rounds"] == {"one": 3, "other": 3}


# ---- the packages


def in_steps(config: RunConfig, out: Path, name: str) -> None:
    """A run of a round, then one of two; then the note of the last round is lost, as by a kill."""
    run(config.model_copy(update={"rounds": 1}), out, track=tracking(name))
    run(config, out, track=tracking(name))
    told = read_beside(out, TRACKERS)
    (out / TRACKERS).write_text(json.dumps(told | {"rounds": {name: 2}}))
    run(config, out, track=tracking(name))


@pytest.mark.slow
def test_tensorboard(config: RunConfig, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    in_steps(config, tmp_path / "out", "tensorboard")
    read = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    read.Reload()
    wanted = expected(tmp_path / "out")
    assert set(read.Tags()["scalars"]) == set(wanted)
    for name, points in wanted.items():
        found = [(int(e.step), float(e.value)) for e in read.Scalars(name)]
        assert [t for t, _ in found] == [t for t, _ in points]
        assert [v for _, v in found] == pytest.approx([v for _, v in points], rel=1e-6)


@pytest.mark.slow
def test_mlflow(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    in_steps(config, tmp_path / "out", "mlflow")
    client = MlflowClient()
    place = client.get_experiment_by_name("srlm")
    (made,) = client.search_runs([place.experiment_id])
    assert made.info.status == "FINISHED"
    assert made.data.params["update.beta"] == "1.0"
    wanted = expected(tmp_path / "out")
    assert set(made.data.metrics) == set(wanted)
    for name, points in wanted.items():
        history = client.get_metric_history(made.info.run_id, name)
        assert sorted((m.step, m.value) for m in history) == points


@pytest.mark.slow
def test_trackio(config: RunConfig, tmp_path: Path) -> None:
    """In a process of its own: Trackio reads its folder's name as it is imported."""
    pytest.importorskip("trackio")
    import os
    import sqlite3
    import subprocess
    import sys

    out = tmp_path / "out"
    for rounds in (1, 2):
        given = ["run", "--model", config.model, "--prompts", config.prompts.file, "--out", out]
        given += ["--rounds", rounds, "--report-to", "trackio", "--json", "--held-out", "0.3"]
        done = subprocess.run(
            [sys.executable, "-m", "srlm", *map(str, given)],
            env=os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio")},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout)["folder"] == str(out)
    with sqlite3.connect(tmp_path / "trackio" / "srlm.db") as base:
        rows = base.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert len({name for name, _, _ in rows}) == 1
    found: dict[str, list[tuple[int, float]]] = {}
    for _, t, metrics in rows:
        for name, value in json.loads(metrics).items():
            found.setdefault(name, []).append((t, value))
    assert found == expected(out)


@pytest.mark.slow
def test_wandb_offline(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    out = tmp_path / "out"
    run(config.model_copy(update={"rounds": 1}), out, track=tracking("wandb"))
    run(config, out, track=tracking("wandb"))
    files = sorted((out / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 3 and all(b"eval/accuracy" in f.read_bytes() for f in files)
    assert len({f.name for f in files}) == 1  # one run, a piece a round
