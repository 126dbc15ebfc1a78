"""Plotly figures as plain data, in the colours of the reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from srlm.report.chart import BLUE, FAINT, GREEN, GRID, INK, ORANGE, PAPER, PURPLE, VERMILION

COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE)
__all__ = ["BLUE", "COLORS", "FAINT", "GREEN", "ORANGE", "PURPLE", "VERMILION", "figure", "line"]


def line(
    x: Iterable[Any],
    y: Iterable[Any],
    name: str,
    color: str = BLUE,
    *,
    dash: str = "solid",
    mode: str = "lines+markers",
    low: Sequence[Any] | None = None,
    high: Sequence[Any] | None = None,
    axis: str = "",
) -> dict[str, Any]:
    """One series; ``low`` and ``high`` draw 95 % bars; ``axis`` "2", "3", ... picks a panel."""
    values = list(y)
    trace: dict[str, Any] = {
        "type": "scatter",
        "x": list(x),
        "y": values,
        "name": name,
        "mode": mode,
        "line": {"color": color, "width": 2, "dash": dash},
        "marker": {"color": color, "size": 6},
    }
    if low is not None and high is not None:
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [_gap(h, v) for h, v in zip(high, values, strict=True)],
            "arrayminus": [_gap(v, b) for b, v in zip(low, values, strict=True)],
            "color": color,
            "thickness": 1,
            "width": 3,
        }
    if axis:
        trace |= {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}
    return trace


def _gap(a: float | None, b: float | None) -> float:
    return 0.0 if a is None or b is None else max(0.0, a - b)


def figure(
    traces: Sequence[dict[str, Any]],
    x: str | Sequence[str],
    y: str | Sequence[str],
    *,
    log_x: bool | Sequence[bool] = False,
    log_y: bool | Sequence[bool] = False,
    height: int = 380,
) -> dict[str, Any]:
    """A figure of one panel, or of several side by side where titles are given as lists."""
    xs, ys = ([x] if isinstance(x, str) else list(x)), ([y] if isinstance(y, str) else list(y))
    count = max(len(xs), len(ys))
    xs, ys = _each(xs, count), _each(ys, count)
    logs_x = _each([log_x] if isinstance(log_x, bool) else list(log_x), count)
    logs_y = _each([log_y] if isinstance(log_y, bool) else list(log_y), count)
    layout: dict[str, Any] = {
        "height": height,
        "margin": {"l": 58, "r": 14, "t": 12, "b": 44},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": FAINT},
        "legend": {"orientation": "h", "y": -0.2, "yanchor": "top", "font": {"color": INK}},
        "hoverlabel": {"bgcolor": PAPER, "font": {"color": INK}, "bordercolor": GRID},
        "dragmode": False,
    }
    gap = 0.09
    width = (1.0 - gap * (count - 1)) / count
    for i in range(count):
        n = "" if i == 0 else str(i + 1)
        begin = i * (width + gap)
        shared = {"zeroline": False, "gridcolor": GRID, "linecolor": GRID, "fixedrange": True}
        layout[f"xaxis{n}"] = shared | {
            "title": {"text": xs[i], "standoff": 6},
            "type": "log" if logs_x[i] else "linear",
            "domain": [round(begin, 4), round(min(1.0, begin + width), 4)],
            "anchor": f"y{n}",
            "showline": True,
            **({"dtick": 1, "exponentformat": "power"} if logs_x[i] else {}),
        }
        layout[f"yaxis{n}"] = shared | {
            "title": {"text": ys[i], "standoff": 6},
            "type": "log" if logs_y[i] else "linear",
            "anchor": f"x{n}",
            **({"exponentformat": "power", "nticks": 6} if logs_y[i] else {}),
        }
    return {"data": list(traces), "layout": layout}


def _each(values: list[Any], count: int) -> list[Any]:
    return values * count if len(values) == 1 else values
