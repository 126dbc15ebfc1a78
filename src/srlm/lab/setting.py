"""How a claim is run: seed, size, where finished cells are kept, whom to tell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from srlm.lab.result import plain
from srlm.progress import Progress
from srlm.writing import write_text

T = TypeVar("T")
Cell = dict[str, Any]
Map = Callable[[Callable[[Cell], Any], Iterable[Cell]], Iterator[tuple[Cell, Any]]]
"""A function of each cell, in any order: cell and result."""


def here(do: Callable[[Cell], Any], cells: Iterable[Cell]) -> Iterator[tuple[Cell, Any]]:
    """In this process, one after the other."""
    for cell in cells:
        yield cell, do(cell)


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
    map: Map = here
    """What makes the cells of a sweep."""

    def __reduce__(self) -> tuple[type[Setting], tuple[int, bool]]:
        """Elsewhere it is what decides results: seed and size."""
        return Setting, (self.seed, self.quick)

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
        among them. The file appears atomically; a sweep that was cut off loses the cells
        it was at and no other. The results come in the order of ``cells``, the cell's parameters
        with them.
        """
        found: dict[str, Any] = {}

        def missing() -> Iterator[Cell]:
            for cell in cells:
                file = self._file(name, cell)
                if file is not None and file.exists():
                    found[_key(cell)] = json.loads(file.read_text(encoding="utf-8"))
                    bar.advance(1)
                else:
                    yield cell

        with self.progress.stage(name, total=len(cells)) as bar:
            for cell, result in self.map(partial(_made, make), missing()):
                file = self._file(name, cell)
                if file is not None:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    write_text(file, json.dumps(result))
                found[_key(cell)] = result
                bar.advance(1)
        return [cell | found[_key(cell)] for cell in cells]

    def _file(self, name: str, cell: Cell) -> Path | None:
        """Where a cell is kept."""
        if self.cells is None:
            return None
        key = json.dumps([CELLS_VERSION, name, self.seed, plain(cell)], sort_keys=True)
        return self.cells / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _made(make: Callable[..., Any], cell: Cell) -> Any:
    return plain(make(**cell))


def _key(cell: Cell) -> str:
    return json.dumps(plain(cell), sort_keys=True)
