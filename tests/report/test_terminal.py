"""The terminal's summary: 80 columns, the numbers, and no text that acts."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from srlm.report.page import write_page
from srlm.report.summary import summarise
from srlm.report.terminal import print_pilot, print_summary
from srlm.run_folder import record as recording

Make = Callable[..., Path]


def printed(folder: Path, width: int = 80) -> str:
    out = io.StringIO()
    print_summary(summarise(folder), Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("kind", ["good", "giveup", "blowup"])
@pytest.mark.parametrize("answers", [True, False])
def test_fits_any_width_uncut(fake_run: Make, kind: str, answers: bool) -> None:
    folder = fake_run(kind, answers=answers)
    for width in (40, 80, 120):
        text = printed(folder, width)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text


def test_says_the_numbers(fake_run: Make) -> None:
    folder = fake_run("giveup")
    text = printed(folder)
    assert text.startswith("FAILED: ")
    assert text.split("mode  headroom\n")[1].split("\n")[0].split() == [
        "0", "0.176", "0.377", "1.000", "2.690", "1.000", "0.022", "0.022", "–",
    ]  # fmt: skip
    assert "!! " in text
    assert "Report:" not in text
    page = write_page(summarise(folder))
    assert printed(folder).endswith(f"Report: {page}\n")


def test_says_why_it_stopped(fake_run: Make) -> None:
    folder = fake_run("good")
    stop = {"round": 3, "code": "floor", "reason": "at its floor", "best": 2, "best_reason": "most"}
    recording.write_sealed(folder / "stop.json", stop)
    assert "Stopped: at its floor. Best round without answers: 2 (most)." in printed(folder)


def test_very_large_numbers_still_fit(fake_run: Make) -> None:
    def large(record: dict[str, Any]) -> dict[str, Any]:
        far = {"value": -1234.5, "low": None, "high": None, "n": 9, "method": "x"}
        kappa = record["kappa"] | {"value": 1e30, "low": 1e29, "high": 1e31}
        return record | {"kappa": kappa, "headroom_captured": far}

    assert max(map(len, printed(fake_run(change=large)).splitlines())) <= 80


def test_a_path_is_no_markup(fake_run: Make) -> None:
    folder = fake_run(name="[red]x[/nothing]\x1b[2J")
    write_page(summarise(folder))
    text = printed(folder)
    assert "[red]x[/nothing][U+001B][2J" in text


@pytest.mark.parametrize("votes", [True, False])
def test_a_pilot_shows_what_is_forecast(votes: bool) -> None:
    """Votes where kappa of responses is not told of later rounds."""
    none = {"value": None, "low": None, "high": None}

    def line(x: float, **more: Any) -> dict[str, Any]:
        told = {"value": x, "low": x - 0.01, "high": x + 0.01}
        names = ("sampling_accuracy", "vote_share", "kappa_vote", "confidence", "kappa")
        return dict.fromkeys(names, told) | more

    later = line(0.789, round=2, supported=True)
    if votes:
        later |= {"confidence": none, "kappa": none}
    pilot = {"rounds": [line(0.123), line(0.456)], "later": [later], "share": [0.5]}
    out = io.StringIO()
    print_pilot(pilot, Console(file=out, width=80))
    text = out.getvalue()
    assert ("κ of votes" in text) is votes
    assert ("confid." in text) is not votes
    assert text.count("0.789") == 3
    assert text.count("0.123") == text.count("0.456") == 3
