"""A run in the terminal, in 80 columns."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from srlm.report.foretold_section import sentence
from srlm.report.page import NAME
from srlm.report.read import sharpens
from srlm.report.summary import Summary
from srlm.report.words import SYMBOL, number, percent, visible

COLORS = {
    "improved": "bold green",
    "sharpened": "bold cyan",
    "unchanged": "bold yellow",
    "base only": "bold cyan",
    "failing": "bold red",
    "failed": "bold red",
}
COLUMNS = (
    ("F", "failure_fraction"),
    ("confid.", "confidence"),
    ("fidelity", "fidelity"),
    ("sampling", "sampling_accuracy"),
    ("greedy", "greedy_accuracy"),
    ("mode", "mode_accuracy"),
    ("headroom", "headroom_captured"),
)
OF_ANSWERS = 4
"""The last columns, which need answers."""


def print_summary(summary: Summary, console: Console) -> None:
    """Verdict, table by round, warnings, and where the page is."""
    v = summary.verdict
    console.print(Text(v.badge.upper() + ": ", COLORS[v.status]).append(v.sentence, "default"))
    console.print()
    console.print(_table(summary))
    if summary.has_answers:
        ceiling = "; the base's mode is the ceiling" if sharpens(summary.config) else ""
        console.print(Text(f"sampling, greedy, mode: accuracies{ceiling}.", "dim"))
    if summary.last.round:
        console.print(Text(f"Best round: {summary.best.round} ({summary.best.reason}).", "dim"))
    if summary.foretold is not None:
        console.print(Text(sentence(summary.foretold), "dim"))
    for alarm in summary.alarms:
        style = "bold red" if alarm.severity == "serious" else "bold yellow"
        mark = "!!" if alarm.severity == "serious" else "! "
        console.print()
        console.print(Text(f"{mark} {alarm.title}. ", style).append(alarm.evidence, "default"))
    report = summary.folder / NAME
    if report.is_file():
        console.print()
        console.print(Text("Report: ").append(visible(str(report))), soft_wrap=True)


def _table(summary: Summary) -> Table:
    columns = [(SYMBOL[summary.kappa_name], summary.kappa_name), *COLUMNS]
    columns = columns if summary.has_answers else columns[:-OF_ANSWERS]
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("round", justify="right", no_wrap=True)
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for r in summary.rounds:
        cells = [
            percent(r[name].value) if name == "headroom_captured" else number(r[name].value)
            for _, name in columns
        ]
        best = summary.last.round and r.round == summary.best.round
        table.add_row(str(r.round), *cells, style="bold" if best else None)
    return table
