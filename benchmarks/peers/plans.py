"""Each side's plan to get to 90 % of the headroom: where the search starts, what it may change."""

from __future__ import annotations

import fcntl
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from .schedule import Plan
from .searching import Values
from .side import Setting

TUNING = Path(__file__).parents[1] / "results/reaching_tuning.json"
LOCK = Path(tempfile.gettempdir()) / "srlm-reaching-tuning.lock"

SCHEDULE: Values = {
    "prompts": (256, 512, 1024, 2048, 4096),
    "lr": (5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
    "epochs": (1, 2, 3),
    "prompts_per_step": (16, 32, 64, 128),
    "draws": (2, 4, 8),
}
BETA: Values = {"beta": (0.1, 0.3, 1.0, 3.0), "sft": (0.0, 1.0, 10.0)}
MU: Values = {"mu": (None, 0.5, 1.0, 2.0, 4.0)}
VALUES: dict[str, Values] = {
    "trl dpo": SCHEDULE | BETA | {"precompute": (True, False)},
    "trl sft": SCHEDULE,
    "ours best": SCHEDULE | MU,
    "ours": SCHEDULE | {"beta": (0.125, 0.25, 0.5, 1.0, 2.0)},
    "ours dpo": SCHEDULE | BETA,
}
"""What a side's search may set each number to; the others are as in ``Setting``."""
DPO = Setting(lr=2e-3, beta=0.1, sft=10.0, prompts_per_step=16, epochs=1)
SFT = Setting(lr=2e-3, prompts_per_step=32)
FIRST = {
    "trl dpo": Plan(1024, replace(DPO, draws=8)),
    "trl sft": Plan(512, SFT),
    "ours best": Plan(512, SFT),
    "ours": Plan(1024, replace(SFT, beta=1.0, epochs=1)),
    "ours dpo": Plan(1024, DPO),
}
"""What a first search on one base alone came to, about."""


def written() -> dict[str, Any]:
    """The searches' results, as far as they are there."""
    return json.loads(TUNING.read_text(encoding="utf-8")) if TUNING.is_file() else {}


def plan_of(name: str) -> Plan:
    """What the search of a side found, else where it would start."""
    found = written().get("sides", {}).get(name, {})
    return FIRST[name].changed(**found.get("best", {}))


def add(name: str, known: dict[str, Any], about: dict[str, Any]) -> None:
    """Write what is known of a side; searches of several sides may run at once."""
    with LOCK.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = written() | about
        result["sides"] = result.get("sides", {}) | {name: known}
        TUNING.write_text(json.dumps(result) + "\n", encoding="utf-8")
