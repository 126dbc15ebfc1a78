"""Warnings of a run: signs that self-rewarding goes wrong, and reasons to doubt its numbers.

Each is a check, with the numbers that set it off and what to do. A check compares rounds through
``changes.change``, so that a movement inside its interval sets nothing off, nor one of a handful of
prompts; a check that looks at several pairs of rounds widens the intervals so that they hold
together. Thresholds that are no interval are the constants below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from srlm.measure.intervals import FEWEST
from srlm.report.best import Best
from srlm.report.changes import Change, change
from srlm.report.words import NAMES, SYMBOL, count, number, percent, with_interval
from srlm.run_folder import Run
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
SPREAD = 0.05
"""Share of the prompts, of what the interval leaves, that one answer must have gained."""
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
    """Sampling accuracy falls while confidence rises; foreseeable where the modes were worse.

    Of votes, confidence is the vote share, and what was foreseeable is the votes' accuracy.
    """
    sure = run.sure_name
    pairs = [*_steps(run), (run.rounds[best.round], run.rounds[-1])]
    k = len(pairs)
    falls = [
        (c, s)
        for a, b in pairs
        if (c := change("sampling_accuracy", a, b, among=k)).direction == "fell"
        and (s := change(sure, a, b, among=k)).direction == "rose"
    ]
    if not falls:
        return None
    acc, conf = max(falls, key=lambda f: abs(f[0].value or 0.0))
    limit = {"responses": "mode_accuracy", "answers": "vote_accuracy"}.get(run.aim)
    start = run.rounds[0]["sampling_accuracy"].value
    ceiling = run.rounds[0][limit].value if limit else None
    foreseen = ""
    if limit is not None and ceiling is not None and start is not None and ceiling < start:
        name = NAMES[limit].lower()
        foreseen = f" Base: {name} {number(ceiling)} < sampling accuracy {number(start)}."
    named = {"responses": "likelihood is", "answers": "votes are"}.get(run.aim, "the reward is")
    return Notice(
        "confident-and-wrong",
        "serious",
        f"Accuracy fell while {NAMES[sure].lower()} rose",
        f"Sampling accuracy {_moved(acc)}; {NAMES[sure].lower()} {_moved(conf)}.{foreseen}",
        f"Use the best round. If that is round 0, {named} no guide to right answers here.",
    )


def diverged(run: Run, best: Best) -> Notice | None:
    """The step was too large: the loss rose, or probability spread out while it did not fall.

    Spread out: entropy rose, and kappa of what the reward leads to (of responses; of answers, for
    votes, which rightly give up unparseable responses however likely). A reward that leads
    elsewhere may spread probability rightly, so there the answers that are parseable must have
    become fewer too. Never where accuracy rose.
    """
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
    name = run.spread_name or run.kappa_name
    steps = _steps(run)
    for a, b in steps:
        kappa, entropy = (change(x, a, b, among=len(steps)) for x in (name, "entropy"))
        loss = [r.loss_progress for r in run.rounds[a.round + 1 : b.round + 1]]
        worst = min((p for p in loss if p is not None), default=None)
        spread = kappa.direction == entropy.direction == "rose"
        if run.aim == "elsewhere":
            spread &= change("readable", a, b).direction == "fell"
        better = change("sampling_accuracy", a, b).direction == "rose"
        if spread and not better and (worst or 0.0) < LITTLE_PROGRESS:
            fall = "not recorded" if worst is None else f"{percent(worst)} of the way to its floor"
            return Notice(
                "diverged",
                "serious",
                "The update diverged: probability spread out",
                f"{SYMBOL[name]} {_moved(kappa)}; entropy {_moved(entropy)}; loss: {fall}.",
                advice,
            )
    return None


def kappa_rising(run: Run, best: Best) -> Notice | None:
    """kappa rose that exact updates never raise: of responses for the likelihood, of answers for
    votes. Other rewards may raise it rightly."""
    name = run.spread_name
    if name is None:
        return None
    steps = _steps(run)
    moves = [change(name, a, b, among=len(steps)) for a, b in steps]
    rises = [c for c in moves if c.direction == "rose"]
    if not rises:
        return None
    worst = max(rises, key=lambda c: abs(c.value or 0.0))
    return Notice(
        "kappa-rising",
        "serious",
        f"{SYMBOL[name]} rose: the policy became less sure",
        f"{SYMBOL[name]} {_moved(worst)}. Exact updates never raise it.",
        "Lower update.lr, raise update.beta, or use more prompts or samples per round.",
    )


def mode_drift(run: Run, best: Best) -> Notice | None:
    """What the reward leads to is not the base's any more, or its accuracy sinks.

    The likelihood keeps the base's modes (fidelity, mode accuracy), votes its majority answers
    (answer_agreement, vote_accuracy); votes that change for the better are no drift. Any other
    reward is there to change them: only where accuracy and kappa fall together. A note where
    accuracy rose (without answers: the share of the base's majority answers).
    """
    first, last = run.rounds[0], run.rounds[-1]
    if last is first:
        return None
    votes = run.aim == "answers"
    same, right = ("answer_agreement", "vote_accuracy") if votes else ("fidelity", "mode_accuracy")
    what = "Votes kept" if votes else "Fidelity"
    kept, evidence = last[same], []
    top = kept.high
    ceiling = change(right, first, last)
    better = votes and ceiling.direction == "rose"
    right_now = change("sampling_accuracy", first, last).direction
    gained = right_now == "rose" or (
        right_now == "unknown" and change("base_answer_share", first, last).direction == "rose"
    )
    if run.aim != "elsewhere" and top is not None and top < LOW_FIDELITY and not better:
        evidence.append(f"{what} {with_interval(kept)} in round {last.round}")
    if ceiling.direction == "fell":
        evidence.append(f"{NAMES[right]} {_moved(ceiling)}")
    top_round = run.rounds[best.round]
    acc = change("sampling_accuracy", top_round, last)
    spread = run.spread_name or run.kappa_name
    kappa = change(spread, top_round, last)
    falling = acc.direction == "fell" and kappa.direction == "fell"
    if falling and (evidence or top is None):
        evidence.append(f"{SYMBOL[spread]} {_moved(kappa)}; sampling accuracy {_moved(acc)}")
    if not evidence or (run.aim == "elsewhere" and not falling):
        return None
    far = falling or (top is not None and top < VERY_LOW_FIDELITY)
    exact = {"responses": ". Exact updates never change a mode.",
             "answers": ". Exact updates never change a majority answer."}  # fmt: skip
    return Notice(
        "mode-drift",
        "serious" if far and not better and (falling or not gained) else "note",
        "The votes drift away from the base's" if votes else "The modes drift away from the base's",
        ". ".join(evidence) + exact.get(run.aim, "."),
        "Fewer rounds, more samples per prompt, or a lower update.lr keep them.",
    )


def base_answers_lost(run: Run, best: Best) -> Notice | None:
    """Fewer samples than in an earlier round have the base's majority answer, and accuracy did not
    rise."""
    name, last = "base_answer_share", run.rounds[-1]
    before = run.rounds[:-1]
    changes = [change(name, r, last, among=len(before)) for r in before]
    falls = [c for c in changes if c.direction == "fell"]
    if not falls:
        return None
    worst = min(falls, key=lambda c: c.value or 0.0)
    accuracy = change("sampling_accuracy", run.rounds[worst.start_round], last).direction
    if accuracy == "rose":
        return None
    return Notice(
        "base-answers-lost",
        "note" if accuracy in ("level", "unclear") else "serious",
        "Answers drift away from the base's majority answers",
        f"{NAMES[name]} {_moved(worst)}.",
        f"Use round {worst.start_round}, unless the reward is known to be right where most samples "
        "of the base are wrong.",
    )


def one_answer(run: Run, best: Best) -> Notice | None:
    """One answer has become the majority answer of many prompts that had another in the base, and
    votes are not surely better for it."""
    first, last = run.rounds[0], run.rounds[-1]
    spread = last["answer_spread"]
    if not _spread(last) or change("vote_accuracy", first, last).direction == "rose":
        return None
    before = [r.round for r in run.rounds if not _spread(r)]
    return Notice(
        "one-answer",
        "serious",
        "One answer spreads over the prompts",
        f"Majority answer {spread.note} (change {with_interval(spread, sign=True)}). The policy "
        "heeds the prompt less, whatever its votes say.",
        f"Round {max(before, default=0)} is the last before. Prompts of other answers, fewer "
        "rounds, or a lower update.lr keep answers apart.",
    )


def _spread(r: Round) -> bool:
    """Whether one answer has surely gained more than ``SPREAD`` of the prompts, ``FEWEST`` at
    least."""
    e = r["answer_spread"]
    if e.value is None or e.low is None:
        return False
    return e.low > SPREAD and round(e.value * e.n) >= FEWEST


def length_changed(run: Run, best: Best) -> Notice | None:
    """Mean length at the end is less than 2/3 or more than 3/2 of the base's, surely.

    Shorter responses are serious, unless more of them are right.
    """
    c = change("length", run.rounds[0], run.rounds[-1])
    if not c.start.value or c.end.value is None or c.low is None or c.high is None:
        return None
    ratio, short = c.end.value / c.start.value, c.direction == "fell"
    nearest = 1 + (c.high if short else c.low) / c.start.value
    if c.direction not in ("rose", "fell") or 1 / LENGTH_RATIO < nearest < LENGTH_RATIO:
        return None
    better = change("sampling_accuracy", run.rounds[0], run.rounds[-1]).direction == "rose"
    why = "Read the modes below: are short responses what the reward should favour?"
    if run.aim == "responses":
        why = "Summed log-probability favours short responses: read the modes below."
    return Notice(
        "length-collapse" if short else "length-growth",
        "serious" if short and not better else "note",
        "Responses collapsed to short ones" if short else "Responses grew long",
        f"Mean length in tokens {_moved(c, 1)}: {number(ratio, 2)} times the base's.",
        why if short else "Check truncation and repetition in the examples below.",
    )


def kappa_level(run: Run, best: Best) -> Notice | None:
    """The last round left kappa where it was although there was something left to sharpen: kappa of
    responses for the likelihood, of answers for votes."""
    name = run.spread_name
    if len(run.rounds) < 2 or name is None:
        return None
    before, last = run.rounds[-2:]
    c = change(name, before, last)
    if c.direction != "level" or _sharp(run, last):
        return None
    exact = last["kappa_ideal"].value if run.aim == "responses" else None
    could = f" One exact update: {number(exact)}." if exact is not None else ""
    return Notice(
        "kappa-level",
        "note",
        f"{SYMBOL[name]} did not change in the last round",
        f"{SYMBOL[name]} {_moved(c)}.{could}",
        "Train longer (update.epochs, update.lr) or use more prompts or samples per round.",
    )


def under_trained(run: Run, best: Best) -> Notice | None:
    """A round with something left to sharpen went little of the way to its target.

    By the share of the way that its pace says (``forecast.pace``), else by the loss on the round's
    own data, and for the likelihood by the update's efficiency. Rounds that left the policy less
    sure, less often right or with fewer of the base's majority answers are none of these: more
    training would make them worse.
    """
    found = []
    for before, r in pairwise(run.rounds):
        progress, e = r.loss_progress, r["efficiency"]
        fell = ("sampling_accuracy", "base_answer_share")
        worse = any(change(name, before, r).direction == "fell" for name in fell) or (
            run.spread_name is not None and change(run.spread_name, before, r).direction == "rose"
        )
        if _sharp(run, before) or worse or (progress or 0.0) < -LITTLE_LOSS:
            continue
        way = _way(run, r.round)
        top = e.high if e.high is not None else e.value
        if way is not None:
            if way < LITTLE_PROGRESS:
                found.append(f"round {r.round}: {percent(way)} of the way to its target")
        elif progress is not None and progress < LITTLE_PROGRESS:
            found.append(
                f"round {r.round}: loss {number(r.loss_before)} → {number(r.loss_after)}, "
                f"{percent(progress)} of the way to its floor {number(r.loss_floor or 0.0)}"
            )
        elif run.aim == "responses" and top is not None and top < LITTLE_EFFICIENCY:
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


def _way(run: Run, t: int) -> float | None:
    """Share of the way that round t went to its target, at most; None where it was not told."""
    for made in run.forecasts:
        if made["made"] == t and made.get("share"):
            value, high = made["share"]["value"], made["share"].get("high")
            return None if value is None else float(value if high is None else high)
    return None


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
    e, drawn = last["distinct_responses"], run.config.get("measure.samples")
    distinct, most = e.value, e.value if e.high is None else e.high
    if distinct is None or most is None or not isinstance(drawn, int):
        return None
    if e.n < FEWEST or most * drawn >= FEW_DISTINCT:
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


def damaged(run: Run, best: Best) -> Notice | None:
    """Files of the folder are not as they were written, and left out."""
    if not run.damaged:
        return None
    names = list(run.damaged)
    shown = "; ".join(f"{name}: {run.damaged[name]}" for name in names[:5])
    more = f"; {len(names) - 5} more" if len(names) > 5 else ""
    return Notice(
        "damaged",
        "serious",
        "Files of this run are missing or damaged and left out here",
        f"{shown}{more}.",
        "Give the command of the run again, which makes them again where it can; `srlm check` looks"
        " at every file.",
    )


CHECKS: tuple[Callable[[Run, Best], Notice | None], ...] = (
    confident_and_wrong, diverged, kappa_rising, mode_drift, base_answers_lost, one_answer,
    length_changed, kappa_level, under_trained, truncation, uncertified, heavy_tail, saturated,
    few_prompts, damaged,
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


def _sharp(run: Run, r: Round) -> bool:
    """Whether there is nothing left to sharpen; an undefined kappa is a huge one."""
    name = "kappa_vote" if run.aim == "answers" else "kappa"
    kappa = r[name].value
    return kappa is not None and kappa <= LEFT_TO_LEARN
