"""kappa, F, spectra and forecast of four model families at two training lengths.

    python benchmarks/families.py [--steps 250,750] [--out FILE]

Tiny GPT-2, Qwen3, Mistral and Llama networks (about 100,000 parameters) are trained on the demo's
corpus and then looked at as ``srlm forecast`` and ``srlm measure --fisher`` do. Nothing is
self-rewarded here: these are forecasts, exact rounds at beta 1; * marks extrapolations. Writes the
table as JSON with the environment beside it. Bases are kept in the cache folder, so that a second
run trains nothing (``seconds.train`` near 0). Mistral differs from Llama by a sliding window that
these texts never fill, and gives the same numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from srlm.data import prompt_id
from srlm.demo.base import cached_base
from srlm.demo.corpus import STARTS, prompts, true_answer
from srlm.demo.network import ARCHITECTURES
from srlm.forecast.make import make_forecast
from srlm.grading import grader
from srlm.measure.curvature import fisher
from srlm.policies.load import load
from srlm.types import Prompt

PROMPTS, DRAWS, BETA, ROUNDS, MAX_TOKENS = 128, 32, 1.0, 3, 16


def look(arch: str, steps: int, seed: int) -> dict[str, Any]:
    """One family at one training length."""
    begun = time.perf_counter()
    policy = load(cached_base(STARTS["good"], seed, arch=arch, steps=steps))
    trained = time.perf_counter() - begun
    asked = [
        Prompt(prompt_id(text), text, true_answer(text), i)
        for i, text in enumerate(prompts(PROMPTS, seed), start=1)
    ]
    begun = time.perf_counter()
    found = make_forecast(
        policy, asked, grader=grader("last-number"), beta=BETA, betas=(), rounds=ROUNDS,
        samples=DRAWS, max_tokens=MAX_TOKENS, seed=seed,
    )  # fmt: skip
    forecast_seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    spectrum = fisher(
        policy, asked, found.measurement.samples, responses=32, top=3, probes=8, steps=15
    )
    now, last = found.measurement.estimates, found.points[-1]
    return {
        "family": arch,
        "steps": steps,
        "parameters": spectrum.parameters,
        "kappa": now["kappa"].to_json(),
        "failure_fraction": now["failure_fraction"].to_json(),
        "sampling_accuracy": now["sampling_accuracy"].to_json(),
        "mode_accuracy": now["mode_accuracy"].to_json(),
        "greedy_is_mode": now["greedy_is_mode"].to_json(),
        "forecast": [p.to_json() for p in found.points],
        "forecast_last": {
            "kappa": last.kappa.value,
            "sampling_accuracy": last.sampling_accuracy.value,
            "supported": last.supported,
        },
        "verdict": found.verdict.verdict,
        "fisher": spectrum.to_json(),
        "seconds": {
            "train": round(trained, 1),
            "forecast": round(forecast_seconds, 1),
            "fisher": round(time.perf_counter() - begun, 1),
        },
    }


def show(rows: list[dict[str, Any]]) -> None:
    """The table in the terminal."""
    heads = ("family", "steps", "κ", "F", "acc.", "mode", f"κ_{ROUNDS}", f"acc_{ROUNDS}",
             "verdict", "Fisher λ1", "trace", "cond. ≥", "d_eff .01")  # fmt: skip
    table = Table(*heads, box=None)
    for r in rows:
        f = r["fisher"]
        condition = f["fisher_condition_number"]["value"]
        star = "" if r["forecast_last"]["supported"] else "*"
        table.add_row(
            r["family"], str(r["steps"]), f"{r['kappa']['value']:.3f}",
            f"{r['failure_fraction']['value']:.3f}", f"{r['sampling_accuracy']['value']:.3f}",
            f"{r['mode_accuracy']['value']:.3f}", f"{r['forecast_last']['kappa']:.3f}{star}",
            f"{r['forecast_last']['sampling_accuracy']:.3f}", r["verdict"],
            f"{f['largest_eigenvalues'][0]:.1f}", f"{f['trace']['value']:.0f}",
            "unstable" if condition is None else f"{condition:.0f}",
            f"{f['features']['effective_dimension'][1]['value']:.1f}",
        )  # fmt: skip
    Console(width=120).print(table)


def main() -> None:
    """Train what is not in the cache, look at all, write the JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", default="250,750", help="training lengths")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/families.json")
    given = parser.parse_args()
    torch.set_num_threads(2)
    rows: list[dict[str, Any]] = []
    for steps in map(int, given.steps.split(",")):
        for arch in ARCHITECTURES:
            rows.append(look(arch, steps, given.seed))
            print(arch, steps, rows[-1]["seconds"], flush=True)
    data = {
        "settings": {
            "prompts": PROMPTS, "draws": DRAWS, "beta": BETA, "rounds": ROUNDS,
            "max_tokens": MAX_TOKENS, "seed": given.seed, "start": "good",
        },
        "environment": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            **{name: version(name) for name in ("torch", "transformers", "numpy", "scipy")},
        },
        "rows": rows,
    }  # fmt: skip
    given.out.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    show(rows)


if __name__ == "__main__":
    main()
