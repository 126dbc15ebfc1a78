"""Probabilities of given responses: each prompt run once, responses of like length together.

A batch of R rows of L prompt and T response positions costs R (L + T - 1) positions when prompt and
response are run as one text. Draws of one prompt share it, and responses end early, so here
the distinct prompts are run first, their keys and values handed to all their rows, and the rows
go on in buckets of like length: U L + sum_b R_b (T_b - 1) positions, U distinct prompts. The values
and the gradient are those of the plain pass up to float rounding: attention sees the same keys.

Prompts are run apart only where that is fewer positions. Source: own construction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicLayer

from srlm.types import Ints, Tokens

CALL = 256
"""What a forward pass of its own costs, in positions; measured on the demo's models, where a
position costs about 20 microseconds with its gradient. Larger models hardly feel it."""
MOST_LENGTHS = 64
"""Distinct lengths that buckets are searched over; more are rounded up to as many."""
IGNORED = -100


class Forward(Protocol):
    """The model on left-padded rows: scores of the last ``keep`` positions, [B, keep, V]."""

    def __call__(
        self, token_BL: torch.Tensor, left_B: torch.Tensor, *, keep: int, cache: Cache | None = None
    ) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class Part:
    """Scores of some rows."""

    rows: Ints
    """Which of the rows asked for, [B]."""
    logits_BTV: torch.Tensor
    """The vocabulary's scores at the response positions."""
    target_BT: torch.Tensor
    """The response's tokens there, ``IGNORED`` after its end; int64, on the processor."""


def parts(
    forward: Forward,
    layers: int,
    encoded_U: Sequence[list[int]],
    row_R: Ints,
    tokens_R: Sequence[Tokens],
) -> Iterator[Part]:
    """The next-token scores of given responses, every row in one part.

    Args:
        forward: the model.
        layers: of keys and values.
        encoded_U: tokens of the prompts, each used by a row.
        row_R: each row's prompt.
        tokens_R: each row's response, one token at least.

    Cost: in positions, min(U L + CALL, R L) + sum_b (R_b T_b + CALL), the sum as small as parting
    the rows can make it.
    """
    length_R = np.array([len(y) for y in tokens_R], dtype=np.int64)
    L = max(map(len, encoded_U))
    groups = buckets(length_R)
    left_U = torch.tensor([L - len(x) for x in encoded_U])
    token_UL = _padded([[0] * (L - len(x)) + x for x in encoded_U], L)
    apart = len(encoded_U) * L + CALL < len(tokens_R) * L
    if apart:
        cache = Cache(layers=[DynamicLayer() for _ in range(layers)])
        first_UV = forward(token_UL, left_U, keep=1, cache=cache)
    for rows in groups:
        own_B = torch.from_numpy(row_R[rows])
        T = int(length_R[rows].max())
        target_BT = _padded([tokens_R[r] for r in rows], T)
        said_BT = target_BT[:, :-1].clamp(min=0)
        if apart:
            logits_BTV = first_UV[own_B.to(first_UV.device)]
            if T > 1:
                after = forward(said_BT, left_U[own_B], keep=T - 1, cache=_of_rows(cache, own_B))
                logits_BTV = torch.cat([logits_BTV, after], dim=1)
        else:
            token_BL = torch.cat([token_UL[own_B], said_BT], dim=1)
            logits_BTV = forward(token_BL, left_U[own_B], keep=T)
        yield Part(rows, logits_BTV, target_BT)


def buckets(size_R: Ints) -> list[Ints]:
    """Rows parted by size so that sum_b (R_b max_b size + CALL) is least; rows in order of size.

    The best parting of sorted rows is into runs, found by dynamic programming over the distinct
    sizes. O(R log R + S^2), S distinct sizes, at most ``MOST_LENGTHS``.

    >>> [len(rows) for rows in buckets(np.repeat([1, 30], [400, 100]))]
    [400, 100]
    >>> [len(rows) for rows in buckets(np.repeat([1, 2], [40, 10]))]
    [50]
    """
    order_R = np.argsort(size_R, kind="stable")
    sizes_S, count_S = np.unique(_rounded(size_R), return_counts=True)
    until_S = np.concatenate([[0], np.cumsum(count_S)])
    best = [0.0]
    start = []
    for end in range(1, len(sizes_S) + 1):
        rows = until_S[end] - until_S[:end]
        cost = np.asarray(best) + rows * sizes_S[end - 1] + CALL
        start.append(int(np.argmin(cost)))
        best.append(float(cost.min()))
    found: list[Ints] = []
    end = len(sizes_S)
    while end:
        found.append(order_R[until_S[start[end - 1]] : until_S[end]])
        end = start[end - 1]
    return found[::-1]


def _rounded(size_R: Ints) -> Ints:
    """Sizes rounded up to ``MOST_LENGTHS`` distinct ones at most."""
    step = -(-int(size_R.max(initial=1)) // MOST_LENGTHS)
    return -(-size_R // step) * step


def _of_rows(cache: Cache, own_B: torch.Tensor) -> Cache:
    """The prompts' keys and values for each row, through which the gradient flows."""
    out: list[Any] = []
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None and layer.values is not None
        mine = DynamicLayer()
        index = own_B.to(layer.keys.device)
        mine.update(layer.keys[index], layer.values[index])
        out.append(mine)
    return Cache(layers=out)


def _padded(tokens_R: Sequence[Sequence[int]], width: int) -> torch.Tensor:
    """[R, width], int64, ``IGNORED`` on the right."""
    out_RT = np.full((len(tokens_R), width), IGNORED, dtype=np.int64)
    for row_T, tokens in zip(out_RT, tokens_R, strict=True):
        row_T[: len(tokens)] = tokens
    return torch.from_numpy(out_RT)
