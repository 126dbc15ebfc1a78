"""The answer level against brute force over subsets, and its bounds against the truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from srlm.errors import UserError
from srlm.measure.answer_level import pass_at, split_sample, vote_curve
from srlm.policies.tabular import Tabular, rows
from srlm.types import Samples

ANSWERS = ["a", "a", "b", "b", "c", None, "a"]


def policy(P: int = 40) -> Tabular:
    return Tabular(np.random.default_rng(8).standard_normal((P, len(ANSWERS))))


def drawn(draws: int, P: int = 40, seed: int = 0) -> tuple[Samples, list[str | None]]:
    samples = policy(P).sample(rows(P), draws, seed=seed, max_tokens=1)
    return samples, [ANSWERS[t[0]] for t in samples.tokens_R]


def answer_truth(P: int) -> np.ndarray:
    """pi(a|x) of answers a, b, c, [P, 3]."""
    p_PM = np.exp(policy(P).log_table(rows(P)))
    return np.stack(
        [p_PM[:, [m for m, x in enumerate(ANSWERS) if x == a]].sum(1) for a in "abc"], 1
    )


def brute_vote(answers: list[str | None], right: str, k: int) -> float:
    wins, count = 0.0, 0
    for subset in itertools.combinations(answers, k):
        count += 1
        votes = {a: subset.count(a) for a in subset if a is not None}
        if votes and votes.get(right, 0) == max(votes.values()):
            wins += 1 / list(votes.values()).count(max(votes.values()))
    return wins / count


def test_vote_and_pass_curves_equal_brute_force() -> None:
    K, P = 7, 25
    samples, answers = drawn(K, P)
    right_R = np.array([a == "b" for a in answers])
    votes = vote_curve(samples, answers, right_R, P, range(1, K + 1))
    passes = pass_at(samples, right_R, P, range(1, K + 1))
    for k in range(1, K + 1):
        groups = [answers[p * K : (p + 1) * K] for p in range(P)]
        slow_vote = np.mean([brute_vote(g, "b", k) for g in groups])
        slow_pass = np.mean(
            [np.mean(["b" in s for s in itertools.combinations(g, k)]) for g in groups]
        )
        # 25 prompts x 64 subsets: a standard error of .5 / sqrt(25 * 64) at most; one subset of 7
        error = 1e-12 if k == K else 4 * 0.5 / (P * 64) ** 0.5
        assert votes[k].value == pytest.approx(slow_vote, abs=error)
        assert passes[k].value == pytest.approx(slow_pass, abs=1e-12)
    assert passes[1].value == pytest.approx(right_R.mean())


def test_vote_with_several_right_answers() -> None:
    """Two right spellings do not help each other, and either may win."""
    samples, answers = drawn(5, 10)
    right_R = np.array([a in ("b", "c") for a in answers])
    fast = vote_curve(samples, answers, right_R, 10, [5])[5].value
    groups = [answers[p * 5 : (p + 1) * 5] for p in range(10)]
    slow = np.mean([brute_vote(g, "b", 5) + brute_vote(g, "c", 5) for g in groups])
    assert fast == pytest.approx(slow)


def test_answer_level_is_never_above_sequence_level() -> None:
    p_PM = np.exp(policy().log_table(rows(40)))
    assert (answer_truth(40).max(1) >= p_PM[:, [0, 1, 2, 3, 4, 6]].max(1) - 1e-12).all()


def test_split_sample_covers() -> None:
    """Intervals of 2,000 prompts at 95 %: at most 5 % miss, each side of a valid interval."""
    P = 2000
    samples, answers = drawn(24, P)
    found = split_sample(samples, answers, P)
    truth_PA = answer_truth(P)
    truth = np.array(
        [
            truth_PA[p, "abc".index(a)] if a is not None else 1.0
            for p, a in enumerate(found.answer_P)
        ]
    )
    missed = (np.exp(found.log_low_P) > truth) | (found.high_P < truth)
    assert missed.mean() <= 0.05
    assert (np.exp(found.log_low_P) <= truth_PA.max(1)).mean() >= 0.975 - 0.01


def test_unreadable_draws_and_too_few() -> None:
    samples, _ = drawn(4, 3)
    nothing: list[str | None] = [None] * 12
    assert split_sample(samples, nothing, 3).answer_P == (None,) * 3
    assert vote_curve(samples, nothing, np.zeros(12, dtype=bool), 3, [2])[2].value == 0.0
    single, answers = drawn(1, 3)
    with pytest.raises(UserError, match="prompt 0"):
        split_sample(single, answers, 3)
    with pytest.raises(UserError, match="8 are asked about"):
        pass_at(samples, np.zeros(12, dtype=bool), 3, [1, 8])
