"""The verdict: one sentence that keeps confidence, fidelity and correctness apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from srlm.report.alarm import Alarm
from srlm.report.best import Best
from srlm.report.changes import Change, change
from srlm.report.failures import VERY_LOW_FIDELITY
from srlm.report.read import Run
from srlm.report.words import SYMBOL, number, percent

Status = Literal["improved", "sharpened", "unchanged", "failing", "failed", "base only"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the run.

    ``improved``: sampling accuracy rose and stayed; ``failed``: it fell below the base's, or
    stayed below one half while confidence rose (or, without answers, the policy became less
    sure); ``failing``: a failure has begun, named in
    ``reason``; ``unchanged``: neither; ``sharpened``: surer of the base's own modes, and no
    answers to say whether that is good; ``base only``: no round is done.
    """

    status: Status
    reason: str
    """Short name of the failure; empty unless failing or failed."""
    sentence: str

    @property
    def badge(self) -> str:
        """
        >>> Verdict("failing", "mode drift", "...").badge
        'failing: mode drift'
        """
        return f"failing: {self.reason}" if self.status == "failing" else self.status

    @property
    def headline(self) -> str:
        """``FAILED: confidence rose to ...``, for a place without a badge."""
        return f"{self.badge.upper()}: {self.sentence}"


def judge(run: Run, best: Best, found: Sequence[Alarm]) -> Verdict:
    """The verdict on a run, from its changes over the held-out prompts and its alarms."""
    if len(run.rounds) == 1:
        return _base_only(run)
    return _with_answers(run, best, found) if run.has_answers else _without_answers(run, found)


def _base_only(run: Run) -> Verdict:
    base = run.rounds[0]
    text = f"only the base is measured: its confidence is {number(base['confidence'].value, 2)}"
    if run.has_answers:
        text += (
            f", its sampling accuracy {number(base['sampling_accuracy'].value, 2)} "
            f"and its mode accuracy, the ceiling of self-rewarding, "
            f"{number(base['mode_accuracy'].value, 2)}"
        )
    else:
        text += "; the prompts have no answers"
    return Verdict("base only", "", text + ".")


def _with_answers(run: Run, best: Best, found: Sequence[Alarm]) -> Verdict:
    first, last = run.rounds[0], run.rounds[-1]
    acc, conf = change("sampling_accuracy", first, last), change("confidence", first, last)
    since = change("sampling_accuracy", run.rounds[best.round], last)
    codes = {alarm.code for alarm in found}
    both = _both(conf, acc)

    if acc.direction == "fell":
        if conf.direction == "rose":
            reason = "surer and less often right"
            what = "became surer while it was less often right"
            if _mostly_wrong(run):
                reason, what = "surer and wrong", "became sure of its own wrong answers"
        elif "blow-up" in codes:
            reason, what = "blow-up", "came apart, its probability spread out"
        else:
            reason, what = "less often right", "is less often right than the base"
        peak = ""
        if best.round:
            peak = f" It was best in round {best.round}, at {number(since.start.value, 2)}."
        return Verdict("failed", reason, f"{both}: the policy {what}.{peak}")
    if since.direction == "fell" and best.round:
        text = (
            f"sampling accuracy peaked at {number(since.start.value, 2)} in round {best.round} "
            f"and has fallen to {number(since.end.value, 2)}, while {_moved(conf)}; stop there."
        )
        return Verdict("failing", f"accuracy falling since round {best.round}", text)
    if acc.direction == "rose":
        return Verdict("improved", "", f"{both}{_headroom(run)}; {_modes(run)}.")
    if acc.direction == "level" and conf.direction == "rose" and _mostly_wrong(run):
        sure = "the policy became sure of answers that are mostly wrong"
        return Verdict("failed", "surer and wrong", f"{both}: {sure}; {_modes(run)}.")
    for code, reason in (("blow-up", "blow-up"), ("length-collapse", "length collapse")):
        if code in codes:
            return Verdict("failing", reason, f"{both}; {_modes(run)}.")
    if change("mode_accuracy", first, last).direction == "fell":
        ceiling = f"mode accuracy fell from {_ends(change('mode_accuracy', first, last))}"
        return Verdict("failing", "mode drift", f"{both}, and {ceiling}; {_modes(run)}.")
    few = " (too few prompts to tell)" if acc.direction == "unknown" else ""
    return Verdict("unchanged", "", f"{both}{few}; {_modes(run)}.")


def _without_answers(run: Run, found: Sequence[Alarm]) -> Verdict:
    first, last = run.rounds[0], run.rounds[-1]
    conf, kappa = change("confidence", first, last), change(run.kappa_name, first, last)
    codes = {alarm.code for alarm in found}
    end = f"; {_modes(run)}. Whether responses are right is unknown: the prompts have no answers."
    if conf.direction == "fell" or kappa.direction == "rose":
        reason = "blow-up" if "blow-up" in codes else "less sure"
        moved = f"{_moved(conf)} and {SYMBOL[run.kappa_name]} went from {_ends(kappa)}"
        return Verdict("failed", reason, f"{moved}: the policy became less sure than the base{end}")
    if "length-collapse" in codes:
        length = change("length", first, last)
        text = f"{_moved(conf)} while the mean length fell from {_ends(length, 1)} tokens{end}"
        return Verdict("failing", "length collapse", text)
    fidelity = last["fidelity"]
    if fidelity.high is not None and fidelity.high < VERY_LOW_FIDELITY:
        return Verdict("failing", "mode drift", f"{_moved(conf)}{end}")
    status: Status = "sharpened" if conf.direction == "rose" else "unchanged"
    few = " (too few prompts to tell)" if conf.direction == "unknown" else ""
    return Verdict(status, "", f"{_moved(conf)}{few}{end}")


def _mostly_wrong(run: Run) -> bool:
    return (run.rounds[-1]["sampling_accuracy"].value or 0.0) < 0.5


def _ends(c: Change, digits: int = 2) -> str:
    return f"{number(c.start.value, digits)} to {number(c.end.value, digits)}"


def _moved(c: Change) -> str:
    who = c.name.replace("_", " ") + " "
    if c.direction in ("rose", "fell"):
        return f"{who}{c.direction} from {_ends(c)}"
    if c.value is None:
        return f"{who}was not measured"
    if c.direction == "unknown":
        return f"{who}went from {_ends(c)}"
    if number(c.start.value, 2) == number(c.end.value, 2):
        return f"{who}stayed at {number(c.end.value, 2)}"
    return f"{who}did not change beyond its interval ({_ends(c)})"


def _both(conf: Change, acc: Change) -> str:
    if {conf.direction, acc.direction} == {"rose", "fell"}:
        return f"{_moved(conf)} while {_moved(acc)}"
    if conf.direction == acc.direction and conf.direction in ("rose", "fell"):
        return f"{_moved(conf)} and sampling accuracy from {_ends(acc)}"
    word = "but" if acc.direction in ("level", "unknown") and conf.direction == "rose" else "and"
    return f"{_moved(conf)}, {word} {_moved(acc)}"


def _headroom(run: Run) -> str:
    share = run.rounds[-1]["headroom_captured"].value
    start, end = run.rounds[0]["mode_accuracy"], run.rounds[-1]["mode_accuracy"]
    if share is None or start.value is None:
        return ""
    text = f", {percent(share)} of the headroom up to mode accuracy {number(start.value, 2)}"
    if change("mode_accuracy", run.rounds[0], run.rounds[-1]).direction == "fell":
        text += f" (itself now {number(end.value, 2)})"
    return text


def _modes(run: Run) -> str:
    value = run.rounds[-1]["fidelity"].value
    if value is None:
        return "how many modes are still the base's was not measured"
    return f"the modes of {percent(value)} of prompts are the base's"
