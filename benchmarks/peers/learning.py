"""Rounds of every side from one base: headroom captured, and what it took."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from side_by_side import ratio

from srlm.loop import derived

from . import ground, table
from .side import STAGES, Round

SHARES = (0.8, 0.9, 0.95)
"""Of the headroom, that a side takes some seconds to capture."""


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
                figures(done)
                | {
                    "accuracy": accuracy,
                    "headroom": captured,
                    "seconds_so_far": seconds,
                    "headroom_per_second": captured / seconds,
                }
            )
    about = {"seed": seed, "prompts": prompts, "accuracy": start, "mode_accuracy": mode}
    return about | {"sides": sides}


def figures(done: Round) -> dict[str, Any]:
    stages = {name: round(done.seconds.get(name, 0.0), 4) for name in STAGES}
    return {
        "seconds": stages | {"round": round(done.total, 4), "cpu": round(done.cpu, 4)},
        "tokens": done.tokens,
        "steps": done.steps,
        "pairs": done.pairs,
    }


def headroom_ratios(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Headroom captured a second, ours over TRL's, seed by seed: after each round, and each at
    the round where it is greatest."""

    def rates(name: str, t: int | None) -> list[float]:
        found = [
            [r["headroom_per_second"] for r in seed["sides"][name]["rounds"]]
            for seed in seeds
            if name in seed["sides"]
        ]
        return [max(x) if t is None else x[t] for x in found]

    def over(mine: str, other: str, t: int | None) -> dict[str, Any]:
        theirs = rates(other, t)
        return ratio(rates(mine, t)[: len(theirs)], theirs)

    rounds = len(seeds[0]["sides"]["ours"]["rounds"])
    out: dict[str, Any] = {}
    for mine in ("ours", "ours tuned", "ours best", "ours dpo"):
        for other in ("trl dpo", "trl dpo sigmoid", "trl sft", "trl online"):
            if all(x in seeds[0]["sides"] for x in (mine, other)):
                out[f"{mine} / {other}"] = {
                    f"after round {t + 1}": over(mine, other, t) for t in range(rounds)
                } | {"at the best round": over(mine, other, None)}
    return out


def first_rounds(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Time of the first round, the other side's over ours, seed by seed: at the full number of
    prompts."""

    def times(name: str) -> list[float]:
        with_it = [seed["sides"][name]["rounds"] for seed in seeds if name in seed["sides"]]
        return [rounds[0]["seconds"]["round"] for rounds in with_it]

    return {
        f"{other} / {mine}": ratio(times(other), times(mine)[: len(times(other))])
        for other, mine in table.AGAINST
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
            for name in seeds[0]["sides"]
        }
        for share in SHARES
    }
