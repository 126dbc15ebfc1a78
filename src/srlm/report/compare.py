"""Runs side by side: where each began and came to, differences with intervals, curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from srlm.report.changes import Change, change
from srlm.report.plots import COLORS, Chart, Line, line_chart
from srlm.report.summary import Summary
from srlm.report.words import NAMES, shorten

COMPARED = {
    "sampling_accuracy": "accuracy",
    "confidence": "confid.",
    "vote_share": "vote",
    "kappa": "κ",
    "fidelity": "fidelity",
    "failure_fraction": "F",
    "length": "length",
}
"""Figures, and their short names."""
DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True, slots=True)
class Row:
    """A run among others."""

    letter: str
    name: str
    """As short as tells it from the others."""
    summary: Summary
    own: dict[str, Change]
    """From its base to its last round, by figure."""
    against: dict[str, Change]
    """From the first run's last round to its own: paired where both measured the same prompts.
    Empty for the first, and where the two are not comparable."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs side by side."""

    rows: tuple[Row, ...]
    figures: tuple[str, ...]
    """Those that some run has."""
    settings: dict[str, tuple[str, ...]]
    """That differ, one value a run."""
    notes: tuple[str, ...]
    """Why runs cannot be compared with the first one."""


def compared(summaries: Sequence[Summary]) -> Comparison:
    """Put runs side by side; the first is what the others are compared with."""
    names = _names([str(s.folder.resolve()) for s in summaries])
    first = summaries[0]
    figures = tuple(
        name for name in COMPARED if any(s.last[name].value is not None for s in summaries)
    )
    rows: list[Row] = []
    notes: list[str] = []
    for name, s in zip(names, summaries, strict=True):
        why = [] if s is first else _apart(first, s)
        if why:
            notes.append(f"{name}: not comparable with {names[0]}: {', '.join(why)} differ")
        rows.append(
            Row(
                _letter(len(rows)),
                name,
                s,
                {x: change(x, s.rounds[0], s.last) for x in figures},
                {} if s is first or why else {x: change(x, first.last, s.last) for x in figures},
            )
        )
    keys = sorted({key for s in summaries for key in s.config})
    table = {key: tuple(_value(s.config.get(key)) for s in summaries) for key in keys}
    settings = {key: values for key, values in table.items() if len(set(values)) > 1}
    return Comparison(tuple(rows), figures, settings, tuple(notes))


def _apart(a: Summary, b: Summary) -> list[str]:
    """What keeps two runs from being compared."""
    read = "prompts.answer"
    out = [read] if a.config.get(read) != b.config.get(read) else []
    one, other = (s.last.table for s in (a, b))
    if one is None or other is None or one.prompt_id != other.prompt_id:
        out.append("held-out prompts")
    elif one.answers != other.answers:
        out.append("answers")
    return out


def _letter(i: int) -> str:
    """
    >>> _letter(0), _letter(25), _letter(26)
    ('A', 'Z', 'AA')
    """
    return (_letter(i // 26 - 1) if i >= 26 else "") + chr(65 + i % 26)


def _names(folders: Sequence[str]) -> list[str]:
    """The last parts of paths, as many as tell them apart.

    >>> _names(["/runs/a/one", "/runs/b/one", "/runs/b/two"])
    ['a/one', 'b/one', 'b/two']
    """
    parts = [f.strip("/").split("/") for f in folders]
    for k in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-k:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return list(folders)


def _value(x: Any) -> str:
    return "–" if x is None else shorten(str(x), 60)


def curves(found: Comparison) -> tuple[Chart, ...]:
    """A chart for each figure, a line a run."""
    made = []
    for name in found.figures:
        lines = [
            Line(
                row.letter,
                COLORS[i % len(COLORS)],
                [r[name] for r in row.summary.rounds],
                DASHES[i // len(COLORS) % len(DASHES)],
                band=len(found.rows) <= 3,
            )
            for i, row in enumerate(found.rows)
        ]
        values = [p.value or 0.0 for line in lines for p in line.points]
        made.append(
            line_chart(
                f"compare-{name}", NAMES[name], "", lines,
                log=name == "kappa" and max(values) > 20, bottom=1.0 if name == "kappa" else None,
            )
        )  # fmt: skip
    return tuple(chart for chart in made if chart is not None)


def to_json(found: Comparison) -> dict[str, Any]:
    """Numbers for programs."""

    def told(c: Change) -> dict[str, Any]:
        return {"value": c.value, "low": c.low, "high": c.high, "method": c.method}

    return {
        "runs": [
            {
                "folder": str(row.summary.folder),
                "name": row.name,
                "status": row.summary.verdict.status,
                "best": row.summary.best.round,
                "planned": row.summary.planned,
                "stop": dict(row.summary.stop) or None,
                "change": {name: told(c) for name, c in row.own.items()},
                "against_first": {name: told(c) for name, c in row.against.items()},
                "rounds": [r.to_json() for r in row.summary.rounds],
            }
            for row in found.rows
        ],
        "settings": {key: list(values) for key, values in found.settings.items()},
        "notes": list(found.notes),
    }
