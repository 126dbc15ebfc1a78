"""Alarms and verdicts of exact runs through the loop: every reward, going well and badly.

A prompt has four responses: short without an answer, right in two wordings, wrong. All are listed
and updates are exact, so what a run does is the reward's doing alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srlm import loop, pairs, train
from srlm.config import MeasureSettings, SampleSettings, UpdateSettings
from srlm.grading import grader
from srlm.measure.agreement import answer_spread
from srlm.measure.intervals import mean
from srlm.policies.tabular import Tabular
from srlm.report.best import best_round
from srlm.report.verdict import judge
from srlm.report.warnings import warnings
from srlm.rewards.base import Reward
from srlm.rewards.consistency import consistency
from srlm.rewards.likelihood import likelihood
from srlm.rewards.likelihood_per_token import likelihood_per_token
from srlm.rounds import Method
from srlm.run_folder import Memory, Run
from srlm.types import Floats, Prompt

READ = grader("last-number")
TEXTS = ("?", "is 4", "makes 4", "is 5")
RESPONSES = ((0,), (1, 1, 1), (2, 2, 2), (3, 3, 3))
BASES = {
    "good": (0.1, 0.4, 0.2, 0.3),
    "giveup": (0.45, 0.2, 0.15, 0.2),
    "split": (0.1, 0.28, 0.27, 0.35),  # the answer has most mass, the likeliest response is wrong
    "wrong": (0.1, 0.2, 0.1, 0.6),
}
PROMPTS = 30
ROUNDS = 2


def favours(*value_M: float) -> Reward:
    """A frozen reward of each response."""

    def reward(policy: Any, prompts: Sequence[Prompt], samples: Any) -> Floats:
        return np.array([value_M[t[0]] for t in samples.tokens_R])

    return reward


def done(name: str, reward: Reward, base: str, beta: float, answers: bool) -> Run:
    """A run in memory."""
    noise = np.random.default_rng(0).normal(0, 0.1, (PROMPTS, 4))
    policy = Tabular(np.log(BASES[base]) + noise, RESPONSES, TEXTS)
    right = ("4",) if answers else ()
    prompts = [Prompt(id=str(i), content=i, answers=right) for i in range(PROMPTS)]
    method = Method(
        samples=SampleSettings(source="enumerate"),
        reward=reward,
        pair=pairs.groups,
        objective=train.weighted_objective,
        update=UpdateSettings(beta=beta),
        measure=MeasureSettings(),
        grader=READ,
    )
    memory = Memory()
    records = [
        replace(r, table=memory.get(r.round, "table"))
        for r in loop.self_reward(
            policy, prompts, prompts, method=method, rounds=ROUNDS, folder=memory
        )
    ]
    return Run(Path("run"), {"reward": name, "measure.samples": 16}, {}, tuple(records))


Case = tuple[str, Reward, str, float]
WELL: list[Case] = [
    ("likelihood", likelihood, "good", 1.0),
    ("consistency", consistency(READ), "good", 0.3),
    ("consistency", consistency(READ), "giveup", 0.3),
    ("consistency", consistency(READ), "split", 0.3),
    ("likelihood-per-token", likelihood_per_token, "giveup", 0.3),
    ("self-certainty", favours(0, 1, 1, 0.5), "good", 0.5),
    ("judge", favours(0, 1, 1, 0), "good", 0.5),
    ("judge", favours(0, 1, 1, 0), "wrong", 0.5),
    ("judge:1,consistency:0.5", favours(0, 1, 1, 0), "giveup", 0.5),
]
BADLY: list[Case] = [
    ("likelihood", likelihood, "giveup", 1.0),
    ("likelihood", likelihood, "split", 1.0),
    ("consistency", consistency(READ), "wrong", 0.3),
    ("likelihood-per-token", likelihood_per_token, "wrong", 0.3),
    ("self-certainty", favours(1, 0.5, 0.5, 0.5), "good", 0.5),
    ("judge", favours(0, 0, 0, 1), "good", 0.5),
    ("judge", favours(1, 0, 0, 0), "giveup", 0.5),
    ("judge:1,consistency:0.5", favours(1, 0, 0, 1), "good", 0.5),
]


def told(case: Case, answers: bool) -> tuple[Run, Any, dict[str, str], Any]:
    run = done(*case, answers)
    best = best_round(run)
    found = warnings(run, best)
    return run, best, {n.code: n.severity for n in found}, judge(run, best, found)


@pytest.mark.parametrize("case", WELL, ids=lambda c: f"{c[0]}-{c[2]}")
def test_a_run_that_goes_well_raises_no_alarm(case: Case) -> None:
    run, best, codes, verdict = told(case, answers=True)
    assert verdict.status == "improved" and codes == {}
    run, best, codes, verdict = told(case, answers=False)
    if case[2] == "wrong":  # most votes of the base are wrong: without answers it looks like a loss
        # ... and all prompts come to have one answer, which was the majority answer of none.
        assert codes == {"base-answers-lost": "serious", "one-answer": "serious"}
        assert best.round == 0
    else:
        assert verdict.status == "sharpened" and codes == {}
        share = [r["base_answer_share"].value or 0.0 for r in run.rounds]
        assert best.round == int(np.argmax(share)) >= ROUNDS - 1


@pytest.mark.parametrize("case", BADLY, ids=lambda c: f"{c[0]}-{c[2]}")
def test_a_run_that_goes_badly_is_told_why(case: Case) -> None:
    """Exact updates do not diverge and are not under-trained, whatever the reward does."""
    _, best, codes, verdict = told(case, answers=True)
    assert (verdict.status, best.round) == ("failed", 0)
    assert codes["confident-and-wrong"] == "serious"
    assert not codes.keys() & {"diverged", "kappa-rising", "under-trained", "kappa-level"}
    _, best, codes, verdict = told(case, answers=False)
    if case[2] == "wrong":  # the base's votes are wrong, and the reward follows them
        assert verdict.status == "sharpened" and codes.keys() <= {"saturated"}
    else:
        assert (verdict.status, best.round) == ("failing", 0)
        assert codes["base-answers-lost"] == "serious"
        assert not codes.keys() & {"diverged", "kappa-rising", "under-trained", "kappa-level"}


def spreading(
    rounds: Sequence[Sequence[str]], vote_accuracy: tuple[float, ...] = (), answers: bool = False
) -> Run:
    """A run whose prompts have these majority answers, one list a round."""
    run = done("consistency", consistency(READ), "good", 0.3, answers)
    made = []
    for t, (record, votes) in enumerate(zip(run.rounds, rounds, strict=True)):
        more = {"answer_spread": answer_spread(votes, rounds[0], seed=0)}
        if vote_accuracy:
            right = np.arange(len(votes)) < vote_accuracy[t] * len(votes)
            more["vote_accuracy"] = mean(right.astype(float), 0, "", least=0.0, most=1.0)
        made.append(replace(record, estimates={**record.estimates, **more}))
    return replace(run, rounds=tuple(made))


BASE = ["1"] * 20 + ["2"] * 10 + [str(n) for n in range(3, 13)]


def test_one_answer_that_spreads_over_the_prompts_is_an_alarm() -> None:
    """Vote shares alone would say that the policy only became surer."""
    taken = ["1"] * 20 + ["2"] * 15 + ["1"] * 5
    run = spreading([BASE, BASE, taken])
    assert "one-answer" not in {n.code for n in warnings(run, best_round(run))}
    run = spreading([BASE, taken, ["2"] * 40])
    best = best_round(run)
    found = {n.code: n for n in warnings(run, best)}
    assert found["one-answer"].severity == "serious"
    assert "'2': 40 of 40 prompts, 10 in the base" in found["one-answer"].evidence
    assert judge(run, best, tuple(found.values())).badge == "failing: one answer spreads"


def test_an_answer_that_spreads_because_it_is_right_is_none() -> None:
    run = spreading([BASE, BASE, ["2"] * 40], (0.3, 0.3, 0.9))
    assert "one-answer" not in {n.code for n in warnings(run, best_round(run))}
    run = spreading([BASE, BASE, ["2"] * 40], (0.3, 0.3, 0.3))
    assert "one-answer" in {n.code for n in warnings(run, best_round(run))}


def test_more_right_samples_are_no_improvement_where_votes_are_lost_to_one_answer() -> None:
    for last, vote_accuracy, badge in (
        (BASE, 0.5, "improved"),
        (["2"] * 40, 0.5, "improved"),  # the alarm says it
        (["2"] * 40, 0.1, "failing: one answer spreads"),
    ):
        run = spreading([BASE, BASE, last], (0.5, 0.5, vote_accuracy), answers=True)
        best = best_round(run)
        assert judge(run, best, warnings(run, best)).badge == badge


def test_a_handful_of_prompts_tells_of_no_spread() -> None:
    few = [*"12345", "1"]
    run = spreading([few, few, ["1"] * 6])
    assert (run.rounds[-1]["answer_spread"].low or 0) > 0.05
    assert "one-answer" not in {n.code for n in warnings(run, best_round(run))}
