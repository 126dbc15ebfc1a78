"""Progress: bars with rate and remaining time for a person at a terminal, silence elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Bar:
    """One stage under way."""

    advance: Callable[[float], None]
    """Tell that so many more units are done."""


class Rate(ProgressColumn):
    """Units a second over the last while."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{rate(speed)}/s", style="progress.data.speed")


class Progress:
    """Where a long command tells how far it is. Standard output stays free for results.

    Args:
        quiet: no bars and no notes.
        console: where to; standard error if None. Bars are drawn on terminals alone.
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bars = self._console.is_terminal and not quiet
        self._notes = not quiet

    @classmethod
    def silent(cls) -> Progress:
        """Neither bars nor notes."""
        return cls(quiet=True)

    @contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[Bar]:
        """A bar while the block runs; ``total`` units; elapsed time if None. Stages do not nest.

        >>> with Progress.silent().stage("samples", total=2) as bar:
        ...     bar.advance(2)
        """
        if not self._bars:
            yield Bar(_nothing)
            return
        columns: list[ProgressColumn] = [
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=None),
        ]
        if total is None:
            columns += [TimeElapsedColumn()]
        else:
            columns += [MofNCompleteColumn(), Rate(), TimeRemainingColumn()]
        with Bars(*columns, console=self._console, transient=True, expand=True) as bars:
            task = bars.add_task(name, total=total)
            yield Bar(lambda units: bars.advance(task, units))

    def note(self, text: str) -> None:
        """A line that stays, as it is."""
        if self._notes:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def rate(speed: float) -> str:
    """A rate in three digits.

    >>> rate(0.04567), rate(12.34), rate(4567.0), rate(45678.0), rate(4.5e6)
    ('0.0457', '12.3', '4.57k', '45.7k', '4.5M')
    """
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if speed >= size:
            return f"{speed / size:.3g}{unit}"
    return f"{speed:.3g}"


def _nothing(units: float) -> None:
    pass
