"""The page of all speed benchmarks, from their results: docs/speed.md and results/speed.html.

    python benchmarks/page.py [--quick]

Tables in the first, plots in the second. A benchmark that was not run is left out and named.
``--quick`` draws the results of quick runs, as results/speed_quick.html.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markdown import of, table
from page_charts import drawn
from reaching_page import reaching

HERE = Path(__file__).parent
NOTES = HERE / "speed_notes.md"
"""What was closed and what was not, written by hand; put at the end."""
Result = dict[str, Any]
HEAD = """# How fast it is

Written by `python benchmarks/page.py` from `benchmarks/results/`; do not edit. `make bench`
measures all of it again; `make bench BENCH=--quick` a smaller part in some minutes.

Everything is measured side by side in one run: cases take turns, a ratio is taken within a turn,
and a figure is the median of the turns with the least and the greatest (of five turns that range
holds the true median with probability 94 %). A ratio above 1 is to our advantage. Times alone are
no claims: they belong to the machine named under each table.
"""


def main() -> None:
    """Read, write both pages, say what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    tail = "_quick" if parser.parse_args().quick else ""
    found = {name: read(name + tail) for name in SECTIONS}
    missing = [name for name, result in found.items() if result is None]
    parts = [HEAD]
    for name, section in SECTIONS.items():
        if (result := found[name]) is not None:
            parts.append(section(result) + "\n" + machine(result))
    if NOTES.exists():
        parts.append(NOTES.read_text(encoding="utf-8"))
    (HERE / f"results/speed{tail}.html").write_text(drawn(found), encoding="utf-8")
    print(f"benchmarks/results/speed{tail}.html")
    if not tail:
        (HERE.parent / "docs/speed.md").write_text("\n".join(parts), encoding="utf-8")
        print("docs/speed.md")
    if missing:
        print("not run: " + ", ".join(missing))


def read(name: str) -> Result | None:
    """A benchmark's results, None where there are none."""
    path = HERE / f"results/{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def machine(result: Result) -> str:
    """Where and with what it was measured."""
    e = result["environment"]
    return (
        f"{e['processor']}, {e['cores']} cores, load {e['load']} at the end; torch {e['torch']}, "
        f"transformers {e['transformers']}, Python {e['python']}.\n"
    )


# ---- sections


def one_round(result: Result) -> str:
    """Against TRL and a plain script."""
    out = ["## One self-rewarding round, beside TRL and a plain script\n"]
    for key in ("times", "times_large"):
        if key not in result:
            continue
        times = result[key]
        out.append(
            f"{times['prompts']:,} prompts, {times['parameters']:,} parameters, the same model, "
            "draws a prompt, passes, steps and one thread. Seconds:\n"
        )
        rows = [
            [
                name,
                *(of(x["seconds"][k]) for k in ("draw", "score", "update", "round")),
                f"{x['tokens_per_second']['value']:,.0f}",
                str(x["pairs"]),
            ]
            for name, x in times["sides"].items()
        ]
        head = ["", "draw", "score", "update", "round", "tokens/s", "groups or pairs"]
        out.append(table(head, rows))
        out.append("How many times as long it takes:\n")
        ratios = [
            [name, *(of(x[k]) if k in x else "" for k in ("round", "draw", "update"))]
            for name, x in times["ratios"].items()
        ]
        out.append(table(["", "round", "draw", "update"], ratios))
    if result.get("learning"):
        out.append(_learning(result))
    for key in ("memory", "memory_large"):
        if key in result:
            sides, over = result[key]["sides"], result[key]["ours_over_trl"]
            out.append(
                f"Peak memory above a process that only loads the model, MB, "
                f"{result[key]['prompts']:,} prompts:\n"
            )
            rows = [
                [
                    name,
                    of(x["above_mb"], 0),
                    of(x["bare_mb"], 0),
                    of(over[name]) if name in over else "",
                ]
                for name, x in sides.items()
            ]
            out.append(table(["", "above", "bare", "over trl dpo's"], rows))
    return "\n".join(out)


def _learning(result: Result) -> str:
    seeds = result["learning"]
    names = list(seeds[0]["sides"])
    rows = []
    for name in names:
        runs = [s["sides"][name]["rounds"] for s in seeds if name in s["sides"]]
        cells = []
        for t in range(min(map(len, runs))):
            room = sorted(r[t]["headroom"] for r in runs)
            time = sorted(r[t]["seconds_so_far"] for r in runs)
            cells.append(f"{room[0]:.0%} to {room[-1]:.0%} in {time[len(time) // 2]:.1f} s")
        rows.append([f"{name} ({len(runs)} seeds)", *cells])
    head = ["", *(f"round {t + 1}" for t in range(len(rows[0]) - 1))]
    tuned = ", ".join(
        f"{name}: {' '.join(f'{k} {v:g}' for k, v in best.items())}"
        for name, best in result["tuning"]["best"].items()
    )
    ratios = [[name, *(of(x[k]) for k in x)] for name, x in result["headroom_per_second"].items()]
    labels = list(next(iter(result["headroom_per_second"].values())))
    prompts = seeds[0]["prompts"]
    return "\n".join(
        [
            "Headroom captured, least and greatest of the seeds, and seconds so far:\n",
            table(head, rows),
            f"Both sides' settings were tuned on seed {result['tuning']['seed']}, which is not "
            f"shown ({tuned}; `ours` has the defaults).\n",
            "Headroom captured a second, ours over TRL's:\n",
            table(["", *labels], ratios),
            f"How many times as long the first of these rounds takes, {prompts:,} prompts:\n",
            table(["", "round"], [[name, of(x)] for name, x in result["first_round"].items()]),
        ]
    )


def generation(result: Result) -> str:
    """Tokens a second."""
    rows = [
        [
            row["model"],
            f"{row['batch']:,}",
            str(row.get("draws", 1)),
            str(row["threads"]),
            f"{row['tokens_a_second']['srlm']['value']:,.0f}",
            *(of(r) for r in row["ours_over"].values()),
        ]
        for row in result["cases"]
    ]
    names = list(result["cases"][0]["ours_over"])
    head = ["model", "responses", "a prompt", "threads", "tokens/s"]
    head += [f"over {n}" for n in names]
    worst = result["exactness"]["worst"]
    return "\n".join(
        [
            "## Drawing with log-probabilities, beside Hugging Face generate\n",
            "Tokens a second of ours over each other's. *srlm, torch's products* is ours without "
            "the wide products (`srlm.policies.linear`); *loop* calls the model with a dynamic "
            "cache. With several responses a prompt, ours runs what they begin with once, the loop "
            "their prompts once, generate nothing.\n",
            table(head, rows),
            f"Log-probabilities differ from a full forward pass by {worst:.1e} nats a token at "
            "most.\n",
            _floors(result["profile"]),
        ]
    )


def _floors(profile: Result) -> str:
    m = profile["machine"]
    kinds = list(dict.fromkeys(k for c in profile["cases"] for k in c["stages"]))
    rows = [
        [
            c["model"],
            f"{c['batch']:,}",
            f"{1e3 * c['seconds']:,.0f}",
            f"{1e3 * c['called_seconds']:,.0f}",
            *(f"{1e3 * c['stages'].get(k, 0.0):,.1f}" for k in kinds),
            f"{1e3 * c['floor']['products']:,.1f}",
            f"{1e3 * c['floor']['bytes']:,.1f}",
            f"{c['share_of_floor']:.2f}",
        ]
        for c in profile["cases"]
    ]
    head = [
        "model",
        "batch",
        "ms in all",
        "every step called",
        *kinds,
        "floor: products",
        "floor: bytes",
        "floor / time",
    ]
    return (
        f"Where a draw's time goes on {m['threads']} thread, milliseconds; products at "
        f"{m['torch_gflops']:.0f} GFLOP/s through torch and {m['onednn_gflops']:.0f} through "
        f"oneDNN, copies at {m['copy_gb_a_second']:.0f} GB/s:\n\n" + table(head, rows)
    )


def training(result: Result) -> str:
    """The update."""
    rows = [
        [
            row["task"],
            f"{row['sequences_a_second']['value']:,.0f}",
            of(row["gflops"], 1),
            of(row["rate_own_shapes"], 0),
            of(row["share_of_own_shapes"]),
            of(row["rows_over_ours"]),
            of(row["bfloat16_over_ours"]),
            f"{row['padding']['ours']:.1%}",
            f"{row['padding']['rows']:.1%}",
        ]
        for row in result["rows"]
    ]
    head = [
        "draws of", "sequences/s", "GFLOP/s", "rate of products", "share",
        "rows as one text / ours", "bfloat16 / ours", "in vain", "in vain, as one text",
    ]  # fmt: skip
    return (
        f"## The update\n\nOne epoch on {result['prompts']:,} prompts. In vain: positions of "
        "padding or of a prompt that was run before.\n\n" + table(head, rows)
    )


def condition(result: Result) -> str:
    """Certified modes."""
    rows = [
        [
            row["start"],
            f"{row['certified']} of {row['prompts']}",
            of(row["ms_a_prompt"]),
            of(row["plain_over_ours"], 1),
            of(row["beam_over_ours"], 1),
            f"{row['nodes_over_least']:.2f}",
        ]
        for row in result["rows"]
    ]
    head = ["start", "certified", "ms a prompt", "one at a time / ours", "beam of 8 / ours",
            "nodes / least"]  # fmt: skip
    return "## The condition number\n\n" + table(head, rows)


def lab(result: Result) -> str:
    """Replicate-rounds."""
    rows = [
        [str(r["D"]), str(r["M"]), of(r["rate"], 0), of(r["over_twin"], 0), of(r["gflops"], 1),
         of(r["share"])]
        for r in result["rows"]
    ]  # fmt: skip
    head = ["D", "M", "replicate-rounds a second", "over the plain loop", "GFLOP/s", "share"]
    return "## The lab\n\n" + table(head, rows)


def growth(result: Result) -> str:
    """Draws, rounds, length, size."""
    out = ["## How it grows\n"]
    for axis in ("draws", "rounds", "length", "size"):
        if axis not in result:
            continue
        stages = list(result[axis]["points"][0]["seconds"])
        rows = [
            [str(p["at"]), *(of(p["seconds"][s]) for s in stages), of(p["memory_mb"], 0)]
            for p in result[axis]["points"]
        ]
        slopes = ["exponent", *(str(result[axis]["exponent"][s]) for s in (*stages, "memory"))]
        out.append(
            table([axis, *(f"{s}, s" for s in stages), "memory above bare, MB"], [*rows, slopes])
        )
    return "\n".join(out)


def start_up(result: Result) -> str:
    """Until something is seen."""
    rows = [[f"`{name}`", of(x)] for name, x in result["seconds"].items()]
    ratios = [[name, of(x)] for name, x in result["ratios"].items()]
    first = result["first_token"]
    way = [[name, of(x)] for name, x in {**first["stages"], "in all": first["total"]}.items()]
    return "\n".join(
        [
            "## Start-up\n",
            table(["process", "seconds"], rows),
            table(["", "ratio"], ratios),
            "From a process's start to the first token of the demo's base:\n",
            table(["stage", "seconds"], way),
        ]
    )


def stages(result: Result) -> str:
    """Where the time goes."""
    kinds = list(result["rows"][0]["shares"])
    rows = [
        [
            row["stage"],
            of(row["seconds"]),
            f"{row['floor_products']['value']:.3f}",
            f"{row['floor_moving']['value']:.3f}",
            of(row["over_floor"], 1) if row["over_floor"] else "",
            *(f"{row['shares'][k]:.0%}" for k in kinds),
        ]
        for row in result["rows"]
    ]
    head = ["stage", "seconds", "floor: products", "floor: moving", "over the floor", *kinds]
    return (
        f"## Where the time goes\n\n{result['prompts']:,} prompts. The floor is the operations "
        f"done over the measured rate of products ({of(result['gflops'], 0)} GFLOP/s through "
        f"torch, for the update; {of(result['gflops_wide'], 0)} through oneDNN, for the others), "
        f"and the bytes of elementwise work over the measured rate of copying "
        f"({of(result['gigabytes_a_second'], 1)} GB/s).\n\n" + table(head, rows)
    )


SECTIONS: dict[str, Callable[[Result], str]] = {
    "round": one_round,
    "reaching": reaching,
    "generate": generation,
    "training": training,
    "condition": condition,
    "lab": lab,
    "growth": growth,
    "start_up": start_up,
    "stages": stages,
}

if __name__ == "__main__":
    main()
