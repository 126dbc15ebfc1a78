"""Samples of a run by prompt, a page at a time: responses, rewards, right or wrong.

Files are streamed, so memory is that of a page and of the prompts' texts. Texts are foreign: a page
escapes them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from srlm.data import prompts_of
from srlm.errors import UserError
from srlm.grading import Grader, grader, is_imported
from srlm.rows import Source
from srlm.run_folder import Run
from srlm.types import Prompt

PROMPTS, RESPONSES = 10, 16
"""On a page; distinct responses of a prompt, at most."""
LOOKED = 20_000
"""Responses that are looked at for a page, at most."""
LARGEST = 1 << 26
"""Bytes of a prompts' file that is still read; of larger ones the prompts' texts are not shown."""

Kind = Literal["training", "held-out"]


@dataclass(frozen=True, slots=True)
class Response:
    """A distinct response of a prompt."""

    text: str
    count: int
    finished: bool
    logp: float
    """log pi(y|x), nats."""
    reward: float | None
    """None where it has none, or none is recorded: of held-out samples, and where pairs left it
    out."""
    right: bool | None


@dataclass(frozen=True, slots=True)
class Shown:
    """A prompt and its responses, the highest rewards first."""

    prompt_id: str
    prompt: str | None
    answers: tuple[str, ...]
    samples: int
    responses: tuple[Response, ...]
    more: int
    """Distinct responses that are left out."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of prompts."""

    prompts: tuple[Shown, ...]
    next: int | None
    """``Query.first`` of the next page; None at the end."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which samples are asked for."""

    round: int
    kind: Kind = "training"
    words: str = ""
    """That the prompt's text holds, whatever their case."""
    right: bool | None = None
    low: float | None = None
    """Reward, at least."""
    high: float | None = None
    first: int = 0
    """Number of the prompt to begin with."""


class Texts:
    """Prompts by their ids, and how their answers are read; of one run."""

    def __init__(self, run: Run) -> None:
        self._training: dict[str, Prompt] = {}
        spec = str(run.config.get("prompts.answer", "auto"))
        self.grader: Grader | None = None
        files = run.inputs()
        if sum(len(data) for _, data in files) <= LARGEST and files:
            column, answer = (
                str(run.config.get(f"prompts.{x}", x.removesuffix("_column")))
                for x in ("prompt_column", "answer_column")
            )
            found = prompts_of(
                Source("inputs", tuple(files), ""), prompt_column=column, answer_column=answer
            )
            self._training = {x.id: x for x in found}
        if not is_imported(spec):  # code that a folder names is not run
            self.grader = grader(spec, list(self._training.values()))

    def of(self, run: Run, query: Query) -> Mapping[str, Prompt]:
        """The prompts that a query is about, as far as they are known."""
        if query.kind == "training":
            return self._training
        known = [r.table for r in run.rounds if r.round == query.round and r.table is not None]
        return {
            i: Prompt(i, text, answers)
            for table in known
            for i, text, answers in zip(table.prompt_id, table.prompt, table.answers, strict=True)
        }


def look(run: Run, texts: Texts, query: Query) -> Page:
    """The prompts of a page. Reads on until the page is full, or ``LOOKED`` responses were seen."""
    name = "samples.parquet" if query.kind == "training" else "held_out.parquet"
    known = texts.of(run, query)
    rewards = _following(run.by_prompt(query.round, "pairs.parquet", query.first))
    found: list[Shown] = []
    looked = 0
    for rows in run.by_prompt(query.round, name, query.first):
        number = rows[0]["prompt"]
        if len(found) == PROMPTS or looked >= LOOKED:
            return Page(tuple(found), number)
        looked += len(rows)
        at = rewards(number) if query.kind == "training" else []
        shown = _shown(rows, at, known.get(rows[0]["prompt_id"]), texts.grader, query)
        if shown is not None:
            found.append(shown)
    return Page(tuple(found), None)


def _following(parts: Iterator[list[dict[str, Any]]]) -> Callable[[int], list[dict[str, Any]]]:
    """The rows of a prompt, where prompts are asked for in rising order."""
    ahead: list[dict[str, Any]] = next(parts, [])

    def rows(number: int) -> list[dict[str, Any]]:
        nonlocal ahead
        while ahead and ahead[0]["prompt"] < number:
            ahead = next(parts, [])
        return ahead if ahead and ahead[0]["prompt"] == number else []

    return rows


def _shown(
    rows: list[dict[str, Any]],
    rewarded: list[dict[str, Any]],
    prompt: Prompt | None,
    read: Grader | None,
    query: Query,
) -> Shown | None:
    """A prompt as a query asks for it; None where it does not."""
    text = None if prompt is None else _text(prompt.content)
    if query.words.casefold() not in (text or rows[0]["prompt_id"]).casefold():
        return None
    reward = {tuple(row["tokens"]): row["reward"] for row in rewarded}
    counts = Counter((tuple(row["tokens"]), row["finished"]) for row in rows)
    first = {(tuple(row["tokens"]), row["finished"]): row for row in reversed(rows)}
    answers = () if prompt is None else prompt.answers
    made = []
    for key, count in counts.items():
        row, value = first[key], reward.get(key[0])
        if query.low is not None and (value is None or value < query.low):
            continue
        if query.high is not None and (value is None or value > query.high):
            continue
        right = None
        if answers and read is not None:
            right = read.right(read.read(row["text"], row["finished"]), answers)
        if query.right is None or right == query.right:
            made.append(Response(row["text"], count, key[1], row["logp"], value, right))
    if not made:
        return None
    made.sort(key=lambda r: (r.reward is None, -(r.reward or 0.0), -r.count, -r.logp))
    return Shown(
        rows[0]["prompt_id"], text, answers, len(rows), tuple(made[:RESPONSES]),
        max(0, len(made) - RESPONSES),
    )  # fmt: skip


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def asked(parameters: Mapping[str, str], latest: int) -> Query:
    """A query as a page sends it.

    Raises:
        UserError: a number that is none, or a round that has no samples.
    """

    def numbered(name: str) -> float | None:
        text = parameters.get(name, "").strip()
        try:
            return float(text) if text else None
        except ValueError:
            raise UserError(f"{name}: {text[:40]!r} is no number", "give one, or none") from None

    t, first = numbered("round"), numbered("first")
    kind: Kind = "held-out" if parameters.get("kind") == "held-out" else "training"
    if not all(x is None or abs(x) < 1e15 for x in (t, first)):  # neither huge nor not a number
        raise UserError("round or first: no such number", "give a smaller one")
    return Query(
        round=latest if t is None else int(t),
        kind=kind,
        words=parameters.get("words", "")[:500],
        right={"right": True, "wrong": False}.get(parameters.get("right", "")),
        low=numbered("low"),
        high=numbered("high"),
        first=0 if first is None else int(first),
    )
