"""One self-contained page of all claims: verdicts, words, plots, tables. Opens offline."""

from __future__ import annotations

from collections.abc import Sequence

from srlm.lab.result import Finding
from srlm.lab.words import figure, number
from srlm.report.markup import safe, script_json, table
from srlm.report.page import document

TONE = {
    "holds": "good",
    "holds, loose by a factor": "calm",
    "violated": "bad",
    "not testable here": "note",
}
INTRO = (
    "Every claim of the theory, run. An upper bound that holds is not thereby tight: what the "
    "bound says and what was seen stand apart. Intervals are at 95 %."
)
STYLE = """section .badge { margin-right: 8px; }
td { white-space: normal; }
.numbers td { white-space: nowrap; }
"""


def page(findings: Sequence[Finding]) -> str:
    """The page as HTML; its bytes depend on the findings and the installed plotly alone."""
    body = "\n".join([_overview(findings), *[_section(f) for f in findings]])
    return document("lab", "srlm lab", body, STYLE)


def _overview(findings: Sequence[Finding]) -> str:
    rows = [
        (
            f'<a href="#{safe(f.claim)}">{safe(f.claim)}</a>',
            f'<span class="{TONE[f.verdict]}"><span class="badge">{safe(f.verdict)}</span></span>',
            safe(f.because),
        )
        for f in findings
    ]
    head = ("claim", "verdict", "the number behind it")
    return f"<section><p>{safe(INTRO)}</p>\n{table(head, rows)}</section>"


def _section(found: Finding) -> str:
    tone = TONE[found.verdict]
    parts = [
        f'<section class="verdict {tone}" id="{safe(found.claim)}">',
        f'<h2><span class="badge">{safe(found.verdict)}</span>{safe(found.claim)}</h2>',
        f'<p class="sentence">{safe(found.statement)}</p>',
        f'<p class="faint">{safe(found.source)}</p>',
        f"<p><strong>{safe(found.because)}.</strong></p>",
    ]
    if found.says:
        parts.append(f"<p><strong>The bound.</strong> {safe(found.says)}</p>")
    if found.seen:
        parts.append(f"<p><strong>Seen.</strong> {safe(found.seen)}</p>")
    parts.append(f'<p class="faint"><strong>Tried on.</strong> {safe(found.instance)}</p>')
    if found.plot:
        key = f"chart-{safe(found.claim)}"
        parts.append(
            f'<div id="{key}"></div>\n<script type="application/json" data-chart="{key}">'
            f"{script_json(found.plot)}</script>"
        )
    if found.numbers:
        rows = [(safe(name), safe(number(value))) for name, value in found.numbers.items()]
        parts.append(table(("number", "value"), rows, "numbers"))
    if found.figures:
        head = [safe(name) for name in found.figures[0]]
        cells = [[safe(figure(v)) for v in row.values()] for row in found.figures]
        parts.append(
            f"<details><summary>Figures: {len(cells)} rows</summary>\n"
            f"{table(head, cells, 'numbers')}</details>"
        )
    return "\n".join([*parts, "</section>"])
