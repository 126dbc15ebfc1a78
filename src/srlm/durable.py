"""The loop's store on a run folder: a stage is read back where it is done, else made and kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from srlm import run_folder as runs
from srlm.config import RunConfig
from srlm.loop import Lazy, Round
from srlm.measure.evaluate import BaseReference, Measurement
from srlm.policies.base import Policy
from srlm.rewards.report import RewardReport
from srlm.stopping import Stop
from srlm.tables import write_prompt_table
from srlm.types import Estimate, Pairs, Prompt, Samples, UpdateReport

RENAMED = {"p_eff": "exponent", "r2": "exponent_r2"}
"""Estimates whose name in metrics.jsonl is another."""


class Durable:
    """Satisfies ``srlm.loop.Store``; a context manager, as the folder is locked while open.

    Args:
        folder: the run folder.
        config: settings; a folder made with others is refused.
        open_policy: reads a policy from a folder (or by the name in the settings).
    """

    def __init__(
        self, folder: Path, config: RunConfig, open_policy: Callable[[str | Path], Policy]
    ) -> None:
        self._run = runs.RunFolder(folder, config)
        self._config = config
        self._open = open_policy
        self._held_out: list[Prompt] = []

    def __enter__(self) -> Durable:
        return self

    def __exit__(self, *_: object) -> None:
        self._run.close()

    # ---- the run as a whole

    def first_policy(self) -> Policy:
        """The base: from the run folder where it was kept already, else from the settings."""
        kept = self._run.round(0) / "policy"
        return self._open(kept if kept.exists() else self._config.model)

    def describe(self, train: list[Prompt], held_out: list[Prompt]) -> None:
        """Write the manifest, once; refuse a folder begun with another model or other prompts."""
        self._held_out = held_out
        path = self._run.folder / "manifest.json"
        now = runs.manifest(self._config, train, held_out)
        if not path.exists():
            runs.commit(path, lambda partial: runs.write_json(now, partial))
            return
        runs.check_same(self._run.folder, runs.read_json(path), now)

    def write_metrics(self, t: int, done: Round) -> None:
        """metrics.jsonl up to round t."""
        line: dict[str, Any] = {"round": t}
        for name, estimate in done.estimates.items():
            line[RENAMED.get(name, name)] = estimate.to_json()
        for name in ("loss_before", "loss_after", "loss_floor", "steps"):
            line[name] = getattr(done.update, name) if done.update else None
        line["notes"] = list(done.update.notes) if done.update else []
        if t:  # the rewards from which pi_t was made
            rewards = runs.read_json(self._run.round(t - 1) / "reward.json")
            line["reward"] = {k: v for k, v in rewards.items() if k != "notes"}
            line["notes"] += rewards["notes"]
        line["seconds"] = self._seconds(t)
        lines = [*self.metrics()[:t], line]
        text = "".join(json.dumps(x, allow_nan=False) + "\n" for x in lines)
        runs.write_text(self._run.folder / "metrics.jsonl", text)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl so far."""
        path = self._run.folder / "metrics.jsonl"
        if not path.exists():
            return []
        return [json.loads(x) for x in path.read_text(encoding="utf-8").splitlines()]

    def _seconds(self, t: int) -> dict[str, float]:
        """Time by stage of the work that made and measured pi_t."""
        own = self._run.round(t) / "seconds.json"
        before = self._run.round(t - 1) / "seconds.json" if t else None
        out: dict[str, float] = {}
        if before is not None and before.exists():
            made = runs.read_json(before)
            out |= {name: made[name] for name in ("samples", "pairs") if name in made}
        if own.exists():
            made = runs.read_json(own)
            out |= {
                name: made[key]
                for key, name in (("policy", "update"), ("measure", "measure"))
                if key in made and (t or key == "measure")
            }
        return out

    # ---- the stages

    def begin(self, policy: Policy) -> Lazy:
        """The base, kept as round 0's policy."""
        self._run.kept(0, "policy", lambda: policy, lambda p, path: p.save(path), lambda _: policy)
        return lambda: policy

    def base(self) -> Policy:
        """The base, read anew: it takes memory only while it scores."""
        return self._open(self._run.round(0) / "policy")

    def samples(
        self, t: int, prompts: list[Prompt], make: Callable[[], Iterator[Samples]]
    ) -> Iterable[Samples]:
        """samples.parquet of round t, written part by part and read back so."""
        path = self._run.round(t) / "samples.parquet"
        self._run.kept(
            t,
            path.name,
            make,
            lambda parts, partial: runs.write_samples(prompts, parts, partial),
            lambda _: None,
        )
        return runs.SamplesFile(path)

    def pairs(self, t: int, prompts: list[Prompt], make: Callable[[], Pairs]) -> Pairs:
        """pairs.parquet of round t."""
        return self._run.kept(
            t,
            "pairs.parquet",
            make,
            lambda value, path: runs.write_pairs(prompts, value, path),
            runs.read_pairs,
        )

    def rewarded(self, t: int, report: RewardReport) -> None:
        """reward.json of round t."""
        path = self._run.round(t) / "reward.json"
        runs.commit(path, lambda partial: runs.write_json(report.to_json(), partial))

    def votes(self, t: int) -> Estimate:
        """Out of reward.json of round t."""
        kept = runs.read_json(self._run.round(t) / "reward.json")["vote_correlation"]
        return Estimate(**({"note": ""} | kept))

    def stopped(self, stop: Stop) -> None:
        """stop.json."""
        path = self._run.folder / "stop.json"
        runs.commit(path, lambda partial: runs.write_json(stop.to_json(), partial))

    def policy(
        self, t: int, make: Callable[[], tuple[Policy, UpdateReport]]
    ) -> tuple[Lazy, UpdateReport]:
        """policy/ of round t, with its update's report inside."""
        held: list[Policy] = []

        def write(value: tuple[Policy, UpdateReport], path: Path) -> None:
            policy, report = value
            policy.save(path)
            runs.write_json(asdict(report), path / "srlm.json")
            held.append(policy)

        def read(path: Path) -> tuple[None, UpdateReport]:
            facts = runs.read_json(path / "srlm.json")
            return None, UpdateReport(**facts | {"notes": tuple(facts["notes"])})

        path = self._run.round(t) / "policy"
        _, report = self._run.kept(t, "policy", make, write, read)

        def lazy() -> Policy:
            if not held:
                held.append(self._open(path))
            return held[0]

        return lazy, report

    def measure(
        self, t: int, make: Callable[[], Measurement]
    ) -> tuple[dict[str, Estimate], Callable[[], BaseReference]]:
        """measure.json of round t, and the tables behind it."""

        def write(value: Measurement, path: Path) -> None:
            folder = self._run.round(t)
            held_out = list(value.prompts)
            runs.commit(
                folder / "held_out.parquet",
                lambda p: runs.write_samples(held_out, [value.samples], p),
            )
            runs.commit(folder / "prompts.parquet", lambda p: write_prompt_table(value, p))
            runs.write_json({k: v.to_json() for k, v in value.estimates.items()}, path)

        def read(path: Path) -> dict[str, Estimate]:
            return {k: Estimate(**({"note": ""} | v)) for k, v in runs.read_json(path).items()}

        made = self._run.kept(t, "measure.json", make, write, read)
        estimates = made.estimates if isinstance(made, Measurement) else made
        return estimates, lambda: self._reference(t)

    def _reference(self, t: int) -> BaseReference:
        """Built from the files, so that a run that goes on compares with the same numbers."""
        folder = self._run.round(t)
        table = pq.read_table(folder / "prompts.parquet")
        return BaseReference(
            ids_P=tuple(table["prompt_id"].to_pylist()),
            mode_P=tuple(tuple(x) for x in table["mode_tokens"].to_pylist()),
            unique_P=table["unique"].to_numpy(),
            samples=runs.read_samples(folder / "held_out.parquet"),
            sampling_P=_floats(table["sampling_accuracy"]),
            mode_right_P=_floats(table["mode_correct"]),
        )


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return np.array([np.nan if v is None else float(v) for v in column.to_pylist()])
