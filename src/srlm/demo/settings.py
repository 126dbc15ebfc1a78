"""The demo's run: the settings that ``srlm run`` would take from a user, and what they name."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch

from srlm.config import RunConfig, resolve
from srlm.demo.base import RECIPE, build_base
from srlm.demo.corpus import CORPUS_VERSION, Start, named_start, write_prompts
from srlm.progress import Progress

PROMPTS = 4608
"""Of them a ninth is held out: 512 on average."""


def settings(start: str, seed: int, progress: Progress) -> RunConfig:
    """Settings of the demo from one start, after its base model and its prompts are made.

    Both are kept in the user's cache folder, the model under a name that changes with anything
    that goes into it. Cost: the first time a minute on two cores.

    Raises:
        UserError: no start has that name.
    """
    author = named_start(start)
    model = cache_folder() / f"base-{start}-{seed}-{_fingerprint(author, seed)}"
    if not model.exists():
        with progress.stage("base model", total=RECIPE.steps) as bar:
            build_base(author, seed, model, lambda step, steps, loss: bar.advance(1))
    prompts = cache_folder() / f"prompts-{CORPUS_VERSION}-{PROMPTS}-{seed}.jsonl"
    write_prompts(prompts, PROMPTS, seed)
    return resolve(
        None,
        {
            "model": str(model),
            "seed": seed,
            "prompts.file": str(prompts),
            "prompts.answer": "last-number",
            "prompts.held_out": 1 / 9,
            "samples.prompts": 2048,
            "samples.max_tokens": 16,
        },
    )


def cache_folder() -> Path:
    """Where the user's caches are, by the convention of desktops, and srlm's in it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "srlm"


def _fingerprint(start: Start, seed: int) -> str:
    parts = [CORPUS_VERSION, asdict(start), asdict(RECIPE), seed, torch.__version__]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]
