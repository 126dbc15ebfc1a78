"""Where votes lead on a pretrained model: told from few samples, beside many others.

A part of ``experiments.real_model``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.forecasts import size, told
from experiments.tasks import MORE_TASKS, TASKS
from experiments.votes import counted, ends, votes
from srlm.data import read_prompts
from srlm.grading import grader
from srlm.types import Bools, Ints
from srlm.writing import write_text

PROMPTS, MANY = 64, 640
FROM = (8, 16, 32, 64)
"""Samples per prompt that it is told from."""
TIMES = 10
"""Each from other samples; the rest of the many are the truth."""


def voted(model: Path, out: Path, seed: int) -> list[dict[str, Any]]:
    """For each task and number of samples: the truth, and what was told ``TIMES`` times."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, task in (TASKS | MORE_TASKS).items():
        asked = out / f"{name}.jsonl"
        write_text(asked, "".join(json.dumps(x) + "\n" for x in task.made(PROMPTS, seed)))
        code_PK, right_PK = votes(
            out / f"{name}-{PROMPTS}-{MANY}.npz",
            model,
            read_prompts(asked),
            grader(task.answer),
            MANY,
            seed,
            task.max_tokens,
            rows=MANY,
        )
        for n in FROM:
            rows.append({"task": name, "n": n} | repeated(code_PK, right_PK, n))
        print(rows[-1], flush=True)
    return rows


def repeated(code_PK: Ints, right_PK: Bools, n: int) -> dict[str, Any]:
    """Told from n samples, ``TIMES`` times, beside all others; errors of the mode's accuracy and,
    relatively, of kappa, whether the intervals hold, and the error of the samples' own majority."""
    errors = []
    for i in range(TIMES):
        some_K = np.arange(code_PK.shape[1]) // n == i
        own = counted(code_PK[:, some_K], right_PK[:, some_K])
        mode_P, top_P = ends(counted(code_PK[:, ~some_K], right_PK[:, ~some_K]))
        mode, kappa = float(mode_P.mean()), float((1 / top_P).mean())
        found = told(own)
        errors.append(
            {
                "mode": found["mode"]["value"] - mode,
                "mode held": found["mode"]["low"] <= mode <= found["mode"]["high"],
                "kappa": found["kappa"]["value"] / kappa - 1,
                "kappa held": found["kappa"]["low"] <= kappa <= found["kappa"]["high"],
                "majority": float(ends(own)[0].mean()) - mode,
                "plug-in": float((1 / np.maximum(ends(own)[1], 1 / n)).mean()) / kappa - 1,
            }
        )
    mode_P, top_P = ends(counted(code_PK, right_PK))
    return {
        "accuracy": float(right_PK.mean()),
        "mode": float(mode_P.mean()),
        "kappa": float((1 / top_P).mean()),
        "errors": errors,
    }


def section(rows: list[dict[str, Any]]) -> list[str]:
    """Its lines on the page."""
    lines = [
        "",
        "## Where votes lead",
        "",
        f"The base, {PROMPTS} prompts of each of six tasks: accuracy of the mode and κ of answers "
        f"told from 8 to 64 samples per prompt, {TIMES} times each from other samples, beside what "
        f"the rest of {MANY} samples say. Root mean squared errors and in brackets those of the "
        "samples themselves (their majority, their plug-in κ); how often the 90% intervals hold.",
        "",
        "| task | accuracy | of the mode | κ | samples | error, mode | held | error, κ | held |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]

    def off(some: list[dict[str, Any]], name: str) -> float:
        return size([x[name] for x in some])

    def share(some: list[dict[str, Any]], name: str) -> str:
        return f"{np.mean([x[name] for x in some]):.0%}"

    for row in rows:
        some = row["errors"]
        lines.append(
            f"| {row['task']} | {row['accuracy']:.3f} | {row['mode']:.3f} | {row['kappa']:.2f} | "
            f"{row['n']} | {off(some, 'mode'):.3f} ({off(some, 'majority'):.3f}) | "
            f"{share(some, 'mode held')} | {off(some, 'kappa'):.1%} "
            f"({off(some, 'plug-in'):.1%}) | {share(some, 'kappa held')} |"
        )
    for n in FROM:
        some = [x for row in rows if row["n"] == n for x in row["errors"]]
        lines.append(
            f"| all | | | | {n} | {off(some, 'mode'):.3f} ({off(some, 'majority'):.3f}) | "
            f"{share(some, 'mode held')} | {off(some, 'kappa'):.1%} "
            f"({off(some, 'plug-in'):.1%}) | {share(some, 'kappa held')} |"
        )
    return lines
