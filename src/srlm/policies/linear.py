"""Linear layers whose products run on AVX-512 where the processor has it.

torch gives float32 products on the CPU to MKL, which on processors not made by Intel stops at
AVX2. oneDNN, which torch carries as well, does not: on an AMD EPYC (Zen 5) its products run at 2.3
times the rate, with the same sums up to float rounding. Layers keep their class's parameters,
names, hooks and files; where gradients of gradients may be asked for, in other number formats
and for small products they do what they did before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

from srlm.policies.once import ONCE

ROWS = 64
"""oneDNN compiles a program for every new shape, in some .35 ms, and keeps a thousand. Multiples
of this many rows are taken for shapes that come again; decoding keeps to them."""

LEAST = 1 << 20
"""Multiplications under which oneDNN's fixed cost (some 10 microseconds) eats its gain."""

LEAST_NEW = 1 << 25
"""The same for shapes that may come once."""

LEAST_TRAINED = 3 << 23
"""The same with gradients. At 0.1 M parameters no pass has as many, where the gain would be a tenth
of an update at most, and programs would take 20 MB."""

FILL = 128
"""With gradients, rows are filled up with zeros to a multiple of so many: the numbers of positions
in the passes of an update hardly come again, such multiples do. A program takes up to 1 MB."""


def wide() -> bool:
    """Whether oneDNN is there and the processor has AVX-512."""
    return torch.backends.mkldnn.is_available() and (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


def widen(model: nn.Module) -> None:
    """Make a model's plain linear layers (torch's, and GPT-2's) wide ones, in place.

    Layers of other classes, such as quantised ones, stay. Without AVX-512 nothing changes.
    """
    if not wide():
        return
    for layer in model.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = WideLinear
        elif type(layer) is Conv1D:
            layer.__class__ = WideConv1D


def sizes(model: nn.Module) -> list[int]:
    """The distinct sizes of a model's wide layers."""
    found = (m.weight.numel() for m in model.modules() if isinstance(m, WideLinear | WideConv1D))
    return sorted(set(found))


def wide_rows(rows: int, size: int) -> bool:
    """Whether so many rows by a layer of that size take a wide product, without gradients."""
    work = rows * size
    return work >= LEAST and (work >= LEAST_NEW or rows % ROWS == 0)


class _Product(torch.autograd.Function):
    """x W^T + b, and its gradients by the same products, rows filled up (``FILL``)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight_OI: torch.Tensor, bias_O: Any) -> torch.Tensor:
        ctx.save_for_backward(x, weight_OI)
        return _cut(_product(_filled(x), weight_OI, bias_O), x)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        x, weight_OI = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        grad_RO = _filled(grad)
        return (
            _cut(_product(grad_RO, weight_OI.t(), None), grad) if for_x else None,
            _product(grad_RO.t(), _filled(x).t(), None) if for_weight else None,
            grad_RO.sum(0) if for_bias else None,
        )


def _filled(x: torch.Tensor) -> torch.Tensor:
    """All rows, and zeros up to a multiple of ``FILL``, [R, I]."""
    size = x.shape[-1]
    rows = x.numel() // size
    whole = -(-rows // FILL) * FILL
    if rows == whole:
        return x.reshape(rows, size)
    out_RI = x.new_empty((whole, size))
    out_RI[:rows].view(x.shape).copy_(x)
    out_RI[rows:].zero_()
    return out_RI


def _cut(out_RO: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The rows without those filled up, in the shape that they had, [..., O]."""
    rows = like.numel() // like.shape[-1]
    return out_RO[:rows].view(*like.shape[:-1], -1)


def _apply(x: torch.Tensor, weight_OI: torch.Tensor, bias_O: Any) -> torch.Tensor:
    if not torch.is_grad_enabled():
        return _product(x, weight_OI, bias_O)
    out: torch.Tensor = _Product.apply(x, weight_OI, bias_O)
    return out


def _product(x: torch.Tensor, weight_OI: torch.Tensor, bias_O: Any) -> torch.Tensor:
    product = _recordable() if torch.jit.is_tracing() else _called
    out: torch.Tensor = product(x, weight_OI, bias_O)
    return out


def _called(x: torch.Tensor, weight_OI: torch.Tensor, bias_O: Any) -> Any:
    return torch.ops.mkldnn._linear_pointwise.default(x, weight_OI, bias_O, "none", [], "")


@cache
def _recordable() -> Callable[..., Any]:
    """The same where a tracer looks on: it takes no operator with a list of optional numbers, but
    does take a script that calls one."""

    def product(
        x: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None
    ) -> torch.Tensor:
        none: list[int | float | complex | None] = []
        return torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, "none", none, "")

    return torch.jit.script(product)


def _suits(x: torch.Tensor, weight: torch.Tensor, work: int) -> bool:
    rows = x.numel() // x.shape[-1]
    if torch.is_grad_enabled():
        worth = work >= LEAST_TRAINED and ONCE.get()
    else:
        worth = work >= LEAST_NEW or rows % ROWS == 0
    return worth and x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"


class WideLinear(nn.Linear):
    """x W^T + b."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[..., I] -> [..., O]."""
        weight, work = self.weight, input.numel() * self.out_features
        if work >= LEAST and _suits(input, weight, work):
            return _apply(input, weight, self.bias)
        return F.linear(input, weight, self.bias)


class WideConv1D(Conv1D):
    """x W + b."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., I] -> [..., O]."""
        work = x.numel() * self.nf
        if work >= LEAST and _suits(x, self.weight, work):
            return _apply(x, self.weight.t(), self.bias)
        out: torch.Tensor = super().forward(x)
        return out
