"""Rounds without training: the loop's own rounds to 1e-9, closed forms, slow twins."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from srlm import losses
from srlm.forecast import dynamics
from srlm.grading import Grader
from srlm.policies.linear_softmax import LinearSoftmax
from srlm.policies.listed import Listed, ListedTree
from srlm.policies.tabular import Tabular, rows
from srlm.rewards.base import Reward
from srlm.rewards.combined import combined
from srlm.rewards.consistency import consistency
from srlm.rewards.length import length_controlled
from srlm.rewards.likelihood import likelihood
from srlm.rewards.likelihood_per_token import likelihood_per_token
from srlm.rewards.self_certainty import divergence, self_certainty
from srlm.types import Floats, Samples
from tests.forecast.looped import tables

X, V, BETA, T = 4, 3, 1.5, 3
PATHS = tuple(product(range(V), repeat=2))  # every node has all V children: certainty is finite
UNEVEN = ((0,), (1, 0), (1, 1), (2, 0, 0), (2, 0, 1), (2, 1), (2, 2))


def read(text: str) -> str | None:
    """Answer: the sum of the tokens modulo 3."""
    return str(sum(map(int, text.split())) % 3)


def half_read(text: str) -> str | None:
    """The same, but what begins with a 2 cannot be read."""
    return None if text.startswith("2") else read(text)


def tabular(responses: tuple[tuple[int, ...], ...], seed: int = 0) -> Tabular:
    logits = np.random.default_rng(seed).normal(size=(X, len(responses)))
    return Tabular(logits, responses)


def linear(seed: int = 0) -> LinearSoftmax:
    """As many independent features as there are cells: every target lies in the class."""
    rng = np.random.default_rng(seed)
    D = X * V
    phi = np.linalg.qr(rng.normal(size=(D, D)))[0].reshape(X, V, D)
    return LinearSoftmax(rng.normal(size=D), ("0", "1", "2"), phi_XMD=phi)


def one(*answers: str | None) -> dynamics.Ballot:
    """The answers of one prompt."""
    return dynamics.ballot(np.zeros(len(answers), dtype=np.int64), answers)


def start(policy: Listed) -> tuple[dynamics.Mass, Samples]:
    listed = policy.enumerate(rows(X))
    return dynamics.of_samples(listed), listed


def frozen_reward(policy: object, prompts: object, samples: Samples) -> Floats:
    return np.array([np.sin(7.0 * sum(t) + len(t)) for t in samples.tokens_R])


def exact_certainty(policy: Listed) -> dynamics.Score:
    """r = mean over y's tokens of KL(uniform || pi_t(.|x, y_<t)), all responses listed."""
    responses_M = policy.responses_M

    def score(mass: dynamics.Mass) -> Floats:
        tree = ListedTree(responses_M, mass.logp_R.reshape(-1, len(responses_M)))
        reward_R = np.array(
            [
                float(divergence(torch.from_numpy(tree.path(p, tokens))).mean())
                for p in range(mass.prompts)
                for tokens in responses_M
            ]
        )
        return np.where(np.isfinite(reward_R), reward_R, np.nan)

    return score


def log_vote(votes: dynamics.Ballot) -> dynamics.Score:
    """r = log v_t(a(y)|x): v_t is proportional to v_0^(1 + 1/beta)^t, [SR] at answer level."""

    def score(mass: dynamics.Mass) -> Floats:
        with np.errstate(divide="ignore"):
            return votes.spread(np.log(votes.shares(mass)))

    return score


def hard_vote(votes: dynamics.Ballot) -> dynamics.Score:
    """r = 1[a(y) is the likeliest answer]; t tied answers get 1/t each.

    The odds of the mode are multiplied by exp(1/beta) a round (TTRL, arXiv 2504.16084, with a vote
    among infinitely many samples).
    """

    def score(mass: dynamics.Mass) -> Floats:
        share_A, at = votes.shares(mass), votes.prompt_A
        top_P = np.zeros(mass.prompts)
        np.maximum.at(top_P, at, share_A)
        won_A = (share_A >= top_P[at] - dynamics.TIE).astype(np.float64)
        return votes.spread(won_A / np.bincount(at, won_A, minlength=mass.prompts)[at])

    return score


def rewards(policy: Listed, reader=read) -> dict[str, tuple[Reward, dynamics.Score]]:  # type: ignore[no-untyped-def]
    _, listed = start(policy)
    answer_R = [reader(t) for t in listed.text_R]
    length_R = listed.length_R
    share = dynamics.vote_share(dynamics.ballot(listed.prompt_R, answer_R))
    per_token = dynamics.likelihood_per_token(length_R)
    vote = consistency(Grader("last", reader, str))
    return {
        "likelihood": (likelihood, dynamics.likelihood),
        "likelihood-per-token": (likelihood_per_token, per_token),
        "self-certainty": (self_certainty, exact_certainty(policy)),
        "consistency": (vote, share),
        "frozen": (frozen_reward, dynamics.frozen(frozen_reward(0, 0, listed))),
        "combined": (
            combined([(vote, 2.0), (likelihood_per_token, 0.5)]),
            dynamics.combined([(share, 2.0), (per_token, 0.5)]),
        ),
        "length-controlled": (
            length_controlled(likelihood, 0.7),
            dynamics.length_controlled(dynamics.likelihood, length_R, 0.7),
        ),
    }


CASES = [
    (kind, name, objective)
    for kind in ("paths", "uneven", "linear")
    for name in rewards(tabular(PATHS))
    for objective in ("square", "weighted")
    if (kind, name) != ("uneven", "self-certainty")  # nodes without all tokens: infinite, missing
]


@pytest.mark.parametrize(("kind", "name", "objective"), CASES)
def test_equals_the_loop(kind: str, name: str, objective: str) -> None:
    policy = {"paths": tabular(PATHS), "uneven": tabular(UNEVEN), "linear": linear()}[kind]
    reward, score = rewards(policy)[name]
    trained = tables(policy, rows(X), reward, objective, BETA, T)
    ahead = dynamics.trajectory(start(policy)[0], dynamics.exact(score, BETA), T)
    for p_PM, mass in zip(trained, ahead, strict=True):
        np.testing.assert_allclose(mass.mass_R.reshape(p_PM.shape), p_PM, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ["consistency", "combined"])
def test_what_cannot_be_read_leaves_as_in_the_loop(name: str) -> None:
    policy = tabular(PATHS)
    reward, score = rewards(policy, half_read)[name]
    trained = tables(policy, rows(X), reward, "weighted", BETA, T)
    ahead = dynamics.trajectory(start(policy)[0], dynamics.exact(score, BETA), T)
    for p_PM, mass in zip(trained, ahead, strict=True):
        np.testing.assert_allclose(mass.mass_R.reshape(p_PM.shape), p_PM, atol=1e-9, rtol=0)
    assert (ahead[1].mass_R.reshape(X, -1)[:, -V:] == 0).all()


def test_log_vote_is_a_power_of_the_answers() -> None:
    v_A = np.array([0.5, 0.3, 0.2])
    step = dynamics.exact(log_vote(one("a", "b", "c")), 2.0)
    ahead = dynamics.trajectory(dynamics.of_shares([v_A]), step, 4)
    for t, mass in enumerate(ahead):
        power = v_A ** (1.5**t)
        np.testing.assert_allclose(mass.mass_R, power / power.sum(), rtol=1e-12)


def test_votes_leave_the_responses_of_an_answer_as_they_are() -> None:
    mass, listed = start(tabular(PATHS))
    answer_R = np.array([read(t) for t in listed.text_R])
    for score in (dynamics.vote_share, log_vote, hard_vote):
        after = dynamics.exact(score(dynamics.ballot(mass.prompt_R, answer_R.tolist())), 0.5)(mass)
        for p, a in product(range(X), "012"):
            of = (mass.prompt_R == p) & (answer_R == a)
            before, now = mass.mass_R[of], after.mass_R[of]
            np.testing.assert_allclose(now / now.sum(), before / before.sum(), rtol=1e-12)


def test_hard_vote_multiplies_the_odds_of_the_mode() -> None:
    mass = dynamics.of_shares([np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])])
    after = dynamics.exact(hard_vote(dynamics.ballot(mass.prompt_R, list("abc") * 2)), 0.5)(
        mass
    ).mass_R
    assert after[0] / (1 - after[0]) == pytest.approx(np.exp(2.0))
    assert after[3] == pytest.approx(after[4])  # tied
    assert after[3] / after[5] == pytest.approx(2 * np.exp(1.0))


def test_a_prompt_without_rewards_stays() -> None:
    mass = dynamics.of_shares([np.array([0.5, 0.5]), np.array([0.7, 0.3])])
    after = dynamics.target(mass, np.array([np.nan, np.nan, 1.0, np.nan]), 1.0)
    np.testing.assert_allclose(after.mass_R, [0.5, 0.5, 1.0, 0.0])


def test_samples_follow_the_enumeration() -> None:
    """Likelihood per token on samples: what the exact policy does, within sampling error."""
    policy = tabular(UNEVEN)
    every, listed = start(policy)
    drawn = policy.sample(rows(X), 40_000, seed=1, max_tokens=4)
    some = dynamics.of_samples(drawn)
    paths = [
        dynamics.trajectory(m, dynamics.exact(dynamics.likelihood_per_token(s.length_R), 2.0), 3)
        for m, s in ((every, listed), (some, drawn))
    ]
    for exact, sampled in zip(*paths, strict=True):
        right_P, seen_P = (
            m.expect(np.array([len(t) == 2 for t in s.tokens_R], dtype=float))
            for m, s in ((exact, listed), (sampled, drawn))
        )
        error_P = 0.5 / np.sqrt(sampled.effective_samples())
        assert (np.abs(right_P - seen_P) < 5 * error_P).all()
        of = {(p, t): exact.logp_R[r] for r, (p, t) in enumerate(_keys(listed))}
        logp_R = np.array([of[key] for key in _keys(drawn)])
        assert np.abs(sampled.logp_R - logp_R).max() < 0.1  # Z is estimated
    assert (paths[1][3].effective_samples() < 40_000).all()


def _keys(samples: Samples) -> list[tuple[int, tuple[int, ...]]]:
    return list(zip(samples.prompt_R.tolist(), samples.tokens_R, strict=True))


def test_target_weights_of_the_loss_are_the_target() -> None:
    """The weighted loss on samples pulls towards the same target."""
    mass = dynamics.of_shares([np.array([0.5, 0.3, 0.2])])
    reward_R = np.array([1.0, 0.2, -0.4])
    reward, share = torch.from_numpy(reward_R), torch.from_numpy(mass.mass_R)
    group = torch.zeros(3, dtype=torch.long)
    made = losses.target_weights(losses.Groups(reward, reward, share, group, 1, 0.8))
    np.testing.assert_allclose(dynamics.target(mass, reward_R, 0.8).mass_R, made, rtol=1e-12)


def test_log_softmax_of_the_start() -> None:
    policy = tabular(PATHS)
    mass, _ = start(policy)
    table = log_softmax(policy.theta.reshape(X, -1), axis=1)
    np.testing.assert_allclose(mass.log_mass_R.reshape(X, -1), table, atol=1e-12)
