"""A round with TRL's experimental OnlineDPOTrainer and a likelihood reward.

It draws two responses a prompt within every step, so ``draws`` / 2 passes over the prompts make
as many draws and, at the same prompts a step, as many steps. The reward is the log-probability
under the policy that the round began with. A reward function sees texts without the end token;
the tokens beside them have it, and are used.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from typing import Any

import torch

from srlm.types import Prompt

from . import drawing
from .side import Round, Setting
from .trl_dpo import plain_arguments


class Likelihood:
    """Reward function: log pi_t of the completion, its end token included."""

    __name__ = "likelihood"

    def __init__(self, reference: Any, tokenizer: Any, done: Round) -> None:
        self.reference, self.tokenizer, self.done = reference, tokenizer, done

    @torch.no_grad()
    def __call__(
        self, prompts: list[str], completion_ids: list[list[int]], **_: Any
    ) -> list[float]:
        end = self.tokenizer.eos_token_id
        tokens = [row[: row.index(end) + 1] if end in row else row for row in completion_ids]
        self.done.tokens += sum(map(len, tokens))
        self.done.pairs += len(tokens) // 2
        rows = drawing.padded(
            self.tokenizer(prompts)["input_ids"], tokens, self.tokenizer.pad_token_id
        )
        with self.done.stage("score"):
            return drawing.log_prob(self.reference, *rows).tolist()


def one(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], setting: Setting, seed: int
) -> Round:
    """All in the trainer's loop; drawing is timed by a wrapper around its ``_generate``."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    done, whole = Round(), Round()
    with whole.stage("round"), tempfile.TemporaryDirectory() as folder:
        reference = copy.deepcopy(model).eval()
        config = OnlineDPOConfig(
            output_dir=folder,
            beta=setting.beta,
            temperature=1.0,
            max_new_tokens=setting.max_tokens,
            per_device_train_batch_size=setting.prompts_per_step,
            num_train_epochs=setting.draws // 2,
            **plain_arguments(setting, seed),
        )
        trainer = OnlineDPOTrainer(
            model=model,
            ref_model=reference,
            reward_funcs=Likelihood(reference, tokenizer, done),
            args=config,
            train_dataset=Dataset.from_list([{"prompt": x.content} for x in prompts]),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        draw = trainer._generate

        def timed(*given: Any, **named: Any) -> Any:
            with done.stage("draw"):
                return draw(*given, **named)

        trainer._generate = timed
        trainer.train()
        done.steps = int(trainer.state.global_step)
    done.pairs //= setting.epochs
    done.seconds["update"] = whole.total - done.total
    done.cpu = whole.cpu
    return done
