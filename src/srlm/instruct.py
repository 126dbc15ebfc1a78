"""New prompts by the model itself, from a few of the user's ([SRLM] section 2.3; self-instruction).

The policy is shown some of the prompts and asked for another of their kind. What it writes is
kept if it is whole, new, and worth asking: its own responses to it must not all agree.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from srlm.config import EngineSettings, ProbeConfig
from srlm.data import prompt_id, prompts_for
from srlm.errors import UserError
from srlm.grading import EXACT, Grader
from srlm.policies.base import Language, Policy
from srlm.policies.load import load_for
from srlm.rewards import asking
from srlm.types import Prompt, Samples
from srlm.writing import write_text

TEMPLATE = """Here are some requests.

{prompt}

Write one more request of the same kind: as hard as these and about something else. Reply with the
request alone.
"""
SEPARATOR = "\n\n"
PIECE = 5
"""Characters of the pieces by whose overlap two prompts are called alike."""
ALIKE = 0.6
"""Likeness from which a prompt counts as known."""
MOST_ASKED = 20
"""Questions a wanted prompt, at most."""


@dataclass(frozen=True, slots=True)
class NewPrompts:
    """Prompts that the policy wrote."""

    prompts: list[Prompt]
    refused: dict[str, int]
    """What was not taken, by reason: unfinished, empty, known, alike, settled."""


def instruct(
    policy: Policy,
    given: Sequence[Prompt],
    count: int,
    *,
    seed: int = 0,
    shown: int = 4,
    template: str = TEMPLATE,
    max_tokens: int = 256,
    samples: int = 8,
    grader: Grader = EXACT,
) -> NewPrompts:
    """``count`` new prompts, or as many as ``MOST_ASKED * count`` questions give.

    Each question shows ``shown`` of the given prompts, sampled without replacement, never new ones:
    errors do not breed. A text is taken if it ended by itself, is no given or taken prompt, has
    likeness (Jaccard index of 5-character pieces, letters and figures alone) below ``ALIKE`` to all
    of them, and if the policy's own ``samples`` of it do not all agree: there is nothing to learn.

    Args:
        policy: writes the prompts and the responses; a language model.
        given: text prompts.
        count: how many new ones.
        seed: of the prompts shown and of the samples.
        shown: prompts a question.
        template: the question, with {prompt} where the shown ones stand.
        max_tokens: length limit of a new prompt, and of a response to it.
        samples: of each new prompt.
        grader: what of a response is compared, and how.

    Raises:
        UserError: no text prompts, a template without {prompt}, no language model, or one whose
            context is too small for the question.
    """
    if not isinstance(policy, Language):
        raise UserError(
            f"{type(policy).__name__} is no language model", "give one that writes text"
        )
    asking.check_template(template, ("prompt",), "template")
    texts = [x.content for x in given if isinstance(x.content, str)]
    if not texts:
        raise UserError("no text prompts to learn from", "give some prompts as text")
    rng = np.random.default_rng(seed)
    known = [_pieces(x) for x in texts]
    names = {_letters(x) for x in texts}
    taken: list[Prompt] = []
    refused: Counter[str] = Counter()
    asked = 0
    while len(taken) < count and asked < MOST_ASKED * count:
        batch = min(2 * (count - len(taken)) + 2, MOST_ASKED * count - asked)
        wrote = _ask(policy, template, texts, shown, batch, max_tokens, rng, seed + asked)
        asked += batch
        fresh: list[Prompt] = []
        for text, finished in zip(wrote.text_R, wrote.finished_R, strict=True):
            reason = _known(text, bool(finished), names, known)
            if reason:
                refused[reason] += 1
                continue
            content = text.strip()
            names.add(_letters(content))
            known.append(_pieces(content))
            fresh.append(Prompt(prompt_id(content), content))
        if not fresh:
            continue
        for prompt, kinds in zip(
            fresh, distinct(policy, fresh, samples, seed, max_tokens, grader), strict=True
        ):
            if kinds == 1:
                refused["settled"] += 1
            elif len(taken) < count:
                taken.append(prompt)
    return NewPrompts(taken, dict(refused))


def command(config: ProbeConfig, count: int, out: Path) -> str:
    """``srlm instruct``: new prompts to a file, and a sentence about them.

    Raises:
        UserError: the file is there already, or as ``instruct``, ``load`` and ``prompts_for``.
    """
    if out.exists():
        raise UserError(f"{out}: exists already", "give another --out")
    if config.engine != EngineSettings():
        raise UserError(
            "srlm instruct with --engine or its settings: it samples in this process",
            "leave them out",
        )
    prompts, _, read, _ = prompts_for(config.prompts)
    made = instruct(
        load_for(config),
        prompts,
        count,
        seed=config.seed,
        max_tokens=config.max_tokens,
        samples=config.samples,
        grader=read,
    )
    rows = [{config.prompts.prompt_column: x.content} for x in made.prompts]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(out, text)
    refused = ", ".join(f"{n} {why}" for why, n in sorted(made.refused.items())) or "none"
    return f"{len(rows)} of {count} new prompts in {out}; refused: {refused}"


def distinct(
    policy: Policy,
    prompts: Sequence[Prompt],
    samples: int,
    seed: int,
    max_tokens: int,
    grader: Grader = EXACT,
) -> list[int]:
    """Distinct responses among the samples of each prompt; unparseable ones are one kind."""
    made = policy.sample(prompts, samples, seed=seed, max_tokens=max_tokens)
    kinds: list[set[str | None]] = [set() for _ in prompts]
    answer_R = grader.answers(made.text_R, made.finished_R, made.prompt_R)
    for p, answer in zip(made.prompt_R, answer_R, strict=True):
        kinds[p].add(answer)
    return [len(kind) for kind in kinds]


def likeness(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard index: pieces in both over pieces in either.

    >>> likeness(_pieces("Add 2 and 3."), _pieces("add 2 and 3"))
    1.0
    """
    either = len(one | other)
    return len(one & other) / either if either else 1.0


def _ask(
    policy: Policy,
    template: str,
    texts: Sequence[str],
    shown: int,
    batch: int,
    max_tokens: int,
    rng: np.random.Generator,
    seed: int,
) -> Samples:
    """What the policy writes to ``batch`` questions; one that is asked n times gets n samples."""
    assert isinstance(policy, Language)
    times: Counter[str] = Counter()
    for _ in range(batch):
        listed = SEPARATOR.join(texts[i] for i in rng.permutation(len(texts))[:shown])
        times[asking.fill(template, {"prompt": listed}, policy)] += 1
    questions = [asking.as_prompt(text) for text in times]
    if not asking.fits(policy, questions, max_tokens).all():
        raise UserError(
            f"{shown} prompts in the template and {max_tokens} tokens more do not fit the model's "
            f"context of {policy.context}",
            "give shorter prompts, show fewer at once or lower --max-tokens",
        )
    most = max(times.values())
    wrote = policy.sample(questions, most, seed=seed, max_tokens=max_tokens)
    return wrote.take(np.tile(np.arange(most), len(times)) < np.repeat(list(times.values()), most))


def _known(text: str, finished: bool, names: set[str], known: Sequence[frozenset[str]]) -> str:
    """Why a text is no new prompt; empty if it is one."""
    if not finished:
        return "unfinished"
    name = _letters(text)
    if not name:
        return "empty"
    if name in names:
        return "known"
    pieces = _pieces(text)
    return "alike" if any(likeness(pieces, other) >= ALIKE for other in known) else ""


def _letters(text: str) -> str:
    """Letters and figures in lower case, one space between words."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _pieces(text: str) -> frozenset[str]:
    plain = _letters(text)
    return frozenset(plain[i : i + PIECE] for i in range(max(1, len(plain) - PIECE + 1)))
