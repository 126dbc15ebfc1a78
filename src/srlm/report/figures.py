"""The plots of a report: each a function from a summary to a plotly figure.

Figures hold numbers and our own words only, never text of a run. One colour a quantity on
every plot (Okabe and Ito's, told apart by the colour-blind), 95 % intervals as bands, names
written at the end of the line instead of a legend. ``DARK`` gives each colour's stand-in on
a dark page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import plotly.graph_objects as go

from srlm.report.summary import Summary
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


def charts(summary: Summary) -> tuple[Chart, ...]:
    """Every chart that the run has numbers for, in the order of the page."""
    return tuple(chart for make in CHARTS if (chart := make(summary)) is not None)


def accuracy(summary: Summary) -> Chart | None:
    """Confidence beside the three accuracies; without answers beside fidelity alone."""
    lines = [_line(summary, "confidence", ORANGE, dash="dash")]
    if summary.has_answers:
        lines += [
            _line(summary, "sampling_accuracy", BLUE),
            _line(summary, "greedy_accuracy", PURPLE, dash="dot", band=False),
            _line(summary, "mode_accuracy", GREEN),
        ]
        title = "Confidence and accuracy"
        caption = (
            "Sampling accuracy (blue) can rise to mode accuracy (green) and no further. "
            "Confidence (dashed) says how sure the policy is, not whether it is right."
        )
    else:
        lines.append(_line(summary, "fidelity", VERMILION))
        title = "Confidence and fidelity"
        caption = "How sure the policy is of its modes, and whether they are still the base's."
    known = [p.value for line in lines for p in line.points if p.value is not None]
    low = max(-0.03, min(known, default=0.0) - 0.12)
    return _chart("accuracy", title, caption, lines, y=(low, 1.04), wide=True)


def kappa(summary: Summary) -> Chart | None:
    """kappa by round, and what one exact round from the policy before would have given."""
    lines = [
        _line(summary, "kappa", BLUE, label="κ"),
        _line(summary, "kappa_ideal", FAINT, label="exact round", dash="dot", band=False),
    ]
    top = max(_known(summary, "kappa"), default=1.0)
    caption = (
        "Mean of 1/p*, at best 1. Dotted: one exact round from the policy before; "
        "the gap is the update's own error."
    )
    return _chart("kappa", "Condition number κ", caption, lines, bottom=1.0, log=top > 20)


def failure(summary: Summary) -> Chart | None:
    """F by round."""
    lines = [_line(summary, "failure_fraction", VERMILION, label="F")]
    caption = "Share of prompts whose likeliest response has probability 1/2 or less."
    return _chart("failure", "Failure fraction F", caption, lines, bottom=0.0)


def fidelity(summary: Summary) -> Chart | None:
    """Fidelity and greedy-is-mode by round."""
    lines = [
        _line(summary, "fidelity", VERMILION),
        _line(summary, "greedy_is_mode", FAINT, label="greedy = mode", dash="dot", band=False),
    ]
    caption = "Share of prompts whose mode is still the base's, and whose greedy response is it."
    low = min([*_known(summary, "fidelity"), *_known(summary, "greedy_is_mode")], default=0.0)
    y = (min(0.9, low) - 0.02, 1.01)
    return _chart("fidelity", "Fidelity", caption, lines, y=y)


def entropy(summary: Summary) -> Chart | None:
    """Entropy of the responses by round."""
    lines = [_line(summary, "entropy", PURPLE)]
    return _chart("entropy", "Entropy", "Of the responses to a prompt, nats.", lines, bottom=0.0)


def length(summary: Summary) -> Chart | None:
    """Mean length by round."""
    lines = [_line(summary, "length", GREEN)]
    caption = "Tokens a response; a collapse here is a failure to look into."
    return _chart("length", "Length", caption, lines, bottom=0.0)


def divergence(summary: Summary) -> Chart | None:
    """KL to the base by round."""
    lines = [_line(summary, "kl_to_base", ORANGE, label="KL")]
    caption = "Nats a response: how far the policy has moved from the base."
    return _chart("kl", "KL to the base", caption, lines, bottom=0.0)


def pace(summary: Summary) -> Chart | None:
    """Effective exponent by round beside that of exact updates, (1 + 1/beta)^t."""
    ideal = [summary.ideal_exponent(r.round) for r in summary.rounds]
    exact = [_point(x) for x in ideal]
    lines = [_line(summary, "exponent", BLUE, label="measured")]
    if not any(p.value is not None for p in lines[0].points):
        return None
    lines.append(Line("exact", FAINT, exact, dash="dot", band=False))
    caption = "The policy is near base^exponent. Dotted: exact rounds, (1 + 1/β)^round."
    return _chart("pace", "Pace: effective exponent", caption, lines, log=True)


def loss(summary: Summary) -> Chart | None:
    """Loss on the round's own data, before and after, above its floor."""
    done = [r for r in summary.rounds if r.loss_before is not None and r.loss_after is not None]
    if not done:
        return None
    lines = [
        Line("after", BLUE, [_point(r.loss_after) for r in summary.rounds], mode="markers"),
        Line("before", FAINT, [_point(r.loss_before) for r in summary.rounds], mode="markers"),
        Line("floor", FAINT, [_point(r.loss_floor) for r in summary.rounds], "dot"),
    ]
    caption = "On the round's own data. A small fall towards the floor: an under-trained round."
    chart = _chart("loss", "Loss before and after each update", caption, lines)
    if chart is not None:
        chart.figure.add_scatter(
            x=[x for r in done for x in (r.round, r.round, None)],
            y=[y for r in done for y in (r.loss_before, r.loss_after, None)],
            mode="lines",
            line={"color": BLUE, "width": 1.5},
            hoverinfo="skip",
        )
    return chart


CHARTS: tuple[Callable[[Summary], Chart | None], ...] = (
    accuracy,
    kappa,
    failure,
    fidelity,
    pace,
    loss,
    entropy,
    length,
    divergence,
)


def _point(x: float | None) -> Estimate:
    return Estimate(x, None, None, 0, "")


def _line(
    summary: Summary, name: str, color: str, dash: str = "solid", band: bool = True, label: str = ""
) -> Line:
    points = [r[name] for r in summary.rounds]
    return Line(label or name.replace("_accuracy", "").replace("_", " "), color, points, dash, band)


def _known(summary: Summary, name: str) -> list[float]:
    return [v for r in summary.rounds if (v := r[name].value) is not None]


def _chart(
    key: str,
    title: str,
    caption: str,
    lines: Sequence[Line],
    *,
    y: tuple[float, float] | None = None,
    bottom: float | None = None,
    log: bool = False,
    wide: bool = False,
) -> Chart | None:
    """Lines over rounds; None where no line has a value."""
    drawn = [line for line in lines if any(p.value is not None for p in line.points)]
    if not drawn:
        return None
    low, high = y or _span(drawn, bottom, log)
    figure = go.Figure()
    for line in drawn:
        if line.band:
            _add_band(figure, line)
    for line in reversed(drawn):
        rounds = list(range(len(line.points)))
        figure.add_scatter(
            x=rounds,
            y=[p.value for p in line.points],
            name=line.label,
            mode=line.mode,
            line={"color": line.color, "width": 2, "dash": line.dash},
            marker={"size": 6, "color": line.color},
            customdata=[_hover(p) for p in line.points],
            hovertemplate="%{customdata}",
        )
    last = max(len(line.points) for line in drawn) - 1
    _add_labels(figure, drawn, low, high, log)
    room = 18 + 7 * max(len(line.label) for line in drawn)
    figure.update_layout(
        template="none",
        height=HEIGHT + 40 * wide,
        margin={
            "l": 46,
            "r": 18 + 7 * max(len(line.label) for line in drawn),
            "t": TOP,
            "b": BOTTOM,
        },
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        font={"family": "system-ui, sans-serif", "size": 12, "color": FAINT},
        showlegend=False,
        hovermode="x unified",
        hoverlabel={"bgcolor": PAPER, "font": {"color": INK}, "bordercolor": GRID},
        dragmode=False,
        xaxis={
            "title": {"text": "round", "standoff": 6},
            "range": [-0.15, max(last, 1) + 0.15],
            "dtick": max(1, -(-last // 10)),
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
    figure: go.Figure, lines: Sequence[Line], low: float, high: float, log: bool
) -> None:
    """The name at the end of each line, pushed apart where lines end close together."""
    ends = []
    for line in lines:
        t, value = max((t, p.value) for t, p in enumerate(line.points) if p.value is not None)
        at = log10(value) if log and value > 0 else value
        ends.append((at, t, line))
    ends.sort(key=lambda e: e[0])
    pixels = (HEIGHT - TOP - BOTTOM) / (high - low)
    wanted = [(at - low) * pixels for at, _, _ in ends]
    placed = spread(wanted, LABEL_GAP, 0.0, HEIGHT - TOP - BOTTOM + 6.0)
    for (at, t, line), want, got in zip(ends, wanted, placed, strict=True):
        figure.add_annotation(
            x=t,
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
