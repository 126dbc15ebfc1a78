"""A forecast in the terminal, in 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from srlm.forecast.doubts import doubts
from srlm.forecast.foretell import Forecast
from srlm.forecast.trajectory import Point
from srlm.report.read import LARGE
from srlm.report.words import number, shorten, visible, with_interval
from srlm.types import Estimate

COLORS = {"go": "bold green", "no-go": "bold red", "unclear": "bold yellow"}
SHOWN = 5
"""Prompts listed."""


def print_forecast(found: Forecast, console: Console) -> None:
    """Verdict, trajectory, destination, controls, and where to look."""
    verdict = found.verdict
    style = COLORS[verdict.verdict]
    console.print(Text(verdict.verdict.upper() + ": ", style).append(verdict.reason, "default"))
    console.print()
    console.print(_trajectory(found))
    console.print(
        Text(
            f"Exact updates at beta {found.beta:g}; gradient training follows more slowly. "
            "ESS: draws that carry a round; * extrapolated.",
            "dim",
        )
    )
    console.print()
    console.print(_base(found))
    _controls(found, console)
    _doubts(found, console, ahead=True)
    _likeliest(found, console)


def print_pilot(pilot: dict[str, Any], console: Console) -> None:
    """The pilot rounds as measured, then the rounds foretold from the last of them."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for title in ("round", "", "κ", "confid.", "accuracy", "length", "efficiency"):
        table.add_column(title, justify="right", no_wrap=True)
    efficiency = [None, *pilot["efficiency"]]
    names = ("kappa", "confidence", "sampling_accuracy", "length")
    for t, line in enumerate(pilot["rounds"]):
        table.add_row(
            str(t), "measured", *(number(line[n]["value"]) for n in names), number(efficiency[t])
        )
    for a in pilot["ahead"]:
        mark = "foretold" if a["supported"] else "extrapolated"
        table.add_row(
            str(a["round"]), mark, *(number(a[n]["value"]) for n in names), "", style="bold"
        )
        band = (f"{number(a[n]['low'])}-{number(a[n]['high'])}" for n in names)
        table.add_row("", "", *band, "", style="dim")
    console.print()
    console.print(Text("At the pace of the pilot:", "bold"))
    console.print(table)


BY_DRAWS = {"kappa_fixed_n": "κ, best of the draws", "kappa_adaptive": "κ, adaptive draws"}


def print_measurement(
    found: Forecast, console: Console, by_draws: Mapping[str, Estimate] | None = None
) -> None:
    """The base as it is; and kappa as draws alone tell it."""
    table = _base(found)
    for name, e in (by_draws or {}).items():
        table.add_row(BY_DRAWS[name], with_interval(e), f"{e.method}; {e.guarantee}")
    console.print(table)
    _controls(found, console)
    _doubts(found, console, ahead=False)
    _likeliest(found, console)


def _trajectory(found: Forecast) -> Table:
    has_answers = found.points[0].sampling_accuracy.value is not None
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    log = _overflows(found.points[0].kappa)
    titles = [
        "round",
        "power",
        "log κ" if log else "κ",
        "F",
        "confid.",
        "accuracy",
        "95 %",
        "length",
        "entropy",
        "ESS",
    ]
    if not has_answers:
        titles = [t for t in titles if t not in ("accuracy", "95 %")]
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for point in [*found.points, found.end]:
        table.add_row(*_cells(point, has_answers, log))
    return table


def _cells(point: Point, has_answers: bool, log: bool) -> list[str]:
    end = point.round == float("inf")
    mark = "" if point.supported else "*"
    accuracy = point.sampling_accuracy
    cells = [
        "end" if end else f"{point.round:g}{mark}",
        "∞" if end else f"{point.exponent:.3g}",
        number((point.log10_kappa if log else point.kappa).value),
        number(point.failure_fraction.value),
        number(point.confidence.value),
    ]
    if has_answers:
        cells += [number(accuracy.value), _interval(accuracy)]
    ess = point.effective_sample_size
    return [
        *cells,
        number(point.length.value, 1),
        number(point.entropy.value, 2),
        "all" if ess == float("inf") else f"{ess:.0f}",
    ]


def _overflows(kappa: Estimate) -> bool:
    """Whether its logarithm (to base 10) is the number to read."""
    return kappa.value is None or not kappa.value <= LARGE


def _interval(e: Estimate) -> str:
    return "" if e.low is None else f"{number(e.low)}-{number(e.high)}"


def _base(found: Forecast) -> Table:
    estimates = found.measurement.estimates
    n = len(found.measurement.prompts)
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(style="dim")
    overflow = _overflows(estimates["kappa"])
    rows = [
        ("log₁₀ κ" if overflow else "κ", "log10_kappa" if overflow else "kappa"),
        ("F, share of p* ≤ 1/2", "failure_fraction"),
        ("confidence p*", "confidence"),
        ("least confidence", "least_confidence"),
        ("least margin, nats", "margin"),
        ("greedy is the mode", "greedy_is_mode"),
        ("sampling accuracy", "sampling_accuracy"),
        ("greedy accuracy", "greedy_accuracy"),
        ("mode accuracy", "mode_accuracy"),
        ("entropy, nats", "entropy"),
        ("length, tokens", "length"),
        ("cut off", "truncated"),
    ]
    for title, name in rows:
        e = estimates[name]
        if e.value is None and name.endswith("accuracy"):
            continue
        table.add_row(title, with_interval(e), f"{e.method}; {e.guarantee}")
    if found.answers is not None:
        k = found.answers.certain.kappa()
        table.add_row("κ of answers", with_interval(k), f"{k.method}; {k.guarantee}")
    table.caption = f"The base on {n} prompts; 95 % intervals over prompts."
    table.caption_justify = "left"
    return table


def _controls(found: Forecast, console: Console) -> None:
    level = found.answers
    if level is None or not level.majority:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("without training, draws:", no_wrap=True)
    for k in level.majority:
        table.add_column(str(k), justify="right")
    table.add_row("majority vote right", *(number(e.value) for e in level.majority.values()))
    table.add_row("one of them right", *(number(e.value) for e in level.passed.values()))
    console.print()
    console.print(table)


def _doubts(found: Forecast, console: Console, *, ahead: bool) -> None:
    for doubt in doubts(found, ahead=ahead):
        console.print()
        text = visible(f"{doubt.why} {doubt.advice}")
        console.print(Text(f"! {doubt.title}. ", "bold yellow").append(text, "default"))


def _likeliest(found: Forecast, console: Console) -> None:
    """For a person to read: the least sure prompts and their likeliest responses."""
    table = found.measurement.table
    order = sorted(range(len(table["p_star"])), key=lambda i: table["p_star"][i])[:SHOWN]
    shown = Table(box=None, pad_edge=False, padding=(0, 1))
    shown.add_column("least sure: p*", justify="right", no_wrap=True)
    shown.add_column("prompt", overflow="ellipsis", no_wrap=True, max_width=22)
    shown.add_column("likeliest", overflow="ellipsis", no_wrap=True, max_width=20)
    shown.add_column("greedy", overflow="ellipsis", no_wrap=True, max_width=20)
    prompts = found.measurement.prompts
    for i in order:
        shown.add_row(
            number(table["p_star"][i]),
            *(
                Text(visible(shorten(str(text), 60)).replace("\n", "⏎"))
                for text in (prompts[i].content, table["mode"][i], table["greedy"][i])
            ),
        )
    console.print()
    console.print(shown)
