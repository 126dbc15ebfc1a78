"""A policy whose answers to questions are written down, and a model that reads any bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from srlm.policies.hf import CausalLM
from srlm.types import Floats, Ints, Prompt, Samples, Tokens, rows_by_prompt

VOCABULARY = ("other", "y", "n", "A", "B", *"012345")


class Scripted:
    """What a judge needs of a policy, by a script.

    Args:
        says: (question, draw) -> judgement.
        odds: question -> probability of each text of ``VOCABULARY``; the rest goes to "other".
        context: longest question in characters.
    """

    def __init__(
        self,
        says: Callable[[str, int], str] = lambda question, draw: "",
        odds: Callable[[str], Mapping[str, float]] = lambda question: {},
        context: int | None = None,
    ) -> None:
        self.says, self.odds, self.context = says, odds, context
        self.asked: list[str] = []
        self.cut = False

    def encode(self, prompt: Prompt) -> list[int]:
        return [0] * len(prompt.content)

    def single(self, text: str) -> int | None:
        return VOCABULARY.index(text) if text in VOCABULARY else None

    def plain(self, text: str) -> str:
        return text.replace("<eos>", "<eos >")

    def along(
        self,
        prompts: Sequence[Prompt],
        prompt_R: Ints,
        tokens_R: Sequence[Tokens],
        read: Callable[[torch.Tensor], torch.Tensor],
    ) -> list[Floats]:
        out = []
        for p in prompt_R:
            self.asked.append(prompts[p].content)
            odds = dict(self.odds(prompts[p].content))
            odds["other"] = 1 - sum(odds.values())
            logp_V = torch.tensor([odds.get(x, 0.0) for x in VOCABULARY]).double().log()
            out.append(read(logp_V[None, None])[0].numpy())
        return out

    def sample(
        self,
        prompts: Sequence[Prompt],
        samples: int,
        *,
        seed: int,
        max_tokens: int,
        advance: Callable[[float], None] = lambda prompts: None,
    ) -> Samples:
        advance(len(prompts))
        self.asked += [x.content for x in prompts]
        texts = [self.says(x.content, k) for x in prompts for k in range(samples)]
        return responses(np.repeat(np.arange(len(prompts)), samples), texts, finished=not self.cut)


def responses(prompt_R: Any, texts: Sequence[str], *, finished: bool = True) -> Samples:
    """Draws with these texts; equal texts are equal tokens, a token a character."""
    p_R = np.asarray(prompt_R, dtype=np.int64)
    count_P = np.bincount(p_R)
    return Samples(
        prompt_R=p_R,
        tokens_R=tuple((*map(ord, text), 0) for text in texts),
        logp_R=-np.arange(1.0, len(texts) + 1),
        weight_R=1.0 / count_P[p_R],
        finished_R=np.full(len(texts), finished),
        text_R=tuple(texts),
    )


SPECIAL = ["<pad>", "<eos>", "<|im_start|>", "<|im_end|>"]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def bytes_model(*, chat: bool = True, context: int = 4096) -> CausalLM:
    """A tiny untrained model that reads any text byte by byte, with a chat template."""
    words = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        additional_special_tokens=SPECIAL[2:],
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = CHAT if chat else None
    config = AutoConfig.for_model(
        "llama",
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=context,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config).eval()
    return CausalLM(network, made, chat=chat)


def by_prompt(samples: Samples) -> list[Ints]:
    """Rows of each prompt."""
    return rows_by_prompt(samples.prompt_R, int(samples.prompt_R.max()) + 1)
