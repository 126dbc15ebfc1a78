"""What the demo says at its end, in 80 columns."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from srlm.demo.show import Shown, past_the_mode, print_shown

SECONDS = {"base": 0.0, "forecast": 3.2, "run": 40.1}


def line(t: int, greedy: float, mode: float) -> dict[str, Any]:
    def known(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.02, "high": value + 0.02}

    names = ("sampling_accuracy", "kappa", "headroom_captured", "fidelity")
    accuracies = {"greedy_accuracy": known(greedy), "mode_accuracy": known(mode)}
    return {"round": t, "seconds": {"update": 9.0}} | dict.fromkeys(names, known(0.5)) | accuracies


def shown(*greedy: float, **changes: Any) -> Shown:
    rounds = [line(t, value, 0.85) for t, value in enumerate(greedy)]
    made = Shown("paths", "runs/demo-paths-0", "go", 0.85, rounds, SECONDS)
    return replace(made, **changes)


def printed(*what: Shown) -> str:
    text = io.StringIO()
    print_shown(what, Console(file=text, width=80, highlight=False))
    return text.getvalue()


@pytest.mark.parametrize(
    ("greedy", "verdict"),
    [
        (0.95, "above it by 0.100"),
        (0.86, "not distinguishable"),
        (0.75, "below it by 0.100"),
    ],
)
def test_past_the_mode_only_where_the_interval_is(greedy: float, verdict: str) -> None:
    said = past_the_mode(shown(0.87, greedy, 0.2, reward="consistency", best=1))
    assert verdict in said
    assert f"0.870 → {greedy:.3f} in round 1" in said
    assert "forecast 0.850" in said


def test_the_end_says_what_was_forecast_and_why_it_stopped() -> None:
    ended = shown(0.87, 0.95, reward="consistency", best=1, ended="kappa 2.1 stays")
    text = printed(ended)
    assert "kappa 2.1 stays" in text
    assert "above it" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_the_default_says_no_more_than_it_did() -> None:
    text = printed(shown(0.87, 0.9), replace(shown(0.1, 0.0), start="giveup"))
    assert "above it" not in text
    assert "stopped" not in text
    assert text.count("slowest round 9 s") == 2
