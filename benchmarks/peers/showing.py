"""The results of a round's benchmark in 80 columns."""

from __future__ import annotations

import statistics
from typing import Any

from .side import STAGES


def shown(result: dict[str, Any]) -> str:
    """The results in a page of 80 columns."""
    lines = []
    if "times" in result:
        for key in ("times", "times_large"):
            if key in result:
                lines += _times(result[key])
    if result.get("learning"):
        lines += _learning(result)
    for key in ("memory", "memory_large"):
        if key in result:
            lines += _memory(result[key])
    return "\n".join(lines)


def _range(x: dict[str, Any], digits: int = 2) -> str:
    return f"{x['value']:.{digits}f} ({x['low']:.{digits}f}-{x['high']:.{digits}f})"


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
    lines.append("As long as ours, times:")
    for name, x in times["ratios"].items():
        rest = "  ".join(f"{k} {_range(v)}" for k, v in x.items() if k in ("round", "update"))
        lines.append(f"  {name}".ljust(38) + rest)
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
            lines.append(f"  {name:11}" + " ".join(cells) + f"  n = {len(with_it)}")
    lines.append("The first of these rounds, times as long as ours:")
    for name, x in result["first_round"].items():
        lines.append(f"  {name}".ljust(38) + _range(x))
    lines.append("Seconds to a share of the headroom, seed by seed (- : not in these rounds):")
    for share, sides in result["seconds_to"].items():
        lines.append(f"  {share}")
        for name, found in sides.items():
            if found:
                times = " ".join("    -" if x is None else f"{x:5.1f}" for x in found)
                lines.append(f"    {name:11}{times}")
    lines.append("Headroom captured a second, ours over TRL's:")
    for name, x in result["headroom_per_second"].items():
        lines.append(f"  {name}")
        lines += [f"    {when:20}{_range(value)}" for when, value in x.items()]
    return [*lines, ""]


def _memory(memory: dict[str, Any]) -> list[str]:
    lines = [f"Peak memory of a round of {memory['prompts']:,} prompts, MB:"]
    for name, x in memory["sides"].items():
        lines.append(
            f"  {name:11} above the bare model {x['above_mb']:.0f}, in all {x['peak_mb']:.0f}"
        )
    for name, x in memory["ours_over_trl"].items():
        lines.append(f"  {name} over trl dpo: {x:.2f}")
    return [*lines, ""]
