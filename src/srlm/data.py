"""Prompts: a JSONL file read whole or refused whole, and split by hash.

One JSON object a line, UTF-8::

    {"prompt": "247+158=", "answer": "405"}
    {"prompt": [{"role": "user", "content": "What is 247 + 158?"}], "answer": 405}
    {"prompt": [0.1, 0.0, 0.7], "answer": "3"}

Text and chat messages are for language models, vectors of features for ``LinearSoftmax``. Blank
lines and a byte order mark are passed over; every other line that is no prompt is an error, and
all of them are named together, before anything runs.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from srlm.errors import UserError
from srlm.grading import same_value
from srlm.types import Prompt

SHOWN = 20
"""Bad lines that an error lists; the others are counted."""
USUAL_COLUMNS = ("prompt", "question", "problem", "instruction", "input", "query", "messages", "x")


class _BadLine(Exception):
    """Why a line is no prompt."""


def prompt_id(content: Any) -> str:
    """The first 64 bits of the SHA-256 of the content's canonical JSON, as 16 hex digits.

    Canonical: keys sorted, no spaces, ASCII, numbers of a feature vector as floats. Nothing but
    the content enters, so an id survives reordering, renaming and relabelling.

    >>> prompt_id("247+158=")
    '9106aa00033ab689'
    >>> prompt_id([1, 0]) == prompt_id([1.0, 0.0])
    True
    """
    if not isinstance(content, str) and not _is_chat(content):
        content = [float(number) for number in content]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def split(prompts: Sequence[Prompt], held_out: float) -> tuple[list[Prompt], list[Prompt]]:
    """Training and held-out prompts, each in the order given.

    A prompt is held out where its id, read as a number in [0, 1), lies below ``held_out``. So its
    side never depends on the other prompts, and raising the share only moves prompts one way.
    ``held_out`` 0 gives no held-out prompts.

    Raises:
        UserError: a side that should have prompts has none.
    """
    train: list[Prompt] = []
    held: list[Prompt] = []
    for prompt in prompts:
        (held if int(prompt.id, 16) / 16 ** len(prompt.id) < held_out else train).append(prompt)
    if not train or (held_out > 0 and not held):
        side = "held-out" if train else "training"
        raise UserError(
            f"held-out share {held_out:g}: none of the {len(prompts)} prompts is a {side} prompt",
            "give more prompts, or another share with --held-out",
        )
    return train, held


def read_prompts(
    path: str | Path, *, prompt_column: str = "prompt", answer_column: str = "answer"
) -> list[Prompt]:
    """The prompts of a JSONL file in file order, a repeated prompt once, at its first line.

    Answers are optional; numbers become text, and ``null`` is no answer. Time and memory are
    linear in the file.

    Raises:
        UserError: the file cannot be read or has no prompts, or lines are bad; each of them is
            named with its number and reason. A prompt that comes again with another answer is bad.
    """
    rows, bad = _rows(Path(path))
    found: dict[str, Prompt] = {}
    first: Prompt | None = None
    for line, row in rows:
        try:
            prompt = _prompt(row, line, prompt_column, answer_column)
            first = first or prompt
            _same_kind(first, prompt)
            known = found.get(prompt.id)
            found[prompt.id] = prompt if known is None else _merge(known, prompt)
        except _BadLine as reason:
            bad[line] = str(reason)
    if bad:
        raise _bad_lines(Path(path), bad)
    if answer_column != "answer" and not any(answer_column in row for _, row in rows):
        columns = _list(rows[0][1])
        raise UserError(
            f"{path}: no line has the answer column {answer_column!r}; columns: {columns}",
            "name the column of answers with --answer-column, or leave the option out",
        )
    return list(found.values())


def _rows(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], dict[int, str]]:
    """The objects of the file with their lines, and the lines that hold none with the reason."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: {(error.strerror or str(error)).lower()}", "give the path of a JSONL file"
        ) from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: the text is UTF-16", "save the file as UTF-8")
    rows: list[tuple[int, dict[str, Any]]] = []
    bad: dict[int, str] = {}
    for line, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            row = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            bad[line] = f"not UTF-8 (byte 0x{raw[error.start]:02x} at byte {error.start + 1})"
        except json.JSONDecodeError as error:
            bad[line] = f"not JSON ({error.msg[0].lower()}{error.msg[1:]} at column {error.colno})"
        except (ValueError, RecursionError):
            bad[line] = "not JSON that can be read (a number too long, or nesting too deep)"
        else:
            if isinstance(row, dict):
                rows.append((line, row))
            else:
                bad[line] = f"not a JSON object but {_kind(row)}"
    if not rows and not bad:
        raise UserError(f"{path}: the file is empty", "write one JSON object a line")
    return rows, bad


def _prompt(row: dict[str, Any], line: int, prompt_column: str, answer_column: str) -> Prompt:
    if prompt_column not in row:
        columns = _list(row)
        guess = _guess(prompt_column, row)
        hint = f"; is it --prompt-column {guess}?" if guess else ""
        raise _BadLine(f"no column {prompt_column!r} (columns: {columns}{hint})")
    content = _content(row[prompt_column], prompt_column)
    answers = _answers(row.get(answer_column), answer_column)
    return Prompt(id=prompt_id(content), content=content, answers=answers, line=line)


def _content(value: Any, column: str) -> Any:
    """Text and messages as they are, vectors as floats."""
    if isinstance(value, str):
        if not value.strip():
            raise _BadLine(f"{column!r} is empty")
        return _unicode(value, column)
    if not isinstance(value, list):
        raise _BadLine(f"{column!r} is {_kind(value)}, not text, chat messages or numbers")
    if not value:
        raise _BadLine(f"{column!r} is empty")
    if all(isinstance(item, dict) for item in value):
        return [_message(message, f"{column}[{i}]") for i, message in enumerate(value)]
    for i, item in enumerate(value):
        if not _is_number(item):
            raise _BadLine(f"'{column}[{i}]' is {_kind(item)}, in a list of numbers or messages")
    try:
        return [float(item) for item in value]
    except OverflowError:
        raise _BadLine(f"{column!r} has a number too large for a float") from None


def _message(message: dict[str, Any], place: str) -> dict[str, Any]:
    for key in ("role", "content"):
        text = message.get(key)
        if not isinstance(text, str):
            what = _kind(text) if key in message else "missing"
            raise _BadLine(f"'{place}.{key}' is {what}, not text")
        if not text.strip():
            raise _BadLine(f"'{place}.{key}' is empty")
        _unicode(text, f"{place}.{key}")
    return message


def _answers(value: Any, column: str) -> tuple[str, ...]:
    """Each accepted answer once; a list has several."""
    if value is None:
        return ()
    if not isinstance(value, list):
        return (_answer(value, column),)
    if not value:
        raise _BadLine(f"{column!r} is an empty list (leave it out where there is no answer)")
    return tuple(dict.fromkeys(_answer(x, f"{column}[{i}]") for i, x in enumerate(value)))


def _answer(value: Any, column: str) -> str:
    if _is_number(value):
        whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
        return str(int(value) if whole else value)
    if not isinstance(value, str):
        raise _BadLine(f"{column!r} is {_kind(value)}, not text or a number")
    if not value.strip():
        raise _BadLine(f"{column!r} is empty (leave it out where there is no answer)")
    return _unicode(value, column)


def _same_kind(first: Prompt, prompt: Prompt) -> None:
    """Features or language, not both; and vectors of one length."""
    sizes = [len(p.content) if _is_vector(p.content) else None for p in (first, prompt)]
    if sizes[0] != sizes[1]:
        one, other = ("text" if size is None else f"{size} numbers" for size in sizes)
        raise _BadLine(f"the prompt is {other}, where line {first.line} has {one}")


def _merge(known: Prompt, again: Prompt) -> Prompt:
    if not known.answers:
        return replace(known, answers=again.answers)
    if any(not any(same_value(x, y) for y in known.answers) for x in again.answers):
        raise _BadLine(
            f"the prompt of line {known.line} again, with another answer"
            f" ({_either(again.answers)}, there {_either(known.answers)})"
        )
    return known


def _either(answers: Sequence[str]) -> str:
    return " or ".join(map(repr, answers))


def _bad_lines(path: Path, bad: dict[int, str]) -> UserError:
    shown = sorted(bad)[:SHOWN]
    lines = [f"  line {line}: {bad[line]}" for line in shown]
    if len(bad) > SHOWN:
        lines.append(f"  and {len(bad) - SHOWN} more")
    count = "1 bad line" if len(bad) == 1 else f"{len(bad)} bad lines"
    return UserError(
        "\n".join([f"{path}: {count}", *lines]),
        'correct them; a line reads {"prompt": "...", "answer": "..."}, the answer may be missing',
    )


def _guess(column: str, row: dict[str, Any]) -> str | None:
    """The column that is meant, as far as names tell."""
    usual = [name for name in row if name.lower() in USUAL_COLUMNS]
    near = difflib.get_close_matches(column, list(row), n=1)
    return next(iter(near + usual), None)


def _list(row: dict[str, Any]) -> str:
    return ", ".join(row) or "none"


def _unicode(text: str, column: str) -> str:
    """The text, if it can be written as UTF-8: JSON's escapes can name half a character."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _BadLine(f"{column!r} has half a character (a lone surrogate)")
    return text


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _is_chat(content: Any) -> bool:
    return len(content) > 0 and isinstance(content[0], dict)


def _is_vector(content: Any) -> bool:
    return not isinstance(content, str) and not _is_chat(content)


def _kind(value: Any) -> str:
    """What a JSON value is, in words.

    >>> [_kind(value) for value in (None, True, 3, float("nan"), "a", [], {})]
    ['null', 'true or false', 'a number', 'nan', 'text', 'a list', 'an object']
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    names = {bool: "true or false", int: "a number", float: "a number", str: "text"}
    names |= {list: "a list", dict: "an object", type(None): "null"}
    return names[type(value)]
