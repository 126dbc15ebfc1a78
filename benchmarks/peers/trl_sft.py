"""A round with TRL's SFTTrainer on the likeliest of a prompt's draws.

No preference: maximum likelihood on the best draw ([SM] section 3.1), which needs no reference.
Drawing, float32, logging and saving as in ``trl_dpo``. The trainer is given tokens with their
labels, which it takes as they are; texts would be tokenised once more (DPOTrainer takes no tokens).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

from srlm.types import Prompt

from . import drawing
from .side import Round, Setting
from .trl_dpo import plain_arguments


def one(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], setting: Setting, seed: int
) -> Round:
    """Draw, keep the best, train."""
    done = Round()
    texts = [x.content for x in prompts]
    with done.stage("draw"):
        drawn = drawing.generated(model, tokenizer, texts, setting, seed, logp=True)
    with done.stage("score"):
        rows = best(tokenizer, texts, drawn, setting.draws)
    done.tokens, done.pairs = drawn.tokens, len(rows)
    with done.stage("update"):
        done.steps = train(model, tokenizer, rows, setting, seed)
    return done


def best(
    tokenizer: Any, texts: Sequence[str], drawn: drawing.Drawn, draws: int
) -> list[dict[str, list[int]]]:
    """The likeliest draw of each prompt after it, with -100 as label of the prompt's tokens.

    As the trainer would do it, a response that did not end gets its end token.
    """
    end = tokenizer.eos_token_id
    rows = []
    for p, prompt in enumerate(tokenizer(list(texts))["input_ids"]):
        mine = range(p * draws, (p + 1) * draws)
        tokens = drawn.tokens_R[max(mine, key=drawn.logp_R.__getitem__)]
        response = tokens if tokens[-1] == end else [*tokens, end]
        rows.append(
            {"input_ids": prompt + response, "labels": [-100] * len(prompt) + list(response)}
        )
    return rows


def train(
    model: Any, tokenizer: Any, rows: list[dict[str, list[int]]], setting: Setting, seed: int
) -> int:
    """SFTTrainer on the best responses; optimiser steps taken."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=setting.prompts_per_step,
            num_train_epochs=setting.epochs,
            dataset_kwargs={"skip_prepare_dataset": True},
            **plain_arguments(setting, seed),
        )
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    model.__dict__.pop("forward", None)
    return int(trainer.state.global_step)
