"""Wide linear layers: the same sums, parameters, gradients and files as the plain ones."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from srlm.policies import linear
from srlm.policies.once import differentiated_once
from tests import tiny

BIG = (64, 3, 160)


@pytest.fixture(autouse=True)
def processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch without oneDNN")
    monkeypatch.setattr(linear, "wide", lambda: True)


@pytest.mark.parametrize(
    "plain",
    [nn.Linear(160, 96), nn.Linear(160, 96, False), Conv1D(96, 160)],  # type: ignore[no-untyped-call]
)
def test_the_same_up_to_rounding(plain: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = copy.deepcopy(plain)
    linear.widen(layer)
    assert type(layer) is not type(plain)
    assert isinstance(layer, type(plain))
    assert list(layer.state_dict()) == list(plain.state_dict())
    made: list[torch.Tensor] = []
    product = linear._product

    def counted(x: torch.Tensor, weight_OI: torch.Tensor, bias_O: Any) -> torch.Tensor:
        made.append(product(x, weight_OI, bias_O))
        return made[-1]

    monkeypatch.setattr(linear, "_product", counted)
    generator = torch.Generator().manual_seed(0)
    for shape in (BIG, (4096, 160), (2, 160), (1001, 160)):
        x = torch.randn(shape, generator=generator)
        with torch.inference_mode():
            exact = copy.deepcopy(plain).double()(x.double())
            assert (layer(x) - exact).abs().max() < 1e-5
    assert len(made) == 2, "the small product and the odd one are not worth it"
    with torch.inference_mode():
        assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_gradients_are_the_plain_layers() -> None:
    plain = nn.Linear(160, 96)
    layer = copy.deepcopy(plain)
    linear.widen(layer)
    x = torch.randn(BIG)
    for one in (plain, layer):
        one(x).square().sum().backward()
    assert plain.weight.grad is not None
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad)


@pytest.mark.parametrize(
    "plain",
    [nn.Linear(640, 512), nn.Linear(640, 512, False), Conv1D(512, 640)],  # type: ignore[no-untyped-call]
)
def test_gradients_taken_once(plain: nn.Module) -> None:
    """By the same products, up to rounding; of a gradient none is given."""
    layer = copy.deepcopy(plain)
    linear.widen(layer)
    x = torch.randn((3, 50, 640), generator=torch.Generator().manual_seed(0))
    exact = copy.deepcopy(plain).double()
    for one, at in ((layer, x), (exact, x.double())):
        at.requires_grad_()
        with differentiated_once():
            one(at).square().mean().backward()
    assert x.grad is not None
    for got, expected in zip(layer.parameters(), exact.parameters(), strict=True):
        assert got.grad is not None
        assert expected.grad is not None
        torch.testing.assert_close(got.grad.double(), expected.grad, rtol=1e-4, atol=1e-6)
    with differentiated_once():
        out = layer(x).square().sum()
    (grad,) = torch.autograd.grad(out, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
    out = layer(x).square().sum()
    (grad,) = torch.autograd.grad(out, x, create_graph=True)
    grad.square().sum().backward()


def test_only_plain_layers_are_changed() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(Own(4, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    linear.widen(model)
    assert [type(x) for x in model] == [Own, linear.WideLinear, nn.LayerNorm]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_policies_have_them(family: str) -> None:
    kinds = {type(x) for x in tiny.policy(family).model.modules()}
    assert kinds & {linear.WideLinear, linear.WideConv1D}
    assert not kinds & {nn.Linear, Conv1D}
