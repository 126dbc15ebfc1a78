"""Samples, scores and search of ``srlm measure`` and ``srlm forecast``, kept as they are made.

``OUT/samples/`` has one parquet file a shard (some prompts with all their samples, in the format of
``samples.parquet`` of a run's round; policies that are no network are sampled anew) and
``settings.json``; ``OUT/greedy/``, ``OUT/modes/`` and ``OUT/scores/`` the pieces of greedy
decoding, search and rewards. Each is written whole or not at all, so what is there is valid at any
moment, and the same command continues with those that are missing. They do not depend on where a
command was interrupted, so neither do the results.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from srlm import writing
from srlm.engines.base import MemoryShelf, Shelf
from srlm.engines.files import Sampled, open_samples
from srlm.errors import UserError
from srlm.run_folder.shelf import shelf

SETTINGS = "settings.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """Where all that is kept; nowhere without a folder."""

    folder: Path | None
    weights: Path | None = None
    """Where the policy lies, if it is here."""

    @property
    def samples(self) -> Path:
        """Where the samples are."""
        assert self.folder is not None
        return self.folder / "samples"

    def shelf(self, kind: str) -> Shelf:
        """Where the pieces of a kind of work are (``srlm.engines.base.Executor``)."""
        if self.folder is None:
            return MemoryShelf(self.weights)
        assert self.weights is not None
        return shelf(self.folder, self.weights, kind)

    def rows(self, name: str) -> list[Sampled] | None:
        """The responses that ``keep_rows`` kept; None where there are none."""
        path = None if self.folder is None else self.samples / f"{name}.parquet"
        return None if path is None or not path.is_file() else list(open_samples(path))

    def keep_rows(self, name: str, rows: Sequence[Sampled]) -> list[Sampled]:
        """Responses of a server to one prompt, as they are read again."""
        if self.folder is None:
            return list(rows)
        columns = {
            "prompt_id": pa.array([row.key for row in rows], pa.string()),
            "text": pa.array([row.text for row in rows], pa.string()),
            "logp": pa.array([row.logp for row in rows], pa.float64()),
            "length": pa.array([row.tokens for row in rows], pa.int64()),
            "finished": pa.array([row.finished for row in rows], pa.bool_()),
        }
        path = self.samples / f"{name}.parquet"
        writing.commit(path, partial(pq.write_table, pa.table(columns)))
        return list(open_samples(path))


def cut_before(out: Path | None) -> dict[str, Any] | None:
    """How the samples of ``out`` were cut to a time when they were begun; None: not begun."""
    file = None if out is None else out / "samples" / SETTINGS
    if file is None or not file.is_file():
        return None
    cut: dict[str, Any] = writing.read_json(file)["cut"]
    return cut


@contextmanager
def keeping(
    out: Path | None,
    settings: dict[str, Any],
    weights: Path | None = None,
    cut: dict[str, Any] | None = None,
) -> Iterator[Kept]:
    """The kept samples of ``out``, locked against other processes; begun if there are none.

    Args:
        settings: everything that decides the samples.
        weights: where the policy lies, if it is here.
        cut: settings that were fitted to a time, for ``cut_before``.

    Raises:
        UserError: the samples there were made with other settings, or another process is at work.
    """
    if out is None:
        yield Kept(None, weights)
        return
    folder = out / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{out}: another process is writing there", "wait for it, or give another --out"
        ) from None
    try:
        file = folder / SETTINGS
        if not file.is_file():
            writing.write_json(file, {"settings": settings, "cut": cut or {}})
        begun = writing.read_json(file)
        changed = [
            f"{name}: {begun['settings'].get(name)!r} -> {settings.get(name)!r}"
            for name in sorted(begun["settings"].keys() | settings.keys())
            if begun["settings"].get(name) != settings.get(name)
        ]
        if changed:
            raise UserError(
                f"{folder}: samples of other settings: " + "; ".join(changed),
                f"give another --out, or delete {folder} to begin anew",
            )
        yield Kept(out, weights)
    finally:
        lock.release()


def digest(value: Any) -> str:
    """A short hash of anything that JSON can hold."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
