"""Warnings of a run: signs that self-rewarding goes wrong, and reasons to doubt its numbers.

Each is a check, with the numbers that set it off and what to do. A check compares rounds through
``changes.change``, so that a movement inside its interval sets nothing off. Thresholds that are no
interval are the constants below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from srlm.report.best import Best
from srlm.report.changes import Change, change
from srlm.report.words import SYMBOL, count, number, percent, with_interval
from srlm.run_folder import Run, sharpens
from srlm.types import Estimate, Round

LEFT_TO_LEARN = 1.1
"""kappa above which a round still has something to sharpen."""
LITTLE_PROGRESS = 0.2
"""Share of the way to the loss floor below which a round is under-trained."""
LITTLE_LOSS = 0.05
"""Share of the way to the loss floor by which a loss must rise to have diverged."""
LITTLE_EFFICIENCY = 0.25
LOW_FIDELITY = 0.95
VERY_LOW_FIDELITY = 0.9
LENGTH_RATIO = 1.5
TRUNCATED = 0.01
HEAVY_SHARE = 0.2
"""Share of the mean of 1/p* above which the top hundredth of prompts carries it."""
FEW_DISTINCT = 1.2
"""Distinct responses among the samples of a prompt."""
FEW_PROMPTS = 30


@dataclass(frozen=True, slots=True)
class Notice:
    """A warning: its name for programs, what is wrong, the numbers that say so, what to do."""

    code: str
    severity: Literal["serious", "note"]
    title: str
    evidence: str
    advice: str


def warnings(run: Run, best: Best) -> tuple[Notice, ...]:
    """Every warning that the run sets off, the serious ones first."""
    found = [notice for check in CHECKS if (notice := check(run, best)) is not None]
    return tuple(sorted(found, key=lambda notice: notice.severity == "note"))


def confident_and_wrong(run: Run, best: Best) -> Notice | None:
    """Sampling accuracy falls while confidence rises; foreseeable where the modes were worse."""
    pairs = [*_steps(run), (run.rounds[best.round], run.rounds[-1])]
    falls = [
        (c, s)
        for a, b in pairs
        if (c := change("sampling_accuracy", a, b)).direction == "fell"
        and (s := change("confidence", a, b)).direction == "rose"
    ]
    if not falls:
        return None
    acc, conf = max(falls, key=lambda f: abs(f[0].value or 0.0))
    ceiling, start = (run.rounds[0][n].value for n in ("mode_accuracy", "sampling_accuracy"))
    foreseen = ""
    if ceiling is not None and start is not None and ceiling < start:
        foreseen = f" Base: mode accuracy {number(ceiling)} < sampling accuracy {number(start)}."
    return Notice(
        "confident-and-wrong",
        "serious",
        "Accuracy fell while confidence rose",
        f"Sampling accuracy {_moved(acc)}; confidence {_moved(conf)}.{foreseen}",
        "Use the best round. If that is round 0, likelihood is no guide to right answers here.",
    )


def diverged(run: Run, best: Best) -> Notice | None:
    """The step was too large: the loss rose, or entropy and kappa rose while it did not fall."""
    advice = "Lower update.lr or raise update.beta, and start from the round before."
    for r in run.rounds:
        if r.loss_progress is not None and r.loss_progress < -LITTLE_LOSS:
            return Notice(
                "diverged",
                "serious",
                "The update diverged: the loss rose",
                f"Round {r.round}: loss {number(r.loss_before)} → {number(r.loss_after)}, floor "
                f"{number(r.loss_floor or 0.0)}.",
                advice,
            )
    for a, b in _steps(run):
        kappa, entropy = change(run.kappa_name, a, b), change("entropy", a, b)
        loss = [r.loss_progress for r in run.rounds[a.round + 1 : b.round + 1]]
        worst = min((p for p in loss if p is not None), default=None)
        if kappa.direction == entropy.direction == "rose" and (worst or 0.0) < LITTLE_PROGRESS:
            fall = "not recorded" if worst is None else f"{percent(worst)} of the way to its floor"
            return Notice(
                "diverged",
                "serious",
                "The update diverged: probability spread out",
                f"{SYMBOL[run.kappa_name]} {_moved(kappa)}; entropy {_moved(entropy)}; "
                f"loss: {fall}.",
                advice,
            )
    return None


def kappa_rising(run: Run, best: Best) -> Notice | None:
    """kappa rose in a round or over the run: exact updates never do that."""
    rises = [c for a, b in _steps(run) if (c := change(run.kappa_name, a, b)).direction == "rose"]
    if not rises:
        return None
    worst = max(rises, key=lambda c: abs(c.value or 0.0))
    return Notice(
        "kappa-rising",
        "serious",
        "κ rose: the policy became less sure",
        f"{SYMBOL[run.kappa_name]} {_moved(worst)}. Exact updates never raise it.",
        "Lower update.lr, raise update.beta, or use more prompts or samples per round.",
    )


def mode_drift(run: Run, best: Best) -> Notice | None:
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
        evidence.append(f"Fidelity {with_interval(fidelity)} in round {last.round}")
    ceiling = change("mode_accuracy", first, last)
    if ceiling.direction == "fell":
        evidence.append(f"Mode accuracy {_moved(ceiling)}")
    top_round = run.rounds[best.round]
    acc = change("sampling_accuracy", top_round, last)
    kappa = change(run.kappa_name, top_round, last)
    falling = acc.direction == "fell" and kappa.direction == "fell"
    if falling and (evidence or top is None):
        evidence.append(
            f"{SYMBOL[run.kappa_name]} {_moved(kappa)}; sampling accuracy {_moved(acc)}"
        )
    own = sharpens(run.config)
    if not evidence or not (own or falling or ceiling.direction == "fell"):
        return None
    far = falling or (top is not None and top < VERY_LOW_FIDELITY)
    return Notice(
        "mode-drift",
        "serious" if far else "note",
        "The modes drift away from the base's",
        ". ".join(evidence) + (". Exact updates never change a mode." if own else "."),
        "Fewer rounds, more samples per prompt, or a lower update.lr keep the modes.",
    )


def length_changed(run: Run, best: Best) -> Notice | None:
    """Mean length at the end is less than 2/3 or more than 3/2 of the base's."""
    c = change("length", run.rounds[0], run.rounds[-1])
    if not c.start.value or c.end.value is None or c.direction not in ("rose", "fell"):
        return None
    ratio = c.end.value / c.start.value
    if 1 / LENGTH_RATIO < ratio < LENGTH_RATIO:
        return None
    short = ratio < 1
    return Notice(
        "length-collapse" if short else "length-growth",
        "serious" if short else "note",
        "Responses collapsed to short ones" if short else "Responses grew long",
        f"Mean length in tokens {_moved(c, 1)}: {number(ratio, 2)} times the base's.",
        "Summed log-probability favours short responses: read the modes below."
        if short
        else "Check truncation and repetition in the examples below.",
    )


def kappa_level(run: Run, best: Best) -> Notice | None:
    """The last round left kappa where it was although there was something left to sharpen."""
    if len(run.rounds) < 2:
        return None
    before, last = run.rounds[-2:]
    c = change(run.kappa_name, before, last)
    if c.direction != "level" or _sharp(last):
        return None
    exact = last["kappa_ideal"].value
    could = f" One exact update: {number(exact)}." if exact is not None else ""
    return Notice(
        "kappa-level",
        "note",
        "κ did not change in the last round",
        f"{SYMBOL[run.kappa_name]} {_moved(c)}.{could}",
        "Train longer (update.epochs, update.lr) or use more prompts or samples per round.",
    )


def under_trained(run: Run, best: Best) -> Notice | None:
    """A round with something left to sharpen went little of the way of an exact update.

    Rounds that left the policy less sure are none of these: more training would make them worse.
    """
    found = []
    for before, r in pairwise(run.rounds):
        progress, e = r.loss_progress, r["efficiency"]
        worse = change(run.kappa_name, before, r).direction == "rose"
        if _sharp(before) or worse or (progress or 0.0) < -LITTLE_LOSS:
            continue
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
    return Notice(
        "under-trained",
        "note",
        "Updates were under-trained",
        "; ".join(found[:3]) + (f"; and {count(len(found) - 3, 'more round')}" * (len(found) > 3))
        + ".",
        "Raise update.epochs or update.lr, or run more rounds.",
    )  # fmt: skip


def truncation(run: Run, best: Best) -> Notice | None:
    """More than a hundredth of the responses of a round are cut off by the length limit."""
    worst = max(run.rounds, key=lambda r: r["truncated"].value or 0.0)
    if (worst["truncated"].value or 0.0) <= TRUNCATED:
        return None
    return Notice(
        "truncation",
        "note",
        "Responses were truncated",
        f"{percent(worst['truncated'].value)} of the responses of round {worst.round}.",
        "Raise samples.max_tokens: a truncated response has the wrong reward and no answer.",
    )


def uncertified(run: Run, best: Best) -> Notice | None:
    """Search stopped before it could certify some prompts' modes."""
    tables = [(r.round, r.table) for r in run.rounds if r.table is not None]
    open_, n, of = max(
        ((int((~t.certified).sum()), n, len(t)) for n, t in tables), default=(0,) * 3
    )
    if not open_:
        return None
    return Notice(
        "uncertified",
        "note",
        "Some modes are not certified",
        f"{open_} of {of} prompts in round {n}: p* is a lower bound there and κ an upper bound.",
        "Raise measure.nodes or measure.seconds.",
    )


def heavy_tail(run: Run, best: Best) -> Notice | None:
    """A hundredth of the prompts carries more than a fifth of the mean of 1/p*."""
    found = []
    for r in run.rounds:
        if r.table is None or len(r.table) < FEW_PROMPTS:
            continue
        z = np.sort(1 / r.table.p_star[r.table.p_star > 0])[::-1]
        top = int(np.ceil(len(z) / 100))
        if len(z) and z[:top].sum() > HEAVY_SHARE * z.sum():
            found.append((float(z[:top].sum() / z.sum()), r.round, top, z))
    if not found:
        return None
    share, at, top, z = max(found, key=lambda f: f[0])
    return Notice(
        "heavy-tail",
        "note",
        "A few prompts dominate κ",
        f"Round {at}: {top} of {len(z)} prompts make up {percent(share)} of the mean of 1/p*; "
        f"median {number(float(np.median(z)))}, "
        f"95% quantile {number(float(np.quantile(z, 0.95)))}.",
        "Read κ with its median; its interval is too narrow with such a tail.",
    )


def saturated(run: Run, best: Best) -> Notice | None:
    """Nearly all samples of a prompt are the same response: another round learns nothing."""
    last = run.rounds[-1]
    distinct, drawn = last["distinct_responses"].value, run.config.get("measure.samples")
    if distinct is None or not isinstance(drawn, int) or distinct * drawn >= FEW_DISTINCT:
        return None
    return Notice(
        "saturated",
        "note",
        "Converged: a prompt's samples are nearly all the same response",
        f"Round {last.round}: {number(distinct * drawn, 2)} distinct responses among {drawn} "
        "samples per prompt.",
        "More rounds will change little.",
    )


def few_prompts(run: Run, best: Best) -> Notice | None:
    """So few held-out prompts that intervals say little."""
    n = run.rounds[-1]["confidence"].n
    if not 0 < n < FEW_PROMPTS:
        return None
    return Notice(
        "few-prompts",
        "note",
        "Few held-out prompts",
        f"{count(n, 'prompt')} behind each number.",
        "Give more prompts or raise prompts.held_out.",
    )


CHECKS: tuple[Callable[[Run, Best], Notice | None], ...] = (
    confident_and_wrong, diverged, kappa_rising, mode_drift, length_changed, kappa_level,
    under_trained, truncation, uncertified, heavy_tail, saturated, few_prompts,
)  # fmt: skip
"""In the order of the page."""


def _moved(c: Change, digits: int = 3) -> str:
    """``1.757 → 1.020 (change -0.737 [-0.801, -0.673], round 0 to 5)``."""
    e = Estimate(c.value, c.low, c.high, 0, "")
    return (
        f"{number(c.start.value, digits)} → {number(c.end.value, digits)} "
        f"(change {with_interval(e, digits, sign=True)}, round {c.start_round} to {c.end_round})"
    )


def _steps(run: Run) -> Sequence[tuple[Round, Round]]:
    """Consecutive rounds, and the whole run where it is more than one round."""
    rounds = run.rounds
    pairs = list(pairwise(rounds))
    return pairs + ([(rounds[0], rounds[-1])] if len(rounds) > 2 else [])


def _sharp(r: Round) -> bool:
    """Whether there is nothing left to sharpen; an undefined kappa is a huge one."""
    kappa = r["kappa"].value
    return kappa is not None and kappa <= LEFT_TO_LEARN
