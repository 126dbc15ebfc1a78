"""How much an update runs at once: groups of like size, in passes that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from srlm.policies.base import Differentiable
from srlm.types import Ints

FIRST = 128
"""Tokens of the first pass, on which the memory of a token is measured."""
MOST = 2048
"""Tokens of a pass on the CPU."""
LEAST_BYTES = 3 << 25
"""Activations of a pass that are always allowed: at 3 M parameters some 600 tokens, where an update
is nearly twice as fast as with 150."""
OF_FREE = 1 / 4
"""Share of a GPU's free memory that they may take."""


class Room:
    """Parts groups into passes of some number of tokens at most.

    What a token takes is measured on the first pass: the tensors that autograd keeps for the
    gradient. On the CPU they may take as much as the parameters do, or ``LEAST_BYTES`` if that is
    more, and ``MOST`` tokens; on a GPU, a share of what is free.

    Args:
        tokens: of a pass; None: as many as fit.
        policy: what is trained.
    """

    def __init__(self, tokens: int | None, policy: Differentiable) -> None:
        self._own = {p.untyped_storage().data_ptr() for p in policy.parameters()}
        self._size = sum(p.nbytes for p in policy.parameters())
        self._device = next(iter(policy.parameters())).device
        self._known = tokens is not None
        self.tokens = FIRST if tokens is None else tokens

    def parted(self, size_G: Ints, chosen: Ints) -> Iterator[Ints]:
        """The chosen groups in as few passes as hold them, about equally large, groups of like size
        together, so that little is padded; one group at least each. Larger ones come first: the
        memory that their pass gives back is room for the next one's, where the other way around
        holes were left (5 MB of 100 at 0.1 M parameters)."""
        left = chosen[np.argsort(-size_G[chosen], kind="stable")]
        while len(left):
            upto = np.cumsum(size_G[left])
            share = upto[-1] / -(-upto[-1] // self.tokens)
            count = max(1, int(np.searchsorted(upto, share, side="right")))
            yield left[:count]
            left = left[count:]

    @contextmanager
    def weighed(self, tokens: int) -> Iterator[None]:
        """Measure what the pass inside keeps for its gradient, the first time.

        Args:
            tokens: of the pass.
        """
        if self._known:
            yield
            return
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            yield
        self._known = True
        self.tokens = self._fitting(max(1, sum(kept.values()) // tokens))

    def _fitting(self, bytes_each: int) -> int:
        if self._device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self._device)
            return max(FIRST, int(free * OF_FREE) // bytes_each)
        return max(1, min(MOST, max(LEAST_BYTES, self._size) // bytes_each))
