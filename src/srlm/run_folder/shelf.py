"""Shards of a round's samples, kept as they arrive until all are there (``srlm.engines.base``).

``rounds/t/shards/`` has one parquet file a shard, in the format of ``samples.parquet``; its name
ends in the SHA-256 of its bytes, so that a damaged one is known and made again. The folder goes
when ``samples.parquet`` is there.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Sequence
from pathlib import Path

from srlm import writing
from srlm.run_folder.record import hash_file
from srlm.run_folder.tables import read_samples, write_samples
from srlm.types import Prompt, Samples

NAME = "shards"


class FolderShelf:
    """The shards of a round, in its folder.

    Args:
        place: the round's folder.
        weights: where its policy lies.
    """

    def __init__(self, place: Path, weights: Path) -> None:
        self.weights: Path | None = weights
        self._folder = place / NAME
        self._folder.mkdir(parents=True, exist_ok=True)
        self.scratch: Path | None = self._folder
        for left in self._folder.glob("whole-*"):
            shutil.rmtree(left)
        for left in self._folder.glob("*.partial"):  # of a killed run
            left.unlink()
        self._there = {p.name.partition(".")[0]: p for p in self._folder.glob("*.parquet")}

    def has(self, key: str) -> bool:
        """Whether a shard is there and whole."""
        path = self._there.get(key)
        return path is not None and path.name == f"{key}.{hash_file(path)}.parquet"

    def put(self, key: str, samples: Samples, prompts: Sequence[Prompt]) -> None:
        """Keep a shard, atomically."""
        buffer = io.BytesIO()
        write_samples(prompts, [samples], buffer)
        data = buffer.getvalue()
        path = self._folder / f"{key}.{hashlib.sha256(data).hexdigest()}.parquet"
        writing.write_bytes(path, data)
        self._there[key] = path

    def get(self, key: str) -> Samples:
        """A shard that is there."""
        return read_samples(self._there[key])


def clear(place: Path) -> None:
    """Remove the shards of a round whose samples are there."""
    if (place / NAME).is_dir():
        shutil.rmtree(place / NAME)
