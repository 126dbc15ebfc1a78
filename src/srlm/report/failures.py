"""Signs that self-rewarding itself goes wrong: each a check, with the numbers that set it off.

A check compares rounds through ``changes.change``, so that a movement inside its interval
sets nothing off. Thresholds that are no interval are the constants below.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from srlm.report.alarm import Alarm, steps, told
from srlm.report.best import Best
from srlm.report.changes import Change, change
from srlm.report.read import Round, Run, sharpens
from srlm.report.words import SYMBOL, interval, number, percent

LEFT_TO_LEARN = 1.1
"""kappa above which a round still has something to sharpen."""
LITTLE_PROGRESS = 0.2
"""Share of the way to the loss floor below which a round is under-trained."""
LITTLE_EFFICIENCY = 0.25
LOW_FIDELITY = 0.95
VERY_LOW_FIDELITY = 0.9
LENGTH_RATIO = 1.5


def confident_and_wrong(run: Run, best: Best) -> Alarm | None:
    """Sampling accuracy falls while confidence rises; foreseen where the modes were worse."""
    pairs = [*steps(run), (run.rounds[best.round], run.rounds[-1])]
    falls = [
        (c, s)
        for a, b in pairs
        if (c := change("sampling_accuracy", a, b)).direction == "fell"
        and (s := change("confidence", a, b)).direction == "rose"
    ]
    if not falls:
        return None
    acc, conf = max(falls, key=lambda f: abs(f[0].value or 0.0))
    base = run.rounds[0]
    ceiling, start = base["mode_accuracy"].value, base["sampling_accuracy"].value
    foreseen = ""
    if ceiling is not None and start is not None and ceiling < start:
        foreseen = (
            f" The base's mode accuracy, {number(ceiling)}, was already below its sampling "
            f"accuracy, {number(start)}: sharpening could only lose."
        )
    return Alarm(
        "confident-and-wrong",
        "serious",
        "Accuracy fell while confidence rose",
        f"Sampling accuracy {told(acc)}; confidence {told(conf)}.{foreseen}",
        "Stop at the best round. If it is round 0, likelihood is no guide to right answers on "
        "these prompts: look at the likeliest responses below.",
    )


def blow_up(run: Run, best: Best) -> Alarm | None:
    """Entropy and kappa rise and the loss does not fall: the step was too large."""
    for a, b in steps(run):
        kappa, entropy = change(run.kappa_name, a, b), change("entropy", a, b)
        loss = [r.loss_progress for r in run.rounds[a.round + 1 : b.round + 1]]
        known = [p for p in loss if p is not None]
        if (
            kappa.direction == entropy.direction == "rose"
            and min(known, default=0.0) < LITTLE_PROGRESS
        ):
            worst = min(known, default=None)
            text = "not recorded" if worst is None else f"covered {percent(worst)} of its way down"
            return Alarm(
                "blow-up",
                "serious",
                "The update blew up: probability spread out instead of gathering",
                f"{SYMBOL[run.kappa_name]} {told(kappa)}; entropy {told(entropy)}; loss {text}.",
                "Lower update.lr or raise update.beta; resume from the round before.",
            )
    return None


def kappa_rising(run: Run, best: Best) -> Alarm | None:
    """kappa rose in a round or over the run: exact rounds never do that."""
    rises = [c for a, b in steps(run) if (c := change(run.kappa_name, a, b)).direction == "rose"]
    worst = _largest(rises)
    if worst is None:
        return None
    return Alarm(
        "kappa-rising",
        "serious",
        "The policy became less sure: κ rose",
        f"{SYMBOL[run.kappa_name]} {told(worst)}. Exact rounds never raise it.",
        "Lower update.lr, raise update.beta, or give a round more prompts or draws.",
    )


def kappa_level(run: Run, best: Best) -> Alarm | None:
    """The last round left kappa where it was although there was something left to sharpen."""
    if len(run.rounds) < 2:
        return None
    before, last = run.rounds[-2:]
    c = change(run.kappa_name, before, last)
    if c.direction != "level" or _sharp(last):
        return None
    ideal = last["kappa_ideal"].value
    exact = f" An exact round would have given {number(ideal)}." if ideal is not None else ""
    return Alarm(
        "kappa-level",
        "note",
        "The last round did not make the policy surer: κ is level",
        f"{SYMBOL[run.kappa_name]} {told(c)}.{exact}",
        "Train the round longer (update.epochs, update.lr) or give it more prompts or draws.",
    )


def mode_drift(run: Run, best: Best) -> Alarm | None:
    """The modes are not the base's any more, or mode accuracy sinks, or kappa and accuracy fall.

    A reward other than the likelihood is there to change the modes: with one, they drift only
    where an accuracy falls.
    """
    first, last = run.rounds[0], run.rounds[-1]
    if last is first:
        return None
    fidelity, evidence = last["fidelity"], []
    top = fidelity.high
    if top is not None and top < LOW_FIDELITY:
        spread = interval(fidelity.low, fidelity.high)
        evidence.append(f"Fidelity {number(fidelity.value)} {spread} in round {last.round}".strip())
    ceiling = change("mode_accuracy", first, last)
    if ceiling.direction == "fell":
        evidence.append(f"Mode accuracy {told(ceiling)}")
    top_round = run.rounds[best.round]
    acc = change("sampling_accuracy", top_round, last)
    kappa = change(run.kappa_name, top_round, last)
    falling = acc.direction == "fell" and kappa.direction == "fell"
    if falling and (evidence or top is None):
        evidence.append(
            f"{SYMBOL[run.kappa_name]} {told(kappa)}, while sampling accuracy {told(acc)}"
        )
    own = sharpens(run.config)
    if not evidence or not (own or falling or ceiling.direction == "fell"):
        return None
    far = falling or (top is not None and top < VERY_LOW_FIDELITY)
    return Alarm(
        "mode-drift",
        "serious" if far else "note",
        "The likeliest responses drift away from the base's",
        ". ".join(evidence) + (". Exact rounds never change a mode." if own else "."),
        "Fewer rounds, more draws a prompt, or a lower update.lr keep the modes.",
    )


def length_changed(run: Run, best: Best) -> Alarm | None:
    """Mean length at the end is less than 2/3 or more than 3/2 of the base's."""
    c = change("length", run.rounds[0], run.rounds[-1])
    if not c.start.value or c.end.value is None or c.direction not in ("rose", "fell"):
        return None
    ratio = c.end.value / c.start.value
    if 1 / LENGTH_RATIO < ratio < LENGTH_RATIO:
        return None
    short = ratio < 1
    return Alarm(
        "length-collapse" if short else "length-growth",
        "serious" if short else "note",
        "Responses collapsed to short ones" if short else "Responses grew long",
        f"Mean length in tokens {told(c, 1)}: {number(ratio, 2)} times the base's.",
        "Summed log-probability favours short responses: read the likeliest ones below."
        if short
        else "Check truncation and repetition in the examples below.",
    )


def under_trained(run: Run, best: Best) -> Alarm | None:
    """A round with something left to sharpen went little of the way of an exact one."""
    found = []
    for before, r in pairwise(run.rounds):
        if _sharp(before):
            continue
        progress, e = r.loss_progress, r["efficiency"]
        top = e.high if e.high is not None else e.value
        if progress is not None and progress < LITTLE_PROGRESS:
            found.append(
                f"round {r.round}: loss {number(r.loss_before)} → {number(r.loss_after)}, "
                f"{percent(progress)} of the way to its floor {number(r.loss_floor or 0.0)}"
            )
        elif top is not None and top < LITTLE_EFFICIENCY:
            found.append(f"round {r.round}: update efficiency {number(e.value)}")
    if not found:
        return None
    return Alarm(
        "under-trained",
        "note",
        "Rounds were trained little",
        "; ".join(found[:3]) + (f"; and {len(found) - 3} more rounds" if found[3:] else "") + ".",
        "More update.epochs or a higher update.lr go further in a round; or run more rounds.",
    )


def _sharp(r: Round) -> bool:
    """Whether there is nothing left to sharpen; an undefined kappa is a huge one."""
    kappa = r["kappa"].value
    return kappa is not None and kappa <= LEFT_TO_LEARN


def _largest(changes: Sequence[Change]) -> Change | None:
    return max(changes, key=lambda c: abs(c.value or 0.0), default=None)
