"""A model's folder, looked at before anything is made of it: JSON and safetensors' headers alone.

What stands there was written by others. Sizes are compared with what the weights hold, so that
nothing is allocated, or built layer by layer, on a configuration's word; no path leaves the folder;
nothing of it is run. Time and memory: those of the headers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from srlm.errors import UserError, first_line

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LAYERS = ("num_hidden_layers", "n_layer")
SIZES = (
    "hidden_size", "n_embd", "intermediate_size", "n_inner", "vocab_size", "head_dim",
    "num_attention_heads", "n_head", "num_key_value_heads", "num_experts", "num_local_experts",
    "n_routed_experts",
)  # fmt: skip
POSITIONS = ("max_position_embeddings", "n_positions")
SINGLE = ("hidden_size", "n_embd", "vocab_size", *LAYERS, *POSITIONS)
"""Sizes that are one number in every model; others are lists in some, a number a layer."""
PACKED = 16
"""Numbers that a stored one may stand for, where weights are quantised."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
CODE = (
    "srlm never runs a model's code: use a model that this version of transformers knows by itself"
)
TOGETHER = "give a folder whose config.json and safetensors belong together"
AGAIN = "save or copy the model again"


def read_json(file: Path, place: str) -> dict[str, Any]:
    """A JSON object of a model's folder.

    Raises:
        UserError: there is no such file, or it is none.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{place}: {file.name} cannot be read: {error.strerror}", "give the folder of a model"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: {file.name} is no JSON: {first_line(error)}", AGAIN) from None
    if not isinstance(found, dict):
        raise UserError(f"{place}: {file.name} holds no object", AGAIN)
    return found


def read_config(folder: Path, place: str) -> dict[str, Any]:
    """config.json, its values of the kinds that they must be.

    Raises:
        UserError: it is broken, or a value cannot be.
    """
    config = read_json(folder / "config.json", place)
    kind = config.get("model_type")
    if not isinstance(kind, str | None):
        raise _wrong(place, "model_type", kind, "a text")
    for part in _parts(config):
        for name in ("dtype", "torch_dtype"):
            dtype = part.get(name)
            known = isinstance(dtype, str) and (
                dtype == "auto"
                or isinstance(
                    getattr(torch, dtype[6 * dtype.startswith("torch.") :], 0), torch.dtype
                )
            )
            if dtype is not None and not known:
                raise _wrong(place, name, dtype, "a number format, as float32 or bfloat16")
        for name in (*SIZES, *LAYERS, *POSITIONS):
            value = part.get(name)
            if value is None or (isinstance(value, list) and name not in SINGLE):
                continue
            if type(value) is not int or value < 1:
                raise _wrong(place, name, value, "a whole number, 1 or more")
        _check_heads(part, place)
    quantised = config.get("quantization_config")
    if not isinstance(quantised, dict | None):
        raise _wrong(place, "quantization_config", quantised, "an object")
    return config


def _check_heads(part: dict[str, Any], place: str) -> None:
    heads = part.get("num_attention_heads", part.get("n_head"))
    hidden = part.get("hidden_size", part.get("n_embd"))
    keys = part.get("num_key_value_heads")
    if not isinstance(heads, int):
        return
    if isinstance(hidden, int) and part.get("head_dim") is None and hidden % heads:
        raise _wrong(place, "num_attention_heads", heads, f"a divisor of the hidden size, {hidden}")
    if isinstance(keys, int) and heads % keys:
        raise _wrong(place, "num_key_value_heads", keys, f"a divisor of {heads} heads")


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The configuration, and those of its parts."""
    yield config
    for name, value in config.items():
        if name.endswith("_config") and isinstance(value, dict):
            yield value


def _wrong(place: str, name: str, value: Any, wanted: str) -> UserError:
    return UserError(
        f"{place}: config.json: {name} is {repr(value)[:60]}, not {wanted}",
        f"correct it, or {AGAIN}",
    )


def read_shapes(folder: Path, place: str) -> dict[str, list[int]]:
    """The shape of every weight, from the headers of the safetensors that are loaded.

    Raises:
        UserError: there are none, they are broken, or the index leaves the folder.
    """
    found: dict[str, list[int]] = {}
    for file in _files(folder, place):
        try:
            with safe_open(file, framework="pt") as tensors:
                found |= {x: tensors.get_slice(x).get_shape() for x in list(tensors.keys())}
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{place}: {file.name}: broken safetensors: {first_line(error)}", AGAIN
            ) from None
    return found


def _files(folder: Path, place: str) -> list[Path]:
    """The files of the weights, as transformers looks for them."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise _no_weights(folder, place)
    parts = read_json(folder / INDEX, place).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(x, str) for x in parts.values()):
        raise UserError(f"{place}: {INDEX} names no files of weights", AGAIN)
    names = sorted(set(parts.values()))
    for name in names:
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise UserError(
                f"{place}: {INDEX}: {name[:100]!r} leaves the folder",
                "do not use this folder unless you know who made it",
            )
        if not (folder / name).is_file():
            raise UserError(f"{place}: {name} is missing, which {INDEX} names", AGAIN)
    return [folder / name for name in names]


def _no_weights(folder: Path, place: str) -> UserError:
    names = sorted(x.name for x in folder.iterdir())
    for name in names:
        if name.endswith(PICKLES):
            return UserError(
                f"{place}: weights as a pickle alone ({name}), which srlm does not read: reading "
                "one runs the code in it",
                "if you trust it, convert it: transformers.AutoModelForCausalLM.from_pretrained("
                "FOLDER).save_pretrained(NEW), and the tokenizer likewise",
            )
        if name.endswith(".gguf"):
            return UserError(
                f"{place}: weights as GGUF alone ({name})",
                "convert it: transformers.AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file="
                f"{name!r}), then save_pretrained",
            )
        if name.startswith("model") and name.endswith(".safetensors"):
            return UserError(
                f"{place}: {name} without {INDEX}, or a link that leads nowhere", AGAIN
            )
    return UserError(
        f"{place}: no safetensors ({WEIGHTS})", "give the folder of a saved model, with its weights"
    )


def check_sizes(config: dict[str, Any], shapes: dict[str, list[int]], place: str) -> None:
    """Refuse sizes that the weights cannot have, before a model is built of them.

    A layer has a weight of its own, and no size is above ``PACKED`` times the numbers of the
    largest weight.

    Raises:
        UserError: the first size that is too large.
    """
    numbers = max((torch.Size(x).numel() for x in shapes.values()), default=0)
    for part in (config, config.get("text_config") or {}):
        for name in (*LAYERS, *SIZES):
            most = len(shapes) if name in LAYERS else PACKED * max(numbers, len(shapes))
            value = part.get(name)
            if isinstance(value, int) and value > most:
                raise UserError(
                    f"{place}: config.json: {name} is {value:,}, and the safetensors hold "
                    f"{len(shapes):,} weights of at most {numbers:,} numbers",
                    TOGETHER,
                )
