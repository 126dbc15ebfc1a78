"""Drawing with log-probabilities: tokens a second beside Hugging Face generate.

    python benchmarks/generate.py [--threads 1 2] [--repeats 5] [--quick] [--large]

Models of 0.1 M (the demo's good base), 3 M and 100 M parameters (random weights), batches of 64,
256 and 1,024 responses, float32: one draw of each prompt, and with the demo's base also four, as a
round makes them, where draws share what they have in common (16, 64 and 256 prompts). With random
weights nearly nothing is shared after the first token, so these models draw once. Compared with
the same model in ``generate`` with log-probabilities (dynamic and static cache), in ``generate``
without them, and in a loop with a dynamic cache. Every way is warmed ``WARM`` times, in which ours
records its steps (srlm.policies.recorded); then the ways take turns, and a figure is the median of
the ratios of tokens a second within a turn, with their range. Exactness: the log-probabilities
against a full forward pass. Profile: where a step of ours goes with one draw a prompt, beside its
floor (benchmarks/decode_floor.py).

``--quick`` is the smallest batch, two repeats and one thread. ``--large`` adds 100 M at 1,024 rows,
which takes a minute a turn. Results: benchmarks/results/generate.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import torch
from decode_floor import floor, machine
from generating import SHAPES, WAYS, Task, demo_task, gap, random_policy, random_task
from side_by_side import REPEATS, interleaved, ratio, spread, write

BATCHES = (64, 256, 1024)
DRAWS = (1, 4)
LARGE = ("100 M", 1024)
WARM = {"0.1 M": 4, "3 M": 4, "100 M": 1}
"""Unmeasured turns. At 100 M parameters nothing is recorded."""


def tasks(quick: bool, large: bool) -> Iterator[Task]:
    """Every model at every batch size that was asked for."""
    batches = BATCHES[:1] if quick else BATCHES
    for draws in DRAWS:
        for batch in batches:
            yield demo_task(batch, draws)
    for shape in SHAPES:
        policy, model = random_policy(shape)
        for batch in batches:
            if (shape.name, batch) != LARGE or large:
                yield random_task(shape, policy, model, batch)


def compared(task: Task, repeats: int) -> dict[str, Any]:
    """Tokens a second of each way, and ours over each other's."""
    drawn: dict[str, list[int]] = {name: [] for name in WAYS}

    def case(name: str) -> Any:
        way = WAYS[name](task)
        return lambda: drawn[name].append(way(len(drawn[name])))

    cases = {name: case(name) for name in WAYS}
    seconds = interleaved(cases, repeats=repeats, warm=WARM[task.name])
    rate = {
        name: [n / s for n, s in zip(drawn[name][-repeats:], seconds[name], strict=True)]
        for name in WAYS
    }
    return {
        "model": task.name,
        "parameters": sum(p.numel() for p in task.model.parameters()),
        "batch": task.rows,
        "draws": task.draws,
        "prompt_tokens": task.prompt_PL.shape[1],
        "max_tokens": task.new_tokens,
        "mean_tokens": drawn["srlm"][-1] / task.rows,
        "threads": torch.get_num_threads(),
        "tokens_a_second": {name: spread(values) for name, values in rate.items()},
        "ours_over": {name: ratio(rate["srlm"], rate[name]) for name in WAYS if name != "srlm"},
    }


SHOWN = {
    "generate": "generate",
    "static": "generate, static cache",
    "no logp": "generate, no log-probabilities",
    "loop": "loop",
}
"""Columns of the summary."""


def line(row: dict[str, Any]) -> str:
    """A case in 80 columns."""
    rate = row["tokens_a_second"]["srlm"]["value"]
    text = f"{row['model']:>5}{row['batch']:5d}/{row['draws']}{row['threads']:2d}{rate:8,.0f}"
    for name in SHOWN.values():
        r = row["ours_over"][name]
        text += f"{r['value']:6.2f} ({r['low']:.1f}-{r['high']:.1f})"
    return text


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", help="1 2; of --quick 1")
    parser.add_argument("--repeats", type=int, help=f"{REPEATS}; of --quick 2")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--large", action="store_true")
    asked = parser.parse_args()
    threads_asked = asked.threads or ([1] if asked.quick else [1, 2])
    repeats = asked.repeats or (2 if asked.quick else REPEATS)
    began = perf_counter()
    print("Model, batch/draws, threads, tokens a second, and how many times those of Hugging Face:")
    print(" " * 22 + "".join(f"{name:>15}" for name in SHOWN))
    cases, profile, worst = [], [], []
    for task in tasks(asked.quick, asked.large):
        for threads in threads_asked:
            torch.set_num_threads(threads)
            cases.append(compared(task, repeats))
            print(line(cases[-1]), flush=True)
        torch.set_num_threads(threads_asked[0])
        if task.draws == 1:
            profile.append(floor(task, repeats))
        of = {"model": task.name, "batch": task.rows, "draws": task.draws}
        worst.append(of | gap(task, seed=0))
    result = {
        "cases": cases,
        "exactness": {"worst": max(row["token"] for row in worst), "cases": worst},
        "profile": {"machine": machine(), "cases": profile},
        "seconds": perf_counter() - began,
    }
    name = "generate_quick" if asked.quick else "generate"
    print(f"log-probabilities: {result['exactness']['worst']:.1e} nats at worst from a full pass")
    print(write(name, result).name)


if __name__ == "__main__":
    main()
