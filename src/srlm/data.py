"""Prompts: a file of any usual kind, read once, whole or refused whole, and split by hash.

A row is a prompt and, if it is known, the answer::

    {"prompt": "247+158=", "answer": "405"}
    {"prompt": [{"role": "user", "content": "What is 247 + 158?"}], "answer": ["405", "0x195"]}
    {"prompt": [0.1, 0.0, 0.7], "answer": 3}

Text and chat messages are for language models, vectors of features for ``LinearSoftmax``. Rows come
from JSONL, a JSON array, CSV or TSV, parquet, Arrow, gzip of each, a folder of them, a folder of
``datasets.save_to_disk``, or ``-``, the standard input; what a file is, its content says. Columns
may be nested: ``reward_model.ground_truth``. Every row that is no prompt is an error, and all of
them are counted together, before anything runs.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from srlm.config import PromptFile
from srlm.errors import UserError
from srlm.grading import Grader, grader, same_value
from srlm.rows import Rows, Source, kind, open_source, rows_of
from srlm.types import Prompt

SHOWN = 5
"""Reasons that an error lists, and rows that it names for each; the others are counted."""
USUAL_COLUMNS = (
    "prompt", "question", "problem", "instruction", "input", "query", "messages", "conversations",
    "x",
)  # fmt: skip
RENDERED = (
    "<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "<|user|>", "<|turn>", "[INST]",
    "<\uff5cUser\uff5c>", "<|START_OF_TURN_TOKEN|>", "<|role_start|>", "<|start|>user",
)  # fmt: skip
"""What begins a turn in the usual chat templates."""
SHARED = {"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool"}
"""ShareGPT's speakers whose role has another name."""


class _BadRow(ValueError):
    """Why a row is no prompt."""


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
    """The prompts of a file (see the module) in file order, a repeated prompt once.

    Raises:
        UserError: as ``open_source`` and ``prompts_of``.
    """
    return prompts_of(open_source(path), prompt_column=prompt_column, answer_column=answer_column)


def prompts_of(
    source: Source, *, prompt_column: str = "prompt", answer_column: str = "answer"
) -> list[Prompt]:
    """The prompts of what ``open_source`` read.

    Answers are optional. Numbers and truth values become text, ``null`` is no answer, and of a list
    any is right. Where both columns are one and the conversation in it ends in an assistant's turn,
    that turn is the answer. Time and memory are linear in the file.

    Raises:
        UserError: the file is of no known kind, is broken or has no prompts, or rows are bad: all
            are counted, and the first of each reason named. A prompt that comes again with another
            answer is bad.
    """
    table = rows_of(source, prompt_column)
    return _distinct(source.name, table, prompt_column, answer_column)


def make_prompts(rows: Iterable[Any]) -> list[Prompt]:
    """Prompts from Python values, as ``read_prompts`` makes them of a file.

    Args:
        rows: texts, chats or vectors; or rows with ``prompt`` and, if it is known, ``answer``.

    Raises:
        UserError: values that are no prompts, named by their number, from 1.

    >>> [x.answers for x in make_prompts(["2+2=", {"prompt": "1+1=", "answer": 2}])]
    [(), ('2',)]
    """
    columns = (row if isinstance(row, dict) else {"prompt": row} for row in rows)
    table = Rows(enumerate(columns, start=1), unit="value", starts=[(0, "prompts")])
    return _distinct("prompts", table, "prompt", "answer")


def _distinct(name: str, table: Rows, prompt_column: str, answer_column: str) -> list[Prompt]:
    """The prompts of a table in its order, a repeated prompt once."""
    found: dict[str, Prompt] = {}
    first: Prompt | None = None
    columns = ""
    for number, row in table.rows:
        columns = columns or _list(row)
        try:
            prompt = _prompt(row, number, prompt_column, answer_column)
            first = first or prompt
            _same_kind(first, prompt, table)
            known = found.get(prompt.id)
            found[prompt.id] = prompt if known is None else _merge(known, prompt, table)
        except _BadRow as reason:
            table.bad[number] = str(reason)
    if table.bad:
        raise _bad_rows(name, table)
    if answer_column != "answer" and not any(x.answers for x in found.values()):
        raise UserError(
            f"{name}: no {table.unit} has an answer in the column {answer_column!r}; "
            f"columns: {columns}",
            "name the column of answers with --answer-column, or leave the option out",
        )
    return list(found.values())


class Given(NamedTuple):
    """The prompts that settings name, and how their answers are read."""

    prompts: list[Prompt]
    source: Source
    grader: Grader
    notes: tuple[str, ...]
    """What a user should know: how answers are read, and where there are none."""


def prompts_for(settings: PromptFile) -> Given:
    """Read what the settings name, once.

    Raises:
        UserError: as ``open_source`` and ``prompts_of``; there is no such grader, or answers could
            never be given under it.
    """
    source = open_source(settings.file)
    prompts = prompts_of(
        source, prompt_column=settings.prompt_column, answer_column=settings.answer_column
    )
    read = grader(settings.answer, prompts)
    read.check(prompts)
    some = any(x.answers for x in prompts)
    picked = f"--answer auto: {read.name}, by what the answers look like"
    notes = (picked if settings.answer == "auto" and some else "", answers_note(prompts))
    return Given(prompts, source, read, tuple(filter(None, notes)))


def answers_note(prompts: Sequence[Prompt]) -> str:
    """A sentence where not all prompts have an answer; empty where they have."""
    without = sum(not x.answers for x in prompts)
    if not without:
        return ""
    if without < len(prompts):
        return f"{without} of {len(prompts)} prompts have no answer: accuracies leave them out"
    return "no prompt has an answer: accuracies are not measured (--answer-column names the column)"


def is_rendered(content: Any, template: str) -> bool:
    """Whether a prompt is text that a chat template like this one has been put around already.

    >>> is_rendered("<|im_start|>user\\nHi<|im_end|>\\n", "{{ '<|im_start|>' + message.role }}")
    True
    """
    return isinstance(content, str) and any(x in content and x in template for x in RENDERED)


def _prompt(row: dict[str, Any], number: int, prompt_column: str, answer_column: str) -> Prompt:
    there, value = _cell(row, prompt_column)
    if not there:
        columns = _list(row)
        guess = _guess(prompt_column, row)
        hint = f"; is it --prompt-column {guess}?" if guess else ""
        raise _BadRow(f"no column {prompt_column!r} (columns: {columns}{hint})")
    content = _content(value, prompt_column)
    if _is_chat(content) and content[-1]["role"] == "assistant":
        if answer_column != prompt_column:
            raise _BadRow(
                f"{prompt_column!r} ends in an assistant's turn: leave it out, or take it for the "
                f"answer with --answer-column {prompt_column}"
            )
        value, content = content[-1]["content"], content[:-1]
        if not content:
            raise _BadRow(f"{prompt_column!r} has nothing before the assistant's turn")
    elif answer_column == prompt_column:
        value = None
    else:
        _, value = _cell(row, answer_column)
    answers = answers_of(value, answer_column)
    return Prompt(id=prompt_id(content), content=content, answers=answers, line=number)


def _cell(row: dict[str, Any], column: str) -> tuple[bool, Any]:
    """Whether the column is there, and its value; a dot leads into an object."""
    if column in row:
        return True, row[column]
    value: Any = row
    for name in column.split("."):
        if not isinstance(value, dict) or name not in value:
            return False, None
        value = value[name]
    return True, value


# ---- prompts


def _content(value: Any, column: str) -> Any:
    """Text and messages as they are, vectors as floats."""
    if isinstance(value, str):
        if not value.strip():
            raise _BadRow(f"{column!r} is empty")
        written = _written_chat(value)
        if written is None:
            return _unicode(value, column)
        value = written
    if not isinstance(value, list):
        raise _BadRow(f"{column!r} is {kind(value)}, not text, chat messages or numbers")
    if not value:
        raise _BadRow(f"{column!r} is empty")
    if all(isinstance(item, dict) for item in value):
        return _chat(value, column)
    for i, item in enumerate(value):
        if not _is_number(item):
            raise _BadRow(f"'{column}[{i}]' is {kind(item)}, in a list of numbers or messages")
    try:
        return [float(item) for item in value]
    except OverflowError:
        raise _BadRow(f"{column!r} has a number too large for a float") from None


def _written_chat(text: str) -> list[Any] | None:
    """The messages in a text that is their JSON, as CSV has it."""
    if not text.lstrip().startswith("[{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    speak = ({"role", "content"}, {"from", "value"})
    return (
        found
        if all(isinstance(m, dict) and any(k <= set(m) for k in speak) for m in found)
        else None
    )


def _chat(messages: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    """Messages as chat templates take them: ``role`` and ``content``, the content text.

    ShareGPT's ``from`` and ``value`` are renamed, parts of text joined, empty system messages left
    out, and keys without a value dropped. Tool calls stay.
    """
    out = [_message(m, f"{column}[{i}]") for i, m in enumerate(messages)]
    kept = [m for m in out if m["role"] != "system" or m["content"].strip()]
    if not any(m["role"] != "system" for m in kept):
        raise _BadRow(f"{column!r} has no user's message")
    return kept


def _message(message: dict[str, Any], place: str) -> dict[str, Any]:
    given = {k: v for k, v in message.items() if v is not None}
    if "role" not in given and "from" in given:
        speaker = given.pop("from")
        given["role"] = SHARED.get(speaker, speaker) if isinstance(speaker, str) else speaker
        if "value" in given:
            given["content"] = given.pop("value")
    role = given.get("role")
    if not isinstance(role, str) or not role.strip():
        raise _BadRow(f"'{place}.role' is {kind(role) if 'role' in given else 'missing'}, not text")
    calls = bool(given.get("tool_calls"))
    content = given.get("content", "" if calls else None)
    if isinstance(content, list):
        content = _parts(content, f"{place}.content")
    if not isinstance(content, str):
        what = kind(message.get("content")) if "content" in message else "missing"
        raise _BadRow(f"'{place}.content' is {what}, not text")
    if not content.strip() and not calls and role != "system":
        raise _BadRow(f"'{place}.content' is empty")
    _unicode(content, f"{place}.content")
    _unicode(role, f"{place}.role")
    return given | {"role": role, "content": content}


def _parts(parts: list[Any], place: str) -> str:
    """Parts of text, ``{"type": "text", "text": ...}``, as one."""
    texts = []
    for i, part in enumerate(parts):
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            what = part.get("type", "an object") if isinstance(part, dict) else kind(part)
            raise _BadRow(f"'{place}[{i}]' is {what}, not text: srlm takes text alone")
    return "".join(texts)


# ---- answers


def answers_of(value: Any, column: str) -> tuple[str, ...]:
    """Each accepted answer once; a list has several.

    Raises:
        ValueError: it is no answer.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        return (_answer(value, column),)
    given = [_answer(x, f"{column}[{i}]") for i, x in enumerate(value) if x is not None]
    return tuple(dict.fromkeys(given))


def _answer(value: Any, column: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if _is_number(value):
        whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
        return str(int(value) if whole else value)
    if isinstance(value, dict):
        inside = ", ".join(f"{column}.{name}" for name in list(value)[:SHOWN])
        raise _BadRow(f"{column!r} is an object (its columns: {inside or 'none'})")
    if not isinstance(value, str):
        raise _BadRow(f"{column!r} is {kind(value)}, not text or a number")
    if not value.strip():
        raise _BadRow(f"{column!r} is empty (leave it out where there is no answer)")
    return _unicode(value, column)


def _merge(known: Prompt, again: Prompt, table: Rows) -> Prompt:
    if not known.answers:
        return replace(known, answers=again.answers)
    if any(not any(same_value(x, y) for y in known.answers) for x in again.answers):
        raise _BadRow(
            f"the prompt of {table.place(known.line)} again, with another answer"
            f" ({_either(again.answers)}, there {_either(known.answers)})"
        )
    return known


def _either(answers: Sequence[str]) -> str:
    return " or ".join(map(repr, answers))


# ---- what is said of bad rows


def _same_kind(first: Prompt, prompt: Prompt, table: Rows) -> None:
    """Features or language, not both; and vectors of one length."""
    sizes = [len(p.content) if _is_vector(p.content) else None for p in (first, prompt)]
    if sizes[0] != sizes[1]:
        one, other = ("text" if size is None else f"{size} numbers" for size in sizes)
        place = table.place(first.line)
        raise _BadRow(f"the prompt is {other}, where {place} has {one}")


def _bad_rows(name: str, table: Rows) -> UserError:
    by_reason: dict[str, list[int]] = {}
    for number in sorted(table.bad):
        by_reason.setdefault(table.bad[number], []).append(number)
    lines = []
    for reason, numbers in list(by_reason.items())[:SHOWN]:
        more = f" and {len(numbers) - 1:,} more" if len(numbers) > 1 else ""
        lines.append(f"  {table.place(numbers[0])}{more}: {reason}")
    if len(by_reason) > SHOWN:
        rest = sum(len(numbers) for numbers in list(by_reason.values())[SHOWN:])
        lines.append(f"  and {rest:,} more")
    count = f"{len(table.bad):,} bad {table.unit}{'s' if len(table.bad) > 1 else ''}"
    return UserError(
        "\n".join([f"{name}: {count}", *lines]),
        'correct them; a line reads {"prompt": "...", "answer": "..."}, the answer may be missing',
    )


def _guess(column: str, row: dict[str, Any]) -> str | None:
    """The column that is meant, as far as names tell."""
    known = [name for name in row if name.lower() in USUAL_COLUMNS]
    near = difflib.get_close_matches(column, list(row), n=1)
    return next(iter(near + known), None)


def _list(row: dict[str, Any]) -> str:
    """The columns, those inside objects with a dot."""
    names: list[str] = []
    for name, value in row.items():
        inside = [f"{name}.{x}" for x in value] if isinstance(value, dict) else []
        names += inside or [name]
    return ", ".join(names) or "none"


def _unicode(text: str, column: str) -> str:
    """The text, if it can be written as UTF-8: JSON's escapes can name half a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _BadRow(f"{column!r} has half a character (a lone surrogate)") from None
    return text


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _is_chat(content: Any) -> bool:
    return len(content) > 0 and isinstance(content[0], dict)


def _is_vector(content: Any) -> bool:
    return not isinstance(content, str) and not _is_chat(content)
