"""Read a policy from a folder, or from the hub if the user allows a download."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from srlm.config import ProbeConfig, RunConfig, template_arguments
from srlm.errors import UserError, first_line
from srlm.policies import devices, linear_softmax, tabular
from srlm.policies.base import Policy
from srlm.policies.chat_template import check_template
from srlm.policies.headers import CODE, TOGETHER, check_sizes, read_config, read_json, read_shapes
from srlm.policies.places import DROPPED, cached, followed
from srlm.types import Prompt

ADAPTERS = "adapter_config.json"
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
    system: str | None = None,
    chat_args: Mapping[str, Any] | None = None,
    download: bool = False,
    trained: bool = False,
) -> Policy:
    """The policy in a folder: a Hugging Face causal model, or one of srlm's exact kinds.

    Args:
        model: a folder; or a hub id, which is looked up in the local cache, and on the network
            only with ``download``. A folder of adapters is merged onto its base, which may be
            adapters too; a folder with ``base.json`` stands for the model that is named there.
        device: "auto" (CUDA, then MPS, then the CPU), "cpu", "cuda", ...
        dtype: of the parameters; float32 is the only one whose sums of log-probabilities can be
            trusted as rewards without a second pass (``devices.logp_error``).
        chat: wrap prompts in the tokenizer's chat template if it has one.
        system: system prompt before prompts that are text.
        chat_args: arguments of the chat template, as ``{"enable_thinking": False}``.
        trained: it is to be trained and saved, which is tried on two tokens.

    Raises:
        UserError: nothing there, no tokenizer, no safetensors, weights that are missing, broken or
            of another shape, not a causal model, no end token, no such device, no room for the
            weights, quantised weights that are to be trained, or a model that cannot be scored,
            trained or saved.
    """
    model = followed(model)
    folder = Path(model)
    if folder.is_dir():
        if (folder.parent / DROPPED).is_file():
            raise UserError(
                f"{model}: the weights of this round were not kept (--keep)",
                "give the folder of the best or the last round; --keep all keeps them",
            )
        adapters = (folder / ADAPTERS).is_file()
        if adapters and any(folder.glob("model*.safetensors")):
            raise UserError(
                f"{model}: a whole model and {ADAPTERS} beside it, which does not belong there",
                f"remove {ADAPTERS} and adapter_model.safetensors, or give the adapters a folder "
                "of their own",
            )
        kind = None if adapters else read_config(folder, str(model)).get("model_type")
        try:
            if kind in EXACT:
                return EXACT[kind](folder)
        except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
            raise UserError(
                f"{model}: config.json or model.safetensors cannot be read: {first_line(error)}",
                "save the model again",
            ) from None
    elif folder.is_symlink() and not folder.exists():
        raise UserError(
            f"{model}: a link that leads nowhere, or in a circle",
            "give the folder of a saved model",
        )
    elif folder.exists() or str(model).startswith((".", "/", "~")) or str(model).count("/") > 1:
        raise UserError(f"{model}: no such folder", "give the folder of a saved model, or a hub id")
    from srlm.policies.hf import CausalLM
    from srlm.policies.ready import check_ready

    place, numbers = devices.find(device), getattr(torch, dtype)
    devices.check_has(place, numbers)
    if trained:
        devices.check_trainable(numbers)
    network, tokenizer = _hugging_face(str(model), place, numbers, download)
    if trained and getattr(network.config, "quantization_config", None) is not None:
        raise UserError(
            f"{model}: quantised weights cannot be trained or saved by an update",
            "give the model that was quantised",
        )
    if chat and getattr(tokenizer, "chat_template", None):
        check_template(tokenizer, chat_args or {})
    policy = CausalLM(network, tokenizer, chat=chat, system=system, chat_args=chat_args)
    check_ready(policy, trained=trained)
    return policy


def load_for(
    config: ProbeConfig | RunConfig, model: str | Path | None = None, *, trained: bool = False
) -> Policy:
    """``load`` by settings; ``model``: another one than theirs, as a run's last."""
    asked = config.prompts
    return load(
        config.model if model is None else model,
        device=config.device,
        dtype=config.dtype,
        chat=asked.chat == "auto",
        system=asked.system,
        chat_args=template_arguments(asked.chat_args),
        download=config.download,
        trained=trained,
    )


def _hugging_face(
    model: str, place: torch.device, dtype: torch.dtype, download: bool
) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    from srlm.policies.network import REFUSALS
    from srlm.policies.ready import check_room, other_shapes

    if (Path(model) / ADAPTERS).is_file():
        return _merged(model, place, dtype, download)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # what is missing is an error here
    local = Path(model).is_dir()
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    where = model if local else f"{model} (no such folder; taken as a hub id)"
    source = model if local else cached(model, where, download)
    written, shapes = read_config(Path(source), where), read_shapes(Path(source), where)
    check_sizes(written, shapes, where)
    if (Path(source) / "generation_config.json").exists():
        read_json(Path(source) / "generation_config.json", where)
    weights: dict[str, Any] = {
        "dtype": dtype,
        "use_safetensors": True,
        "ignore_mismatched_sizes": True,  # refused below, by name
        "output_loading_info": True,
    }
    auto: Any = transformers.AutoModelForCausalLM
    network: Any = None
    quantised = written.get("quantization_config")
    refused = (*REFUSALS, ArithmeticError, OSError, ImportError, StrictDataclassError)
    try:
        config = transformers.AutoConfig.from_pretrained(source, **options)
        with torch.device("meta"):
            blank = auto.from_config(config)
        lacking = other_shapes(shapes, blank)
        if not lacking:
            check_room(blank, dtype, place)
            network, found = auto.from_pretrained(source, **weights, **options)
            lacking = sorted(found["missing_keys"])
            lacking += sorted(str(m[0]) for m in found["mismatched_keys"])
            _tell_unused(where, sorted(found["unexpected_keys"]))
    except SafetensorError as error:
        raise UserError(
            f"{where}: its safetensors are broken: {first_line(error)}", "save or copy them again"
        ) from None
    except refused as error:
        if quantised is not None:
            method = quantised.get("quant_method")
            raise UserError(
                f"{where}: quantised weights ({method}) that cannot be loaded here: "
                f"{first_line(error)}",
                "give the model that was quantised, or install what the quantisation needs",
            ) from None
        raise UserError(
            f"{where}: not loaded as a causal model: {first_line(error)}",
            CODE
            if "auto_map" in written
            else "give the folder or the hub id of a Hugging Face causal model with safetensors",
        ) from None
    if lacking:
        raise UserError(
            f"{where}: {len(lacking)} weights are not in its safetensors, or in another shape: "
            + ", ".join(lacking[:5]),
            TOGETHER,
        )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
    except (*refused, SafetensorError) as error:
        own = Path(source, "tokenizer_config.json")
        code = own.is_file() and "auto_map" in read_json(own, where)
        raise UserError(
            f"{where}: no tokenizer: {first_line(error)}",
            CODE
            if code
            else "save the tokenizer into the model's folder (tokenizer.save_pretrained)",
        ) from None
    network = network.to(place)
    for parameter in network.parameters():  # own, aligned memory: the same sums on every load
        parameter.data = parameter.data.clone()
    settings = network.generation_config
    if settings is not None and not settings.do_sample:
        settings.do_sample = True  # or transformers refuses to save a temperature beside it
    return network, tokenizer


def _merged(model: str, place: torch.device, dtype: torch.dtype, download: bool) -> tuple[Any, Any]:
    """A folder of adapters merged onto its base, which its configuration names."""
    from srlm.policies.lora import require_peft

    require_peft()
    from peft import PeftModel

    try:
        base = json.loads((Path(model) / ADAPTERS).read_text(encoding="utf-8"))[
            "base_model_name_or_path"
        ]
        near = Path(model) / str(base)
        found = followed(near if str(base).startswith(".") and near.is_dir() else base)
        network, tokenizer = _hugging_face(str(found), place, dtype, download)
        merged: Any = PeftModel.from_pretrained(network, model)
        return merged.merge_and_unload().requires_grad_(True), tokenizer
    except UserError as error:
        raise UserError(
            f"{model}: adapters whose base is not there: {error.problem}", error.remedy
        ) from None
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{model}: adapters that do not fit their base: {first_line(error)}",
            "merge them with peft (merge_and_unload), and give the folder of the merged model",
        ) from None


def _tell_unused(where: str, names: list[str]) -> None:
    """Weights that are in the folder, and not in the model that it describes."""
    if names:
        logging.getLogger("srlm").warning(
            "%s: its safetensors hold %d weights that the model of config.json does not use: %s",
            where,
            len(names),
            ", ".join(names[:5]),
        )


def fitting(policy: Policy, prompts: Sequence[Prompt], max_tokens: int) -> tuple[int, str]:
    """The length limit of responses that the model's context has room for after every prompt.

    Returns:
        ``max_tokens``, or what the longest prompt leaves; and a sentence where it is less.

    Raises:
        UserError: prompts leave room for not a single token.
    """
    encode = getattr(policy, "encode", None)
    context = getattr(policy, "context", None)
    if encode is None or context is None:
        return max_tokens, ""
    size_P = [len(encode(x)) for x in prompts]
    full = sum(size >= context for size in size_P)
    longest = max(range(len(size_P)), key=size_P.__getitem__)
    most = f"the longest, of line {prompts[longest].line}, has {size_P[longest]} tokens"
    if full:
        raise UserError(
            f"{full} of {len(prompts)} prompts leave no room for a response in the model's context "
            f"of {context} tokens; {most}",
            "leave them out or shorten them",
        )
    room = context - size_P[longest]
    if room >= max_tokens:
        return max_tokens, ""
    return room, (
        f"--max-tokens {max_tokens} is lowered to {room}, what the model's context of {context} "
        f"tokens has room for: {most}"
    )
