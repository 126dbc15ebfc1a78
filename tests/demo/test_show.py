"""What the demo says at its end, in 80 columns."""

from __future__ import annotations

import io

from rich.console import Console

from srlm.demo.show import Shown, print_shown


def shown(start: str, *accuracies: float) -> Shown:
    names = ("kappa", "headroom_captured", "fidelity", "sampling_accuracy")
    rounds = [
        {"round": t, "seconds": {"update": 9.0}}
        | {name: {"value": x, "low": x - 0.02, "high": x + 0.02} for name in names}
        for t, x in enumerate(accuracies)
    ]
    seconds = {"base": 0.0, "forecast": 3.2, "run": 40.1}
    return Shown(start, f"runs/demo-{start}-0", "go", 0.85, rounds, seconds)


def test_the_end_has_one_line_per_start() -> None:
    text = io.StringIO()
    console = Console(file=text, width=80, highlight=False)
    print_shown([shown("good", 0.567, 0.912), shown("giveup", 0.123, 0.001)], console)
    said = text.getvalue()
    assert "0.567 → 0.912" in said
    assert "0.123 → 0.001" in said
    assert said.count("slowest round 9 s") == 2
    assert max(map(len, said.splitlines())) <= 80
