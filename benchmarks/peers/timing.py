"""A round from the base, again and again, the sides in turn."""

from __future__ import annotations

from typing import Any

from side_by_side import interleaved, ratio, spread

from srlm.loop import derived

from . import ground, table
from .side import STAGES, Round, Setting


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
        | {"round": [r.total for r in rounds], "cpu": [r.cpu for r in rounds]}
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
                for stage in ("round", "cpu", "draw", "update")
            }
            for other, mine in table.AGAINST
            if other in stages and mine in stages
        },
    }
    for mine in ("ours", "ours dpo"):
        fed = [
            d + u for d, u in zip(stages[mine]["draw"], stages["trl dpo"]["update"], strict=True)
        ]
        out["ratios"][f"trl dpo, our draws / {mine}"] = {"round": ratio(fed, stages[mine]["round"])}
    return out
