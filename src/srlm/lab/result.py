"""What a claim's experiment hands back: figures, numbers, a verdict and the number behind it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from srlm.lab import CLAIMS
from srlm.types import Estimate

Verdict = Literal["holds", "holds, loose by a factor", "violated", "not testable here"]
VERDICTS: tuple[str, ...] = get_args(Verdict)


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim, tried on an instance."""

    claim: str
    """Its id, as in ``srlm.lab.CLAIMS``."""
    instance: str
    """What it was tried on, with all sizes."""
    figures: list[dict[str, Any]]
    """Rows of the table; every row has the same columns. Numbers, text or None."""
    numbers: dict[str, Estimate | float]
    verdict: Verdict
    because: str
    """The number behind the verdict, in a sentence."""
    says: str = ""
    """What the bound says, in words."""
    seen: str = ""
    """What was measured, in words, and no more than that."""
    plot: dict[str, Any] = field(default_factory=dict)
    """A plotly figure as data: {"data": [...], "layout": {...}}."""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"{self.verdict!r} is no verdict")
        if any(row.keys() != self.figures[0].keys() for row in self.figures):
            raise ValueError(f"{self.claim}: rows of the table differ in their columns")

    @property
    def statement(self) -> str:
        """What is claimed."""
        return CLAIMS[self.claim].statement

    @property
    def source(self) -> str:
        """Tags of theory.md, theorem or section number."""
        return CLAIMS[self.claim].source

    def to_json(self) -> str:
        """JSON text; not-a-number and infinities become null."""
        data: dict[str, Any] = {"statement": self.statement, "source": self.source}
        data |= {name: getattr(self, name) for name in self.__dataclass_fields__}
        data["numbers"] = {
            name: {"estimate": asdict(x)} if isinstance(x, Estimate) else x
            for name, x in self.numbers.items()
        }
        return json.dumps(plain(data), ensure_ascii=False, allow_nan=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Finding:
        """The inverse of ``to_json``.

        >>> row = {"n": 1, "value": 0.5}
        >>> one = Finding("rate", "i", [row], {"slope": -0.5}, "holds", "b")
        >>> Finding.from_json(one.to_json()) == one
        True
        """
        data = json.loads(text)
        del data["statement"], data["source"]
        data["numbers"] = {
            name: Estimate(**x["estimate"]) if isinstance(x, dict) else x
            for name, x in data["numbers"].items()
        }
        return cls(**data)


def plain(value: Any) -> Any:
    """Lists, dicts, text and finite Python numbers, from numpy's and from tuples.

    >>> plain({"a": np.float64(0.5), "b": (np.int64(1), float("inf"))})
    {'a': 0.5, 'b': [1, None]}
    """
    if isinstance(value, dict):
        return {str(key): plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(x) for x in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
