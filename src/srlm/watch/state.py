"""What the page of a run shows, read again when the folder has changed.

Everything is read through ``srlm.run_folder``. A folder that is not there yet, is half written, or
whose run was killed is no error: what can be said is said.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srlm.errors import UserError
from srlm.progress import duration, rate
from srlm.report.summary import Summary, summary_of
from srlm.run_folder import Run, read_run
from srlm.run_folder.beside import PROGRESS, read_beside, working
from srlm.run_folder.record import NAME as RECORD
from srlm.run_folder.record import hash_file, round_folder, round_numbers
from srlm.watch.samples import Page, Query, Texts, look

PACE = 3
"""Rounds from whose time the rest of a run is reckoned."""


@dataclass(frozen=True, slots=True)
class Now:
    """What a run is doing."""

    state: str
    """working, killed, elsewhere (another machine's run), finished, or idle."""
    stage: str
    """As "round 2: train"; empty where none is known."""
    share: float | None
    """Of the stage."""
    facts: tuple[str, ...]
    """Units, rate, time left, and how long ago that was said."""


class Watched:
    """A run folder under watch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run: Run | None = None
        self.summary: Summary | None = None
        self.problem = ""
        """Why nothing is shown, or what is shown is not the newest."""
        self.version = 0
        """Goes up when what is shown has changed."""
        self._seen: object = None
        self._texts: Texts | None = None
        self._hashes: dict[Path, tuple[object, str]] = {}

    def refresh(self) -> None:
        """Read the folder, if it has changed."""
        seen = self._state()
        if seen == self._seen:
            return
        problem = ""
        try:
            self.run = read_run(self.folder, hash_of=self._hash)
            self.summary = summary_of(self.run, lambda run: None)
        except UserError as error:
            problem = error.problem
        except (OSError, ValueError, KeyError) as error:  # it is being written or deleted
            problem = f"{self.folder}: cannot be read just now ({type(error).__name__})"
        self._seen = seen if not problem or self.summary is None else None  # else once more
        if not problem or problem != self.problem:
            self.version += 1
        self.problem = problem

    def samples(self, query: Query) -> Page:
        """A page of samples.

        Raises:
            UserError: nothing is measured yet.
        """
        if self.run is None:
            raise UserError(f"{self.folder}: nothing has been measured yet", "wait for round 0")
        if self._texts is None:
            self._texts = Texts(self.run)
        return look(self.run, self._texts, query)

    @property
    def latest(self) -> int:
        """The last round that has samples: of training, or else held out."""
        numbers = round_numbers(self.folder)
        made = [t for t in numbers if (round_folder(self.folder, t) / "samples.parquet").is_file()]
        return max(made, default=0)

    def now(self) -> Now:
        """What the run is doing, by its ``progress.json``."""
        told = read_beside(self.folder, PROGRESS)
        if not told:
            done = self.summary is not None and (
                bool(self.summary.stop) or self.summary.last.round >= self.summary.planned
            )
            return Now("finished" if done else "idle", "", None, ())
        alive = working(told)
        state = {True: "working", False: "killed", None: "elsewhere"}[alive]
        return Now(state, str(told.get("stage", "")), _share(told), self._facts(told, state))

    def _facts(self, told: Mapping[str, Any], state: str) -> tuple[str, ...]:
        done, total, spent, at = (
            _number(told.get(k)) for k in ("done", "total", "seconds", "time")
        )
        facts, ahead = [], 0.0
        if total:
            facts.append(f"{min(done or 0.0, total):.0f} of {total:g}")
        if total and done and spent:
            facts.append(f"{rate(done / spent)}/s")
            if state != "killed":
                ahead = max(0.0, (total - done) * spent / done)
                facts.append(f"{duration(ahead)} left")
        if spent is not None and at is not None:
            ago = max(0.0, time.time() - at)
            if state == "working":
                facts.append(f"{duration(spent + ago)} elapsed")
            facts.append(f"last heard {duration(ago)} ago")
        left = self._left()
        if left is not None and state == "working":
            left = max(left, ahead)
            facts.append(f"whole run about {duration(left)} left, at the pace of its last rounds")
        return tuple(facts)

    def _left(self) -> float | None:
        """Seconds to the last round that is asked for; None before a round was trained."""
        s = self.summary
        if s is None or not s.last.round:
            return None
        spent = [sum(r.seconds.values()) for r in s.rounds[1:]][-PACE:]
        each = sum(spent) / len(spent)
        try:
            since = time.time() - (self.folder / "metrics.jsonl").stat().st_mtime
        except OSError:
            return None
        return max(0.0, (s.planned - s.last.round) * each - min(since, each))

    def _state(self) -> object:
        """What changes when something that is shown does."""
        last = [round_folder(self.folder, t) / RECORD for t in round_numbers(self.folder)[-2:]]
        names = ("config.yaml", "metrics.jsonl", "stop.json")
        return [(str(f), _stat(f)) for f in (self.folder, *(self.folder / n for n in names), *last)]

    def _hash(self, file: Path) -> str:
        """SHA-256 of a file, taken anew where it has changed."""
        at = _stat(file)
        known = self._hashes.get(file)
        if known is None or known[0] != at:
            known = self._hashes[file] = (at, hash_file(file))
        return known[1]


def _stat(file: Path) -> object:
    try:
        found = file.stat()
    except OSError:
        return None
    if file.is_dir():
        return found.st_ino
    return found.st_ino, found.st_size, found.st_mtime_ns


def _number(x: Any) -> float | None:
    return float(x) if isinstance(x, int | float) and not isinstance(x, bool) else None


def _share(told: Mapping[str, Any]) -> float | None:
    done, total = _number(told.get("done")), _number(told.get("total"))
    return None if done is None or not total else min(1.0, max(0.0, done / total))
