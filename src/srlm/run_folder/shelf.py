"""Pieces of a stage, kept as they arrive until all are there (``srlm.engines.base``).

``rounds/t/shards/`` has a folder for each kind of work and in it a file a piece: samples in the
format of ``samples.parquet``, all else as JSON. A name ends in the SHA-256 of the file's bytes, so
that a damaged one is known and made again. The folder goes when the stage is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from srlm import writing
from srlm.measure.modes import Modes
from srlm.rewards.base import JudgeTraining, Mean, Scored
from srlm.run_folder.record import hash_file
from srlm.run_folder.tables import read_samples, write_samples
from srlm.types import Prompt, Samples

NAME = "shards"


@dataclass(frozen=True, slots=True)
class Form:
    """How a piece is a file."""

    suffix: str
    write: Callable[[Sequence[Prompt], Any], bytes]
    read: Callable[[Path], Any]


def _parquet(prompts: Sequence[Prompt], samples: Samples) -> bytes:
    buffer = io.BytesIO()
    write_samples(prompts, [samples], buffer)
    return buffer.getvalue()


SAMPLES = Form("parquet", _parquet, read_samples)


def _json(to_json: Callable[[Any], Any], of_json: Callable[[Any], Any]) -> Form:
    return Form(
        "json",
        lambda _, made: json.dumps(to_json(made), separators=(",", ":")).encode(),
        lambda path: of_json(json.loads(path.read_bytes())),
    )


KINDS = {"Floats": np.float64, "Ints": np.int64, "Bools": np.bool_}


def plain(made: Any) -> dict[str, Any]:
    """The columns of a dataclass as lists; infinities and not-a-number as JSON of Python."""
    columns = {f.name: getattr(made, f.name) for f in fields(made)}
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in columns.items()}


def columns_of(kind: type, data: dict[str, Any]) -> Any:
    """What ``plain`` made."""

    def read(name: str, value: Any) -> Any:
        if name.removesuffix(" | None") in KINDS:
            return None if value is None else np.array(value, KINDS[name.removesuffix(" | None")])
        if isinstance(value, list):
            return tuple(tuple(x) if isinstance(x, list) else x for x in value)
        return value

    return kind(**{f.name: read(str(f.type), data[f.name]) for f in fields(kind)})


def scored_json(made: Scored) -> dict[str, Any]:
    """Rewards without the sentences that they may lead to.

    >>> found = Scored(np.array([1.0]), {"unreadable": Mean(1, 4), "duels": 3.0})
    >>> of_scored_json(scored_json(found)).facts["unreadable"].of
    4.0
    """
    judge = made.training
    facts = {k: [v.total, v.of] if isinstance(v, Mean) else v for k, v in made.facts.items()}
    return {
        "reward": made.reward_R.tolist(),
        "judged": None if made.judged_R is None else made.judged_R.tolist(),
        "facts": facts,
        "training": judge
        and {
            "questions": [[x.id, x.content] for x in judge.prompts],
            "samples": plain(judge.samples),
            "reward": judge.reward_J.tolist(),
        },
    }


def of_scored_json(data: dict[str, Any]) -> Scored:
    """What ``scored_json`` made."""
    judged, judge = data["judged"], data["training"]
    facts = {k: Mean(*v) if isinstance(v, list) else v for k, v in data["facts"].items()}
    return Scored(
        np.array(data["reward"], np.float64),
        facts,
        judged_R=None if judged is None else np.array(judged, np.float64),
        training=judge
        and JudgeTraining(
            [Prompt(*x) for x in judge["questions"]],
            columns_of(Samples, judge["samples"]),
            np.array(judge["reward"], np.float64),
        ),
    )


MODES = _json(plain, lambda data: columns_of(Modes, data))
REWARDS = _json(scored_json, of_scored_json)
FORMS = {"modes": MODES, "rewards": REWARDS, "scores": REWARDS}
"""By kind of work; ``SAMPLES`` for others."""


class FolderShelf:
    """The pieces of one kind of work, in a folder.

    Args:
        folder: made if missing.
        weights: where the policy lies.
        form: of its files.
    """

    def __init__(self, folder: Path, weights: Path, form: Form = SAMPLES) -> None:
        self.weights: Path | None = weights
        self._folder, self._form = folder, form
        self._folder.mkdir(parents=True, exist_ok=True)
        self.scratch: Path | None = self._folder
        for left in self._folder.glob("whole-*"):
            shutil.rmtree(left)
        for left in self._folder.glob("*.partial"):  # of a killed run
            left.unlink()
        files = self._folder.glob(f"*.{form.suffix}")
        self._there = {p.name.partition(".")[0]: p for p in files}

    def has(self, key: str) -> bool:
        """Whether a piece is there and whole."""
        path = self._there.get(key)
        return path is not None and path.name == self._name(key, hash_file(path))

    def _name(self, key: str, sha256: str) -> str:
        return f"{key}.{sha256}.{self._form.suffix}"

    def put(self, key: str, made: Any, prompts: Sequence[Prompt]) -> None:
        """Keep a piece, atomically."""
        data = self._form.write(prompts, made)
        path = self._folder / self._name(key, hashlib.sha256(data).hexdigest())
        writing.write_bytes(path, data)
        self._there[key] = path

    def get(self, key: str) -> Any:
        """A piece that is there."""
        return self._form.read(self._there[key])


def shelf(place: Path, weights: Path, kind: str) -> FolderShelf:
    """The shelf of a kind of work, in a folder of its name."""
    return FolderShelf(place / kind, weights, FORMS.get(kind.partition("/")[0], SAMPLES))


def clear(place: Path, kinds: Sequence[str]) -> None:
    """Remove the pieces of a round whose stage is there."""
    for kind in kinds:
        if (place / NAME / kind).is_dir():
            shutil.rmtree(place / NAME / kind)
    if (place / NAME).is_dir() and not any((place / NAME).iterdir()):
        (place / NAME).rmdir()
