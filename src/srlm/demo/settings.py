"""The demo's run: the settings that ``srlm run`` would take from a user, and what they name."""

from __future__ import annotations

from typing import Any

from srlm.config import RunConfig, flatten, resolve
from srlm.demo.base import cache_folder, cached_base, recipe_of
from srlm.demo.corpus import CORPUS_VERSION, named_start, write_prompts
from srlm.progress import Progress

PROMPTS = 4608
"""Of them a ninth is held out: 512 on average."""

ROUNDS = 4

OWN: dict[str, dict[str, Any]] = {
    "judge": {
        "reward": "judge",
        "judge.template": "{prompt}{response}?",
        "judge.read": "expected",
        "judge.scores": "y=1,n=0",
        "update.beta": 0.02,
        "stop": "auto",
    },
    "compare": {
        "reward": "meta-judge",
        "judge.template": "{prompt}{response}?",
        "judge.read": "expected",
        "judge.scores": "y=1,n=0",
        "judge.compare_template": "{prompt}{first}?{prompt}{second}?",
        "judge.meta_template": "{first}?{prompt}",
        "judge.choices": "y,n",
        "judge.pattern": "^[yn]$",
        "judge.judgements": 8,
        "judge.max_tokens": 2,
        "update.beta": 0.025,
        "stop": "auto",
    },
    "paths": {
        "reward": "consistency",
        "update.beta": 0.05,
        "samples.per_prompt": 8,
        "samples.max_tokens": 24,
        "rounds": 12,
        "stop": "auto",
    },
}
"""What ``srlm demo`` sets otherwise on a start: the reward that goes past its modes."""


def shown_settings(start: str, seed: int, progress: Progress) -> RunConfig:
    """What ``srlm demo --start`` runs: ``settings``, with ``OWN`` of that start.

    The judge is asked in the words of the corpus, and its score is the probability of ``y``. Raises
    as ``settings``.
    """
    plain = settings(start, seed, progress)
    return resolve(None, flatten(plain.model_dump(mode="json")) | OWN.get(start, {}))


def settings(start: str, seed: int, progress: Progress) -> RunConfig:
    """Settings of the demo from one start, after its base model and its prompts are made.

    Both are kept in the user's cache folder, the model under a name that changes with anything
    that goes into it. Cost: the first time a minute on two cores.

    Raises:
        UserError: no start has that name.
    """
    author = named_start(start)
    with progress.stage(f"base model ({start})", total=recipe_of(author).steps) as bar:
        model = cached_base(author, seed, lambda step, steps, loss: bar.advance(1))
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
