"""The tables of a run folder as parquet files: samples, pairs, and what was measured per prompt."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from srlm import writing
from srlm.types import Floats, Pairs, Prompt, PromptTable, Samples

KINDS = {
    "answers": pa.list_(pa.string()),
    "mode_tokens": pa.list_(pa.int32()),
    "mode_text": pa.string(),
    "vote": pa.string(),
    "greedy_text": pa.string(),
    "mode_is_base_mode": pa.bool_(),
    "mode_correct": pa.bool_(),
    "greedy_correct": pa.bool_(),
    "greedy_is_mode": pa.bool_(),
    "vote_correct": pa.bool_(),
    "sampling_accuracy": pa.float64(),
}
"""Types of the columns of prompts.parquet that may be unknown everywhere."""


def write_prompts(columns: Mapping[str, Sequence[Any]], path: Path) -> None:
    """``Measurement.table``, one row per prompt."""
    made = {name: pa.array(column, KINDS.get(name)) for name, column in columns.items()}
    pq.write_table(pa.table(made), path)


def write_prompt_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """``write_prompts``, atomically, outside of a run."""
    writing.commit(path, lambda partial: write_prompts(columns, partial))


def read_prompts(path: Path) -> PromptTable:
    """What ``write_prompts`` wrote."""
    return PromptTable.of(pq.read_table(path).to_pydict())


def write_samples(
    prompts: Sequence[Prompt], parts: Iterable[Samples], path: Path | BinaryIO
) -> None:
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


def _samples_table(prompts: Sequence[Prompt], samples: Samples) -> pa.Table:
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
    if samples.gap_R is not None:
        columns["gap"] = pa.array(samples.gap_R)
    return pa.table(columns)


@dataclass(frozen=True, slots=True)
class SamplesFile:
    """What ``write_samples`` wrote, read part by part; can be gone through again."""

    path: Path

    def __iter__(self) -> Iterator[Samples]:
        with pq.ParquetFile(self.path) as file:
            for group in range(file.num_row_groups):
                yield _samples(file.read_row_group(group))


def by_prompt(path: Path, first: int = 0) -> Iterator[list[dict[str, Any]]]:
    """The rows of each prompt of a file of samples or pairs, from prompt number ``first`` on.

    Streamed: memory is that of a prompt and of some hundred rows.
    """
    wanted = ("prompt", "prompt_id", "tokens", "text", "logp", "finished", "reward")
    rows: list[dict[str, Any]] = []
    with pq.ParquetFile(path) as file:
        names = [name for name in wanted if name in file.schema_arrow.names]
        place = file.schema_arrow.get_field_index("prompt")
        groups = range(file.num_row_groups)
        ends = [file.metadata.row_group(g).column(place).statistics for g in groups]
        kept = [g for g in groups if ends[g] is None or ends[g].max >= first]
        for batch in file.iter_batches(512, row_groups=kept, columns=names):
            for row in batch.to_pylist():
                if rows and rows[0]["prompt"] != row["prompt"]:
                    yield rows
                    rows = []
                if row["prompt"] >= first:
                    rows.append(row)
    if rows:
        yield rows


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
        gap_R=_array(table["gap"]) if "gap" in table.column_names else None,
    )


def write_pairs(prompts: Sequence[Prompt], pairs: Pairs, path: Path) -> None:
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
    facts = {"samples": pairs.samples, "distinguishable": apart, "rewarded": of}
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
        samples=facts[b"samples"],
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
