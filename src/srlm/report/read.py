"""A run folder as data: settings, manifest, one record a round, one table of prompts a round.

Everything in the folder beyond the settings and the metrics may be missing (a run in
progress, an older version): what is absent is None or empty here, and the report leaves it out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from srlm.config import flatten, read_yaml
from srlm.errors import UserError
from srlm.types import Bools, Estimate, Floats, Ints, undefined

ESTIMATES = (
    "kappa",
    "log10_kappa",
    "failure_fraction",
    "confidence",
    "least_confidence",
    "fidelity",
    "sampling_accuracy",
    "greedy_accuracy",
    "mode_accuracy",
    "headroom_captured",
    "entropy",
    "length",
    "kl_to_base",
    "distinct_responses",
    "truncated",
    "greedy_is_mode",
    "margin",
    "exponent",
    "exponent_r2",
    "efficiency",
    "kappa_ideal",
)
LARGE = 1e4
"""kappa above which its logarithm is the number to read."""


@dataclass(frozen=True, slots=True)
class PromptTable:
    """The held-out prompts of one round, one a row; NaN and None where a value is unknown."""

    prompt_id: tuple[str, ...]
    prompt: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    p_star: Floats
    """max_y pi(y|x); where ``certified`` is False, the best found, so a lower bound."""
    certified: Bools
    mode_text: tuple[str | None, ...]
    """None where no finished response was found."""
    greedy_text: tuple[str | None, ...]
    mode_is_base_mode: Floats
    """1, 0 or NaN."""
    mode_correct: Floats
    """1, 0 or NaN (no answer)."""
    sampling_accuracy: Floats
    margin: Floats
    nodes: Ints

    def __len__(self) -> int:
        return len(self.prompt_id)


@dataclass(frozen=True, slots=True)
class Round:
    """One line of ``metrics.jsonl``; round 0 is the base."""

    round: int
    estimates: Mapping[str, Estimate]
    loss_before: float | None
    loss_after: float | None
    loss_floor: float | None
    seconds: Mapping[str, float]
    notes: tuple[str, ...]
    table: PromptTable | None

    def __getitem__(self, name: str) -> Estimate:
        return self.estimates[name]

    @property
    def loss_progress(self) -> float | None:
        """Share of the way from the loss before to its floor: (before - after)/(before - floor)."""
        if self.loss_before is None or self.loss_after is None:
            return None
        way = self.loss_before - (self.loss_floor or 0.0)
        return (self.loss_before - self.loss_after) / way if way > 1e-12 else None


@dataclass(frozen=True, slots=True)
class Run:
    """What a folder holds."""

    folder: Path
    config: Mapping[str, Any]
    """Dotted keys."""
    manifest: Mapping[str, Any]
    """Dotted keys."""
    rounds: tuple[Round, ...]
    stop: Mapping[str, Any] = field(default_factory=dict)
    """``srlm.stopping.Stop`` of a run that was to stop by itself; empty for others."""

    @property
    def kappa_name(self) -> str:
        """``kappa``, or ``log10_kappa`` where kappa is undefined or astronomically large."""
        values = [r["kappa"].value for r in (self.rounds[0], self.rounds[-1])]
        large = any(v is None or v > LARGE for v in values)
        known = all(r["log10_kappa"].value is not None for r in self.rounds)
        return "log10_kappa" if large and known else "kappa"

    @property
    def has_answers(self) -> bool:
        """Whether sampling accuracy is known at both ends."""
        ends = (self.rounds[0], self.rounds[-1])
        return all(r["sampling_accuracy"].value is not None for r in ends)


def sharpens(config: Mapping[str, Any]) -> bool:
    """Whether a run's reward leads to the base's own modes: the likelihood, and nothing beside.

    >>> sharpens({"reward": "likelihood"}), sharpens({"reward": "judge:1,likelihood:0.01"})
    (True, False)
    """
    return str(config.get("reward", "likelihood")) == "likelihood"


def read_run(folder: Path) -> Run:
    """Read a run folder. O(rounds x prompts).

    Raises:
        UserError: no folder, no metrics, a line that is no JSON object, or no round 0.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder", "give the folder of a run (its --out)")
    metrics = folder / "metrics.jsonl"
    if not metrics.is_file():
        raise UserError(
            f"{folder}: no metrics.jsonl, so nothing has been measured yet",
            "give the folder of a run whose round 0 is done",
        )
    rounds = tuple(
        sorted((_round(folder, line, at) for line, at in _lines(metrics)), key=lambda r: r.round)
    )
    if [r.round for r in rounds] != list(range(len(rounds))) or not rounds:
        found = ", ".join(str(r.round) for r in rounds) or "none"
        raise UserError(
            f"{metrics}: rounds must be 0, 1, 2, ...; found {found}",
            "run the same command again, so that the missing rounds are made",
        )
    config, manifest = folder / "config.yaml", folder / "manifest.json"
    stop = folder / "stop.json"
    return Run(
        folder=folder,
        config=flatten(read_yaml(config)) if config.is_file() else {},
        manifest=flatten(_object(manifest.read_text("utf-8"), str(manifest)))
        if manifest.is_file()
        else {},
        rounds=rounds,
        stop=_object(stop.read_text("utf-8"), str(stop)) if stop.is_file() else {},
    )


def _lines(file: Path) -> list[tuple[dict[str, Any], str]]:
    text = file.read_text(encoding="utf-8")
    places = [(line, f"{file}: line {i}") for i, line in enumerate(text.split("\n"), 1)]
    return [(_object(line, at), at) for line, at in places if line.strip()]


def _object(text: str, place: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not JSON: {error}", "run the same command again") from None
    if not isinstance(data, dict):
        raise UserError(f"{place}: not a JSON object", "run the same command again")
    return data


def _round(folder: Path, data: dict[str, Any], place: str) -> Round:
    number = data.get("round")
    if not isinstance(number, int):
        raise UserError(f"{place}: no round number", "run the same command again")
    seconds = data.get("seconds") or {}
    return Round(
        round=number,
        estimates={name: estimate(data.get(name)) for name in ESTIMATES},
        loss_before=_number(data.get("loss_before")),
        loss_after=_number(data.get("loss_after")),
        loss_floor=_number(data.get("loss_floor")),
        seconds={str(k): float(v) for k, v in seconds.items() if _number(v) is not None},
        notes=tuple(str(note) for note in data.get("notes") or ()),
        table=read_table(folder / "rounds" / f"{number:03d}" / "prompts.parquet"),
    )


def estimate(data: Any) -> Estimate:
    """The estimate that ``Estimate.to_json`` wrote; anything else is undefined, with the reason.

    >>> estimate({"value": 1.5, "low": 1.4, "high": 1.6, "n": 9, "method": "search"}).value
    1.5
    >>> estimate(None).note
    'not recorded'
    """
    if not isinstance(data, dict):
        return undefined("none", "not recorded")
    return Estimate(
        value=_number(data.get("value")),
        low=_number(data.get("low")),
        high=_number(data.get("high")),
        n=int(_number(data.get("n")) or 0),
        method=str(data.get("method", "")),
        guarantee=str(data.get("guarantee", "")),
        note=str(data.get("note", "")),
    )


def _number(x: Any) -> float | None:
    if isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x):
        return None
    return float(x)


def read_table(file: Path) -> PromptTable | None:
    """The per-prompt table of a round, or None where it was not written."""
    if not file.is_file():
        return None
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    rows = table.num_rows

    def column(name: str) -> list[Any]:
        return table.column(name).to_pylist() if name in table.column_names else [None] * rows

    def floats(name: str) -> Floats:
        return np.array([np.nan if v is None else float(v) for v in column(name)], dtype=np.float64)

    def texts(name: str) -> tuple[str | None, ...]:
        return tuple(None if v is None else str(v) for v in column(name))

    return PromptTable(
        prompt_id=tuple(v or "" for v in texts("prompt_id")),
        prompt=tuple(v or "" for v in texts("prompt")),
        answers=tuple(tuple(v or ()) for v in column("answers")),
        p_star=floats("p_star"),
        certified=np.array([v is not False for v in column("certified")], dtype=np.bool_),
        mode_text=texts("mode_text"),
        greedy_text=texts("greedy_text"),
        mode_is_base_mode=floats("mode_is_base_mode"),
        mode_correct=floats("mode_correct"),
        sampling_accuracy=floats("sampling_accuracy"),
        margin=floats("margin"),
        nodes=np.array([int(v or 0) for v in column("nodes")], dtype=np.int64),
    )
