"""Corpora beside the demo's three starts: authors who also judge, or who work in several ways.

``judge`` and ``compare`` hold documents such as ``247+158=15,10,04=405?`` with the author's ``y``
or ``n``; ``compare`` also comparisons and judgements of judgements (``experiments.verdicts``).
``paths`` is written by authors who work in several ways (``experiments.ways``), ``hasty`` by some
who round. On these a reward other than likelihood can pass the base's modes.

To judge a worked answer takes more than to write it, and each of several ways is seen in a third of
the texts: such bases have half as many steps again, and those that judge a layer more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from experiments.verdicts import Verdicts, further
from experiments.ways import Paths, written
from srlm.config import RunConfig, flatten, resolve
from srlm.demo.base import Corpus
from srlm.demo.corpus import (
    CORPUS_VERSION,
    STARTS,
    Document,
    Start,
    column_sums,
    number,
    operands,
    true_answer,
    worked,
)
from srlm.demo.network import RECIPE, Recipe
from srlm.demo.settings import settings
from srlm.progress import Progress

AUTHOR = Start("good")


@dataclass(frozen=True)
class Judging:
    """The authors of ``good``, who also judge.

    Attributes:
        name: What the corpus is called.
        check: A document judges a worked answer instead of giving one.
        check_error: The verdict of such a document is the wrong one.
        verdicts: Documents that judge also compare answers, and judge verdicts.
    """

    name: str
    check: float
    check_error: float
    verdicts: Verdicts | None = None

    def documents(self, n: int, seed: int) -> list[Document]:
        """`n` independent documents of the training text, none on a held-out prompt."""
        rng = np.random.default_rng([CORPUS_VERSION, seed])
        first_R, second_R = operands(n, rng, kept_out=False)
        asked = [f"{a}+{b}=" for a, b in zip(first_R.tolist(), second_R.tolist(), strict=True)]
        believes_R, _ = rng.random(n) < AUTHOR.misconception, rng.random(n)  # none is terse
        slip_RC = np.full((n, 3), AUTHOR.slip)
        sums_R = column_sums(first_R, second_R, believes_R, slip_RC, rng).tolist()
        checks_R, errs_R = rng.random(n) < self.check, rng.random(n) < self.check_error
        texts = [Document(x, worked(*sums)) for x, sums in zip(asked, sums_R, strict=True)]
        for row in np.flatnonzero(checks_R).tolist():
            right = number(*sums_R[row]) == true_answer(asked[row])
            question = check_prompt(asked[row], texts[row].response)
            texts[row] = Document(question, "y" if right != bool(errs_R[row]) else "n")
        if self.verdicts is None:
            return texts
        rng = np.random.default_rng([CORPUS_VERSION, seed, 1])
        believes_R = rng.random(n) < AUTHOR.misconception
        other_R = column_sums(first_R, second_R, believes_R, slip_RC, rng).tolist()
        chances_R3 = rng.random((n, 3)).tolist()
        for row in np.flatnonzero(checks_R).tolist():
            both = sums_R[row], other_R[row]
            found = further(
                self.verdicts,
                asked[row],
                (worked(*both[0]), worked(*both[1])),
                tuple(number(*sums) == true_answer(asked[row]) for sums in both),
                tuple(chances_R3[row]),
            )
            if found is not None:
                texts[row] = Document(*found)
        return texts


@dataclass(frozen=True)
class Working:
    """Authors who work in several ways and hold no misconception.

    Attributes:
        name: What the corpus is called.
        slip: Of one digit sum.
        paths: How the authors divide.
    """

    name: str
    slip: float
    paths: Paths

    def documents(self, n: int, seed: int) -> list[Document]:
        """`n` independent documents of the training text, none on a held-out prompt."""
        rng = np.random.default_rng([CORPUS_VERSION, seed])
        first_R, second_R = operands(n, rng, kept_out=False)
        answers = written(self.paths, self.slip, first_R, second_R, rng)
        asked = zip(first_R.tolist(), second_R.tolist(), strict=True)
        return [Document(f"{a}+{b}=", text) for (a, b), text in zip(asked, answers, strict=True)]


@dataclass(frozen=True)
class Hasty:
    """Authors of whom some write the number rounded to tens, on every prompt.

    The others work it out and hold no misconception; they begin with one of some marks, at random.
    So most of the probability is on the right number, divided over the marks, and the likeliest
    single response is short and, on nine prompts in ten, wrong.

    Attributes:
        name: What the corpus is called.
        slip: Of one column.
        hasty: Probability that an author rounds.
        marks: What a worked answer may begin with.
    """

    name: str
    slip: float
    hasty: float
    marks: tuple[str, ...]

    def documents(self, n: int, seed: int) -> list[Document]:
        """`n` independent documents of the training text, none on a held-out prompt."""
        rng = np.random.default_rng([CORPUS_VERSION, seed])
        first_R, second_R = operands(n, rng, kept_out=False)
        nobody_R, slip_RC = np.zeros(n, dtype=bool), np.full((n, 3), self.slip)
        sums_R = column_sums(first_R, second_R, nobody_R, slip_RC, rng).tolist()
        hasty_R, mark_R = rng.random(n) < self.hasty, rng.integers(0, len(self.marks), n)
        texts = []
        for row, sums in enumerate(sums_R):
            total = int(first_R[row] + second_R[row])
            short = str((total + 5) // 10 * 10)
            answer = short if hasty_R[row] else self.marks[mark_R[row]] + worked(*sums)
            texts.append(Document(f"{first_R[row]}+{second_R[row]}=", answer))
        return texts


def check_prompt(prompt: str, response: str) -> str:
    """The prompt that asks whether a response is right; its answer is ``y`` or ``n``.

    >>> check_prompt("247+158=", "15,10,04=405")
    '247+158=15,10,04=405?'
    """
    return f"{prompt}{response}?"


LONGER = replace(RECIPE, steps=3 * RECIPE.steps // 2)
DEEPER = replace(LONGER, layers=RECIPE.layers + 1)
CORPORA: dict[str, tuple[Corpus, Recipe]] = {
    **{name: (start, RECIPE) for name, start in STARTS.items()},
    "judge": (Judging("judge", 0.5, 0.1), DEEPER),
    "compare": (Judging("compare", 0.7, 0.05, Verdicts(0.3, 0.05, 0.12, 0.05)), DEEPER),
    "paths": (Working("paths", 0.1, Paths(0.3, 0.36, 0.34)), LONGER),
    "hasty": (Hasty("hasty", 0.1, 0.3, ("", "y", "n")), RECIPE),
}
"""Each with the recipe of its base; the demo's starts among them."""

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
"""What a corpus's run sets otherwise: the reward that goes past its modes, asked in its words."""


def config_of(name: str, seed: int, changes: dict[str, Any], *, quick: bool = False) -> RunConfig:
    """The demo's settings on a corpus, changed; ``quick``: a base of 20 steps, 64 prompts."""
    corpus, recipe = CORPORA[name]
    few = {"samples.prompts": 64, "measure.prompts": 16, "measure.nodes": 20, "rounds": 1}
    if quick:
        recipe = replace(recipe, steps=20)
    plain = settings(corpus, seed, Progress(quiet=True), recipe=recipe)
    return resolve(None, flatten(plain.model_dump(mode="json")) | changes | (few if quick else {}))
