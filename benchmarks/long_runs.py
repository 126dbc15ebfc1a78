"""Long runs and large files: memory, open files and disk, round by round.

    python -m benchmarks.long_runs [--quick]

Each in a process of its own: 200 rounds of an exact policy (classes on vectors), 50 rounds of a
Llama-like model of 0.1 M parameters, and a run from a file of 1,000,000 prompts. After each round:
resident memory, open files, bytes of the round's folder, of its forecast.json and of its line in
metrics.jsonl, seconds. Printed: the first rounds beside the last.

Cost: some minutes on a core.
Results: benchmarks/results/long_runs.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.growth import SIZES, random_model
from benchmarks.side_by_side import in_child, write

RUNS = {"exact": 200, "network": 50, "file": 1}
"""Rounds."""
PROMPTS = 1_000_000
EDGE = 5
"""Rounds of which means are shown, at both ends."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--child", help="one run, as JSON")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(**json.loads(options.child))))
        return
    result: dict[str, Any] = {}
    for kind, rounds in RUNS.items():
        asked = {"kind": kind, "rounds": max(1, rounds // 10) if options.quick else rounds}
        asked["prompts"] = PROMPTS // (10 if options.quick else 1) if kind == "file" else 200
        found = in_child("benchmarks.long_runs", "--child", json.dumps(asked))
        result[kind] = asked | found
        print(f"{kind}: {asked['rounds']} rounds, {asked['prompts']:,} prompts: "
              f"{found['seconds']:.0f} s, peak {found['peak_mb']:.0f} MB, folder "
              f"{found['folder_mb']:.1f} MB, prompts {found['file_mb']:.1f} MB")  # fmt: skip
        for name in found["rounds"][-1]:
            ends = found["rounds"][1 : EDGE + 1], found["rounds"][-EDGE:]
            print(f"  {name}: {' -> '.join(f'{mean(r[name] for r in end):.6g}' for end in ends)}")
        sys.stdout.flush()
        write("long_runs_quick" if options.quick else "long_runs", result)


def child(kind: str, rounds: int, prompts: int) -> dict[str, Any]:
    """One run; what it holds after each round."""
    import torch

    from srlm.config import resolve
    from srlm.runner import run

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        file = place / "prompts.jsonl"
        changes: dict[str, Any] = {
            "prompts.file": str(file), "rounds": rounds, "reward": "likelihood",
            "samples.prompts": 32, "samples.per_prompt": 4, "samples.max_tokens": 8,
            "measure.prompts": 32, "measure.samples": 4, "measure.nodes": 50, "update.epochs": 1,
            "update.beta": 4.0, "device": "cpu",
        }  # fmt: skip
        if kind == "exact":
            import numpy as np

            from srlm.policies.linear_softmax import LinearSoftmax

            rng = np.random.default_rng(0)
            names = ("a", "b", "c", "d")
            LinearSoftmax(rng.standard_normal(4 * 6), names).save(place / "model")
            rows = [{"prompt": x} for x in rng.standard_normal((prompts, 6)).tolist()]
        else:
            random_model(place / "model", *SIZES["0.1 M"])
            rows = [{"prompt": f"{i}+{i % 97}=", "answer": i + i % 97} for i in range(prompts)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        del rows
        out, held = place / "out", []

        def clock() -> float:
            """``run`` looks at it after each round."""
            held.append(state(out))
            return time.monotonic()

        run(resolve(None, changes | {"model": str(place / "model")}), out, clock=clock)
        held = [one for one in held if one is not None]
        return {
            "rounds": held,
            "folder_mb": size(out) / 2**20,
            "file_mb": file.stat().st_size / 2**20,
        }


def state(out: Path) -> dict[str, float] | None:
    """What the process and its last round hold; None before the first."""
    done = sorted((out / "rounds").glob("*/round.json"))
    if not done:
        return None
    place = done[-1].parent
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    lines = (out / "metrics.jsonl").read_bytes().splitlines()
    return {
        "memory_mb": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "open_files": len(os.listdir("/proc/self/fd")),
        "round_kb": size(place) / 2**10,
        "forecast_bytes": (place / "forecast.json").stat().st_size,
        "metrics_bytes": len(lines[-1]),
        "at_seconds": time.monotonic(),
    }


def size(folder: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


if __name__ == "__main__":
    main()
