"""The demo's base model: a small causal model trained on the corpus, saved as anyone would save it.

The folder is an ordinary Hugging Face one (safetensors, a character tokenizer, a generation
config), so that everything after this file treats it as any other model.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
import transformers

from srlm.demo.corpus import CORPUS_VERSION, Start, documents
from srlm.demo.network import (
    RECIPE,
    Progress,
    Recipe,
    blank_model,
    character_tokenizer,
    encode,
    train,
)
from srlm.errors import UserError


@contextmanager
def _settled(seed: int, threads: int = 2) -> Iterator[None]:
    """Torch's random state and thread count fixed inside, given back after."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def build_base(
    start: Start,
    seed: int,
    folder: Path,
    progress: Progress | None = None,
    *,
    arch: str = "llama",
    steps: int | None = None,
) -> float:
    """Train a base on the corpus of `start` and save it as a Hugging Face folder.

    The same arguments give the same weights on the same machine. The folder appears whole or not
    at all.

    Args:
        start: How the corpus's authors behave.
        seed: Of the corpus and of the initial weights.
        folder: Where the model goes; it must not exist.
        progress: Called after every step with the step, their number and the loss.
        arch: One of `ARCHITECTURES`.
        steps: Length of the training.

    Returns:
        The training loss at the end, nats a response token.

    Raises:
        UserError: The folder exists already, or the architecture is unknown.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already", "name a folder that does not exist")
    recipe = recipe_of(start, steps)
    tokenizer = character_tokenizer()
    ids_RT, labels_RT = encode(documents(start, recipe.steps * recipe.batch, seed), tokenizer)
    with _settled(seed):
        model = blank_model(arch, recipe, tokenizer)
        loss = train(model, ids_RT, labels_RT, recipe, progress)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    transformers.utils.logging.disable_progress_bar()
    try:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return loss


def cache_folder() -> Path:
    """Where bases are kept: SRLM_CACHE, else srlm in XDG_CACHE_HOME, else ~/.cache/srlm."""
    if chosen := os.environ.get("SRLM_CACHE"):
        return Path(chosen)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "srlm"
    return Path.home() / ".cache" / "srlm"


def recipe_of(start: Start, steps: int | None = None) -> Recipe:
    """The base's recipe; `steps` other than its own where given.

    Where the corpus holds verdicts there is a layer more and half as many steps again. To judge a
    worked answer takes more than to write it: the sums, where the text departs from them, and
    whether it departs anywhere. It is learnt late and all at once. Where authors work in several
    ways there are half as many steps again too: each way is seen in a third of the texts.
    """
    judges = start.check > 0
    longer = judges or start.paths is not None
    own = 3 * RECIPE.steps // 2 if longer else RECIPE.steps
    return replace(RECIPE, layers=RECIPE.layers + judges, steps=own if steps is None else steps)


def base_key(start: Start, seed: int, arch: str, steps: int | None) -> str:
    """A short digest of everything that decides a base's weights on one machine.

    What a start leaves at None has no part in it: a new kind of text moves no base that lacks it.
    """
    settings = {
        "corpus": CORPUS_VERSION,
        "torch": torch.__version__,
        "start": {key: value for key, value in asdict(start).items() if value is not None},
        "seed": seed,
        "arch": arch,
        "recipe": asdict(recipe_of(start, steps)),
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def cached_base(
    start: Start,
    seed: int,
    progress: Progress | None = None,
    *,
    arch: str = "llama",
    steps: int | None = None,
) -> Path:
    """The folder of a base in the user's cache, built with `build_base` if it is not there.

    Two programs that build the same base at once both succeed: the first folder stays.
    """
    name = f"{start.name}-{arch}-{seed}-{base_key(start, seed, arch, steps)}"
    folder = cache_folder() / "bases" / name
    if folder.exists():
        return folder
    part = folder.with_name(f".{name}.{os.getpid()}")
    build_base(start, seed, part, progress, arch=arch, steps=steps)
    try:
        os.replace(part, folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(part)
    return folder
