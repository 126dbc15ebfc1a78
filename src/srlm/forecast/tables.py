"""The tables of a forecast's page: rounds, the base, the controls, the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from srlm.config import flatten
from srlm.forecast.figures import controls as controls_chart
from srlm.forecast.figures import log_kappa
from srlm.forecast.foretell import Forecast
from srlm.forecast.trajectory import Point
from srlm.report.chart import grid
from srlm.report.markup import safe, table
from srlm.report.words import MEANINGS, NAMES, interval, number, percent
from srlm.types import Estimate

BASE = (
    "kappa", "log10_kappa", "failure_fraction", "confidence", "least_confidence", "margin",
    "greedy_is_mode", "sampling_accuracy", "greedy_accuracy", "mode_accuracy", "entropy",
    "length", "truncated", "distinct_responses",
)  # fmt: skip
TOLD = {
    "margin": "log-probability of the likeliest response above the runner-up, nats; the least",
    "greedy_is_mode": "share of prompts where greedy decoding finds the likeliest response",
}


def by_round(found: Forecast) -> str:
    """Every number of every round; other betas folded away."""
    others = "".join(
        f"<details><summary>β {beta:g}</summary>{_rounds(found, points)}</details>"
        for beta, points in found.trajectories.items()
        if beta != found.beta
    )
    any_weak = any(not p.supported for points in found.trajectories.values() for p in points)
    dagger = "<p class=faint>† extrapolated, beyond what the draws support.</p>" if any_weak else ""
    return f"""<section><h2>Every round, β {found.beta:g}</h2>
<p class="faint">Power: exact round t is the base to the power (1 + 1/β)<sup>t</sup>, normalised.
Draws that carry it: the effective sample size of a prompt, the median. Supported: share of prompts
with 8 of them or more, or where what is known for certain makes up 95 %.</p>
{_rounds(found, found.points)}{dagger}{others}</section>"""


def _rounds(found: Forecast, points: list[Point]) -> str:
    answers = found.has_answers
    head = ["round", "power", "log₁₀ κ" if log_kappa(found) else "κ", "F", "confidence"]
    head += ["sampling<small>accuracy</small>", "answers<small>accuracy</small>"] * answers
    head += ["length<small>tokens</small>", "entropy<small>nats</small>",
             "draws<small>that carry it</small>", "supported"]  # fmt: skip
    return table(head, [_round(found, p, answers) for p in [*points, found.end]], "numbers")


def _round(found: Forecast, p: Point, answers: bool) -> list[str]:
    end, size = p.round == float("inf"), p.effective_sample_size
    accuracies = [_cell(p.sampling_accuracy), _cell(p.answer_accuracy)] * answers
    return [
        ("∞" if end else f"{p.round:g}") + ("" if p.supported else " †"),
        "∞" if end else f"{p.exponent:.3g}",
        _cell(p.log10_kappa if log_kappa(found) else p.kappa),
        _cell(p.failure_fraction),
        _cell(p.confidence),
        *accuracies,
        _cell(p.length, 1),
        _cell(p.entropy, 2),
        "all" if size == float("inf") else f"{size:.0f}",
        percent(p.supported_share),
    ]


def _cell(e: Estimate, digits: int = 3) -> str:
    spread = interval(e.low, e.high, digits)
    return number(e.value, digits) + (f"<small>{spread}</small>" if spread else "")


def base(found: Forecast) -> str:
    """The base's key figures with interval, method and guarantee."""
    estimates = found.measurement.estimates
    rows = [
        _figure(NAMES[name], TOLD.get(name, MEANINGS[name]), estimates[name])
        for name in BASE
        if (estimates[name].value is not None or not name.endswith("accuracy"))
        and (name != "log10_kappa" or log_kappa(found))
    ]
    level = found.answers
    if level is not None:
        text = "likeliest answer instead of likeliest response; at most κ"
        rows.insert(1, _figure("κ of answers", text, level.certain.kappa()))
        if level.tested is not None:
            text = "the same, chosen on half of the draws and tested on the others"
            tested = level.tested.kappa()
            if tested.value == float("inf"):
                why = "some chosen answer was not drawn again: no finite bound from so few draws"
                tested = replace(tested, note=why)
            rows.insert(2, _figure("κ of answers, tested", text, tested))
    return f"""<section><h2>The base as it is</h2>
<p class="faint">Value and 95 % interval over the {len(found.measurement.prompts)} prompts; what the
number is worth beyond the choice of prompts is its guarantee.</p>
{table(["", "value", "method", "guarantee"], rows)}</section>"""


def _figure(name: str, meaning: str, e: Estimate) -> list[str]:
    title = name if name.startswith(("κ", "log")) else name[0].upper() + name[1:]
    note = f"<small>{safe(e.note, 300)}</small>" if e.note else ""
    finite = e.value is None or e.value < float("inf")
    return [
        f"{title}<small>{meaning}</small>",
        f'<span class="num">{_cell(e) if finite else "∞"}</span>',
        safe(e.method, 200),
        safe(e.guarantee, 200) + note,
    ]


def controls(found: Forecast) -> str:
    """What the same base gives without any training."""
    level, chart = found.answers, controls_chart(found)
    if level is None or chart is None:
        return ""
    rows = [[str(k), _cell(level.majority[k]), _cell(level.passed[k])] for k in level.majority]
    head = ["draws<small>a prompt</small>", "majority vote<small>is right</small>",
            "at least one<small>is right</small>"]  # fmt: skip
    return f"""<section><h2>The controls: no training at all</h2>
<p>A majority vote over draws of the base costs its draws at every use and no training. Training
that ends no higher buys speed at use, not quality. “At least one” is what a perfect judge could
pick out of the draws.</p>
{grid([chart])}{table(head, rows, "numbers")}</section>"""


def settings(given: Mapping[str, object]) -> str:
    """What was asked."""
    if not given:
        return ""
    rows = "\n".join(
        f'<tr><th scope="row">{safe(key, 80)}</th><td class="value">{safe(value, 300)}</td></tr>'
        for key, value in flatten(dict(given)).items()
    )
    return f"""<section><h2>What was asked</h2><details><summary>Settings</summary>
<div class="scroll"><table>{rows}</table></div></details></section>"""
