"""Progress: bars with rate and time left at a terminal, plain lines elsewhere (Slurm, CI)."""

from __future__ import annotations

import copy
import time
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

SECONDS, SHARE = 30.0, 0.05
"""Between two lines of a stage pass that many seconds and that share of its units, at least."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One stage under way."""

    advance: Callable[[float], None]
    """Tell that so many more units are done."""


@dataclass(frozen=True, slots=True)
class State:
    """How far a stage is."""

    name: str
    done: float
    """Units."""
    total: float | None
    seconds: float
    """Since it began."""


class Rate(ProgressColumn):
    """Units a second over the last while."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{rate(speed)}/s", style="progress.data.speed")


class Progress:
    """Where a long command tells how far it is. Standard output stays free for results.

    Args:
        quiet: no bars, lines or notes.
        console: where to; standard error if None. Bars are drawn on terminals alone.
        clock: seconds from any fixed moment.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console(stderr=True)
        self._bars = self._console.is_terminal and not quiet
        self._notes = not quiet
        self._clock = clock
        self._tell: Callable[[State], None] | None = None

    def also(self, tell: Callable[[State], None]) -> Progress:
        """The same, and ``tell`` is called as a stage begins and at every advance."""
        other = copy.copy(self)
        other._tell = tell
        return other

    @property
    def quiet(self) -> bool:
        """Nothing is shown."""
        return not self._notes

    @classmethod
    def silent(cls) -> Progress:
        """Neither bars nor lines nor notes."""
        return cls(quiet=True)

    @contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[Bar]:
        """A bar, or lines, while the block runs; ``total`` units; elapsed time if None. Stages do
        not nest.

        >>> with Progress.silent().stage("samples", total=2) as bar:
        ...     bar.advance(2)
        """
        with self._shown(name, total) as shown:
            tell, began, done = self._tell, self._clock(), 0.0
            if tell is None:
                yield shown
                return

            def advance(units: float) -> None:
                nonlocal done
                shown.advance(units)
                done += units
                tell(State(name, done, total, self._clock() - began))

            tell(State(name, 0.0, total, 0.0))
            yield Bar(advance)

    @contextmanager
    def _shown(self, name: str, total: float | None) -> Iterator[Bar]:
        if not self._bars:
            lines = _Lines(name, total, self.note, self._clock)
            yield Bar(lines.advance)
            lines.end()
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


class _Lines:
    """A stage in plain lines: one as it begins, one as it ends, some between."""

    def __init__(
        self,
        name: str,
        total: float | None,
        note: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._name, self._total, self._note, self._clock = name, total, note, clock
        self._done = self._told = 0.0
        self._began = self._last = clock()
        note(name if total is None else f"{name}: 0/{total:g}")

    def advance(self, units: float) -> None:
        self._done += units
        now = self._clock()
        if self._total is None or now - self._last < SECONDS:
            return
        if SHARE * self._total <= self._done - self._told and self._done < self._total:
            self._last, self._told = now, self._done
            self._note(self._line(now - self._began))

    def end(self) -> None:
        self._note(self._line(self._clock() - self._began))

    def _line(self, seconds: float) -> str:
        if self._total is None:
            return f"{self._name}: done, {duration(seconds)}"
        done = int(self._done + 1e-6)  # a sum of fractions
        parts = [f"{self._name}: {done}/{self._total:g}", f"{duration(seconds)} elapsed"]
        if self._done and seconds:
            speed = self._done / seconds
            parts.insert(1, f"{rate(speed)}/s")
            if done < self._total:
                parts.append(f"{duration((self._total - self._done) / speed)} left")
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(7.6), duration(75), duration(3675)
    ('0:08', '1:15', '1:01:15')
    """
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
