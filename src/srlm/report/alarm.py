"""What a warning of a report is, and the words that its evidence is told in."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from srlm.report.changes import Change
from srlm.report.read import Round, Run
from srlm.report.words import interval, number


@dataclass(frozen=True, slots=True)
class Alarm:
    """A warning: its name for programs, what is wrong, the numbers that say so, what to do."""

    code: str
    severity: Literal["serious", "note"]
    title: str
    evidence: str
    advice: str


def told(c: Change, digits: int = 3) -> str:
    """``1.757 -> 1.020 (change -.737 [-.801, -.673]), rounds 0 to 5``."""
    spread = interval(c.low, c.high, digits)
    return (
        f"{number(c.start.value, digits)} → {number(c.end.value, digits)} "
        f"(change {number(c.value, digits)}{' ' + spread if spread else ''}), "
        f"round {c.start_round} to {c.end_round}"
    )


def steps(run: Run) -> list[tuple[Round, Round]]:
    """Consecutive rounds, and the whole run where it is more than a step."""
    rounds = run.rounds
    pairs = list(pairwise(rounds))
    return pairs + ([(rounds[0], rounds[-1])] if len(rounds) > 2 else [])
