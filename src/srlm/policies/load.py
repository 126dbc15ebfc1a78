"""Read a policy from a folder, or from the hub if the user allows a download."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from srlm.errors import UserError
from srlm.policies import devices, linear_softmax, tabular
from srlm.policies.base import Policy
from srlm.types import Prompt

EXACT: dict[str, Callable[[Path], Policy]] = {
    "srlm-linear-softmax": linear_softmax.load,
    "srlm-tabular": tabular.load,
}


def load(
    model: str | Path,
    *,
    device: str = "auto",
    dtype: str = "float32",
    chat: bool = True,
    download: bool = False,
) -> Policy:
    """The policy in a folder: a Hugging Face causal model, or one of srlm's exact kinds.

    Args:
        model: a folder; or a hub id, which is looked up in the local cache, and on the network
            only with ``download``.
        device: "auto" (CUDA, then MPS, then the CPU), "cpu", "cuda", ...
        dtype: of the parameters; float32 is the only one whose sums of log-probabilities can be
            trusted as rewards without a second pass.

    Raises:
        UserError: nothing there, no tokenizer, no safetensors, weights that are missing, broken or
            of another shape, not a causal model, no end token, no such device.
    """
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{model}: a folder without config.json", "give the folder of a saved model"
            )
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            kind = config.get("model_type")
            if kind in EXACT:
                return EXACT[kind](folder)
        except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
            raise UserError(
                f"{model}: config.json or model.safetensors cannot be read: {_first_line(error)}",
                "save the model again",
            ) from None
    elif folder.exists() or str(model).startswith((".", "/", "~")) or str(model).count("/") > 1:
        raise UserError(f"{model}: no such folder", "give the folder of a saved model, or a hub id")
    return _causal_lm(str(model), folder.is_dir(), device, dtype, chat, download)


def _causal_lm(
    model: str, local: bool, device: str, dtype: str, chat: bool, download: bool
) -> Policy:
    import transformers

    from srlm.policies.hf import CausalLM

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # what is missing is an error here
    options: dict[str, Any] = {
        "local_files_only": local or not download,
        "trust_remote_code": False,
    }
    where = f"{model}: " if local else f"{model} (no such folder; taken as a hub id): "
    place = devices.find(device)
    source = model if local or download else _cached(model, where)
    weights: dict[str, Any] = {
        "dtype": getattr(torch, dtype),
        "use_safetensors": True,
        "ignore_mismatched_sizes": True,  # refused below, by name
        "output_loading_info": True,
    }
    network: Any
    found: dict[str, Any]
    try:
        auto: Any = transformers.AutoModelForCausalLM
        network, found = auto.from_pretrained(source, **weights, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{where}not loaded as a causal model: {_first_line(error)}",
            "give the folder or the hub id of a Hugging Face causal model with safetensors",
        ) from None
    except SafetensorError as error:
        raise UserError(
            f"{where}its safetensors are broken: {_first_line(error)}", "save or copy them again"
        ) from None
    lacking = sorted(found["missing_keys"]) + sorted(str(m[0]) for m in found["mismatched_keys"])
    if lacking:
        raise UserError(
            f"{where}{len(lacking)} weights are not in its safetensors, or in another shape: "
            + ", ".join(lacking[:5]),
            "give a folder whose config.json and safetensors belong together",
        )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{where}no tokenizer: {_first_line(error)}",
            "save the tokenizer into the model's folder (tokenizer.save_pretrained)",
        ) from None
    network = network.to(place)
    for parameter in network.parameters():  # own, aligned memory: the same sums on every load
        parameter.data = parameter.data.clone()
    return CausalLM(network, tokenizer, chat=chat)


def _cached(model: str, where: str) -> str:
    """Folder of a hub id in the local cache. transformers would ask the network for adapters."""
    from huggingface_hub import snapshot_download

    try:
        return str(snapshot_download(model, local_files_only=True))
    except (OSError, ValueError):
        raise UserError(
            f"{where}not in the cache of downloaded models",
            "give an existing folder, or allow the network with --download",
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def check_fit(policy: Policy, prompts: Sequence[Prompt], max_tokens: int) -> None:
    """Every prompt must fit the model's context with its response; all that do not are named."""
    encode = getattr(policy, "encode", None)
    context = getattr(policy, "context", None)
    if encode is None or context is None:
        return
    sizes = [len(encode(x)) for x in prompts]
    long = [(x.line, n) for x, n in zip(prompts, sizes, strict=True) if n + max_tokens > context]
    if long:
        named = "; ".join(f"line {line}: {n} tokens" for line, n in long[:20])
        more = f"; and {len(long) - 20} more" if len(long) > 20 else ""
        raise UserError(
            f"{len(long)} prompts leave no room for {max_tokens} response tokens in a context of "
            f"{context}: {named}{more}",
            "shorten them, or lower --max-tokens",
        )
