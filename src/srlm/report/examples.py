"""Prompts worth reading: the same choice for the same folder, and the rule is stated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from srlm.run_folder import Run
from srlm.types import Floats, PromptTable

EACH = 3
"""Examples of a kind."""


@dataclass(frozen=True, slots=True)
class Response:
    """What a policy answers to a prompt."""

    mode: str | None
    """None where it is not known."""
    greedy: str | None
    p_star: float
    certified: bool
    right: bool | None
    """Whether the mode is the answer; None where there is none."""
    sampling_accuracy: float | None


@dataclass(frozen=True, slots=True)
class Example:
    """One held-out prompt at the start and at the end. Texts are as read: hostile, not escaped."""

    prompt_id: str
    prompt: str
    answer: str | None
    before: Response
    after: Response


@dataclass(frozen=True, slots=True)
class Group:
    """Examples of a kind, with the rule that chose them and how many there were to choose from."""

    title: str
    rule: str
    of: int
    examples: tuple[Example, ...]


def choose(run: Run) -> tuple[Group, ...]:
    """Improved, broken and unchanged prompts; empty without tables at both ends."""
    start, end = run.rounds[0].table, run.rounds[-1].table
    if start is None or end is None or len(run.rounds) == 1 or start.prompt_id != end.prompt_id:
        return ()
    if run.has_answers:
        gain = end.sampling_accuracy - start.sampling_accuracy
        known = np.isfinite(gain)
        rules = (
            ("Improved", "largest gains in sampling accuracy", known & (gain > 0.05), -gain),
            ("Broken", "largest losses in sampling accuracy", known & (gain < -0.05), gain),
            ("Unchanged", "sampling accuracy within 0.05, in hash order",
             known & (np.abs(gain) <= 0.05), np.zeros(len(gain))),
        )  # fmt: skip
    else:
        gain = end.p_star - start.p_star
        same = np.array([a == b for a, b in zip(start.mode_text, end.mode_text, strict=True)])
        rules = (
            ("Surer of the same response", "largest gains in p*, same mode",
             same & (gain > 0.05), -gain),
            ("Another mode", "the most likely response changed, surest first",
             ~same, -end.p_star),
            ("Unchanged", "same mode, p* within 0.05, in hash order",
             same & (np.abs(gain) <= 0.05), np.zeros(len(gain))),
        )  # fmt: skip
    order = [hashlib.sha256(i.encode("utf-8", "surrogatepass")).digest() for i in start.prompt_id]
    example: Callable[[int], Example] = lambda row: _example(start, end, row)  # noqa: E731
    return tuple(
        Group(title, rule, int(mask.sum()), tuple(map(example, _first(mask, key, order))))
        for title, rule, mask, key in rules
    )


def _first(mask: np.ndarray, key: Floats, order: list[bytes]) -> list[int]:
    rows = [int(i) for i in np.flatnonzero(mask)]
    return sorted(rows, key=lambda i: (round(float(key[i]), 9), order[i]))[:EACH]


def _example(start: PromptTable, end: PromptTable, row: int) -> Example:
    return Example(
        prompt_id=start.prompt_id[row],
        prompt=start.prompt[row],
        answer=" or ".join(start.answers[row]) or None,
        before=_response(start, row),
        after=_response(end, row),
    )


def _response(table: PromptTable, row: int) -> Response:
    right, accuracy = table.mode_correct[row], table.sampling_accuracy[row]
    return Response(
        mode=table.mode_text[row],
        greedy=table.greedy_text[row],
        p_star=float(table.p_star[row]),
        certified=bool(table.certified[row]),
        right=None if np.isnan(right) else bool(right),
        sampling_accuracy=None if np.isnan(accuracy) else float(accuracy),
    )
