"""Agreement with oneself: the share of a prompt's own samples that reach the same answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from srlm.grading import Grader
from srlm.policies.base import Policy
from srlm.rewards.base import Mean, Reward, Scored
from srlm.types import Floats, Ints, Prompt, Samples


def votes(prompt_R: Ints, answer_R: Sequence[str | None], weight_R: Floats) -> Floats:
    """Share of each row's prompt that reaches the row's answer, [R]; not-a-number without one.

    sum of the weights of the prompt's rows with the same answer. Rows without an answer vote for
    nothing and stay in the whole, so that a prompt's shares sum to its readable share. Under
    enumeration this is pi(a|x), the answer's probability. O(R).

    >>> votes(np.array([0, 0, 0, 0]), ["7", "7", "8", None], np.full(4, 0.25))
    array([0.5 , 0.5 , 0.25,  nan])
    """
    mass: dict[tuple[int, str], float] = {}
    keys = [
        None if answer is None else (p, answer)
        for p, answer in zip(prompt_R.tolist(), answer_R, strict=True)
    ]
    for key, weight in zip(keys, weight_R, strict=True):
        if key is not None:
            mass[key] = mass.get(key, 0.0) + float(weight)
    return np.array([np.nan if key is None else mass[key] for key in keys])


def consistency(grader: Grader) -> Reward:
    """r_t(x, y) = share of the prompt's samples whose extracted answer is y's, in (0, 1].

    Args:
        grader: how answers are read and compared with each other. Never the right answers.

    A response whose answer is unparseable, or that was cut off, has no reward: it is left out of
    the pairs and counted.
    With ``pairs.voted`` the most and least voted are compared, weighted by the vote margin.
    Source: Prasad et al. 2024 (ScPO); Wang et al. 2022 (self-consistency).
    """

    def reward(policy: Policy, prompts: Sequence[Prompt], samples: Samples) -> Scored:
        answer_R = grader.answers(samples.text_R, samples.finished_R, samples.prompt_R)
        reward_R = votes(samples.prompt_R, answer_R, samples.weight_R)
        unread = samples.weight_R[np.isnan(reward_R)].sum()
        top_P = _best(samples.prompt_R, reward_R)
        facts = {"consistency: unreadable": Mean(unread, samples.weight_R.sum())}
        if len(top_P):
            facts["consistency: top vote"] = Mean(top_P.sum(), len(top_P))
        return Scored(reward_R, facts, notes)

    return reward


def notes(facts: Mapping[str, float]) -> list[str]:
    """A sentence where most responses have no answer."""
    unreadable = facts["consistency: unreadable"]
    if unreadable <= 0.5:
        return []
    return [f"consistency: {unreadable:.0%} of the responses have no parseable answer"]


def _best(prompt_R: Ints, reward_R: Floats) -> Floats:
    """Largest reward of each prompt that has any."""
    known = np.isfinite(reward_R)
    if not known.any():
        return np.empty(0)
    used, place_R = np.unique(prompt_R[known], return_inverse=True)
    best_P = np.full(len(used), -np.inf)
    np.maximum.at(best_P, place_R, reward_R[known])
    return best_P
