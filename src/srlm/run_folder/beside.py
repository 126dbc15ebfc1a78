"""Small files beside the rounds, on which nothing rests and which no hash covers.

``progress.json`` says what a run is doing, for who watches it: the stage, how far it is, the
process. A run that ends, by itself or by an error, removes it; one that is killed leaves it.
``trackers.json`` says which rounds were reported to which tracker.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from srlm import writing
from srlm.progress import State

PROGRESS, TRACKERS = "progress.json", "trackers.json"
BESIDE = (PROGRESS, TRACKERS)
EVERY = 2.0
"""Seconds between two writings of a stage's progress, at least."""


@contextmanager
def telling(folder: Path, rounds: int) -> Iterator[Callable[[State], None]]:
    """Writes ``progress.json`` as a stage begins and while it goes on.

    Not flushed to the disk: what is lost with the machine's power is of no use after it.

    Args:
        folder: of the run.
        rounds: that are asked for.
    """
    last = ("", float("-inf"))
    file = folder / PROGRESS

    def tell(state: State) -> None:
        nonlocal last
        now = time.time()
        if state.name == last[0] and now - last[1] < EVERY:
            return
        last = (state.name, now)
        told = {
            "stage": state.name,
            "done": state.done,
            "total": state.total,
            "seconds": round(state.seconds, 3),
            "time": round(now, 3),
            "rounds": rounds,
            "host": platform.node(),
            "process": os.getpid(),
        }
        partial = writing.half_made(file)
        partial.write_text(writing.json_text(told), encoding="utf-8")
        partial.replace(file)

    try:
        yield tell
    finally:
        file.unlink(missing_ok=True)


def read_beside(folder: Path, name: str) -> dict[str, Any]:
    """One of the files; empty where it is not there or cannot be read."""
    try:
        found = writing.read_json(folder / name)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def working(told: dict[str, Any]) -> bool | None:
    """Whether the process that wrote ``progress.json`` runs; None where that cannot be known: on
    another machine."""
    if told.get("host") != platform.node() or not isinstance(told.get("process"), int):
        return None
    return writing.alive(told["process"])
