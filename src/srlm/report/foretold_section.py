"""The comparison with exact updates on the page of a run."""

from __future__ import annotations

from srlm.report.chart import BLUE, FAINT, ORANGE, Chart, Line, grid, line_chart
from srlm.report.foretold import Foretold, Step
from srlm.report.markup import safe, table
from srlm.report.summary import Summary
from srlm.report.words import interval, number
from srlm.types import Estimate

TITLES = {
    "kappa": "κ",
    "confidence": "confidence",
    "sampling_accuracy": "sampling accuracy",
}


def foretold_section(s: Summary) -> str:
    """Measured, at the effective exponent, ideal; and the gap in its parts."""
    found = s.foretold
    if found is None:
        return ""
    shown = [chart for name in found.names if (chart := _chart(found, name)) is not None]
    tables = "".join(_table(found, name) for name in found.names)
    return f"""<section><h2>Foretold and seen</h2>
<p>{safe(sentence(found))}</p>
<p class="faint">Exact rounds turn the base into its power (1 + 1/β)<sup>round</sup>: ideal.
Training comes as far as the power at which the base would be as sure: at exponent.
<strong>Pace</strong>, ideal minus at exponent, is the way still to go: more steps, more draws, a
higher rate. <strong>Drift</strong>, at exponent minus measured, is training that left the path: r²
and fidelity say the same. From the base's draws and modes on {found.prompts} prompts.</p>
{grid(shown)}{tables}
<p class="faint">Differences are paired over the prompts, their 95 % intervals hold the exponent's
own. Drift in round 0, where there can be none, is the sampling error of the method. A difference
whose interval holds 0 is not told apart from it.</p></section>"""


SAME = 0.005
"""A gap under this is none."""


def sentence(found: Foretold) -> str:
    """Where the gap to exact updates lies, in the last round that is known."""
    last = found.steps[-1]
    name = found.names[-1]
    part = last.parts[name]
    gap = (part.ideal.value or 0.0) - (part.measured.value or 0.0)
    text = (
        f"In round {last.round} {TITLES[name]} is {number(part.measured.value)} where exact "
        f"updates would have given {number(part.ideal.value)}"
    )
    if not last.firm:
        text += " (an extrapolation)"
    if abs(gap) < SAME:
        return f"{text}: no difference worth a word."
    return (
        f"{text}. Of the difference, {_signed(gap)}, pace makes {_signed(part.pace.value)} "
        f"{interval(part.pace.low, part.pace.high)} and drift {_signed(part.drift.value)} "
        f"{interval(part.drift.low, part.drift.high)}."
    )


def _chart(found: Foretold, name: str) -> Chart | None:
    # Rounds without an exponent have no place on the chart's line.
    last = found.steps[-1].round
    by_round = {s.round: s.parts[name] for s in found.steps}
    none = Estimate(None, None, None, 0, "")

    def points(which: str) -> list[Estimate]:
        return [getattr(by_round[t], which) if t in by_round else none for t in range(last + 1)]

    firm_at = {s.round: s.firm for s in found.steps}
    firm = [firm_at.get(t, True) for t in range(last + 1)]
    lines = [
        Line("ideal", FAINT, points("ideal"), "dot", band=False, firm=firm),
        Line("at exponent", ORANGE, points("at_exponent"), band=False),
        Line("measured", BLUE, points("measured")),
    ]
    title = TITLES[name][0].upper() + TITLES[name][1:] if name != "kappa" else "Condition number κ"
    caption = "Blue to orange: drift. Orange to grey: pace."
    if not all(firm):
        caption += " Hollow and dashed: extrapolated, beyond what the base's draws support."
    top = max((p.value or 1.0 for line in lines for p in line.points), default=1.0)
    return line_chart(
        f"foretold-{name}",
        f"{title}: measured, foretold, ideal",
        caption,
        lines,
        bottom=1.0 if name == "kappa" else None,
        log=name == "kappa" and top > 20,
    )


def _table(found: Foretold, name: str) -> str:
    head = ["round", "exponent", "ideal<small>exponent</small>", "measured", "at exponent", "ideal",
            "pace", "drift", "r²", "fidelity"]  # fmt: skip
    rows = [_row(step, name) for step in found.steps]
    title = TITLES[name]
    return f"<h3>{title if name == 'kappa' else title.capitalize()}</h3>" + table(
        head, rows, "numbers"
    )


def _row(step: Step, name: str) -> list[str]:
    part = step.parts[name]
    return [
        str(step.round) + ("" if step.firm else " †"),
        _cell(step.exponent, 2),
        number(step.ideal_exponent, 2),
        _cell(part.measured),
        _cell(part.at_exponent),
        _cell(part.ideal),
        _cell(part.pace, signed=True),
        _cell(part.drift, signed=True),
        number(step.r2.value, 2),
        number(step.fidelity.value),
    ]


def _cell(e: Estimate, digits: int = 3, signed: bool = False) -> str:
    spread = interval(e.low, e.high, digits)
    value = _signed(e.value) if signed else number(e.value, digits)
    return value + (f"<small>{spread}</small>" if spread else "")


def _signed(x: float | None) -> str:
    return ("+" if (x or 0.0) > 0 else "") + number(x)
