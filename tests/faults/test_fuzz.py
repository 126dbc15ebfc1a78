"""Arbitrary bytes and texts: every reader gives a result or a ``UserError``, nothing else.

Examples are derived from the test alone (``derandomize``), so that they are the same everywhere.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from srlm import runner
from srlm.config import RunConfig, SamplesConfig, flatten, resolve_as
from srlm.engines.files import open_samples
from srlm.errors import UserError
from srlm.forecast.from_samples import forecast_file
from srlm.grading import grader
from srlm.policies.headers import check_sizes, read_config, read_shapes
from srlm.report.summary import summarise
from srlm.rewards.judge import score_reader
from srlm.run_folder.check import check
from tests import tiny

_PLACE = tempfile.TemporaryDirectory()
FOLDER = Path(_PLACE.name)
fuzz = settings(max_examples=60, derandomize=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=6), x, max_size=3),
    max_leaves=6,
)
KEYS = ("prompt", "responses", "response", "answer", "reward", "logprobs", "samples", "text", "id")
sample_rows = st.lists(st.dictionaries(st.sampled_from(KEYS), values, max_size=5), max_size=4)


@fuzz
@given(st.binary(max_size=200) | sample_rows.map(
    lambda x: "\n".join(json.dumps(row) for row in x).encode()))  # fmt: skip
@example(b"PK%")
def test_files_of_samples(data: bytes) -> None:
    file = FOLDER / "samples.jsonl"
    file.write_bytes(data)
    with contextlib.suppress(UserError):
        forecast_file(open_samples(file), grader("exact"))


@fuzz
@given(st.binary(max_size=200) | st.dictionaries(
    st.sampled_from([*flatten(RunConfig(model="m", prompts={"file": "p"}).model_dump()), "update",
                     "roundz", "prompts"]), values, max_size=5,
).map(lambda x: json.dumps(x).encode()))  # fmt: skip
def test_settings(data: bytes) -> None:
    file = FOLDER / "settings.yaml"
    file.write_bytes(data)
    for kind in (RunConfig, SamplesConfig):
        with contextlib.suppress(UserError):
            resolve_as(kind, file, {"rounds": "3"})


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of one round."""
    base = tmp_path_factory.mktemp("run")
    tiny.linear().save(base / "model")
    file = tiny.write_prompts(base / "vectors.jsonl", tiny.vectors(12), ["r0", "r1"] * 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "write_page", lambda summary: summary.folder / "report.html")
        runner.run(tiny.config(base / "model", file, rounds=1), base / "out")
    return base / "out"


@settings(fuzz, max_examples=30)
@given(st.integers(0, 99), st.binary(max_size=120) | values.map(lambda x: json.dumps(x).encode()))
def test_files_of_a_run(a_run: Path, number: int, data: bytes) -> None:
    files = sorted(p for p in a_run.rglob("*") if p.is_file() and p.name != ".lock")
    file = files[number % len(files)]
    kept = file.read_bytes()
    file.write_bytes(data)
    try:
        assert data == kept or check(a_run).damage or file.name == "report.html"
        with contextlib.suppress(UserError):
            summarise(a_run)
    finally:
        file.write_bytes(kept)


@fuzz
@given(st.binary(max_size=200), st.dictionaries(st.sampled_from(
    ["model_type", "hidden_size", "num_hidden_layers", "vocab_size", "dtype", "text_config",
     "num_attention_heads", "num_key_value_heads", "quantization_config"]), values, max_size=5),
    st.booleans())  # fmt: skip
def test_folders_of_models(data: bytes, config: dict[str, object], whole: bool) -> None:
    (FOLDER / "config.json").write_bytes(json.dumps(config).encode() if whole else data)
    (FOLDER / "model.safetensors").write_bytes(data)
    with contextlib.suppress(UserError):
        check_sizes(read_config(FOLDER, "m"), {"a": [2, 3]}, "m")
    with contextlib.suppress(UserError):
        read_shapes(FOLDER, "m")


@fuzz
@given(st.text(max_size=80) | st.text("Score: 012345./*\n\"'>()[]{}outf-+", max_size=60))
def test_judgements(text: str) -> None:
    read = score_reader(r"(?i)score\W{0,3}([-+0-9.]+)", {"0": 0.0, "5": 5.0})
    value = read(text)
    assert np.isnan(value) or 0 <= value <= 5


@pytest.mark.parametrize("name", ["boxed", "choice", "yes-no", "last-number", "text"])
@fuzz
@given(st.text(max_size=80) | st.text("\\boxed{}()[]0123456789.,/-%$ AByesno", max_size=60))
def test_graders(name: str, text: str) -> None:
    g = grader(name)
    found = g.read(text)
    assert found is None or g.right(found, (found,)) or g.reference
