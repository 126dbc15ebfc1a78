"""One self-contained page of all claims: verdicts, words, plots, tables. Opens offline."""

from __future__ import annotations

from collections.abc import Sequence

from srlm.lab.result import Finding
from srlm.lab.words import cell, quantity
from srlm.report.page import render


def page(findings: Sequence[Finding]) -> str:
    """The page as HTML; its bytes depend on the findings and the installed plotly alone."""
    drawn = any(f.plot for f in findings)
    return render("lab.html.j2", drawn=drawn, findings=findings, cell=cell, quantity=quantity)
