"""Learning rate, beta and TRL's likelihood term, tuned on a seed that is not reported.

Every point of a side's grid gets one round; the best ``KEPT`` go on to ``ROUNDS``, and the one
with the most headroom captured then is taken.
"""

from __future__ import annotations

import json
from typing import Any

from srlm.loop import derived

from . import ground, table
from .side import Setting

SEED, ROUNDS, KEPT, PROMPTS = 10, 3, 3, 4096


def tune(names: list[str], environment: dict[str, Any]) -> None:
    """Tune the named sides; results are added to the file after each."""
    place = ground.demo(SEED, PROMPTS)
    start, mode = place.accuracy(place.model), place.mode_accuracy()
    for name in names:
        table.imported(name)
        tried = [_Point(name, place, changes) for changes in table.GRIDS[name]]
        for point in tried:
            point.go_on(start, mode)
        tried.sort(key=lambda p: p.headroom[-1], reverse=True)
        for point in tried[:KEPT]:
            while len(point.headroom) < ROUNDS:
                point.go_on(start, mode)
        best = max(tried[:KEPT], key=lambda p: p.headroom[-1])
        result = table.tuned() | {
            "environment": environment,
            "seed": SEED,
            "prompts": PROMPTS,
            "rounds": ROUNDS,
        }
        result["sides"] = result.get("sides", {}) | {
            name: {
                "best": best.changes,
                "tried": [p.changes | {"headroom": p.headroom, "seconds": p.took} for p in tried],
            }
        }
        table.TUNING.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {best.changes}, headroom {best.headroom}", flush=True)


class _Point:
    """A setting in trial."""

    def __init__(self, name: str, place: ground.Ground, changes: dict[str, float]) -> None:
        self.name, self.place, self.changes = name, place, changes
        self.model = place.fresh()
        self.headroom: list[float] = []
        self.took: list[float] = []

    def go_on(self, start: float, mode: float) -> None:
        """One round more."""
        seed = derived(SEED, "round", len(self.headroom))
        done = table.SIDES[self.name](
            self.model, self.place.tokenizer, self.place.train, Setting(**self.changes), seed
        )
        captured = (self.place.accuracy(self.model) - start) / (mode - start)
        self.headroom.append(round(captured, 4))
        self.took.append(round(done.total, 2))
        print(f"  {self.name} {self.changes}: {self.headroom} {self.took}", flush=True)
