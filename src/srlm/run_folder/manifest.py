"""What a run was made of: versions, machine, seed, and hashes of the model and the prompts."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from srlm.config import RunConfig
from srlm.run_folder.record import hash_file

LIBRARIES = ("srlm", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy")


def manifest(
    config: RunConfig, inputs: Mapping[str, str], train: int, held_out: int
) -> dict[str, Any]:
    """Versions, machine, seed, settings as asked for, hashes of the model and the prompts."""
    import torch

    return {
        "versions": versions(),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "seed": config.seed,
        "asked": config.model_dump(mode="json", exclude={"rounds"}),
        "model": {"name": config.model, "sha256": inputs["model"]},
        "prompts": {
            "file": config.prompts.file,
            "sha256": inputs["prompts"],
            "train": train,
            "held_out": held_out,
        },
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


@cache
def versions() -> dict[str, str]:
    """Of the libraries that results depend on."""
    return {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}


def decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide a round's numbers: not how many rounds are asked for, or which
    policies are kept, what makes the samples, or where the inputs lie, whose hashes are known."""
    prompts = {k: v for k, v in settings["prompts"].items() if k != "file"}
    kept = {k: v for k, v in settings.items() if k not in ("rounds", "keep", "model", "engine")}
    return kept | {"prompts": prompts}


def with_decisive(settings: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those that ``decisive`` gave in the place of their own."""
    prompts = {"file": settings["prompts"]["file"]} | dict(kept["prompts"])
    return {k: kept.get(k, v) for k, v in settings.items()} | {"prompts": prompts}


def hash_model(model: str) -> str:
    """SHA-256 over the names and hashes of a model folder's files; a hub id stays as it is."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    names = sorted(p for p in folder.iterdir() if p.is_file())
    listing = "".join(f"{p.name} {hash_file(p)}\n" for p in names)
    return hashlib.sha256(listing.encode()).hexdigest()
