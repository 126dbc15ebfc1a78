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
mass; ``trajectory`` repeats one. Rounds on groups of k samples, and those that go part of the way:
``srlm.forecast.groups``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from srlm.rewards.length import prefer_short
from srlm.types import Floats, Ints, Samples

TIE = 1e-12
"""Vote shares that lie nearer together than this are tied."""


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


def frozen(reward_R: Floats) -> Score:
    """Rewards that do not change with the policy: a judge that is not trained, a length.

    pi_t is proportional to pi_0 exp(t r / beta).
    """
    return lambda mass: reward_R


def vote_share(votes: Ballot) -> Score:
    """r = v_t(a(y)|x): consistency. log v(1)/v(2) grows by (v(1) - v(2)) / beta a round."""
    return lambda mass: votes.spread(votes.shares(mass))


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
