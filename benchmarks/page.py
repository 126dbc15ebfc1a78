"""docs/speed.md, from the results of the benchmarks.

    python -m benchmarks.page [--quick]

A benchmark that was not run is left out and named. ``--quick`` prints the page of quick runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Result = dict[str, Any]
HEAD = """# How fast it is

Written by `python -m benchmarks.page`; do not edit. `make bench` measures all of it again,
`make bench BENCH=--quick` a smaller part in some minutes.

Cases take turns in one run, a ratio is taken within a turn, and a figure is the median of the turns
with the least and the greatest (of five turns that range holds the true median with probability
94%). A ratio above 1 is to our advantage. Times alone are no claims: they belong to the machine
named under each table.
"""


def main() -> None:
    """Read, write, say what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    tail = "_quick" if parser.parse_args().quick else ""
    parts, missing = [HEAD], []
    for name, section in SECTIONS.items():
        path = HERE / f"results/{name}{tail}.json"
        if path.exists():
            result = json.loads(path.read_text(encoding="utf-8"))
            parts.append(section(result) + "\n" + machine(result))
        else:
            missing.append(name)
    text = "\n".join(parts)
    if tail:
        print(text)
    else:
        (HERE.parent / "docs/speed.md").write_text(text, encoding="utf-8")
        print("docs/speed.md")
    if missing:
        print("not run: " + ", ".join(missing))


def machine(result: Result) -> str:
    """Where and with what it was measured."""
    e = result["environment"]
    return (
        f"{e['processor']}, {e['cores']} cores, load {e['load']} at the end; torch {e['torch']}, "
        f"transformers {e['transformers']}, Python {e['python']}.\n"
    )


def of(x: dict[str, Any], digits: int = 2) -> str:
    """A median with its range.

    >>> of({"value": 2.0, "low": 1.5, "high": 2.25, "n": 5})
    '2.00 (1.50 to 2.25)'
    """
    return f"{x['value']:,.{digits}f} ({x['low']:,.{digits}f} to {x['high']:,.{digits}f})"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


# ---- sections


def one_round(result: Result) -> str:
    """Against TRL."""
    out = [
        "## One self-rewarding round, beside TRL's DPO\n",
        f"TRL {result['trl']}, its default loss; the same model, samples, passes, optimiser steps "
        f"and one thread. Each side's learning rate and beta were tuned on seed "
        f"{result['tuning_seed']}, which is not shown; *ours* has srlm's defaults.\n",
    ]
    for times in result.get("times", []):
        stages = ("samples", "pairs", "train", "round")
        rows = [
            [name, *(of(x["seconds"][k]) for k in stages), str(x["steps"]), str(x["pairs"])]
            for name, x in times["sides"].items()
        ]
        heads = [f"{k}, s" for k in stages]
        out.append(f"{times['prompts']:,} prompts, {times['parameters']:,} parameters:\n")
        out.append(table(["", *heads, "steps", "groups or pairs"], rows))
        over = [
            [f"trl dpo / {name}", *(of(x[k]) for k in ("round", "samples", "train"))]
            for name, x in times["trl_over"].items()
        ]
        out.append(table(["times as long", "round", "samples", "train"], over))
    if seeds := result.get("learning"):
        rows = []
        for name in seeds[0]["sides"]:
            cells = []
            for t in range(len(seeds[0]["sides"][name]["rounds"])):
                found = [s["sides"][name]["rounds"][t] for s in seeds]
                room = [x["headroom"] for x in found]
                took = sorted(x["seconds_so_far"] for x in found)[len(found) // 2]
                cells.append(f"{min(room):.0%} to {max(room):.0%} in {took:.1f} s")
            rows.append([name, *cells])
        out.append(
            f"Headroom captured, least and greatest of {len(seeds)} seeds, seconds so far:\n"
        )
        out.append(table(["", *(f"round {t + 1}" for t in range(len(rows[0]) - 1))], rows))
    for memory in result.get("memory", []):
        rows = [
            [name, of(x["above_mb"], 0), of(over) if (over := memory["over_trl"].get(name)) else ""]
            for name, x in memory["sides"].items()
        ]
        out.append(
            f"Peak memory above a process that only loads the model, {memory['prompts']:,} "
            "prompts:\n"
        )
        out.append(table(["", "MB", "over trl dpo"], rows))
    return "\n".join(out)


def real(result: Result) -> str:
    """A pretrained model."""
    out = [
        f"## SmolLM2-135M, beside TRL's DPO and generate\n\nTRL {result['trl']}, its default loss; "
        "the same prompts, samples and optimiser steps, float32, one thread. *Ours, dpo* trains on "
        "the pairs that TRL trains on, *ours* on all samples.\n"
    ]
    if found := result.get("sampling"):
        rate = found["tokens_a_second"]
        out.append(
            f"Sampling with log-probabilities, {found['prompts']} prompts, {found['per_prompt']} "
            f"samples per prompt: {of(rate['srlm'], 0)} tokens/s, `generate` "
            f"{of(rate['generate'], 0)}; ratio {of(found['ours_over'])}.\n"
        )
    for way, times in result["times"].items():
        stages = ("samples", "pairs", "train", "round")
        above = result["memory"].get(way, {}).get("above_mb", {})
        rows = [
            [
                name,
                *(of(x["seconds"][k], 1) for k in stages),
                str(x["steps"]),
                of(times["trl_over"][name]["round"]) if name in times["trl_over"] else "",
                f"{above[name]:,.0f}" if name in above else "",
            ]
            for name, x in times["sides"].items()
        ]
        heads = [*(f"{k}, s" for k in stages), "steps", "TRL's round / this", "peak above bare, MB"]
        out.append(table([way, *heads], rows))
    return "\n".join(out)


def generation(result: Result) -> str:
    """Tokens a second."""
    names = list(result["cases"][0]["ours_over"])
    rows = [
        [
            row["model"],
            f"{row['batch']:,}",
            str(row["per_prompt"]),
            str(row["threads"]),
            f"{row['tokens_a_second']['srlm']['value']:,.0f}",
            *(of(x) for x in row["ours_over"].values()),
        ]
        for row in result["cases"]
    ]
    head = [
        "model",
        "responses",
        "per prompt",
        "threads",
        "tokens/s",
        *(f"over {n}" for n in names),
    ]
    return (
        "## Sampling with log-probabilities, beside Hugging Face generate\n\n"
        "Tokens a second of ours over each other's. *Loop* calls the model with its cache and runs "
        "the prompts once.\n\n" + table(head, rows) + "\nLog-probabilities differ from a full "
        f"forward pass by {result['worst_gap']:.1e} nats a token at most.\n"
    )


def search(result: Result) -> str:
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
    head = ["start", "certified", "ms per prompt", "one at a time / ours", "beam of 8 / ours"]
    return "## Certified modes\n\n" + table([*head, "nodes / least"], rows)


def growth(result: Result) -> str:
    """Samples, rounds, length, size, nodes."""
    out = ["## How it grows\n"]
    for axis in ("samples", "rounds", "length", "size"):
        if axis not in result:
            continue
        stages = list(result[axis]["points"][0]["seconds"])
        rows = [
            [str(p["at"]), *(of(p["seconds"][s]) for s in stages), of(p["memory_mb"], 0)]
            for p in result[axis]["points"]
        ]
        slopes = ["exponent", *(str(result[axis]["exponent"][s]) for s in (*stages, "memory"))]
        head = [axis, *(f"{s}, s" for s in stages), "memory above bare, MB"]
        out.append(table(head, [*rows, slopes]))
    for kind, nodes in result.get("nodes", {}).items():
        rows = [[f"{p['at']:,}", f"{p['opened']:,}", of(p["seconds"])] for p in nodes["points"]]
        rows.append(["exponent", "", str(nodes["exponent"])])
        out.append(f"Search at its default limits, {nodes['prompts']} prompts, {kind}:\n")
        out.append(table(["nodes per prompt", "opened in all", "search, processor s"], rows))
    return "\n".join(out)


SECTIONS: dict[str, Callable[[Result], str]] = {
    "round": one_round,
    "real": real,
    "generate": generation,
    "search": search,
    "growth": growth,
}

if __name__ == "__main__":
    main()
