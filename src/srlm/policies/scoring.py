"""What a model says along given responses: each prompt run once, never a whole [B, T, V].

A batch of R rows of L prompt and T response positions costs R (L + T - 1) positions when prompt and
response are run as one text. Samples of a prompt share it, and responses end early, so here
the distinct prompts are run first, their keys and values handed to all their rows, and the rows
continue in buckets of like length: U L + sum_b R_b (T_b - 1) positions, U distinct prompts. The
values and the gradient are those of the plain pass up to float rounding: attention sees the same
keys. Prompts of unlike length are in buckets too.

The vocabulary's scores are made from hidden states, some positions at a time
(``Network.read``). Prompts are run apart only where that is fewer positions, and where all that
the model keeps is keys and values. Source: own construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from srlm.policies.network import Network, Read, left_padded, recomputed
from srlm.types import Floats, Ints, Tokens

CALL = 256
"""What a forward pass of its own costs, in positions; measured on the demo's models, where a
position costs about 20 microseconds with its gradient. Larger models hardly feel it."""
COPIED = 0.125
"""What a row copies of a position of its prompt, in positions; about that of usual models."""
MOST_LENGTHS = 64
"""Distinct lengths that buckets are searched over; more are rounded up to as many."""


def token_log_prob(logits_NV: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    """log p(target) = z_target - log sum_v exp z_v, [N], float32 or wider, nats."""
    wide = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    return -F.cross_entropy(wide, target_N, reduction="none")


def read(
    network: Network,
    encoded_U: Sequence[list[int]],
    row_R: Ints,
    tokens_R: Sequence[Tokens],
    reader: Read,
) -> tuple[Ints, torch.Tensor]:
    """``reader`` of the scores before each token of given responses.

    Args:
        encoded_U: tokens of the prompts, each used by a row.
        row_R: each row's prompt.
        tokens_R: each row's response, one token at least.

    Returns:
        The row of each position [N], and the values [N, ...], positions of a row in order.

    Cost: in positions, min(sum_a (U_a L_a + CALL), R L) + sum_b (R_b T_b + CALL), the sums as small
    as parting prompts and rows can make them. Memory: scores of ``Network.chunk`` numbers.
    """
    length_R = np.array([len(y) for y in tokens_R], dtype=np.int64)
    kind, L = network.kind, max(map(len, encoded_U))
    if network.shares and len(encoded_U) * L + CALL < len(tokens_R) * L:
        return _by_prompts(network, encoded_U, row_R, tokens_R, reader)
    groups = [np.arange(len(length_R))] if network.once else buckets(length_R)
    if kind.head is None:
        parts = [
            _whole_pass(network, *_texts(encoded_U, row_R, tokens_R, g), reader) for g in groups
        ]
    else:
        parts = [_together(network, *_texts(encoded_U, row_R, tokens_R, g), reader) for g in groups]
    row_N = np.concatenate([rows.repeat(length_R[rows]) for rows in groups])
    return row_N, torch.cat(parts)


def _together(
    network: Network,
    token_BL: torch.Tensor,
    said_BL: torch.Tensor,
    target_N: torch.Tensor,
    reader: Read,
) -> torch.Tensor:
    """Prompt and response as one text, padded on the right, where causal models do not look."""
    state_BLH = network.states(token_BL)
    return network.read(
        state_BLH[said_BL.to(state_BLH.device)], target_N.to(network.device), reader
    )


def _whole_pass(
    network: Network,
    token_BL: torch.Tensor,
    said_BL: torch.Tensor,
    target_N: torch.Tensor,
    reader: Read,
) -> torch.Tensor:
    """The same where scores come from whole passes only: a pass for some columns at a time."""
    target_BL = torch.zeros_like(token_BL)
    target_BL[said_BL] = target_N
    column_N = torch.nonzero(said_BL.any(0))[:, 0]
    size = max(1, network.chunk // network.vocabulary // len(token_BL))
    if network.once:
        size = len(column_N)

    def some(column_C: torch.Tensor) -> torch.Tensor:
        logits_BCV = network.scores(token_BL, keep=column_C.to(network.device))
        said_BC = said_BL[:, column_C]
        target_N = target_BL[:, column_C][said_BC].to(network.device)
        return reader(logits_BCV[said_BC.to(network.device)], target_N)

    split = column_N.split(size)
    again = len(split) > 1 and torch.is_grad_enabled()
    parts = [recomputed(some, c) if again else some(c) for c in split]
    row_N = torch.cat([torch.nonzero(said_BL[:, c])[:, 0] for c in split])
    order = torch.argsort(row_N, stable=True)  # columns of a row come in order already
    return torch.cat(parts)[order.to(network.device)]


def _texts(
    encoded_U: Sequence[list[int]], row_R: Ints, tokens_R: Sequence[Tokens], rows: Ints
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of prompt and response [B, L], where a response's token is said next [B, L], and those
    tokens [N]; the last token predicts nothing."""
    texts = [([*encoded_U[row_R[r]]], tokens_R[r]) for r in rows]
    token_BL = right_padded([[*x, *y[:-1]] for x, y in texts])
    first_B1 = torch.tensor([[len(x) - 1] for x, _ in texts])
    last_B1 = torch.tensor([[len(x) + len(y) - 2] for x, y in texts])
    place_L = torch.arange(token_BL.shape[1])
    said_BL = (place_L >= first_B1) & (place_L <= last_B1)
    return token_BL, said_BL, torch.tensor([t for _, y in texts for t in y])


def _by_prompts(
    network: Network,
    encoded_U: Sequence[list[int]],
    row_R: Ints,
    tokens_R: Sequence[Tokens],
    reader: Read,
) -> tuple[Ints, torch.Tensor]:
    """As ``read``: prompts of like length together, since each row copies as much as the longest
    takes; then rows of like length."""
    size_U = np.array([len(x) for x in encoded_U])
    rows_U = np.bincount(row_R, minlength=len(encoded_U)).astype(np.float64)
    length_R = np.array([len(y) for y in tokens_R], dtype=np.int64)
    row_N, parts = [], []
    for some_U in buckets(size_U, 1 + COPIED * rows_U):
        place_U = np.full(len(encoded_U), -1)
        place_U[some_U] = np.arange(len(some_U))
        own_R = np.flatnonzero(place_U[row_R] >= 0)
        groups = buckets(length_R[own_R])
        mine_R = [tokens_R[r] for r in own_R.tolist()]
        prompts = [encoded_U[u] for u in some_U.tolist()]
        parts += _apart(network, prompts, place_U[row_R[own_R]], mine_R, groups, reader)
        row_N += [own_R[rows].repeat(length_R[own_R[rows]]) for rows in groups]
    return np.concatenate(row_N), torch.cat(parts)


def _apart(
    network: Network,
    encoded_U: Sequence[list[int]],
    row_R: Ints,
    tokens_R: Sequence[Tokens],
    groups: list[Ints],
    reader: Read,
) -> list[torch.Tensor]:
    """Prompts first, then the responses' rows on copies of their keys and values."""
    token_UL, left_U = left_padded(encoded_U)
    past, device = token_UL.shape[1], network.device
    cache = DynamicCache()
    first_UH = network.states(token_UL, left_U, cache=cache)[:, -1]
    out = []
    for rows in groups:
        own_B = torch.from_numpy(row_R[rows])
        token_BT = right_padded([tokens_R[r] for r in rows])
        length_B = torch.tensor([[len(tokens_R[r])] for r in rows])
        said_BT = torch.arange(token_BT.shape[1]) < length_B
        state_BTH = first_UH[own_B.to(device)][:, None]
        if token_BT.shape[1] > 1:
            after_BTH = network.states(
                token_BT[:, :-1],
                left_U[own_B] if left_U is not None else None,
                cache=_of_rows(cache, own_B.to(device)),
                past=past,
            )
            state_BTH = torch.cat([state_BTH, after_BTH], dim=1)
        state_NH = state_BTH[said_BT.to(device)]
        out.append(network.read(state_NH, token_BT[said_BT].to(device), reader))
    return out


def buckets(size_R: Ints, weight_R: Floats | None = None) -> list[Ints]:
    """Rows parted by size so that sum_b (R_b max_b size + CALL) is least, R_b the number of the
    bucket's rows or the sum of their weights; rows in order of size.

    The best parting of sorted rows is into runs, found by dynamic programming over the distinct
    sizes. O(R log R + S^2), S distinct sizes, at most ``MOST_LENGTHS``.

    >>> [len(rows) for rows in buckets(np.repeat([1, 30], [400, 100]))]
    [400, 100]
    >>> [len(rows) for rows in buckets(np.repeat([1, 2], [40, 10]))]
    [50]
    """
    order_R = np.argsort(size_R, kind="stable")
    sizes_S, of_R, count_S = np.unique(_rounded(size_R), return_inverse=True, return_counts=True)
    until_S = np.concatenate([[0], np.cumsum(count_S)])
    heavy_S = until_S if weight_R is None else np.append(0, np.cumsum(np.bincount(of_R, weight_R)))
    best = [0.0]
    start = []
    for end in range(1, len(sizes_S) + 1):
        rows = heavy_S[end] - heavy_S[:end]
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
        mine.update(layer.keys[own_B], layer.values[own_B])
        out.append(mine)
    return Cache(layers=out)


def right_padded(tokens_R: Sequence[Sequence[int]]) -> torch.Tensor:
    """[R, T], int64, 0 on the right."""
    out_RT = np.zeros((len(tokens_R), max(map(len, tokens_R))), dtype=np.int64)
    for row_T, tokens in zip(out_RT, tokens_R, strict=True):
        row_T[: len(tokens)] = tokens
    return torch.from_numpy(out_RT)
