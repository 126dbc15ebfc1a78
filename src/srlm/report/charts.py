"""What each chart shows: of a run, of its gap to exact updates, of a forecast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from srlm.forecast.from_samples import SamplesForecast
from srlm.forecast.reward_paths import EXTRAPOLATED
from srlm.forecast.trajectory import Point
from srlm.report.gap import Gap
from srlm.report.plots import (
    BLUE,
    COLORS,
    FAINT,
    GREEN,
    ORANGE,
    PURPLE,
    VERMILION,
    Chart,
    Line,
    line_chart,
    point,
)
from srlm.report.summary import Summary
from srlm.run_folder import aim_of
from srlm.types import Estimate

if TYPE_CHECKING:
    from srlm.forecast.make import Forecast

DASHED = " Hollow and dashed: extrapolated, beyond what the samples support."
TITLES = {
    "kappa": "Condition number κ",
    "log10_kappa": "Condition number, log₁₀ κ",
    "confidence": "Confidence",
    "sampling_accuracy": "Sampling accuracy",
}
FORETOLD = {
    "sampling_accuracy": "Sampling accuracy: forecast and measured",
    "vote_share": "Vote share: forecast and measured",
    "kappa_vote": "κ of votes: forecast and measured",
    "readable": "Parseable responses: forecast and measured",
    "confidence": "Confidence: forecast and measured",
    "kappa": "κ: forecast and measured",
}
SURE = "how sure the policy is of its most likely response, not whether it is right."


def of_run(s: Summary) -> tuple[Chart, ...]:
    """Every chart that the run has numbers for, in the order of the page."""

    def line(
        name: str, color: str, dash: str = "solid", band: bool = True, label: str = ""
    ) -> Line:
        text = label or name.replace("_accuracy", "").replace("_", " ")
        return Line(text, color, [r[name] for r in s.rounds], dash, band)

    def values(*names: str) -> list[float]:
        return [v for r in s.rounds for name in names if (v := r[name].value) is not None]

    aim = aim_of(s.config)
    votes = aim == "answers" and bool(values("vote_share"))
    sure = [line("vote_share" if votes else "confidence", ORANGE, "dash")]
    if s.has_answers:
        limit = "vote_accuracy" if votes else "mode_accuracy"
        names = ["confidence", "sampling_accuracy", "greedy_accuracy", limit]
        title = "Vote share and accuracy" if votes else "Confidence and accuracy"
        caption = f"Confidence: {SURE}"
        if votes:
            names[0] = "vote_share"
            caption = "Limit of sampling accuracy (blue): accuracy of the votes (green)."
        elif aim == "responses":
            caption = f"Limit of sampling accuracy (blue): mode accuracy (green). {caption}"
        sure += [
            line("sampling_accuracy", BLUE),
            line("greedy_accuracy", PURPLE, "dot", band=False),
            line(limit, GREEN),
        ]
    else:
        same = "answer_agreement" if votes else "fidelity"
        names, title = [sure[0].label.replace(" ", "_"), same], "Confidence and fidelity"
        caption = f"Confidence: {SURE} Fidelity: whether the modes are still the base's."
        if votes:
            title = "Vote share and votes kept"
            caption = "Votes kept: whether majority answers are still the base's."
        sure.append(line(same, VERMILION))
    low = max(-0.03, min(values(*names), default=0.0) - 0.12)

    kappa = [line(s.kappa_name, BLUE, label="log κ" if s.kappa_name == "log10_kappa" else "κ")]
    meaning = "Mean of 1/p*, as a power of ten; best is 0."
    if s.kappa_name == "kappa":
        meaning = "Mean of 1/p*; best is 1."
        if aim == "responses":
            kappa.append(line("kappa_ideal", FAINT, "dot", False, "exact update"))
            meaning += " Dotted: one exact update of the policy before."
        elif votes:
            meaning += " Votes may raise it, where they give up likely responses."
    faithful = min(values("fidelity", "greedy_is_mode"), default=0.0)

    pace = [line("exponent", BLUE, label="measured")] if aim == "responses" else []
    if pace and values("exponent"):
        exact = [point(s.ideal_exponent(r.round)) for r in s.rounds]
        pace.append(Line("exact", FAINT, exact, "dot", band=False))
    losses = [
        (r.round, r.loss_before, r.loss_after)
        for r in s.rounds
        if r.loss_before is not None and r.loss_after is not None
    ]
    loss = [
        Line("after", BLUE, [point(r.loss_after) for r in s.rounds], mode="markers"),
        Line("before", FAINT, [point(r.loss_before) for r in s.rounds], mode="markers"),
        Line("floor", FAINT, [point(r.loss_floor) for r in s.rounds], "dot"),
    ]
    made = (
        line_chart("confidence", title, caption, sure, y=(low, 1.04), wide=True),
        line_chart(
            "kappa", TITLES[s.kappa_name], meaning, kappa,
            bottom=1.0 if s.kappa_name == "kappa" else 0.0,
            log=s.kappa_name == "kappa" and max(values("kappa"), default=1.0) > 20,
        ),
        line_chart("votes", "Votes", "Share of samples with their prompt's majority answer; with "
                   "the base's; with any; share of prompts whose majority flipped in the round.",
                   [line("vote_share", ORANGE), line("base_answer_share", BLUE,
                    label="the base's answers"), line("readable", GREEN, label="parseable"),
                    line("vote_flips", VERMILION)], y=(-0.02, 1.04))
        if values("vote_share") else None,
        line_chart("kappa-vote", "κ of votes", "Mean of 1 / vote share; best is 1; biased "
                   "down by few samples.", [line("kappa_vote", BLUE, label="κ of votes")],
                   bottom=1.0, log=max(values("kappa_vote"), default=1.0) > 20)
        if values("kappa_vote") else None,
        line_chart("failure", "Failure fraction F", "Share of prompts with p* ≤ 1/2.",
                   [line("failure_fraction", VERMILION, label="F")], bottom=0.0),
        line_chart("fidelity", "Fidelity", "Share of prompts whose mode is still the base's; "
                   "dotted: whose greedy response is the mode.",
                   [line("fidelity", VERMILION),
                    line("greedy_is_mode", FAINT, "dot", False, "greedy = mode")],
                   y=(min(0.9, faithful) - 0.02, 1.01)),
        line_chart("pace", "Pace: effective exponent", "The policy is near base^exponent. Dotted: "
                   "exact updates, (1 + 1/β)^round.", pace, log=True),
        line_chart("loss", "Loss before and after each update", "On the round's own pairs. Far "
                   "from its floor: an under-trained round.", loss if losses else [],
                   between=losses),
        line_chart("entropy", "Entropy", "Of the responses to a prompt, nats.",
                   [line("entropy", PURPLE)], bottom=0.0),
        line_chart("length", "Length", "Tokens per response. A collapse is a failure.",
                   [line("length", GREEN)], bottom=0.0),
        line_chart("kl", "KL to the base", "Nats per response: distance from the base.",
                   [line("kl_to_base", ORANGE, label="KL")], bottom=0.0),
    )  # fmt: skip
    return tuple(chart for chart in made if chart is not None)


def of_forecasts(s: Summary) -> tuple[Chart, ...]:
    """Measured rounds beside the forecast before any round and the one after the first."""
    last = max([s.last.round, *s.later_rounds])
    charts = []
    for name, title in FORETOLD.items():
        if name not in s.forecast_names:
            continue
        lines = []
        for color, dash, made in ((FAINT, "dot", 0), (ORANGE, "dash", 1)):
            found = [f for f in s.forecasts if f.made == made]
            if found:
                points = [found[0].later.get(t, {}).get(name, point(None)) for t in range(last + 1)]
                if made <= s.last.round:
                    points[made] = point(s.rounds[made][name].value)
                known = [t not in found[0].extrapolated for t in range(last + 1)]
                label = f"after round {made}"
                lines.append(Line(label, color, points, dash, supported=known))
        seen = [r[name] for r in s.rounds] + [point(None)] * (last - s.last.round)
        lines.append(Line("measured", BLUE, seen, band=False))
        caption = (
            "Dotted and dashed: forecast after that round, with its band; hollow: extrapolated."
        )
        charts.append(line_chart(f"ahead-{name}", title, caption, lines))
    return tuple(chart for chart in charts if chart is not None)


def of_gap(gap: Gap) -> tuple[Chart, ...]:
    """Measured, at the measured exponent, and exact updates: one chart per quantity."""
    last = gap.rounds[-1].round  # rounds without an exponent have no place on the lines
    at = {r.round: r for r in gap.rounds}
    supported = [at[t].supported if t in at else True for t in range(last + 1)]
    charts = []
    for name in gap.names:

        def points(which: str, name: str = name) -> list[Estimate]:
            return [
                getattr(at[t].parts[name], which) if t in at else point(None)
                for t in range(last + 1)
            ]

        lines = [
            Line("exact", FAINT, points("exact"), "dot", band=False, supported=supported),
            Line("at exponent", ORANGE, points("at_exponent"), band=False),
            Line("measured", BLUE, points("measured")),
        ]
        top = max((p.value or 1.0 for line in lines for p in line.points), default=1.0)
        caption = "Grey to orange: pace. Orange to blue: drift."
        charts.append(
            line_chart(
                f"gap-{name}", f"{TITLES[name]}: measured and exact updates",
                caption + ("" if all(supported) else DASHED), lines,
                bottom=1.0 if name == "kappa" else None, log=name == "kappa" and top > 20,
            )
        )  # fmt: skip
    return tuple(chart for chart in charts if chart is not None)


def of_forecast(found: Forecast) -> tuple[Chart, ...]:
    """The trajectory: rounds 0 to T, and the limit at the place after them."""
    ticks = [*(str(t) for t in range(len(found.points))), "∞"]
    everything = [p for points in found.trajectories.values() for p in points]
    dashed = "" if all(p.supported for p in everything) else DASHED

    def draw(
        key: str, title: str, caption: str, lines: list[Line], log: bool = False,
        bottom: float | None = None, y: tuple[float, float] | None = None, wide: bool = False,
    ) -> Chart | None:  # fmt: skip
        return line_chart(
            key, title, caption + dashed, lines, y=y, bottom=bottom, log=log, wide=wide,
            ticks=ticks, labels_at=len(found.points),
        )  # fmt: skip

    def path(label: str, color: str, points: Sequence[Point], name: str, band: bool = True) -> Line:
        values = [getattr(p, name) for p in points]
        supported = [p.supported for p in points]
        mode = "lines+markers" if band else "lines"
        return Line(label, color, values, band=band, mode=mode, supported=supported)

    def limit(color: str, name: str) -> Line:
        points = [*(point(None) for _ in found.points), getattr(found.end, name)]
        return Line("limit", color, points, mode="markers", symbol="diamond", named=False)

    def by_beta(
        key: str, title: str, color: str, name: str, caption: str,
        bottom: float | None = 0.0, log: bool = False,
    ) -> Chart | None:  # fmt: skip
        others = [
            path(f"β {beta:g}", FAINT, points, name, band=False)
            for beta, points in found.trajectories.items()
            if beta != found.beta
        ]
        own = path(f"β {found.beta:g}", color, found.points, name)
        return draw(key, title, caption, [*others, own, limit(color, name)], log, bottom)

    sure = [path("confidence", ORANGE, found.points, "confidence"), limit(ORANGE, "confidence")]
    title, caption = "Confidence", f"Confidence: {SURE}"
    if found.has_answers:
        answers = [p.answer_accuracy for p in found.points]
        supported = [p.supported for p in found.points]
        sure += [
            path("sampling", BLUE, found.points, "sampling_accuracy"),
            limit(BLUE, "sampling_accuracy"),
            Line("answers", PURPLE, answers, "dot", band=False, supported=supported),
        ]
        title = "Confidence and accuracy"
        caption = (
            "Limit of sampling accuracy (blue): mode accuracy (diamond). Dotted: share of prompts "
            f"whose most likely answer, summed over responses, is right. {caption}"
        )
    known = [p.value for line in sure for p in line.points if p.value is not None]
    low = max(-0.03, min(known) - 0.1)
    first = found.points[0].kappa.value or 1.0
    made = [
        draw("sureness", f"{title}, β {found.beta:g}", caption, sure, y=(low, 1.04), wide=True),
        by_beta("kappa", TITLES["log10_kappa"], BLUE, "log10_kappa",
                "Mean of 1/p*, as a power of ten; best is 0.")
        if found.log_kappa
        else by_beta("kappa", TITLES["kappa"], BLUE, "kappa", "Mean of 1/p*; best is 1.",
                     1.0, first > 20),
        by_beta("failure", "Failure fraction F", VERMILION, "failure_fraction",
                "Share of prompts with p* ≤ 1/2."),
        by_beta("accuracy", "Sampling accuracy", GREEN, "sampling_accuracy",
                "Smaller β: larger steps along the same path, to the same limit.", None)
        if found.has_answers
        else None,
        by_beta("length", "Length", GREEN, "length", "Tokens per response, end token included."),
        by_beta("entropy", "Entropy", PURPLE, "entropy", "Of the responses to a prompt, nats."),
    ]  # fmt: skip
    return tuple(chart for chart in made if chart is not None)


def of_votes(found: Forecast) -> tuple[Chart, ...]:
    """Majority vote and pass@k over the samples spent per prompt, beside mode accuracy."""
    level = found.answers
    if level is None:
        return ()
    caption = "Accuracy of the base by samples per prompt. Dotted: mode accuracy, the limit."
    ceiling = found.measurement.estimates["mode_accuracy"]
    return _by_samples(level.majority, level.passed, "mode accuracy", ceiling, "prompt", caption)


def of_samples(found: SamplesForecast) -> tuple[Chart, ...]:
    """Accuracy and kappa_answer by round, a line a reward."""
    T = len(found.paths[0].accuracy)
    ticks = [str(t) for t in range(T)] + ["∞"]
    end = found.destination.get("accuracy")
    lines = [
        Line(
            path.reward,
            COLORS[i % len(COLORS)],
            path.accuracy,
            dash=("solid", "dash", "dot")[i // len(COLORS) % 3],
            band=i == 0,
            supported=[e.guarantee != EXTRAPOLATED for e in path.accuracy],
        )
        for i, path in enumerate(found.paths)
    ]
    if end is not None:
        points = [*(point(None) for _ in range(T)), end]
        lines.append(Line("limit", BLUE, points, mode="markers", symbol="diamond", named=False))
    dashed = DASHED if any(not all(line.supported or (True,)) for line in lines) else ""
    kappas = [
        Line(path.reward, COLORS[i % len(COLORS)], path.kappa, band=i == 0)
        for i, path in enumerate(found.paths)
        if path.kappa[0].value is not None
    ]
    first = found.base["kappa_answer"].value or 1.0
    made = (
        line_chart(
            "accuracy", "Sampling accuracy",
            "Diamond: the limit of every vote, with its interval." + dashed, lines,
            wide=True, ticks=ticks, labels_at=T,
        ),
        line_chart(
            "kappa", "κ of answers", "Mean of 1 / share of the commonest answer; best is 1. It "
            "rises as responses without an answer, alike or not, are given up.",
            kappas, bottom=1.0, log=first > 20, wide=True,
        ),
    )  # fmt: skip
    return tuple(chart for chart in made if chart is not None)


def of_vote_curve(found: SamplesForecast) -> tuple[Chart, ...]:
    """Majority vote over the samples spent per query, beside its limit."""
    caption = "Accuracy by samples per query. Dotted: the limit."
    end = found.destination.get("accuracy")
    return () if end is None else _by_samples(found.vote, {}, "limit", end, "query", caption)


def _by_samples(
    vote: Mapping[int, Estimate],
    passed: Mapping[int, Estimate],
    name: str,
    limit: Estimate,
    unit: str,
    caption: str,
) -> tuple[Chart, ...]:
    ks = list(vote)
    lines = [Line("majority vote", BLUE, [vote[k] for k in ks])]
    if passed:
        lines.append(Line("pass@k", ORANGE, [passed[k] for k in ks]))
    lines.append(Line(name, GREEN, [limit] * len(ks), "dot", band=False, mode="lines"))
    chart = line_chart(
        "votes", "Without training", caption, lines, wide=True, x_title=f"samples per {unit}",
        ticks=[str(k) for k in ks],
    )  # fmt: skip
    return () if chart is None or not ks else (chart,)
