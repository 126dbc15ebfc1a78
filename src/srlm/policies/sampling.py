"""Drawing from a causal model, token by token, with log-probabilities from the same pass.

Draws of a prompt share what they have in common: every distinct prefix is one row of the batch, run
once, and each draw points to its row. A step takes the next log-probabilities of the rows, lets
every draw choose its token by its own uniform number, and makes the distinct pairs of row and token
the next rows. The first of a row's children takes its place, so that its keys and values stay where
they are; the others are copied into rows that are free. Cost: one model position for every distinct
prefix, where a row a draw would cost one for every token drawn. Source: own construction.

Memory: ``batch_rows`` rows of keys and values. Prefixes that branch into more go on in parts, one
after another, and meanwhile the rows that they came from are kept. A batch begins with a fourth of
its rows where there are so many draws a prompt (``APART``), so that there are few such parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from srlm.errors import UserError
from srlm.policies.cache import RowCache
from srlm.policies.shared_rows import Children, children, places, whole
from srlm.policies.streams import uniforms_of
from srlm.types import Floats, Ints, Prompt, Samples, Tokens

if TYPE_CHECKING:
    from srlm.policies.hf import CausalLM

APART = 4
"""Rows that are reckoned with for a prompt at most: its draws have their beginnings in common. More
prompts at once are no faster with 4 draws a prompt, and take another 40 MB with 0.1 M parameters;
fewer are slower with 16."""

AT_ONCE = {"cpu": 1 << 17}
"""Probabilities summed at once: on the CPU what its cache holds, elsewhere 2^26."""


@dataclass(slots=True)
class _Front:
    """Distinct prefixes of t tokens, each in a row, and the draws that have them."""

    rows: _Rows
    logp_BV: torch.Tensor
    """Next log-probabilities of every row."""
    row_D: Ints
    """Row of each draw that goes on."""
    draw_D: Ints
    """Its number in the result."""
    t: int

    def next(self, then: Children, *, apart: bool = False) -> _Front:
        """Prefixes of one token more, in place of these or in rows of their own."""
        rows, parent_C = self.rows, then.parent_C
        if apart:
            rows, parent_C = rows.copy(parent_C, len(then.draw_D)), np.arange(len(parent_C))
        row_C, logp_BV = rows.next(parent_C, then.token_C)
        return _Front(rows, logp_BV, row_C[then.child_D], then.draw_D, self.t + 1)


Choose = Callable[[_Front], torch.Tensor]
"""row * V + token of each draw of a front, [D]."""


def sampled(
    policy: CausalLM, prompts: Sequence[Prompt], draws: int, seed: int, max_tokens: int
) -> Samples:
    """Draws at temperature 1; see ``CausalLM.sample``."""
    u_RT = uniforms_of(seed, [x.id for x in prompts], draws, max_tokens)

    def choose(front: _Front) -> torch.Tensor:
        return _inverse(front.logp_BV, front.row_D, u_RT[front.draw_D, front.t])

    return _decode(policy, prompts, draws, choose, max_tokens)


def greedy(policy: CausalLM, prompts: Sequence[Prompt], max_tokens: int) -> Samples:
    """The likeliest token at each step, one row a prompt."""

    def choose(front: _Front) -> torch.Tensor:
        row = torch.from_numpy(front.row_D).to(front.logp_BV.device)
        return row * front.logp_BV.shape[1] + front.logp_BV.argmax(-1)[row]

    return _decode(policy, prompts, 1, choose, max_tokens)


@torch.inference_mode()
def _decode(
    policy: CausalLM, prompts: Sequence[Prompt], draws: int, choose: Choose, max_tokens: int
) -> Samples:
    drawn = _Drawn(policy, prompts, draws, max_tokens)
    encoded = [policy.encode(x) for x in prompts]
    for batch in policy.batches(encoded, draws):
        drawn.grow(_begun(policy, encoded, batch, draws), choose)
    return drawn.samples()


def _begun(policy: CausalLM, encoded: Sequence[list[int]], batch: Ints, draws: int) -> _Front:
    """The empty prefixes of some prompts."""
    rows = _Rows(policy, len(batch) * draws)
    return _Front(
        rows=rows,
        logp_BV=rows.begin([encoded[p] for p in batch]),
        row_D=np.arange(len(batch)).repeat(draws),
        draw_D=(batch[:, None] * draws + np.arange(draws)).ravel(),
        t=0,
    )


class _Drawn:
    """The draws of each prompt in turn: tokens and log-probabilities, [R, T]."""

    def __init__(
        self, policy: CausalLM, prompts: Sequence[Prompt], draws: int, max_tokens: int
    ) -> None:
        R = len(prompts) * draws
        self._policy, self._prompts, self._draws = policy, prompts, draws
        self._token_RT = np.zeros((R, max_tokens), dtype=np.int64)
        self._logp_RT = np.zeros((R, max_tokens), dtype=np.float64)
        self._length_R = np.full(R, max_tokens, dtype=np.int64)
        self._finished_R = np.zeros(R, dtype=bool)
        self._end_V = np.zeros(max(policy.ends) + 2, dtype=bool)  # the last: all tokens after
        self._end_V[list(policy.ends)] = True

    def grow(self, front: _Front, choose: Choose) -> None:
        """Draw all that is left of the draws of a front."""
        while True:
            then = self._chosen(front, choose(front))
            if then is None:
                return
            *others, last = then.parts(self._policy.batch_rows)
            for part in others:
                self.grow(front.next(part, apart=True), choose)
            front = front.next(last)

    def _chosen(self, front: _Front, place_D: torch.Tensor) -> Children | None:
        """Write down what was chosen; the prefixes that go on, if any do."""
        draw_D, t, V = front.draw_D, front.t, front.logp_BV.shape[1]
        logp_D = front.logp_BV.view(-1).take(place_D).cpu().numpy()
        found_D = place_D.cpu().numpy()
        token_D = found_D - front.row_D * V
        if not np.isfinite(logp_D.sum(dtype=np.float64)):
            bad = draw_D[~np.isfinite(logp_D)][0]
            raise _not_a_number(self._prompts[bad // self._draws])
        self._token_RT[draw_D, t] = token_D
        self._logp_RT[draw_D, t] = logp_D
        ended_D = self._end_V.take(token_D, mode="clip")
        if ended_D.any():
            ended = draw_D[ended_D]
            self._finished_R[ended] = True
            self._length_R[ended] = t + 1
            found_D, draw_D = found_D[~ended_D], draw_D[~ended_D]
        if t + 1 == self._token_RT.shape[1] or not len(draw_D):
            return None
        return children(found_D, draw_D, V)

    def samples(self) -> Samples:
        """All of them."""
        length_R = self._length_R.tolist()
        tokens_R = tuple(
            tuple(row[:n]) for row, n in zip(self._token_RT.tolist(), length_R, strict=True)
        )
        return Samples(
            prompt_R=np.arange(len(self._prompts)).repeat(self._draws),
            tokens_R=tokens_R,
            logp_R=self._logp_RT.sum(1),
            weight_R=np.full(len(tokens_R), 1.0 / self._draws),
            finished_R=self._finished_R,
            text_R=_texts(self._policy.tokenizer, tokens_R),
            token_logp_R=tuple(
                row_T[:n].copy() for row_T, n in zip(self._logp_RT, length_R, strict=True)
            ),
        )


def _texts(tokenizer: Any, tokens_R: Sequence[Tokens]) -> tuple[str, ...]:
    """Decoded once for each distinct response."""
    distinct = list(dict.fromkeys(tokens_R))
    texts = tokenizer.batch_decode([list(t) for t in distinct], skip_special_tokens=True)
    table = dict(zip(distinct, texts, strict=True))
    return tuple(table[t] for t in tokens_R)


class _Rows:
    """A batch of prefixes that grow token by token on kept keys and values.

    Args:
        policy: the model.
        draws: that have them; there will be no more prefixes than these.
    """

    def __init__(self, policy: CausalLM, draws: int) -> None:
        self._policy, self._steps = policy, policy.steps()
        self._cache = RowCache(policy.layers, whole(min(draws, policy.batch_rows)))
        self._left_B = torch.zeros(0, dtype=torch.int64)

    def begin(self, encoded: list[list[int]]) -> torch.Tensor:
        """Run prompts, a row each; next-token log-probabilities, [P, V]."""
        L = max(map(len, encoded))
        self._left_B = torch.tensor([L - len(x) for x in encoded])
        logits_P1V = self._policy.forward(
            left_padded(encoded, L), self._left_B, keep=1, cache=self._cache
        )
        return _logp(logits_P1V)

    def next(self, parent_C: Ints, token_C: Ints) -> tuple[Ints, torch.Tensor]:
        """Prefixes of one token more in place of these.

        Args:
            parent_C: their rows now, nondecreasing; a row may come several times.
            token_C: their new tokens.

        Returns:
            Their rows, [C], and the next log-probabilities of all rows, [B, V].
        """
        found = places(parent_C, len(self._left_B))
        if found.rows != len(self._left_B) or len(found.to):
            source_B = np.arange(found.rows)
            source_B[found.to] = found.source
            self._left_B = self._left_B[source_B]
            self._cache.move(found.rows, *self._indices(found.to, found.source))
        token_B = np.zeros(found.rows, dtype=np.int64)
        token_B[found.row_C] = token_C
        return found.row_C, self._next(torch.from_numpy(token_B)[:, None])

    def copy(self, parent_C: Ints, draws: int) -> _Rows:
        """Some of the rows, in this order, for so many draws."""
        other = _Rows(self._policy, draws)
        other._left_B = self._left_B[parent_C]
        other._cache.fill(self._cache, *self._indices(parent_C))
        return other

    def _indices(self, *rows: Ints) -> tuple[torch.Tensor, ...]:
        return tuple(torch.from_numpy(x).to(self._policy.device) for x in rows)

    def _next(self, token_B1: torch.Tensor) -> torch.Tensor:
        return _logp(self._policy.step(token_B1, self._left_B, self._cache, self._steps))


def _logp(logits_B1V: torch.Tensor) -> torch.Tensor:
    return F.log_softmax(logits_B1V[:, -1].float(), dim=-1)


def _inverse(logp_BV: torch.Tensor, row_D: Ints, u_D: Floats) -> torch.Tensor:
    """row * V + token [D], tokens at which the distribution function of a row passes u.

    In double precision. The functions of all rows are put one after another, so that they are
    summed once a row and searched once a draw: row + u among row + F, whose rounding is 1e-13.
    """
    B, V = logp_BV.shape
    rows = max(1, AT_ONCE.get(logp_BV.device.type, 1 << 26) // V)
    if rows >= B:
        return _searched(logp_BV, row_D, u_D)
    place_D = torch.empty(len(row_D), dtype=torch.int64, device=logp_BV.device)
    for first in range(0, B, rows):
        here = np.flatnonzero((row_D >= first) & (row_D < first + rows))
        if len(here):
            found = _searched(logp_BV[first : first + rows], row_D[here] - first, u_D[here])
            place_D[torch.from_numpy(here).to(place_D.device)] = found + first * V
    return place_D


def _searched(logp_BV: torch.Tensor, row_D: Ints, u_D: Floats) -> torch.Tensor:
    B, V = logp_BV.shape
    device = logp_BV.device
    below_BV = logp_BV.double().exp_().cumsum_(-1)
    row_B1 = torch.from_numpy(np.arange(B, dtype=np.float64)[:, None]).to(device)
    edge_BV = torch.addcdiv(row_B1, below_BV, below_BV.narrow(1, V - 1, 1))
    place_D = torch.searchsorted(
        edge_BV.view(-1), torch.from_numpy(row_D + u_D).to(device), right=True
    )
    first_D = row_D * V
    least_D, most_D = (torch.from_numpy(x).to(device) for x in (first_D, first_D + (V - 1)))
    return place_D.clamp_(min=least_D, max=most_D)  # what is not a number stays in its own row


def _not_a_number(prompt: Prompt) -> UserError:
    where = f"line {prompt.line}" if prompt.line else prompt.id
    return UserError(
        f"the model gives probabilities that are not numbers for the prompt on {where}",
        "check the model's weights, or use --dtype float32",
    )


def left_padded(encoded: Sequence[list[int]], L: int) -> torch.Tensor:
    """Rows of L positions, their tokens on the right."""
    return torch.tensor([[0] * (L - len(x)) + x for x in encoded])
