"""The calibrated planner, back-tested: fitted on the first three rounds, scored on the later ones.

    python benchmarks/planner.py [RUN_DIR ...] [--out benchmarks/results/planner.json]

On 400 runs of the lab (linear softmax by `srlm.lab.bulk`: 40 instances over kappa_0, dimension,
spectrum, pairs a round, beta and noise of the reward, 10 replicates each, eight rounds), and on the
run folders given. The error is |log predicted - log measured kappa|, next to that of the paper's
form of the recursion, of the last ratio of excesses repeated, and of no change at all; coverage is
that of the 90 % intervals. Given run folders with too few rounds are named and left out.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from environment import environment

from srlm.lab.bulk import bulk
from srlm.lab.instances import exponential, linear, polynomial, spiked
from srlm.report.read import read_run
from srlm.theory import backtest

HERE = Path(__file__).parent
INSTANCES, REPLICATES, ROUNDS, SEEN = 40, 10, 8, 4
PROMPTS, RESPONSES = 64, 32
STILL = 0.01
"""A run whose kappa is this near to 1 when the planner has seen its rounds has little to predict;
the others are scored apart too."""


def instance(number: int) -> tuple[dict[str, Any], np.ndarray]:
    """One instance's parameters, drawn by its number, and kappa of its replicates, [R, T+1]."""
    rng = np.random.default_rng([20261121, number])
    dimension = int(rng.choice([8, 16, 32]))
    spectra = {
        "exponential": exponential(dimension, 0.2),
        "polynomial": polynomial(dimension, 1.5),
        "spiked": spiked(dimension, dimension // 4, 0.5),
    }
    facts: dict[str, Any] = {
        "dimension": dimension,
        "spectrum": str(rng.choice(list(spectra))),
        "kappa0": round(float(np.exp(rng.uniform(np.log(1.5), np.log(16.0)))), 3),
        "pairs": int(rng.choice([16, 64, 256, 1024])),
        "beta": float(rng.choice([1.0, 2.0, 4.0, 8.0])),
        "noise": float(rng.choice([0.0, 0.5])),
    }
    start = linear(
        spectra[facts["spectrum"]],
        facts["kappa0"],
        prompts=PROMPTS,
        responses=RESPONSES,
        seed=number,
    )
    asked = {name: facts[name] for name in ("pairs", "beta", "noise")}
    paths = bulk(start, rounds=ROUNDS, replicates=REPLICATES, seed=number, **asked)
    return facts, paths.kappa_RT


def scored(runs: list[np.ndarray]) -> dict[str, Any]:
    """The back-test's figures."""
    return {
        name: {k: round(v, 5) for k, v in value.items()}
        if isinstance(value, dict)
        else round(value, 5)
        for name, value in asdict(backtest(runs, seen=SEEN)).items()
    }


def of_lab() -> dict[str, Any]:
    """All 400 runs, those that still move after three rounds, by beta, and each instance."""
    rows, runs = [], []
    by_beta: dict[float, list[np.ndarray]] = {}
    for number in range(INSTANCES):
        facts, kappa_RT = instance(number)
        paths = list(kappa_RT)
        runs.extend(paths)
        by_beta.setdefault(facts["beta"], []).extend(paths)
        score = scored(paths)
        rows.append(
            facts
            | {"kappa": [round(float(k), 4) for k in np.median(kappa_RT, axis=0)]}
            | {name: score[name] for name in ("mean_error", "coverage", "mean_error_of")}
        )
    moving = [path for path in runs if path[SEEN - 1] - 1.0 > STILL]
    return {
        "all": scored(runs),
        "moving": scored(moving),
        "by_beta": {f"{beta:g}": scored(found) for beta, found in sorted(by_beta.items())},
        "instances": rows,
    }


def of_folders(folders: list[Path]) -> dict[str, Any]:
    """The run folders together and one by one."""
    kappas = {
        str(folder): np.array(
            [max(1.0, r["kappa"].value or np.inf) for r in read_run(folder).rounds]
        )
        for folder in folders
    }
    usable = {
        name: path for name, path in kappas.items() if len(path) > SEEN and np.isfinite(path).all()
    }
    return {
        "left_out": sorted(Path(name).name for name in kappas.keys() - usable.keys()),
        "all": scored(list(usable.values())) if usable else None,
        "runs": [
            {"run": Path(name).name, "kappa": [round(float(k), 4) for k in path]} | scored([path])
            for name, path in usable.items()
        ],
    }


def main() -> None:
    """Score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="RUN_DIR")
    parser.add_argument("--out", type=Path, default=HERE / "results/planner.json")
    asked = parser.parse_args()
    machine, begun = environment(), time.perf_counter()
    result: dict[str, Any] = {"environment": machine, "seen": SEEN, "rounds": ROUNDS}
    result["lab"] = of_lab()
    result["folders"] = of_folders(asked.folders)
    result["seconds"] = round(time.perf_counter() - begun, 1)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    lab, folders = result["lab"], result["folders"]
    for name, score in (("lab", lab["all"]), ("moving", lab["moving"]), ("runs", folders["all"])):
        print(f"{name}: {json.dumps(score)}")
    print(f"{result['seconds']} s; {asked.out}")


if __name__ == "__main__":
    main()
