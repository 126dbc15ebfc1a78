"""Reasons to trust a forecast less, each with its evidence and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from srlm.forecast.foretell import Forecast
from srlm.forecast.verdict import SHARED, commonest
from srlm.report.words import number, percent

FEW = 30
"""Prompts below which intervals say little."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """Title, evidence, advice; our own words and the model's text, not escaped."""

    title: str
    why: str
    advice: str


def doubts(found: Forecast, *, ahead: bool = True) -> list[Doubt]:
    """What the checks set off; without those of the rounds ahead where none was asked about."""
    checks = DOUBTS if ahead else tuple(d for d in DOUBTS if d is not extrapolated)
    return [doubt for check in checks if (doubt := check(found)) is not None]


def shared(found: Forecast) -> Doubt | None:
    """One response is the likeliest for many prompts."""
    most = commonest(found.measurement.table["mode"])
    if most.share < SHARED:
        return None
    return Doubt(
        "Many prompts have one and the same likeliest response",
        f"{percent(most.share)}: {most.text[:60] or '(empty)'}",
        "Unless these prompts have one answer, it answers none of them, and self-rewarding leads "
        "there: look at the base's data.",
    )


def cut(found: Forecast) -> Doubt | None:
    """More than a hundredth of the draws is cut off, or all draws of some prompt."""
    share = found.measurement.estimates["truncated"].value or 0.0
    if not found.cut_off and share <= 0.01:
        return None
    lost = ""
    if found.cut_off:
        lines = [found.measurement.prompts[p].line for p in found.cut_off]
        named = ", ".join(str(line) for line in lines[:10]) + (", …" if len(lines) > 10 else "")
        lost = f"; every draw of {len(lines)} prompts (lines {named})"
    return Doubt(
        "Responses were cut off by the length limit",
        f"{percent(share)} of the draws{lost}.",
        "Raise --max-tokens: a cut-off response has the wrong probability and no answer.",
    )


def uncertified(found: Forecast) -> Doubt | None:
    """Search stopped before it could certify some modes."""
    sure = found.measurement.modes.certified_P
    if sure.all():
        return None
    return Doubt(
        "Some likeliest responses are not certified",
        f"{int((~sure).sum())} of {len(sure)} prompts: a likelier response may exist, so κ is an "
        "upper bound and the destination may be another.",
        "Raise --nodes or --seconds.",
    )


def extrapolated(found: Forecast) -> Doubt | None:
    """Rounds that too few draws carry."""
    weak = [t for t, point in enumerate(found.points) if not point.supported]
    if not weak:
        return None
    several = f"rounds {weak[0]} to {weak[-1]}" if len(weak) > 1 else f"round {weak[0]}"
    return Doubt(
        f"In {several} the draws do not carry the forecast",
        f"Fewer than 90 % of the prompts have draws enough there (β {found.beta:g}): an "
        "extrapolation, drawn hollow and dashed.",
        "Raise --samples.",
    )


def heavy(found: Forecast) -> Doubt | None:
    """A hundredth of the prompts carries the mean of 1/p*."""
    spread = found.measurement.spread
    if not spread.heavy:
        return None
    return Doubt(
        "A few prompts carry κ",
        f"The worst hundredth makes up {percent(spread.top_share)} of the mean of 1/p*; the median "
        f"of 1/p* is 10^{number(spread.median, 2)}.",
        "Read κ with its median; its interval is too narrow when the tail is this heavy.",
    )


def few(found: Forecast) -> Doubt | None:
    """So few prompts that intervals say little."""
    n = len(found.measurement.prompts)
    return (
        None
        if n >= FEW
        else Doubt("Few prompts", f"{n} prompts.", "Give more, or raise --most-prompts.")
    )


def partly(found: Forecast) -> Doubt | None:
    """Only some prompts have answers."""
    prompts = found.measurement.prompts
    known = int(found.evidence.answered_P.sum())
    if not found.has_answers or known == len(prompts):
        return None
    return Doubt(
        "Some prompts have no answer",
        f"What is right is known on {known} of {len(prompts)} prompts.",
        "Accuracies are of those alone; everything else is of all.",
    )


DOUBTS: tuple[Callable[[Forecast], Doubt | None], ...] = (
    shared, cut, uncertified, extrapolated, heavy, few, partly,
)  # fmt: skip
