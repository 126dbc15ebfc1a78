"""The demo's base model: a small causal model trained on the corpus, saved as anyone would save it.

The folder is an ordinary Hugging Face one (safetensors, a character tokenizer, a generation
config), so that everything after this file treats it as any other model.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
import transformers

from srlm.demo.corpus import CORPUS_VERSION, Document
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
from srlm.writing import commit


class Corpus(Protocol):
    """A corpus to learn from: a dataclass, so that its fields name it."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str: ...

    def documents(self, n: int, seed: int) -> list[Document]:
        """`n` texts, a pure function of the fields and the arguments."""
        ...


THREADS = 2


@contextmanager
def _settled(seed: int) -> Iterator[None]:
    """Torch's random state and thread count fixed inside, given back after."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(THREADS)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def build_base(
    corpus: Corpus,
    seed: int,
    folder: Path,
    progress: Progress | None = None,
    *,
    arch: str = "llama",
    recipe: Recipe = RECIPE,
) -> float:
    """Train a base on a corpus and save it as a Hugging Face folder.

    The same arguments give the same weights on the same machine. The folder appears whole or not
    at all.

    Args:
        corpus: What it learns.
        seed: Of the corpus and of the initial weights.
        folder: Where the model goes; it must not exist.
        progress: Called after every step with the step, their number and the loss.
        arch: One of `ARCHITECTURES`.
        recipe: Size of the model and its training.

    Returns:
        The training loss at the end, nats a response token.

    Raises:
        UserError: The folder exists already, or the architecture is unknown.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already", "name a folder that does not exist")
    tokenizer = character_tokenizer()
    ids_RT, labels_RT = encode(corpus.documents(recipe.steps * recipe.batch, seed), tokenizer)
    with _settled(seed):
        model = blank_model(arch, recipe, tokenizer)
        loss = train(model, ids_RT, labels_RT, recipe, progress)
    transformers.utils.logging.disable_progress_bar()

    def save(partial: Path) -> None:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)

    folder.parent.mkdir(parents=True, exist_ok=True)
    commit(folder, save)
    return loss


def cache_folder() -> Path:
    """Where bases are kept: SRLM_CACHE, else srlm in XDG_CACHE_HOME, else ~/.cache/srlm."""
    if chosen := os.environ.get("SRLM_CACHE"):
        return Path(chosen)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "srlm"
    return Path.home() / ".cache" / "srlm"


def base_key(corpus: Corpus, seed: int, arch: str, recipe: Recipe) -> str:
    """A short digest of everything that decides a base's weights on one machine."""
    settings = {
        "version": CORPUS_VERSION,
        "torch": torch.__version__,
        "corpus": asdict(corpus),
        "seed": seed,
        "arch": arch,
        "recipe": asdict(recipe),
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def base_folder(corpus: Corpus, seed: int, arch: str = "llama", recipe: Recipe = RECIPE) -> Path:
    """Where a base is in the user's cache, built or not."""
    key = base_key(corpus, seed, arch, recipe)
    return cache_folder() / "bases" / f"{corpus.name}-{arch}-{seed}-{key}"


def cached_base(
    corpus: Corpus,
    seed: int,
    progress: Progress | None = None,
    *,
    arch: str = "llama",
    recipe: Recipe = RECIPE,
) -> Path:
    """The folder of a base in the user's cache, built with `build_base` if it is not there.

    Two programs that build the same base at once both succeed: the first folder stays.
    """
    folder = base_folder(corpus, seed, arch, recipe)
    if not folder.exists():
        try:
            build_base(corpus, seed, folder, progress, arch=arch, recipe=recipe)
        except (OSError, UserError):
            if not folder.exists():
                raise
    return folder
