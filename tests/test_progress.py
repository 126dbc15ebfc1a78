from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from srlm.progress import SECONDS, Progress, duration


def shown(*, terminal: bool, quiet: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=80)
    progress = Progress(quiet=quiet, console=console)
    with progress.stage("round 1: samples", total=3) as bar:
        bar.advance(1)
        bar.advance(2)
    with progress.stage("endless") as bar:
        bar.advance(1)
    progress.note("[1, 2] " + "long " * 30 + "end")
    return file.getvalue()


def test_bars_on_a_terminal() -> None:
    text = shown(terminal=True)
    assert "round 1: samples" in text
    assert "3/3" in text
    assert "endless" in text


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(total: float | None, steps: list[tuple[float, float]]) -> list[str]:
    """The lines of a stage off a terminal: in each step that much time passes, and that many units
    are done."""
    file, clock = io.StringIO(), Clock()
    progress = Progress(console=Console(file=file), clock=clock)
    with progress.stage("round 1: samples", total=total) as bar:
        for seconds, units in steps:
            clock.now += seconds
            bar.advance(units)
    return file.getvalue().splitlines()


def done(line: str) -> int:
    found = re.search(r": (\d+)/", line)
    assert found
    return int(found[1])


def test_notes_are_lines_of_their_own() -> None:
    assert shown(terminal=False).splitlines()[-1] == "[1, 2] " + "long " * 30 + "end"


def test_a_stage_off_a_terminal_begins_and_ends_with_a_line() -> None:
    for steps in ([(0.0, 3.0)], [(0.1, 1.0), (0.1, 2.0)], []):
        first, last = lines(3, steps)
        assert done(first) == 0
        assert done(last) == sum(units for _, units in steps)
    assert len(lines(None, [(2 * SECONDS, 1.0)] * 9)) == 2


def test_between_them_a_line_is_half_a_minute_and_a_twentieth_after_the_last() -> None:
    # a unit of 200 each second: a twentieth is 10 s, so half a minute decides
    assert [done(x) for x in lines(200, [(1.0, 1.0)] * 200)] == [0, 30, 60, 90, 120, 150, 180, 200]
    # a unit of 20,000 each second: a twentieth is 1,000 s
    slow = [done(x) for x in lines(20_000, [(10.0, 10.0)] * 2000)]
    assert slow == [*range(0, 20_000, 1000), 20_000]


def test_a_line_tells_units_rate_and_time() -> None:
    # 64 units at 1 unit in 4 s, in quarters of a unit
    shown = lines(64, [(1.0, 0.25)] * 256)
    found = re.fullmatch(r".*: 7/64, ([\d.]+)/s, ([\d:]+) elapsed, ([\d:]+) left", shown[1])
    assert found
    assert float(found[1]) == 0.25
    assert (found[2], found[3]) == (duration(30), duration((64 - 7.5) * 4))
    assert done(shown[-1]) == 64
    assert duration(256) in shown[-1]
    assert done(lines(1, [(1.0, 0.1)] * 10)[-1]) == 1  # 0.9999999999999999


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet(terminal: bool) -> None:
    assert shown(terminal=terminal, quiet=True) == ""


def test_an_error_in_a_stage_ends_its_bar() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    progress = Progress(console=console)
    with pytest.raises(ValueError, match="as is"), progress.stage("samples", total=3):
        raise ValueError("as is")
    with progress.stage("samples", total=3) as bar:
        bar.advance(3)
