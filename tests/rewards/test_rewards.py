"""Rewards without a judge, each against a slow twin or a closed form."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srlm.config import REWARDS, reward_parts, score_values
from srlm.errors import UserError
from srlm.grading import grader
from srlm.pairs import voted
from srlm.policies.listed import Listed
from srlm.policies.tabular import Tabular, rows
from srlm.rewards.base import Scored, scored
from srlm.rewards.combined import combined
from srlm.rewards.consistency import consistency, votes
from srlm.rewards.length import length_controlled, prefer_short
from srlm.rewards.likelihood import likelihood
from srlm.rewards.likelihood_per_token import likelihood_per_token
from srlm.rewards.self_certainty import self_certainty
from srlm.runner import reward_of
from tests import tiny
from tests.rewards.scripted import by_prompt, responses

WORDS = ((0,), (1, 0), (1, 1, 0), (1, 1, 2), (2, 0))


# ---- likelihoods


def test_likelihood_per_token_is_the_mean_over_tokens() -> None:
    policy, x = tiny.policy(), tiny.texts(5)
    samples = policy.sample(x, 4, seed=0, max_tokens=6)
    expected = [np.mean(t) for t in samples.token_logp_R]
    np.testing.assert_allclose(likelihood_per_token(policy, x, samples), expected, rtol=1e-12)
    np.testing.assert_array_equal(likelihood(policy, x, samples), samples.logp_R)


# ---- self-certainty


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_self_certainty_token_by_token(family: str) -> None:
    """One unpadded forward pass a prefix, KL(uniform || p) written out."""
    policy, x = tiny.policy(family, pass_tokens=70), tiny.texts(5, seed=2)
    samples = policy.sample(x, 3, seed=0, max_tokens=6)
    V = len(tiny.WORDS)
    expected = []
    for p, tokens in zip(samples.prompt_R, samples.tokens_R, strict=True):
        kl = []
        for t in range(len(tokens)):
            ids = torch.tensor([[*policy.encode(x[p]), *tokens[:t]]])
            with torch.inference_mode():
                q = torch.softmax(policy.model(ids).logits[0, -1].double(), -1)
            kl.append(sum(1 / V * np.log(1 / V / q[v].item()) for v in range(V)))
        expected.append(np.mean(kl))
    np.testing.assert_allclose(self_certainty(policy, x, samples), expected, rtol=1e-5, atol=1e-6)


def test_self_certainty_of_single_labels_is_the_prompts_alone() -> None:
    policy, x = tiny.tabular(5, 4), rows(5)
    samples = policy.enumerate(x)
    p_PM = np.exp(policy.log_table(x))
    expected = -np.log(p_PM * 4).mean(1)
    np.testing.assert_allclose(self_certainty(policy, x, samples), np.repeat(expected, 4))


def test_self_certainty_with_impossible_tokens_is_missing() -> None:
    policy = Tabular(tiny.tabular(2, 5).theta, WORDS)
    found = self_certainty(policy, rows(2), policy.enumerate(rows(2)))
    whole = [len(w) == 1 or w[0] != 1 for w in WORDS]  # 0, 1 and 2 can come first
    assert np.isfinite(found[np.tile([len(w) == 1 for w in WORDS], 2)]).all()
    assert np.isnan(found[np.tile([not ok for ok in whole], 2)]).all()


def test_self_certainty_needs_distributions() -> None:
    with pytest.raises(TypeError, match="distributions"):
        self_certainty(object(), [], responses([0], ["a"]))  # type: ignore[arg-type]


# ---- consistency

draws = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("1234?")), min_size=1, max_size=24)


def drawn(items: list[tuple[int, str]]) -> Any:
    return responses([p for p, _ in sorted(items)], [a for _, a in sorted(items)])


@given(draws)
def test_votes_by_counting(items: list[tuple[int, str]]) -> None:
    samples = drawn([(p, f"so {a}") for p, a in items])
    found = consistency(grader("last-number"))(None, [], samples)  # type: ignore[arg-type]
    assert isinstance(found, Scored)
    for r, text in enumerate(samples.text_R):
        mine = [
            t
            for q, t in zip(samples.prompt_R, samples.text_R, strict=True)
            if q == samples.prompt_R[r]
        ]
        expected = np.nan if "?" in text else mine.count(text) / len(mine)
        np.testing.assert_allclose(found.reward_R[r], expected)
    missing = float(samples.weight_R[np.isnan(found.reward_R)].sum() / samples.weight_R.sum())
    assert found.facts["consistency: unreadable"] == pytest.approx(missing)
    assert bool(found.notes) == (missing > 0.5)


def test_consistency_under_enumeration_is_the_answers_probability() -> None:
    texts = ("a 7", "b 7", "c 8", "d")
    policy = Tabular(np.log([[0.4, 0.3, 0.2, 0.1]]), tuple((m,) for m in range(4)), texts)
    samples = policy.enumerate(rows(1))
    found = scored(consistency(grader("last-number"))(policy, rows(1), samples), samples)
    np.testing.assert_allclose(found.reward_R, [0.7, 0.7, 0.2, np.nan])


@given(draws)
def test_most_and_least_voted_by_brute_force(items: list[tuple[int, str]]) -> None:
    samples = drawn(items)
    answer_R = [None if t == "?" else t for t in samples.text_R]
    vote_R = votes(samples.prompt_R, answer_R, samples.weight_R)
    if not np.isfinite(vote_R).any():
        return
    made = voted(samples, vote_R)
    seen = [(int(p), t) for p, t in zip(made.prompt_R, made.tokens_R, strict=True)]
    expected, margin = [], []
    for rows_ in by_prompt(samples):
        known = [r for r in rows_ if np.isfinite(vote_R[r])]
        order = sorted(known, key=lambda r: (-vote_R[r], r))
        if order and vote_R[order[0]] > vote_R[order[-1]]:
            worst = min(r for r in known if vote_R[r] == vote_R[order[-1]])
            two = sorted((order[0], worst))
            expected += [(int(samples.prompt_R[r]), samples.tokens_R[r]) for r in two]
            margin.append(vote_R[order[0]] - vote_R[worst])
    assert seen == expected
    if margin:
        assert made.scale_G is not None
        np.testing.assert_allclose(made.scale_G, np.array(margin) / np.mean(margin))


# ---- length control

scores = st.lists(
    st.tuples(st.floats(-5, 5), st.integers(1, 9), st.floats(0.1, 1)), min_size=1, max_size=8
)


@given(scores, st.floats(0, 3))
def test_length_control(items: list[tuple[float, int, float]], tolerance: float) -> None:
    """Mean and range stay, the others are left alone, the best is the shortest of the near."""
    r, n, w = (np.array(x) for x in zip(*items, strict=True))
    out = prefer_short(r, n, np.zeros(len(r), dtype=np.int64), w, tolerance)
    near = r >= r.max() - tolerance
    np.testing.assert_array_equal(out[~near], r[~near])
    assert (out * w).sum() == pytest.approx((r * w).sum(), abs=1e-9)
    assert out.max() <= r.max() + 1e-9
    assert out[near].min() >= r[near].min() - 1e-9
    ordered = sorted(zip(n[near], out[near], strict=True), key=lambda x: x[0])
    assert all(b[1] <= a[1] + 1e-9 for a, b in pairwise(ordered))
    assert all(a[1] == b[1] for a, b in pairwise(ordered) if a[0] == b[0])


def test_length_control_keeps_missing_rewards_and_prompts_apart() -> None:
    r = np.array([1.0, np.nan, 3.0, 2.9])
    out = prefer_short(r, np.array([9, 1, 9, 2]), np.array([0, 0, 1, 1]), np.ones(4), 0.5)
    np.testing.assert_allclose(out, [1.0, np.nan, 2.9, 3.0])


def test_length_control_of_a_reward_tells_what_it_moved() -> None:
    samples = responses([0, 0], ["a long one", "short"])
    reward = length_controlled(lambda policy, x, s: np.array([1.0, 0.9]), 0.2)
    found = scored(reward(None, [], samples), samples)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.reward_R, [0.9, 1.0])
    assert found.facts["length control: moved"] == 1.0


# ---- sums, names, one's own


def test_sums_are_weighted_and_missing_where_a_part_is() -> None:
    part = Scored(np.array([1.0, 2.0, np.nan]), {"a": 1.0}, lambda facts: ["said"])
    one = lambda policy, x, s: part  # noqa: E731
    samples = responses([0, 0, 0], ["a", "b", "c"])
    total = combined([(one, 2.0), (likelihood, 0.1)])
    found = scored(total(None, [], samples), samples)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.reward_R, [2 - 0.1, 4 - 0.2, np.nan])
    assert dict(found.facts) == {"a": 1.0}
    assert found.notes == ["said"]
    assert found.judged_R is None
    judged = lambda policy, x, s: Scored(np.zeros(3), judged_R=np.array([1.0, 2.0, 3.0]))  # noqa: E731
    for reward in (combined([(likelihood, 1.0), (judged, 1.0)]), length_controlled(judged, 1.0)):
        found = scored(reward(None, [], samples), samples)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.judged_R, [1, 2, 3])
    with pytest.raises(ValueError):
        combined([])


def test_a_reward_gives_a_number_a_row() -> None:
    with pytest.raises(ValueError, match=r"\(1,\), not \(2,\)"):
        scored(np.zeros(1), responses([0, 0], ["a", "b"]))


def test_names_and_weights() -> None:
    assert reward_parts(" judge : 1, likelihood:0.1") == {"judge": 1.0, "likelihood": 0.1}
    for wrong in ("", "judge:", "judge:x", "truth", "judge,judge", "judge:nan", ":1", "judge,"):
        with pytest.raises(ValueError):
            reward_parts(wrong)
    for wrong in ("y", "y=1", "y=1,n", "y=1,n=inf"):
        with pytest.raises(ValueError):
            score_values(wrong)


def settings(**changes: Any) -> Any:
    from pathlib import Path

    return tiny.config(Path("m"), Path("p"), **changes)


@pytest.mark.parametrize("name", REWARDS)
def test_every_name_makes_a_reward(name: str) -> None:
    assert callable(reward_of(settings(reward=name)))


def test_named_sums_and_length_control() -> None:
    samples = responses([0, 0], ["aaaa", "b"])
    both = settings(reward="likelihood:1,likelihood-per-token:2")
    found = scored(reward_of(both)(None, [], samples), samples)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.reward_R, [-1 - 2 / 5, -2 - 2])
    short = settings(reward="likelihood", length_tolerance=1.5)
    found = scored(reward_of(short)(None, [], samples), samples)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.reward_R, [-2, -1])


@pytest.mark.parametrize("wrong", ["truth", "judge:1,truth:2", "judge:x"])
def test_a_reward_that_is_none_is_refused_in_the_settings(wrong: str) -> None:
    with pytest.raises(UserError, match="reward"):
        settings(reward=wrong)


def test_scores_of_the_judge_are_checked_in_the_settings() -> None:
    with pytest.raises(UserError, match=r"judge\.scores"):
        settings(**{"judge.scores": "y"})


@pytest.mark.parametrize("make", [tiny.tabular, tiny.linear])
def test_exact_policies_take_the_rewards_that_need_no_text(make: Any) -> None:
    policy: Listed = make()
    x = rows(4) if make is tiny.tabular else tiny.vectors(4)
    samples = policy.sample(x, 6, seed=0, max_tokens=1)
    for name in ("likelihood", "likelihood-per-token", "self-certainty", "consistency"):
        found = scored(reward_of(settings(reward=name))(policy, x, samples), samples)
        assert np.isfinite(found.reward_R).all()
