"""The verdict: confidence, fidelity and correctness kept apart, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from srlm.report.best import Best
from srlm.report.changes import Change, change
from srlm.report.warnings import VERY_LOW_FIDELITY, Notice
from srlm.report.words import NAMES, SYMBOL, number, percent, sentence
from srlm.run_folder import Aim, Run
from srlm.types import Round

LIMITS: dict[Aim, str] = {"responses": "mode_accuracy", "answers": "vote_accuracy"}
"""Of the base: where sampling accuracy goes."""
KEPT = "base_answer_share"
"""What rounds of every reward should raise, of the base."""

DECIDED = ("vote_accuracy", "greedy_accuracy")
"""What a prompt is given when one response is asked for."""

NAMED = {KEPT: "share of the base's answers"}

Status = Literal["improved", "sharpened", "unchanged", "unclear", "failing", "failed", "base only"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the run.

    ``improved``: sampling accuracy rose and stayed; ``failed``: it fell below the base's, or
    stayed, below one half, while confidence rose (or, without answers, the policy became less
    sure); ``failing``: a failure has begun, named in ``reason``; ``unchanged``: it stayed;
    ``sharpened``: surer of the base's own modes, and no answers to say whether that is good;
    ``unclear``: the held-out prompts are too few to say any of these; ``base only``: no round is
    done. Each is said only where the intervals over the prompts carry it.
    """

    status: Status
    reason: str
    """Short name of the failure; empty unless failing or failed."""
    sentence: str
    """The numbers, and what they mean."""
    advice: str = ""
    """What to do."""

    @property
    def badge(self) -> str:
        """
        >>> Verdict("failing", "mode drift", "...").badge
        'failing: mode drift'
        """
        return f"failing: {self.reason}" if self.status == "failing" else self.status


def judge(run: Run, best: Best, found: Sequence[Notice]) -> Verdict:
    """The verdict on a run, from its changes over the held-out prompts and its warnings."""
    if len(run.rounds) == 1:
        return _base_only(run)
    of = _with_answers if run.has_answers else _without_answers
    status, reason, text = of(run, best, {notice.code for notice in found})
    asked = change("sampling_accuracy" if run.has_answers else run.sure_name, *_ends(run))
    return Verdict(status, reason, sentence(text), _advice(status, best, asked))


Judged = tuple[Status, str, str]


def _ends(run: Run) -> tuple[Round, Round]:
    return run.rounds[0], run.rounds[-1]


def _advice(status: Status, best: Best, asked: Change) -> str:
    if status == "unclear":
        few = f"{asked.needed:,} or more" if asked.needed > asked.n else "more"
        return f"Measure on {few} held-out prompts (prompts.held_out, measure.prompts)."
    if best.round:
        use = f"round {best.round}: rounds/{best.round:03d}/policy."
        read = status == "sharpened"
        return f"Read the modes below; if they are good, use {use}" if read else f"Use {use}"
    if status in ("failed", "failing"):
        return "Keep the base. The warnings say what went wrong."
    return "Keep the base, or train more per round."


def _base_only(run: Run) -> Verdict:
    base = run.rounds[0]
    text = f"only the base is measured: confidence {number(base['confidence'].value)}"
    if run.has_answers:
        text += (
            f", sampling accuracy {number(base['sampling_accuracy'].value)}, "
            f"mode accuracy {number(base['mode_accuracy'].value)} (the limit)"
        )
    else:
        text += "; the prompts have no answers"
    return Verdict("base only", "", sentence(text))


def _with_answers(run: Run, best: Best, codes: set[str]) -> Judged:
    first, last = _ends(run)
    acc, conf = change("sampling_accuracy", first, last), change(run.sure_name, first, last)
    since = _since("sampling_accuracy", run, best)
    both = f"{_moved(acc)}{_headroom(run, acc)}, {_moved(conf)}, {_kept(run)}"
    high = last["sampling_accuracy"].high
    wrong = high is not None and high < 0.5

    if acc.direction == "fell":
        if conf.direction == "rose":
            reason = "surer and wrong" if wrong else "surer and less often right"
        else:
            reason = "diverged" if "diverged" in codes else "less often right"
        peak = f". Best in round {best.round}: {number(since.start.value)}" if best.round else ""
        return "failed", reason, f"{reason}: {both}{peak}"
    if since.direction == "fell" and best.round:
        text = (
            f"sampling accuracy peaked at {number(since.start.value)} in round {best.round} and "
            f"fell to {number(since.end.value)}, {_moved(conf)}"
        )
        return "failing", f"accuracy falling since round {best.round}", text
    lost = [c for c in (change(x, first, last) for x in DECIDED) if c.direction == "fell"]
    if "one-answer" in codes and lost:
        note = last["answer_spread"].note
        return "failing", "one answer spreads", f"{note}; {_moved(lost[0])}; {both}"
    if acc.direction == "rose":
        return "improved", "", both
    if acc.direction == "level" and conf.direction == "rose" and wrong:
        return "failed", "surer and wrong", f"surer and wrong: {both}"
    for code, reason in (("diverged", "diverged"), ("length-collapse", "length collapse")):
        if code in codes:
            return "failing", reason, both
    limit = LIMITS.get(run.aim)
    modes = change(limit, first, last) if limit else None
    if modes is not None and modes.direction == "fell":
        return "failing", "mode drift", f"{_moved(modes)}; {both}"
    if acc.direction in ("unclear", "unknown"):
        return "unclear", "", f"too few held-out prompts to tell ({acc.n}): {both}"
    return "unchanged", "", both


def _without_answers(run: Run, best: Best, codes: set[str]) -> Judged:
    first, last = _ends(run)
    spread = run.spread_name or run.kappa_name
    conf, kappa = change(run.sure_name, first, last), change(spread, first, last)
    moved = f"{_moved(conf)}, {_moved(kappa)}, {_kept(run)}"
    end = "; no answers: whether responses are right is unknown"
    less = conf.direction == "fell" or kappa.direction == "rose"
    if "diverged" in codes or (less and run.aim != "elsewhere"):
        reason = "diverged" if "diverged" in codes else "less sure"
        return "failed", reason, f"{reason}: {moved}{end}"
    since = _since(KEPT, run, best)
    if "base-answers-lost" in codes and since.direction == "fell":
        return "failing", "the base's answers are lost", f"{_moved(since)}, {moved}{end}"
    if "one-answer" in codes:
        return "failing", "one answer spreads", f"{last['answer_spread'].note}; {moved}{end}"
    if "length-collapse" in codes:
        length = change("length", first, last)
        return "failing", "length collapse", f"{_moved(length, 1)} tokens, {moved}{end}"
    top = last["fidelity"].high
    gained = change(KEPT, first, last).direction == "rose"
    if run.aim == "responses" and top is not None and top < VERY_LOW_FIDELITY and not gained:
        return "failing", "mode drift", moved + end
    if conf.direction in ("unclear", "unknown"):
        return "unclear", "", f"too few held-out prompts to tell ({conf.n}): {moved}{end}"
    return ("sharpened" if conf.direction == "rose" else "unchanged"), "", f"{moved}{end}"


def _since(name: str, run: Run, best: Best) -> Change:
    """The change since the best round, which is the best of all but the last."""
    return change(name, run.rounds[best.round], run.rounds[-1], among=len(run.rounds) - 1)


def _moved(c: Change, digits: int = 3) -> str:
    """``confidence 0.576 → 0.998``; with ``(no change)``, or ``(unclear)`` where too few prompts
    tell."""
    name = SYMBOL.get(c.name, NAMED.get(c.name, c.name.replace("_", " ")))
    if c.value is None:
        return f"{name} not measured"
    same = {"level": " (no change)", "unclear": " (unclear)"}.get(c.direction, "")
    return f"{name} {number(c.start.value, digits)} → {number(c.end.value, digits)}{same}"


def _headroom(run: Run, acc: Change) -> str:
    """Share of the way from the base's accuracy to where the reward leads, where accuracy surely
    rose; of other rewards, which lead past what the base tells, nothing."""
    if acc.direction != "rose":
        return ""
    first, last = run.rounds[0], run.rounds[-1]
    name = LIMITS.get(run.aim)
    ends = [e.value for e in (first["sampling_accuracy"], last["sampling_accuracy"])]
    limit = first[name].value if name else None
    if name is None or limit is None or None in ends or limit <= (ends[0] or 0.0):
        return ""
    share = ((ends[1] or 0.0) - (ends[0] or 0.0)) / (limit - (ends[0] or 0.0))
    if share <= 0:
        return ""
    return f" ({percent(share)} of the headroom to {NAMES[name].lower()} {number(limit)})"


def _kept(run: Run) -> str:
    if run.aim == "responses":
        return f"fidelity {number(run.rounds[-1]['fidelity'].value)}"
    return _moved(change(KEPT, *_ends(run)))
