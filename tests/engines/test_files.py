"""Samples files: each format from a file that its tool wrote (``make_files.py``)."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from srlm.engines.files import Sampled, open_samples
from srlm.errors import UserError
from tests.engines.make_files import FILES, SAMPLES, SUMS

# File, format, whether it has the prompts' text, right answers, log-probabilities, and endings.
MADE = [
    ("lm_eval.jsonl", "lm-eval", True, True, False, False),
    ("lighteval.parquet", "lighteval", True, True, False, False),
    ("inspect.eval", "inspect_ai", True, True, False, False),
    ("verl.jsonl", "verl", True, True, False, False),
    ("trl.parquet", "trl", True, False, False, False),
    ("openai.jsonl", "openai-batch", False, False, True, True),
    ("vllm.jsonl", "vllm", True, False, True, True),
]


@pytest.mark.parametrize(("name", "form", "prompts", "answers", "logp", "ends"), MADE)
def test_files_of_the_tools(
    name: str, form: str, prompts: bool, answers: bool, logp: bool, ends: bool
) -> None:
    file = open_samples(FILES / name)
    assert file.format == form
    rows = list(file)
    assert file.problems.count == 0
    by_key: dict[str, list[Sampled]] = {}
    for row in rows:
        by_key.setdefault(row.key, []).append(row)
    assert [len(v) for v in by_key.values()] == [SAMPLES] * len(SUMS)
    if prompts:
        assert {v[0].prompt for v in by_key.values()} == {p for p, _ in SUMS}
    else:
        assert set(by_key) == {f"sum-{i}" for i in range(len(SUMS))}
    if answers:
        assert {(v[0].prompt, *(v[0].answers or ())) for v in by_key.values()} == set(SUMS)
    else:
        assert all(row.answers is None for row in rows)
    if logp:
        known = [row for row in rows if row.logp is not None]
        assert len(known) == len(rows) - file.problems.misspelt >= len(rows) - 2
        assert all(row.logp < 0 and 1 <= (row.tokens or 0) <= 6 for row in known)  # type: ignore[operator]
    if ends:
        assert {row.finished for row in rows} == {True, False}
        assert all(row.finished is False for row in rows if row.tokens == 6)
    assert len({row.text for row in rows}) > 8


def test_vllm_offline_and_batch_agree() -> None:
    """The same model and seeds: what both sampled has the same log-probability in both."""
    one = {(r.text, r.tokens): r.logp for r in open_samples(FILES / "vllm.jsonl")}
    other = {(r.text, r.tokens): r.logp for r in open_samples(FILES / "openai.jsonl")}
    first = [k for k in one if k in other and other[k] is not None]
    assert ("27=337", 6) in first
    assert one["27=337", 6] == pytest.approx(other["27=337", 6], abs=1e-5)


def test_log_probabilities_that_do_not_spell_the_response_are_not_used() -> None:
    """inspect_ai's own provider lists other tokens than the response's."""
    file = open_samples(FILES / "inspect.eval")
    assert all(r.logp is None for r in file if len(r.text) > 3)
    assert file.problems.misspelt > 0


def lines(path: Path, *values: Any) -> Path:
    path.write_text(
        "".join((v if isinstance(v, str) else json.dumps(v)) + "\n" for v in values),
        encoding="utf-8",
    )
    return path


PLAIN = [
    {"prompt": "a", "responses": ["1", "2"], "answer": 1, "logp": [-1.0, -2.5], "tokens": [3, 4]},
    {"prompt": "a", "response": "3", "logp": -0.5, "finish_reason": "length"},
    {
        "prompt": [{"role": "user", "content": "é"}],
        "responses": [{"text": "4", "logp": -3, "finish_reason": "stop"}, {"text": "5"}],
    },
]


def test_plain(tmp_path: Path) -> None:
    file = open_samples(lines(tmp_path / "x.jsonl", *PLAIN))
    rows = list(file)
    assert file.format == "plain" and not file.problems.count
    assert [r.text for r in rows] == ["1", "2", "3", "4", "5"]
    assert [r.logp for r in rows] == [-1.0, -2.5, -0.5, -3.0, None]
    assert [r.finished for r in rows] == [None, None, False, True, None]
    assert [r.key for r in rows[:3]] == ["a"] * 3 and "é" in rows[3].key
    assert rows[0].answers == ("1",) and rows[0].tokens == 3


BATCH_LINE = {"custom_id": "a", "response": {"status_code": 200, "body": {"choices": [
    {"message": {"content": "1"}, "finish_reason": "stop"}]}}}  # fmt: skip
ODD: list[tuple[str, Any, Any]] = [
    ("plain", PLAIN[0], '{"prompt": "b", "response": "1", "tokens": ' + "9" * 5000 + "}"),
    ("plain", PLAIN[0], {"prompt": "b", "response": "1", "logp": -1e308}),
    ("openai-batch", BATCH_LINE, {"message": None}),
    ("openai-batch", BATCH_LINE, "1"),
    ("openai-batch", BATCH_LINE, {"text": "1", "logprobs": [1]}),
    ("openai-batch", BATCH_LINE, {"text": "1", "logprobs": {"content": [{"token": "1"}]}}),
    ("openai-batch", BATCH_LINE, {
        "text": "1", "logprobs": {"tokens": ["1"], "token_logprobs": [None]}}),
    ("openai-batch", BATCH_LINE, {
        "text": "1", "logprobs": {"content": [{"token": "1", "logprob": 2.0}]}}),
    ("vllm", {"prompt": "a", "outputs": [{"text": "1"}]}, {"prompt": "a", "outputs": ["a"]}),
    ("lm-eval", {"doc_id": 0, "resps": [["1"]], "arguments": {}},
     {"doc_id": 1, "resps": None, "arguments": {}}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "good", "odd"), ODD)
def test_an_odd_line_is_named_and_the_others_are_read(
    name: str, good: Any, odd: Any, tmp_path: Path
) -> None:
    if name == "openai-batch":
        body = {"status_code": 200, "body": {"choices": [odd]}}
        odd = {"custom_id": "b", "response": body}
    file = open_samples(lines(tmp_path / "x.jsonl", good, odd, good))
    rows = list(file)
    assert file.format == name and rows and rows[0].text == "1"
    assert file.problems.places == ["line 2"]


def test_a_mark_of_byte_order_is_no_bad_line(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", *PLAIN)
    marked = tmp_path / "y.jsonl"
    marked.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert list(open_samples(marked)) == list(open_samples(path))


def test_joined_files_of_two_tasks_stay_apart(tmp_path: Path) -> None:
    line = {"doc_id": 0, "resps": [["1"]], "arguments": {}, "target": "1", "doc_hash": "a"}
    file = open_samples(lines(tmp_path / "x.jsonl", line, line | {"doc_hash": "b"}))
    assert len({row.key for row in file}) == 2


def test_an_array_is_read_like_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(PLAIN, indent=2))
    one = list(open_samples(lines(tmp_path / "x.jsonl", *PLAIN)))
    assert list(open_samples(path)) == one


def test_a_cut_array_keeps_what_was_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(PLAIN)[:-20])
    file = open_samples(path)
    assert [r.text for r in file] == ["1", "2", "3"]
    assert file.problems.places == ["element 3"]


def test_bad_lines_are_all_named(tmp_path: Path) -> None:
    good = {"prompt": "a", "response": "1"}
    bad: list[Any] = [
        "{not json",
        {"prompt": "a"},
        {"response": "1"},
        {"prompt": "a", "response": 7},
        {"prompt": "a", "responses": "1"},
        {"prompt": "a", "responses": ["1"], "logp": [-1, -2]},
        {"prompt": "a", "response": "1", "logp": 0.5},
        {"prompt": "a", "response": "1", "logp": float("nan")},
        {"prompt": "a", "response": "1", "tokens": 0},
        [1, 2],
    ]
    file = open_samples(lines(tmp_path / "x.jsonl", good, *bad, "", good))
    assert len(list(file)) == 2
    assert file.problems.places == [f"line {i}" for i in range(2, 12)]
    assert file.problems.count == 10 and len(file.problems.shown) == 5
    assert "line 2" in file.problems.sentence() and "5 more" in file.problems.sentence()
    list(file)
    assert file.problems.count == 10  # a second reading begins anew


def test_a_failed_request_is_named(tmp_path: Path) -> None:
    good = (FILES / "openai.jsonl").read_text().splitlines()[0]
    failed = {
        "custom_id": "q7",
        "response": {"status_code": 400, "body": {"message": "too long"}},
        "error": None,
    }
    file = open_samples(lines(tmp_path / "x.jsonl", good, failed))
    assert len(list(file)) == SAMPLES
    assert "q7" in file.problems.shown[0] and "too long" in file.problems.shown[0]


@pytest.mark.parametrize(
    "content",
    ["", "hello\n", '{"text": "1"}\n', "[1, 2]\n", "PAR1", '{"prompt": "a"}\n'],
)
def test_what_is_no_samples_file(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(content)
    with pytest.raises(UserError):
        open_samples(path)


def test_other_archives_tables_folders(tmp_path: Path) -> None:
    import zipfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme", "hello")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    for path in (tmp_path / "x.zip", tmp_path / "x.parquet", tmp_path, tmp_path / "none"):
        with pytest.raises(UserError):
            open_samples(path)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """20 MB in any order, under 4 MB in memory."""
    rng = random.Random(0)
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        for _ in range(2000):
            file.write(json.dumps({"prompt": f"p{rng.randrange(50)}", "response": "x" * 10_000}))
            file.write("\n")
    tracemalloc.start()
    count = sum(1 for _ in open_samples(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 2000 and peak < 4 << 20
