"""Rewards by the names of the command line."""

from __future__ import annotations

from collections.abc import Callable

from srlm.config import REWARDS, RunConfig, reward_parts
from srlm.errors import UserError
from srlm.grading import grader
from srlm.rewards.base import Reward
from srlm.rewards.combined import combined
from srlm.rewards.consistency import consistency
from srlm.rewards.judge import judge
from srlm.rewards.judge_pairwise import judge_pairwise
from srlm.rewards.length import length_controlled
from srlm.rewards.likelihood import likelihood
from srlm.rewards.likelihood_per_token import likelihood_per_token
from srlm.rewards.meta_judge import meta_judge
from srlm.rewards.self_certainty import self_certainty

MAKERS: dict[str, Callable[[RunConfig], Reward]] = {
    "likelihood": lambda _: likelihood,
    "likelihood-per-token": lambda _: likelihood_per_token,
    "self-certainty": lambda _: self_certainty,
    "consistency": lambda config: consistency(grader(config.prompts.answer)),
    "judge": lambda config: judge(config.judge, config.seed),
    "judge-pairwise": lambda config: judge_pairwise(config.judge),
    "meta-judge": lambda config: meta_judge(config.judge, config.seed),
}
assert tuple(MAKERS) == REWARDS


def reward_of(config: RunConfig) -> Reward:
    """The reward that the settings name, with its weights and its length control.

    Raises:
        UserError: a template or pattern that cannot be used; judge training without the reward
            that makes its pairs.
    """
    weights = reward_parts(config.reward)
    if config.judge.train and "meta-judge" not in weights:
        raise UserError(
            f"--judge-train with --reward {config.reward}: nothing judges the judgements",
            "leave --judge-train out, or use --reward meta-judge",
        )
    parts = [(MAKERS[name](config), weight) for name, weight in weights.items()]
    alone = len(parts) == 1 and parts[0][1] == 1.0
    reward = parts[0][0] if alone else combined(parts)
    if config.length_tolerance is None:
        return reward
    return length_controlled(reward, config.length_tolerance)
