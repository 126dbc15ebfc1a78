"""Where a model lies: a folder, what a folder without weights names, or the cache of the hub."""

from __future__ import annotations

import json
from pathlib import Path

from srlm.errors import UserError, first_line

REFERENCE = "base.json"
"""In a folder without weights: where its model is, as a run's first policy is kept."""
DROPPED = "dropped.json"
"""Beside a run's policy: its weights are not kept."""
FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")
"""What is taken from the hub: no code, no pickles."""


def followed(model: str | Path) -> str | Path:
    """Where a model is: what its ``base.json`` names, or ``model`` itself.

    Raises:
        UserError: ``base.json`` cannot be read.
    """
    file = Path(model) / REFERENCE
    if not file.is_file():
        return model
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["model"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: cannot be read: {first_line(error)}", "give the folder of the model itself"
        ) from None


def located(model: str, download: bool) -> Path:
    """The folder of a model; of a hub id that in the cache, whose name is the revision.

    Raises:
        UserError: a hub id that is not in the cache, or cannot be downloaded.
    """
    model = str(followed(model))
    folder = Path(model)
    if folder.exists() or folder.is_symlink() or model.startswith((".", "/", "~")):
        return folder
    if model.count("/") > 1:
        return folder
    return Path(cached(model, f"{model} (no such folder; taken as a hub id)", download))


def cached(model: str, where: str, download: bool) -> str:
    """Folder of a hub id in the local cache, after a download where that is allowed."""
    from huggingface_hub import snapshot_download

    try:
        return str(
            snapshot_download(model, local_files_only=not download, allow_patterns=list(FILES))
        )
    except (OSError, ValueError) as error:
        if download:
            raise UserError(
                f"{where}: not downloaded: {first_line(error)}", "check its name and the network"
            ) from None
        raise UserError(
            f"{where}: not in the cache of downloaded models",
            "give an existing folder, or allow the network with --download",
        ) from None
