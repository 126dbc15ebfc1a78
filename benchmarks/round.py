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
two. Results: benchmarks/results/round.json, written as they come.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from environment import environment
from peers import ground, table
from peers.showing import shown
from peers.side import STAGES, Round, Setting
from side_by_side import in_child, interleaved, ratio, spread, write

from srlm.loop import derived

LEARNING = ("ours", "ours tuned", "ours dpo", "trl dpo", "trl sft", "trl online", "plain")
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
WEIGHED = ("ours", "ours dpo", "trl dpo", "trl sft", "trl online", "plain")
LARGE = ("ours", "ours dpo", "trl dpo")
AGAINST = (
    ("trl dpo", "ours"),
    ("trl dpo", "ours dpo"),
    ("trl sft", "ours"),
    ("trl sft", "ours best"),
    ("trl online", "ours"),
    ("plain", "ours"),
    ("plain", "ours square"),
)
"""Ratios shown: the other side over ours."""
ON_ONE_SEED = ("plain",)
"""Slow, and learns as our own square loss does: on the first seed only."""
SHARES = (0.8, 0.9, 0.95)
"""Of the headroom, that a side takes some seconds to capture."""


# ---- learning


def learn(seed: int, names: tuple[str, ...], prompts: int, rounds: int) -> dict[str, Any]:
    """Rounds of every side from one base; headroom captured and seconds after each."""
    place = ground.demo(seed, prompts)
    start, mode = place.accuracy(place.model), place.mode_accuracy()
    models = {name: place.fresh() for name in names}
    sides: dict[str, Any] = {
        name: {"setting": asdict(table.setting_of(name)), "rounds": []} for name in names
    }
    for t in range(rounds):
        for name in names if t % 2 == 0 else reversed(names):
            done = table.SIDES[name](
                models[name],
                place.tokenizer,
                place.train,
                table.setting_of(name),
                derived(seed, "round", t),
            )
            accuracy = place.accuracy(models[name])
            before = sides[name]["rounds"]
            seconds = done.total + (before[-1]["seconds_so_far"] if before else 0.0)
            captured = (accuracy - start) / (mode - start)
            before.append(
                _figures(done)
                | {
                    "accuracy": accuracy,
                    "headroom": captured,
                    "seconds_so_far": seconds,
                    "headroom_per_second": captured / seconds,
                }
            )
    return {"seed": seed, "accuracy": start, "mode_accuracy": mode, "sides": sides}


def _figures(done: Round) -> dict[str, Any]:
    stages = {name: round(done.seconds.get(name, 0.0), 4) for name in STAGES}
    return {
        "seconds": stages | {"round": round(done.total, 4)},
        "tokens": done.tokens,
        "steps": done.steps,
        "pairs": done.pairs,
    }


def headroom_ratios(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Headroom captured a second, ours over TRL's, seed by seed: after each round, and each at
    the round where it is greatest."""

    def rates(name: str, t: int | None) -> list[float]:
        found = [
            [r["headroom_per_second"] for r in seed["sides"][name]["rounds"]] for seed in seeds
        ]
        return [max(x) if t is None else x[t] for x in found]

    rounds = len(seeds[0]["sides"]["ours"]["rounds"])
    out: dict[str, Any] = {}
    for mine in ("ours", "ours tuned", "ours dpo"):
        for other in ("trl dpo", "trl sft", "trl online"):
            if all(x in seeds[0]["sides"] for x in (mine, other)):
                out[f"{mine} / {other}"] = {
                    f"after round {t + 1}": ratio(rates(mine, t), rates(other, t))
                    for t in range(rounds)
                } | {"at the best round": ratio(rates(mine, None), rates(other, None))}
    return out


def first_rounds(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Time of the first round, the other side's over ours, seed by seed: at the full number of
    prompts."""

    def times(name: str) -> list[float]:
        with_it = [seed["sides"][name]["rounds"] for seed in seeds if name in seed["sides"]]
        return [rounds[0]["seconds"]["round"] for rounds in with_it]

    return {
        f"{other} / {mine}": ratio(times(other), times(mine)[: len(times(other))])
        for other, mine in AGAINST
        if times(other) and times(mine)
    }


def seconds_to(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Seconds to the end of the first round with a share of the headroom captured, by seed; None
    where no round got there."""

    def first(rounds: list[dict[str, Any]], share: float) -> float | None:
        return next((r["seconds_so_far"] for r in rounds if r["headroom"] >= share), None)

    return {
        f"{share:.0%}": {
            name: [first(s["sides"][name]["rounds"], share) for s in seeds if name in s["sides"]]
            for name in LEARNING
        }
        for share in SHARES
    }


# ---- times


def timed(
    place: ground.Ground, names: tuple[str, ...], repeats: int, setting: Setting | None = None
) -> dict[str, Any]:
    """Times of a round from the base by stage, [repeats], and their ratios."""
    made: dict[str, list[Round]] = {name: [] for name in names}
    turn = dict.fromkeys(names, 0)

    def case(name: str) -> None:
        model = place.fresh()
        turn[name] += 1
        made[name].append(
            table.SIDES[name](
                model,
                place.tokenizer,
                place.train,
                setting or table.setting_of(name),
                derived(place.seed, "times", turn[name]),
            )
        )

    interleaved({name: lambda name=name: case(name) for name in names}, repeats=repeats)
    kept = {name: rounds[-repeats:] for name, rounds in made.items()}
    stages = {
        name: {stage: [r.seconds.get(stage, 0.0) for r in rounds] for stage in STAGES}
        | {"round": [r.total for r in rounds]}
        for name, rounds in kept.items()
    }
    out: dict[str, Any] = {
        "parameters": ground.parameters(place.model),
        "prompts": len(place.train),
        "sides": {
            name: {
                "seconds": {k: spread(v) for k, v in stages[name].items()},
                "tokens_per_second": spread([r.tokens / r.seconds["draw"] for r in rounds]),
                "scored_tokens_per_second": spread(
                    [r.tokens / (r.seconds["draw"] + r.seconds.get("score", 0.0)) for r in rounds]
                ),
                "tokens": rounds[-1].tokens,
                "steps": rounds[-1].steps,
                "pairs": rounds[-1].pairs,
            }
            for name, rounds in kept.items()
        },
        "ratios": {
            f"{other} / {mine}": {
                stage: ratio(stages[other][stage], stages[mine][stage])
                for stage in ("round", "draw", "update")
            }
            for other, mine in AGAINST
            if other in stages and mine in stages
        },
    }
    for mine in ("ours", "ours dpo"):
        fed = [
            d + u for d, u in zip(stages[mine]["draw"], stages["trl dpo"]["update"], strict=True)
        ]
        out["ratios"][f"trl dpo fed with our draws / {mine}"] = {
            "round": ratio(fed, stages[mine]["round"])
        }
    return out


# ---- memory


def weighed(names: tuple[str, ...], prompts: int, size: str, repeats: int) -> dict[str, Any]:
    """Peak memory of a round, and above the bare model, MB."""
    out: dict[str, Any] = {"prompts": prompts, "sides": {}}
    for name in names:
        words = ("--child", name, "--prompts", str(prompts), "--size", size)
        whole = [in_child(Path(__file__), *words)["peak_mb"] for _ in range(repeats)]
        bare = [in_child(Path(__file__), *words, "--bare")["peak_mb"] for _ in range(repeats)]
        above = [w - b for w, b in zip(whole, bare, strict=True)]
        out["sides"][name] = {
            "peak_mb": spread(whole),
            "bare_mb": spread(bare),
            "above_mb": spread(above),
        }
    above = {name: figures["above_mb"]["value"] for name, figures in out["sides"].items()}
    out["ours_over_trl"] = {
        name: above[name] / above["trl dpo"] for name in ("ours", "ours dpo") if name in above
    }
    return out


def child(name: str, prompts: int, size: str, bare: bool) -> None:
    """What ``weighed`` starts."""
    table.imported(name)
    place = ground.large(prompts) if size == "large" else ground.demo(0, prompts)
    setting = ground.LARGE if size == "large" else table.setting_of(name)
    if not bare:
        done = table.SIDES[name](place.model, place.tokenizer, place.train, setting, 0)
        print(json.dumps(_figures(done)))


# ---- running


def run(quick: bool) -> dict[str, Any]:
    """All parts, written as they come."""
    seeds = (0,) if quick else (0, 1, 2)
    prompts, rounds, repeats = (512, 2, 5) if quick else (4096, 3, 5)
    result: dict[str, Any] = {
        "quick": quick,
        "trl": _version(),
        "tuning": {k: v for k, v in table.tuned().items() if k in ("seed", "prompts", "rounds")}
        | {"best": {k: v["best"] for k, v in table.tuned().get("sides", {}).items()}},
    }
    for name in TIMED:
        table.imported(name)
    timing = ground.demo(0, 256 if quick else 1024)
    result["times"] = timed(timing, TIMED, repeats)
    write("round", result)
    if not quick:
        result["times_large"] = timed(ground.large(64), LARGE, repeats, ground.LARGE)
        write("round", result)
    result["learning"] = []
    for seed in seeds:
        alone = () if seed == seeds[0] else ON_ONE_SEED
        names = tuple(n for n in LEARNING if n not in alone and (not quick or n != "plain"))
        result["learning"].append(learn(seed, names, prompts, rounds))
        result["headroom_per_second"] = headroom_ratios(result["learning"])
        result["first_round"] = first_rounds(result["learning"])
        result["seconds_to"] = seconds_to(result["learning"])
        write("round", result)
    result["memory"] = weighed(
        ("ours", "trl dpo") if quick else WEIGHED, prompts, "small", 1 if quick else 2
    )
    if not quick:
        result["memory_large"] = weighed(LARGE, 64, "large", 1)
    write("round", result)
    return result


def _version() -> str:
    from importlib.metadata import version

    return version("trl")


def main() -> None:
    """Parse, run, show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, few prompts")
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
        print(shown(run(asked.quick)))
        print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
