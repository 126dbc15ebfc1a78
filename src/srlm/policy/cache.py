"""Keys and values of attention, kept for decoding and for search.

``GrowingCache`` writes each new position into buffers made once, where Hugging Face's dynamic
cache copies everything that came before at every token. ``Arena`` keeps the positions of a whole
prefix tree, each once, and gathers the path of any node.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer


class GrowingLayer(DynamicLayer):
    """One layer's keys and values, [B, heads, capacity, dim], filled from the left."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.used = 0
        self.room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append positions; returns views of all of them, [B, heads, used, dim]."""
        if self.room is None:
            self.dtype, self.device = key_states.dtype, key_states.device
            B, H, _, D = key_states.shape
            shape_v = (B, H, self.capacity, value_states.shape[-1])
            self.room = (
                key_states.new_empty((B, H, self.capacity, D)),
                value_states.new_empty(shape_v),
            )
            self.is_initialized = True
        end = self.used + key_states.shape[-2]
        for room, new in zip(self.room, (key_states, value_states), strict=True):
            room[:, :, self.used : end] = new
        self.used = end
        return self._views()

    def get_seq_length(self) -> int:
        """Positions held."""
        return self.used

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row ``repeats`` times."""
        assert self.room is not None
        self.room = tuple(r.repeat_interleave(repeats, dim=0) for r in self.room)  # type: ignore[assignment]
        self._views()

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Only these rows; positions not yet filled are not copied."""
        assert self.room is not None
        kept = []
        for room in self.room:
            smaller = room.new_empty((len(indices), *room.shape[1:]))
            smaller[:, :, : self.used] = room[indices, :, : self.used]
            kept.append(smaller)
        self.room = (kept[0], kept[1])
        self._views()

    def _views(self) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.room is not None
        keys, values = (r[:, :, : self.used] for r in self.room)
        self.keys, self.values = keys, values
        return keys, values


def growing_cache(layers: int, capacity: int) -> Cache:
    """A cache for ``capacity`` positions, for decoding with a Hugging Face model."""
    return Cache(layers=[GrowingLayer(capacity) for _ in range(layers)])


class Arena:
    """Keys and values of tree positions, [slots, heads, dim] a layer, doubled when full."""

    def __init__(self, layers: int) -> None:
        self._layers: list[list[torch.Tensor]] = [[] for _ in range(layers)]
        self.used = 0

    def add(self, cache: Cache, rows: torch.Tensor, columns: torch.Tensor) -> int:
        """Copy positions ``(rows[i], columns[i])`` of a cache into new slots; the first's number.

        Columns may be negative, from the end.
        """
        first, self.used = self.used, self.used + len(rows)
        for held, layer in zip(self._layers, cache.layers, strict=True):
            assert isinstance(layer, GrowingLayer)
            for which, states in enumerate(layer._views()):
                new = states[rows, :, columns]
                if first == 0:
                    held.append(new.clone())
                    continue
                if self.used > len(held[which]):
                    bigger = new.new_empty((2 * self.used, *new.shape[1:]))
                    bigger[:first] = held[which][:first]
                    held[which] = bigger
                held[which][first : self.used] = new
        return first

    def gather(self, slot_BL: torch.Tensor) -> Cache:
        """The cache of rows whose positions lie in these slots, with room for one more."""
        cache = growing_cache(len(self._layers), slot_BL.shape[1] + 1)
        for i, (keys, values) in enumerate(self._layers):
            cache.update(keys[slot_BL].transpose(1, 2), values[slot_BL].transpose(1, 2), i)
        return cache
