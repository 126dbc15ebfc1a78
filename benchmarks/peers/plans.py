"""Each side's plan to get to most of the headroom: where the search starts, what it may change."""

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
    "prompts": (128, 192, 256, 384, 512, 768, 1024, 2048, 4096),
    "lr": (5e-4, 7e-4, 1e-3, 1.4e-3, 2e-3, 2.8e-3, 4e-3, 5.6e-3),
    "epochs": (1, 2, 3, 4, 6),
    "prompts_per_step": (8, 12, 16, 24, 32, 48, 64, 96, 128),
    "draws": (2, 3, 4, 6, 8, 12),
}
BETA: Values = {"beta": (0.1, 0.2, 0.3, 0.5, 1.0, 3.0), "sft": (0.0, 1.0, 3.0, 10.0, 30.0)}
MU: Values = {"mu": (None, 0.5, 1.0, 2.0, 4.0)}
VALUES: dict[str, Values] = {
    "trl dpo": SCHEDULE | BETA | {"precompute": (True, False)},
    "trl sft": SCHEDULE,
    "ours best": SCHEDULE | MU,
    "ours": SCHEDULE | {"beta": (0.125, 0.25, 0.5, 1.0, 2.0)},
    "ours dpo": SCHEDULE | BETA,
}
"""What a side's search may set each number to; the others are as in ``Setting``."""
SETTING = Setting(lr=1.4e-3, epochs=4, prompts_per_step=24)
FIRST = {
    "trl dpo": Plan(256, replace(SETTING, draws=8, prompts_per_step=16, beta=0.1, sft=30.0)),
    "trl sft": Plan(768, replace(SETTING, draws=6, epochs=3, prompts_per_step=32)),
    "ours best": Plan(192, replace(SETTING, draws=3, mu=0.5)),
    "ours": Plan(192, replace(SETTING, draws=8, beta=0.5)),
    "ours dpo": Plan(
        1024, replace(SETTING, lr=2e-3, epochs=1, prompts_per_step=16, beta=0.1, sft=10.0)
    ),
}
"""What earlier searches came to: one over coarser values and to 90 %, then one like this."""


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
