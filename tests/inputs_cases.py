"""What people have, case by case: files, answers and chats. The tests run these tables, and
``docs/inputs.md`` is made of them (``python -m tests.inputs_page``)."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = [{"prompt": "1+1=", "answer": "2"}, {"prompt": "2+2=", "answer": "4"}]
"""What each accepted file holds."""
VERL = [
    {"prompt": [{"role": "user", "content": "1+1="}], "reward_model": {"ground_truth": "2"}},
    {"prompt": [{"role": "user", "content": "2+2="}], "reward_model": {"ground_truth": "4"}},
]


@dataclass(frozen=True)
class File:
    """A kind of file: ``write`` makes it in a folder and gives its path."""

    what: str
    write: Callable[[Path], Path]
    refused: str = ""
    """A part of the sentence, where the file is refused."""
    columns: tuple[tuple[str, str], ...] = ()
    """Names of columns that are given, and their values."""


def _file(name: str, data: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return write


def _lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(x) + "\n" for x in rows).encode()


def _csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


def _arrow(rows: list[dict[str, Any]], stream: bool = True) -> bytes:
    table, sink = pa.Table.from_pylist(rows), pa.BufferOutputStream()
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _folder(**files: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "given").mkdir()
        for name, data in files.items():
            (folder / "given" / name.replace("__", ".")).write_bytes(data)
        return folder / "given"

    return write


def _splits(folder: Path) -> Path:
    place = _folder(dataset_dict__json=b'{"splits": ["train"]}')(folder)
    (place / "train").mkdir()
    return place


_SAVED = {
    "data-00000-of-00002__arrow": _arrow(ROWS[:1]),
    "data-00001-of-00002__arrow": _arrow(ROWS[1:]),
    "dataset_info__json": b"{}",
    "state__json": json.dumps(
        {"_data_files": [{"filename": f"data-0000{i}-of-00002.arrow"} for i in (0, 1)]}
    ).encode(),
}

FILES = (
    File("JSONL", _file("a.jsonl", _lines(ROWS))),
    File("JSONL with a byte order mark, CRLF and blank lines",
         _file("a.jsonl", b"\xef\xbb\xbf" + _lines(ROWS).replace(b"\n", b"\r\n\r\n"))),
    File("JSON array", _file("a.json", json.dumps(ROWS).encode())),
    File("JSON array, indented", _file("a.json", json.dumps(ROWS, indent=2).encode())),
    File("CSV", _file("a.csv", _csv(ROWS))),
    File("TSV", _file("a.tsv", _csv(ROWS, "\t"))),
    File("CSV by another name", _file("a.txt", _csv(ROWS))),
    File("parquet", _file("a.parquet", _parquet(ROWS))),
    File("Arrow file", _file("a.arrow", _arrow(ROWS, stream=False))),
    File("JSONL, gzip", _file("a.jsonl.gz", gzip.compress(_lines(ROWS)))),
    File("JSON array, gzip", _file("a.json.gz", gzip.compress(json.dumps(ROWS).encode()))),
    File("CSV, gzip", _file("a.csv.gz", gzip.compress(_csv(ROWS)))),
    File("parquet, gzip", _file("a.parquet.gz", gzip.compress(_parquet(ROWS)))),
    File("folder of files", _folder(a__jsonl=_lines(ROWS[:1]), b__parquet=_parquet(ROWS[1:]))),
    File("folder of `datasets.save_to_disk`", _folder(**_SAVED)),
    File("nested column: verl's `reward_model.ground_truth`", _file("a.jsonl", _lines(VERL)),
         columns=(("answer_column", "reward_model.ground_truth"),)),
    File("the same in parquet", _file("a.parquet", _parquet(VERL)),
         columns=(("answer_column", "reward_model.ground_truth"),)),
    File("answers in a list, numbers", _file("a.jsonl", _lines(
        [{"prompt": "1+1=", "answer": [2, "two"]}, {"prompt": "2+2=", "answer": 4.0}]))),
    File("one prompt twice, with `1,000` and `1000`", _file("a.jsonl", _lines(
        [{"prompt": "1+1=", "answer": "1,000"}, {"prompt": "1+1=", "answer": "1000"}, ROWS[1]]))),
    File("one prompt twice, with two answers", _file("a.jsonl", _lines(
        [{"prompt": "1+1=", "answer": "2"}, {"prompt": "1+1=", "answer": "3"}])),
        refused="another answer"),
    File("spreadsheet", _file("a.xlsx", b"PK\x03\x04rest"), refused="a zip archive"),
    File("zstd", _file("a.jsonl.zst", b"\x28\xb5\x2f\xfdrest"), refused="zstd"),
    File("UTF-16 text", _file("a.jsonl", _lines(ROWS).decode().encode("utf-16")),
         refused="UTF-16"),
    File("pickle", _file("a.pkl", b"\x80\x04rest"), refused="pickle"),
    File("Git LFS pointer", _file("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n"),
         refused="LFS"),
    File("unknown binary", _file("a.bin", b"\x01\x00\x02\x00"), refused="no text"),
    File("broken gzip", _file("a.jsonl.gz", gzip.compress(_lines(ROWS))[:-9]),
         refused="broken gzip"),
    File("broken parquet", _file("a.parquet", _parquet(ROWS)[:40]), refused="broken parquet"),
    File("dataset of several splits", _splits, refused="several splits"),
    File("folder without such files", _folder(notes__md=b"-"), refused="without files of rows"),
    File("object that holds the rows",
         _file("a.json", json.dumps({"data": ROWS}, indent=1).encode()), refused="may be the rows"),
    File("answers named, and no row has one", _file("a.jsonl", _lines([{"prompt": "1+1="}])),
         refused="has an answer", columns=(("answer_column", "gold"),)),
    File("answer is an object", _file("a.jsonl", _lines(
        [{"prompt": "1+1=", "answer": {"value": "2", "aliases": []}}])),
        refused="answer.value"),
    File("empty", _file("a.jsonl", b""), refused="empty"),
)  # fmt: skip


@dataclass(frozen=True)
class Chat:
    """A prompt that is no plain text: what it holds, and what becomes of it or the refusal."""

    what: str
    given: Any
    content: Any = None
    answers: tuple[str, ...] = ()
    refused: str = ""
    answer_column: str = "answer"


USER = {"role": "user", "content": "1+1="}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 1}}}
CHATS = (
    Chat("messages", [{"role": "system", "content": "Be brief."}, USER],
         [{"role": "system", "content": "Be brief."}, USER]),
    Chat("several turns, the user's last", [USER, {"role": "assistant", "content": "2"}, USER],
         [USER, {"role": "assistant", "content": "2"}, USER]),
    Chat("ends in an assistant's turn", [USER, {"role": "assistant", "content": "2"}],
         refused="ends in an assistant's turn"),
    Chat("the same, `--answer-column` the same column",
         [USER, {"role": "assistant", "content": "2"}], [USER], ("2",), answer_column="prompt"),
    Chat("content in parts of text",
         [{"role": "user", "content": [{"type": "text", "text": t} for t in ("1+", "1=")]}],
         [USER]),
    Chat("content with an image",
         [{"role": "user", "content": [{"type": "image", "url": "a.png"}]}],
         refused="is image, not text"),
    Chat("empty system message", [{"role": "system", "content": ""}, USER], [USER]),
    Chat("ShareGPT", [{"from": "human", "value": "1+1="}], [USER]),
    Chat("ShareGPT with the answer, asked for",
         [{"from": "system", "value": "Add."}, {"from": "human", "value": "1+1="},
          {"from": "gpt", "value": "2"}],
         [{"role": "system", "content": "Add."}, USER], ("2",), answer_column="prompt"),
    Chat("tool call and result",
         [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]},
          {"role": "tool", "name": "add", "content": "2"}],
         [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]},
          {"role": "tool", "name": "add", "content": "2"}]),
    Chat("keys without a value, as parquet fills them", [USER | {"name": None}], [USER]),
    Chat("messages as JSON text, as in CSV", json.dumps([USER]), [USER]),
    Chat("text that a template has been put around",
         "<|im_start|>user\n1+1=<|im_end|>\n<|im_start|>assistant\n",
         "<|im_start|>user\n1+1=<|im_end|>\n<|im_start|>assistant\n"),
    Chat("empty user message", [{"role": "user", "content": " "}], refused="is empty"),
    Chat("system message alone", [{"role": "system", "content": "Add."}],
         refused="no user's message"),
    Chat("message without a role", [{"content": "1+1="}], refused="role' is missing"),
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """A response under a grader, and the answer read."""

    grader: str
    response: str
    answer: str | None
    note: str = ""


ANSWERS = (
    Answer("last-number", "so 7 - 3 = 4, and 4 * 250 = 1,000.", "1000"),
    Answer("last-number", r"It costs $9{,}500$", "9500"),
    Answer("last-number", r"9\,500", "9500"),
    Answer("last-number", r"\frac{1}{2}", "0.5"),
    Answer("last-number", "\u20133", "-3", "an en dash"),
    Answer("last-number", "5\u20133", "3", "a range"),
    Answer("last-number", "29 km^2", "29"),
    Answer("last-number", r"\boxed{7}, in 2 steps", "7"),
    Answer("last-number", "3 1/2 hours", "3.5"),
    Answer("last-number", "50%", "50%", "the same as 50; right for 0.5 as well"),
    Answer("last-number", "no idea", None),
    Answer("boxed", r"\boxed{\frac{1}{2^{3}}} and so on}", r"\frac{1}{2^{3}}"),
    Answer("boxed", r"\boxed{1}, no: \boxed{2}", "2"),
    Answer("boxed", r"\boxed 7", "7"),
    Answer("boxed", r"\boxed{\boxed{3}}", "3"),
    Answer("boxed", r"\boxed{1} or \boxed{2", None, "the last box is not closed"),
    Answer("boxed", "7", None),
    Answer("math-verify", r"so $x = \frac{3}{4}$", r"x = \frac{3}{4}"),
    Answer("math-verify", r"\boxed{(1, 2)} since $x = 1$", "(1, 2)"),
    Answer("choice", "A is wrong, so the answer is (D).", "D"),
    Answer("choice", r"\boxed{\text{(C)}}", "C"),
    Answer("choice", "**B**", "B"),
    Answer("choice", "B) Paris", "B"),
    Answer("choice", "c", "C"),
    Answer("choice", "Answer: a", "A"),
    Answer("choice", "A cat, I think.", None, "an article and a pronoun"),
    Answer("yes-no", "Yes, there is no doubt.", "yes"),
    Answer("yes-no", "I would say no.", "no"),
    Answer("yes-no", "The answer is: False", "no"),
    Answer("text", "The Eiffel Tower.", "The Eiffel Tower.", "the same as `eiffel tower`"),
    Answer("exact", " 405\n", "405"),
    Answer("regex:=(.*)", "20*50=1,000", "1,000"),
)  # fmt: skip

JUDGED: tuple[tuple[str, float | None, str], ...] = (
    ("Score: 4", 4, ""),
    ("**Score:** 4", 4, ""),
    ("Score: **4**", 4, ""),
    ("score: 4", 4, ""),
    ("Total score: 4", 4, ""),
    ("Score: 4/5", 4, "5 is the highest"),
    ("Score: 4 out of 5", 4, ""),
    ("Score (0-5): 4", 4, ""),
    ("Score: [[3]]", 3, ""),
    ('{"score": 4}', 4, ""),
    ("Score: 4.5.", 4.5, ""),
    ("Score: 2 would be harsh.\nScore: 4", 4, "the last one counts"),
    ('It says "Score: 5". Score: 2', 2, "a quotation does not"),
    ("> Score: 5\nNo.", None, "a cited line"),
    ("Score: 15", None, "not within 0 to 5, and not 1"),
    ("Score: 4-5", None, "a range"),
    ("Score: 1/2", None, ""),
    ("Score: 4,5", None, ""),
    ("Score: -1", None, ""),
    ("Score: five", None, ""),
    ("4", None, ""),
)
"""A judgement under the default pattern, its score, and a remark."""

PAIRS = tuple(
    tuple(line.split("\t"))
    for line in (Path(__file__).parent / "answer_pairs.tsv").read_text("utf-8").splitlines()[1:]
)
"""Format, reference, answer, and "same" or "not"."""
GRADERS = {"MATH": "boxed", "GSM8K": "last-number", "AIME": "boxed", "MMLU": "choice"}


def response(form: str, answer: str) -> str:
    """A response that gives the answer in the manner of its format."""
    plain = form in ("GSM8K", "MMLU") or "boxed" in answer
    return f"So it is {answer}" if plain and form == "GSM8K" else (
        answer if plain else rf"So \boxed{{{answer}}}."
    )  # fmt: skip
