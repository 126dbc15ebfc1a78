"""A run's forecast, updated after each round, and how well the earlier ones foretold.

Everything is read from the run folder, so that a run that goes on says the same.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from srlm import run_folder as runs
from srlm.config import RunConfig
from srlm.forecast.foretell import read_all, rightness
from srlm.forecast.pace import Ahead, Step, ahead, expected_efficiency, kept_accuracy, step
from srlm.forecast.trajectory import Evidence, gather
from srlm.grading import checker, extractor
from srlm.types import Prompt

NAMES = ("kappa", "confidence", "sampling_accuracy", "length")
"""What is foretold of a later round, and scored."""


def evidence_of_round(folder: Path, t: int, config: RunConfig) -> Evidence:
    """What the held-out draws and modes of round t say of pi_t.

    Args:
        folder: a run folder in which round t is measured.
        t: the round.
        config: its settings (answers, draws or enumeration, seed).
    """
    place = folder / "rounds" / f"{t:03d}"
    samples = runs.read_samples(place / "held_out.parquet")
    table = pq.read_table(place / "prompts.parquet")
    prompts = [
        Prompt(i, text, answer)
        for i, text, answer in zip(
            table["prompt_id"].to_pylist(),
            table["prompt"].to_pylist(),
            table["answer"].to_pylist(),
            strict=True,
        )
    ]
    mode_text = table["mode_text"].to_pylist()
    read, right = extractor(config.prompts.answer), checker(config.prompts.answer)

    counts = np.bincount(samples.prompt_R)
    return gather(
        samples,
        [tuple(m) for m in table["mode_tokens"].to_pylist()],
        table["log_p_star"].to_numpy(),
        read_all(read, samples.text_R),
        read_all(read, mode_text),
        rightness(right, samples.text_R, [prompts[p] for p in samples.prompt_R]),
        rightness(right, mode_text, prompts),
        exact=not np.allclose(samples.weight_R, 1.0 / counts[samples.prompt_R]),
        seed=config.seed,
    )


def follow(folder: Path, t: int, config: RunConfig) -> dict[str, Any]:
    """The forecast after round t, and the scores of those made before; kept as forecast.json.

    Returns:
        ``made`` (t), ``efficiency`` (foretold for the rounds to come), ``steps`` (exponent and
        efficiency of each round done), ``ahead`` (by later round: expected, slow, fast values),
        ``scores`` (by earlier forecast: errors of kappa and accuracy on the rounds since).
    """
    if _file(folder, t).exists():
        return dict(json.loads(_file(folder, t).read_text(encoding="utf-8")))
    metrics = _metrics(folder)[: t + 1]
    beta = config.update.beta
    before = json.loads(_file(folder, t - 1).read_text(encoding="utf-8")) if t else None
    steps = [Step(**s) for s in before["steps"]] if before else []
    now = evidence_of_round(folder, t, config)
    if t:
        earlier = evidence_of_round(folder, t - 1, config)
        made = step(
            earlier.known,
            metrics[t - 1]["confidence"]["value"],
            metrics[t]["confidence"]["value"],
            beta,
        )
        accuracy = metrics[t]["sampling_accuracy"]["value"]
        steps.append(replace(made, kept=kept_accuracy(earlier, made.exponent, accuracy)))
    out = {
        "made": t,
        "efficiency": expected_efficiency(steps),
        "steps": [asdict(s) for s in steps],
        "ahead": [told(a) for a in ahead(now, t, steps, beta=beta, rounds=config.rounds)],
        "scores": [_score(_file(folder, made), metrics, t) for made in range(t)],
    }
    runs.write_text(_file(folder, t), json.dumps(out, indent=1, allow_nan=False) + "\n")
    return out


def _file(folder: Path, t: int) -> Path:
    return folder / "rounds" / f"{t:03d}" / "forecast.json"


def _metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def told(a: Ahead) -> dict[str, Any]:
    """A later round foretold, for programs: the band spans the slow and the fast forecast."""
    out: dict[str, Any] = {
        "round": a.round,
        "exponent": a.expected.exponent,
        "supported": a.expected.supported,
    }
    for name in NAMES:
        estimate = a.told(name).to_json()
        out[name] = estimate
    return out


def _score(file: Path, metrics: list[dict[str, Any]], t: int) -> dict[str, Any]:
    """How the forecast in ``file`` did on the rounds since."""
    told = json.loads(file.read_text(encoding="utf-8"))
    rows = []
    for a in told["ahead"]:
        if a["round"] > t:
            continue
        seen = metrics[a["round"]]
        row: dict[str, Any] = {"round": a["round"]}
        for name in NAMES:
            value, measured = a[name]["value"], seen[name]["value"]
            if value is None or measured is None:
                continue
            row[name] = value - measured
            row[f"{name}_within"] = a[name]["low"] <= measured <= a[name]["high"]
        row["kappa_relative"] = a["kappa"]["value"] / seen["kappa"]["value"] - 1
        rows.append(row)
    return {"made": told["made"], "rounds": rows}
