"""A round with TRL's SFTTrainer on the likeliest of a prompt's draws.

No preference: maximum likelihood on the best draw ([SM] section 3.1), which needs no reference.
Drawing, float32, logging and saving as in ``trl_dpo``.
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
        answers = tokenizer.batch_decode(drawn.tokens_R, skip_special_tokens=True)
        rows = []
        for p, text in enumerate(texts):
            mine = range(p * setting.draws, (p + 1) * setting.draws)
            best = max(mine, key=drawn.logp_R.__getitem__)
            rows.append({"prompt": text, "completion": answers[best]})
    done.tokens, done.pairs = drawn.tokens, len(rows)
    with done.stage("update"):
        done.steps = train(model, tokenizer, rows, setting, seed)
    return done


def train(
    model: Any, tokenizer: Any, rows: list[dict[str, str]], setting: Setting, seed: int
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
