"""Any Hugging Face causal model and tokenizer as a policy.

Samples come with their log-probabilities from the same pass: prompts are sorted by length, keys and
values are kept, and every distinct prefix of a prompt's samples is run once (``sampling``).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srlm.data import is_rendered
from srlm.errors import UserError
from srlm.policies import sampling, scoring
from srlm.policies.chat_template import REFUSALS
from srlm.policies.devices import Budget, in_halves, logp_error
from srlm.policies.lora import Adapters
from srlm.policies.network import Network
from srlm.policies.search_tree import CausalTree
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
        system: system prompt before prompts that are text.
        chat_args: arguments of the chat template, as ``{"enable_thinking": False}``.
        pass_tokens: positions run or held at once, at most; changes no result beyond float
            rounding. None: as many as are worth it and fit.

    Raises:
        UserError: the model has no end-of-sequence token.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        chat: bool = True,
        system: str | None = None,
        chat_args: Mapping[str, Any] | None = None,
        pass_tokens: int | None = None,
    ) -> None:
        self.network = Network(model.eval())
        self.budget = Budget(model, pass_tokens)
        self.adapters: Adapters | None = None
        self.tokenizer = tokenizer
        self.chat = chat and bool(getattr(tokenizer, "chat_template", None))
        self.system, self.chat_args = system, dict(chat_args or {})
        if self.system is not None and not self.chat:
            raise UserError(
                "a system prompt, but the tokenizer has no chat template (or --chat never)",
                "leave --system out, or write it into the prompts",
            )
        self.ends = _end_tokens(model, tokenizer) | self._turn_ends()
        if not self.ends:
            raise UserError(
                "the model and its tokenizer name no end-of-sequence token",
                "set eos_token in the tokenizer or eos_token_id in generation_config.json",
            )
        self.context = _context(model)
        self._prompt_tokens: dict[str, list[int]] = {}
        self._controls = _control_texts(tokenizer)

    @property
    def model(self) -> Any:
        """The Hugging Face model."""
        return self.network.model

    # ---- prompts and text

    @property
    def device(self) -> torch.device:
        return self.network.device

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
        rendered = is_rendered(content, str(getattr(self.tokenizer, "chat_template", None) or ""))
        if self.chat and not rendered:
            before = [] if self.system is None else [{"role": "system", "content": self.system}]
            messages = (
                content
                if isinstance(content, list)
                else [*before, {"role": "user", "content": content}]
            )
            try:
                text = self.tokenizer.apply_chat_template(
                    messages, add_generation_prompt=True, tokenize=False, **self.chat_args
                )
            except REFUSALS as error:
                raise UserError(
                    f"{where}: the tokenizer's chat template refuses it: "
                    f"{type(error).__name__}: {str(error)[:200]}",
                    "give messages that the template takes, or text prompts with --chat never",
                ) from None
            tokens = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            tokens = self.tokenizer(content, add_special_tokens=not rendered)["input_ids"]
            while tokens and tokens[-1] in self.ends and not rendered:
                tokens = tokens[:-1]
        if not tokens:
            raise UserError(f"{where}: no tokens", "give a prompt that the tokenizer can read")
        size = self.model.get_input_embeddings().num_embeddings
        if max(tokens) >= size:
            raise UserError(
                f"{where}: token {max(tokens)} of the tokenizer, and the model knows {size}",
                "give the model its own tokenizer",
            )
        return list(tokens)

    def _turn_ends(self) -> frozenset[int]:
        """The control token that the chat template puts after an assistant's turn, if it does."""
        if not self.chat:
            return frozenset()
        said = "srlm"
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": said}]
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, **self.chat_args)
        except REFUSALS:  # refused prompt by prompt, with the reason
            return frozenset()
        _, found, after = text.rpartition(said)
        tokens = self.tokenizer(after.strip(), add_special_tokens=False)["input_ids"]
        known = self.tokenizer.added_tokens_decoder.keys() - {self.tokenizer.unk_token_id}
        ends = tokens[:1] if found and tokens and tokens[0] in known else []
        return frozenset(ends) & set(range(self.network.vocabulary))

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

    # ---- samples

    def sample(
        self,
        prompts: Sequence[Prompt],
        samples: int,
        *,
        seed: int,
        max_tokens: int,
        advance: Callable[[float], None] = lambda prompts: None,
    ) -> Samples:
        """Samples at temperature 1 by the inverse of the cumulative distribution.

        Token t of sample j is decided by one uniform number keyed by (seed, prompt id, j, t).
        Float rounding differs with the batch by about 1e-7, so that a sample can change with the
        batch size only where its uniform number lies that near to a boundary.
        """
        return sampling.sampled(self, prompts, samples, seed, max_tokens, advance)

    def tempered(
        self,
        prompts: Sequence[Prompt],
        samples: int,
        *,
        temperature: float,
        top_p: float,
        seed: int,
        max_tokens: int,
        advance: Callable[[float], None] = lambda prompts: None,
    ) -> Samples:
        """As ``sample``, of q(token) ~ pi(token)^(1 / temperature) on the fewest tokens whose q
        adds up to ``top_p``; log-probabilities are those under pi itself."""
        shape = (temperature, top_p)
        return sampling.sampled(self, prompts, samples, seed, max_tokens, advance, shape)

    def greedy(self, prompts: Sequence[Prompt], *, max_tokens: int) -> Samples:
        """The likeliest token at each step, one row per prompt."""
        return sampling.greedy(self, prompts, max_tokens)

    # ---- probabilities of given responses

    def log_prob(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> Floats:
        """log pi(y_r|x_r), [R], float64, nats; one forward pass over prompt and response."""
        out_R = np.zeros(len(tokens_R))

        def run(rows: Ints) -> None:
            some = [tokens_R[r] for r in rows]
            out_R[rows] = self.log_prob_grad(prompts, prompt_R[rows], some).numpy()

        with torch.inference_mode():
            for rows in self.passes(prompts, prompt_R, tokens_R, self.budget.scored()):
                in_halves(run, rows, self.budget)
        return out_R

    def along(
        self,
        prompts: Sequence[Prompt],
        prompt_R: Ints,
        tokens_R: Sequence[Tokens],
        read: Callable[[torch.Tensor], torch.Tensor],
    ) -> list[Floats]:
        """``read`` of the next-token log-probabilities [N, V], float32, of some positions at a
        time, [N, ...]: [T_r, ...] a row, float64."""
        out: list[Floats] = [np.empty(0)] * len(tokens_R)

        def run(rows: Ints) -> None:
            some = [tokens_R[r] for r in rows]
            row_N, value_N = self._read(
                prompts, prompt_R[rows], some, lambda z, _: read(sampling.log_probs(z))
            )
            value = value_N.cpu().double().numpy()
            order = np.argsort(row_N, kind="stable")
            for r, n in zip(rows, np.split(order, np.cumsum([len(y) for y in some])), strict=False):
                out[r] = value[n]

        with torch.inference_mode():
            for rows in self.passes(prompts, prompt_R, tokens_R, self.budget.scored()):
                in_halves(run, rows, self.budget)
        return out

    def log_prob_grad(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> torch.Tensor:
        """log pi(y_r|x_r), [R], float64, on the CPU, with gradient, in one batch."""
        row_N, logp_N = self._read(prompts, prompt_R, tokens_R, scoring.token_log_prob)
        out_R = torch.zeros(len(tokens_R), dtype=torch.float64)
        return out_R.index_add(0, torch.from_numpy(row_N), logp_N.cpu().double())

    def positions(
        self,
        prompts: Sequence[Prompt],
        prompt_R: Ints,
        tokens_R: Sequence[Tokens],
        group_R: Ints,
    ) -> Ints:
        """Positions that each group takes in ``log_prob_grad``, [G], in memory: its responses', and
        its prompt's once, with what each of several rows copies of it; or its prompt's for each row
        where rows do not share it. Groups 0..G-1 never decrease, and each is about one prompt."""
        first_G = np.flatnonzero(np.diff(group_R, prepend=-1))
        prompt_G = np.array([len(self.encode(prompts[p])) for p in prompt_R[first_G]])
        length_R = np.array([len(y) for y in tokens_R])
        rows_G = np.diff(first_G, append=len(tokens_R))
        times_G = 1 + self.budget.shape.copied * np.where(rows_G > 1, rows_G, 0)
        if not self.network.shares:
            times_G = rows_G.astype(np.float64)
        read_G = np.ceil(times_G * prompt_G).astype(np.int64)
        return np.asarray(read_G + np.add.reduceat(length_R - 1, first_G))

    def passes(
        self,
        prompts: Sequence[Prompt],
        prompt_R: Ints,
        tokens_R: Sequence[Tokens],
        positions: int,
    ) -> Iterator[Ints]:
        """Rows of like length, those of a prompt together, in parts of so many positions, padding
        included; one row at least. The longest come first."""
        length_R = np.array([len(y) for y in tokens_R])
        longest_P = np.zeros(len(prompts), dtype=np.int64)
        np.maximum.at(longest_P, prompt_R, length_R)
        size_R = np.array([len(self.encode(prompts[p])) for p in prompt_R]) + longest_P[prompt_R]
        left = np.lexsort((length_R, prompt_R, size_R))[::-1].copy()
        while len(left):
            most = max(1, positions // int(size_R[left[0]]))
            yield left[:most]
            left = left[most:]

    def _read(
        self,
        prompts: Sequence[Prompt],
        prompt_R: Ints,
        tokens_R: Sequence[Tokens],
        reader: scoring.Read,
    ) -> tuple[Ints, torch.Tensor]:
        used_U, row_R = np.unique(prompt_R, return_inverse=True)
        encoded = [self.encode(prompts[p]) for p in used_U]
        return scoring.read(self.network, encoded, row_R, tokens_R, reader)

    # ---- search, training, files

    def logp_error(self, tokens: int) -> float:
        """Allowance for the rounding of a log-probability of so many tokens, nats
        (``devices.logp_error``)."""
        return logp_error(next(self.model.parameters()).dtype, tokens)

    def recomputing(self) -> AbstractContextManager[None]:
        """Inside, the layers are computed again in the backward pass instead of being kept."""
        return self.network.recomputing()

    def tree(self, prompts: Sequence[Prompt], *, max_tokens: int) -> CausalTree:
        """The prefix tree of the prompts; positions are computed once and kept."""
        return CausalTree(self, prompts, max_tokens)

    def parameters(self) -> list[torch.nn.Parameter]:
        """What an update may change: all parameters, or those of an adapter."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def copy(self) -> CausalLM:
        """An independent copy, parameters included."""
        return CausalLM(
            copy.deepcopy(self.model),
            self.tokenizer,
            chat=self.chat,
            system=self.system,
            chat_args=self.chat_args,
            pass_tokens=self.budget.positions,
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
    found &= set(range(model.config.get_text_config().vocab_size))  # else it cannot be sampled
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
