"""Keys and values of attention, kept for decoding.

``GrowingLayer`` copies what came before at every fourth token, where Hugging Face's dynamic cache
does at every one, and keeps it close together, as attention reads it fastest.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

SPARE = 3
"""Positions made ahead. Gaps between the rows' keys cost: attention over [1024, 8, 40, 24] takes
5.2 ms where they lie close, 5.8 with two positions of gap, 10.5 with eight."""


class GrowingLayer(DynamicLayer):
    """One layer's keys and values, [most, heads, room, dim], filled from the left and the top.

    When the room is full it is copied into one with ``spare`` positions more than needed.

    Args:
        spare: positions.
        most: rows that may be needed; more are taken if they come.
    """

    def __init__(self, spare: int, most: int = 0) -> None:
        super().__init__()
        self.spare = spare
        self.most = most
        self.rows = self.used = 0
        self.room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append positions; returns views of all of them, [rows, heads, used, dim]."""
        self.rows, new = key_states.shape[0], key_states.shape[2]
        end = self.used + new
        if self.room is None:
            self.dtype, self.device = key_states.dtype, key_states.device
            self.room = (self._larger(key_states, end), self._larger(value_states, end))
            self.is_initialized = True
        elif end > self.room[0].shape[2]:
            larger = tuple(self._larger(r, end) for r in self.room)
            for room, held in zip(larger, self.views(), strict=True):
                room[: self.rows, :, : self.used] = held
            self.room = larger[0], larger[1]
        for room, states in zip(self.room, (key_states, value_states), strict=True):
            room.narrow(0, 0, self.rows).narrow(2, self.used, new).copy_(states)
        self.used = end
        self.keys, self.values = self.views()
        return self.keys, self.values

    def _larger(self, like: torch.Tensor, end: int) -> torch.Tensor:
        B, H, _, D = like.shape
        return like.new_empty((max(B, self.most), H, end + self.spare, D))

    def get_seq_length(self) -> int:
        """Positions held."""
        return self.used

    def move(self, rows: int, to: torch.Tensor, source: torch.Tensor) -> None:
        """Copy rows ``source`` over rows ``to``; then there are ``rows`` rows, ``most`` at most."""
        assert self.room is not None
        for room in self.room if len(to) else ():
            room.index_copy_(0, to, room.index_select(0, source))
        self.rows = rows

    def views(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values held, [rows, heads, used, dim]."""
        assert self.room is not None
        keys, values = (r.narrow(0, 0, self.rows).narrow(2, 0, self.used) for r in self.room)
        return keys, values


class RowCache(Cache):
    """The keys and values of rows that come, move and go while they grow.

    Args:
        layers: of the model.
        most: rows that may be needed; room is made for them once.
    """

    def __init__(self, layers: int, most: int) -> None:
        self._growing = [GrowingLayer(SPARE, most) for _ in range(layers)]
        super().__init__(layers=list(self._growing))

    def move(self, rows: int, to: torch.Tensor, source: torch.Tensor) -> None:
        """Copy rows ``source`` over rows ``to``; then there are ``rows`` rows, ``most`` at most."""
        for layer in self._growing:
            layer.move(rows, to, source)

    def fill(self, other: RowCache, rows: torch.Tensor) -> None:
        """Begin with copies of rows of another."""
        for mine, layer in zip(self._growing, other._growing, strict=True):
            keys, values = layer.views()
            mine.update(keys.index_select(0, rows), values.index_select(0, rows))
