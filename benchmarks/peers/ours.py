"""Our own round, by the stages that ``srlm.loop.align`` runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from srlm import samples as draws
from srlm import train as update
from srlm.config import RunConfig, resolve
from srlm.loop import derived, recipe_of
from srlm.policies.hf import CausalLM
from srlm.rewards.base import scored
from srlm.rewards.report import report
from srlm.types import Prompt

from .side import Round, Setting, Side


def side(kind: str, **changes: Any) -> Side:
    """A round with ``--update KIND``.

    Args:
        changes: more settings, by their dotted keys with ``__`` for the dot.
    """

    def one(model: Any, tokenizer: Any, prompts: Sequence[Prompt], setting: Setting, seed: int):
        dotted = {k.replace("__", "."): v for k, v in changes.items()}
        recipe = recipe_of(_config(kind, setting, dotted))
        policy = CausalLM(model, tokenizer)
        done = Round()
        with done.stage("draw"):
            samples = draws.draw(policy, prompts, recipe.samples, derived(seed, "samples"))
        if setting.sft:  # TRL's term is a mean over tokens, ours a sum
            dotted["update.nll"] = setting.sft / float(samples.length_R.mean())
            recipe = recipe_of(_config(kind, setting, dotted))
        with done.stage("score"):
            found = scored(recipe.reward(policy, prompts, samples), samples)
            report(samples, found, grader=recipe.grader)
            pairs = recipe.pair(samples, found.reward_R)
        per_step = setting.pairs_per_step(pairs.groups, len(prompts))
        with done.stage("update"):
            settings = recipe.update.model_copy(update={"prompts_per_step": per_step})
            _, made = update.fit(
                policy, prompts, pairs, recipe.objective, settings, seed=derived(seed, "update")
            )
        done.tokens, done.steps = int(samples.length_R.sum()), made.steps
        done.pairs = pairs.groups
        return done

    return one


def _config(kind: str, setting: Setting, changes: dict[str, Any]) -> RunConfig:
    """The defaults but for what the setting says."""
    return resolve(
        None,
        {
            "model": "given",
            "prompts.file": "given",
            "prompts.answer": "last-number",
            "samples.per_prompt": setting.draws,
            "samples.mu": setting.mu,
            "samples.max_tokens": setting.max_tokens,
            "update.kind": kind,
            "update.epochs": setting.epochs,
            "update.lr": setting.lr,
            "update.beta": setting.beta,
        }
        | changes,
    )
