"""The plots of a forecast: numbers and our own words only, never text of a model."""

from __future__ import annotations

from collections.abc import Callable

from srlm.forecast.foretell import Forecast
from srlm.forecast.trajectory import Point
from srlm.report.chart import BLUE, FAINT, GREEN, ORANGE, PURPLE, VERMILION, Chart, Line, line_chart
from srlm.report.read import LARGE
from srlm.types import Estimate

Pick = Callable[[Point], Estimate]
DASHED = " Hollow and dashed: extrapolated, beyond what the draws support."
NONE = Estimate(None, None, None, 0, "")


def charts(found: Forecast) -> tuple[Chart, ...]:
    """The trajectory's charts, in the order of the page."""
    made = (sureness(found), kappa(found), failure(found), accuracy(found), length(found))
    return tuple(chart for chart in (*made, entropy(found)) if chart is not None)


def log_kappa(found: Forecast) -> bool:
    """Whether kappa is so large that its logarithm is the number to read."""
    value = found.points[0].kappa.value
    return value is None or not value <= LARGE


def firm(points: list[Point]) -> list[bool]:
    """Whether each round is carried by the draws."""
    return [p.supported for p in points]


def sureness(found: Forecast) -> Chart | None:
    """Confidence, sampling accuracy and answer-level accuracy at the beta asked for."""
    lines = _to_end(found, "confidence", ORANGE, lambda p: p.confidence)
    if found.has_answers:
        lines += _to_end(found, "sampling", BLUE, lambda p: p.sampling_accuracy)
        answers = [p.answer_accuracy for p in found.points]
        carried = firm(found.points)
        lines.append(Line("answers", PURPLE, answers, "dot", band=False, firm=carried))
        title = f"Confidence and accuracy, β {found.beta:g}"
        caption = (
            "Sampling accuracy (blue) goes to mode accuracy, its destination (diamond). "
            "Answers (dotted): share of prompts whose likeliest answer, over all "
            "responses that give it, is right. Confidence says how sure the policy is, not "
            "whether it is right."
        )
    else:
        title = f"Confidence, β {found.beta:g}"
        caption = "How sure the policy is of its likeliest response; not whether it is right."
    known = [p.value for line in lines for p in line.points if p.value is not None]
    y = (max(-0.03, min(known) - 0.1), 1.04)
    return _chart(found, "sureness", title, caption, lines, y=y, wide=True)


def kappa(found: Forecast) -> Chart | None:
    """kappa by round and beta, on its logarithm where it is astronomical."""
    if log_kappa(found):
        return _by_beta(
            found, "kappa", "Condition number, log₁₀ κ", BLUE, lambda p: p.log10_kappa,
            "Mean of 1/p* as a power of ten; at best 0.", bottom=0.0,
        )  # fmt: skip
    high = (found.points[0].kappa.value or 1.0) > 20
    caption = "Mean of 1/p*; 1 where the policy is sure of one response everywhere."
    return _by_beta(
        found, "kappa", "Condition number κ", BLUE, lambda p: p.kappa, caption, 1.0, high
    )


def failure(found: Forecast) -> Chart | None:
    """F by round and beta."""
    caption = "Share of prompts whose likeliest response has probability 1/2 or less."
    return _by_beta(
        found, "failure", "Failure fraction F", VERMILION, lambda p: p.failure_fraction, caption, 0
    )


def accuracy(found: Forecast) -> Chart | None:
    """Sampling accuracy by round and beta."""
    if not found.has_answers:
        return None
    caption = "Smaller β takes larger steps along the same path; the destination is the same."
    return _by_beta(
        found, "accuracy", "Sampling accuracy", GREEN, lambda p: p.sampling_accuracy, caption
    )


def length(found: Forecast) -> Chart | None:
    """Mean length by round and beta."""
    caption = "Tokens a response, the end included. A fall to short answers is a collapse."
    return _by_beta(found, "length", "Length", GREEN, lambda p: p.length, caption, 0.0)


def entropy(found: Forecast) -> Chart | None:
    """Entropy by round and beta."""
    caption = "Of the responses to a prompt, nats; 0 where one response is certain."
    return _by_beta(found, "entropy", "Entropy", PURPLE, lambda p: p.entropy, caption, 0.0)


def controls(found: Forecast) -> Chart | None:
    """Majority vote and pass@k over the number of draws; mode accuracy beside them."""
    level = found.answers
    if level is None or not level.majority:
        return None
    ks = list(level.majority)
    ceiling = found.measurement.estimates["mode_accuracy"]
    lines = [
        Line("majority vote", BLUE, [level.majority[k] for k in ks]),
        Line("one of them", ORANGE, [level.passed[k] for k in ks]),
        Line("mode accuracy", GREEN, [ceiling] * len(ks), "dot", band=False, mode="lines"),
    ]
    caption = (
        "Right answers from the base as it is, over the draws spent on each prompt. Dotted: mode "
        "accuracy, where self-rewarding ends."
    )
    return line_chart(
        "controls", "Without training", caption, lines, wide=True,
        x_title="draws a prompt", ticks=[str(k) for k in ks],
    )  # fmt: skip


def _by_beta(
    found: Forecast,
    key: str,
    title: str,
    color: str,
    pick: Pick,
    caption: str,
    bottom: float | None = None,
    log: bool = False,
) -> Chart | None:
    """One line a beta, the one asked for in colour and with its band, and the destination."""
    lines = [
        Line(f"β {beta:g}", FAINT, [pick(p) for p in points], band=False,
             firm=firm(points), mode="lines")
        for beta, points in found.trajectories.items()
        if beta != found.beta
    ]  # fmt: skip
    lines += [
        Line(
            f"β {found.beta:g}",
            color,
            [pick(p) for p in found.points],
            firm=firm(found.points),
        ),
        _destination(found, color, pick(found.end)),
    ]
    return _chart(found, key, title, caption, lines, bottom=bottom, log=log)


def _to_end(found: Forecast, label: str, color: str, pick: Pick) -> list[Line]:
    points = [pick(p) for p in found.points]
    line = Line(label, color, points, firm=firm(found.points))
    return [line, _destination(found, color, pick(found.end))]


def _destination(found: Forecast, color: str, end: Estimate) -> Line:
    points = [NONE] * len(found.points) + [end]
    return Line("destination", color, points, mode="markers", symbol="diamond", named=False)


def _chart(
    found: Forecast,
    key: str,
    title: str,
    caption: str,
    lines: list[Line],
    *,
    y: tuple[float, float] | None = None,
    bottom: float | None = None,
    log: bool = False,
    wide: bool = False,
) -> Chart | None:
    dashed = not all(all(line.firm) for line in lines)
    return line_chart(
        key, title, caption + (DASHED if dashed else ""), lines, y=y, bottom=bottom, log=log,
        wide=wide, ticks=[*(str(t) for t in range(len(found.points))), "∞"],
        labels_at=len(found.points),
    )  # fmt: skip
