"""Each side's plan to get to 90 % of the headroom: where the search starts, what it may change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .schedule import Plan
from .searching import Values
from .side import Setting

TUNING = Path(__file__).parents[1] / "results/reaching_tuning.json"

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
DPO = Setting(lr=1e-3, beta=1.0, sft=10.0, prompts_per_step=64)
FIRST = {
    "trl dpo": Plan(1024, DPO),
    "trl sft": Plan(1024, Setting(lr=1e-3, prompts_per_step=64)),
    "ours best": Plan(1024, Setting(lr=1e-3, prompts_per_step=64)),
    "ours": Plan(1024, Setting(lr=2e-3, beta=1.0, prompts_per_step=64)),
    "ours dpo": Plan(1024, DPO),
}
"""The learning rates, betas and likelihood weights that benchmarks/round.py was tuned to."""


def written() -> dict[str, Any]:
    """The searches' results, as far as they are there."""
    return json.loads(TUNING.read_text(encoding="utf-8")) if TUNING.is_file() else {}


def plan_of(name: str) -> Plan:
    """What the search of a side found, else where it would start."""
    found = written().get("sides", {}).get(name, {})
    return FIRST[name].changed(**found.get("best", {}))
