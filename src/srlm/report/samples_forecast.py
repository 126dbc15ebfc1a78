"""What ``srlm forecast --samples FILE`` prints."""

from __future__ import annotations

from rich.console import Console

from srlm.forecast.from_samples import SamplesForecast
from srlm.report.terminal import STYLES, facts_table, headline, note, rounds_table, title
from srlm.report.words import number
from srlm.types import Estimate

BASE = {
    "accuracy": "accuracy",
    "readable": "readable",
    "truncated": "cut off",
    "vote_share": "vote share",
    "effective_answers": "answers, effective",
    "kappa_answer": "κ of answers",
    "kappa_answer_bound": "κ of answers, bound",
}
MEANS = {
    "accuracy": "right responses",
    "readable": "responses with an answer",
    "truncated": "stopped by a length limit",
    "vote_share": "share of the commonest answer",
    "effective_answers": "1 / sum of squared shares",
    "kappa_answer": "mean of 1 / max share; 1: sure",
    "kappa_answer_bound": "without a model of the shares",
}
TERMS = {
    "format repair": "responses without an answer are given up",
    "amplification": "each prompt goes to its commonest answer",
    "transfer": "between prompts",
    "gain": "the limit minus now",
}


def print_samples_forecast(found: SamplesForecast, console: Console) -> None:
    """Verdict, numbers, trajectory, the vote, which reward, doubts; 80 columns are enough."""
    headline(console, found.verdict, STYLES[found.verdict], found.reason, found.advice)
    console.print()
    note(
        console,
        f"{found.format}: {found.prompts} prompts x {found.samples} samples, right answers of "
        f"{found.answered}, read by {found.grader}. Intervals: {found.level:.0%}, for prompts "
        "like these.",
    )
    title(console, "The samples")
    console.print(
        facts_table(
            console, [(BASE[k], shown(found.base[k]), MEANS[k]) for k in BASE if k in found.base]
        )
    )
    title(console, "Where votes lead, and by what")
    rows = [(k, shown(found.terms[k], sign=True), TERMS[k]) for k in TERMS if k in found.terms]
    where = found.destination
    if "accuracy" in where:
        rows.append(("limit", shown(where["accuracy"]), "accuracy of the mode"))
        rows.append(("  these prompts", shown(where["accuracy_these"]), "no others meant"))
    rows += [
        ("mode known", shown(where["mode_known"]), "prompts with posterior above 0.95"),
        ("tied", shown(where["tied"]), "prompts with two most voted answers"),
        ("vote misses", shown(where["majority_misses"]), f"P(vote of {found.samples} is not it)"),
    ]
    console.print(facts_table(console, rows))
    title(console, f"Exact rounds at β {found.beta:g}")
    paths = [p for p in found.paths if found.answered or p.reward in ("vote share", "hard vote")]
    what = "accuracy" if found.answered else "κ of answers"

    def column(i: int) -> tuple[str, object]:
        def show(t: int) -> str:
            e = (paths[i].accuracy if found.answered else paths[i].kappa)[t]
            return number(e.value) + (" †" if e.guarantee == "extrapolation" else "")

        return paths[i].reward, show

    columns = [("round", str), *(column(i) for i in range(len(paths)))]
    console.print(rounds_table(console, columns, range(len(paths[0].accuracy))))  # type: ignore[arg-type]
    remark = f"{what}. Gradient training goes part of the way; one pilot round tells how far."
    if any(e.guarantee == "extrapolation" for p in paths for e in p.accuracy):
        remark += " †: beyond what these samples carry."
    note(console, remark)
    if found.vote:
        title(console, "A vote instead of training")
        columns = [("samples per query", str), ("accuracy", lambda k: shown(found.vote[k]))]
        console.print(rounds_table(console, columns, list(found.vote)))  # type: ignore[arg-type]
        note(console, "Each query costs that many responses; intervals here are at 95%.")
    title(console, "Which reward")
    for label, text in (("Use", found.best), ("Why", found.why), ("Risk", found.risk)):
        console.print(f"{label}: {text}.", markup=False)
    if found.doubts:
        title(console, "Numbers to doubt")
        for doubt in found.doubts:
            console.print(f"! {doubt}", markup=False)


def shown(e: Estimate, *, sign: bool = False) -> str:
    """A value with its interval; why there is none."""
    if e.value is None:
        return "not known"
    if e.guarantee == "upper bound":
        return f"at most {number(e.value)}"
    plus = "+" if sign and e.value >= 0 else ""
    if e.low is None or e.high is None:
        return plus + number(e.value)
    ends = f"{e.low:+.3f}, {e.high:+.3f}" if sign else f"{number(e.low)}, {number(e.high)}"
    return f"{plus}{number(e.value)} [{ends}]"
