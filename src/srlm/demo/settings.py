"""The demo's run: the settings that ``srlm run`` would take from a user, and what they name."""

from __future__ import annotations

from srlm.config import RunConfig, resolve
from srlm.demo.base import Corpus, cache_folder, cached_base
from srlm.demo.corpus import CORPUS_VERSION, write_prompts
from srlm.demo.network import RECIPE, Recipe
from srlm.progress import Progress

PROMPTS = 4608
"""Of them a ninth is held out: 512 on average."""

ROUNDS = 4


def settings(
    corpus: Corpus, seed: int, progress: Progress, *, recipe: Recipe = RECIPE
) -> RunConfig:
    """Settings of the demo from one start, after its base model and its prompts are made.

    Both are kept in the user's cache folder, the model under a name that changes with anything
    that goes into it. Cost: the first time half a minute on two cores.
    """
    with progress.stage(f"base model ({corpus.name})", total=recipe.steps) as bar:
        model = cached_base(corpus, seed, lambda step, steps, loss: bar.advance(1), recipe=recipe)
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
            "rounds": ROUNDS,
            "samples.max_tokens": 16,
        },
    )
