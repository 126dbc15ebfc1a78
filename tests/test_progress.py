from __future__ import annotations

import io

import pytest
from rich.console import Console

from srlm.progress import Progress


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


def test_notes_alone_elsewhere_and_each_on_one_line() -> None:
    assert shown(terminal=False) == "[1, 2] " + "long " * 30 + "end\n"


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
