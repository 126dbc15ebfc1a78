"""Experiment trackers: ``--report-to tensorboard,trackio,wandb,mlflow``.

Each round is reported once, when it is measured, under the names that TRL and transformers use
(``train/loss``, ``eval/accuracy``) and everything under ``srlm/``; the step is the round. What was
reported is kept in the run's ``trackers.json``, so a run that goes on does not report a round
twice, and a tracker that is named later gets all rounds. A kill between the two reports that one
round again: TensorBoard and MLflow then leave it out, the others hold the same values twice.

Nothing is sent anywhere unless asked: MLflow and Trackio write where they write by default (their
environment variables name a server), Weights & Biases is offline unless ``WANDB_MODE`` says
otherwise. None of the packages is imported before it is asked for.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
    redirect_stdout,
)
from dataclasses import dataclass
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any

from srlm.config import RunConfig, flatten
from srlm.errors import UserError
from srlm.run_folder.beside import TRACKERS, read_beside
from srlm.types import Estimate, Round
from srlm.writing import write_json

Report = Callable[[Sequence[Round], Sequence[Mapping[str, Any]]], None]
"""Told of the records of rounds 0 to t and of the forecasts made so far."""
Tracking = Callable[[Path, RunConfig], AbstractContextManager[Report]]
"""Opens what reports a run: its folder, its settings with nothing left open."""
Log = Callable[[int, Mapping[str, float]], None]
"""Logs the metrics of a step; they are on the disk, or sent, when it returns."""

EVAL = {
    "sampling_accuracy": "accuracy",
    "entropy": "entropy",
    "kl_to_base": "kl",
    "length": "completions/mean_length",
    "truncated": "completions/clipped_ratio",
}
"""Estimates on the held-out prompts by the names that TRL gives such metrics."""
TAG = "srlm.run"
"""By which MLflow finds a run again."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """What a tracker must know of a run."""

    folder: Path
    name: str
    """The folder's name and ``key``."""
    key: str
    """Random letters and digits, the same when the run goes on."""
    settings: Mapping[str, Any]
    """Dotted keys."""
    first: int
    """The first round that is to be reported."""


def nothing(folder: Path, config: RunConfig) -> AbstractContextManager[Report]:
    """No tracker."""
    return nullcontext(lambda records, forecasts: None)


def tracking(names: str) -> Tracking:
    """What reports to trackers.

    Args:
        names: of ``TRACKERS_BY_NAME``, with commas between.

    Raises:
        UserError: there is no such tracker, or its package is not installed; all at once.
    """
    asked = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    unknown = [name for name in asked if name not in TRACKERS_BY_NAME]
    if unknown or not asked:
        raise UserError(
            f"--report-to {names}: {', '.join(unknown) or 'nothing'} is no tracker",
            f"name some of {', '.join(TRACKERS_BY_NAME)}, with commas between",
        )
    missing = [name for name in asked if find_spec(name) is None]
    if missing:
        raise UserError(
            f"--report-to {names}: not installed: {', '.join(missing)}",
            f"pip install {' '.join(missing)}, or leave it out",
        )

    @contextmanager
    def track(folder: Path, config: RunConfig) -> Iterator[Report]:
        told = read_beside(folder, TRACKERS)
        key = str(told.get("id") or uuid.uuid4().hex[:8])
        reported: dict[str, int] = {k: int(v) for k, v in dict(told.get("rounds", {})).items()}
        settings = flatten(config.model_dump(mode="json"))
        logs: dict[str, Log] = {}
        with ExitStack() as stack:
            for name in asked:
                title, first = f"{folder.resolve().name}-{key}", reported.get(name, 0)
                opened = TRACKERS_BY_NAME[name](Tracked(folder, title, key, settings, first))
                logs[name] = stack.enter_context(opened)

            def report(records: Sequence[Round], forecasts: Sequence[Mapping[str, Any]]) -> None:
                t = records[-1].round
                due = [name for name in asked if reported.get(name, 0) <= t]
                for name in due:
                    logs[name](t, metrics_of(records, forecasts))
                    reported[name] = t + 1
                if due:
                    write_json(folder / TRACKERS, {"id": key, "rounds": reported})

            yield report

    return track


def metrics_of(
    records: Sequence[Round], forecasts: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """The metrics of the last record by their names in trackers.

    Every estimate as ``srlm/NAME``, with ``_low`` and ``_high`` where it has an interval, and what
    the round before forecast of it as ``srlm/forecast/NAME``. What is not known is left out.
    """
    last = records[-1]
    out: dict[str, float | None] = {}

    def put(name: str, e: Estimate) -> None:
        out.update({name: e.value, f"{name}_low": e.low, f"{name}_high": e.high})

    for name, e in last.estimates.items():
        put(f"srlm/{name}", e)
        if name in EVAL:
            out[f"eval/{EVAL[name]}"] = e.value
    if last.update is not None:
        out["train/loss"] = last.loss_after
        out["train/global_step"] = float(sum(r.update.steps for r in records if r.update))
        out["srlm/loss_before"], out["srlm/loss_floor"] = last.loss_before, last.loss_floor
    if last.rewards is not None:
        out["train/reward"] = Estimate.from_json(last.rewards.get("mean")).value
        out["train/reward_std"] = Estimate.from_json(last.rewards.get("spread")).value
    for made in forecasts:
        if made.get("made") == last.round - 1:
            for row in (row for row in made["later"] if row["round"] == last.round):
                for name in (k for k, v in row.items() if isinstance(v, Mapping)):
                    put(f"srlm/forecast/{name}", Estimate.from_json(row[name]))
    return {k: float(v) for k, v in out.items() if v is not None and isfinite(v)}


# ---- the trackers


@contextmanager
def _tensorboard(run: Tracked) -> Iterator[Log]:
    """Into the run's folder; points from the first step on that is to come are purged."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.first) as writer:

        def log(t: int, metrics: Mapping[str, float]) -> None:
            for name, value in metrics.items():
                writer.add_scalar(name, value, t)
            writer.flush()

        yield log


@contextmanager
def _trackio(run: Tracked) -> Iterator[Log]:
    """Opened and closed for each round: only closing waits until all is written."""
    import trackio

    project = os.environ.get("TRACKIO_PROJECT", "srlm")

    def log(t: int, metrics: Mapping[str, float]) -> None:
        with redirect_stdout(sys.stderr):  # results alone are written to standard output
            trackio.init(
                project,
                name=run.name,
                config=dict(run.settings),
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )
            trackio.log(dict(metrics), step=t)
            trackio.finish()

    yield log


@contextmanager
def _wandb(run: Tracked) -> Iterator[Log]:
    """Offline, in the run's folder, unless ``WANDB_MODE`` is set; a piece of the run a round, which
    ``wandb sync`` joins: a run that stays open loses what its own process has not written yet."""
    import wandb

    mode: Any = os.environ.get("WANDB_MODE", "offline")
    began = 0

    def log(t: int, metrics: Mapping[str, float]) -> None:
        nonlocal began
        time.sleep(max(0.0, began + 1 - time.time()))  # pieces are called by the second
        began = int(time.time())
        try:
            opened = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "srlm"),
                id=run.name,
                name=run.name,
                dir=run.folder,
                config=dict(run.settings),
                resume="allow" if mode == "online" else None,
                mode=mode,
                settings=wandb.Settings(console="off", silent=True),
            )
            opened.log(dict(metrics), step=t)
            opened.finish()
            wandb.teardown()
        except wandb.errors.Error as error:
            remedy = "see to it, or leave it out of --report-to"
            raise UserError(f"wandb: {error}", remedy) from None

    yield log


@contextmanager
def _mlflow(run: Tracked) -> Iterator[Log]:
    """Where MLflow writes: ``MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the current folder."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException

    def stamped(t: int, metrics: Mapping[str, float]) -> list[Metric]:
        now = int(1000 * time.time())
        return [Metric(name, value, now, t) for name, value in metrics.items()]

    try:
        client = MlflowClient()
        named = os.environ.get("MLFLOW_EXPERIMENT_NAME", "srlm")
        known = client.get_experiment_by_name(named)
        place = client.create_experiment(named) if known is None else known.experiment_id
        found = client.search_runs([place], f"tags.`{TAG}` = '{run.key}'")
        tags = {TAG: run.key}
        made = found[0] if found else client.create_run(place, run_name=run.name, tags=tags)
        key = made.info.run_id
        if not found:
            params = [Param(k, str(v)) for k, v in run.settings.items()]
            client.log_batch(key, params=params)

        def log(t: int, metrics: Mapping[str, float]) -> None:
            if t == run.first and found:  # a kill may have come before it was noted
                metrics = {
                    name: value
                    for name, value in metrics.items()
                    if all(m.step != t for m in client.get_metric_history(key, name))
                }
            client.log_batch(key, metrics=stamped(t, metrics))

        client.update_run(key, "RUNNING")
        ended = "FAILED"
        try:
            yield log
            ended = "FINISHED"
        finally:
            client.set_terminated(key, ended)
    except MlflowException as error:
        raise UserError(f"mlflow: {error}", "see to it, or leave it out of --report-to") from None


TRACKERS_BY_NAME: dict[str, Callable[[Tracked], AbstractContextManager[Log]]] = {
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
