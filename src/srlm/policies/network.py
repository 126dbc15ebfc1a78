"""A Hugging Face causal model as rows of tokens: next-token scores, hidden states, cache and head.

Models differ in what they keep between tokens (keys and values, states of a recurrence, nothing
that can be handed over), in whether rows may be padded, and in what follows the output layer
(scaling, soft capping). Configurations do not say so reliably, so that two short rows are run once
and what does not reproduce the plain forward pass is not used: a model without a usable cache is
run over the whole prefix at every token, which is slow and right.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.modeling_layers import GradientCheckpointingLayer

from srlm.errors import UserError
from srlm.types import Ints

Head = Callable[[torch.Tensor], torch.Tensor]
"""Hidden states [N, H] -> the vocabulary's scores [N, V]."""
Read = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Scores [N, V] and the tokens that come next [N] -> what is wanted of each position, [N, ...]."""

CHUNK = {"cpu": 1 << 24}
"""Scores of the vocabulary that exist at once while given responses are read: 64 MB in float32 on
the CPU, 512 MB elsewhere."""
REFUSALS = (
    TypeError, ValueError, AttributeError, RuntimeError, AssertionError, KeyError, IndexError,
    NotImplementedError,
)  # fmt: skip
"""What models raise that cannot be run as they were asked to."""

HEADS: dict[str, Callable[[float], Callable[[torch.Tensor], torch.Tensor]]] = {
    "final_logit_softcapping": lambda cap: lambda z: cap * torch.tanh(z / cap),
    "logits_soft_cap": lambda cap: lambda z: cap * torch.tanh(z / cap),
    "logits_scaling": lambda scale: lambda z: z / scale,
    "logit_scale": lambda scale: lambda z: z * scale,
    "lm_head_multiplier": lambda scale: lambda z: z * scale,
}
"""What may follow the output layer, by the name of its setting in a configuration."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a model was seen to be able to do."""

    head: Head | None
    """From the decoder's hidden states to scores; None: only the model's own pass gives them."""
    cached: bool
    """Rows can continue from what was kept, and be chosen among."""
    keyed: bool
    """All that is kept is keys and values, position by position."""
    padded: bool
    """Rows of unequal length can be padded on the left."""


class Network:
    """The model and what was found out about it.

    Args:
        model: a causal model of transformers, in evaluation mode.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        taken = inspect.signature(model.forward).parameters
        self._cache_name = next((x for x in ("past_key_values", "cache_params") if x in taken), "")
        self.once = False
        """Given responses are read by one call of the layers, however unlike they are: processes
        that share the layers must call them equally often."""
        self._keeps = "logits_to_keep" in taken
        self._positions = "position_ids" in taken

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def vocabulary(self) -> int:
        """Rows of the output layer."""
        return int(self.model.config.get_text_config().vocab_size)

    def scores(
        self,
        token_BL: torch.Tensor,
        left_B: torch.Tensor | None = None,
        *,
        keep: int | torch.Tensor = 1,
        cache: Cache | None = None,
        past: int = 0,
    ) -> torch.Tensor:
        """Scores [B, keep, V] of the last ``keep`` positions, or of the positions in ``keep``.

        Args:
            token_BL: tokens, padding included.
            left_B: how many of each row's first positions are padding, cache included.
            cache: what was kept of the positions before; grows.
            past: how many those are.
        """
        more = self._inputs(token_BL, left_B, cache, past)
        if self._keeps:
            logits: torch.Tensor = self.model(**more, logits_to_keep=keep).logits
            return logits
        logits = self.model(**more).logits
        return logits[:, -keep:] if isinstance(keep, int) else logits[:, keep]

    def states(
        self,
        token_BL: torch.Tensor,
        left_B: torch.Tensor | None = None,
        *,
        cache: Cache | None = None,
        past: int = 0,
    ) -> torch.Tensor:
        """The decoder's last hidden states, [B, L, H]; arguments as ``scores``."""
        out = self.model.get_decoder()(**self._inputs(token_BL, left_B, cache, past))
        states: torch.Tensor = out.last_hidden_state
        return states

    def read(self, state_NH: torch.Tensor, target_N: torch.Tensor, read: Read) -> torch.Tensor:
        """``read`` of the scores after each of N hidden states, [N, ...].

        Never more than ``CHUNK`` scores exist at once: with a gradient they are computed again in
        the backward pass, at the cost of one more product with the output layer.
        """
        head = self.kind.head
        assert head is not None
        size = max(1, self.chunk // self.vocabulary)
        parts = list(zip(state_NH.split(size), target_N.split(size), strict=True))
        if len(parts) == 1 or not torch.is_grad_enabled():
            return torch.cat([read(head(state), target) for state, target in parts])

        def again(state: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return read(head(state), target)

        return torch.cat([recomputed(again, *part) for part in parts])

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Inside, layers are computed again in the backward pass (gradient checkpointing).

        transformers does so in training mode only. The layers alone are put into it, not the
        dropout within them, so that probabilities stay those of one policy; checked on two rows.

        Raises:
            UserError: the model does not support it, or has dropout in the layers themselves.
        """
        token_BL = torch.arange(1, 7).view(2, 3) % self.vocabulary
        with torch.no_grad():
            expected = self.scores(token_BL, keep=3)
        layers = [x for x in self.model.modules() if isinstance(x, GradientCheckpointingLayer)]
        refused = UserError(
            "a response with its prompt does not fit in memory with its gradient, and the model "
            "cannot compute its layers again",
            "lower --max-tokens, or use --lora or --dtype bfloat16",
        )
        if not layers:
            raise refused
        self.model.gradient_checkpointing_enable({"use_reentrant": False})
        for layer in layers:
            layer.training = True
        try:
            if not _same(lambda: self.scores(token_BL, keep=3).detach(), expected):
                raise refused
            yield
        finally:
            self.model.gradient_checkpointing_disable()
            for layer in layers:
                layer.training = False

    @property
    def recomputes(self) -> bool:
        """Layers are computed again in the backward pass (gradient checkpointing)."""
        return bool(self.model.is_gradient_checkpointing)

    @property
    def shares(self) -> bool:
        """Rows of given responses may share what is kept of their prompt (``scoring.read``)."""
        kind = self.kind
        return kind.head is not None and kind.keyed and not (self.once or self.recomputes)

    @property
    def chunk(self) -> int:
        """Scores of the vocabulary at once."""
        return CHUNK.get(self.device.type, 1 << 27)

    def new_cache(self) -> Cache:
        """An empty cache of the model's own kind."""
        return DynamicCache(config=self.model.config)

    def _inputs(
        self, token_BL: torch.Tensor, left_B: torch.Tensor | None, cache: Cache | None, past: int
    ) -> dict[str, Any]:
        more: dict[str, Any] = {"input_ids": token_BL.to(self.device)}
        if self._cache_name:
            more["use_cache"] = cache is not None
        if cache is not None:
            more[self._cache_name] = cache
        if left_B is not None:
            left_B1 = left_B.to(self.device)[:, None]
            place_L = torch.arange(past + token_BL.shape[1], device=self.device)
            more["attention_mask"] = (place_L >= left_B1).long()
            if self._positions:
                more["position_ids"] = (place_L[past:] - left_B1).clamp_(min=0)
        return more

    # ---- what the model can do

    @cached_property
    def kind(self) -> Kind:
        """What reproduces the plain pass on two rows of nine tokens."""
        token_BL = torch.arange(1, 19).view(2, 9) % self.vocabulary
        with torch.no_grad():
            whole_BLV = self.scores(token_BL, keep=9)
            head = self._head(token_BL, whole_BLV)
            cached = bool(self._cache_name) and _same(
                lambda: self._stepped(token_BL), whole_BLV[:, 8:]
            )
            uneven = torch.stack([whole_BLV[0, 6:7], whole_BLV[1, 3:4]])
            padded = cached and _same(lambda: self._left_padded(token_BL), uneven)
        plain = (DynamicLayer, DynamicSlidingWindowLayer)
        keyed = padded and all(type(x) in plain for x in self.new_cache().layers)
        return Kind(head, cached, keyed, padded)

    def _head(self, token_BL: torch.Tensor, whole_BLV: torch.Tensor) -> Head | None:
        config = self.model.config.get_text_config()
        after = [make(v) for name, make in HEADS.items() if (v := getattr(config, name, None))]

        def headed(then: Callable[[torch.Tensor], torch.Tensor]) -> Head:
            return lambda state_NH: then(self.model.get_output_embeddings()(state_NH))

        heads = [headed(then) for then in [lambda z: z, *after]]
        fits = (x for x in heads if _same(lambda: x(self.states(token_BL)), whole_BLV))  # noqa: B023
        return next(fits, None)

    def _stepped(self, token_BL: torch.Tensor) -> torch.Tensor:
        """The last scores by way of the cache, whose rows change places before it is used."""
        cache = self.new_cache()
        self.scores(token_BL[:, :6], cache=cache)
        choose(cache, torch.tensor([1, 0], device=self.device))
        for past in (6, 7, 8):
            out = self.scores(token_BL[[1, 0], past : past + 1], cache=cache, past=past)
        return out[[1, 0]]

    def _left_padded(self, token_BL: torch.Tensor) -> torch.Tensor:
        """Scores after seven tokens of the first row, and after four of the second."""
        (one, other), left_B = token_BL.tolist(), torch.tensor([1, 4])
        both = torch.tensor([[0, *one[:7]], [0, 0, 0, 0, *other[:4]]])
        cache = self.new_cache()
        self.scores(both[:, :6], left_B, cache=cache)
        for past in (6, 7):
            out = self.scores(both[:, past : past + 1], left_B, cache=cache, past=past)
        return out


def _same(run: Callable[[], torch.Tensor], expected: torch.Tensor) -> bool:
    """Whether another way gives these scores, up to rounding in the model's numbers."""
    try:
        other = run()
    except REFUSALS:
        return False
    if other.shape != expected.shape:
        return False
    close = torch.finfo(other.dtype).eps ** 0.5 * float(expected.nan_to_num().abs().max())
    return torch.allclose(other, expected, rtol=0, atol=close, equal_nan=True)


def recomputed(run: Callable[..., torch.Tensor], *inputs: Any) -> torch.Tensor:
    """``run`` of the inputs, computed again in the backward pass instead of being kept."""
    out = checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)
    assert isinstance(out, torch.Tensor)
    return out


class Rows:
    """A batch of prefixes that grow token by token.

    Args:
        network: the model.
        encoded: prompts, a row each; of one length where rows cannot be padded.
    """

    def __init__(self, network: Network, encoded: Sequence[Sequence[int]]) -> None:
        self._network = network
        self._token_BL, self._left_B = left_padded(encoded)
        self._past = self._token_BL.shape[1]
        self._cache = network.new_cache() if network.kind.cached else None
        self.scores_BV = network.scores(self._token_BL, self._left_B, cache=self._cache)[:, -1]
        """Scores of the next tokens."""

    def next(self, parent_C: Ints, token_C: Ints) -> None:
        """Prefixes of one token more in place of these.

        Args:
            parent_C: their rows now; a row may come several times, or not at all.
            token_C: their new tokens.
        """
        B = len(self._token_BL)
        if len(parent_C) != B or (parent_C != np.arange(B)).any():
            index = torch.from_numpy(parent_C)
            self._token_BL = self._token_BL[index]
            if self._left_B is not None:
                self._left_B = self._left_B[index]
            if self._cache is not None:
                choose(self._cache, index.to(self._network.device))
        token_C1 = torch.from_numpy(token_C)[:, None]
        if self._cache is None:
            token_C1 = self._token_BL = torch.cat([self._token_BL, token_C1], dim=1)
        past = self._past if self._cache is not None else 0
        out = self._network.scores(token_C1, self._left_B, cache=self._cache, past=past)
        self.scores_BV, self._past = out[:, -1], self._past + 1


def choose(cache: Cache, row_C: torch.Tensor) -> None:
    """Rows of a cache, in this order, in place of those that are there."""
    cache.reorder_cache(cast(torch.LongTensor, row_C))


def left_padded(encoded: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rows of one length [B, L], their tokens on the right, and how many stand before them, [B];
    None where none does."""
    L = max(map(len, encoded))
    token_BL = torch.tensor([[0] * (L - len(x)) + list(x) for x in encoded])
    left_B = torch.tensor([L - len(x) for x in encoded])
    return token_BL, left_B if bool(left_B.any()) else None
