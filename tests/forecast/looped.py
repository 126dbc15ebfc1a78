"""Tables of pi_0, ..., pi_T of the loop on an exact policy, all responses listed."""

from __future__ import annotations

import numpy as np

from srlm import loop, pairs
from srlm import train as update
from srlm.config import MeasureSettings, SampleSettings, UpdateSettings
from srlm.policies.listed import Listed
from srlm.rewards.base import Reward
from srlm.rounds import Method
from srlm.run_folder import Memory
from srlm.types import Floats, Prompt

OBJECTIVES = {"square": update.square_objective, "weighted": update.weighted_objective}


def tables(
    policy: Listed, prompts: list[Prompt], reward: Reward, objective: str, beta: float, rounds: int
) -> list[Floats]:
    """pi_t(y_m|x_p), [P, M], t = 0..rounds."""
    recipe = Method(
        samples=SampleSettings(source="enumerate", per_prompt=4, max_tokens=4),
        reward=reward,
        pair=pairs.groups,
        objective=OBJECTIVES[objective],
        update=UpdateSettings(beta=beta),
        measure=MeasureSettings(samples=4),
    )
    memory = Memory()
    made = [np.exp(policy.log_table(prompts))]
    for done in loop.self_reward(
        policy, prompts, prompts, method=recipe, rounds=rounds, folder=memory
    ):
        if done.round:
            assert isinstance(memory.policy, Listed)
            made.append(np.exp(memory.policy.log_table(prompts)))
    return made
