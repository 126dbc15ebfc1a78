"""The prefix tree of a causal model's responses, for search.

Keys and values lie in an arena, a tree position a row, each once. A node knows its parent, its
token and its place in the arena, so that its path is found by going up. When the arena is full it
is emptied, and paths that are asked for again are run again as a whole; so are all paths of models
that keep more than keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from srlm.policies.devices import in_halves
from srlm.policies.network import left_padded
from srlm.policies.parts import Parts
from srlm.policies.sampling import log_probs
from srlm.types import Ints, Prompt


class Arena:
    """Keys and values of tree positions, [slots, heads, dim] a layer, doubled when full.

    Args:
        most: slots.
    """

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0
        self._held: list[list[torch.Tensor]] = []

    def add(self, layers: Sequence[DynamicLayer], row: torch.Tensor, column: torch.Tensor) -> int:
        """Keep the positions (row, column) of a cache, N of them; the first's slot."""
        first, self.used = self.used, self.used + len(row)
        new = [[x[row, :, column] for x in both(layer)] for layer in layers]
        if not self._held:
            self._held = [[x.new_empty((0, *x.shape[1:])) for x in layer] for layer in new]
        for held, layer in zip(self._held, new, strict=True):
            for which, x in enumerate(layer):
                if self.used > len(held[which]):
                    size = max(self.used, min(self.most, 2 * self.used))
                    bigger = x.new_empty((size, *x.shape[1:]))
                    bigger[:first] = held[which][:first]
                    held[which] = bigger
                held[which][first : self.used] = x
        return first

    def gather(self, slot_BL: torch.Tensor) -> list[DynamicLayer]:
        """Layers of a cache whose rows hold the positions in these slots."""
        out = []
        for held in self._held:
            layer = DynamicLayer()
            keys, values = (x[slot_BL].transpose(1, 2) for x in held)
            layer.update(keys, values)
            out.append(layer)
        return out


class CausalTree:
    """Prefixes of a causal model's responses; satisfies ``srlm.policies.base.PrefixTree``.

    A position is computed once however many prefixes go through it. Memory: one position of the
    cache a node, plus the prompts', ``devices.Budget.held`` positions at most.
    """

    def __init__(self, policy: Parts, prompts: Sequence[Prompt], max_tokens: int) -> None:
        self.ends = policy.ends
        self.max_tokens = max_tokens
        self._policy, self._network = policy, policy.network
        self._encoded = [policy.encode(x) for x in prompts]
        self._size_P = np.array([len(x) for x in self._encoded])
        self._slot_P = np.full(len(prompts), -1)
        """Slot of each prompt's first position, the others' follow; -1: not kept."""
        self._arena = Arena(policy.budget.held())
        none = np.zeros(0, dtype=np.int64)
        self._parent_N, self._token_N, self._slot_N, self._depth_N, self._prompt_N = [none] * 5
        self._nodes = 0

    @torch.inference_mode()
    def roots(self) -> tuple[Ints, torch.Tensor]:
        """Nodes of the empty prefixes, [P], and log pi(first token|x), [P, V]."""
        P = len(self._encoded)
        everything = np.arange(P)
        node_P = self._new(everything * 0 - 1, everything * 0 - 1, everything * 0, everything)
        return node_P, self._in_parts(node_P, self._whole)

    @torch.inference_mode()
    def extend(self, node_B: Ints, token_B: Ints) -> tuple[Ints, torch.Tensor]:
        """Children of nodes by tokens, [B], and their next log-probabilities, [B, V]."""
        child_B = self._new(node_B, token_B, self._depth_N[node_B] + 1, self._prompt_N[node_B])
        return child_B, self._in_parts(child_B, self._step)

    def _in_parts(self, node_B: Ints, run: Callable[[Ints], torch.Tensor]) -> torch.Tensor:
        """``run`` on as many nodes at once as fit, the longest paths first; [B, V]."""
        size_B = self._size_P[self._prompt_N[node_B]] + self._depth_N[node_B]
        left = np.argsort(-size_B, kind="stable")
        order: list[Ints] = []
        found: list[torch.Tensor] = []

        def some(index: Ints) -> None:
            found.append(run(node_B[index]))
            order.append(index)

        while len(left):
            most = self._policy.budget.rows(int(size_B[left[0]]))
            in_halves(some, left[:most], self._policy.budget)
            left = left[most:]
        back_B = torch.from_numpy(np.argsort(np.concatenate(order)))
        return torch.cat(found)[back_B.to(self._network.device)]

    def _step(self, node_B: Ints) -> torch.Tensor:
        """The last token of each node on what is kept of the path before it, [B, V]."""
        if not self._network.kind.keyed:
            return self._whole(node_B)
        if self._arena.used + len(node_B) > self._arena.most:
            self._forget()
        slot_BL, left_B = self._paths(self._parent_N[node_B])
        kept_B = (slot_BL < 0).sum(1) == left_B
        if not kept_B.all():
            order = np.concatenate([np.flatnonzero(kept_B), np.flatnonzero(~kept_B)])
            parts = [self._step(node_B[kept_B])] if kept_B.any() else []
            found = torch.cat([*parts, self._whole(node_B[~kept_B])])
            return found[torch.from_numpy(np.argsort(order)).to(found.device)]
        B, L = slot_BL.shape
        layers = self._arena.gather(torch.from_numpy(slot_BL.clip(min=0)).to(self._network.device))
        logits_BV = self._network.scores(
            torch.from_numpy(self._token_N[node_B])[:, None],
            torch.from_numpy(left_B) if left_B.any() else None,
            cache=Cache(layers=list(layers)),
            past=L,
        )[:, -1]
        row = torch.arange(B, device=self._network.device)
        self._slot_N[node_B] = self._arena.add(layers, row, row * 0 + L) + np.arange(B)
        return log_probs(logits_BV)

    def _whole(self, node_B: Ints) -> torch.Tensor:
        """The whole path of each node, prompt included, which is kept where it can be; [B, V]."""
        texts = [self._text(int(n)) for n in node_B]
        size_B = np.array([len(x) for x in texts])
        kind = self._network.kind
        if not kind.padded and len(sizes := np.unique(size_B)) > 1:
            rows = [np.flatnonzero(size_B == size) for size in sizes]
            found = torch.cat([self._whole(node_B[b]) for b in rows])
            return found[torch.from_numpy(np.argsort(np.concatenate(rows))).to(found.device)]
        token_BL, left_B = left_padded(texts)
        cache = DynamicCache() if kind.keyed else None
        logits_BV = self._network.scores(token_BL, left_B, cache=cache)[:, -1]
        if cache is not None and size_B.sum() <= self._arena.most:
            if self._arena.used + size_B.sum() > self._arena.most:
                self._forget()
            own_BL = (
                torch.arange(token_BL.shape[1]) >= torch.from_numpy(size_B.max() - size_B)[:, None]
            )
            place = torch.nonzero(own_BL).to(self._network.device)
            first_B = self._arena.add(plain(cache), *place.T) + np.cumsum(size_B) - size_B
            for n, first in zip(node_B, first_B, strict=True):
                self._slot_P[self._prompt_N[n]] = first
                end = first + self._size_P[self._prompt_N[n]] + self._depth_N[n]
                while self._parent_N[n] >= 0:
                    end -= 1
                    self._slot_N[n], n = end, self._parent_N[n]
        return log_probs(logits_BV)

    def _paths(self, node_B: Ints) -> tuple[Ints, Ints]:
        """Slots of the nodes' paths, [B, L], on the right, and how many columns are before them,
        [B]. What is not kept, and what is before, is -1."""
        prompt_B, depth_B = self._prompt_N[node_B], self._depth_N[node_B]
        size_B = self._size_P[prompt_B] + depth_B
        L = int(size_B.max())
        left_B = L - size_B
        place_BL = np.arange(L) - left_B[:, None]
        slot_BL = self._slot_P[prompt_B][:, None] + place_BL
        slot_BL[(place_BL < 0) | (self._slot_P[prompt_B] < 0)[:, None]] = -1
        at_B = node_B.copy()
        for column in range(L - 1, L - 1 - int(depth_B.max()), -1):
            inside = self._parent_N[at_B] >= 0
            slot_BL[inside, column] = self._slot_N[at_B[inside]]
            at_B[inside] = self._parent_N[at_B[inside]]
        return slot_BL, left_B

    def _text(self, node: int) -> list[int]:
        """The prompt's tokens and the node's."""
        tokens: list[int] = []
        n = node
        while self._parent_N[n] >= 0:
            tokens.append(int(self._token_N[n]))
            n = int(self._parent_N[n])
        return [*self._encoded[self._prompt_N[node]], *tokens[::-1]]

    def _forget(self) -> None:
        self._arena.used = 0
        self._slot_P[:] = -1
        self._slot_N[:] = -1

    def _new(self, parent_B: Ints, token_B: Ints, depth_B: Ints, prompt_B: Ints) -> Ints:
        first, self._nodes = self._nodes, self._nodes + len(parent_B)
        if self._nodes > len(self._parent_N):
            for name in ("_parent_N", "_token_N", "_slot_N", "_depth_N", "_prompt_N"):
                setattr(self, name, np.resize(getattr(self, name), 2 * self._nodes))
        made = np.arange(first, self._nodes)
        self._parent_N[made], self._token_N[made] = parent_B, token_B
        self._depth_N[made], self._prompt_N[made] = depth_B, prompt_B
        self._slot_N[made] = -1
        return made


def plain(cache: Cache) -> list[DynamicLayer]:
    """The layers of a cache of keys and values."""
    layers = [x for x in cache.layers if isinstance(x, DynamicLayer)]
    assert len(layers) == len(cache.layers)
    return layers


def both(layer: DynamicLayer) -> tuple[torch.Tensor, torch.Tensor]:
    """Its keys and values, [rows, heads, positions, dim]."""
    assert layer.keys is not None and layer.values is not None
    return layer.keys, layer.values
