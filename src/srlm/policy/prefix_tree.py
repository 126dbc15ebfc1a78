"""The prefix tree of a causal model's responses, for search.

What is left out: models whose state is not keys and values (recurrent ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from srlm.policy.cache import Arena, growing_cache
from srlm.policy.decoding import left_padded
from srlm.types import Ints, Prompt

if TYPE_CHECKING:
    from srlm.policy.causal_lm import CausalLM


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
        for batch in self._policy.batches(self._encoded, 1):
            encoded = [self._encoded[p] for p in batch]
            L = max(map(len, encoded))
            left_B = torch.tensor([L - len(x) for x in encoded])
            cache = growing_cache(len(self._arena._layers), spare=0)
            out = self._policy.forward(left_padded(encoded, L), left_B, keep=1, cache=cache)
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
        out = self._policy.forward(
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
