"""Reasons to trust a forecast or a measurement less, each with its evidence and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from srlm.forecast.verdict import SHARED, commonest
from srlm.report.warnings import FEW_PROMPTS, Notice
from srlm.report.words import count, number, percent

if TYPE_CHECKING:
    from srlm.forecast.make import Forecast


def forecast_warnings(found: Forecast, *, ahead: bool = True) -> list[Notice]:
    """What the checks set off; without those of later rounds where none was asked about."""
    checks = CHECKS if ahead else tuple(c for c in CHECKS if c is not extrapolated)
    return [notice for check in checks if (notice := check(found)) is not None]


def _note(code: str, title: str, evidence: str, advice: str) -> Notice:
    return Notice(code, "note", title, evidence, advice)


def shared(found: Forecast) -> Notice | None:
    """One response is the likeliest for many prompts."""
    most = commonest(found.measurement.table["mode_text"])
    if most.share < SHARED:
        return None
    return _note(
        "shared-mode",
        "Many prompts share one most likely response",
        f"{percent(most.share)}: {most.text[:60] or '(empty)'}.",
        "Unless they share one answer, it answers none, and self-rewarding leads there: check the "
        "base's training data.",
    )


def cut(found: Forecast) -> Notice | None:
    """More than a hundredth of the samples is cut off, or all samples of some prompt."""
    share = found.measurement.estimates["truncated"].value or 0.0
    if not found.cut_off and share <= 0.01:
        return None
    lost = ""
    if found.cut_off:
        lines = [str(found.measurement.prompts[p].line) for p in found.cut_off]
        named = ", ".join(lines[:10]) + (", …" if len(lines) > 10 else "")
        lost = f"; every sample of {count(len(lines), 'prompt')} (lines {named})"
    return _note(
        "truncation",
        "Responses were truncated",
        f"{percent(share)} of the samples{lost}.",
        "Raise --max-tokens: a truncated response has the wrong probability and no answer.",
    )


def uncertified(found: Forecast) -> Notice | None:
    """Search stopped before it could certify some modes."""
    sure = found.measurement.modes.certified_P
    if sure.all():
        return None
    return _note(
        "uncertified",
        "Some modes are not certified",
        f"{int((~sure).sum())} of {len(sure)} prompts: κ is an upper bound, and the limit may be "
        "another.",
        "Raise --nodes or --seconds.",
    )


def extrapolated(found: Forecast) -> Notice | None:
    """Rounds that too few samples support."""
    weak = [t for t, point in enumerate(found.points) if not point.supported]
    if not weak:
        return None
    several = f"Rounds {weak[0]} to {weak[-1]} are" if len(weak) > 1 else f"Round {weak[0]} is"
    return _note(
        "extrapolated",
        f"{several} extrapolated",
        f"Fewer than 90% of the prompts have enough samples there (β {found.beta:g}).",
        "Raise --samples.",
    )


def heavy(found: Forecast) -> Notice | None:
    """A hundredth of the prompts carries the mean of 1/p*."""
    tail = found.measurement.spread
    if not tail.heavy:
        return None
    return _note(
        "heavy-tail",
        "A few prompts dominate κ",
        f"The worst 1% make up {percent(tail.top_share)} of the mean of 1/p*; the median of 1/p* "
        f"is 10^{number(tail.median, 2)}.",
        "Read κ with its median; its interval is too narrow with such a tail.",
    )


def few(found: Forecast) -> Notice | None:
    """So few prompts that intervals say little."""
    n = len(found.measurement.prompts)
    if n >= FEW_PROMPTS:
        return None
    return _note("few-prompts", "Few prompts", f"{n} prompts.", "Give more (--most-prompts).")


def partly(found: Forecast) -> Notice | None:
    """Only some prompts have answers."""
    prompts = found.measurement.prompts
    known = int(found.evidence.answered_P.sum())
    if not found.has_answers or known == len(prompts):
        return None
    return _note(
        "some-answers",
        "Some prompts have no answer",
        f"{known} of {len(prompts)} prompts have one.",
        "Accuracies are over those alone, everything else over all.",
    )


CHECKS: tuple[Callable[[Forecast], Notice | None], ...] = (
    shared, cut, uncertified, extrapolated, heavy, few, partly,
)  # fmt: skip
