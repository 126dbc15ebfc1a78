"""What the studies share: a clock for stages, opening a run's model, and where results go."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from srlm.config import RunConfig
from srlm.data import read_prompts, split
from srlm.policies.base import Policy
from srlm.policies.load import load
from srlm.progress import Bar
from srlm.types import Prompt
from srlm.writing import write_text

HERE = Path(__file__).parent


class Clock:
    """Stands for ``Progress`` and keeps the processor seconds of the stages that train."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[Bar]:
        """Time a stage; its name begins with the round that it makes."""
        begun = time.process_time()
        yield Bar(lambda _: None)
        if "measure" not in name:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - begun

    @property
    def total(self) -> float:
        """Of all stages so far."""
        return sum(self.seconds.values())

    def of_round(self, t: int) -> float:
        """Of the stages that made round t."""
        return sum(s for name, s in self.seconds.items() if name.startswith(f"round {t}:"))


def opened(config: RunConfig, folder: str = "") -> tuple[Policy, list[Prompt], list[Prompt]]:
    """A policy (the base, if no folder is named) and the prompts of a run."""
    policy = load(folder or config.model, device="cpu", dtype=config.dtype)
    return policy, *split(read_prompts(config.prompts.file), config.prompts.held_out)


def kept(name: str) -> dict[str, Any]:
    """A study's results as they were written."""
    found: dict[str, Any] = json.loads((HERE / f"results/{name}.json").read_text(encoding="utf-8"))
    return found


def write(name: str, result: dict[str, Any], page: str) -> None:
    """A study's results and its page in docs/."""
    write_text(HERE / f"results/{name}.json", json.dumps(result, indent=1) + "\n")
    write_text(HERE.parent / f"docs/{name}.md", page)
