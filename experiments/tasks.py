"""Tasks for a small pretrained model: short responses, answers that are checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Task:
    """Prompts with answers, and how they are asked.

    Attributes:
        made: ``(count, seed)`` to lines of ``prompt`` and ``answer``, all different.
        answer: ``--answer``.
        max_tokens: Length limit of a response.
    """

    made: Callable[[int, int], list[dict[str, Any]]]
    answer: str
    max_tokens: int


def shown(examples: list[tuple[str, str]], question: str) -> Messages:
    """A chat in which the questions before were answered shortly: the model then does so too."""
    turns = [
        {"role": role, "content": text}
        for pair in examples
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return [*turns, {"role": "user", "content": question}]


def sums(count: int, seed: int) -> list[dict[str, Any]]:
    """Two numbers from 1 to 12."""
    examples = [("What is 3 + 14?", "17"), ("What is 15 + 9?", "24")]
    chosen = np.random.default_rng(seed).permutation(144)[:count]
    pairs = [(i // 12 + 1, i % 12 + 1) for i in chosen.tolist()]
    return [
        {"prompt": shown(examples, f"What is {a} + {b}?"), "answer": str(a + b)} for a, b in pairs
    ]


def letters(count: int, seed: int) -> list[dict[str, Any]]:
    """reasoning-gym's letter counting in two or three words."""
    import reasoning_gym

    ask = 'How many times does the letter "{}" appear in the text: "{}"?'
    examples = [(ask.format("e", "free tree"), "4"), (ask.format("a", "a man"), "2")]
    entries = reasoning_gym.create_dataset(
        "letter_counting", size=3 * count, seed=seed, min_words=2, max_words=3
    )
    found = {entry["question"]: str(entry["answer"]) for entry in entries}
    return [{"prompt": shown(examples, q), "answer": a} for q, a in list(found.items())[:count]]


def greater(count: int, seed: int) -> list[dict[str, Any]]:
    """Whether the first of two different numbers below 100 is greater, yes or no."""
    ask = "Is {} greater than {}? Answer yes or no."
    examples = [(ask.format(7, 31), "no"), (ask.format(50, 12), "yes")]
    pairs = [(a, b) for a in range(100) for b in range(100) if a != b]
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:count]
    return [
        {"prompt": shown(examples, ask.format(a, b)), "answer": "yes" if a > b else "no"}
        for a, b in (pairs[i] for i in chosen)
    ]


def minus(count: int, seed: int) -> list[dict[str, Any]]:
    """A number up to 20 less a smaller one."""
    examples = [("What is 14 - 9?", "5"), ("What is 20 - 3?", "17")]
    pairs = [(a, b) for a in range(2, 21) for b in range(1, a)]
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:count]
    return [
        {"prompt": shown(examples, f"What is {a} - {b}?"), "answer": str(a - b)}
        for a, b in (pairs[i] for i in chosen)
    ]


def products(count: int, seed: int) -> list[dict[str, Any]]:
    """Two numbers from 1 to 12."""
    examples = [("What is 3 x 4?", "12"), ("What is 7 x 5?", "35")]
    chosen = np.random.default_rng(seed).permutation(144)[:count]
    pairs = [(i // 12 + 1, i % 12 + 1) for i in chosen.tolist()]
    return [
        {"prompt": shown(examples, f"What is {a} x {b}?"), "answer": str(a * b)} for a, b in pairs
    ]


def largest(count: int, seed: int) -> list[dict[str, Any]]:
    """Of four numbers below 100."""
    ask = "Which is the largest of {}, {}, {} and {}?"
    examples = [(ask.format(12, 45, 31, 7), "45"), (ask.format(8, 3, 19, 16), "19")]
    rng = np.random.default_rng(seed)
    rows = [(rng.choice(99, 4, replace=False) + 1).tolist() for _ in range(count)]
    return [{"prompt": shown(examples, ask.format(*x)), "answer": str(max(x))} for x in rows]


TASKS: dict[str, Task] = {
    "sums": Task(sums, "last-number", 12),
    "letters": Task(letters, "last-number", 12),
    "greater": Task(greater, "yes-no", 12),
}
"""Trained on."""
MORE_TASKS: dict[str, Task] = {
    "minus": Task(minus, "last-number", 12),
    "products": Task(products, "last-number", 12),
    "largest": Task(largest, "last-number", 12),
}
"""Whose votes alone are looked at."""
