"""Files of prompts: those of ``tests.inputs_cases``, and what no one should have."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests import inputs_cases, tiny
from tests.faults.cases import Case
from tests.faults.models import USER

GOOD = b'{"prompt": "ab", "answer": "a"}\n{"prompt": "ba", "answer": "b"}\n'


def command(file: str | Path, folder: Path, *more: str) -> list[str]:
    """A short measurement on a file of prompts, by a model with a chat template."""
    model = folder / "model"
    if not model.exists():
        tiny.saved(model, words=tiny.tokenizer(template=USER))
    sizes = ["--samples", "4", "--max-tokens", "4", "--nodes", "40", "--device", "cpu", "--quiet"]
    return ["measure", "--model", str(model), "--prompts", str(file), *sizes, *more]


def of_file(one: inputs_cases.File) -> Case:
    """A case of ``inputs_cases.FILES``."""

    def build(folder: Path) -> Sequence[str]:
        columns = [x for name, value in one.columns for x in (_flag(name), value)]
        return command(one.write(folder), folder, *columns)

    return Case(one.what, build, one.refused)


def of_chat(one: inputs_cases.Chat) -> Case:
    """A case of ``inputs_cases.CHATS``."""
    text = json.dumps({"prompt": one.given}).encode() + b"\n"
    columns = ["--answer-column", one.answer_column] if one.answer_column != "answer" else []
    long = "context" if one.what.startswith("text that a template") else ""  # a tiny model's
    return Case(f"chat: {one.what}", _written(text, *columns), one.refused or long)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _written(data: bytes, *more: str, name: str = "a.jsonl") -> Callable[[Path], Sequence[str]]:
    def build(folder: Path) -> Sequence[str]:
        (folder / name).write_bytes(data)
        return command(folder / name, folder, *more)

    return build


def data(what: str, content: bytes, *more: str, refused: str = "", name: str = "a.jsonl") -> Case:
    """A file of these bytes."""
    return Case(what, _written(content, *more, name=name), refused)


def rows(what: str, *given: Any, refused: str = "") -> Case:
    """JSONL of these values."""
    return data(what, b"".join(json.dumps(x).encode() + b"\n" for x in given), refused=refused)


def place(what: str, make: Callable[[Path], str | Path], refused: str) -> Case:
    """A path that is no file of prompts."""

    def build(folder: Path) -> Sequence[str]:
        return command(make(folder), folder)

    return Case(what, build, refused)


def _linked(target: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "a.jsonl").symlink_to(folder / target)
        return folder / "a.jsonl"

    return make


def _in_folder(link: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "given").mkdir()
        (folder / "given" / "a.jsonl").symlink_to(folder / link)
        return folder / "given"

    return make


def _saved(state: str) -> Callable[[Path], Path]:
    """A folder as ``save_to_disk`` makes it, with this in its state.json."""

    def make(folder: Path) -> Path:
        (folder / "given").mkdir()
        (folder / "given" / "dataset_info.json").write_text("{}")
        (folder / "given" / "state.json").write_text(state)
        (folder / "outside.arrow").write_bytes(inputs_cases._arrow(inputs_cases.ROWS))
        return folder / "given"

    return make


def _socket(folder: Path) -> Path:
    """Nothing that can be opened."""
    before = Path.cwd()
    os.chdir(folder)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("s")
    os.chdir(before)
    return folder / "s"


BIG = "9" * 5000
PROMPTS = (
    *(of_file(one) for one in inputs_cases.FILES),
    *(of_chat(one) for one in inputs_cases.CHATS),
    data("NUL inside a text", b'{"prompt": "a\\u0000b"}\n'),
    data("a line that is no UTF-8", GOOD + b'{"prompt": "\xff"}\n', refused="line 3"),
    data("half a character", b'{"prompt": "\\ud800"}\n', refused="surrogate"),
    data("half a character in the answer", b'{"prompt": "a", "answer": "\\udfff"}\n',
         refused="surrogate"),
    data("nesting 100,000 deep", b'{"prompt": ' + b"[" * 100_000 + b"\n", refused="too deep"),
    data("a number of 5,000 figures", f'{{"prompt": "a", "answer": {BIG}}}\n'.encode(),
         refused="too long"),
    data("Infinity in a vector", b'{"prompt": [1, Infinity]}\n', refused="inf"),
    data("NaN for an answer", b'{"prompt": "a", "answer": NaN}\n', refused="nan"),
    data("cut in the last line", GOOD + b'{"prompt": "a', refused="line 3"),
    data("a JSON array that is cut", b'[{"prompt": "a"}, {"prom', refused="not json"),
    data("blank lines alone", b"\n\n \n", refused="empty"),
    data("an empty gzip", b"\x1f\x8b", refused="broken gzip"),
    data("CSV with a ragged line", b"prompt,answer\na,1\nb\n", name="a.csv", refused="cells"),
    data("CSV with an open quote", b'prompt,answer\n"a,1\n', name="a.csv", refused="csv"),
    data("CSV without such a column", b"text,answer\na,1\n", name="a.csv",
         refused="no column 'prompt'"),
    data("parquet's name on text", GOOD, name="a.parquet"),
    data("parquet of a header alone", b"PAR1PAR1", name="a.parquet", refused="broken parquet"),
    data("another answer column", GOOD, "--answer-column", "gold", refused="no line has"),
    data("an answer that --answer choice can never give", GOOD.replace(b'"a"}', b'"12"}'),
         "--answer", "choice", refused="choice"),
    rows("a prompt longer than the context", {"prompt": "a" * 99}, {"prompt": "b"},
         refused="context"),
    rows("vectors for a language model", {"prompt": [1, 2]}, refused="vector"),
    rows("text and vectors", {"prompt": "a"}, {"prompt": [1, 2]}, refused="2 numbers"),
    rows("lists for rows", [1], [2], refused="not a json object"),
    rows("an empty prompt", {"prompt": "  "}, refused="empty"),
    rows("markup and a terminal's commands", {"prompt": "\x1b[2J<script>{{ 7*7 }}"}),
    place("no such file", lambda f: f / "none.jsonl", "no such file"),
    place("a name too long", lambda f: f / ("p" * 300), "too long"),
    place("a name with NUL", lambda f: "a\x00b", "null"),
    place("links in a circle", _linked("a.jsonl"), "links"),
    place("a link that leads nowhere", _linked("nowhere"), "no such file"),
    place("a folder of links that lead nowhere", _in_folder("nowhere"), "without files of rows"),
    place("a saved data set with a broken state", _saved("{"), "state.json"),
    place("a saved data set whose state is a list", _saved("[]"), "state.json"),
    place("a saved data set that leaves its folder",
          _saved('{"_data_files": [{"filename": "../outside.arrow"}]}'), "leaves the folder"),
    place("a saved data set that names no files", _saved('{"_data_files": [1]}'), "state.json"),
    place("a saved data set whose file is missing",
          _saved('{"_data_files": [{"filename": "none.arrow"}]}'), "none.arrow"),
    place("a socket", _socket, "s:"),
)  # fmt: skip
