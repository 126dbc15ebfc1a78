"""The plots of a report: each a function from a summary to a chart, or None without numbers.

Figures hold numbers and our own words only, never text of a run.
"""

from __future__ import annotations

from collections.abc import Callable

from srlm.report.chart import BLUE, FAINT, GREEN, ORANGE, PURPLE, VERMILION, Chart, Line, line_chart
from srlm.report.summary import Summary
from srlm.types import Estimate


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
    return line_chart("confidence", title, caption, lines, y=(low, 1.04), wide=True)


def kappa(summary: Summary) -> Chart | None:
    """kappa by round, and what one exact round from the policy before would have given."""
    if summary.kappa_name == "log10_kappa":
        caption = "Mean of 1/p*, as a power of ten; at best 0."
        lines = [_line(summary, "log10_kappa", BLUE, label="log κ")]
        return line_chart("kappa", "Condition number, log₁₀ κ", caption, lines, bottom=0.0)
    lines = [
        _line(summary, "kappa", BLUE, label="κ"),
        _line(summary, "kappa_ideal", FAINT, label="exact round", dash="dot", band=False),
    ]
    top = max(_known(summary, "kappa"), default=1.0)
    caption = (
        "Mean of 1/p*, at best 1. Dotted: one exact round from the policy before; "
        "the gap is the update's own error."
    )
    return line_chart("kappa", "Condition number κ", caption, lines, bottom=1.0, log=top > 20)


def failure(summary: Summary) -> Chart | None:
    """F by round."""
    lines = [_line(summary, "failure_fraction", VERMILION, label="F")]
    caption = "Share of prompts whose likeliest response has probability 1/2 or less."
    return line_chart("failure", "Failure fraction F", caption, lines, bottom=0.0)


def fidelity(summary: Summary) -> Chart | None:
    """Fidelity and greedy-is-mode by round."""
    lines = [
        _line(summary, "fidelity", VERMILION),
        _line(summary, "greedy_is_mode", FAINT, label="greedy = mode", dash="dot", band=False),
    ]
    caption = "Share of prompts whose mode is still the base's, and whose greedy response is it."
    low = min([*_known(summary, "fidelity"), *_known(summary, "greedy_is_mode")], default=0.0)
    y = (min(0.9, low) - 0.02, 1.01)
    return line_chart("fidelity", "Fidelity", caption, lines, y=y)


def entropy(summary: Summary) -> Chart | None:
    """Entropy of the responses by round."""
    lines = [_line(summary, "entropy", PURPLE)]
    return line_chart(
        "entropy", "Entropy", "Of the responses to a prompt, nats.", lines, bottom=0.0
    )


def length(summary: Summary) -> Chart | None:
    """Mean length by round."""
    lines = [_line(summary, "length", GREEN)]
    caption = "Tokens a response; a collapse here is a failure to look into."
    return line_chart("length", "Length", caption, lines, bottom=0.0)


def divergence(summary: Summary) -> Chart | None:
    """KL to the base by round."""
    lines = [_line(summary, "kl_to_base", ORANGE, label="KL")]
    caption = "Nats a response: how far the policy has moved from the base."
    return line_chart("kl", "KL to the base", caption, lines, bottom=0.0)


def pace(summary: Summary) -> Chart | None:
    """Effective exponent by round beside that of exact updates, (1 + 1/beta)^t."""
    ideal = [summary.ideal_exponent(r.round) for r in summary.rounds]
    exact = [_point(x) for x in ideal]
    lines = [_line(summary, "exponent", BLUE, label="measured")]
    if not any(p.value is not None for p in lines[0].points):
        return None
    lines.append(Line("exact", FAINT, exact, dash="dot", band=False))
    caption = "The policy is near base^exponent. Dotted: exact rounds, (1 + 1/β)^round."
    return line_chart("pace", "Pace: effective exponent", caption, lines, log=True)


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
    chart = line_chart("loss", "Loss before and after each update", caption, lines)
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
