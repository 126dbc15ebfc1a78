"""Every warning that a report can give, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable

from srlm.report.alarm import Alarm
from srlm.report.best import Best
from srlm.report.doubts import few_prompts, heavy_tail, saturated, truncation, uncertified
from srlm.report.failures import (
    blow_up,
    confident_and_wrong,
    kappa_level,
    kappa_rising,
    length_changed,
    mode_drift,
    under_trained,
)
from srlm.report.read import Run

CHECKS: tuple[Callable[[Run, Best], Alarm | None], ...] = (
    confident_and_wrong,
    blow_up,
    kappa_rising,
    mode_drift,
    length_changed,
    kappa_level,
    under_trained,
    truncation,
    uncertified,
    heavy_tail,
    saturated,
    few_prompts,
)


def alarms(run: Run, best: Best) -> tuple[Alarm, ...]:
    """Every warning that the run sets off, the serious ones first."""
    found = [alarm for check in CHECKS if (alarm := check(run, best)) is not None]
    return tuple(sorted(found, key=lambda a: a.severity == "note"))
