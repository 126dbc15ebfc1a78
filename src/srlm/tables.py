"""The per-prompt table of a measurement as a parquet file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from srlm.measure.evaluate import Measurement
from srlm.types import Prompt

COLUMNS = {
    "prompt": "prompt_id",
    "mode": "mode_text",
    "greedy": "greedy_text",
    "mode_right": "mode_correct",
    "greedy_right": "greedy_correct",
    "margin_low": "margin",
}
"""Columns of a measurement's table whose name in the file is another."""
KINDS = {
    "mode_is_base_mode": pa.bool_(),
    "mode_correct": pa.bool_(),
    "greedy_correct": pa.bool_(),
    "greedy_is_mode": pa.bool_(),
    "sampling_accuracy": pa.float64(),
    "mode_text": pa.string(),
    "greedy_text": pa.string(),
}


def write_prompt_table(measurement: Measurement, path: Path) -> None:
    """One row a prompt: text, answer, mode, p*, certificate, margins, what was right."""
    columns: dict[str, Any] = {COLUMNS.get(k, k): v for k, v in measurement.table.items()}
    columns["prompt"] = [_readable(x) for x in measurement.prompts]
    columns["answers"] = pa.array(
        [list(x.answers) for x in measurement.prompts], pa.list_(pa.string())
    )
    columns["mode_tokens"] = pa.array(measurement.modes.tokens_P, pa.list_(pa.int32()))
    pq.write_table(
        pa.table({name: pa.array(column, KINDS.get(name)) for name, column in columns.items()}),
        path,
    )


def _readable(prompt: Prompt) -> str:
    content = prompt.content
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
