"""Our own round, by the stages that ``srlm.loop`` runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.side import Setting, Side, Timed
from srlm import samples, train
from srlm.config import resolve
from srlm.policies.hf import CausalLM
from srlm.rewards.base import scored
from srlm.rewards.report import report
from srlm.rounds import derived
from srlm.runner import method_of
from srlm.types import Prompt


def side(update: str) -> Side:
    """A round with ``--update NAME``, its other settings the defaults but for the ``Setting``."""

    def one_round(
        model: Any, tokenizer: Any, prompts: Sequence[Prompt], setting: Setting, seed: int
    ) -> Timed:
        method = method_of(
            resolve(
                None,
                {
                    "model": "given",
                    "prompts.file": "given",
                    "prompts.answer": "last-number",
                    "samples.per_prompt": setting.per_prompt,
                    "samples.max_tokens": setting.max_tokens,
                    "update.kind": update,
                    "update.epochs": setting.epochs,
                    "update.lr": setting.lr,
                    "update.lora": setting.lora,
                    "update.beta": setting.beta,
                },
            )
        )
        policy, done = CausalLM(model, tokenizer), Timed()
        with done.stage("samples"):
            made = samples.sample(policy, prompts, method.samples, derived(seed, "samples"))
        with done.stage("pairs"):
            found = scored(method.reward(policy, prompts, made), made)
            report(made, found, grader=method.grader)
            pairs = method.pair(made, found.reward_R)
        per_step = setting.pairs_per_step(pairs.groups, len(prompts))
        with done.stage("train"):
            settings = method.update.model_copy(update={"prompts_per_step": per_step})
            _, step = train.fit(
                policy, prompts, pairs, method.objective, settings, seed=derived(seed, "update")
            )
        done.tokens, done.steps = int(made.length_R.sum()), step.steps
        done.pairs = pairs.groups
        return done

    return one_round
