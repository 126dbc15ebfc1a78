"""From responses to counts: what is kept of each prompt's samples, without their texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from srlm.data import answers_of, read_prompts
from srlm.engines.files import SHOWN, Sampled, SamplesFile
from srlm.errors import UserError
from srlm.forecast.answers import Counts
from srlm.grading import Grader
from srlm.types import Floats, Prompt, Samples

LONG = 200
"""Characters of an answer that is kept as it is; longer ones are kept as a hash."""
LOOKED_AT = 10_000
"""Responses among whose right answers ``--answer auto`` looks."""
Known = Mapping[str, tuple[str, ...]]
"""Right answers, any of which is right, by a prompt's text or key."""


@dataclass(slots=True)
class Tally:
    """The samples of one prompt, without their texts."""

    key: str
    prompt: str | None
    references: tuple[str, ...]
    """Right answers; empty where none is known."""
    names: dict[str, int] = field(default_factory=dict)
    """Number of each distinct answer."""
    others: int = 0
    """Samples whose file names other right answers: not used."""
    right: set[int] = field(default_factory=set)
    answer_K: list[int] = field(default_factory=list)
    """Answer of each sample, in order; negative where none can be read, equal for equal texts."""
    logp_K: list[float | None] = field(default_factory=list)
    tokens_K: list[int | None] = field(default_factory=list)
    scores_K: dict[str, list[float]] = field(default_factory=dict)
    """Rewards of each sample by name; not-a-number where one is missing."""
    cut: int = 0
    unsaid: int = 0
    """Samples of which it is not said whether they were cut off."""
    text: int = 0
    """Hash of the first text."""
    varied: bool = False
    """Whether two texts differ."""
    unread: dict[int, int] = field(default_factory=dict)
    """Number of each distinct text without an answer, -1 and down, by its hash."""

    def counts(self) -> Counts:
        """How often each answer was given; spellings that are all right count as one."""
        answer_K = np.array(self.answer_K, dtype=np.int64)
        count_A = np.bincount(answer_K[answer_K >= 0], minlength=len(self.names))
        alike_U = np.bincount(-1 - answer_K[answer_K < 0])
        silent, alike = int(alike_U.sum()), int(alike_U.max(initial=0))
        if not self.references:
            return Counts(count_A.astype(np.int64), None, silent, self.cut, alike)
        wrong = [int(n) for a, n in enumerate(count_A) if a not in self.right]
        hits = int(sum(count_A[a] for a in self.right))
        if not hits:
            return Counts(np.array(wrong, dtype=np.int64), -1, silent, self.cut, alike)
        return Counts(np.array([hits, *wrong], dtype=np.int64), 0, silent, self.cut, alike)


def tallies(
    rows: Iterable[Sampled],
    grader: Grader,
    known: Known | None = None,
    *,
    before: Sequence[Tally] = (),
) -> list[Tally]:
    """Count the answers of each prompt. One response is in memory at a time.

    Args:
        rows: responses in any order.
        grader: reads answers and compares them; a response that was cut off has none.
        known: right answers, where the rows have none.
        before: prompts that rows are added to.
    """
    found = {tally.key: tally for tally in before}
    for row in rows:
        tally = found.get(row.key)
        if tally is None:
            tally = found[row.key] = Tally(row.key, row.prompt, (), text=hash(row.text))
            if not row.answers and known:
                tally.references = known.get(row.prompt or "", known.get(row.key, ()))
        if row.answers and not tally.references:
            tally.references = row.answers
            tally.right = {n for name, n in tally.names.items() if grader.right(name, row.answers)}
        elif row.answers and not known and row.answers != tally.references:
            tally.others += 1
        answer = grader.read(row.text, row.finished is not False)
        if answer is None:
            number = tally.unread.setdefault(hash(row.text), -1 - len(tally.unread))
        else:
            name = grader.normal(answer)
            if len(name) > LONG:
                name = f"a long answer, sha256 {hashlib.sha256(name.encode()).hexdigest()}"
            new = name not in tally.names
            number = tally.names.setdefault(name, len(tally.names))
            if new and tally.references and grader.right(answer, tally.references):
                tally.right.add(number)
        for reward, score in (row.scores or {}).items():
            tally.scores_K.setdefault(reward, []).append(score)
        tally.answer_K.append(number)
        tally.logp_K.append(row.logp)
        tally.tokens_K.append(row.tokens)
        tally.cut += row.finished is False
        tally.unsaid += row.finished is None
        tally.varied |= hash(row.text) != tally.text
    return [found[key] for key in sorted(found)]


def rows_of(
    prompts: Sequence[Prompt], samples: Samples, scores: Mapping[str, Floats]
) -> Iterator[Sampled]:
    """A policy's samples as the rows of a file; a prompt's key is its id.

    Args:
        prompts: those that the samples count.
        scores: rewards by name, [R].
    """
    for r, p in enumerate(samples.prompt_R.tolist()):
        yield Sampled(
            key=prompts[p].id,
            prompt=None,
            answers=None,
            text=samples.text_R[r],
            logp=float(samples.logp_R[r]),
            tokens=len(samples.tokens_R[r]),
            finished=bool(samples.finished_R[r]),
            scores={name: float(score_R[r]) for name, score_R in scores.items()},
        )


def references(file: SamplesFile, known: Known | None = None) -> list[Prompt]:
    """Right answers that tell how to read them: ``known``, or those of a file's first prompts."""
    if known:
        return [Prompt(key, key, right) for key, right in known.items()]
    rows = islice(file, LOOKED_AT)
    return [Prompt(row.key, row.prompt, row.answers) for row in rows if row.answers]


def known_answers(path: Path) -> dict[str, tuple[str, ...]]:
    """Right answers by prompt text and by prompt id, or by the ids of requests, from a file.

    Lines with ``id`` (or ``custom_id``) and ``answer`` but no prompt are about a batch's requests.

    Raises:
        UserError: as ``srlm.data.read_prompts``.
    """
    by_id: dict[str, tuple[str, ...]] = {}
    bad = []
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row: Any = json.loads(line)
            except ValueError:
                break
            if not isinstance(row, dict):
                break
            key = row.get("custom_id", row.get("id"))
            if key is None or "prompt" in row or "answer" not in row:
                break
            try:
                right = answers_of(row["answer"], "answer")
            except ValueError as error:
                bad.append(f"line {number}: {error}")
                continue
            if right and by_id.setdefault(str(key), right) != right:
                bad.append(f"line {number}: {key} again, with another answer")
        else:
            if bad:
                more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
                raise UserError(
                    f"{path}: {len(bad)} bad lines ({'; '.join(bad[:SHOWN])}{more})",
                    "give each id one answer, or a list of which any is right",
                )
            if by_id:
                return by_id
    out: dict[str, tuple[str, ...]] = {}
    for x in read_prompts(path):
        if x.answers:
            text = x.content
            text = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
            out[text] = out[x.id] = x.answers
    return out
