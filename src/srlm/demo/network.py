"""The demo's network: a character tokenizer, a small causal model, and its training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from srlm.demo.corpus import ALPHABET, Document
from srlm.errors import UserError

Progress = Callable[[int, int, float], None]

PAD, END, UNKNOWN = "<pad>", "<eos>", "<unk>"
CONTEXT = 64
_IGNORED = -100


@dataclass(frozen=True)
class Recipe:
    """How a base is made: the size of the model and its training.

    Attributes:
        hidden, inner, layers, heads: Width, width inside a block, blocks, attention heads.
        spread: Standard deviation of the initial weights.
        rope: Base of the rotary positions; small, for the texts are short.
        steps: Optimiser steps, each on `batch` documents that no other step sees.
        rate: Peak learning rate, reached after the share `warmup` of the steps, then a cosine
            to zero.
        decay: Decoupled weight decay of matrices.
    """

    hidden: int = 64
    inner: int = 176
    layers: int = 2
    heads: int = 4
    spread: float = 0.06
    rope: float = 100.0
    steps: int = 2000
    batch: int = 64
    rate: float = 5e-3
    warmup: float = 0.1
    decay: float = 0.01


RECIPE = Recipe()
ARCHITECTURES = ("llama", "gpt2", "qwen3", "mistral")


def character_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character of `ALPHABET`; nothing is added to a text, decoding gives it back."""
    words = [PAD, END, UNKNOWN, *ALPHABET]
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNKNOWN)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def blank_model(arch: str, recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """An untrained model of one of `ARCHITECTURES` from torch's global random state.

    Raises:
        UserError: The architecture is none of them.
    """
    if arch not in ARCHITECTURES:
        raise UserError(
            f"the demo has no architecture {arch!r}", f"choose one of {', '.join(ARCHITECTURES)}"
        )
    shape: dict[str, Any] = {
        "hidden_size": recipe.hidden,
        "intermediate_size": recipe.inner,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "num_key_value_heads": recipe.heads,
        "head_dim": recipe.hidden // recipe.heads,
        "max_position_embeddings": CONTEXT,
        "rope_parameters": {"rope_type": "default", "rope_theta": recipe.rope},
    }
    if arch == "gpt2":
        shape = {
            "n_embd": recipe.hidden,
            "n_inner": recipe.inner,
            "n_layer": recipe.layers,
            "n_head": recipe.heads,
            "n_positions": CONTEXT,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        }
    config = AutoConfig.for_model(
        arch,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=True,
        initializer_range=recipe.spread,
        **shape,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def encode(
    texts: list[Document], tokenizer: PreTrainedTokenizerFast
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels of documents, padded on the right.

    The response and its end token are labels; the prompt is not. Shapes: (R, T), (R, T).
    """
    length = max(len(text.prompt) + len(text.response) for text in texts) + 1
    code = np.zeros(128, dtype=np.int64)
    for word, index in tokenizer.get_vocab().items():
        if len(word) == 1:
            code[ord(word)] = index
    packed = "".join((text.prompt + text.response).ljust(length) for text in texts)
    code[ord(" ")] = tokenizer.pad_token_id
    ids_RT = code[np.frombuffer(packed.encode("ascii"), dtype=np.uint8)].reshape(-1, length)
    start_R = np.array([len(text.prompt) for text in texts])
    end_R = start_R + np.array([len(text.response) for text in texts])
    ids_RT[np.arange(len(texts)), end_R] = tokenizer.eos_token_id
    place_T = np.arange(length)
    spoken_RT = (place_T >= start_R[:, None]) & (place_T <= end_R[:, None])
    return torch.from_numpy(ids_RT), torch.from_numpy(np.where(spoken_RT, ids_RT, _IGNORED))


def train(
    model: PreTrainedModel,
    ids_RT: torch.Tensor,
    labels_RT: torch.Tensor,
    recipe: Recipe,
    progress: Progress | None = None,
) -> float:
    """One pass of AdamW over the documents in their order; the mean loss of the last tenth.

    The loss is cross-entropy a response token, in nats. Cost: 6 x parameters x R x T operations.
    """
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": recipe.decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98), fused=True)
    rising = max(1, round(recipe.warmup * recipe.steps))

    def pace(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 + 0.5 * math.cos(math.pi * (step - rising) / max(1, recipe.steps - rising))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, pace)
    model.train()
    losses = []
    for step in range(recipe.steps):
        rows = slice(step * recipe.batch, (step + 1) * recipe.batch)
        optimizer.zero_grad()
        ids, labels = ids_RT[rows], labels_RT[rows]
        logits_RTV = model(input_ids=ids[:, :-1], use_cache=False).logits
        loss = functional.cross_entropy(
            logits_RTV.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if progress is not None:
            progress(step + 1, recipe.steps, losses[-1])
    model.eval()
    return float(np.mean(losses[-max(1, recipe.steps // 10) :]))
