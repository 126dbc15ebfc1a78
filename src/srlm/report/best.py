"""The best round by what is known."""

from __future__ import annotations

from dataclasses import dataclass

from srlm.report.changes import change
from srlm.report.words import SYMBOL, number, percent
from srlm.run_folder import Run
from srlm.types import Round

FAITHFUL = 0.95
"""Without answers, a round whose fidelity is below this is not offered as the best."""


@dataclass(frozen=True, slots=True)
class Best:
    """A round and why it is the best."""

    round: int
    reason: str


def best_round(run: Run) -> Best:
    """With answers the highest sampling accuracy; without, the lowest kappa at fidelity >= 0.95.

    For votes, without answers: the lowest kappa of answers at votes kept >= 0.95. For rewards that
    lead elsewhere nothing without answers ranks the rounds: the last.

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
    if run.spread_name is None:
        return Best(rounds[-1].round, "the last: without answers nothing ranks the rounds")
    name, same = run.spread_name, "answer_agreement" if run.aim == "answers" else "fidelity"
    known = [r for r in rounds if r[name].value is not None]
    faithful = [r for r in known if r.round == 0 or (r[same].value or 0.0) >= FAITHFUL]
    if not faithful:
        return Best(0, f"{SYMBOL[name]} was not measured")
    best = min(faithful, key=lambda r: (r[name].value or 0.0, r.round))
    text = (
        f"lowest {SYMBOL[name]}, {number(best[name].value)}, "
        f"of rounds with {'votes kept' if run.aim == 'answers' else 'fidelity'} "
        f"≥ {percent(FAITHFUL)}"
    )
    return Best(best.round, text + _equals(name, best, faithful))


def _equals(name: str, best: Round, others: list[Round]) -> str:
    same = [
        str(r.round)
        for r in others
        if r.round != best.round and change(name, r, best).direction in ("level", "unknown")
    ]
    if not same:
        return ""
    return f"; not distinguishable from round{'s' * (len(same) > 1)} {', '.join(same)}"
