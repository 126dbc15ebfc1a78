"""A round with TRL's DPOTrainer, as a careful user of it would write one.

Draws come from ``generate`` with its own scores, so that no scoring pass is needed; a prompt's
likeliest and least likely draw are its pair. Settings that matter: the reference is the policy
that drew (left out, the trainer reads the folder that the model came from, which is the first
base), float32 (default bfloat16), no gradient checkpointing (default on), no logging or saving.
The reference's log-probabilities are made once before training or with every step, as
``Setting.precompute`` says: the first is faster with several passes over many pairs.

The trainer puts a method of its own over ``model.forward``; it is taken off at the end, or the
next round's would lie upon it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

from srlm.types import Prompt

from . import drawing
from .side import Round, Setting


def one(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], setting: Setting, seed: int
) -> Round:
    """Draw, pair the best with the worst, train."""
    done = Round()
    texts = [x.content for x in prompts]
    with done.stage("draw"):
        drawn = drawing.generated(model, tokenizer, texts, setting, seed, logp=True)
    with done.stage("score"):
        rows = best_and_worst(tokenizer, texts, drawn, setting.draws)
    done.tokens, done.pairs = drawn.tokens, len(rows)
    per_step = setting.pairs_per_step(len(rows), len(prompts))
    with done.stage("update"):
        if rows:
            done.steps = train(model, tokenizer, rows, setting, per_step, seed)
    return done


def best_and_worst(
    tokenizer: Any, texts: Sequence[str], drawn: drawing.Drawn, draws: int
) -> list[dict[str, str]]:
    """A pair for each prompt whose draws are not all alike."""
    answers = tokenizer.batch_decode(drawn.tokens_R, skip_special_tokens=True)
    rows = []
    for p, text in enumerate(texts):
        mine = range(p * draws, (p + 1) * draws)
        best = max(mine, key=drawn.logp_R.__getitem__)
        worst = min(mine, key=drawn.logp_R.__getitem__)
        if answers[best] != answers[worst]:
            rows.append({"prompt": text, "chosen": answers[best], "rejected": answers[worst]})
    return rows


def train(
    model: Any,
    tokenizer: Any,
    rows: list[dict[str, str]],
    setting: Setting,
    per_step: int,
    seed: int,
) -> int:
    """DPOTrainer on the pairs; optimiser steps taken."""
    made = trainer(model, tokenizer, rows, setting, per_step, seed)
    made.train()
    model.__dict__.pop("forward", None)
    return int(made.state.global_step)


def trainer(
    model: Any,
    tokenizer: Any,
    rows: list[dict[str, str]],
    setting: Setting,
    per_step: int,
    seed: int,
) -> Any:
    """The trainer, ready to train."""
    import copy

    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import DPOConfig, DPOTrainer

    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder,
            beta=setting.beta,
            loss_type=["sigmoid", "sft"] if setting.sft else ["sigmoid"],
            loss_weights=[1.0, setting.sft] if setting.sft else None,
            precompute_ref_log_probs=setting.precompute,
            precompute_ref_batch_size=setting.batch_rows // 2,
            per_device_train_batch_size=per_step,
            num_train_epochs=setting.epochs,
            **plain_arguments(setting, seed),
        )
        made = DPOTrainer(
            model=model,
            # With precompute and no reference the trainer takes the model as it stands now.
            ref_model=None if setting.precompute else copy.deepcopy(model),
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
    made.remove_callback(PrinterCallback)
    return made


def plain_arguments(setting: Setting, seed: int) -> dict[str, Any]:
    """Training arguments that both of TRL's trainers share: our optimiser, nothing beside."""
    return {
        "learning_rate": setting.lr,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,
        "adam_beta2": 0.99,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "seed": seed % 2**31,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "logging_strategy": "no",
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
    }
