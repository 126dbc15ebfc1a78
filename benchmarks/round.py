"""One self-rewarding round: ours against TRL 1.16 and against a plain script.

    python benchmarks/round.py [--quick]          # needs the extra: pip install -e '.[bench]'
    python benchmarks/round.py --tune [SIDE ...]  # learning rates and betas, on a seed of its own

The same model, prompts, draws a prompt, passes over the pairs, optimiser steps and one thread for
every side; importing is left out of the times. Three things are measured:

- learning: three rounds from the demo's good start on each seed, every model measured with the
  same random numbers on the same held-out prompts; the sides take turns within a round. Settings
  are those that ``--tune`` found, for ``ours`` the defaults;
- times: a round from the base, again and again, the sides in turn;
- memory: a round in a process of its own; above it, a process that imports as much and loads
  the model.

A prompt whose draws are all alike gives TRL's and our DPO no pair, so a step is made of fewer
pairs there and the steps are as many. Our default update looks at all draws of a prompt, DPO at
two. Results: benchmarks/results/round.json (round_quick.json with --quick), written as they
come.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from environment import environment
from peers import ground, table
from peers.learning import figures, first_rounds, headroom_ratios, learn, seconds_to
from peers.showing import shown
from peers.timing import timed
from side_by_side import RESULTS, in_child, ratio, spread, write

LEARNING = (
    "ours",
    "ours tuned",
    "ours best",
    "ours dpo",
    "trl dpo",
    "trl dpo sigmoid",
    "trl sft",
    "trl online",
    "plain",
)
TIMED = (
    "ours",
    "ours dpo",
    "ours best",
    "ours square",
    "trl dpo",
    "trl sft",
    "trl online",
    "plain",
)
WEIGHED = ("ours", "ours dpo", "ours best", "trl dpo", "trl sft", "trl online", "plain")
LARGE = ("ours", "ours dpo", "trl dpo")
ON_ONE_SEED = ("trl online", "plain")
"""The slowest, on the first seed only."""
PARTS = ["times", "learning", "memory"]


# ---- memory


def weighed(names: tuple[str, ...], prompts: int, size: str, repeats: int = 5) -> dict[str, Any]:
    """Peak memory of a round, and above the bare model, MB, over processes of their own."""
    sides: dict[str, Any] = {}
    above: dict[str, list[float]] = {}
    for name in names:
        words = ("--child", name, "--prompts", str(prompts), "--size", size)
        whole = [in_child(Path(__file__), *words)["peak_mb"] for _ in range(repeats)]
        bare = [in_child(Path(__file__), *words, "--bare")["peak_mb"] for _ in range(repeats)]
        above[name] = [a - b for a, b in zip(whole, bare, strict=True)]
        sides[name] = {"bare_mb": spread(bare), "above_mb": spread(above[name])}
    over = {
        name: ratio(above[name], above["trl dpo"])
        for name in names
        if name.startswith("ours") and "trl dpo" in names
    }
    return {"prompts": prompts, "sides": sides, "ours_over_trl": over}


def child(name: str, prompts: int, size: str, bare: bool) -> None:
    """What ``weighed`` starts."""
    table.imported(name)
    place = ground.large(prompts) if size == "large" else ground.demo(0, prompts)
    setting = ground.LARGE if size == "large" else table.setting_of(name)
    if not bare:
        done = table.SIDES[name](place.model, place.tokenizer, place.train, setting, 0)
        print(json.dumps(figures(done)))


# ---- running


def run(quick: bool, parts: list[str]) -> dict[str, Any]:
    """The parts asked for, written as they come; the others stay as they were written."""
    seeds = (0,) if quick else (0, 1, 2)
    prompts, rounds, repeats = (512, 2, 5) if quick else (4096, 3, 5)
    found = table.tuned()
    name = "round_quick" if quick else "round"
    result = _written(name) if parts != PARTS else {}
    result |= {
        "quick": quick,
        "trl": version("trl"),
        "tuning": {k: found[k] for k in ("seed", "prompts", "rounds") if k in found}
        | {"best": {k: v["best"] for k, v in found.get("sides", {}).items()}},
    }
    for side in TIMED:
        table.imported(side)
    if "times" in parts:
        result["times"] = timed(ground.demo(0, 256 if quick else prompts), TIMED, repeats)
        write(name, result)
    if "times" in parts and not quick:
        result["times_large"] = timed(ground.large(64), LARGE, repeats, ground.LARGE)
        write(name, result)
    if "learning" in parts:
        result["learning"] = []
        for seed in seeds:
            left_out = ("plain",) if quick else () if seed == seeds[0] else ON_ONE_SEED
            names = tuple(n for n in LEARNING if n not in left_out)
            result["learning"].append(learn(seed, names, prompts, rounds))
            result["headroom_per_second"] = headroom_ratios(result["learning"])
            result["first_round"] = first_rounds(result["learning"])
            result["seconds_to"] = seconds_to(result["learning"])
            write(name, result)
    if "memory" in parts:
        result["memory"] = weighed(
            ("ours", "trl dpo") if quick else WEIGHED, prompts, "small", 1 if quick else 5
        )
        write(name, result)
    if "memory" in parts and not quick:
        result["memory_large"] = weighed(LARGE, 64, "large")
        write(name, result)
    return result


def _written(name: str) -> dict[str, Any]:
    """What was written before, without its environment."""
    path = RESULTS / f"{name}.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {k: v for k, v in found.items() if k != "environment"}


def main() -> None:
    """Parse, run, show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, few prompts")
    parser.add_argument("--only", nargs="+", default=PARTS, choices=PARTS, help="parts to run")
    parser.add_argument("--tune", nargs="*", metavar="SIDE", help="tune, all sides if none named")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--prompts", type=int, default=4096, help=argparse.SUPPRESS)
    parser.add_argument("--size", default="small", help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.child:
        child(asked.child, asked.prompts, asked.size, asked.bare)
    elif asked.tune is not None:
        from peers.tuning import tune

        tune(asked.tune or list(table.GRIDS), environment())
    else:
        began = time.perf_counter()
        print(shown(run(asked.quick, asked.only)))
        print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
