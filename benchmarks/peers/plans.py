"""Each side's plan to get to most of the headroom: where the search starts, what it may change."""

from __future__ import annotations

import fcntl
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
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
    "trl dpo sigmoid": SCHEDULE | {"beta": BETA["beta"]} | {"precompute": (True, False)},
    "trl sft": SCHEDULE,
    "ours best": SCHEDULE | MU,
    "ours": SCHEDULE | {"beta": (0.125, 0.25, 0.5, 1.0, 2.0)},
    "ours dpo": SCHEDULE | BETA,
}
"""What a side's search may set each number to; the others are as in ``Setting``."""
SETTING = Setting(lr=1.4e-3, epochs=4, prompts_per_step=24)
FIRST = {
    "trl dpo": Plan(256, replace(SETTING, draws=8, prompts_per_step=16, beta=0.1, sft=30.0)),
    "trl dpo sigmoid": Plan(
        1024, replace(SETTING, lr=1e-3, draws=4, epochs=2, prompts_per_step=32, beta=1.0)
    ),
    "trl sft": Plan(384, replace(SETTING, draws=8)),
    "ours best": Plan(192, replace(SETTING, draws=3, mu=0.5)),
    "ours": Plan(192, replace(SETTING, draws=6, epochs=3, prompts_per_step=12, beta=0.5)),
    "ours dpo": Plan(192, replace(SETTING, draws=8, prompts_per_step=16, beta=0.1, sft=30.0)),
}
"""What earlier searches came to: one over coarser values and to 90 %, then two like this."""
ALSO = {
    "trl dpo": (Plan(192, FIRST["trl dpo"].setting),),
    "trl dpo sigmoid": (
        FIRST["trl dpo sigmoid"].changed(prompts=4096, prompts_per_step=128),
        Plan(192, replace(SETTING, lr=7e-4, draws=8, epochs=2, prompts_per_step=8, beta=1.0)),
    ),
    "ours best": (FIRST["ours best"].changed(prompts=128, prompts_per_step=12),),
    "ours": (FIRST["ours"].changed(draws=8, lr=2e-3),),
}
"""What they found sooner and less sure."""
SOONER = ", sooner"
"""What is added to a side's name for its plan that is sooner and less sure."""
OFTEN = 2 / 3
"""Of its runs, in which such a plan got to the share."""


def written() -> dict[str, Any]:
    """The searches' results, as far as they are there."""
    return json.loads(TUNING.read_text(encoding="utf-8")) if TUNING.is_file() else {}


def plan_of(name: str) -> Plan:
    """What the search of a side found, else where it would start."""
    found = written().get("sides", {}).get(name, {})
    return FIRST[name].changed(**found.get("best", {}))


def sooner_of(name: str) -> Plan:
    """Of a side's confirmed plans that got to the share in ``OFTEN`` of their runs, the one with
    the least mean seconds where they did; where none is confirmed, ``plan_of``."""
    tried = written().get("sides", {}).get(name, {}).get("tried", [])
    most = max((len(x["runs"]) for x in tried), default=0)
    often = [x for x in tried if len(x["runs"]) == most > 1 and len(_got_there(x)) >= OFTEN * most]
    if not often:
        return plan_of(name)
    found = min(often, key=lambda x: fmean(_got_there(x)))
    return FIRST[name].changed(**{k: v for k, v in found.items() if k != "runs"})


def _got_there(tried: dict[str, Any]) -> list[float]:
    """Seconds of a plan's runs that got to the share."""
    return [r["seconds"] for r in tried["runs"] if r["seconds"] is not None]


def compared() -> dict[str, tuple[str, Plan]]:
    """Name shown -> side and plan: what each search found, and its sooner plan where that is
    another one."""
    out = {}
    for name in VALUES:
        plan, sooner = plan_of(name), sooner_of(name)
        out[name] = (name, plan)
        if sooner != plan:
            out[name + SOONER] = (name, sooner)
    return out


def set_against(names: Sequence[str]) -> list[tuple[str, str]]:
    """TRL's sides over ours: every plan of TRL's over each of ours that is as sure, and its sooner
    plans over our sure ones too.

    >>> set_against(("trl", "trl, sooner", "ours", "ours, sooner"))[:2]
    [('trl', 'ours'), ('trl, sooner', 'ours')]
    >>> set_against(("trl", "trl, sooner", "ours", "ours, sooner"))[2:]
    [('trl, sooner', 'ours, sooner')]
    """
    ours = [n for n in names if n.startswith("ours")]
    others = [n for n in names if n not in ours]
    return [
        (other, mine)
        for other in others
        for mine in ours
        if other.endswith(SOONER) or not mine.endswith(SOONER)
    ]


def add(name: str, known: dict[str, Any], about: dict[str, Any]) -> None:
    """Write what is known of a side; searches of several sides may run at once."""
    with LOCK.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = written() | about
        result["sides"] = result.get("sides", {}) | {name: known}
        TUNING.write_text(json.dumps(result) + "\n", encoding="utf-8")
