"""Tiny models for tests: random weights, scaled so that the next token is far from uniform.

Everything is made from a seed in some milliseconds, and saved as anyone would save a model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from srlm.config import RunConfig, resolve
from srlm.data import prompt_id
from srlm.policies.hf import CausalLM
from srlm.policies.linear_softmax import LinearSoftmax
from srlm.policies.tabular import Tabular
from srlm.types import Prompt

FAMILIES = ("llama", "gpt2", "qwen3", "mistral")
LETTERS = "abcdefgh"
WORDS = ["<pad>", "<eos>", "<unk>", "<end>", *LETTERS]
PAD, EOS, UNKNOWN, END = range(4)
CONTEXT = 32
TEMPLATE = (
    "{% for m in messages %}{{ '<unk>' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<unk>' }}{% endif %}"
)


def tokenizer(
    *, eos: bool = True, pad: bool = True, appends: bool = False, template: str | None = None
) -> PreTrainedTokenizerFast:
    """One token a letter. ``appends``: an end token after every text, as some tokenizers do."""
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    if appends:
        backend.post_processor = processors.TemplateProcessing(
            single="$A <eos>", special_tokens=[("<eos>", EOS)]
        )
    special = {"eos_token": "<eos>"} if eos else {}
    special |= {"pad_token": "<pad>"} if pad else {}
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        **special,
    )
    made.chat_template = template
    return made


def network(
    family: str = "llama",
    *,
    seed: int = 0,
    scale: float = 0.4,
    eos: int | list[int] | None = EOS,
    **changes: Any,
) -> Any:
    """An untrained causal model with one or two layers and a vocabulary of ``WORDS``."""
    shape: dict[str, Any] = {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": CONTEXT,
    }
    if family == "gpt2":
        shape = {
            "vocab_size": len(WORDS),
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": CONTEXT,
            "resid_pdrop": 0.1,
            "embd_pdrop": 0.1,
            "attn_pdrop": 0.1,
        }
    if family == "mistral":
        shape["sliding_window"] = 4
    config = AutoConfig.for_model(
        family,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=None,
        tie_word_embeddings=family == "gpt2",
        initializer_range=scale,
        **shape | changes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).eval()


def policy(family: str = "llama", *, pass_tokens: int | None = None, **changes: Any) -> CausalLM:
    """A tiny causal policy, not from a folder."""
    return CausalLM(network(family, **changes), tokenizer(), pass_tokens=pass_tokens)


def saved(folder: Path, family: str = "llama", *, words: Any = None, **changes: Any) -> Path:
    """A tiny model and its tokenizer as a Hugging Face folder."""
    network(family, **changes).save_pretrained(folder)
    (words or tokenizer()).save_pretrained(folder)
    return folder


def prompts(contents: Sequence[Any]) -> list[Prompt]:
    """Prompts of any content, with line numbers."""
    return [Prompt(prompt_id(c), c, line=i) for i, c in enumerate(contents, start=1)]


def texts(count: int, seed: int = 0, *, least: int = 1, most: int = 7) -> list[Prompt]:
    """Distinct prompts of unequal length."""
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(rng.choice(list(LETTERS), rng.integers(least, most + 1)))] = None
    return prompts(list(found))


def tabular(prompts: int = 5, responses: int = 4, *, seed: int = 0, scale: float = 1.5) -> Tabular:
    """A random table."""
    return Tabular(scale * np.random.default_rng(seed).standard_normal((prompts, responses)))


def linear(
    features: int = 3, responses: int = 4, *, seed: int = 0, scale: float = 1.5
) -> LinearSoftmax:
    """Random classes on vectors."""
    rng = np.random.default_rng(seed)
    names = tuple(f"r{m}" for m in range(responses))
    return LinearSoftmax(scale * rng.standard_normal(responses * features), names)


def vectors(count: int, features: int = 3, seed: int = 1) -> list[Prompt]:
    """Vector prompts for ``linear``."""
    rng = np.random.default_rng(seed)
    return prompts(rng.standard_normal((count, features)).round(6).tolist())


def write_prompts(
    file: Path, items: Sequence[Prompt], answers: Sequence[str] | None = None
) -> Path:
    """A JSONL file of the prompts."""
    rows: list[dict[str, Any]] = [{"prompt": x.content} for x in items]
    for row, answer in zip(rows, answers or (), strict=False):
        row["answer"] = answer
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


SMALL: dict[str, Any] = {
    "rounds": 2,
    "samples.per_prompt": 4,
    "samples.max_tokens": 4,
    "prompts.held_out": 0.3,
    "update.beta": 1.0,
    "update.epochs": 1,
    "update.prompts_per_step": 8,
    "update.lr": 3e-3,
    "measure.samples": 4,
    "device": "cpu",
}


def config(model: Path, file: Path, **changes: Any) -> RunConfig:
    """Settings of a run of less than a second; changes by dotted key."""
    return resolve(None, {"model": str(model), "prompts.file": str(file)} | SMALL | changes)
