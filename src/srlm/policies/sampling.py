"""Sampling from a causal model, token by token, with log-probabilities from the same pass.

Samples of a prompt share what they have in common: every distinct prefix is one row of the batch,
run once, and each sample points to its row. A step takes the next log-probabilities of the rows,
lets every sample choose its token by its own uniform number, and makes the distinct pairs of row
and token the next rows; finished samples have none. Cost: one model position for every distinct
prefix, where a row a sample would cost one for every token sampled. Source: own construction.

Memory: as many samples at once as would fit if they shared nothing (``devices.Budget.rows``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from srlm.errors import UserError
from srlm.policies.base import uniforms
from srlm.policies.devices import in_halves
from srlm.policies.network import Rows
from srlm.policies.parts import Parts
from srlm.types import Floats, Ints, Prompt, Samples, Tokens

AT_ONCE = {"cpu": 1 << 17}
"""Probabilities summed at once: on the CPU what its cache holds, elsewhere 2^24."""

Choose = Callable[[torch.Tensor, Ints, Ints, int], torch.Tensor]
"""Log-probabilities of the rows [B, V], each sample's row [D] and number [D], and the step t:
row * V + token of each sample, [D]."""


def sampled(
    policy: Parts,
    prompts: Sequence[Prompt],
    samples: int,
    seed: int,
    max_tokens: int,
    advance: Callable[[float], None],
    shape: tuple[float, float] | None = None,
) -> Samples:
    """Samples at temperature 1, see ``CausalLM.sample``; or by ``shape``, temperature and top-p,
    see ``CausalLM.tempered``."""
    u_RT = np.concatenate([uniforms(seed, x.id, samples, max_tokens) for x in prompts])

    def choose(logp_BV: torch.Tensor, row_D: Ints, sample_D: Ints, t: int) -> torch.Tensor:
        chosen_BV = logp_BV if shape is None else tempered(logp_BV, *shape)
        return _inverse(chosen_BV, row_D, u_RT[sample_D, t])

    return _decode(policy, prompts, samples, choose, max_tokens, advance)


def greedy(policy: Parts, prompts: Sequence[Prompt], max_tokens: int) -> Samples:
    """The likeliest token at each step, one row per prompt."""

    def choose(logp_BV: torch.Tensor, row_D: Ints, sample_D: Ints, t: int) -> torch.Tensor:
        row = torch.from_numpy(row_D).to(logp_BV.device)
        return row * logp_BV.shape[1] + logp_BV.argmax(-1)[row]

    return _decode(policy, prompts, 1, choose, max_tokens, lambda prompts: None)


@torch.inference_mode()
def _decode(
    policy: Parts,
    prompts: Sequence[Prompt],
    samples: int,
    choose: Choose,
    max_tokens: int,
    advance: Callable[[float], None],
) -> Samples:
    found = _Found(policy, prompts, samples, max_tokens, advance)
    length_P = np.array([len(policy.encode(x)) for x in prompts])
    for part in _parts(policy, length_P, samples, max_tokens):
        in_halves(lambda sample_D: found.grow(sample_D, choose), part, policy.budget)
    return found.samples()


def _parts(policy: Parts, length_P: Ints, samples: int, max_tokens: int) -> Iterator[Ints]:
    """Numbers of samples that are made together: of prompts of like length, those of a prompt
    together where they fit. The longest come first, so that what does not fit shows early."""
    order = np.argsort(-length_P, kind="stable")
    left = (order[:, None] * samples + np.arange(samples)).ravel()
    while len(left):
        length = int(length_P[left[0] // samples])
        most = policy.budget.rows(length + max_tokens)
        if most > samples:
            most -= most % samples
        if not policy.network.kind.padded:
            most = min(most, int((length_P[left // samples] == length).sum()))
        yield left[:most]
        left = left[most:]


class _Found:
    """The samples of each prompt in turn: tokens and log-probabilities, [R, T]."""

    def __init__(
        self,
        policy: Parts,
        prompts: Sequence[Prompt],
        samples: int,
        max_tokens: int,
        advance: Callable[[float], None],
    ) -> None:
        R = len(prompts) * samples
        self._advance = advance
        self._policy, self._prompts, self._per_prompt = policy, prompts, samples
        self._token_RT = np.zeros((R, max_tokens), dtype=np.int64)
        self._logp_RT = np.zeros((R, max_tokens), dtype=np.float64)
        self._length_R = np.full(R, max_tokens, dtype=np.int64)
        self._finished_R = np.zeros(R, dtype=bool)
        self._ends = np.array(sorted(policy.ends))

    def grow(self, sample_D: Ints, choose: Choose) -> None:
        """Make some samples from their prompts to their ends."""
        used_U, row_D = np.unique(sample_D // self._per_prompt, return_inverse=True)
        encoded = [self._policy.encode(self._prompts[p]) for p in used_U]
        rows = Rows(self._policy.network, encoded)
        T = self._token_RT.shape[1]
        for t in range(T):
            logp_BV = log_probs(rows.scores_BV)
            V = logp_BV.shape[1]
            place_D = choose(logp_BV, row_D, sample_D, t)
            logp_D = logp_BV.view(-1).take(place_D).cpu().numpy()
            found_D = place_D.cpu().numpy()
            token_D = found_D - row_D * V
            if not np.isfinite(logp_D.sum(dtype=np.float64)):
                raise self._not_a_number(sample_D[~np.isfinite(logp_D)][0] // self._per_prompt)
            self._token_RT[sample_D, t], self._logp_RT[sample_D, t] = token_D, logp_D
            ended_D = np.isin(token_D, self._ends)
            self._finished_R[sample_D[ended_D]] = True
            self._length_R[sample_D] = t + 1
            # a sample counts T steps; one that has ended, those that it need not take
            steps = len(sample_D) + int(ended_D.sum()) * (T - t - 1)
            self._advance(steps / (T * self._per_prompt))
            sample_D, found_D = sample_D[~ended_D], found_D[~ended_D]
            if t + 1 == T or not len(sample_D):
                return
            place_C, row_D = np.unique(found_D, return_inverse=True)
            rows.next(*np.divmod(place_C, V))

    def _not_a_number(self, p: int) -> UserError:
        prompt = self._prompts[p]
        where = f"line {prompt.line}" if prompt.line else prompt.id
        return UserError(
            f"the model gives probabilities that are not numbers for the prompt on {where}",
            "check the model's weights, or use --dtype float32",
        )

    def samples(self) -> Samples:
        """All of them."""
        length_R = self._length_R.tolist()
        tokens_R = tuple(
            tuple(row[:n]) for row, n in zip(self._token_RT.tolist(), length_R, strict=True)
        )
        return Samples(
            prompt_R=np.arange(len(self._prompts)).repeat(self._per_prompt),
            tokens_R=tokens_R,
            logp_R=self._logp_RT.sum(1),
            weight_R=np.full(len(tokens_R), 1.0 / self._per_prompt),
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


def log_probs(scores_BV: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of a vocabulary's scores, in float32 at least."""
    wide = torch.promote_types(scores_BV.dtype, torch.float32)
    return F.log_softmax(scores_BV, dim=-1, dtype=wide)


def tempered(logp_BV: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """log q of q ~ exp(log pi / temperature), on the fewest tokens whose q adds up to ``top_p``,
    -inf elsewhere; not normalised again after that. [B, V]; O(V log V) a row.

    >>> logp = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    >>> [round(q, 3) for q in tempered(logp, 0.5, 0.9).exp()[0].tolist()]
    [0.727, 0.182, 0.0, 0.0]
    """
    logq_BV = log_probs(logp_BV / temperature)
    if top_p == 1:
        return logq_BV
    down_BV, token_BV = logq_BV.sort(dim=-1, descending=True, stable=True)
    before_BV = down_BV.exp().cumsum(-1) - down_BV.exp()
    kept_BV = torch.zeros_like(logq_BV, dtype=torch.bool).scatter(-1, token_BV, before_BV < top_p)
    return logq_BV.masked_fill(~kept_BV, -torch.inf)


def _inverse(logp_BV: torch.Tensor, row_D: Ints, u_D: Floats) -> torch.Tensor:
    """row * V + token [D], tokens at which the distribution function of a row passes u.

    In double precision. The functions of all rows are put one after another, so that they are
    summed once a row and searched once a sample: row + u among row + F, whose rounding is 1e-13.
    """
    if logp_BV.device.type == "mps":  # which has no double precision
        return _inverse(logp_BV.cpu(), row_D, u_D).to(logp_BV.device)
    B, V = logp_BV.shape
    rows = max(1, AT_ONCE.get(logp_BV.device.type, 1 << 24) // V)
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
