"""Several rewards as one: a weighted sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from srlm.policies.base import Policy
from srlm.rewards.base import Reward, Say, Scored, scored
from srlm.types import Prompt, Samples


def combined(parts: Sequence[tuple[Reward, float]]) -> Reward:
    """r = sum_i w_i r_i, [R], in the units that the parts have; missing where any part is.

    Facts and notes of the parts are kept together, and of the first judge among them its scores
    and what it is trained on.

    Raises:
        ValueError: there are no parts.
    """
    if not parts:
        raise ValueError("no rewards to combine")

    def reward(policy: Policy, prompts: Sequence[Prompt], samples: Samples) -> Scored:
        total_R = np.zeros(len(samples))
        facts: dict[str, float] = {}
        says: list[Say] = []
        judged_R, training = None, None
        for part, weight in parts:
            found = scored(part(policy, prompts, samples), samples)
            total_R = total_R + weight * found.reward_R
            facts |= found.facts
            says.append(found.say)
            judged_R = found.judged_R if judged_R is None else judged_R
            training = found.training if training is None else training

        def say(facts: Mapping[str, float]) -> list[str]:
            return [note for part in says for note in part(facts)]

        return Scored(total_R, facts, say, judged_R, training)

    return reward
