"""Single positions of a small model, recorded once and replayed without Python.

A model of 0.1 M parameters spends much of a decoding step in the Python of its layers: .3 of .7 ms
with 64 rows. Here the operations that the Hugging Face model itself does in such a step are written
down by ``torch.jit.trace``, with parameters, tokens, positions, mask, keys and values as inputs,
and replayed by torch's interpreter. They are the same operations on the same numbers, so the scores
are the same bit for bit; which way a step went changes no draw.

A model is free to branch on sizes, and a recording would keep the branch that it was made on. So it
is tried before it is used, at the least and the greatest number of rows and at the least and the
greatest length that it may be used for: a branch on whether one of them has passed some bound, such
as a sliding window's length, is met at one end.
Where the scores differ by a bit, layers keep something of what they were run on, or nothing can be
recorded, the model is called as ever from then on. Source: own construction.

Left out: GPUs (not measured); mixtures of experts and rotations that follow the length, which
branch on what tokens say and on what was seen before; steps so large that the products take the
time anyhow.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer

from srlm.policies import linear
from srlm.policies.cache import StepCache, Views

AFTER = 32
"""Steps of a kind before it is recorded, which takes .05 s at 0.1 M parameters: what some hundred
steps gain."""
MOST = 1 << 28
"""Rows times parameters of a step that may be recorded; at this size the gain is a twentieth."""

LEAST = 2
"""Positions of the shortest step: a prompt has one, and the step adds one."""

Tensors = Sequence[torch.Tensor]


@dataclass(frozen=True, slots=True)
class _Span:
    """Steps of some sizes; the empty span to begin with."""

    least: int = 1 << 62
    """Rows."""
    most: int = 0
    """Rows."""
    longest: int = 0
    """Positions, the new one included."""

    def and_(self, rows: int, length: int) -> _Span:
        """The least span that has that size too."""
        return _Span(min(self.least, rows), max(self.most, rows), max(self.longest, length))

    def within(self, other: _Span) -> bool:
        """Whether the other has all sizes that this one has."""
        return (
            other.least <= self.least and self.most <= other.most and self.longest <= other.longest
        )


@dataclass(slots=True)
class _Kind:
    """Steps that run the same operations."""

    seen: int = 0
    span: _Span = _Span()
    """Sizes that came."""
    made: _Made | None = None
    replay: Callable[..., torch.Tensor] | None = None
    tried: _Span = _Span()
    """Sizes for which the recording was tried."""


@dataclass(slots=True)
class _Known:
    """What was recorded of models that are built alike."""

    kinds: dict[Any, _Kind] = field(default_factory=dict)
    hopeless: bool = False
    """Whether a recording failed, or such models branch: then nothing is replayed any more."""


_KNOWN: dict[Any, _Known] = {}
"""By how a model is built: what was recorded of one is replayed with a copy's parameters."""


class Steps:
    """The next-token scores of a model, one position a row, [B, 1, V].

    Args:
        model: a Hugging Face causal model in evaluation mode.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modules = list(model.modules())
        self._held = [
            (held, name)
            for module in self._modules
            for held in (module._parameters, module._buffers)
            for name, tensor in held.items()
            if tensor is not None
        ]
        self._formats = [tensor.dtype for tensor in self._tensors()]
        self._positions = _positions(model)
        self._numbers = sum(p.numel() for p in model.parameters())
        self._sizes = linear.sizes(model)
        fresh = _Known(hopeless=_branches(model))
        self._known = _KNOWN.setdefault(_built(model, self._held), fresh)

    def of(self, model: nn.Module) -> bool:
        """Whether these are of that model, its layers and number formats being what they were."""
        return (
            model is self._model
            and list(model.modules()) == self._modules
            and [tensor.dtype for tensor in self._tensors()] == self._formats
        )

    def __call__(
        self,
        token_B1: torch.Tensor,
        position_B1: torch.Tensor,
        mask_BL: torch.Tensor | None,
        cache: StepCache,
    ) -> torch.Tensor | None:
        """Scores, with the new position's keys and values written to the cache; None where the
        model is to be called itself."""
        rows = token_B1.shape[0]
        if (
            self._known.hopeless
            or rows * self._numbers > MOST
            or token_B1.device.type != "cpu"
            or not torch.is_inference_mode_enabled()
        ):
            return None
        kind = self._known.kinds.setdefault((mask_BL is not None, self._wide(rows)), _Kind())
        kind.seen += 1
        size = _Span(rows, rows, cache.get_seq_length() + 1)
        kind.span = kind.span.and_(rows, size.longest)
        inputs = [token_B1, position_B1] if mask_BL is None else [token_B1, position_B1, mask_BL]
        if kind.made is None:
            kind.made = _Made(inputs, cache.views())
        if kind.replay is None or not size.within(kind.tried):
            return None
        views = [view for layer in cache.opened(rows) for view in layer]
        return kind.replay(*self._tensors(), *inputs, *views)

    @torch.inference_mode()
    def record(self) -> None:
        """Record the kinds that were seen often enough, and try recordings at greater lengths.

        Between draws, not among them: what a recording keeps would lie in memory above their keys
        and values and hold it (20 MB of 95 at 0.1 M parameters).
        """
        for kind in self._known.kinds.values():
            if kind.seen > AFTER and not kind.span.within(kind.tried) and not self._known.hopeless:
                self._ready(kind)

    def _wide(self, rows: int) -> tuple[bool, ...]:
        """Which sizes of linear layers take wide products: then other operations are run."""
        return tuple(linear.wide_rows(rows, size) for size in self._sizes)

    def _tensors(self) -> list[torch.Tensor]:
        return [held[name] for held, name in self._held]  # type: ignore[misc]

    # ---- recording

    def _ready(self, kind: _Kind) -> None:
        """Record, and try the recording at the least and greatest sizes: of rows those that came,
        of positions ``LEAST`` and the next power of two, or what the model has positions for."""
        assert kind.made is not None
        least, most, longest = kind.span.least, kind.span.most, kind.span.longest
        upto = max(longest, min(1 << (longest - 1).bit_length(), self._positions))
        before = self._remembered()
        try:
            replay = kind.replay or self._recorded(kind.made.args(least, longest))
            for tried in (kind.made.args(least, upto), kind.made.args(most, LEAST)):
                args = [*self._tensors(), *tried]
                if not torch.equal(self._run(*args), replay(*args)):
                    raise ValueError("the recording's scores differ")
            kind.replay = replay
        except Exception:  # whatever a model's code does under a tracer
            self._known.hopeless = True
        self._known.hopeless |= self._forget(before)
        kind.tried = _Span(least, most, upto)

    def _remembered(self) -> list[dict[str, Any]]:
        """What the layers keep, by name."""
        return [dict(vars(module)) for module in self._modules]

    def _forget(self, before: list[dict[str, Any]]) -> bool:
        """Make the layers keep what they kept before; whether that was something else."""
        changed = False
        for module, known in zip(self._modules, before, strict=True):
            now = vars(module)
            if now.keys() != known.keys() or any(not _alike(now[k], known[k]) for k in known):
                changed = True
                now.clear()
                now.update(known)
        return changed

    def _recorded(self, inputs: Tensors) -> Callable[..., torch.Tensor]:
        """The operations of ``_run``. A parameter that wants a gradient cannot be an input."""
        args = tuple(x.detach() for x in (*self._tensors(), *inputs))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of branches, which are tried; of torch's plans
            found: Callable[..., torch.Tensor] = torch.jit.trace(self._run, args, check_trace=False)
        return found

    def _run(self, *args: torch.Tensor) -> torch.Tensor:
        """The model on inputs: its parameters and buffers, then what ``_Made.args`` gives."""
        own, rest = args[: len(self._held)], args[len(self._held) :]
        first = len(rest) % 4  # token and position, and the mask where there is one
        views = [rest[i : i + 4] for i in range(first, len(rest), 4)]
        extra = {"attention_mask": rest[2]} if first == 3 else {}
        with self._with(own):
            out = self._model(
                input_ids=rest[0],
                position_ids=rest[1],
                past_key_values=Cache(layers=[_Opened(*v) for v in views]),
                use_cache=True,
                logits_to_keep=1,
                **extra,
            )
        logits: torch.Tensor = out.logits
        return logits

    @contextmanager
    def _with(self, tensors: Tensors) -> Iterator[None]:
        """The model's parameters and buffers replaced by others."""
        own = self._tensors()
        try:
            self._put(tensors)
            yield
        finally:
            self._put(own)

    def _put(self, tensors: Tensors) -> None:
        for (held, name), tensor in zip(self._held, tensors, strict=True):
            held[name] = tensor  # type: ignore[assignment]


def _built(model: nn.Module, held: Sequence[tuple[dict[str, Any], str]]) -> tuple[Any, ...]:
    """What decides which operations a model runs: its settings, layers and sizes of tensors.

    Of hooks nothing is known, so a model that has some is like no other.
    """
    config: Any = model.config
    settings = {k: v for k, v in config.to_dict().items() if k != "_name_or_path"}
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    return (
        repr(settings),
        config._attn_implementation,
        tuple(type(module) for module in model.modules()),
        tuple((name, tensors[name].shape, tensors[name].dtype) for tensors, name in held),
        object() if hooked else None,
    )


def _positions(model: nn.Module) -> int:
    """How many the configuration names; models that learnt an embedding of each have no more."""
    config: Any = model.config
    named = getattr(config.get_text_config(), "max_position_embeddings", None)
    return named if isinstance(named, int) else 1 << 62


def _branches(model: nn.Module) -> bool:
    """Whether the model is known to run other operations for other tokens, as one that chooses
    experts, or for what it saw before, as one whose rotations follow the length."""
    return any(
        "expert" in type(module).__name__.lower()
        or any(kind in str(getattr(module, "rope_type", "")) for kind in ("dynamic", "longrope"))
        for module in model.modules()
    )


def _alike(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, int | float | str) and one == other)


class _Opened(DynamicLayer):
    """One layer's keys and values with the place of the new position among them."""

    def __init__(self, *views: torch.Tensor) -> None:
        super().__init__()
        self._key, self._value, self.keys, self.values = views
        self.dtype, self.device = self._key.dtype, self._key.device
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Fill the place; all keys and values."""
        self._key.copy_(key_states)
        self._value.copy_(value_states)
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Positions before the new one."""
        assert self.keys is not None
        return self.keys.shape[2] - 1


class _Made:
    """Inputs like given ones, of any size, made of random numbers; global states are left alone."""

    def __init__(self, inputs: Tensors, views: Sequence[Views]) -> None:
        self._masked = len(inputs) == 3
        self._vocabulary = int(inputs[0].max()) + 1
        self._layers = [[(x.shape[1], x.shape[3], x.dtype) for x in both] for both in views]

    def args(self, rows: int, length: int) -> list[torch.Tensor]:
        """Tokens, positions, mask if there is one, and every layer's views."""
        chance = torch.Generator().manual_seed(0)
        token_B1 = torch.randint(self._vocabulary, (rows, 1), generator=chance)
        out = [token_B1, torch.full((1, 1), length - 1)]
        if self._masked:
            left_B = torch.randint(length, (rows,), generator=chance)
            left_B[0] = 0  # its positions are the greatest that there can be
            left_B[-1] = min(1, length - 1)
            out[1] = (length - 1 - left_B)[:, None]
            out.append((torch.arange(length) >= left_B[:, None]).long())
        for both in self._layers:
            keys, values = (
                torch.randn((min(rows, 8), heads, length, dim), generator=chance)
                .to(dtype)
                .repeat(-(-rows // 8), 1, 1, 1)[:rows]
                for heads, dim, dtype in both
            )
            out += [keys[:, :, -1:], values[:, :, -1:], keys, values]
        return out
