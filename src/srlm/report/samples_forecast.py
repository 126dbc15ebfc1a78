"""What ``srlm forecast --samples FILE`` prints."""

from __future__ import annotations

import numpy as np
from rich.console import Console

from srlm.forecast.from_samples import SamplesForecast
from srlm.forecast.reward_paths import EXTRAPOLATED, RewardPath
from srlm.report.samples_words import BASE, MEANS, TERMS, WHERE
from srlm.report.terminal import STYLES, Column, facts_table, headline, note, rounds_table, title
from srlm.report.words import number
from srlm.types import Estimate

SHOWN = 5
"""Rounds at most, beside the base, of those forecast; the page has all."""


def print_samples_forecast(found: SamplesForecast, console: Console) -> None:
    """Verdict, numbers, trajectory, the vote, which reward, doubts; 80 columns are enough."""
    headline(console, found.verdict, STYLES[found.verdict], found.reason, found.advice)
    console.print()
    note(
        console,
        f"{found.format}: {found.prompts} prompts x {found.samples} samples, right answers of "
        f"{found.answered}, read by {found.grader}. Intervals: {found.level:.0%}, for prompts "
        "like these.",
    )
    title(console, "The samples")
    console.print(
        facts_table(
            console, [(BASE[k], shown(found.base[k]), MEANS[k]) for k in BASE if k in found.base]
        )
    )
    title(console, "Where votes lead, and by what")
    rows = [(k, shown(found.terms[k], sign=True), TERMS[k]) for k in TERMS if k in found.terms]
    where = found.destination
    rows += [(title, shown(where[k]), meaning) for k, title, meaning in WHERE if k in where]
    console.print(facts_table(console, rows))
    title(console, "Exact rounds")
    paths = [p for p in found.paths if found.answered or p.reward in ("vote share", "hard vote")]
    what = "accuracy" if found.answered else "κ of answers"

    def column(t: int) -> Column:
        def show(path: RewardPath) -> str:
            e = (path.accuracy if found.answered else path.kappa)[t]
            return number(e.value) + ("†" if e.guarantee == EXTRAPOLATED else "")

        return f"{t}", show

    columns: list[Column] = [("round", lambda path: path.reward)]
    columns += [("β", lambda path: f"{path.beta:g}")]
    last = len(paths[0].accuracy) - 1
    columns += [column(round(t)) for t in np.linspace(0, last, min(last, SHOWN) + 1)]
    console.print(rounds_table(console, columns, paths))
    remark = f"{what}. Gradient training goes part of the way; one pilot round tells how far."
    if any(e.guarantee == EXTRAPOLATED for p in paths for e in p.accuracy):
        remark += " †: beyond what these samples carry."
    note(console, remark)
    if found.vote:
        title(console, "A vote instead of training")
        curve: list[Column] = [
            ("samples per query", str),
            ("accuracy", lambda k: shown(found.vote[k])),
        ]
        console.print(rounds_table(console, curve, list(found.vote)))
        note(console, "Each query costs that many responses; intervals here are at 95%.")
    title(console, "Which reward")
    for label, text in (("Use", found.best), ("Why", found.why), ("Risk", found.risk)):
        console.print(f"{label}: {text}.", markup=False)
    if found.doubts:
        title(console, "Numbers to doubt")
        for doubt in found.doubts:
            console.print(f"! {doubt}", markup=False)


def shown(e: Estimate, *, sign: bool = False) -> str:
    """A value with its interval; why there is none."""
    if e.value is None:
        return "not known"
    if e.guarantee == "upper bound":
        return f"at most {number(e.value)}"
    plus = "+" if sign and e.value >= 0 else ""
    if e.low is None or e.high is None:
        return plus + number(e.value)
    ends = f"{e.low:+z.3f}, {e.high:+z.3f}" if sign else f"{number(e.low)}, {number(e.high)}"
    return f"{plus}{number(e.value)} [{ends}]"
