"""The best round by what is known."""

from __future__ import annotations

from dataclasses import dataclass

from srlm import stopping
from srlm.report.changes import change
from srlm.report.words import NAMES, number
from srlm.run_folder import Run
from srlm.types import Round


@dataclass(frozen=True, slots=True)
class Best:
    """A round and why it is the best."""

    round: int
    reason: str


def best_round(run: Run) -> Best:
    """With answers the highest sampling accuracy; without, the round that ``--stop auto`` keeps
    (``stopping.best_round``): the highest accuracy by the base's votes, as if they were right.

    Where answers cannot be read nothing ranks the rounds, but for the likelihood: the last.

    The earliest of equals. Chosen on the prompts that it is measured on, so its own figure is a
    little flattering when rounds lie close together; the reason names rounds that it is not
    distinguishable from.
    """
    rounds = run.rounds
    if len(rounds) == 1:
        return Best(0, "only the base is measured")
    if run.has_answers:
        known = [r for r in rounds if r["sampling_accuracy"].value is not None]
        best = max(known, key=lambda r: (r["sampling_accuracy"].value or 0.0, -r.round))
        text = f"highest sampling accuracy, {number(best['sampling_accuracy'].value)}"
        text = "the base; " * (best.round == 0) + text
        return Best(best.round, text + _equals("sampling_accuracy", best, known))
    rule = stopping.rule_of(str(run.config.get("reward", "likelihood")))
    history = [r.estimates for r in rounds]
    name = stopping.ranked_by(history, rule)
    if name is None:
        return Best(rounds[-1].round, "the last: without answers nothing ranks the rounds")
    best = rounds[stopping.best_round(history, rule)[0]]
    text = f"highest {NAMES[name].lower()}, {number(best[name].value)}"
    return Best(best.round, text + _equals(name, best, list(rounds)))


def _equals(name: str, best: Round, others: list[Round]) -> str:
    same = [
        str(r.round)
        for r in others
        if r.round != best.round and change(name, r, best).direction not in ("rose", "fell")
    ]
    if not same:
        return ""
    return f"; not distinguishable from round{'s' * (len(same) > 1)} {', '.join(same)}"
