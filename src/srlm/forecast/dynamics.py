"""How a round of any self-reward moves probability mass, without training.

The exact target of a round is pi'(y|x) proportional to pi(y|x) exp(r(x, y) / beta), so on listed
rows (all responses, all answers, or samples)

    log pi' = log pi + r / beta - log Z,    Z = sum_y pi(y|x) exp(r(x, y) / beta).

Rows without a reward (an unparseable answer, a response that was cut off) leave the
target: pi' = 0 there. A prompt none of whose rows has a reward stays as it is.

On samples a row carries two numbers: its share of the prompt's mass (1/K at the start), and
log pi_t(y|x). Both move by r / beta - log Z with Z estimated under the shares, so rewards that are
read anew each round need no new samples; ``effective_samples`` says how far that carries. Where
all responses, or all answers, are listed, the two are one number and everything is exact.

A ``Score`` reads the reward off the mass; ``exact(score, beta)`` is a ``Round``, from mass to
mass; ``mixture`` and ``geometric`` are rounds that go part of the way; ``trajectory`` repeats one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import comb

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln

from srlm.policies.listed import Listed, ListedTree
from srlm.rewards.length import prefer_short
from srlm.rewards.self_certainty import divergence
from srlm.types import Floats, Ints, Samples

TIE = 1e-12
"""Vote shares that lie nearer together than this are tied."""
MOST_COUNTS = 50_000
"""Vote counts of k samples that are gone through one by one; beyond, they are simulated."""


@dataclass(frozen=True, slots=True)
class Mass:
    """A policy on listed rows of P prompts; the rows of a prompt lie together."""

    prompt_R: Ints
    """Index of the row's prompt, 0..P-1."""
    log_mass_R: Floats
    """log of the row's share of its prompt; the shares of a prompt sum to 1."""
    logp_R: Floats
    """log pi_t(y|x), nats: ``log_mass_R`` itself where all responses or answers are listed."""

    @property
    def mass_R(self) -> Floats:
        """Shares, [R]; they sum to 1 over a prompt."""
        return np.exp(self.log_mass_R)

    @property
    def prompts(self) -> int:
        return int(self.prompt_R[-1]) + 1 if len(self.prompt_R) else 0

    def expect(self, value_R: Floats) -> Floats:
        """E_{y ~ pi_t(.|x)} value(y) of each prompt, [P]; rows without mass do not count."""
        mass_R = self.mass_R
        product_R = np.where(mass_R > 0, mass_R * value_R, 0.0)
        return np.bincount(self.prompt_R, product_R, minlength=self.prompts).astype(np.float64)

    def effective_samples(self) -> Floats:
        """(sum w)^2 / sum w^2 of each prompt, [P], where the rows are samples of equal weight."""
        return np.asarray(1.0 / np.bincount(self.prompt_R, self.mass_R**2, minlength=self.prompts))


def of_samples(samples: Samples) -> Mass:
    """The policy on its own samples, or on its enumerated responses."""
    with np.errstate(divide="ignore"):
        return Mass(samples.prompt_R, np.log(samples.weight_R), samples.logp_R)


def of_shares(share_PA: Sequence[Floats]) -> Mass:
    """Answers of each prompt with their shares (and the unreadable share), which sum to 1.

    >>> of_shares([np.array([0.75, 0.25])]).mass_R
    array([0.75, 0.25])
    """
    prompt_R = np.repeat(np.arange(len(share_PA)), [len(a) for a in share_PA])
    with np.errstate(divide="ignore"):
        log_R = np.log(np.concatenate([np.asarray(a, dtype=np.float64) for a in share_PA]))
    return Mass(prompt_R, log_R, log_R)


def target(mass: Mass, reward_R: Floats, beta: float) -> Mass:
    """The exact minimiser of a round: log pi' = log pi + r / beta - log Z. O(R).

    Args:
        mass: pi_t.
        reward_R: r_t(x, y), [R]; not-a-number is missing.
        beta: strength of the reference, > 0.

    >>> target(of_shares([np.array([0.5, 0.3, 0.2])]), np.array([np.log(2), 0, np.nan]), 1).mass_R
    array([0.76923077, 0.23076923, 0.        ])
    """
    alive_R = np.isfinite(reward_R) & (mass.log_mass_R > -np.inf)
    step_R = np.where(alive_R, np.where(alive_R, reward_R, 0.0) / beta, -np.inf)
    score_R = np.where(alive_R, mass.log_mass_R, 0.0) + step_R
    top_P = np.full(mass.prompts, -np.inf)
    np.maximum.at(top_P, mass.prompt_R, score_R)
    some_P = top_P > -np.inf
    top_P = np.where(some_P, top_P, 0.0)
    scaled_R = np.exp(score_R - top_P[mass.prompt_R])
    total_P = np.bincount(mass.prompt_R, scaled_R, minlength=mass.prompts)
    log_z_P = top_P + np.log(np.where(some_P, total_P, 1.0))
    move_R = np.where(some_P[mass.prompt_R], step_R - log_z_P[mass.prompt_R], 0.0)
    return _moved(mass, move_R)


def _moved(mass: Mass, move_R: Floats) -> Mass:
    """Both logarithms moved; what has no mass keeps none."""
    gone_R = (move_R == -np.inf) | (mass.log_mass_R == -np.inf)
    move_R = np.where(gone_R, 0.0, move_R)
    return replace(
        mass,
        log_mass_R=np.where(gone_R, -np.inf, mass.log_mass_R + move_R),
        logp_R=np.where(gone_R, -np.inf, mass.logp_R + move_R),
    )


# ---- rewards, read off the mass

Score = Callable[[Mass], Floats]
"""r_t(x, y) of each row, [R], under pi_t; not-a-number where it is missing."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """Which rows of a prompt say the same."""

    answer_R: Ints
    """Number of the row's (prompt, answer), 0..A-1; -1 where no answer can be read."""
    prompt_A: Ints
    """Prompt of each."""

    def shares(self, mass: Mass) -> Floats:
        """v(a|x) of each answer, [A]."""
        voting = self.answer_R >= 0
        of = self.answer_R[voting]
        return np.bincount(of, mass.mass_R[voting], minlength=len(self.prompt_A)).astype(float)

    def spread(self, value_A: Floats) -> Floats:
        """What holds for answers, on their rows, [R]; not-a-number for the others."""
        return np.append(value_A, np.nan)[self.answer_R]


def ballot(prompt_R: Ints, answer_R: Sequence[str | None]) -> Ballot:
    """From the answer of each row; None where it is unparseable."""
    index: dict[tuple[int, str], int] = {}
    code = [
        -1 if a is None else index.setdefault((p, a), len(index))
        for p, a in zip(prompt_R.tolist(), answer_R, strict=True)
    ]
    return Ballot(np.array(code, dtype=np.int64), np.array([p for p, _ in index], dtype=np.int64))


def likelihood(mass: Mass) -> Floats:
    """r = log pi_t(y|x): pi_t is proportional to pi_0^(1 + 1/beta)^t."""
    return mass.logp_R


def likelihood_per_token(length_R: Ints) -> Score:
    """r = log pi_t(y|x) / |y|."""
    return lambda mass: mass.logp_R / length_R


def self_certainty(policy: Listed) -> Score:
    """r = mean over y's tokens of KL(uniform || pi_t(.|x, y_<t)), for a policy that is listed.

    The rows are all responses of each prompt, in the policy's order. Samples alone do not show the
    distributions anew: there the rewards of the base are taken as they are (``frozen``). O(P M^2).
    """
    import torch

    responses_M = policy.responses_M

    def score(mass: Mass) -> Floats:
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


def frozen(reward_R: Floats) -> Score:
    """Rewards that do not change with the policy: a judge that is not trained, a length.

    pi_t is proportional to pi_0 exp(t r / beta).
    """
    return lambda mass: reward_R


def vote_share(votes: Ballot) -> Score:
    """r = v_t(a(y)|x): consistency. log v(1)/v(2) grows by (v(1) - v(2)) / beta a round."""
    return lambda mass: votes.spread(votes.shares(mass))


def log_vote(votes: Ballot) -> Score:
    """r = log v_t(a(y)|x): v_t is proportional to v_0^(1 + 1/beta)^t, [SR] at answer level."""

    def score(mass: Mass) -> Floats:
        with np.errstate(divide="ignore"):
            return votes.spread(np.log(votes.shares(mass)))

    return score


def hard_vote(votes: Ballot) -> Score:
    """r = 1[a(y) is the likeliest answer]; t tied answers get 1/t each.

    The odds of the mode are multiplied by exp(1/beta) a round (TTRL, arXiv 2504.16084, with a vote
    among infinitely many samples).
    """

    def score(mass: Mass) -> Floats:
        share_A, at = votes.shares(mass), votes.prompt_A
        top_P = np.zeros(mass.prompts)
        np.maximum.at(top_P, at, share_A)
        won_A = (share_A >= top_P[at] - TIE).astype(np.float64)
        return votes.spread(won_A / np.bincount(at, won_A, minlength=mass.prompts)[at])

    return score


def combined(parts: Sequence[tuple[Score, float]]) -> Score:
    """r = sum_i w_i r_i; missing where any part is."""
    return lambda mass: np.sum([weight * part(mass) for part, weight in parts], axis=0)


def length_controlled(score: Score, length_R: Ints, tolerance: float) -> Score:
    """A reward dealt out anew among the nearly best, shortest first (``srlm.rewards.length``)."""
    return lambda mass: prefer_short(score(mass), length_R, mass.prompt_R, mass.mass_R, tolerance)


# ---- rounds

Round = Callable[[Mass], Mass]
"""From pi_t to pi_{t+1}."""


def exact(score: Score, beta: float) -> Round:
    """The round's exact target."""
    return lambda mass: target(mass, score(mass), beta)


def majority(votes: Ballot, k: int, beta: float, *, seed: int = 0) -> Round:
    """The expected target of a hard vote among k samples, ties broken by lot.

    Answer a wins with probability W_a (``wins``) and its odds are then multiplied by
    e = exp(1/beta): with q the shares among the readable,

        v'(b) = q_b [ sum_a W_a / (1 + (e-1) q_a) + (e-1) W_b / (1 + (e-1) q_b) ],

    and with probability W_0 no sample can be read and the prompt stays as it is. Near a tie the
    wrong answer wins with probability 1 - W_mode. k to infinity is ``hard_vote``.
    """

    def step(mass: Mass) -> Mass:
        share_A, at = votes.shares(mass), votes.prompt_A
        factor_A, stays_P = np.zeros(len(share_A)), np.ones(mass.prompts)
        odds = np.expm1(1 / beta)
        for p in range(mass.prompts):
            of = np.flatnonzero(at == p)
            total = share_A[of].sum()
            if total > 0:
                found = wins(share_A[of], k, seed=seed)
                each = found.win_A / (1 + odds * share_A[of] / total)
                factor_A[of] = (each.sum() + odds * each) / total + found.silent
                stays_P[p] = found.silent
        factor_R = votes.spread(factor_A)
        factor_R = np.where(np.isnan(factor_R), stays_P[mass.prompt_R], factor_R)
        with np.errstate(divide="ignore"):
            return _moved(mass, np.log(factor_R))

    return step


@dataclass(frozen=True, slots=True)
class Wins:
    """Who wins a vote among k samples."""

    win_A: Floats
    """Probability that each answer wins, ties broken by lot, [A]."""
    silent: float
    """Probability that no sample has an answer that can be read."""
    error: float
    """Largest standard error of these by simulation; 0 where they are exact."""


def wins(share_A: Floats, k: int, *, seed: int = 0, count: int = 4096) -> Wins:
    """Distribution of the commonest answer among k samples of shares v, [A].

    1 - sum v is the share without an answer. Exact by going through all counts of the multinomial
    where there are at most ``MOST_COUNTS``, else by ``count`` simulated votes.

    >>> wins(np.array([0.6, 0.4]), 3).win_A.round(3)  # .6^3 + 3 .6^2 .4
    array([0.648, 0.352])
    """
    live = np.flatnonzero(share_A > 0)
    silent = min(max(1.0 - float(share_A.sum()), 0.0), 1.0)
    cells = np.append(share_A[live], silent) if silent > TIE else share_A[live]
    cells = cells / cells.sum()
    A = len(live)
    win_A = np.zeros(len(share_A))
    if comb(k + len(cells) - 1, k) <= MOST_COUNTS:
        counts_CA, log_ways_C = _counts(k, len(cells))
        weight_C = np.exp(log_ways_C + counts_CA @ np.log(cells))
        error = 0.0
    else:
        rng = np.random.default_rng([seed, k, A])
        counts_CA = rng.multinomial(k, cells, size=count)
        weight_C = np.full(count, 1 / count)
        error = 0.5 / count**0.5
    voted_CA = counts_CA[:, :A]
    top_CA = (voted_CA == voted_CA.max(1, keepdims=True)) & (voted_CA > 0)
    tied_C = top_CA.sum(1)
    win_A[live] = (weight_C / np.maximum(tied_C, 1)) @ top_CA
    return Wins(win_A, float(weight_C[tied_C == 0].sum()), error)


@lru_cache(maxsize=64)
def _counts(k: int, cells: int) -> tuple[Ints, Floats]:
    """All ways to write k as an ordered sum of ``cells`` counts, and log k! / prod n_i!."""
    rows = np.zeros((1, 0), dtype=np.int64)
    for _ in range(cells - 1):
        left = k - rows.sum(1)
        repeat = left + 1
        start = np.repeat(np.cumsum(repeat) - repeat, repeat)
        rows = np.column_stack([np.repeat(rows, repeat, axis=0), np.arange(repeat.sum()) - start])
    counts_CA = np.column_stack([rows, k - rows.sum(1)])
    return counts_CA, np.asarray(gammaln(k + 1) - gammaln(counts_CA + 1).sum(1))


def mixture(step: Round, s: float) -> Round:
    """A round that goes part of the way in mass: pi' = (1 - s) pi + s target.

    What weighted maximum likelihood, a fit by forward KL, was seen to do.
    """

    def part(mass: Mass) -> Mass:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio_R = np.exp(step(mass).log_mass_R - mass.log_mass_R)
            move_R = np.log1p(s * (ratio_R - 1))
        return _moved(mass, np.where(np.isnan(move_R), -np.inf, move_R))

    return part


def geometric(step: Round, s: float) -> Round:
    """A round that goes part of the way in log-probability: pi' prop. to pi^(1-s) target^s."""

    def part(mass: Mass) -> Mass:
        there = step(mass)
        with np.errstate(invalid="ignore"):
            move_R = there.log_mass_R - mass.log_mass_R
        return target(mass, move_R if s else np.zeros_like(move_R), 1 / s if s else 1.0)

    return part


def pace(
    form: Callable[[Round, float], Round],
    step: Round,
    start: Mass,
    value: Callable[[Mass], float],
    seen: float,
) -> float | None:
    """The s in [0, 1] at which one round of ``form`` takes ``value`` to what a pilot saw.

    0 where the pilot went the other way, 1 where it went further than the target; None where the
    target does not move the value, so that the pilot says nothing about the pace.
    """

    def off(s: float) -> float:
        return value(form(step, s)(start)) - seen

    none, full = off(0.0), off(1.0)
    if abs(full - none) < TIE:
        return None
    if none * full > 0:
        return 0.0 if abs(none) < abs(full) else 1.0
    return float(brentq(off, 0.0, 1.0, xtol=1e-10))


def trajectory(start: Mass, step: Round, rounds: int) -> list[Mass]:
    """pi_0, ..., pi_T."""
    path = [start]
    for _ in range(rounds):
        path.append(step(path[-1]))
    return path


# ---- answers in bulk


Votes = Callable[[Floats], Floats]
"""A reward of answers, read off their shares [B, A]."""


def by_share(share_BA: Floats) -> Floats:
    """``vote_share`` of many sets of shares at once."""
    return share_BA


def by_log(share_BA: Floats) -> Floats:
    """``log_vote`` of many sets of shares at once."""
    with np.errstate(divide="ignore"):
        return np.log(share_BA)


def by_mode(share_BA: Floats) -> Floats:
    """``hard_vote`` of many sets of shares at once."""
    won_BA = (share_BA >= share_BA.max(1, keepdims=True) - TIE).astype(np.float64)
    return np.asarray(won_BA / won_BA.sum(1, keepdims=True))


def vote_round(share_BA: Floats, votes: Votes, beta: float) -> Floats:
    """``target`` of a reward that depends on the answer only, for B sets of shares at once.

    What a set's shares lack to 1 is unreadable and leaves the target. O(B A).

    >>> vote_round(np.array([[0.5, 0.3]]), by_share, 1.0).round(4)
    array([[0.6706, 0.3294]])
    """
    score_BA = votes(share_BA) / beta
    score_BA = score_BA - score_BA.max(1, keepdims=True)
    out_BA = share_BA * np.exp(score_BA)
    return np.asarray(out_BA / out_BA.sum(1, keepdims=True))
