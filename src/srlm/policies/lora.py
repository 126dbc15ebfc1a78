"""Low-rank adapters through peft: a round trains them alone, and they are merged when it ends.

Merged in memory, so that sampling costs nothing extra; a run keeps the adapters alone, each on the
policy before (``Adapters``), and merging them again in that order gives the same bits. Each round
begins a fresh adapter, so that T rounds reach a change of rank T * r. Merging rounds in the number
format of the weights: little in float32, not in bfloat16.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import save_file

from srlm.errors import UserError


@dataclass(frozen=True, slots=True)
class Adapters:
    """The adapters that an update trained, before they were merged."""

    config: Any
    """peft's."""
    state: dict[str, torch.Tensor]

    def save(self, folder: Path, base: str) -> None:
        """Write them as peft does; ``base`` is what they are merged onto."""
        folder.mkdir(parents=True)
        config = copy.copy(self.config)
        config.base_model_name_or_path, config.inference_mode = base, True
        config.save_pretrained(str(folder))
        save_file(self.state, folder / "adapter_model.safetensors", metadata={"format": "pt"})


@runtime_checkable
class Adaptable(Protocol):
    """A policy on a Hugging Face model."""

    model: Any
    adapters: Adapters | None
    """Of its last update."""


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
        UserError: peft is not installed, or the rank is above that of every weight.
    """
    require_peft()
    most = max(min(p.shape) for p in policy.model.parameters() if p.dim() == 2)
    if rank > most:
        raise UserError(
            f"--lora {rank}: no weight of this model has a rank above {most}", "lower --lora"
        )
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
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
    state = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    kept = {name: x.detach().cpu().clone().contiguous() for name, x in state.items()}
    policy.adapters = Adapters(config, kept)
    wrapped.merge_and_unload()  # the layers of the same model
    for parameter in trainable:
        parameter.requires_grad_(True)
