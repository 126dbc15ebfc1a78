"""The run folder: every stage written whole or not at all, and read back where it is done.

::

    runs/mine/
      config.yaml            settings as resolved; another config on the same folder is refused
      manifest.json          versions, machine, seeds, hashes of model and prompts
      rounds/000/            the base pi_0 ... rounds/t/ is about pi_t
        policy/              a Hugging Face folder (safetensors); srlm.json: the update's losses
        measure.json         the round's estimates, held-out prompts
        prompts.parquet      the same a prompt
        held_out.parquet     the held-out draws behind them
        samples.parquet      training draws from pi_t
        reward.json          what their rewards were like: missing, spread, length, ...
        pairs.parquet        groups made of them, from which pi_{t+1} is trained
        seconds.json         time by stage
      metrics.jsonl          one object a round
      stop.json            why the run ended and its best round, with --stop auto
      report.html

A name without ``.partial`` is complete: files and folders are written under another name, flushed
and renamed. A killed run goes on by the same command.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from srlm.config import RunConfig, differences
from srlm.errors import UserError
from srlm.types import Floats, Pairs, Prompt, Samples

T = TypeVar("T")
U = TypeVar("U")

LIBRARIES = ("srlm", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy")


class RunFolder:
    """An open run folder, locked against a second process.

    Args:
        folder: made if missing.
        config: the run's settings.

    Raises:
        UserError: the folder was made with another config (the differences are listed), is no run
            folder, or is in use.
    """

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.folder = folder
        resolved = config.model_dump(mode="json")
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: not a folder", "give another --out")
        if folder.is_dir() and any(folder.iterdir()) and not _ours(folder):
            raise UserError(
                f"{folder}: holds files that are no run's", "give an empty --out folder"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(folder)
        except (NotADirectoryError, PermissionError) as error:
            raise UserError(
                f"{folder}: cannot be made or written to: {error.strerror}", "give another --out"
            ) from None
        try:
            self._begin(resolved)
        except BaseException:
            self.close()
            raise

    def _begin(self, resolved: dict[str, Any]) -> None:
        written = self.folder / "config.yaml"
        begun = written.exists() and (self.folder / "manifest.json").exists()
        if begun:
            changed = differences(yaml.safe_load(written.read_text(encoding="utf-8")), resolved)
            if changed:
                raise UserError(
                    f"{self.folder}: made with other settings: " + "; ".join(changed),
                    "use the same settings to go on, or another --out",
                )
        for leftover in sorted(self.folder.rglob("*.partial"), reverse=True):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        if not begun:  # all checks come before the manifest: until then settings may be mended
            write_text(written, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))

    def close(self) -> None:
        """Let another process use the folder."""
        self._lock.close()

    def round(self, t: int) -> Path:
        """Folder of round t, made if missing."""
        folder = self.folder / "rounds" / f"{t:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def kept(
        self,
        t: int,
        name: str,
        make: Callable[[], T],
        write: Callable[[T, Path], None],
        read: Callable[[Path], U],
    ) -> T | U:
        """The stage ``name`` of round t: read if it is there, else made, written and timed."""
        path = self.round(t) / name
        if path.exists():
            return read(path)
        start = time.perf_counter()
        value = make()
        commit(path, lambda partial: write(value, partial))
        self.took(t, Path(name).stem, time.perf_counter() - start)
        return value

    def took(self, t: int, stage: str, seconds: float) -> None:
        """Note the time of a stage."""
        path = self.round(t) / "seconds.json"
        times = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        write_text(path, json.dumps(times | {stage: round(seconds, 3)}))


def _ours(folder: Path) -> bool:
    """Whether a folder holds a run, or the beginning of one that was killed."""
    names = {p.name for p in folder.iterdir()} - {".lock"}
    if "config.yaml" not in names:
        return all(n == "config.yaml.partial" for n in names)
    try:
        settings = yaml.safe_load((folder / "config.yaml").read_bytes())
    except yaml.YAMLError:
        return False
    return isinstance(settings, dict) and {"model", "prompts", "rounds"} <= settings.keys()


def _lock(folder: Path) -> IO[str]:
    lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise UserError(f"{folder}: in use by another process", "wait for it to end") from None
    return lock


# ---- whole or not at all


def commit(path: Path, write: Callable[[Path], None]) -> None:
    """Write under another name, flush to disk, rename to ``path``; leaves nothing on failure."""
    partial = path.with_name(path.name + ".partial")
    try:
        write(partial)
        files = [f for f in partial.rglob("*") if f.is_file()] if partial.is_dir() else [partial]
        for file in files:
            with file.open("rb") as f:
                os.fsync(f.fileno())
        os.replace(partial, path)
    except BaseException:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not at all."""

    def write(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8")

    commit(path, write)


def write_json(value: Any, path: Path) -> None:
    """Stable JSON: the same value gives the same bytes. Not-a-number is refused."""
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """What ``write_json`` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


# ---- tables


def write_samples(prompts: list[Prompt], parts: Iterable[Samples], path: Path) -> None:
    """One row a response, one row group a part; parts are written as they come."""
    writer = None
    try:
        for part in parts:
            table = _samples_table(prompts, part)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table, row_group_size=max(1, len(table)))
    finally:
        if writer is not None:
            writer.close()


def _samples_table(prompts: list[Prompt], samples: Samples) -> pa.Table:
    columns: dict[str, Any] = {
        "prompt_id": [prompts[p].id for p in samples.prompt_R],
        "prompt": pa.array(samples.prompt_R),
        "tokens": pa.array(samples.tokens_R, pa.list_(pa.int32())),
        "logp": pa.array(samples.logp_R),
        "weight": pa.array(samples.weight_R),
        "finished": pa.array(samples.finished_R),
        "text": pa.array(samples.text_R, pa.string()),
    }
    if samples.token_logp_R:
        columns["token_logp"] = _lists(samples.token_logp_R)
    return pa.table(columns)


@dataclass(frozen=True, slots=True)
class SamplesFile:
    """What ``write_samples`` wrote, read part by part; can be gone through again."""

    path: Path

    def __iter__(self) -> Iterator[Samples]:
        with pq.ParquetFile(self.path) as file:
            for group in range(file.num_row_groups):
                yield _samples(file.read_row_group(group))


def read_samples(path: Path) -> Samples:
    """All that ``write_samples`` wrote."""
    return _samples(pq.read_table(path))


def _samples(table: pa.Table) -> Samples:
    return Samples(
        prompt_R=_array(table["prompt"]),
        tokens_R=_tuples(table["tokens"]),
        logp_R=_array(table["logp"]),
        weight_R=_array(table["weight"]),
        finished_R=_array(table["finished"]),
        text_R=tuple(table["text"].to_pylist()),
        token_logp_R=_arrays(table["token_logp"]) if "token_logp" in table.column_names else (),
    )


def write_pairs(prompts: list[Prompt], pairs: Pairs, path: Path) -> None:
    """One row a distinct response of a group.

    A column more where the groups' weights differ, and one with the question where judgements are
    trained on.
    """
    known = [*prompts, *pairs.asked]
    columns: dict[str, Any] = {
        "group": pa.array(pairs.group_R),
        "prompt_id": [known[p].id for p in pairs.prompt_R],
        "prompt": pa.array(pairs.prompt_R),
        "tokens": pa.array(pairs.tokens_R, pa.list_(pa.int32())),
        "reference": pa.array(pairs.reference_R),
        "reward": pa.array(pairs.reward_R),
        "weight": pa.array(pairs.weight_R),
    }
    if pairs.scale_G is not None:
        columns["group_scale"] = pa.array(pairs.scale_G[pairs.group_R])
    if pairs.asked:
        columns["question"] = pa.array(
            [known[p].content if p >= len(prompts) else None for p in pairs.prompt_R], pa.string()
        )
    table = pa.table(columns)
    apart, of = pairs.distinguishable
    facts = {"draws": pairs.draws, "distinguishable": apart, "rewarded": of}
    pq.write_table(table.replace_schema_metadata({k: str(v) for k, v in facts.items()}), path)


def read_pairs(path: Path) -> Pairs:
    """What ``write_pairs`` wrote."""
    table = pq.read_table(path)
    facts = {k: int(v) for k, v in table.schema.metadata.items()}
    group_R = _array(table["group"])
    scale_G = None
    if "group_scale" in table.column_names:
        scale_G = _array(table["group_scale"])[np.unique(group_R, return_index=True)[1]]
    asked: dict[int, Prompt] = {}
    if "question" in table.column_names:
        columns = (table[name].to_pylist() for name in ("prompt", "prompt_id", "question"))
        asked = {
            p: Prompt(i, text) for p, i, text in zip(*columns, strict=True) if text is not None
        }
    return Pairs(
        group_R=group_R,
        prompt_R=_array(table["prompt"]),
        tokens_R=_tuples(table["tokens"]),
        reference_R=_array(table["reference"]),
        reward_R=_array(table["reward"]),
        weight_R=_array(table["weight"]),
        draws=facts[b"draws"],
        distinguishable=(facts[b"distinguishable"], facts[b"rewarded"]),
        scale_G=scale_G,
        asked=tuple(asked[p] for p in sorted(asked)),
    )


def _array(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers in memory of its own: arrow's cannot be written to, and torch warns."""
    return np.array(column.to_numpy())


def _lists(rows_R: Sequence[Floats]) -> pa.Array:
    """A column of lists of float32."""
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows_R])])
    flat = np.concatenate(rows_R).astype(np.float32)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat))


def _arrays(column: pa.ChunkedArray) -> tuple[Floats, ...]:
    """What ``_lists`` made."""
    whole = column.combine_chunks()
    flat = np.array(whole.flatten().to_numpy(), dtype=np.float64)
    ends = np.cumsum(whole.value_lengths().to_numpy())
    return tuple(np.split(flat, ends[:-1]))


def _tuples(column: pa.ChunkedArray) -> tuple[tuple[Any, ...], ...]:
    """A column of lists as tuples, without a Python object a value on the way."""
    whole = column.combine_chunks()
    offsets = whole.offsets.to_numpy()
    values = whole.flatten().to_numpy(zero_copy_only=False)
    flat = values.tolist()
    start = int(offsets[0]) if len(offsets) else 0
    return tuple(tuple(flat[a - start : b - start]) for a, b in itertools.pairwise(offsets))


# ---- what a run was made of


def manifest(config: RunConfig, train: list[Prompt], held_out: list[Prompt]) -> dict[str, Any]:
    """Versions, machine, seed and hashes of the model and the prompts."""
    import torch

    return {
        "versions": {name: _version(name) for name in LIBRARIES}
        | {"python": platform.python_version()},
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "seed": config.seed,
        "model": {"name": config.model, "sha256": hash_model(config.model)},
        "prompts": {
            "file": config.prompts.file,
            "sha256": hash_file(Path(config.prompts.file)),
            "train": len(train),
            "held_out": len(held_out),
        },
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def hash_model(model: str) -> str | None:
    """SHA-256 over the names and hashes of a model folder's files; None for a hub id."""
    folder = Path(model)
    if not folder.is_dir():
        return None
    names = sorted(p for p in folder.iterdir() if p.is_file())
    listing = "".join(f"{p.name} {hash_file(p)}\n" for p in names)
    return hashlib.sha256(listing.encode()).hexdigest()


def _version(name: str) -> str:
    return version(name)


def as_numpy(table: pa.Table) -> dict[str, np.ndarray]:
    """Columns as arrays."""
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def check_same(folder: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with another model or other prompts than the folder was begun with."""
    changed = [
        f"{what}: {then[what]['sha256']} -> {now[what]['sha256']}"
        for what in ("model", "prompts")
        if then[what]["sha256"] != now[what]["sha256"]
    ]
    if changed:
        raise UserError(
            f"{folder}: the files have changed since it was begun (SHA-256): " + "; ".join(changed),
            "put the old files back, or give another --out",
        )
