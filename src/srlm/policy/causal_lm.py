"""Any Hugging Face causal model and tokenizer as a policy.

Draws come with their log-probabilities from the same pass: prompts are sorted by length, each is
run once for all of its draws, keys and values are kept, finished rows leave the batch when they
are a sixteenth of it.
What is left out: models whose state is not keys and values (recurrent ones) for search.
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
from srlm.policy import given
from srlm.policy.cache import Arena, growing_cache
from srlm.policy.linear import ROWS, widen
from srlm.policy.streams import uniforms_of
from srlm.types import Floats, Ints, Prompt, Samples, Tokens

Choose = Callable[[torch.Tensor, Ints, int], torch.Tensor]
"""(log-probabilities [B, V], row numbers [B], position) -> tokens [B]."""

IDLE = 1 / 16
"""Share of finished rows at which they leave the batch: before, copying the other rows' keys and
values costs more than running these."""

AT_ONCE = {"cpu": 1 << 17}
"""Probabilities summed at once: on the CPU what its cache holds, elsewhere 2^26."""

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
        u_RT: Floats = np.empty((0, 0))

        def begin(batch: Ints) -> None:
            nonlocal u_RT
            u_RT = uniforms_of(seed, [prompts[p].id for p in batch], draws, max_tokens)

        def choose(logp_BV: torch.Tensor, row_B: Ints, t: int) -> torch.Tensor:
            u_B = torch.from_numpy(u_RT[row_B, t]).to(logp_BV.device)
            return _inverse(logp_BV, u_B)

        return self._decode(prompts, draws, choose, max_tokens, begin)

    def greedy(self, prompts: Sequence[Prompt], *, max_tokens: int) -> Samples:
        """The likeliest token at each step, one row a prompt."""
        return self._decode(prompts, 1, lambda logp_BV, _r, _t: logp_BV.argmax(-1), max_tokens)

    @torch.inference_mode()
    def _decode(
        self,
        prompts: Sequence[Prompt],
        draws: int,
        choose: Choose,
        max_tokens: int,
        begin: Callable[[Ints], None] = lambda batch: None,
    ) -> Samples:
        R = len(prompts) * draws
        token_RT = np.zeros((R, max_tokens), dtype=np.int64)
        logp_RT = np.zeros((R, max_tokens), dtype=np.float64)
        length_R = np.full(R, max_tokens, dtype=np.int64)
        finished_R = np.zeros(R, dtype=bool)
        for batch in self._batches([self.encode(x) for x in prompts], draws):
            begin(batch)
            row_B = np.arange(len(batch) * draws)  # within the batch
            out_B = (batch[:, None] * draws + np.arange(draws)).ravel()  # in the result
            live_B = np.ones(len(row_B), dtype=bool)
            step = _Decoder(self, [self.encode(prompts[p]) for p in batch])
            logp_BV = step.begin(draws)
            end_V = np.zeros(logp_BV.shape[-1], dtype=bool)
            end_V[list(self.ends)] = True
            for t in range(max_tokens):
                token_B = choose(logp_BV, row_B, t)
                drawn_B = token_B.cpu().numpy()
                chosen_B = logp_BV.gather(-1, token_B[:, None])[:, 0].double().cpu().numpy()
                live = np.flatnonzero(live_B)
                out = out_B[live]
                token_RT[out, t] = drawn_B[live]
                logp_RT[out, t] = chosen_B[live]
                if not np.isfinite(chosen_B[live]).all():
                    bad = out[~np.isfinite(chosen_B[live])][0]
                    raise _not_a_number(prompts[bad // draws])
                ended = live[end_V[drawn_B[live]]]
                if len(ended):
                    finished_R[out_B[ended]] = True
                    length_R[out_B[ended]] = t + 1
                    live_B[ended] = False
                going = len(live) - len(ended)
                if going == 0 or t + 1 == max_tokens:
                    break
                if _whole(going) <= (1 - IDLE) * len(live_B):
                    keep = np.sort(np.argsort(~live_B, kind="stable")[: _whole(going)])
                    row_B, out_B, live_B = row_B[keep], out_B[keep], live_B[keep]
                    index = torch.from_numpy(keep).to(self.device)
                    token_B = token_B[index]
                    step.keep(index)
                logp_BV = step.next(token_B)
        tokens_R = tuple(
            tuple(row[:n]) for row, n in zip(token_RT.tolist(), length_R.tolist(), strict=True)
        )
        return Samples(
            prompt_R=np.repeat(np.arange(len(prompts)), draws),
            tokens_R=tokens_R,
            logp_R=logp_RT.sum(1),
            weight_R=np.full(R, 1.0 / draws),
            finished_R=finished_R,
            text_R=self._texts(tokens_R),
            token_logp_R=tuple(
                row_T[:n].copy() for row_T, n in zip(logp_RT, length_R.tolist(), strict=True)
            ),
        )

    def _texts(self, tokens_R: Sequence[Tokens]) -> tuple[str, ...]:
        """Decoded once for each distinct response."""
        distinct = list(dict.fromkeys(tokens_R))
        texts = self.tokenizer.batch_decode([list(t) for t in distinct], skip_special_tokens=True)
        table = dict(zip(distinct, texts, strict=True))
        return tuple(table[t] for t in tokens_R)

    def _batches(self, encoded: Sequence[list[int]], rows_each: int) -> Iterator[Ints]:
        """Indices of prompts of like length, ``batch_rows`` rows at most in a batch."""
        order = np.argsort([len(t) for t in encoded], kind="stable")
        size = max(1, self.batch_rows // rows_each)
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

    def _given(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> Iterator[given.Part]:
        used_U, row_R = np.unique(prompt_R, return_inverse=True)
        return given.parts(
            self._forward, self.layers, [self.encode(prompts[p]) for p in used_U], row_R, tokens_R
        )

    def _forward(
        self, token_BL: torch.Tensor, left_B: torch.Tensor, *, keep: int, cache: Cache | None = None
    ) -> Any:
        """The model on rows whose first ``left_B`` positions (cache included) are padding.

        Scores for the last ``keep`` positions. Without padding no mask is made at all.
        """
        past = cache.get_seq_length() if cache is not None else 0
        L = token_BL.shape[1]
        extra: dict[str, Any] = {}
        if cache is not None:
            extra = {"past_key_values": cache, "use_cache": True}
        else:
            extra = {"use_cache": False}
        device = self.device
        position = torch.arange(past, past + L, device=device)
        if bool((left_B > 0).any()):
            left_B = left_B.to(device)
            columns = torch.arange(past + L, device=device)
            extra["attention_mask"] = (columns >= left_B[:, None]).long()
            position_BL = (position - left_B[:, None]).clamp_(min=0)
        else:
            position_BL = position[None]  # the same for all rows, made once
        return self.model(
            input_ids=token_BL.to(device),
            position_ids=position_BL,
            logits_to_keep=keep,
            **extra,
        )

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


class _Decoder:
    """A batch of rows that grow token by token on kept keys and values."""

    def __init__(self, policy: CausalLM, encoded: list[list[int]]) -> None:
        self._policy = policy
        self._encoded = encoded
        self._L = max(map(len, encoded))
        self._left = torch.tensor([self._L - len(x) for x in encoded])
        layers = policy.model.config.get_text_config().num_hidden_layers
        self._cache = growing_cache(layers)

    def begin(self, draws: int) -> torch.Tensor:
        """Run the prompts once; next-token log-probabilities of ``draws`` rows each, [B, V]."""
        logp_PV = self._logp(_left_padded(self._encoded, self._L))
        if draws == 1:
            return logp_PV
        self._cache.batch_repeat_interleave(draws)
        self._left = self._left.repeat_interleave(draws)
        return logp_PV.repeat_interleave(draws, dim=0)

    def next(self, token_B: torch.Tensor) -> torch.Tensor:
        """Append a token to each row; the next log-probabilities, [B, V]."""
        return self._logp(token_B[:, None])

    def keep(self, index: torch.Tensor) -> None:
        """Only these rows go on."""
        self._cache.batch_select_indices(index)
        self._left = self._left[index.cpu()]

    def _logp(self, token_BL: torch.Tensor) -> torch.Tensor:
        out = self._policy._forward(token_BL, self._left, keep=1, cache=self._cache)
        return F.log_softmax(out.logits[:, -1].float(), dim=-1)


class CausalTree:
    """Prefixes of a causal model's responses; satisfies ``srlm.policy.base.PrefixTree``.

    A node keeps the slots of its path in an arena of keys and values, so a position is computed
    once however many prefixes go through it. Memory: one position of the cache a node, plus the
    prompts'.
    """

    def __init__(self, policy: CausalLM, prompts: Sequence[Prompt], max_tokens: int) -> None:
        self.ends = policy.ends
        self.max_tokens = max_tokens
        self._policy = policy
        self._encoded = [policy.encode(x) for x in prompts]
        width = max(map(len, self._encoded)) + max_tokens
        self._arena = Arena(policy.model.config.get_text_config().num_hidden_layers)
        self._slot_NL = np.zeros((4 * len(prompts), width), dtype=np.int64)
        self._length_N = np.zeros(4 * len(prompts), dtype=np.int64)
        self._nodes = 0

    @torch.inference_mode()
    def roots(self) -> tuple[Ints, torch.Tensor]:
        """Nodes of the empty prefixes, [P], and log pi(first token|x), [P, V]."""
        node_P = self._new(len(self._encoded))
        logp_P: dict[int, torch.Tensor] = {}
        for batch in self._policy._batches(self._encoded, 1):
            encoded = [self._encoded[p] for p in batch]
            L = max(map(len, encoded))
            left_B = torch.tensor([L - len(x) for x in encoded])
            cache = growing_cache(len(self._arena._layers), spare=0)
            out = self._policy._forward(_left_padded(encoded, L), left_B, keep=1, cache=cache)
            logp_BV = F.log_softmax(out.logits[:, -1].float(), dim=-1)
            row, column = torch.nonzero(torch.arange(L) >= left_B[:, None], as_tuple=True)
            slot = self._arena.add(cache, row, column)
            for p, x, logp_V in zip(batch, encoded, logp_BV, strict=True):
                self._slot_NL[node_P[p], : len(x)] = np.arange(slot, slot + len(x))
                self._length_N[node_P[p]] = len(x)
                slot += len(x)
                logp_P[int(p)] = logp_V
        return node_P, torch.stack([logp_P[p] for p in range(len(self._encoded))])

    @torch.inference_mode()
    def extend(self, node_B: Ints, token_B: Ints) -> tuple[Ints, torch.Tensor]:
        """Children of nodes by tokens, [B], and their next log-probabilities, [B, V]."""
        parts = [
            self._extend(
                node_B[i : i + self._policy.batch_rows], token_B[i : i + self._policy.batch_rows]
            )
            for i in range(0, len(node_B), self._policy.batch_rows)
        ]
        return np.concatenate([n for n, _ in parts]), torch.cat([logp for _, logp in parts])

    def _extend(self, node_B: Ints, token_B: Ints) -> tuple[Ints, torch.Tensor]:
        length_B = self._length_N[node_B]
        L = int(length_B.max())
        column_BL = np.arange(L) - (L - length_B)[:, None]
        slot_BL = np.take_along_axis(self._slot_NL[node_B], column_BL.clip(min=0), axis=1)
        device = self._policy.device
        cache = self._arena.gather(torch.from_numpy(slot_BL).to(device))
        out = self._policy._forward(
            torch.from_numpy(token_B)[:, None],
            torch.from_numpy(L - length_B),
            keep=1,
            cache=cache,
        )
        B = len(node_B)
        last = torch.full((B,), L, device=device)
        slot = self._arena.add(cache, torch.arange(B, device=device), last)
        child_B = self._new(B)
        self._slot_NL[child_B] = self._slot_NL[node_B]
        self._slot_NL[child_B, length_B] = np.arange(slot, slot + B)
        self._length_N[child_B] = length_B + 1
        return child_B, F.log_softmax(out.logits[:, -1].float(), dim=-1)

    def _new(self, count: int) -> Ints:
        first, self._nodes = self._nodes, self._nodes + count
        if self._nodes > len(self._length_N):
            more = 2 * self._nodes
            self._slot_NL = np.resize(self._slot_NL, (more, self._slot_NL.shape[1]))
            self._length_N = np.resize(self._length_N, more)
        return np.arange(first, self._nodes)


def _inverse(logp_BV: torch.Tensor, u_B: torch.Tensor) -> torch.Tensor:
    """Tokens [B] at which the distribution function of each row passes u, in double precision."""
    V = logp_BV.shape[-1]
    rows = max(1, AT_ONCE.get(logp_BV.device.type, 1 << 26) // V)
    parts = []
    for logp_bV, u_b in zip(logp_BV.split(rows), u_B.split(rows), strict=True):
        below_bV = logp_bV.double().exp_().cumsum(-1)
        u_b1 = (u_b * below_bV[:, -1])[:, None]
        parts.append(torch.searchsorted(below_bV, u_b1, right=True)[:, 0])
    return torch.cat(parts).clamp_(max=V - 1)


def _whole(rows: int) -> int:
    """At least so many rows, of the few batch sizes that come again and again (``linear.ROWS``)."""
    return -(-rows // ROWS) * ROWS if rows > ROWS else 1 << (rows - 1).bit_length()


def _left_padded(encoded: Sequence[list[int]], L: int) -> torch.Tensor:
    return torch.tensor([[0] * (L - len(x)) + x for x in encoded])


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


def _not_a_number(prompt: Prompt) -> UserError:
    where = f"line {prompt.line}" if prompt.line else prompt.id
    return UserError(
        f"the model gives probabilities that are not numbers for the prompt on {where}",
        "check the model's weights, or use --dtype float32",
    )
