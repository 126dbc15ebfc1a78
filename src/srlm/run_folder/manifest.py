"""What a run was made of: versions, machine, seed, and hashes of the model and the prompts."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from srlm.config import RunConfig
from srlm.errors import UserError

LIBRARIES = ("srlm", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy")


def manifest(config: RunConfig, prompts: str, train: int, held_out: int) -> dict[str, Any]:
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
        "asked": config.model_dump(mode="json"),
        "model": {"name": config.model, "sha256": hash_model(config.model)},
        "prompts": {
            "file": config.prompts.file,
            "sha256": prompts,
            "train": train,
            "held_out": held_out,
        },
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def versions() -> dict[str, str]:
    """Of the libraries that results depend on."""
    return {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}


def hash_settings(config: RunConfig) -> str:
    """SHA-256 of the settings as canonical JSON; how many rounds are asked for does not enter."""
    settings = config.model_dump(mode="json", exclude={"rounds"})
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def hash_model(model: str) -> str | None:
    """SHA-256 over the names and hashes of a model folder's files; None for a hub id."""
    folder = Path(model)
    if not folder.is_dir():
        return None
    names = sorted(p for p in folder.iterdir() if p.is_file())
    listing = "".join(f"{p.name} {hash_file(p)}\n" for p in names)
    return hashlib.sha256(listing.encode()).hexdigest()


def check_same(folder: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with another model or other prompts than the folder was begun with."""
    changed = [
        f"{what}: {then[what]['sha256']} -> {now[what]['sha256']}"
        for what in ("model", "prompts")
        if then[what]["sha256"] != now[what]["sha256"]
    ]
    if changed:
        raise UserError(
            f"{folder}: the files have changed since it was begun (SHA-256): " + "; ".join(changed),
            "put the old files back, or give another --out",
        )
