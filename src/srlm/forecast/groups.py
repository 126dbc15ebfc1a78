"""Rounds of any reward as training makes them: groups of k samples, and part of the way.

A round of training sees k samples of each prompt, not pi_t itself, so what it is pulled to is the
*expected target*: over groups of k samples y_1..y_k of pi_t(.|x),

    target(y|x) = E sum_i v_i 1[y_i = y],    v_i proportional to exp(r_i / beta) within the group
                                             (``soft``), or on its best samples (``best``),

with the rewards of the group as the loop reads them (a vote among k samples, not among all). Groups
without any reward teach nothing and are left out. As k grows it tends to the exact target
(``srlm.forecast.dynamics``); for votes that are close it is far from it. Groups are drawn from few
samples, in which a vote agrees with itself too often: ``chance_of_another`` mends that.

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
from srlm.types import Bools, Floats, Ints

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
    shared: bool = False,
    other_R: Floats | None = None,
    seed: int = 0,
) -> Pull:
    """The target of a round on k samples per prompt, averaged over groups. O(R groups k).

    Every row with mass has groups of its own, which it joins as the first of k:

        target(y|x) proportional to pi(y|x) E[v_1 | y_1 = y],

    the same mean as over groups of k samples (they are exchangeable), with less noise, and with
    mass wherever the target has some: a row of 0.01 is in no group of a few hundred samples.

    Args:
        rows, mass: the samples of pi_t and their shares.
        score_of: the reward.
        beta: of the update.
        k: samples of a prompt in a round.
        towards: the update's target on a group.
        groups: for each row.
        shared: the rows of a prompt join the same groups, so that their noise cancels: right where
            the reward of a response does not depend on the rest of its group.
        other_R: probability that a row that a group has already stands for another answer
            (``chance_of_another``); None where the rows are all that the policy says.
        seed: of the groups.
    """
    P = mass.prompts
    alive_A = np.flatnonzero(mass.mass_R > 0)
    first_G = np.repeat(alive_A, groups)
    if shared:
        rest_GK = sampled(mass, np.repeat(np.arange(P), groups), k - 1, seed)
        rest_GK = rest_GK.reshape(P, groups, k - 1)[mass.prompt_R[alive_A]].reshape(-1, k - 1)
    else:
        rest_GK = sampled(mass, mass.prompt_R[first_G], k - 1, seed)
    row_GK = np.column_stack([first_G, rest_GK])
    row_R, G = row_GK.ravel(), len(first_G)
    group_R = np.repeat(np.arange(G), k)
    part = Mass(group_R, np.full(len(row_R), -np.log(k)), mass.logp_R[row_R])
    group = rows.at(row_R, group_R)
    if other_R is not None:
        group = replace(group, answer_R=_others(rows, row_GK, other_R, seed + 1).ravel())
    reward_R = score_of(group)(part)
    there_GK = towards(part, reward_R, beta).mass_R.reshape(G, k)
    known_GK = np.isfinite(reward_R).reshape(G, k)
    share_A = (there_GK[:, 0] * known_GK.any(1)).reshape(-1, groups).mean(1)
    new_R = np.zeros(len(mass.prompt_R))
    new_R[alive_A] = mass.mass_R[alive_A] * share_A
    total_R = np.bincount(mass.prompt_R, new_R, minlength=P)[mass.prompt_R]
    new_R = np.where(total_R == 0, mass.mass_R, new_R / np.maximum(total_R, 1e-300))
    differ_A = unequal(reward_R, group_R, G).reshape(-1, groups).mean(1)
    differ = float(np.sum(mass.mass_R[alive_A] * differ_A) / P)
    return Pull(moved_to(mass, new_R), differ)


def _others(rows: Rows, row_GK: Ints, other_R: Floats, seed: int) -> Ints:
    """Answers of the rows of groups, some of those drawn again changed to new ones, [G, k]."""
    answer_GK = rows.answer_R[row_GK]
    again_GK = np.zeros(row_GK.shape, dtype=bool)
    for j in range(1, row_GK.shape[1]):
        again_GK[:, j] = (row_GK[:, :j] == row_GK[:, j, None]).any(1)
    at_D, place_D = np.nonzero(again_GK & (answer_GK >= 0))
    other = np.random.default_rng(seed).random(len(at_D)) < other_R[row_GK[at_D, place_D]]
    answer_GK[at_D[other], place_D[other]] = rows.answer_R.max() + place_D[other]
    return answer_GK


def chance_of_another(rows: Rows, copies_R: Ints) -> Floats:
    """Probability that a row of samples, drawn again, stands for another answer, [R].

    Groups drawn from n samples with replacement agree too often: a sample agrees with itself. Two
    draws agree on an answer that n_a of the n samples have as often as two of the policy's own,
    n_a (n_a - 1) / (n (n - 1)) (unbiased), if the same sample drawn twice agrees with itself with
    probability (n_a - 1) / (n - 1).

    Args:
        rows: distinct samples.
        copies_R: how many samples each of them stands for.

    >>> one = Rows(np.zeros(3, int), np.array([0, 0, 1]), np.ones(3, int), np.ones(3))
    >>> chance_of_another(one, np.array([2, 1, 1])).round(3)
    array([0.167, 0.333, 1.   ])
    """
    most = int(rows.answer_R.max(initial=0)) + 2
    key_R = rows.prompt_R * most + rows.answer_R + 1
    n_R = np.bincount(rows.prompt_R, copies_R)[rows.prompt_R]
    same_R = np.bincount(key_R, copies_R)[key_R]
    return np.asarray((n_R - same_R) / np.maximum(n_R - 1, 1) / copies_R)


@dataclass(frozen=True, slots=True)
class Pull:
    """Where a round is pulled to, and by how many groups."""

    there: Mass
    unequal: float
    """Share of the groups whose responses have unequal rewards: those that say which is better."""


def unequal(reward_R: Floats, group_R: Ints, groups: int) -> Bools:
    """Which groups have two known rewards that differ, [groups]."""
    known_R = np.isfinite(reward_R)
    low_G, high_G = np.full(groups, np.inf), np.full(groups, -np.inf)
    np.minimum.at(low_G, group_R[known_R], reward_R[known_R])
    np.maximum.at(high_G, group_R[known_R], reward_R[known_R])
    return np.asarray(high_G - low_G > 1e-9 * np.maximum(1.0, np.abs(high_G)))


def exact_target(
    rows: Rows, mass: Mass, score_of: ScoreOf, beta: float, *, towards: Target = dynamics.target
) -> Pull:
    """The target of a round on all responses, where they are listed. O(R)."""
    reward_R = score_of(rows)(mass)
    differ_P = unequal(reward_R, mass.prompt_R, mass.prompts)
    return Pull(towards(mass, reward_R, beta), float(differ_P.mean()))


def sampled(mass: Mass, prompt_G: Ints, k: int, seed: int) -> Ints:
    """Rows of groups of k samples, [G, k], each of its prompt, by their shares."""
    first_P = np.searchsorted(mass.prompt_R, np.arange(mass.prompts))
    upto_R = np.cumsum(mass.mass_R)
    start_P = np.concatenate([[0.0], upto_R])[first_P]
    end_P = np.append(first_P[1:], len(mass.prompt_R))
    width_P = upto_R[end_P - 1] - start_P
    u_GK = np.random.default_rng(seed).random((len(prompt_G), k))
    at_GK = start_P[prompt_G, None] + u_GK * width_P[prompt_G, None]
    row_GK = np.searchsorted(upto_R, at_GK, side="right")
    return np.clip(row_GK, first_P[prompt_G, None], end_P[prompt_G, None] - 1)


def merged(rows: Rows, mass: Mass) -> tuple[Rows, Mass, Ints]:
    """Rows that no reward tells apart made one, and the merged row of each. O(R log R)."""
    fields = (rows.prompt_R, rows.answer_R, rows.length_R, rows.score_R, mass.logp_R)
    order_R = np.lexsort(fields[::-1])
    new_R = np.zeros(len(order_R), dtype=bool)
    for field_R in fields:
        a, b = field_R[order_R][1:], field_R[order_R][:-1]
        new_R[1:] |= (a != b) & ~((a != a) & (b != b))  # two nan are equal
    of_R = np.empty(len(order_R), dtype=np.int64)
    of_R[order_R] = np.cumsum(new_R)
    first_M = order_R[np.flatnonzero(np.append(True, new_R[1:]))]
    with np.errstate(divide="ignore"):
        log_M = np.log(np.bincount(of_R, mass.mass_R))
    prompt_M = rows.prompt_R[first_M]
    return rows.at(first_M, prompt_M), Mass(prompt_M, log_M, mass.logp_R[first_M]), of_R


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
