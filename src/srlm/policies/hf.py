"""Any Hugging Face causal model and tokenizer as a policy.

Draws come with their log-probabilities from the same pass: prompts are sorted by length, keys and
values are kept, and every distinct prefix of a prompt's draws is run once (``decoding``).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jinja2 import TemplateError
from transformers.cache_utils import Cache

from srlm.errors import UserError
from srlm.policies import sampling as decoding
from srlm.policies import scoring as given
from srlm.policies.cache import RowCache
from srlm.policies.linear import widen
from srlm.policies.recorded import Steps
from srlm.policies.search_tree import CausalTree, Paths
from srlm.types import Floats, Ints, Prompt, Samples, Tokens

KEPT_PROMPTS = 1 << 16
"""Prompts whose tokens are remembered; a judge asks of each response once."""


class CausalLM:
    """pi(y|x) = prod_t p(y_t | x, y_<t) of a causal language model, end token included.

    Args:
        model: a Hugging Face causal model; kept in evaluation mode (no dropout), so that its
            probabilities are those of one fixed policy.
        tokenizer: its tokenizer.
        chat: wrap prompts in the tokenizer's chat template if it has one.
        batch_rows: rows run at once; changes no result beyond float rounding.

    Raises:
        UserError: the model has no end-of-sequence token.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, chat: bool = True, batch_rows: int = 1024
    ) -> None:
        self.model = model.eval()
        widen(model)
        self.tokenizer = tokenizer
        self.chat = chat and bool(getattr(tokenizer, "chat_template", None))
        self.batch_rows = batch_rows
        self.ends = _end_tokens(model, tokenizer)
        self.context = _context(model)
        self._prompt_tokens: dict[str, list[int]] = {}
        self._steps: Steps | None = None
        self._controls = _control_texts(tokenizer)

    @property
    def layers(self) -> int:
        """Layers that keep keys and values."""
        return int(self.model.config.get_text_config().num_hidden_layers)

    # ---- prompts and text

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def encode(self, prompt: Prompt) -> list[int]:
        """The prompt's tokens: chat template where there is one, no end token after it."""
        if prompt.id not in self._prompt_tokens:
            if len(self._prompt_tokens) >= KEPT_PROMPTS:
                self._prompt_tokens.clear()
            self._prompt_tokens[prompt.id] = self._encode(prompt)
        return self._prompt_tokens[prompt.id]

    def _encode(self, prompt: Prompt) -> list[int]:
        where = f"prompt on line {prompt.line}" if prompt.line else f"prompt {prompt.id}"
        content = prompt.content
        if isinstance(content, list) and not all(isinstance(m, dict) for m in content):
            raise UserError(f"{where}: a vector", "give a language model text or chat messages")
        if isinstance(content, list) and not self.chat:
            raise UserError(
                f"{where}: chat messages, but the tokenizer has no chat template (or --chat never)",
                "give text prompts, or a tokenizer with a chat template",
            )
        if self.chat:
            messages = (
                content if isinstance(content, list) else [{"role": "user", "content": content}]
            )
            try:
                text = self.tokenizer.apply_chat_template(
                    messages, add_generation_prompt=True, tokenize=False
                )
            except TemplateError as error:
                raise UserError(
                    f"{where}: the tokenizer's chat template refuses it: {error}",
                    "give messages that the template takes, or text prompts with --chat never",
                ) from None
            tokens = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            tokens = self.tokenizer(content)["input_ids"]
            while tokens and tokens[-1] in self.ends:
                tokens = tokens[:-1]
        if not tokens:
            raise UserError(f"{where}: no tokens", "give a prompt that the tokenizer can read")
        return list(tokens)

    def text(self, tokens: Tokens) -> str:
        """A response as a person reads it."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def single(self, text: str) -> int | None:
        """The one token that the text is; None where it is several, or is not known."""
        tokens = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        known = len(tokens) == 1 and tokens[0] != self.tokenizer.unk_token_id
        return int(tokens[0]) if known else None

    def plain(self, text: str) -> str:
        """The text with a space inside whatever the tokenizer would read as a control token.

        Control tokens are the special ones and added ones written as markup (<tool>, [INST]).
        """
        return self._controls.sub(lambda found: f"{found[0][:-1]} {found[0][1:][-1:]}", text)

    # ---- draws

    def sample(
        self, prompts: Sequence[Prompt], draws: int, *, seed: int, max_tokens: int
    ) -> Samples:
        """Draws at temperature 1 by the inverse of the cumulative distribution.

        Token t of draw j is decided by one uniform number keyed by (seed, prompt id, j, t).
        Float rounding differs with the batch by about 1e-7, so that a draw can change with the
        batch size only where its uniform number lies that near to a boundary.
        """
        return decoding.sampled(self, prompts, draws, seed, max_tokens)

    def greedy(self, prompts: Sequence[Prompt], *, max_tokens: int) -> Samples:
        """The likeliest token at each step, one row a prompt."""
        return decoding.greedy(self, prompts, max_tokens)

    def batches(self, encoded: Sequence[list[int]], draws: int = 1) -> Iterator[Ints]:
        """Indices of prompts of like length: in a batch as many as ``batch_rows`` has room for when
        each takes a row a draw, but ``decoding.APART`` rows at most, since draws share theirs."""
        order = np.argsort([len(t) for t in encoded], kind="stable")
        size = max(1, self.batch_rows // min(draws, decoding.APART))
        for i in range(0, len(order), size):
            yield order[i : i + size]

    # ---- probabilities of given responses

    def log_prob(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> Floats:
        """log pi(y_r|x_r), [R], float64, nats; one forward pass over prompt and response."""
        out_R = np.zeros(len(tokens_R))
        with torch.inference_mode():
            for part in self._by_size(prompts, prompt_R, tokens_R):
                logp = self.log_prob_grad(prompts, prompt_R[part], [tokens_R[r] for r in part])
                out_R[part] = logp.cpu().numpy()
        return out_R

    def along(
        self,
        prompts: Sequence[Prompt],
        prompt_R: Ints,
        tokens_R: Sequence[Tokens],
        read: Callable[[torch.Tensor], torch.Tensor],
    ) -> list[Floats]:
        """``read`` of the next-token log-probabilities [B, T, V], float32, at each response
        position: [T_r, ...] a row, float64."""
        out: dict[int, Floats] = {}
        with torch.inference_mode():
            for rows in self._by_size(prompts, prompt_R, tokens_R):
                for part in self._given(prompts, prompt_R[rows], [tokens_R[r] for r in rows]):
                    logp_BTV = F.log_softmax(part.logits_BTV.float(), dim=-1)
                    value_BT = read(logp_BTV).double().cpu().numpy()
                    for r, value_T in zip(rows[part.rows], value_BT, strict=True):
                        out[int(r)] = value_T[: len(tokens_R[r])]
        return [out[r] for r in range(len(tokens_R))]

    def _by_size(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> Iterator[Ints]:
        """Rows of like length, those of a prompt together, ``batch_rows`` at most in a batch."""
        length_R = np.array([len(y) for y in tokens_R])
        longest_P = np.zeros(len(prompts), dtype=np.int64)
        np.maximum.at(longest_P, prompt_R, length_R)
        size_R = np.array([len(self.encode(prompts[p])) for p in prompt_R]) + longest_P[prompt_R]
        order = np.lexsort((length_R, prompt_R, size_R))
        for i in range(0, len(order), self.batch_rows):
            yield order[i : i + self.batch_rows]

    def log_prob_grad(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> torch.Tensor:
        """log pi(y_r|x_r), [R], float64, with gradient, in one batch."""
        rows, logp = [], []
        for part in self._given(prompts, prompt_R, tokens_R):
            token_logp_BT = -F.cross_entropy(
                part.logits_BTV.float().transpose(1, 2),
                part.target_BT.to(self.device),
                ignore_index=given.IGNORED,
                reduction="none",
            )
            rows.append(part.rows)
            logp.append(token_logp_BT.double().sum(-1))
        back_R = np.argsort(np.concatenate(rows))
        return torch.cat(logp)[torch.from_numpy(back_R).to(self.device)]

    def positions(
        self,
        prompts: Sequence[Prompt],
        prompt_R: Ints,
        tokens_R: Sequence[Tokens],
        group_R: Ints,
    ) -> Ints:
        """Positions that each group takes in ``log_prob_grad``, [G]: its prompt's, once, and its
        responses'. Groups 0..G-1 never decrease, and each is about one prompt."""
        first_G = np.flatnonzero(np.diff(group_R, prepend=-1))
        prompt_G = np.array([len(self.encode(prompts[p])) for p in prompt_R[first_G]])
        length_R = np.array([len(y) for y in tokens_R])
        return prompt_G + np.add.reduceat(length_R - 1, first_G)

    def _given(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> Iterator[given.Part]:
        used_U, row_R = np.unique(prompt_R, return_inverse=True)
        return given.parts(
            self.forward, self.layers, [self.encode(prompts[p]) for p in used_U], row_R, tokens_R
        )

    def forward(
        self, token_BL: torch.Tensor, left_B: torch.Tensor, *, keep: int, cache: Cache | None = None
    ) -> torch.Tensor:
        """Scores [B, keep, V] of the model for the last ``keep`` positions, on rows whose first
        ``left_B`` positions (cache included) are padding. Without padding no mask is made at all.
        """
        past = cache.get_seq_length() if cache is not None else 0
        return self._called(token_BL, *self._places(left_B, past, token_BL.shape[1]), keep, cache)

    def step(
        self, token_B1: torch.Tensor, left_B: torch.Tensor, cache: RowCache | Paths, steps: Steps
    ) -> torch.Tensor:
        """Scores [B, 1, V] for one position more, recorded where that can be (``recorded``).

        Args:
            steps: ``steps()``, asked for once.
        """
        position_BL, mask_BL = self._places(left_B, cache.get_seq_length(), 1)
        token_B1 = token_B1.to(self.device)
        logits_B1V = steps(token_B1, position_BL, mask_BL, cache)
        if logits_B1V is None:
            logits_B1V = self._called(token_B1, position_BL, mask_BL, 1, cache)
        return logits_B1V

    def steps(self) -> Steps:
        """Recorded steps of the model as it is built now; parameters may change later. To be asked
        for before keys and values are made."""
        if self._steps is None or not self._steps.of(self.model):
            self._steps = Steps(self.model)
        self._steps.record()
        return self._steps

    def _places(
        self, left_B: torch.Tensor, past: int, L: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Positions, [B, L] or the same for all rows, and the mask over all columns if needed."""
        device = self.device
        position = torch.arange(past, past + L, device=device)
        if not bool((left_B > 0).any()):
            return position[None], None
        left_B = left_B.to(device)
        columns = torch.arange(past + L, device=device)
        mask_BL = (columns >= left_B[:, None]).long()
        return (position - left_B[:, None]).clamp_(min=0), mask_BL

    def _called(
        self,
        token_BL: torch.Tensor,
        position_BL: torch.Tensor,
        mask_BL: torch.Tensor | None,
        keep: int,
        cache: Cache | None,
    ) -> torch.Tensor:
        extra: dict[str, Any] = {"use_cache": cache is not None}
        if cache is not None:
            extra["past_key_values"] = cache
        if mask_BL is not None:
            extra["attention_mask"] = mask_BL
        out = self.model(
            input_ids=token_BL.to(self.device),
            position_ids=position_BL,
            logits_to_keep=keep,
            **extra,
        )
        logits: torch.Tensor = out.logits
        return logits

    # ---- search, training, files

    def tree(self, prompts: Sequence[Prompt], *, max_tokens: int) -> CausalTree:
        """The prefix tree of the prompts; positions are computed once and kept."""
        return CausalTree(self, prompts, max_tokens)

    def parameters(self) -> list[torch.nn.Parameter]:
        """What an update may change: all parameters, or those of an adapter."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def copy(self) -> CausalLM:
        """An independent copy, parameters included."""
        return CausalLM(
            copy.deepcopy(self.model), self.tokenizer, chat=self.chat, batch_rows=self.batch_rows
        )

    def save(self, folder: Path) -> None:
        """A Hugging Face folder: safetensors, configuration, tokenizer."""
        folder.mkdir(parents=True)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    found: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        ends = getattr(source, "eos_token_id", None)
        if ends is not None:
            found |= {ends} if isinstance(ends, int) else set(ends)
    found &= set(range(model.config.get_text_config().vocab_size))  # else it cannot be drawn
    if not found:
        raise UserError(
            "the model and its tokenizer name no end-of-sequence token",
            "set eos_token in the tokenizer or eos_token_id in generation_config.json",
        )
    return frozenset(found)


def _control_texts(tokenizer: Any) -> re.Pattern[str]:
    """Matches the text of any control token, in either case."""
    texts = {str(text) for text in tokenizer.all_special_tokens}
    for token in tokenizer.added_tokens_decoder.values():
        if token.special or token.content.startswith(("<", "[")):
            texts.add(token.content)
    longest_first = sorted((re.escape(x) for x in texts if x.strip()), key=len, reverse=True)
    return re.compile("|".join(longest_first) or "(?!)", re.IGNORECASE)


def _context(model: Any) -> int | None:
    """Longest input in tokens, where the configuration names one."""
    config = model.config.get_text_config()
    for name in ("max_position_embeddings", "n_positions"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None
