"""Reasons to doubt the numbers or to change the settings, though nothing has failed."""

from __future__ import annotations

import numpy as np

from srlm.report.alarm import Alarm
from srlm.report.best import Best
from srlm.report.read import Run
from srlm.report.words import number, percent

TRUNCATED = 0.01
HEAVY_SHARE = 0.2
"""Share of the mean of 1/p* above which the top hundredth of prompts carries it."""
FEW_DISTINCT = 1.2
"""Different responses among the draws of a prompt."""
FEW_PROMPTS = 30


def truncation(run: Run, best: Best) -> Alarm | None:
    """More than a hundredth of the responses of a round are cut off by the length limit."""
    cut = [r for r in run.rounds if (r["truncated"].value or 0.0) > TRUNCATED]
    if not cut:
        return None
    worst = max(cut, key=lambda r: r["truncated"].value or 0.0)
    return Alarm(
        "truncation",
        "note",
        "Responses were cut off by the length limit",
        f"{percent(worst['truncated'].value)} of the responses in round {worst.round}.",
        "Raise samples.max_tokens: a cut-off response has the wrong reward and no answer.",
    )


def uncertified(run: Run, best: Best) -> Alarm | None:
    """Search stopped before it could certify some prompts' modes."""
    tables = [(r.round, r.table) for r in run.rounds if r.table is not None]
    counts = [(int((~t.certified).sum()), n, len(t)) for n, t in tables]
    worst = max(counts, default=(0, 0, 0))
    if not worst[0]:
        return None
    return Alarm(
        "uncertified",
        "note",
        "Some modes are not certified",
        f"{worst[0]} of {worst[2]} prompts in round {worst[1]}: a likelier response may exist, "
        "so p* is a lower bound there and κ an upper bound.",
        "Raise measure.nodes or measure.seconds.",
    )


def heavy_tail(run: Run, best: Best) -> Alarm | None:
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
    return Alarm(
        "heavy-tail",
        "note",
        "A few prompts carry κ",
        f"Round {at}: {top} of {len(z)} prompts make up {percent(share)} of the mean of 1/p*; "
        f"median {number(float(np.median(z)))}, "
        f"95 % quantile {number(float(np.quantile(z, 0.95)))}.",
        "Read κ with its median; its interval is too narrow when the tail is this heavy.",
    )


def saturated(run: Run, best: Best) -> Alarm | None:
    """Nearly all draws of a prompt are the same response: another round learns nothing."""
    last = run.rounds[-1]
    distinct = last["distinct_responses"].value
    draws = run.config.get("measure.samples")
    if distinct is None or not isinstance(draws, int) or distinct * draws >= FEW_DISTINCT:
        return None
    return Alarm(
        "saturated",
        "note",
        "The draws of a prompt are nearly all the same response",
        f"{number(distinct * draws, 2)} different responses among {draws} draws of a prompt "
        f"in round {last.round}.",
        "The loop has nothing left to compare: more rounds will change little.",
    )


def few_prompts(run: Run, best: Best) -> Alarm | None:
    """So few held-out prompts that intervals say little."""
    n = run.rounds[-1]["confidence"].n
    if not 0 < n < FEW_PROMPTS:
        return None
    return Alarm(
        "few-prompts",
        "note",
        "Few held-out prompts",
        f"{n} prompt{'s' * (n > 1)} behind each number.",
        "Give more prompts or raise prompts.held_out.",
    )
