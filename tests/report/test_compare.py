"""Runs side by side: differences with intervals, what cannot be compared, any width."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from srlm.report.changes import change
from srlm.report.compare import compared, curves, to_json
from srlm.report.page import write_comparison
from srlm.report.summary import Summary, summarise
from srlm.report.terminal import print_comparison

Make = Callable[..., Path]


@pytest.fixture
def runs(fake_run: Make) -> list[Summary]:
    made = [
        fake_run("good", name="a/<one>"),
        fake_run("good", name="b/<one>", powers=(1.0, 1.2, 1.4)),
        fake_run("giveup", name="c", prompts=90),
    ]
    return [summarise(folder) for folder in made]


def test_differences(runs: list[Summary]) -> None:
    found = compared(runs)
    assert [row.letter for row in found.rows] == ["A", "B", "C"]
    assert [row.name for row in found.rows[:2]] == ["a/<one>", "b/<one>"]
    a, b, c = found.rows
    assert not a.against and not c.against and len(found.notes) == 1
    for name in ("sampling_accuracy", "confidence", "kappa"):
        assert b.own[name] == change(name, runs[1].rounds[0], runs[1].last)
        paired = b.against[name]
        assert paired == change(name, runs[0].last, runs[1].last)
        assert paired.method.startswith("paired over 400")
    swapped = compared([runs[1], runs[0]]).rows[1].against["confidence"]
    assert swapped.value == pytest.approx(-(b.against["confidence"].value or 0.0))
    assert swapped.low == pytest.approx(-(b.against["confidence"].high or 0.0))
    same = compared([runs[0], runs[0]])
    assert all(x.value == 0 and x.direction == "level" for x in same.rows[1].against.values())
    assert same.settings == {} and "rounds" in found.settings


def test_shown(runs: list[Summary], tmp_path: Path) -> None:
    found = compared(runs)
    json.dumps(to_json(found), allow_nan=False)
    assert len(curves(found)) == len(found.figures)
    for width in (40, 80, 120):
        out = io.StringIO()
        print_comparison(found, Console(file=out, width=width))
        table = out.getvalue().split("\n\n")[1]
        assert max(map(len, table.splitlines())) <= width
    page = write_comparison(found, tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "<one>" not in page and "&lt;one&gt;" in page
