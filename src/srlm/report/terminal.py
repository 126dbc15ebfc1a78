"""What the commands print: verdict, rounds, warnings, at any width of the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from srlm.forecast.trajectory import Point
from srlm.report.compare import COMPARED, Comparison, Row
from srlm.report.forecast_warnings import forecast_warnings
from srlm.report.page import NAME
from srlm.report.summary import Summary
from srlm.report.warnings import Notice
from srlm.report.words import (
    NAMES,
    SYMBOL,
    count,
    number,
    percent,
    sentence,
    shorten,
    signed,
    visible,
    with_interval,
)
from srlm.run_folder import LARGE
from srlm.types import Estimate

if TYPE_CHECKING:
    from srlm.forecast.make import Forecast

GOOD, BAD, CALM, NOTE = "bold green", "bold red", "bold cyan", "bold yellow"
STYLES = {
    "improved": GOOD,
    "sharpened": CALM,
    "unchanged": NOTE,
    "base only": CALM,
    "failing": BAD,
    "failed": BAD,
    "go": GOOD,
    "no-go": BAD,
    "unclear": NOTE,
}
SHOWN = 5
"""Prompts listed."""
Column = tuple[str, Callable[[Any], str]]


# ---- parts that every command prints with


def headline(console: Console, label: str, style: str, text: str, advice: str = "") -> None:
    """``LABEL: text``, and what to do in bold."""
    console.print(Text(f"{label.upper()}: ", style).append(visible(text), "default"))
    if advice:
        console.print(Text(visible(advice), "bold"))


def title(console: Console, text: str) -> None:
    """A rule with a title, between parts of an output."""
    console.print()
    console.rule(Text(text, "bold"), align="left")
    console.print()


def note(console: Console, text: str) -> None:
    """A remark under a table."""
    console.print(Text(visible(text), "dim"))


def facts_table(console: Console, rows: Sequence[tuple[str, str, str]]) -> Table:
    """Names, values, and remarks, which a narrow terminal has no room for."""
    columns = 3 if console.width >= 60 else 2
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold", no_wrap=True)
    if columns == 3:
        table.add_column(style="dim", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row[:columns]))
    return table


def rounds_table(
    console: Console, columns: Sequence[Column], rows: Sequence[Any], bold: int | None = None
) -> RenderableType:
    """Numbers by round, right-aligned; the last columns are left out where they do not fit.

    Args:
        columns: titles, and what each shows of a row; the most important first.
        rows: one a line.
        bold: the row to stress.
    """
    endless = console.options.update(max_width=10_000)
    for kept in range(len(columns), 0, -1):
        table = Table(box=None, pad_edge=False, padding=(0, 1))
        for name, _ in columns[:kept]:
            table.add_column(name, justify="right", no_wrap=True)
        for i, row in enumerate(rows):
            cells = [show(row) for _, show in columns[:kept]]
            table.add_row(*cells, style="bold" if i == bold else None)
        if console.measure(table, options=endless).maximum <= console.width:
            break
    return table


def print_warnings(console: Console, notices: Sequence[Notice]) -> None:
    """Each with its evidence and what to do; serious ones in red."""
    for notice in notices:
        mark, style = ("!!", BAD) if notice.severity == "serious" else ("!", NOTE)
        text = visible(f"{sentence(notice.evidence)} {notice.advice}")
        console.print()
        console.print(Text(f"{mark} {sentence(notice.title)} ", style).append(text, "default"))


def value_of(name: str, digits: int = 3) -> Callable[[Any], str]:
    """Shows the estimate ``name`` of a round, a point, or a line of metrics.jsonl."""

    def show(row: Any) -> str:
        if isinstance(row, Point):
            return number(getattr(row, name).value, digits)
        e = row[name]
        return number(e["value"] if isinstance(e, dict) else e.value, digits)

    return show


def ends_of(name: str) -> Callable[[Any], str]:
    """Shows the interval of ``name`` in a line of JSON."""

    def show(row: Any) -> str:
        e = row[name]
        return "" if e.get("low") is None else f"{number(e['low'])}–{number(e['high'])}"

    return show


# ---- a run


def print_summary(summary: Summary, console: Console) -> None:
    """Verdict, what to do, numbers by round, warnings, and where the page is."""
    s, v = summary, summary.verdict
    headline(console, v.badge, STYLES[v.status], v.sentence, v.advice)
    console.print()
    columns: list[Column] = [("round", lambda r: str(r.round))]
    if s.has_answers:
        columns += [("sampling", value_of("sampling_accuracy"))]
    columns += [("confid.", value_of("confidence")), ("fidelity", value_of("fidelity"))]
    columns += [(SYMBOL[s.kappa_name], value_of(s.kappa_name)), ("F", value_of("failure_fraction"))]
    if s.has_answers:
        columns += [
            ("greedy", value_of("greedy_accuracy")),
            ("mode", value_of("mode_accuracy")),
            ("headroom", lambda r: percent(r["headroom_captured"].value)),
        ]
    best = s.best.round if s.last.round else None
    console.print(rounds_table(console, columns, s.rounds, best))
    if s.has_answers:
        note(console, "sampling, greedy, mode: accuracies on the held-out prompts.")
    if s.last.round:
        note(console, f"Best round: {s.best.round} ({s.best.reason}).")
    if s.stop:
        note(
            console,
            f"Stopped: {s.stop.get('reason')}. Best round without answers: {s.stop.get('best')} "
            f"({s.stop.get('best_reason')}).",
        )
    if s.gap is not None:
        note(console, sentence(s.gap.sentence))
    print_warnings(console, s.warnings)
    report = s.folder / NAME
    if report.is_file():
        console.print()
        console.print(Text("Report: ").append(visible(str(report))), soft_wrap=True)


# ---- a forecast


def print_forecast(found: Forecast, console: Console) -> None:
    """Verdict, trajectory, what a vote gives, warnings, and the base as it is."""
    v = found.verdict
    headline(console, v.verdict, STYLES[v.verdict], sentence(v.reason), v.advice)
    console.print()
    kappa = "log10_kappa" if found.log_kappa else "kappa"
    columns: list[Column] = [
        ("round", lambda p: "limit" if p.round == float("inf") else f"{p.round:g}")
    ]
    if found.has_answers:
        columns += [("accuracy", lambda p: with_interval(p.sampling_accuracy))]
    columns += [
        ("confid.", value_of("confidence")),
        (SYMBOL[kappa], value_of(kappa)),
        ("F", value_of("failure_fraction")),
        ("length", value_of("length", 1)),
        ("entropy", value_of("entropy", 2)),
        ("ESS", lambda p: _size(p.effective_sample_size) + ("" if p.supported else "*")),
    ]
    console.print(rounds_table(console, columns, [*found.points, found.end]))
    extrapolated = "" if all(p.supported for p in found.points) else "; * extrapolated"
    note(
        console,
        f"Exact updates, β {found.beta:g}; gradient training is slower. "
        f"ESS: effective samples per prompt{extrapolated}.",
    )
    _print_votes(found, console)
    print_warnings(console, forecast_warnings(found))
    console.print()
    _print_base(found, console)
    _print_modes(found, console)


def print_measurement(
    found: Forecast, console: Console, by_samples: Mapping[str, Estimate] | None = None
) -> None:
    """The model as it is; and kappa as samples alone tell it."""
    _print_base(found, console, by_samples)
    _print_votes(found, console)
    print_warnings(console, forecast_warnings(found, ahead=False))
    _print_modes(found, console)


def print_pilot(pilot: Mapping[str, Any], console: Console) -> None:
    """The pilot rounds as measured, then the later rounds at their pace."""
    rows: list[dict[str, Any]] = []
    for t, line in enumerate(pilot["rounds"]):
        rows.append({**line, "round": str(t), "kind": "measured"})
    for later in pilot["later"]:
        kind = "forecast" if later["supported"] else "extrapolated"
        rows.append({**later, "round": str(later["round"]), "kind": kind})
    votes = all(later["kappa"]["value"] is None for later in pilot["later"])
    kappa = "kappa_vote" if votes else "kappa"
    names = {"sampling_accuracy": "accuracy"}
    names |= {"vote_share": "vote"} if votes else {"confidence": "confid."}
    names |= {kappa: SYMBOL[kappa]}
    columns: list[Column] = [("round", lambda row: row["round"]), ("", lambda row: row["kind"])]
    columns += [(short, value_of(name)) for name, short in names.items()]
    columns += [("accuracy 95%", ends_of("sampling_accuracy")), ("κ 95%", ends_of(kappa))]
    title(console, "At the pace of the pilot")
    known = [f"{e:.2f}" for e in pilot["share"] if e is not None]
    console.print(rounds_table(console, columns, rows))
    if known:
        note(console, f"The pilot's rounds went {', '.join(known)} of the way to their target.")


def _print_base(
    found: Forecast, console: Console, by_samples: Mapping[str, Estimate] | None = None
) -> None:
    e = found.measurement.estimates
    names = ["log10_kappa" if found.log_kappa else "kappa"]
    names += ["failure_fraction", "confidence", "least_confidence", "margin", "greedy_is_mode"]
    if found.has_answers:
        names += ["sampling_accuracy", "greedy_accuracy", "mode_accuracy"]
    shown = [(NAMES[name], e[name]) for name in (*names, "entropy", "length", "truncated")]
    if found.answers is not None:
        shown.insert(1, found.answers.kappa)
    labels = {"kappa_fixed_n": "κ, best of the samples", "kappa_adaptive": "κ, adaptive sampling"}
    for name, x in (by_samples or {}).items():
        large = x.value is not None and x.value > LARGE
        shown.append((f"log10 {labels[name]}", _log10(x)) if large else (labels[name], x))
    rows = [(name, with_interval(x), f"{x.method}; {x.guarantee}") for name, x in shown]
    console.print(facts_table(console, rows))
    n = len(found.measurement.prompts)
    note(console, f"The base on {count(n, 'prompt')}; 95% intervals over prompts.")


def _log10(e: Estimate) -> Estimate:
    """log10 of a positive quantity and of its interval's ends."""
    value, low, high = (None if x is None else math.log10(x) for x in (e.value, e.low, e.high))
    return replace(e, value=value, low=low, high=high)


def _print_votes(found: Forecast, console: Console) -> None:
    level = found.answers
    if level is None or not level.majority:
        return
    columns: list[Column] = [("without training, samples:", lambda row: row["name"])]
    columns += [(str(k), value_of(str(k))) for k in level.majority]
    console.print()
    rows = [
        {"name": name, **{str(k): e for k, e in each.items()}}
        for name, each in (("majority vote", level.majority), ("pass@k", level.passed))
    ]
    console.print(rounds_table(console, columns, rows))


def _print_modes(found: Forecast, console: Console) -> None:
    """For a person to read: the least sure prompts and their most likely responses."""
    data = found.measurement.table
    order = sorted(range(len(data["p_star"])), key=lambda i: data["p_star"][i])[:SHOWN]
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("least sure: p*", justify="right", no_wrap=True)
    for name in ("prompt", "mode", "greedy"):
        table.add_column(name, overflow="ellipsis", no_wrap=True, max_width=22)
    for i in order:
        texts = (found.measurement.prompts[i].content, data["mode_text"][i], data["greedy_text"][i])
        line = (visible(shorten(str(text), 60)).replace("\n", "⏎") for text in texts)
        table.add_row(number(data["p_star"][i]), *map(Text, line))
    console.print()
    console.print(table)


def _size(effective: float) -> str:
    return "all" if effective == float("inf") else f"{effective:.0f}"


# ---- runs side by side


def print_comparison(found: Comparison, console: Console) -> None:
    """The runs, a table of their figures, one of their differences to the first, and settings."""
    run: Column = ("", lambda row: row.letter)
    for row in found.rows:
        console.print(Text(f"{row.letter}  ").append(visible(row.name)), soft_wrap=True)
    console.print()

    def of(name: str) -> Column:
        digits = 1 if name == "length" else 3
        ends = lambda c: f"{number(c.start.value, digits)}→{number(c.end.value, digits)}"  # noqa: E731
        return COMPARED[name], lambda row: ends(row.own[name])

    columns: list[Column] = [
        run,
        ("rounds", lambda r: f"{r.summary.last.round}/{r.summary.planned}"),
    ]
    columns += [("verdict", lambda row: row.summary.verdict.status)]
    columns += [of(name) for name in found.figures]
    console.print(rounds_table(console, columns, found.rows))
    note(console, "Base → last round, on held-out prompts.")
    against = [row for row in found.rows if row.against]
    if against:
        console.print()
        more: list[Column] = [(f"against {found.rows[0].letter}", run[1])]
        more += [(COMPARED[name], partial(_difference, name)) for name in found.figures]
        console.print(rounds_table(console, more, against))
        note(console, "Last rounds, with 95% intervals, paired over prompts where that is known.")
    for text in found.notes:
        note(console, visible(text))
    for key, values in found.settings.items():
        told = "; ".join(
            f"{row.letter} {visible(x)}" for row, x in zip(found.rows, values, strict=True)
        )
        console.print(Text(f"{key}: ", "bold").append(told, "default"), soft_wrap=True)


def _difference(name: str, row: Row) -> str:
    c = row.against[name]
    digits = 1 if name == "length" else 3
    ends = "" if c.low is None else f" [{signed(c.low, digits)}, {signed(c.high, digits)}]"
    return f"{signed(c.value, digits)}{ends}"
