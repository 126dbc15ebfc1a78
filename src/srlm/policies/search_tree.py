"""The prefix tree of a causal model's responses, for search.

Keys and values lie in an arena, a tree position a row, each once. The path of a node is gathered
in one copy of whole rows, [B, L + 1, heads x dim], with room for the position that is computed
next, and attention reads it as [B, heads, L + 1, dim] with strides.

What is left out: models whose state is not keys and values (recurrent ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers.cache_utils import Cache, DynamicLayer

from srlm.policies.cache import Opened, Views
from srlm.policies.sampling import left_padded
from srlm.types import Ints, Prompt

if TYPE_CHECKING:
    from srlm.policies.hf import CausalLM


class Path(DynamicLayer):
    """One layer's keys and values of paths, which one position more is added to.

    Args:
        keys, values: [B, L + 1, heads, dim]; the last position is still to be filled.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.dtype, self.device = keys.dtype, keys.device
        self.keys, self.values = keys, values
        self.used = keys.shape[1] - 1
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Fill the last position, [B, heads, 1, dim]; all of them, [B, heads, L + 1, dim]."""
        key, value, keys, values = self.opened()
        key.copy_(key_states)
        value.copy_(value_states)
        return keys, values

    def opened(self) -> Opened:
        """The last position, still to be filled, and all of them; it counts from now on."""
        self.used = self.keys.shape[1]
        keys, values = self.keys.transpose(1, 2), self.values.transpose(1, 2)
        return keys[:, :, -1:], values[:, :, -1:], keys, values

    def get_seq_length(self) -> int:
        """Positions held."""
        return self.used


class Paths(Cache):
    """All layers' paths."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        super().__init__(layers=list(paths))

    def views(self) -> list[Views]:
        """Keys and values, by layer."""
        return [(x.keys.transpose(1, 2), x.values.transpose(1, 2)) for x in self.paths]

    def opened(self, rows: int) -> list[Opened]:
        """The last position of the rows, by layer."""
        return [x.opened() for x in self.paths]


class Arena:
    """Keys and values of tree positions, [slots, heads x dim] a layer, doubled when full."""

    def __init__(self) -> None:
        self._layers: list[list[torch.Tensor]] = []
        self._heads: list[int] = []
        self.used = 0

    def add(self, states: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> int:
        """Keys and values of new positions, [N, heads, dim] each, by layer; the first's slot."""
        if not self._layers:
            self._layers = [[x.new_empty((0, x[0].numel())) for x in both] for both in states]
            self._heads = [keys.shape[1] for keys, _ in states]
        first, self.used = self.used, self.used + len(states[0][0])
        for held, both in zip(self._layers, states, strict=True):
            for which, new in enumerate(both):
                if self.used > len(held[which]):
                    bigger = held[which].new_empty((2 * self.used, held[which].shape[1]))
                    bigger[:first] = held[which][:first]
                    held[which] = bigger
                held[which][first : self.used].view(new.shape).copy_(new)
        return first

    def gather(self, slot_BL: torch.Tensor) -> list[Path]:
        """Rows whose positions lie in these slots, by layer; the last column is a place for one
        more, whatever its slot."""
        B, L = slot_BL.shape
        flat = slot_BL.reshape(-1)
        return [
            Path(*(x.index_select(0, flat).view(B, L, heads, -1) for x in held))
            for held, heads in zip(self._layers, self._heads, strict=True)
        ]


class CausalTree:
    """Prefixes of a causal model's responses; satisfies ``srlm.policies.base.PrefixTree``.

    A node keeps the slots of its path in an arena of keys and values, so a position is computed
    once however many prefixes go through it. Memory: one position of the cache a node, plus the
    prompts'.
    """

    def __init__(self, policy: CausalLM, prompts: Sequence[Prompt], max_tokens: int) -> None:
        self.ends = policy.ends
        self.max_tokens = max_tokens
        self._policy, self._steps = policy, policy.steps()
        self._encoded = [policy.encode(x) for x in prompts]
        width = max(map(len, self._encoded)) + max_tokens
        self._arena = Arena()
        self._slot_NL = np.zeros((4 * len(prompts), width), dtype=np.int64)
        self._length_N = np.zeros(4 * len(prompts), dtype=np.int64)
        self._nodes = 0

    @torch.inference_mode()
    def roots(self) -> tuple[Ints, torch.Tensor]:
        """Nodes of the empty prefixes, [P], and log pi(first token|x), [P, V]."""
        node_P = self._new(len(self._encoded))
        order: list[Ints] = []
        logp: list[torch.Tensor] = []
        for batch in self._policy.batches(self._encoded, 1):
            encoded = [self._encoded[p] for p in batch]
            L = max(map(len, encoded))
            left_B = torch.tensor([L - len(x) for x in encoded])
            layers = [DynamicLayer() for _ in range(self._policy.layers)]
            cache = Cache(layers=list(layers))
            logits_B1V = self._policy.forward(left_padded(encoded, L), left_B, keep=1, cache=cache)
            logp_BV = F.log_softmax(logits_B1V[:, -1].float(), dim=-1)
            row, column = torch.nonzero(torch.arange(L) >= left_B[:, None], as_tuple=True)
            held = [_states(layer) for layer in layers]
            slot = self._arena.add([(k[row, :, column], v[row, :, column]) for k, v in held])
            length_B = np.array([len(x) for x in encoded])
            before_B = slot + np.cumsum(length_B) - length_B
            own_BL = np.arange(L) < length_B[:, None]
            self._slot_NL[node_P[batch], :L] = np.where(own_BL, before_B[:, None] + np.arange(L), 0)
            self._length_N[node_P[batch]] = length_B
            order.append(batch)
            logp.append(logp_BV)
        back_P = np.argsort(np.concatenate(order))
        return node_P, torch.cat(logp)[torch.from_numpy(back_P).to(self._policy.device)]

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
        column_BL = np.arange(L + 1) - (L - length_B)[:, None]  # the last is the token's place
        slot_BL = self._slot_NL[node_B[:, None], column_BL.clip(min=0)]
        paths = self._arena.gather(torch.from_numpy(slot_BL).to(self._policy.device))
        logits_B1V = self._policy.step(
            torch.from_numpy(token_B)[:, None],
            torch.from_numpy(L - length_B),
            Paths(paths),
            self._steps,
        )
        slot = self._arena.add([(x.keys[:, -1], x.values[:, -1]) for x in paths])
        child_B = self._new(len(node_B))
        self._slot_NL[child_B] = self._slot_NL[node_B]
        self._slot_NL[child_B, length_B] = np.arange(slot, slot + len(node_B))
        self._length_N[child_B] = length_B + 1
        return child_B, F.log_softmax(logits_B1V[:, -1].float(), dim=-1)

    def _new(self, count: int) -> Ints:
        first, self._nodes = self._nodes, self._nodes + count
        if self._nodes > len(self._length_N):
            more = 2 * self._nodes
            self._slot_NL = np.resize(self._slot_NL, (more, self._slot_NL.shape[1]))
            self._length_N = np.resize(self._length_N, more)
        return np.arange(first, self._nodes)


def _states(layer: DynamicLayer) -> tuple[torch.Tensor, torch.Tensor]:
    assert layer.keys is not None and layer.values is not None
    return layer.keys, layer.values
