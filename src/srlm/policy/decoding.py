"""Drawing from a causal model, token by token, with log-probabilities from the same pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from srlm.errors import UserError
from srlm.policy.cache import growing_cache
from srlm.policy.linear import ROWS
from srlm.policy.streams import uniforms_of
from srlm.types import Floats, Ints, Prompt, Samples, Tokens

if TYPE_CHECKING:
    from srlm.policy.causal_lm import CausalLM

Choose = Callable[[torch.Tensor, Ints, int], torch.Tensor]
"""(log-probabilities [B, V], row numbers [B], position) -> tokens [B]."""

IDLE = 1 / 16
"""Share of finished rows at which they leave the batch: before, copying the other rows' keys and
values costs more than running these."""

AT_ONCE = {"cpu": 1 << 17}
"""Probabilities summed at once: on the CPU what its cache holds, elsewhere 2^26."""


def sampled(
    policy: CausalLM, prompts: Sequence[Prompt], draws: int, seed: int, max_tokens: int
) -> Samples:
    """Draws at temperature 1; see ``CausalLM.sample``."""
    u_RT: Floats = np.empty((0, 0))

    def begin(batch: Ints) -> None:
        nonlocal u_RT
        u_RT = uniforms_of(seed, [prompts[p].id for p in batch], draws, max_tokens)

    def choose(logp_BV: torch.Tensor, row_B: Ints, t: int) -> torch.Tensor:
        u_B = torch.from_numpy(u_RT[row_B, t]).to(logp_BV.device)
        return _inverse(logp_BV, u_B)

    return _decode(policy, prompts, draws, choose, max_tokens, begin)


def greedy(policy: CausalLM, prompts: Sequence[Prompt], max_tokens: int) -> Samples:
    """The likeliest token at each step, one row a prompt."""
    return _decode(policy, prompts, 1, lambda logp_BV, _r, _t: logp_BV.argmax(-1), max_tokens)


@torch.inference_mode()
def _decode(
    policy: CausalLM,
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
    for batch in policy.batches([policy.encode(x) for x in prompts], draws):
        begin(batch)
        row_B = np.arange(len(batch) * draws)  # within the batch
        out_B = (batch[:, None] * draws + np.arange(draws)).ravel()  # in the result
        live_B = np.ones(len(row_B), dtype=bool)
        step = _Decoder(policy, [policy.encode(prompts[p]) for p in batch])
        logp_BV = step.begin(draws)
        end_V = np.zeros(logp_BV.shape[-1], dtype=bool)
        end_V[list(policy.ends)] = True
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
                index = torch.from_numpy(keep).to(policy.device)
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
        text_R=_texts(policy.tokenizer, tokens_R),
        token_logp_R=tuple(
            row_T[:n].copy() for row_T, n in zip(logp_RT, length_R.tolist(), strict=True)
        ),
    )


def _texts(tokenizer: Any, tokens_R: Sequence[Tokens]) -> tuple[str, ...]:
    """Decoded once for each distinct response."""
    distinct = list(dict.fromkeys(tokens_R))
    texts = tokenizer.batch_decode([list(t) for t in distinct], skip_special_tokens=True)
    table = dict(zip(distinct, texts, strict=True))
    return tuple(table[t] for t in tokens_R)


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
        logp_PV = self._logp(left_padded(self._encoded, self._L))
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
        out = self._policy.forward(token_BL, self._left, keep=1, cache=self._cache)
        return F.log_softmax(out.logits[:, -1].float(), dim=-1)


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


def _not_a_number(prompt: Prompt) -> UserError:
    where = f"line {prompt.line}" if prompt.line else prompt.id
    return UserError(
        f"the model gives probabilities that are not numbers for the prompt on {where}",
        "check the model's weights, or use --dtype float32",
    )


def left_padded(encoded: Sequence[list[int]], L: int) -> torch.Tensor:
    """Rows of L positions, their tokens on the right."""
    return torch.tensor([[0] * (L - len(x)) + x for x in encoded])
