"""Which prompts of a measurement a person should read, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from srlm.forecast.make import Forecast


EACH = 6
"""Prompts shown of a kind."""


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt. Texts are as read: hostile, not escaped."""

    prompt: str
    answer: str | None
    mode_text: str | None
    mode_correct: bool | None
    greedy_text: str | None
    greedy_correct: bool | None
    p_star: float
    certified: bool
    sampling_accuracy: float | None


@dataclass(frozen=True, slots=True)
class Listed:
    """Prompts of a kind, and what the kind means."""

    title: str
    why: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """The modes for a person to read."""

    commonest: tuple[tuple[str, int, float], ...]
    """A mode that several prompts share, how many, which share of all."""
    distinct: int
    """Distinct modes."""
    lists: tuple[Listed, ...]


def to_read(found: Forecast) -> Reading:
    """Commonest modes; prompts whose mode is wrong, whose greedy response differs, least sure."""
    data = found.measurement.table
    p_star_P = np.array(data["p_star"])
    wrong = [p for p, right in enumerate(data["mode_correct"]) if right is False]
    differ = [p for p, same in enumerate(data["greedy_is_mode"]) if same is False]
    lists = (
        _listed(found, f"Mode wrong: {len(wrong)} prompts, surest first",
                "Self-rewarding makes the policy surer of exactly these.", wrong, -p_star_P),
        _listed(found, f"Greedy response differs: {len(differ)} prompts",
                "Greedy decoding does not show where self-rewarding leads on these.",
                differ, p_star_P),
        _listed(found, "Least sure", "Lowest p*.", range(len(p_star_P)), p_star_P),
    )  # fmt: skip
    counts = Counter(m for m in data["mode_text"] if m is not None)
    common = [(m, n) for m, n in sorted(counts.items(), key=lambda x: (-x[1], x[0])) if n > 1]
    return Reading(
        tuple((m, n, n / len(p_star_P)) for m, n in common[:EACH]),
        len(counts),
        tuple(each for each in lists if each.rows),
    )


def _listed(
    found: Forecast, title: str, why: str, chosen: Iterable[int], key_P: np.ndarray
) -> Listed:
    data, asked = found.measurement.table, found.measurement.prompts
    rows = [
        Row(
            prompt=str(asked[p].content),
            answer=" or ".join(asked[p].answers) or None,
            mode_text=data["mode_text"][p],
            mode_correct=data["mode_correct"][p],
            greedy_text=data["greedy_text"][p],
            greedy_correct=data["greedy_correct"][p],
            p_star=data["p_star"][p],
            certified=bool(data["certified"][p]),
            sampling_accuracy=data["sampling_accuracy"][p],
        )
        for p in sorted(chosen, key=lambda p: (key_P[p], p))[:EACH]
    ]
    return Listed(title, why, tuple(rows))
