"""A run's forecast of its later rounds, made again after each round.

Everything is read from the run folder, so that a resumed run says the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from srlm import run_folder as runs
from srlm.config import RunConfig
from srlm.forecast.make import read_all
from srlm.forecast.pace import Pace, forecast_json, later_rounds, pace_of_round
from srlm.forecast.trajectory import Evidence, gather
from srlm.grading import grader
from srlm.types import Estimate, Prompt


def evidence_of_round(folder: Path, t: int, answer: str, seed: int) -> Evidence:
    """What the held-out samples and modes of round t say of pi_t.

    Args:
        folder: a run folder in which round t is measured.
        t: the round.
        answer: how answers are read (``grading.grader``).
        seed: of the bootstrap.
    """
    place = folder / "rounds" / f"{t:03d}"
    samples = runs.read_samples(place / "held_out.parquet")
    table = pq.read_table(place / "prompts.parquet")
    prompts = [
        Prompt(i, text, tuple(answers))
        for i, text, answers in zip(
            table["prompt_id"].to_pylist(),
            table["prompt"].to_pylist(),
            table["answers"].to_pylist(),
            strict=True,
        )
    ]
    mode_text = table["mode_text"].to_pylist()
    finished = table["mode_finished"].to_numpy()
    read = grader(answer)
    answer_R, mode_answer_P = read_all(read, samples, mode_text, finished)

    counts = np.bincount(samples.prompt_R)
    return gather(
        samples,
        [tuple(m) for m in table["mode_tokens"].to_pylist()],
        table["log_p_star"].to_numpy(),
        answer_R,
        mode_answer_P,
        read.grades(samples.text_R, samples.finished_R, prompts, samples.prompt_R),
        read.grades(mode_text, finished, prompts),
        exact=not np.allclose(samples.weight_R, 1.0 / counts[samples.prompt_R]),
        seed=seed,
    )


def forecast_after(folder: Path, t: int, config: RunConfig) -> dict[str, Any]:
    """The forecast of rounds t + 1 .. T after round t (``pace.forecast_json``).

    Kept as rounds/t/forecast.json, and read from there where it is kept already.
    """
    file = _file(folder, t)
    if file.exists():
        return _read(file)
    answer, seed, beta = config.prompts.answer, config.seed, config.update.beta
    now = evidence_of_round(folder, t, answer, seed)
    paces = [Pace(**p) for p in _read(_file(folder, t - 1))["paces"]] if t else []
    if t:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        before, after = (
            {name: Estimate(**line[name]) for name in ("confidence", "sampling_accuracy")}
            for line in map(json.loads, lines[t - 1 : t + 1])
        )
        earlier = evidence_of_round(folder, t - 1, answer, seed)
        paces.append(pace_of_round(earlier, before, after, beta))
    later = later_rounds(now, t, paces, beta=beta, rounds=config.rounds)
    out = forecast_json(t, paces, later)
    runs.write_text(file, json.dumps(out, indent=1, allow_nan=False) + "\n")
    return out


def _file(folder: Path, t: int) -> Path:
    return folder / "rounds" / f"{t:03d}" / "forecast.json"


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))
