"""Lines over rounds as a plotly figure: bands, labels at the ends, axes, both themes.

One colour a quantity on every plot (after Okabe and Ito, told apart by the colour-blind), 95 %
intervals as bands, names written at the end of the line instead of a legend. ``DARK`` gives
each colour's stand-in on a dark page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import plotly.graph_objects as go

from srlm.report.markup import safe, script_json
from srlm.report.words import number
from srlm.types import Estimate

BLUE, VERMILION, GREEN, PURPLE, ORANGE = "#0072b2", "#c24d00", "#007a5a", "#a8538a", "#a96f00"
INK, FAINT, GRID, PAPER = "#1c2430", "#5d6875", "#e3e6ea", "#ffffff"
DARK = {
    BLUE: "#5db7ec",
    VERMILION: "#f0884d",
    GREEN: "#3cc79e",
    PURPLE: "#de92c2",
    ORANGE: "#e6b450",
    INK: "#e6e9ed",
    FAINT: "#9aa5b1",
    GRID: "#323a44",
    PAPER: "#1b2026",
}
HEIGHT, TOP, BOTTOM = 250, 14, 40
LABEL_GAP = 15
"""Pixels that two labels at the end of lines keep apart."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure with the words around it."""

    key: str
    title: str
    caption: str
    figure: go.Figure
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One series: its value a round, None where it is undefined."""

    label: str
    color: str
    points: Sequence[Estimate]
    dash: str = "solid"
    band: bool = True
    mode: str = "lines+markers"
    symbol: str = "circle"
    named: bool = True
    """Its label stands at its end."""
    firm: Sequence[bool] = ()
    """False for a point that is extrapolated: hollow, joined by dashes. Empty: none is."""


def grid(charts: Iterable[Chart]) -> str:
    """The charts as HTML, two in a row; ``page.document`` brings the script that draws them."""
    figures = "\n".join(
        f"<figure{' class=wide' if c.wide else ''}><h3>{safe(c.title)}</h3>"
        f'<div id="chart-{c.key}" role="img" aria-label="{safe(c.title)}"></div>'
        f"<figcaption>{safe(c.caption)}</figcaption>"
        f'<script type="application/json" data-chart="chart-{c.key}">'
        f"{script_json(c.figure.to_plotly_json())}</script></figure>"
        for c in charts
    )
    return f'<div class="charts">{figures}</div>' if figures else ""


def line_chart(
    key: str,
    title: str,
    caption: str,
    lines: Sequence[Line],
    *,
    y: tuple[float, float] | None = None,
    bottom: float | None = None,
    log: bool = False,
    wide: bool = False,
    x_title: str = "round",
    ticks: Sequence[str] = (),
    labels_at: int | None = None,
) -> Chart | None:
    """Lines over rounds; None where no line has a value.

    ``ticks`` are the names of the places 0, 1, ... where these are not rounds; ``labels_at`` is
    the place of all the lines' labels where it is not the end of each.
    """
    drawn = [line for line in lines if any(p.value is not None for p in line.points)]
    if not drawn:
        return None
    low, high = y or _span(drawn, bottom, log)
    figure = go.Figure()
    for line in drawn:
        if line.band:
            _add_band(figure, line)
    for line in reversed(drawn):
        _add_line(figure, line)
    last = max(len(line.points) for line in drawn) - 1
    _add_labels(figure, drawn, low, high, log, labels_at)
    room = 18 + 7 * max((len(line.label) for line in drawn if line.named), default=0)
    figure.update_layout(
        template="none",
        height=HEIGHT + 40 * wide,
        margin={"l": 46, "r": room, "t": TOP, "b": BOTTOM},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        font={"family": "system-ui, sans-serif", "size": 12, "color": FAINT},
        showlegend=False,
        hovermode="x unified",
        hoverlabel={"bgcolor": PAPER, "font": {"color": INK}, "bordercolor": GRID},
        dragmode=False,
        xaxis={
            "title": {"text": x_title, "standoff": 6},
            "range": [-0.15, max(last, 1) + 0.15],
            **_ticks(last, ticks),
            "zeroline": False,
            "showgrid": False,
            "linecolor": GRID,
            "showline": True,
            "fixedrange": True,
        },
        yaxis={
            "range": [low, high],
            "type": "log" if log else "linear",
            "gridcolor": GRID,
            "zeroline": False,
            "nticks": 6,
            "fixedrange": True,
            **(_log_ticks(low, high) if log else {}),
        },
    )
    return Chart(key, title, caption, figure, wide)


def _ticks(last: int, names: Sequence[str]) -> dict[str, object]:
    step = max(1, -(-last // 10))
    if not names:
        return {"dtick": step}
    kept = sorted({*range(0, len(names), step), len(names) - 1})
    return {"tickvals": kept, "ticktext": [names[k] for k in kept]}


def _log_ticks(low: float, high: float) -> dict[str, list[float]]:
    """Ticks at 1, 2 and 5 times the powers of ten, or at some of the powers."""
    decades = range(floor(low), ceil(high) + 1)
    if high - low <= 2.5:
        return {"tickvals": [k * 10.0**d for d in decades for k in (1, 2, 5)]}
    step = max(1, len(decades) // 5)
    return {"tickvals": [10.0**d for d in decades if d % step == 0]}


def _hover(point: Estimate) -> str:
    if point.low is None or point.high is None:
        return number(point.value)
    return f"{number(point.value)} [{number(point.low)}, {number(point.high)}]"


def _span(lines: Iterable[Line], bottom: float | None, log: bool) -> tuple[float, float]:
    """The range of the axis, in its own units (log10 on a logarithmic axis)."""
    ends = [
        v
        for line in lines
        for p in line.points
        for v in ((p.value, p.low, p.high) if line.band else (p.value,))
        if v is not None and (v > 0 or not log)
    ]
    low, high = min(ends), max(ends)
    if bottom is not None:
        low = min(low, bottom)
    if log:
        low, high = log10(low), log10(high)
    room = 0.06 * (high - low) or 0.05 * max(1.0, abs(high))
    return low - room, high + room


def _add_line(figure: go.Figure, line: Line) -> None:
    values = [p.value for p in line.points]
    places = list(range(len(values)))
    split = not all(line.firm)
    if split:
        _add_pieces(figure, line, values)
    figure.add_scatter(
        x=places,
        y=values,
        name=line.label,
        mode="markers" if split else line.mode,
        line={"color": line.color, "width": 2, "dash": line.dash},
        marker={
            "size": 6 if line.symbol == "circle" else 9,
            "color": line.color,
            "symbol": [line.symbol + ("" if firm else "-open") for firm in line.firm]
            if split
            else line.symbol,
        },
        customdata=[_hover(p) for p in line.points],
        hovertemplate="%{customdata}",
    )


def _add_pieces(figure: go.Figure, line: Line, values: Sequence[float | None]) -> None:
    """Full lines between firm points, dashes to and from the others."""
    for firm, dash in ((True, line.dash), (False, "dash")):
        x: list[int | None] = []
        y: list[float | None] = []
        for t in range(len(values) - 1):
            if (line.firm[t] and line.firm[t + 1]) is firm:
                x += [t, t + 1, None]
                y += [values[t], values[t + 1], None]
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": line.color, "width": 2, "dash": dash},
            hoverinfo="skip",
        )


def _add_band(figure: go.Figure, line: Line) -> None:
    ends = [
        (t, p.low, p.high)
        for t, p in enumerate(line.points)
        if p.low is not None and p.high is not None
    ]
    if len(ends) < 2:
        if ends:
            t, low, high = ends[0]
            figure.add_scatter(
                x=[t, t],
                y=[low, high],
                mode="lines",
                opacity=0.5,
                line={"color": line.color, "width": 3},
                hoverinfo="skip",
            )
        return
    figure.add_scatter(
        x=[t for t, _, _ in ends] + [t for t, _, _ in reversed(ends)],
        y=[low for _, low, _ in ends] + [high for _, _, high in reversed(ends)],
        fill="toself",
        fillcolor=line.color,
        line={"width": 0, "color": line.color},
        mode="lines",
        opacity=0.16,
        hoverinfo="skip",
    )


def _add_labels(
    figure: go.Figure,
    lines: Sequence[Line],
    low: float,
    high: float,
    log: bool,
    place: int | None,
) -> None:
    """The name at the end of each line, pushed apart where lines end close together."""
    ends = []
    for line in (line for line in lines if line.named):
        t, value = max((t, p.value) for t, p in enumerate(line.points) if p.value is not None)
        at = log10(value) if log and value > 0 else value
        ends.append((at, t, line))
    ends.sort(key=lambda e: e[0])
    pixels = (HEIGHT - TOP - BOTTOM) / (high - low)
    wanted = [(at - low) * pixels for at, _, _ in ends]
    placed = spread(wanted, LABEL_GAP, 0.0, HEIGHT - TOP - BOTTOM + 6.0) if ends else []
    for (at, t, line), want, got in zip(ends, wanted, placed, strict=True):
        figure.add_annotation(
            x=t if place is None else place,
            y=at,
            text=line.label,
            showarrow=False,
            xanchor="left",
            xshift=7,
            yshift=round(got - want, 1),
            font={"color": line.color, "size": 12},
        )


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions in increasing order, at least ``gap`` apart, near ``wanted`` and in the range.

    >>> spread([10.0, 12.0, 50.0], 15, 0, 60)
    [3.5, 18.5, 50.0]
    """
    groups: list[list[float]] = []  # centre, size
    for x in wanted:
        groups.append([x, 1])
        while len(groups) > 1:
            (a, n), (b, m) = groups[-2:]
            if b - a >= gap * (n + m) / 2:
                break
            groups[-2:] = [[(a * n + b * m) / (n + m), n + m]]
    out = [c + gap * (i - (n - 1) / 2) for c, n in groups for i in range(int(n))]
    out[-1] = min(out[-1], high)
    for i in range(len(out) - 2, -1, -1):
        out[i] = min(out[i], out[i + 1] - gap)
    out[0] = max(out[0], low)
    for i in range(1, len(out)):
        out[i] = max(out[i], out[i - 1] + gap)
    return out
