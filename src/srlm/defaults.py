"""Settings that were left open, chosen once by the model and the prompts, with a line for each.

What is chosen stands in config.yaml of the run folder, and what was asked for in manifest.json.
"""

from __future__ import annotations

from dataclasses import dataclass

from srlm.config import AUTO, RunConfig, UpdateSettings, beta_of
from srlm.errors import UserError
from srlm.grading import EXACT, Grader
from srlm.policies.base import Differentiable, Exact, Policy
from srlm.train import settled

SHORT = 64
"""Tokens up to which the likelihood of a whole response is the default reward. The mode of longer
ones is seldom what anyone wants, and its probability beyond what samples tell."""
KEPT = 5e7
"""Parameters up to which every round's policy is kept."""
WHOLE = (EXACT.name, "text")
"""Graders that compare whole responses: nobody votes on long ones."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Settings with nothing left open, and what to say of it."""

    config: RunConfig
    lines: tuple[str, ...]


def settle(
    config: RunConfig, policy: Policy, prompts: int, grader: Grader, max_tokens: int
) -> Settled:
    """Choose what the settings leave open.

    The reward: the likelihood for responses of up to ``SHORT`` tokens and for exact policies, above
    that the vote (consistency) where answers can be read. The update: ``train.settled``, and its
    beta by the reward.

    Args:
        config: as asked for.
        policy: the base.
        prompts: to train on.
        grader: how answers are read.
        max_tokens: length limit of a response that the context has room for.

    Raises:
        UserError: no reward is asked for, and neither suits.
    """
    reward, why = _reward(config, policy, grader, max_tokens)
    a_round = min(prompts, config.samples.prompts or prompts)
    asked = config.prompts.model_copy(update={"answer": grader.name})
    made = config.model_copy(
        update={
            "reward": reward,
            "keep": keep_of(config, policy),
            "prompts": asked,
            "samples": config.samples.model_copy(update={"max_tokens": max_tokens}),
            "update": settled(with_beta(config.update, reward), policy, a_round),
        }
    )
    return Settled(made, tuple(filter(None, (why, _tempered(made), _update(made)))))


def with_beta(update: UpdateSettings, reward: str) -> UpdateSettings:
    """The update with the reward's own beta, where none was asked for."""
    if update.beta is not None:
        return update
    return update.model_copy(update={"beta": beta_of(reward, update.kind)})


def keep_of(config: RunConfig, policy: Policy) -> str:
    """Which policies are kept: as asked for, or by the model's size."""
    large = isinstance(policy, Differentiable) and policy.budget.shape.parameters > KEPT
    return config.keep or ("best-and-last" if large else "all")


def _reward(config: RunConfig, policy: Policy, grader: Grader, most: int) -> tuple[str, str]:
    if config.reward != AUTO:
        return config.reward, ""
    if isinstance(policy, Exact):
        return "likelihood", "Reward: likelihood, known exactly"
    if most <= SHORT:
        return "likelihood", f"Reward: likelihood, as responses have {most} tokens at most"
    if grader.name not in WHOLE:
        return (
            "consistency",
            f"Reward: consistency, the vote among answers read by {grader.name}, as responses may "
            f"have {most} tokens",
        )
    raise UserError(
        f"no --reward: responses may have {most} tokens, and no answer is read out of them that "
        "could be voted on",
        "say how answers are read (--answer last-number, choice, ...), or name a reward: "
        "--reward judge, or --reward likelihood, which leads to the likeliest whole responses",
    )


def _tempered(made: RunConfig) -> str:
    asked = made.samples
    if asked.plain:
        return ""
    return (
        f"Samples: temperature {asked.temperature:g}, top-p {asked.top_p:g}; rewards.json is of "
        "these, all that is measured is at temperature 1"
    )


def _update(made: RunConfig) -> str:
    update = made.update
    if update.lr is None:
        return ""
    what = f"LoRA of rank {update.lora}" if update.lora else "all weights"
    return (
        f"Update: {what}, learning rate {update.lr:g}, {update.prompts_per_step} prompts a step, "
        f"{update.epochs} epochs, beta {update.strength:g}"
    )
