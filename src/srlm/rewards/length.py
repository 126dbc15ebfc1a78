"""Length control: among the nearly best responses the shorter is preferred."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from srlm.policies.base import Policy
from srlm.rewards.base import Mean, Reward, Scored, scored
from srlm.types import Floats, Ints, Prompt, Samples, rows_by_prompt


def prefer_short(
    reward_R: Floats, length_R: Ints, prompt_R: Ints, weight_R: Floats, tolerance: float
) -> Floats:
    """Rewards dealt out anew among each prompt's nearly best responses, longest last, [R].

    The responses within ``tolerance`` of the prompt's best reward keep the rewards that they have
    between them, but the shortest gets the highest, and so on; equal lengths share what falls to
    them evenly. So the best response is the shortest of the nearly best, as in Meta-Rewarding's
    choice of the chosen one (Wu et al. 2024, section 2.2), and no reward leaves the range that it
    was in: a prompt's weighted mean is unchanged.

    Args:
        reward_R: rewards; missing ones stay missing.
        length_R: tokens.
        prompt_R: index of the prompt.
        weight_R: shares of the prompt's samples.
        tolerance: in units of the reward, >= 0.

    >>> r, n = np.array([5.0, 4.9, 1.0]), np.array([30, 10, 5])
    >>> prefer_short(r, n, np.zeros(3, dtype=int), np.ones(3), 0.5)
    array([4.9, 5. , 1. ])
    """
    out_R = reward_R.copy()
    for rows in rows_by_prompt(prompt_R, int(prompt_R.max()) + 1 if len(prompt_R) else 0):
        known = rows[np.isfinite(reward_R[rows]) & (weight_R[rows] > 0)]
        if len(known) == 0:
            continue
        near = known[reward_R[known] >= reward_R[known].max() - tolerance]
        by_reward = near[np.argsort(-reward_R[near], kind="stable")]
        ends = np.cumsum(weight_R[by_reward])
        paid = np.cumsum(weight_R[by_reward] * reward_R[by_reward])
        before_weight = before_pay = 0.0
        for length in np.unique(length_R[near]):
            same = near[length_R[near] == length]
            weight = before_weight + weight_R[same].sum()
            pay = float(np.interp(weight, np.append(0.0, ends), np.append(0.0, paid)))
            out_R[same] = (pay - before_pay) / (weight - before_weight)
            before_weight, before_pay = weight, pay
    return out_R


def length_controlled(reward: Reward, tolerance: float) -> Reward:
    """The reward with ``prefer_short`` applied."""

    def controlled(policy: Policy, prompts: Sequence[Prompt], samples: Samples) -> Scored:
        found = scored(reward(policy, prompts, samples), samples)
        short_R = prefer_short(
            found.reward_R, samples.length_R, samples.prompt_R, samples.weight_R, tolerance
        )
        known = np.isfinite(found.reward_R)
        moved = Mean((short_R[known] != found.reward_R[known]).sum(), known.sum())
        facts = {**found.facts, "length control: moved": moved}
        return Scored(short_R, facts, found.say, found.judged_R, found.training)

    return controlled
