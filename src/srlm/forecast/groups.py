"""Rounds of any reward as training makes them: groups of k samples, and part of the way.

A round of training sees k samples of each prompt, not pi_t itself, so what it is pulled to is the
*expected target*: over groups of k samples y_1..y_k of pi_t(.|x),

    target(y|x) = E sum_i v_i 1[y_i = y],    v_i proportional to exp(r_i / beta) within the group
                                             (``soft``), or on its best samples (``best``),

with the rewards of the group as the loop reads them (a vote among k samples, not among all). Groups
without any reward teach nothing and are left out. As k grows it tends to the exact target
(``srlm.forecast.dynamics``); for votes that are close it is far from it.

Everything here moves the shares of a prompt's samples, as in ``dynamics``: the groups are sampled
from the shares, so that later rounds need no new samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq

from srlm.forecast import dynamics
from srlm.forecast.dynamics import Ballot, Mass, Score
from srlm.types import Floats, Ints

STEEPEST = 8.0


@dataclass(frozen=True, slots=True)
class Rows:
    """What a reward reads of responses, one a row; the rows of a prompt (or group) lie together."""

    prompt_R: Ints
    answer_R: Ints
    """Number of its answer, the same for equal answers to a prompt; -1: unreadable."""
    length_R: Ints
    """Tokens."""
    score_R: Floats
    """The reward itself where samples alone do not show it (a judge); else not-a-number."""

    def at(self, row_R: Ints, prompt_R: Ints) -> Rows:
        """Some rows, as those of other prompts (or groups)."""
        return Rows(prompt_R, self.answer_R[row_R], self.length_R[row_R], self.score_R[row_R])

    def ballot(self) -> Ballot:
        """Which rows of a prompt say the same."""
        voting = self.answer_R >= 0
        most = int(self.answer_R.max(initial=0)) + 1
        key_R = self.prompt_R * most + self.answer_R
        used, number = np.unique(key_R[voting], return_inverse=True)
        out_R = np.full(len(key_R), -1, dtype=np.int64)
        out_R[voting] = number
        return Ballot(out_R, used // most)


ScoreOf = Callable[[Rows], Score]
"""A reward, read off rows."""
Target = Callable[[Mass, Floats, float], Mass]
"""(pi_t, rewards, beta) -> what a group's update is pulled to: ``dynamics.target``, ``best``."""


def best(mass: Mass, reward_R: Floats, beta: float) -> Mass:
    """All mass on a prompt's rows of highest reward, shared as before; ``beta`` plays no part.

    A prompt none of whose rows has a reward stays as it is.

    >>> best(dynamics.of_shares([np.array([0.5, 0.3, 0.2])]), np.array([1.0, 2.0, 2.0]), 1.0).mass_R
    array([0. , 0.6, 0.4])
    """
    known_R = np.isfinite(reward_R)
    top_P = np.full(mass.prompts, -np.inf)
    np.maximum.at(top_P, mass.prompt_R[known_R], reward_R[known_R])
    top_R = top_P[mass.prompt_R]
    won_R = np.where(known_R & (reward_R >= top_R), 0.0, np.nan)
    return dynamics.target(mass, won_R, 1.0)


def expected_target(
    rows: Rows,
    mass: Mass,
    score_of: ScoreOf,
    beta: float,
    k: int,
    *,
    towards: Target = dynamics.target,
    groups: int,
    seed: int = 0,
) -> Pull:
    """The target of a round on k samples per prompt, averaged over groups. O(R + P groups k).

    Args:
        rows, mass: the samples of pi_t and their shares.
        score_of: the reward.
        beta: of the update.
        k: samples of a prompt in a round.
        towards: the update's target on a group.
        groups: per prompt; the mean over them has a standard error of at most 0.5/sqrt(groups)
            per prompt, independent over prompts.
        seed: of the groups.
    """
    P = mass.prompts
    row_GK = sampled(mass, groups, k, seed)
    row_R, group_R = row_GK.ravel(), np.repeat(np.arange(P * groups), k)
    part = Mass(group_R, np.full(len(row_R), -np.log(k)), mass.logp_R[row_R])
    reward_R = score_of(rows.at(row_R, group_R))(part)
    there = towards(part, reward_R, beta)
    taught_G = np.bincount(group_R, np.isfinite(reward_R), minlength=P * groups) > 0
    share_R = there.mass_R * taught_G[group_R]
    total_R = np.bincount(row_R, share_R, minlength=len(mass.prompt_R))
    count_P = np.bincount(mass.prompt_R, total_R, minlength=P)
    at = mass.prompt_R
    new_R = np.where(count_P[at] == 0, mass.mass_R, total_R / np.maximum(count_P, 1e-300)[at])
    return Pull(moved_to(mass, new_R), unequal(reward_R, group_R, P * groups))


@dataclass(frozen=True, slots=True)
class Pull:
    """Where a round is pulled to, and by how many groups."""

    there: Mass
    unequal: float
    """Share of the groups whose responses have unequal rewards: those that say which is better."""


def unequal(reward_R: Floats, group_R: Ints, groups: int) -> float:
    """Share of the groups with two known rewards that differ."""
    known_R = np.isfinite(reward_R)
    low_G, high_G = np.full(groups, np.inf), np.full(groups, -np.inf)
    np.minimum.at(low_G, group_R[known_R], reward_R[known_R])
    np.maximum.at(high_G, group_R[known_R], reward_R[known_R])
    return float((high_G - low_G > 1e-9 * np.maximum(1.0, np.abs(high_G))).mean())


def exact_target(
    rows: Rows, mass: Mass, score_of: ScoreOf, beta: float, *, towards: Target = dynamics.target
) -> Pull:
    """The target of a round on all responses, where they are listed. O(R)."""
    reward_R = score_of(rows)(mass)
    return Pull(towards(mass, reward_R, beta), unequal(reward_R, mass.prompt_R, mass.prompts))


def sampled(mass: Mass, groups: int, k: int, seed: int) -> Ints:
    """Rows of ``groups`` groups of k samples of each prompt, [P groups, k], by their shares."""
    P = mass.prompts
    first_P = np.searchsorted(mass.prompt_R, np.arange(P))
    upto_R = np.cumsum(mass.mass_R)
    start_P = np.concatenate([[0.0], upto_R])[first_P]
    end_P = np.append(first_P[1:], len(mass.prompt_R))
    width_P = upto_R[end_P - 1] - start_P
    u_PX = np.random.default_rng(seed).random((P, groups * k))
    at = np.searchsorted(upto_R, start_P[:, None] + u_PX * width_P[:, None], side="right")
    return np.clip(at, first_P[:, None], end_P[:, None] - 1).reshape(P * groups, k)


def moved_to(mass: Mass, share_R: Floats) -> Mass:
    """The same rows with other shares; log pi moves by as much as the logarithm of the share."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log_R = np.log(share_R)
        logp_R = np.where(share_R > 0, mass.logp_R + log_R - mass.log_mass_R, -np.inf)
    return replace(mass, log_mass_R=log_R, logp_R=logp_R)


def mixed(mass: Mass, there: Mass, s: float) -> Mass:
    """(1 - s) pi + s target."""
    return moved_to(mass, (1 - s) * mass.mass_R + s * there.mass_R)


def tilted(mass: Mass, value_R: Floats, mean: float) -> Mass:
    """pi exp(lambda value), normalised per prompt, with the lambda at which the mean value over the
    prompts is ``mean``; the nearest within +-``STEEPEST`` standard deviations of the value."""
    scale = float(np.std(value_R)) or 1.0
    away_R = (value_R - value_R.mean()) / scale

    def at(steep: float) -> Floats:
        share_R = mass.mass_R * np.exp(steep * away_R)
        return np.asarray(share_R / np.bincount(mass.prompt_R, share_R)[mass.prompt_R])

    def off(steep: float) -> float:
        moved_P = np.bincount(mass.prompt_R, at(steep) * value_R)
        return float(moved_P.mean()) - mean

    low, high = off(-STEEPEST), off(STEEPEST)
    if low * high > 0:
        return moved_to(mass, at(-STEEPEST if low > 0 else STEEPEST))
    return moved_to(mass, at(float(brentq(off, -STEEPEST, STEEPEST, xtol=1e-4))))
