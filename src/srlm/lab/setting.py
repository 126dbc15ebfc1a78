"""How a claim is run: seed, size, where finished cells are kept, whom to tell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from srlm.lab.result import plain
from srlm.progress import Progress
from srlm.writing import write_text

T = TypeVar("T")

CELLS_VERSION = 1
"""Raise it where an experiment changes what its cells mean."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One run of the lab."""

    seed: int = 0
    quick: bool = False
    """Fewer replicates and cells: under a minute for all claims."""
    cells: Path | None = None
    """Folder of finished cells, so that a sweep continues where it stopped; None: keep none."""
    progress: Progress = field(default_factory=Progress.silent)

    def pick(self, full: T, quick: T) -> T:
        """``full``, or ``quick`` in quick mode."""
        return quick if self.quick else full

    def sweep(
        self,
        name: str,
        cells: Sequence[dict[str, Any]],
        make: Callable[..., dict[str, Any]],
    ) -> list[dict[str, Any]]:
        """``make(**cell)`` for every cell, kept as JSON as soon as it is done.

        A cell is known by ``name``, its parameters and the seed, so all that decides it must be
        among them. The file appears atomically; a sweep that was cut off loses the cell
        it was at and no other. The results come in the order of ``cells``, the cell's parameters
        with them.
        """
        out = []
        with self.progress.stage(name, total=len(cells)) as bar:
            for cell in cells:
                out.append(cell | self._kept(name, cell, make))
                bar.advance(1)
        return out

    def _kept(
        self, name: str, cell: dict[str, Any], make: Callable[..., dict[str, Any]]
    ) -> dict[str, Any]:
        if self.cells is None:
            return plain(make(**cell))
        key = json.dumps([CELLS_VERSION, name, self.seed, plain(cell)], sort_keys=True)
        file = self.cells / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
        if file.exists():
            return json.loads(file.read_text(encoding="utf-8"))
        made = plain(make(**cell))
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(made))
        return made
