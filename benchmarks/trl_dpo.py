"""A round with TRL's DPOTrainer and its default loss, as a careful user of it would write one.

Samples come from ``generate`` with its own scores, so that no scoring pass is needed; a prompt's
likeliest and least likely response are its pair. Settings that matter: the reference is the policy
that sampled (left out, the trainer reads the folder that the model came from, which is the first
base), its log-probabilities are made once before training, float32 (default bfloat16), no gradient
checkpointing (default on), no logging or saving.

The trainer puts a method of its own over ``model.forward``; it is taken off at the end, or the
next round's would lie upon it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.side import Setting, Timed
from srlm.types import Prompt

BATCH_ROWS = 1024
"""Responses sampled at once, and twice the pairs whose reference is run at once."""


def one_round(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], setting: Setting, seed: int
) -> Timed:
    """Sample, pair the best with the worst, train the model in place."""
    done = Timed()
    texts = [x.content for x in prompts]
    with done.stage("samples"):
        found = generated(model, tokenizer, texts, setting, seed)
    with done.stage("pairs"):
        rows = best_and_worst(tokenizer, texts, found, setting.per_prompt)
    done.tokens, done.pairs = sum(map(len, found.tokens_R)), len(rows)
    per_step = setting.pairs_per_step(len(rows), len(prompts))
    with done.stage("train"):
        made = trainer(model, tokenizer, rows, setting, per_step, seed)
        made.train()
        if setting.lora is not None:
            made.model.merge_and_unload()  # in the layers of the same model
        model.__dict__.pop("forward", None)
    done.steps = int(made.state.global_step)
    return done


@dataclass(frozen=True, slots=True)
class Generated:
    """Responses, those of one prompt in a row."""

    tokens_R: list[list[int]]
    """Up to the end token, it included."""
    logp_R: list[float]
    """log pi(y|x), nats."""


@torch.inference_mode()
def generated(
    model: Any, tokenizer: Any, texts: Sequence[str], setting: Setting, seed: int
) -> Generated:
    """``generate`` at temperature 1 from the whole distribution, in batches, with its scores."""
    torch.manual_seed(seed)
    model.eval()
    tokens_R: list[list[int]] = []
    logp_R: list[float] = []
    step = max(1, BATCH_ROWS // setting.per_prompt)
    for first in range(0, len(texts), step):
        part = list(texts[first : first + step])
        batch = tokenizer(part, return_tensors="pt", padding=True, padding_side="left")
        out = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=setting.per_prompt,
            max_new_tokens=setting.max_tokens,
            return_dict_in_generate=True,
            output_logits=True,
        )
        new_RT = out.sequences[:, batch["input_ids"].shape[1] :]
        ended_RT = (new_RT == tokenizer.eos_token_id).int()
        length_R = torch.where(ended_RT.any(1), ended_RT.argmax(1) + 1, new_RT.shape[1])
        logits_RTV = torch.stack(out.logits, dim=1).float()
        logp_RT = logits_RTV.log_softmax(-1).gather(-1, new_RT[..., None])[..., 0]
        inside_RT = torch.arange(new_RT.shape[1]) < length_R[:, None]
        logp_R += (logp_RT.double() * inside_RT).sum(1).tolist()
        tokens_R += [row[:n] for row, n in zip(new_RT.tolist(), length_R.tolist(), strict=True)]
    return Generated(tokens_R, logp_R)


def best_and_worst(
    tokenizer: Any, texts: Sequence[str], found: Generated, per_prompt: int
) -> list[dict[str, str]]:
    """A pair for each prompt whose responses are not all alike."""
    answers = tokenizer.batch_decode(found.tokens_R, skip_special_tokens=True)
    rows = []
    for p, text in enumerate(texts):
        mine = range(p * per_prompt, (p + 1) * per_prompt)
        best = max(mine, key=found.logp_R.__getitem__)
        worst = min(mine, key=found.logp_R.__getitem__)
        if answers[best] != answers[worst]:
            rows.append({"prompt": text, "chosen": answers[best], "rejected": answers[worst]})
    return rows


def trainer(
    model: Any,
    tokenizer: Any,
    rows: list[dict[str, str]],
    setting: Setting,
    per_step: int,
    seed: int,
) -> Any:
    """The trainer, ready to train: our optimiser and schedule, nothing beside."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import DPOConfig, DPOTrainer

    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder,
            beta=setting.beta,
            precompute_ref_log_probs=True,
            precompute_ref_batch_size=BATCH_ROWS // 2,
            per_device_train_batch_size=per_step,
            num_train_epochs=setting.epochs,
            learning_rate=setting.lr,
            lr_scheduler_type="linear",
            warmup_steps=0.1,
            adam_beta2=0.99,
            weight_decay=0.0,
            max_grad_norm=1.0,
            seed=seed % 2**31,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            logging_strategy="no",
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
        )
        made = DPOTrainer(
            model=model,
            ref_model=None,  # with precomputed log-probabilities: the model as it stands now
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=adapters(setting),
        )
    made.remove_callback(PrinterCallback)
    return made


def adapters(setting: Setting) -> Any:
    """The configuration of ``srlm.policies.lora``, or None."""
    if setting.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=setting.lora,
        lora_alpha=2 * setting.lora,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
