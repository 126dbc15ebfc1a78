"""The copy of the prompts that a run was made from: what was read once, from a file or a pipe."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from srlm import writing
from srlm.run_folder import record as recording

PLACE = "inputs"


def keep_inputs(folder: Path, files: Sequence[tuple[str, bytes]]) -> None:
    """Write the files as they were read, and their hashes; what is there already is left.

    Args:
        folder: of the run.
        files: name and bytes of each.
    """
    place = folder / PLACE
    names = [f"{i:04d}-{_plain(name)}" for i, (name, _) in enumerate(files)]
    hashes = [hashlib.sha256(data).hexdigest() for _, data in files]
    told = {"files": dict(zip(names, hashes, strict=True))}
    if recording.unsealed(place / recording.NAME) == told and not wrong_inputs(folder):
        return
    place.mkdir(exist_ok=True)
    recording.write_sealed(place / recording.NAME, told)
    for name, (_, data) in zip(names, files, strict=True):
        writing.write_bytes(place / name, data)


def read_inputs(folder: Path) -> list[tuple[str, bytes]]:
    """Name and bytes of each copy; none where one is missing or damaged."""
    told = recording.unsealed(folder / PLACE / recording.NAME)
    if told is None or wrong_inputs(folder):
        return []
    return [(name, (folder / PLACE / name).read_bytes()) for name in told["files"]]


def wrong_inputs(folder: Path) -> dict[str, str]:
    """Of the copies those that are missing or damaged, by name."""
    place = folder / PLACE
    told = recording.unsealed(place / recording.NAME)
    if told is None:
        there = (place / recording.NAME).exists()
        return {f"{PLACE}/{recording.NAME}": recording.CHANGED if there else recording.MISSING}
    return {f"{PLACE}/{n}": what for n, what in recording.wrong(place, told["files"]).items()}


def _plain(name: str) -> str:
    """The last part of a path, as a name that any file system takes.

    >>> _plain("/dev/fd/63"), _plain("standard input")
    ('63', 'standard-input')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).name)[-80:] or "prompts"
