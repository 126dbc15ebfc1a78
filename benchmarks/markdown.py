"""Figures and tables as the pages of the benchmarks show them."""

from __future__ import annotations

from typing import Any


def of(x: dict[str, Any], digits: int = 2) -> str:
    """A median with its range.

    >>> of({"value": 2.0, "low": 1.5, "high": 2.25, "n": 5})
    '2.00 (1.50 to 2.25)'
    """
    return f"{x['value']:,.{digits}f} ({x['low']:,.{digits}f} to {x['high']:,.{digits}f})"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
