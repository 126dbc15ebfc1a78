"""Low-rank adapters through peft: a round trains them alone, and they are merged when it ends.

Merged, because pi_{t+1} is then an ordinary folder that any program loads without peft, without
the base beside it and without the adapter's cost in sampling, and because the policy in memory
is bit for bit the one on disk. The price is a whole model on disk a round, and rounding at the
merge in the number format of the weights: little in float32, not in bfloat16. Each round begins
a fresh adapter, so that T rounds reach a change of rank T * r.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable

import torch

from srlm.errors import UserError


@runtime_checkable
class Adaptable(Protocol):
    """A policy on a Hugging Face model."""

    model: Any


def require_peft() -> None:
    """See that peft is there.

    Raises:
        UserError: it is not.
    """
    if find_spec("peft") is None:
        raise UserError("--lora needs peft, which is not installed", "pip install 'srlm[lora]'")


@contextmanager
def adapted(policy: Adaptable, rank: int, alpha: float | None, seed: int) -> Iterator[None]:
    """Adapters on every linear layer but the output's while inside, merged in place on leaving.

    W becomes W + (alpha / rank) B A, A random by ``seed``, B zero, so that nothing changes until
    a step is made; only A and B are trainable. After an error the adapters stay: the policy is
    of no use then.

    Args:
        policy: changed in place.
        rank: r, rows of A.
        alpha: scale; 2 r if left out.
        seed: of A.

    Raises:
        UserError: peft is not installed.
    """
    require_peft()
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    model = policy.model
    trainable = [p for p in model.parameters() if p.requires_grad]
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,  # type: ignore[arg-type]
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in model.modules()),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        wrapped = get_peft_model(model, config)
    model.eval()
    yield
    wrapped.merge_and_unload()  # the layers of the same model
    for parameter in trainable:
        parameter.requires_grad_(True)
