"""The results of a round's benchmark in 80 columns."""

from __future__ import annotations

import statistics
from typing import Any

from .side import STAGES


def shown(result: dict[str, Any]) -> str:
    """The results in a page of 80 columns."""
    lines = []
    for key in ("times", "times_large"):
        if key in result:
            lines += _times(result[key])
    if result.get("learning"):
        lines += _learning(result)
    for key in ("memory", "memory_large"):
        if key in result:
            lines += _memory(result[key])
    return "\n".join(lines)


def _range(x: dict[str, Any], digits: int = 2, ends: int | None = None) -> str:
    least, most = (f"{x[k]:.{digits if ends is None else ends}f}" for k in ("low", "high"))
    return f"{x['value']:.{digits}f} ({least}-{most})"


def _times(times: dict[str, Any]) -> list[str]:
    lines = [
        f"A round of {times['prompts']:,} prompts, {times['parameters']:,} parameters; seconds, "
        "median (range)",
        f"{'':12}{'draw':>7}{'score':>7}{'update':>7}  {'round':<19}{'tokens/s':>9}"
        f"{'steps':>6}{'pairs':>7}",
    ]
    for name, x in times["sides"].items():
        s = x["seconds"]
        parts = "".join(f"{s[k]['value']:7.2f}" for k in STAGES)
        rate = x["tokens_per_second"]["value"]
        lines.append(
            f"{name:12}{parts}  {_range(s['round']):<19}{rate:9,.0f}{x['steps']:6}{x['pairs']:7}"
        )
    lines.append(f"{'As long as ours, times:':33}{'round':19}update")
    for name, x in times["ratios"].items():
        cells = "".join(f"{_range(x[k]):19}" for k in ("round", "update") if k in x)
        lines.append(f"  {name}".ljust(33) + cells.rstrip())
    return [*lines, ""]


def _learning(result: dict[str, Any]) -> list[str]:
    seeds = result["learning"]
    lines = ["Headroom captured after each round and seconds so far, means over the seeds:"]
    for name in result["seconds_to"]["90%"]:
        with_it = [s["sides"][name]["rounds"] for s in seeds if name in s["sides"]]
        if with_it:
            cells = [
                f"{statistics.mean(r[t]['headroom'] for r in with_it):7.1%} "
                f"({statistics.mean(r[t]['seconds_so_far'] for r in with_it):5.1f} s)"
                for t in range(len(with_it[0]))
            ]
            lines.append(f"  {name:16}" + " ".join(cells) + f"  n = {len(with_it)}")
    lines.append("The first of these rounds, times as long as ours:")
    for name, x in result["first_round"].items():
        lines.append(f"  {name}".ljust(33) + _range(x))
    lines.append("Seconds to a share of the headroom, seed by seed (- : not in these rounds):")
    shares = result["seconds_to"]
    lines.append(f"  {'':16}" + "".join(f"{share:20}" for share in shares).rstrip())
    for name in shares["90%"]:
        cells = [
            " ".join("    -" if x is None else f"{x:5.1f}" for x in sides[name])
            for sides in shares.values()
        ]
        lines.append(f"  {name:16}" + "".join(f"{cell:20}" for cell in cells).rstrip())
    lines.append("Headroom captured a second, ours over TRL's, after each round:")
    for name, x in result["headroom_per_second"].items():
        cells = [_range(value, ends=1) for when, value in x.items() if when != "at the best round"]
        lines.append(f"  {name}".ljust(31) + "".join(f"{cell:16}" for cell in cells).rstrip())
    return [*lines, ""]


def _memory(memory: dict[str, Any]) -> list[str]:
    lines = [f"Peak memory of a round of {memory['prompts']:,} prompts, MB:"]
    for name, x in memory["sides"].items():
        above = _range(x["above_mb"], 0)
        lines.append(f"  {name:11} above the bare model {above}, bare {x['bare_mb']['value']:.0f}")
    for name, x in memory["ours_over_trl"].items():
        lines.append(f"  {name} over trl dpo: {_range(x)}")
    return [*lines, ""]
