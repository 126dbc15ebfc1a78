"""Seconds to most of the headroom, every side with the schedule that is fastest for it.

    python benchmarks/reaching.py [--quick]          # needs the extra: pip install -e '.[bench]'
    python benchmarks/reaching.py --tune [SIDE ...]  # search schedules, on bases of their own

benchmarks/round.py compares rounds at one schedule. A user also chooses how many prompts a round
has, how many draws, passes and prompts a step, and stops when it is enough. So here each side runs
the plan that its own search found (``peers.searching``: the same rule and number of trials for
every side, on bases that are not reported), in rounds on consecutive prompts, until it has 95 % of
the headroom or has run out of time, and the seconds to the end of the first round with 80, 90 and
95 % are compared. At an equal share their ratio is that of headroom a second. The plan taken is the
one that got there most often on those bases; a plan that was sooner where it got there, and missed
up to a third of the runs, is shown beside it ("sooner").

"trl dpo sigmoid" is TRL's DPO by its default loss, schedule, learning rate and beta searched; "trl
dpo" may weigh a likelihood term beside, which its users must know to ask for.

Everything that a side pays for is counted: drawing, scoring, its datasets, the set-up of trainers,
the reference's log-probabilities, updates; what is paid once a process (imports, first calls,
recorded steps) and the measuring of headroom are not. The optimiser and the shape of its schedule
are the same for every side. Sides take turns, round by round. TRL's OnlineDPO and the plain script
are left out: in benchmarks/round.py they were slower than TRL's DPO.

Results: benchmarks/results/reaching.json (reaching_quick.json with --quick).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from importlib.metadata import version
from typing import Any

import torch
from environment import environment
from peers import plans, searching, table
from peers.learning import SHARES
from peers.schedule import Plan, Run, Scene, scene
from side_by_side import ratio, spread, write

from srlm.errors import UserError
from srlm.loop import derived

QUICK = ("trl dpo", "ours best")
CAP = 8.0
"""Processor seconds after which a side stops short of the last share; it stops, too, when less
than half of what it had captured is left."""
WARM = 3
"""Rounds of each side that are not counted: first calls, and the recording of our steps."""
Named = dict[str, tuple[str, Plan]]
"""Name shown -> side and plan."""
CLOCKS = {"seconds": "seconds_so_far", "cpu": "cpu_so_far"}


def turn(on: Scene, named: Named, seed: int, repeat: int) -> dict[str, Any]:
    """Every side from one base to the last share, a round of each in turn."""
    seeded = derived(seed, "reaching", repeat)
    runs = {name: Run(side, plan, on, seeded) for name, (side, plan) in named.items()}
    going, back = list(runs.values()), False
    while going:
        for run in reversed(going) if back else list(going):
            so_far = run.rounds[-1]["cpu_so_far"] if run.rounds else 0.0
            if run.to(SHARES[-1]) is not None or so_far >= CAP or run.apart:
                going.remove(run)
                continue
            try:
                run.go_on()
            except UserError as error:  # no pair is left, or the model came apart
                print(f"{run.name}, seed {seed}: {error.problem}", file=sys.stderr)
                going.remove(run)
        back = not back
    return {
        "seed": seed,
        "repeat": repeat,
        "accuracy": on.start,
        "mode_accuracy": on.mode,
        "sides": {name: _figures(run) for name, run in runs.items()},
    }


def _figures(run: Run) -> dict[str, Any]:
    return {
        "rounds": run.rounds,
        "to": {
            f"{share:.0%}": {clock: run.to(share, key) for clock, key in CLOCKS.items()}
            for share in SHARES
        },
        "until_90": run.stages(0.9),
    }


# ---- over the turns


def summed(turns: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    """Seconds to each share by side and ratios to TRL's, over the turns; where a side did not get
    there in some turn, how often it did."""
    out: dict[str, Any] = {"sides": {}, "ratios": {}}
    for name in names:
        runs = [t["sides"][name] for t in turns]
        out["sides"][name] = {
            "to": {key: _over(runs, key) for key in runs[0]["to"]},
            "until_90": {
                k: statistics.median(r["until_90"][k] for r in runs) for k in runs[0]["until_90"]
            },
        }
    for other, mine in plans.set_against(names):
        out["ratios"][f"{other} / {mine}"] = {
            key: {clock: _ratio(turns, other, mine, key, clock) for clock in CLOCKS}
            for key in turns[0]["sides"][mine]["to"]
        }
    return out


def _over(runs: list[dict[str, Any]], key: str) -> dict[str, Any]:
    got = [r["to"][key] for r in runs if r["to"][key]["seconds"] is not None]
    reached: dict[str, Any] = {"reached": len(got), "of": len(runs)}
    return reached | {clock: spread([x[clock] for x in got]) for clock in CLOCKS if got}


def _ratio(
    turns: list[dict[str, Any]], other: str, mine: str, key: str, clock: str
) -> dict[str, Any] | None:
    both = [
        (t["sides"][other]["to"][key][clock], t["sides"][mine]["to"][key][clock]) for t in turns
    ]
    both = [(a, b) for a, b in both if a is not None and b is not None]
    return ratio([a for a, _ in both], [b for _, b in both]) if both else None


def run(quick: bool) -> dict[str, Any]:
    """All turns, written after each."""
    seeds, repeats = ((0,), 1) if quick else ((0, 1, 2), 2)
    named = {k: v for k, v in plans.compared().items() if not quick or k in QUICK}
    names = tuple(named)
    sides = {side for side, _ in named.values()}
    found = plans.written()
    result: dict[str, Any] = {
        "quick": quick,
        "trl": version("trl"),
        "cap": CAP,
        "tuning": {k: v for k, v in found.items() if k not in ("environment", "sides")},
        "plans": {name: plan.numbers() for name, (_, plan) in named.items()},
        "searched": {name: list(plans.VALUES[side]) for name, (side, _) in named.items()},
        "trials": {s: found.get("sides", {}).get(s, {}).get("trials", 0) for s in sides},
        "turns": [],
    }
    scenes = {seed: scene(seed) for seed in seeds}
    for side, plan in named.values():
        table.imported(side)
        warm = Run(side, plan, scenes[0], 0)  # pays what is paid once a process
        for _ in range(WARM):
            warm.go_on()
    for repeat in range(repeats):
        for seed in seeds:
            result["turns"].append(turn(scenes[seed], named, seed, repeat))
            result |= summed(result["turns"], names)
            write("reaching_quick" if quick else "reaching", result)
    return result


def tune(names: list[str]) -> None:
    """Search the named sides' plans; the file is written after every trial."""
    for name in names:
        table.imported(name)

        def tell(known: dict[str, Any], name: str = name) -> None:
            plans.add(
                name,
                known,
                {
                    "environment": environment(),
                    "seeds": searching.SEEDS,
                    "share": searching.SHARE,
                    "less": searching.LESS,
                    "trials": searching.TRIALS,
                    "draws": searching.DRAWS,
                },
            )

        sides = plans.written().get("sides", {})
        searching.search(
            name,
            plans.FIRST[name],
            plans.VALUES[name],
            tell,
            also=plans.ALSO.get(name, ()),
            others=[side["best"] for other, side in sides.items() if other != name],
        )


def shown(result: dict[str, Any]) -> str:
    """The results in a page of 80 columns."""
    lines = ["Seconds to a share of the headroom, median (range) of the turns:"]
    for name, side in result["sides"].items():
        cells = [
            f"{x['seconds']['value']:5.2f} ({x['seconds']['low']:.2f}-{x['seconds']['high']:.2f})"
            f" {x['reached']}/{x['of']}"
            if x["reached"]
            else "    -"
            for x in side["to"].values()
        ]
        lines.append(f"  {name}:\n    " + "".join(f"{cell:25}" for cell in cells).rstrip())
        u = side["until_90"]
        lines.append(
            f"    to 90 %: {u['rounds']:g} rounds, draw {u['draw']:.2f}, score {u['score']:.2f}, "
            f"update {u['update']:.2f} s, {u['steps']:g} steps"
        )
    lines.append("As long as ours, times:")
    for name, shares in result["ratios"].items():
        cells = [
            f"{x['value']:.2f} ({x['low']:.2f}-{x['high']:.2f})" if x else "-"
            for x in (clocks["seconds"] for clocks in shares.values())
        ]
        lines.append(f"  {name}:\n    " + "".join(f"{cell:21}" for cell in cells).rstrip())
    return "\n".join(lines)


def main() -> None:
    """Parse, run, show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, two sides")
    parser.add_argument("--tune", nargs="*", metavar="SIDE", help="search, all sides if none named")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.tune is not None:
        tune(asked.tune or list(plans.VALUES))
    else:
        began = time.perf_counter()
        print(shown(run(asked.quick)))
        print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
