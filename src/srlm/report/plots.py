"""Plotly figures as plain data, for report, forecast and lab: lines over rounds, and panels.

One colour per quantity on every plot (after Okabe and Ito, distinguishable for the colour-blind),
95% intervals as bands, names at the end of lines instead of a legend. ``DARK`` gives each colour's
counterpart on a dark page. Figures hold numbers and our own words only, never text of a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

from srlm.report.words import with_interval
from srlm.types import Estimate

BLUE, VERMILION, GREEN, PURPLE, ORANGE = "#0072b2", "#c24d00", "#007a5a", "#a8538a", "#a96f00"
INK, FAINT, GRID, PAPER = "#1c2430", "#5d6875", "#e3e6ea", "#ffffff"
COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE)
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
"""Pixels between two labels at the end of lines, at least."""

Figure = dict[str, Any]
"""``{"data": [...], "layout": {...}}``, as Plotly.react takes it."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure with the words around it."""

    key: str
    title: str
    caption: str
    figure: Figure
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One series: an estimate per round, its value None where it is undefined."""

    label: str
    color: str
    points: Sequence[Estimate]
    dash: str = "solid"
    band: bool = True
    mode: str = "lines+markers"
    symbol: str = "circle"
    named: bool = True
    """Its label stands at its end."""
    supported: Sequence[bool] = ()
    """False for a point that is extrapolated: hollow, joined by dashes. Empty: none is."""


def point(x: float | None) -> Estimate:
    """A number without an interval, as a point of a line."""
    return Estimate(x, None, None, 0, "")


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
    between: Sequence[tuple[int, float, float]] = (),
) -> Chart | None:
    """Lines over rounds; None where no line has a value.

    Args:
        y: the axis' range; else it holds all values, and ``bottom`` too.
        log: a logarithmic axis.
        ticks: names of the places 0, 1, ... where these are not rounds.
        labels_at: place of all the lines' labels where it is not the end of each.
        between: (place, from, to): vertical strokes, as between a loss before and after.
    """
    drawn = [line for line in lines if any(p.value is not None for p in line.points)]
    if not drawn:
        return None
    low, high = y or _range(drawn, bottom, log)
    last = max(len(line.points) for line in drawn) - 1
    room = 18 + 7 * max((len(line.label) for line in drawn if line.named), default=0)
    data = [trace for line in drawn if line.band for trace in _band(line)]
    data += [trace for line in reversed(drawn) for trace in _line(line)]
    if between:
        x = [place for t, _, _ in between for place in (t, t, None)]
        ends = [end for _, a, b in between for end in (a, b, None)]
        data.append(_trace(x, ends, "lines", line={"color": BLUE, "width": 1.5}, hoverinfo="skip"))
    layout = _layout(HEIGHT + 40 * wide, right=room, top=TOP, bottom=BOTTOM) | {
        "showlegend": False,
        "hovermode": "x unified",
        "xaxis": _axis(x_title)
        | {"range": [-0.15, max(last, 1) + 0.15], "showgrid": False, "showline": True}
        | _ticks(last, ticks),
        "yaxis": _axis()
        | {"range": [low, high], "type": "log" if log else "linear", "nticks": 6}
        | (_log_ticks(low, high) if log else {}),
        "annotations": _labels(drawn, low, high, log, labels_at),
    }
    return Chart(key, title, caption, {"data": data, "layout": layout}, wide)


def series(
    x: Iterable[Any],
    y: Iterable[Any],
    name: str,
    color: str = BLUE,
    *,
    dash: str = "solid",
    mode: str = "lines+markers",
    axis: str = "",
) -> dict[str, Any]:
    """One series of ``panels``; ``axis`` "2" picks a panel."""
    more: dict[str, Any] = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"} if axis else {}
    line, marker = {"color": color, "width": 2, "dash": dash}, {"color": color, "size": 6}
    return _trace(list(x), list(y), mode, name=name, line=line, marker=marker, **more)


def panels(
    traces: Sequence[dict[str, Any]],
    x: str | Sequence[str],
    y: str | Sequence[str],
    *,
    log_x: bool | Sequence[bool] = False,
    log_y: bool | Sequence[bool] = False,
    height: int = 380,
) -> Figure:
    """A figure of one panel, or of several side by side where titles are given as lists."""
    count = max(len(v) if isinstance(v, list | tuple) else 1 for v in (x, y, log_x, log_y))
    layout = _layout(height, right=14, top=12, bottom=44, left=58) | {
        "legend": {"orientation": "h", "y": -0.2, "yanchor": "top", "font": {"color": INK}},
    }
    gap = 0.09
    width = (1.0 - gap * (count - 1)) / count
    columns = zip(*(_each(v, count) for v in (x, y, log_x, log_y)), strict=True)
    for i, (x_title, y_title, log_across, log_up) in enumerate(columns):
        n, begin = "" if i == 0 else str(i + 1), i * (width + gap)
        layout[f"xaxis{n}"] = _axis(x_title) | {
            "type": "log" if log_across else "linear",
            "domain": [round(begin, 4), round(min(1.0, begin + width), 4)],
            "anchor": f"y{n}",
            "showline": True,
            **({"dtick": 1, "exponentformat": "power"} if log_across else {}),
        }
        layout[f"yaxis{n}"] = _axis(y_title) | {
            "type": "log" if log_up else "linear",
            "anchor": f"x{n}",
            **({"exponentformat": "power", "nticks": 6} if log_up else {}),
        }
    return {"data": list(traces), "layout": layout}


def keep_apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions in increasing order, at least ``gap`` apart, near ``wanted`` and in the range.

    >>> keep_apart([10.0, 12.0, 50.0], 15, 0, 60)
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


def _layout(height: int, *, right: int, top: int, bottom: int, left: int = 46) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": left, "r": right, "t": top, "b": bottom},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": FAINT},
        "hoverlabel": {"bgcolor": PAPER, "font": {"color": INK}, "bordercolor": GRID},
        "dragmode": False,
    }


def _axis(title: str = "") -> dict[str, Any]:
    named = {"title": {"text": title, "standoff": 6}} if title else {}
    return named | {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "fixedrange": True}


def _trace(x: list[Any], y: list[Any], mode: str, **more: Any) -> dict[str, Any]:
    return {"type": "scatter", "x": x, "y": y, "mode": mode, **more}


def _each(value: Any, count: int) -> list[Any]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * count if len(values) == 1 else values


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


def _range(lines: Iterable[Line], bottom: float | None, log: bool) -> tuple[float, float]:
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


def _line(line: Line) -> list[dict[str, Any]]:
    """The line; where a point is extrapolated, full and dashed pieces, and markers upon them."""
    values = [p.value for p in line.points]
    split = not all(line.supported)
    pieces = []
    for whole, dash in ((True, line.dash), (False, "dash")) if split else ():
        x: list[int | None] = []
        y: list[float | None] = []
        for t in range(len(values) - 1):
            if (line.supported[t] and line.supported[t + 1]) is whole:
                x += [t, t + 1, None]
                y += [values[t], values[t + 1], None]
        stroke = {"color": line.color, "width": 2, "dash": dash}
        pieces.append(_trace(x, y, "lines", line=stroke, hoverinfo="skip"))
    marks = [line.symbol + ("" if carried else "-open") for carried in line.supported]
    size = 6 if line.symbol == "circle" else 9
    return [
        *pieces,
        _trace(
            list(range(len(values))),
            values,
            "markers" if split else line.mode,
            name=line.label,
            line={"color": line.color, "width": 2, "dash": line.dash},
            marker={"size": size, "color": line.color, "symbol": marks if split else line.symbol},
            customdata=[with_interval(p) for p in line.points],
            hovertemplate="%{customdata}",
        ),
    ]


def _band(line: Line) -> list[dict[str, Any]]:
    ends = [
        (t, p.low, p.high)
        for t, p in enumerate(line.points)
        if p.low is not None and p.high is not None
    ]
    if len(ends) == 1:
        ((t, low, high),) = ends
        stroke = {"color": line.color, "width": 3}
        return [_trace([t, t], [low, high], "lines", opacity=0.5, line=stroke, hoverinfo="skip")]
    if not ends:
        return []
    return [
        _trace(
            [t for t, _, _ in ends] + [t for t, _, _ in reversed(ends)],
            [low for _, low, _ in ends] + [high for _, _, high in reversed(ends)],
            "lines",
            fill="toself",
            fillcolor=line.color,
            line={"width": 0, "color": line.color},
            opacity=0.16,
            hoverinfo="skip",
        )
    ]


def _labels(
    lines: Sequence[Line], low: float, high: float, log: bool, place: int | None
) -> list[dict[str, Any]]:
    """The name at the end of each line, pushed apart where lines end close together."""
    ends = []
    for line in (line for line in lines if line.named):
        t, value = max((t, p.value) for t, p in enumerate(line.points) if p.value is not None)
        ends.append((log10(value) if log and value > 0 else value, t, line))
    ends.sort(key=lambda e: e[0])
    pixels = (HEIGHT - TOP - BOTTOM) / (high - low)
    wanted = [(at - low) * pixels for at, _, _ in ends]
    placed = keep_apart(wanted, LABEL_GAP, 0.0, HEIGHT - TOP - BOTTOM + 6.0) if ends else []
    return [
        {
            "x": t if place is None else place,
            "y": at,
            "text": line.label,
            "showarrow": False,
            "xanchor": "left",
            "xshift": 7,
            "yshift": round(got - want, 1),
            "font": {"color": line.color, "size": 12},
        }
        for (at, t, line), want, got in zip(ends, wanted, placed, strict=True)
    ]
