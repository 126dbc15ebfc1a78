"""Whether a model can be worked with: found out when it is loaded, on headers and two tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from srlm.errors import UserError, first_line
from srlm.policies import devices, scoring
from srlm.policies.hf import CausalLM
from srlm.policies.network import REFUSALS


def other_shapes(shapes: Mapping[str, list[int]], blank: Any) -> list[str]:
    """Weights whose shape in the safetensors' headers is not that of the configuration.

    Args:
        shapes: of ``headers.read_shapes``.
        blank: the model that the configuration describes, on the meta device.
    """
    expected = {name: list(x.shape) for name, x in blank.state_dict().items()}
    return [
        name for name in sorted(shapes.keys() & expected.keys()) if shapes[name] != expected[name]
    ]


def check_room(blank: Any, dtype: torch.dtype, device: torch.device) -> None:
    """See that the weights alone fit on the device.

    Raises:
        UserError: they do not.
    """
    need = sum(p.numel() for p in blank.parameters()) * dtype.itemsize
    have = devices.memory(device)
    if need > have:
        raise UserError(
            f"the weights take {need / 1e9:.1f} GB in {str(dtype)[6:]}, and {device} has "
            f"{have / 1e9:.1f} GB",
            "use --dtype bfloat16, a larger device, or a smaller model",
        )


def check_ready(policy: CausalLM, *, trained: bool) -> None:
    """See that texts can be encoded and decoded, and a response of two tokens sampled and scored;
    with ``trained`` also that a gradient reaches the first layers, and that the folder that a round
    writes can be written (without the weights). Some passes over a few tokens.

    Raises:
        UserError: one of these fails; it is named, with the remedy.
    """
    for what, remedy, run in _steps(policy, trained):
        try:
            run()
        except (*REFUSALS, OSError) as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise UserError(f"this model cannot be {what}: {reason}", remedy) from None


def _steps(policy: CausalLM, trained: bool) -> Iterator[tuple[str, str, Any]]:
    network, tokenizer = policy.network, policy.tokenizer
    two = [token % network.vocabulary for token in (1, 2)]

    def read() -> torch.Tensor:
        _, logp_N = scoring.read(
            network, [two], np.zeros(1, dtype=np.int64), [tuple(two)], scoring.token_log_prob
        )
        return logp_N

    def score() -> None:
        assert network.kind is not None
        with torch.no_grad():
            logp_N = read()
        if not torch.isfinite(logp_N).all():
            raise not_numbers(network.model)

    def look_back() -> None:
        """The scores after the first token are the same whatever the second is."""
        token_BL = torch.tensor([[two[0], two[0]], two], device=network.device)
        with torch.no_grad():
            first_BV = network.scores(token_BL, keep=torch.tensor([0]))[:, 0].float()
        rounding = 64 * torch.finfo(next(network.model.parameters()).dtype).eps
        if (first_BV[0] - first_BV[1]).abs().max() > rounding * first_BV.abs().max():
            raise ValueError("its scores depend on tokens that come later")

    def train() -> None:
        first = next(p for p in policy.parameters() if p.dim() == 1 or p.numel() < 1 << 16)
        torch.autograd.grad(read().sum(), first, allow_unused=True)

    def save() -> None:
        with TemporaryDirectory() as folder:
            network.model.config.save_pretrained(folder)
            if network.model.can_generate():
                network.model.generation_config.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

    other = "use another model, or another version of transformers"
    yield "given texts", "save its own tokenizer into its folder", lambda: tokenizer("a 1")
    yield "read back", "save its own tokenizer into its folder", lambda: tokenizer.decode(two)
    yield "scored", other, score
    yield "taken for a causal model", "give a causal model, not an encoder", look_back
    if trained:
        yield "trained", f"{other}; srlm measure and srlm forecast need no training", train
        yield "saved", "correct its generation_config.json or config.json", save


def not_numbers(model: Any) -> UserError:
    """Scores that are not numbers: which weights are not."""
    bad = [name for name, x in model.named_parameters() if not torch.isfinite(x).all()]
    what = f": {', '.join(bad[:3])} are not a number or infinite" if bad else ""
    return UserError(
        f"the model's scores are not numbers{what}",
        "give weights that are numbers" if bad else "use --dtype float32",
    )
