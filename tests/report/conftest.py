"""Run folders made up for the report: small tables of exact policies, sharpened by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from srlm import writing
from srlm.run_folder import record as recording
from srlm.run_folder.record import Record
from srlm.types import Estimate, undefined

FakeRun = Callable[..., Path]
RESPONSES = 6


def base_policy(kind: str, prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """pi_0 as (prompts, RESPONSES), and the index of each prompt's answer."""
    rng = np.random.default_rng(7)
    if kind == "giveup":  # response 0 is "?", and the likeliest on most prompts
        short = rng.uniform(0.3, 0.45, prompts)
        rest = rng.dirichlet([4.0] + [2.5] * (RESPONSES - 2), prompts) * (1 - short)[:, None]
        return np.column_stack([short, rest]), np.ones(prompts, dtype=int)
    top = rng.uniform(0.38, 0.9, prompts)
    rest = rng.dirichlet([1.2] * (RESPONSES - 1), prompts) * (1 - top)[:, None]
    return np.column_stack([top, rest]), (rng.random(prompts) > 0.91).astype(int)


def sharpen(pi: np.ndarray, power: float, drift: float = 0.0) -> np.ndarray:
    """pi^power normalised, with the two first responses of a share ``drift`` swapped."""
    out = pi**power
    out /= out.sum(axis=1, keepdims=True)
    swapped = np.arange(len(pi)) < drift * len(pi)
    out[swapped, :2] = out[swapped, 1::-1]
    return out


def estimate(values: np.ndarray, method: str) -> Estimate:
    """Mean with the normal interval."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(mean, None, None, n, method, note="one prompt: no interval")
    half = 1.96 * float(np.std(values, ddof=1)) / np.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n, method, "exact")


def fake_run(
    folder: Path,
    kind: str = "good",
    *,
    powers: tuple[float, ...] | None = None,
    prompts: int = 400,
    answers: bool = True,
    drift: float = 0.02,
    texts: Callable[[int, int], str] = lambda p, m: f"{p}+{m}={p + m}",
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda record: record,
    certified: Callable[[int, int], bool] = lambda round, prompt: True,
) -> Path:
    """Write a run folder: ``good``, ``giveup`` or ``blowup``; ``powers`` are p_t by round.

    ``change`` edits each record of metrics.jsonl before it is written.
    """
    default = {
        "good": (1.0, 1.6, 2.5, 4.0, 6.0, 9.0),
        "giveup": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
        "blowup": (1.0, 0.6, 0.3, 0.1),
    }
    powers = powers or default[kind]
    base, right = base_policy(kind, prompts)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model": "models/base",
        "prompts": {"file": "prompts.jsonl", "held_out": 0.1},
        "rounds": len(powers) - 1,
        "seed": 0,
        "samples": {"per_prompt": 8, "max_tokens": 64},
        "update": {"kind": "weighted", "beta": 1.0, "epochs": 2, "lr": 5e-4},
        "measure": {"prompts": 512, "samples": 16},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    manifest = {
        "created": "2026-11-21T18:00:00Z",
        "versions": {"srlm": "0.1.0", "torch": "2.13.0+cpu", "python": "3.11.9"},
        "machine": {"cpu": "4 cores", "device": "cpu"},
        "seeds": {"run": 0},
        "hashes": {"model": "ab" * 32, "prompts": "cd" * 32},
        "prompts": {"train": 4096, "held_out": prompts},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    lines, start, previous = [], None, base
    for t, power in enumerate(powers):
        pi = sharpen(base, power, drift if t else 0.0)
        record = _record(t, power, pi, base, previous, right if answers else None, kind)
        start = start or record
        record["headroom_captured"] = _headroom(start, record).to_json()
        lines.append(json.dumps(change(record)) + "\n")
        _table(folder / "rounds" / f"{t:03d}", t, pi, base, right if answers else None, texts,
               certified)  # fmt: skip
        previous = pi
    (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    for line in lines:
        told = json.loads(line)
        seconds = told.pop("seconds", {})
        place = folder / "rounds" / f"{told['round']:03d}"
        (place / "round.json").write_text(writing.json_text(told), encoding="utf-8")
        recording.write_record(folder, Record(told["round"], {}, {}, {}, seconds=seconds))
    return seal(folder)


def seal(folder: Path) -> Path:
    """Let the hashes in a run folder be those of its files as they are."""
    file = folder / "config.yaml"
    text = recording.unsealed_lines(file) or file.read_text(encoding="utf-8")
    file.write_text(recording.sealed_lines(text), encoding="utf-8")
    file = folder / "manifest.json"
    told = recording.unsealed(file) or json.loads(file.read_text(encoding="utf-8"))
    recording.write_sealed(file, told)
    for t in recording.round_numbers(folder):
        place = recording.round_folder(folder, t)
        record = recording.read_record(folder, t)
        assert record is not None
        files = [f for f in sorted(place.iterdir()) if f.name != recording.NAME]
        record.files = {k: v for f in files for k, v in recording.hashes(f, f.name).items()}
        recording.write_record(folder, record)
    return folder


def _record(
    t: int,
    power: float,
    pi: np.ndarray,
    base: np.ndarray,
    previous: np.ndarray,
    right: np.ndarray | None,
    kind: str,
) -> dict[str, Any]:
    rows, mode, p_star = np.arange(len(pi)), pi.argmax(1), pi.max(1)
    lengths = np.where(np.arange(RESPONSES) == 0, 2.0 if kind == "giveup" else 10.0, 10.0)
    log = np.log(np.maximum(pi, 1e-300))
    efficiency = np.log(power) / np.log(2.0**t) if t else 0.0
    numbers = {
        "kappa": estimate(1 / p_star, "search"),
        "failure_fraction": estimate((p_star <= 0.5).astype(float), "search"),
        "confidence": estimate(p_star, "search"),
        "fidelity": estimate((mode == base.argmax(1)).astype(float), "search"),
        "entropy": estimate(-(pi * log).sum(1), "enumeration"),
        "length": estimate(pi @ lengths, "enumeration"),
        "kl_to_base": estimate((pi * (log - np.log(base))).sum(1), "enumeration"),
        "distinct_responses": estimate((1 - (1 - pi) ** 16).sum(1) / 16, "enumeration"),
        "truncated": estimate(np.zeros(len(pi)), "count"),
        "greedy_is_mode": estimate(np.ones(len(pi)), "search"),
        "margin": Estimate(
            float(np.diff(np.sort(log, axis=1)[:, -2:], axis=1).min()),
            None,
            None,
            len(pi),
            "search",
        ),
        "least_confidence": Estimate(float(p_star.min()), None, None, len(pi), "search"),
        "log10_kappa": estimate(np.log10(1 / p_star), "search"),
        "exponent": Estimate(power, power * 0.97, power * 1.03, len(pi), "slope"),
        "exponent_r2": Estimate(0.95, 0.93, 0.97, len(pi), "slope"),
        "efficiency": Estimate(efficiency, None, None, len(pi), "slope")
        if t
        else undefined("slope", "round 0 has no update"),
        "kappa_ideal": estimate(1 / sharpen(previous, 2.0).max(1), "power of the policy before")
        if t
        else undefined("power", "round 0 has no update"),
    }
    if right is None:
        for name in ("sampling_accuracy", "greedy_accuracy", "mode_accuracy"):
            numbers[name] = undefined("comparison", "no answers: correctness is unknown")
    else:
        numbers["sampling_accuracy"] = estimate(pi[rows, right], "enumeration")
        numbers["greedy_accuracy"] = estimate((mode == right).astype(float), "greedy")
        numbers["mode_accuracy"] = estimate((mode == right).astype(float), "search")
    fell = 0.02 if kind == "blowup" else 0.6
    return {
        "round": t,
        **{name: e.to_json() for name, e in numbers.items()},
        "loss_before": 1.2 / t if t else None,
        "loss_after": 1.2 / t - fell * (1.2 / t - 0.1) if t else None,
        "loss_floor": 0.1 if t else None,
        "seconds": {"update": 2.25, "measure": 0.5} if t else {"measure": 0.5},
        "notes": [],
    }


def _headroom(start: dict[str, Any], now: dict[str, Any]) -> Estimate:
    first, ceiling = (start[k]["value"] for k in ("sampling_accuracy", "mode_accuracy"))
    if first is None:
        return undefined("ratio", "no answers")
    if ceiling <= first:
        return undefined("ratio", "the modes are no better than the samples")
    share = (now["sampling_accuracy"]["value"] - first) / (ceiling - first)
    return Estimate(share, None, None, now["sampling_accuracy"]["n"], "ratio")


def _table(
    folder: Path,
    t: int,
    pi: np.ndarray,
    base: np.ndarray,
    right: np.ndarray | None,
    texts: Callable[[int, int], str],
    certified: Callable[[int, int], bool],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows, mode = range(len(pi)), pi.argmax(1)
    none = [None] * len(pi)
    data = {
        "prompt_id": [f"p{p:04d}" for p in rows],
        "prompt": [texts(p, -1) for p in rows],
        "answers": none if right is None else [[texts(p, int(right[p]))] for p in rows],
        "p_star": pi.max(1),
        "certified": [certified(t, p) for p in rows],
        "mode_text": [texts(p, int(mode[p])) for p in rows],
        "greedy_text": [texts(p, int(mode[p])) for p in rows],
        "mode_is_base_mode": list(mode == base.argmax(1)) if t else pa.nulls(len(pi), pa.bool_()),
        "mode_correct": none if right is None else list(mode == right),
        "sampling_accuracy": none if right is None else list(pi[np.arange(len(pi)), right]),
        "margin": np.full(len(pi), 0.5),
        "nodes": np.full(len(pi), 12),
    }
    pq.write_table(pa.table(data), folder / "prompts.parquet")


@pytest.fixture(name="fake_run")
def _fake_run(tmp_path: Path) -> FakeRun:
    """``fake_run(kind, **options)`` in a fresh folder."""

    def make(kind: str = "good", name: str = "run", **options: Any) -> Path:
        return fake_run(tmp_path / name, kind, **options)

    return make
