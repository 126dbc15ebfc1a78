"""Findings in words: numbers, and the terminal's page of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from srlm.lab.result import Finding
from srlm.report.terminal import BAD, CALM, GOOD, NOTE, facts_table
from srlm.types import Estimate

STYLE = {
    "holds": GOOD,
    "holds, loose by a factor": CALM,
    "violated": BAD,
    "not testable here": NOTE,
}


def cell(value: Any) -> str:
    """A cell of a table.

    >>> [cell(x) for x in (0.12345, 3, 12345.6, 1.2e-9, None, True, "x", 1e9)]
    ['0.1235', '3', '12,346', '1.2e-09', '–', 'yes', 'x', '1.0e+09']
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if value == 0:
        return "0"
    if abs(value) < 1e-4 or abs(value) >= 1e7:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def quantity(value: Estimate | float) -> str:
    """A number with its interval.

    >>> quantity(Estimate(-0.5, -0.52, -0.48, 9, "fit")), quantity(2.0)
    ('-0.5 [-0.52, -0.48]', '2')
    """
    if not isinstance(value, Estimate):
        return cell(value)
    if value.value is None:
        return f"undefined: {value.note}"
    if value.low is None or value.high is None:
        return cell(value.value)
    return f"{cell(value.value)} [{cell(value.low)}, {cell(value.high)}]"


def print_finding(found: Finding, console: Console) -> None:
    """One claim: verdict, the number behind it, what is said and what was seen, the numbers."""
    width = min(console.width, 80)
    head = Text(f"{found.claim}: ", "bold").append(found.verdict, STYLE[found.verdict])
    console.print(head, width=width)
    console.print(Text(found.because), width=width)
    for name, text in (
        ("claim", f"{found.statement} {found.source}"),
        ("tried on", found.instance),
        ("bound", found.says),
        ("seen", found.seen),
    ):
        if text:
            console.print()
            console.print(Text(f"{name}: ", "dim").append(text, "default"), width=width)
    if found.numbers:
        console.print()
        rows = [(name, quantity(value), "") for name, value in found.numbers.items()]
        console.print(facts_table(console, rows), width=width)


def print_findings(findings: Sequence[Finding], console: Console) -> None:
    """One claim in full, or a line each where there are several."""
    if len(findings) == 1:
        print_finding(findings[0], console)
        return
    width = min(console.width, 80)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("claim", no_wrap=True)
    table.add_column("verdict and the number behind it", overflow="fold")
    table.add_column("s", justify="right", no_wrap=True)
    for found in findings:
        cell = Text(found.verdict + ". ", STYLE[found.verdict]).append(found.because, "default")
        table.add_row(Text(found.claim), cell, Text(f"{found.seconds:.0f}"))
    console.print(table, width=width)
