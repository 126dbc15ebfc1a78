"""The speed page as HTML: ratios as dots with their range, growth as lines, stages as bars."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import plotly.graph_objects as go
from reaching_page import curves

from srlm.report.page import render
from srlm.report.plots import BLUE, FAINT, GREEN, GRID, INK, ORANGE, PURPLE, VERMILION, Chart

Result = dict[str, Any]
COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, FAINT)


def drawn(found: dict[str, Result | None]) -> str:
    """The page; its data are those of docs/speed.md."""
    made = [
        Chart(str(i), title, words, json.loads(figure.to_json()))
        for i, (title, words, figure) in enumerate(charts(found))
    ]
    return render(
        "charts.html.j2", drawn=True, title="speed", heading="How fast it is", charts=made
    )


def charts(found: dict[str, Result | None]) -> Iterator[tuple[str, str, go.Figure]]:
    """Title, words and figure of each."""
    if rounds := found.get("round"):
        yield (
            "One self-rewarding round",
            "How many times as long the other takes; right of 1 is to our advantage.",
            dots({name: x["round"] for name, x in rounds["times"]["ratios"].items()}),
        )
        if rounds.get("headroom_per_second"):
            first = {k: next(iter(x.values())) for k, x in rounds["headroom_per_second"].items()}
            yield (
                "Headroom captured a second, after round 1",
                "Ours over theirs, both tuned on another seed.",
                dots(first),
            )
    if reaching := found.get("reaching"):
        figure = curves(reaching, COLORS)
        _dress(figure, 340)
        figure.update_layout(showlegend=True)
        figure.update_xaxes(title="seconds", rangemode="tozero")
        figure.update_yaxes(tickformat=".0%")
        yield (
            "Headroom over seconds, each side with its own schedule",
            "A point is the end of a round, a line a run; all sides were tuned on other bases to "
            "get to 93 % soonest, and go on past it here; the dotted line is 90 %.",
            figure,
        )
    if drawing := found.get("generate"):
        names = {
            f"{row['model']}, {row['batch']:,} responses, {row.get('draws', 1)} a prompt, "
            f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}": row["ours_over"][
                "generate"
            ]
            for row in drawing["cases"]
        }
        yield (
            "Drawing with log-probabilities",
            "Tokens a second over Hugging Face generate with a dynamic cache.",
            dots(names),
        )
    if update := found.get("training"):
        yield (
            "The update",
            "How many times as long it takes with prompt and response run as one text.",
            dots({row["task"]: row["rows_over_ours"] for row in update["rows"]}),
        )
    if growth := found.get("growth"):
        for axis in (x for x in ("draws", "rounds", "length", "size") if x in growth):
            yield (
                f"Growth with {'the ' if axis == 'draws' else ''}{axis}",
                "Seconds of each stage, and memory above the bare model.",
                lines(growth[axis]["points"]),
            )
    if stages := found.get("stages"):
        yield "Where the time goes", "Share of each stage by kind of operation.", bars(stages)


def dots(ratios: dict[str, Result]) -> go.Figure:
    """One row a ratio: its median and its range, on a logarithmic axis."""
    names = list(ratios)[::-1]
    value = [ratios[n]["value"] for n in names]
    figure = go.Figure(
        go.Scatter(
            x=value,
            y=names,
            mode="markers",
            marker={"color": BLUE, "size": 9},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [ratios[n]["high"] - ratios[n]["value"] for n in names],
                "arrayminus": [ratios[n]["value"] - ratios[n]["low"] for n in names],
                "color": BLUE,
            },
            hovertemplate="%{y}: %{x:.2f}<extra></extra>",
        )
    )
    figure.add_vline(x=1, line={"color": FAINT, "dash": "dot"})
    _dress(figure, 60 + 26 * len(names))
    figure.update_xaxes(type="log", tickvals=[0.5, 1, 2, 3, 5, 10, 20, 50])
    figure.update_layout(margin={"l": 250})
    return figure


def lines(points: list[Result]) -> go.Figure:
    """Seconds by stage, and memory on the right."""
    at = [str(p["at"]) for p in points]
    figure = go.Figure()
    for stage, color in zip(points[0]["seconds"], COLORS, strict=False):
        figure.add_scatter(
            x=at,
            y=[p["seconds"][stage]["value"] for p in points],
            name=f"{stage}, s",
            line={"color": color},
        )
    figure.add_scatter(
        x=at,
        y=[p["memory_mb"]["value"] for p in points],
        name="memory, MB (right)",
        yaxis="y2",
        line={"color": INK, "dash": "dash"},
    )
    _dress(figure, 280)
    figure.update_xaxes(type="category")
    figure.update_layout(yaxis={"type": "log"})
    figure.update_layout(
        showlegend=True,
        margin={"r": 60},
        yaxis2={
            "overlaying": "y",
            "side": "right",
            "rangemode": "tozero",
            "showgrid": False,
            "tickmode": "auto",
            "nticks": 5,
        },
    )
    return figure


def bars(stages: Result) -> go.Figure:
    """Shares of each stage."""
    rows = stages["rows"][::-1]
    figure = go.Figure()
    for kind, color in zip(rows[0]["shares"], COLORS, strict=False):
        figure.add_bar(
            y=[row["stage"] for row in rows],
            x=[row["shares"][kind] for row in rows],
            name=kind,
            orientation="h",
            marker={"color": color},
        )
    _dress(figure, 260)
    figure.update_layout(barmode="stack", showlegend=True, margin={"l": 90})
    figure.update_xaxes(tickformat=".0%")
    return figure


def _dress(figure: go.Figure, height: int) -> None:
    figure.update_layout(
        height=height,
        margin={"t": 14, "b": 40, "l": 60, "r": 20},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK},
        showlegend=False,
        legend={"orientation": "h", "y": -0.2},
        template="none",
    )
    figure.update_xaxes(gridcolor=GRID)
    figure.update_yaxes(gridcolor=GRID, automargin=True)
