"""Files of samples: many responses per prompt, made anywhere, read one response at a time.

``open_samples`` tells by content what a file is:

- ``plain``: JSON objects, one a line or in one array, with ``prompt`` (text or messages) or ``id``
  and ``responses`` (a list) or ``response`` (one); optional ``answer``, ``logp`` (nats, summed over
  the response's tokens), ``tokens`` (their number) and ``finish_reason``, each a list where
  ``responses`` is one. A response may also be an object with ``text`` and these.
- ``lm-eval``: ``--log_samples``. With several filters each sample is read once.
- ``lighteval``: the details parquet of ``--save-details``.
- ``inspect_ai``: an ``.eval`` log.
- ``verl``: the JSONL of ``trainer.validation_data_dir`` or ``rollout_data_dir``.
- ``trl``: the completions parquet of ``log_completions``.
- ``openai-batch``: the output of a batch, as OpenAI or ``vllm run-batch`` writes it.
- ``vllm``: RequestOutput as JSON (``json.dumps(output, default=vars)``).
- ``srlm``: ``samples.parquet`` of a run's round; or the folder of a forecast, or its ``samples``.

Nothing is assumed about the order of a file: each response comes with the key of its prompt. One
line (or one sample of a log, or 64 rows of a parquet) is in memory at a time. What is unparseable
is skipped and named in ``problems``.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from srlm.data import answers_of
from srlm.errors import UserError

SHOWN = 5
"""Problems that are kept in words."""
LOOKED_AT = 100
"""Lines among which the first that can be read tells what a file is."""
LEAST_LOGP = -1e12
BATCH = 64
"""Rows of a parquet file in memory at once."""
CHUNK = 1 << 20
ZSTANDARD = 93
"""The number of Zstandard in a zip archive; inspect_ai writes it, Python 3.11 cannot read it."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One response."""

    key: str
    """Its prompt: equal keys are the same prompt."""
    prompt: str | None
    """As a person reads it; None where the file does not have it."""
    answers: tuple[str, ...] | None
    """Right answers, any of which is right, where the file has one."""
    text: str
    logp: float | None = None
    """log pi(y|x), nats, summed over its tokens."""
    tokens: int | None = None
    finished: bool | None = None
    """False where a length limit cut it off; None where the file does not say."""
    scores: Mapping[str, float] | None = None
    """Rewards by name; not-a-number where one is missing."""


@dataclass(slots=True)
class Problems:
    """What could not be read. Grows while a file is gone through."""

    count: int = 0
    shown: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    """All of them: line numbers, or names of samples."""
    misspelt: int = 0
    """Responses whose log-probabilities are not those of their tokens; they are not used."""

    def add(self, place: str, reason: str) -> None:
        self.count += 1
        self.places.append(place)
        if len(self.shown) < SHOWN:
            self.shown.append(f"{place}: {reason}")

    def sentence(self) -> str:
        """One sentence, or nothing."""
        if not self.count:
            return ""
        more = f"; and {self.count - len(self.shown)} more" if self.count > len(self.shown) else ""
        return f"{self.count} could not be read ({'; '.join(self.shown)}{more})"


@dataclass(slots=True)
class SamplesFile:
    """A file of samples. Going through it reads it; ``problems`` is complete afterwards."""

    path: Path
    format: str
    _rows: Callable[[Path, Problems], Iterator[Sampled]]
    problems: Problems = field(default_factory=Problems)

    def __iter__(self) -> Iterator[Sampled]:
        self.problems = Problems()
        return self._rows(self.path, self.problems)


def open_samples(path: Path) -> SamplesFile:
    """See what a file is; it is read by going through the result.

    Raises:
        UserError: there is no such file, or it is none of the formats.
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file", "give a file of samples")
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PAR1":
        return _open_parquet(path)
    if start[:2] == b"PK":
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile as error:
            raise UserError(f"{path}: not a whole archive: {error}", "give a whole file") from None
        if any(name.startswith("samples/") for name in names):
            return SamplesFile(path, "inspect_ai", _inspect)
        raise UserError(f"{path}: an archive without samples", _ASK)
    if start[:2] == b"\x1f\x8b":
        raise UserError(f"{path}: compressed with gzip", "unpack it first")
    return _open_json(path)


def _open_folder(path: Path) -> SamplesFile:
    """The samples that ``srlm forecast --out`` keeps, also while they are being made."""
    inside = path / "samples" if (path / "samples").is_dir() else path
    parts = sorted(inside.glob("*.parquet"))
    if not parts:
        raise UserError(f"{path}: a folder without kept samples", "give one file of samples in it")

    def rows(path: Path, problems: Problems) -> Iterator[Sampled]:
        for part in parts:
            yield from _open_parquet(part)._rows(part, problems)

    return SamplesFile(path, _open_parquet(parts[0]).format, rows)


_ASK = (
    "give JSONL with 'prompt' and 'responses' (or 'response'), or a file of samples of lm-eval, "
    "lighteval, inspect_ai, verl, TRL, vLLM or an OpenAI batch"
)


class _Bad(ValueError):
    """Why an object is unparseable."""


# ---- JSON


Read = Callable[[dict[str, Any], Problems], Iterator[Sampled]]
"""From one object to its responses; raises _Bad."""


def _open_json(path: Path) -> SamplesFile:
    found: dict[str, Any] | None = None
    for number, (_, value) in enumerate(_values(path)):
        if isinstance(value, dict):
            found = value
            break
        if number == LOOKED_AT:
            break
    if found is None:
        raise UserError(f"{path}: no JSON object in its first {LOOKED_AT} lines", _ASK)
    for name, (known, reader) in _JSON.items():
        if known(found):
            return SamplesFile(path, name, partial(_json_rows, reader=reader))
    keys = ", ".join(list(found)[:12])
    raise UserError(f"{path}: no format with the fields {keys}", _ASK)


def _json_rows(path: Path, problems: Problems, reader: Callable[[], Read]) -> Iterator[Sampled]:
    read = reader()
    for place, value in _values(path):
        try:
            if isinstance(value, _Bad):
                raise value
            if not isinstance(value, dict):
                raise _Bad("not a JSON object")
            rows = _all(read, value, problems)
        except _Bad as reason:
            problems.add(place, str(reason))
            continue
        yield from rows


_LAYOUT = (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError)
"""Raised where a value is of another kind than its format has there."""


def _all(read: Read, value: dict[str, Any], problems: Problems) -> list[Sampled]:
    """The responses of one object.

    Raises:
        _Bad: it is not laid out as its format is.
    """
    try:
        return list(read(value, problems))
    except _Bad:
        raise
    except _LAYOUT as error:
        text = f"{type(error).__name__}: {error}"
        raise _Bad(f"not laid out as its format is ({text[:80]})") from None


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, value or _Bad) of the lines of a file, or of the elements of its one array."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.read(CHUNK).lstrip()
    if first.startswith("["):
        yield from _elements(path)
        return
    with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:  # a number of many digits is a ValueError
                yield f"line {number}", _Bad(f"not JSON: {str(error)[:80]}")


def _elements(path: Path) -> Iterator[tuple[str, Any]]:
    """The elements of an array, decoded one by one. O(longest element) memory."""
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        rest, number, grow = file.read(CHUNK).lstrip()[1:], 0, CHUNK
        while True:
            rest = rest.lstrip(" \t\r\n,")
            if rest.startswith("]"):
                return
            number += 1
            while True:
                try:
                    value, end = decoder.raw_decode(rest)
                    break
                except json.JSONDecodeError as error:
                    more = file.read(grow)
                    if not more:
                        if rest:
                            yield f"element {number}", _Bad(f"not JSON: {str(error)[:80]}")
                        return
                    rest, grow = rest + more, 2 * grow
                except (ValueError, RecursionError) as error:
                    reason = f"not JSON: {str(error)[:80]}; what follows it is not read"
                    yield f"element {number}", _Bad(reason)
                    return
            grow = CHUNK
            yield f"element {number}", value
            rest = rest[end:]


def _plain(value: dict[str, Any], problems: Problems) -> Iterator[Sampled]:
    prompt = _readable(value.get("prompt"))
    key = prompt if prompt is not None else _readable(value.get("id"))
    if key is None:
        raise _Bad("no 'prompt' and no 'id'")
    many = next((value[k] for k in ("responses", "completions") if k in value), None)
    if many is None:
        one = next((value[k] for k in ("response", "completion") if k in value), None)
        if one is None:
            raise _Bad("no 'responses' and no 'response'")
        many, lists = [one], {k: [value[k]] for k in _BESIDE if value.get(k) is not None}
    else:
        if not isinstance(many, list):
            raise _Bad("'responses' is no list")
        lists = {k: value[k] for k in _BESIDE if value.get(k) is not None}
        for name, items in lists.items():
            if not isinstance(items, list) or len(items) != len(many):
                raise _Bad(f"{name!r} is no list of {len(many)}, one a response")
    for i, response in enumerate(many):
        beside = {k: items[i] for k, items in lists.items()}
        if isinstance(response, dict):
            beside |= {k: response.get(k) for k in _BESIDE if k in response}
            response = response.get("text")
        yield Sampled(
            key,
            prompt,
            _right(value.get("answer")),
            _text(response),
            _number(beside.get("logp"), "logp"),
            _whole(beside.get("tokens")),
            _finished(beside.get("finish_reason")),
        )


_BESIDE = ("logp", "tokens", "finish_reason")


def _lm_eval() -> Read:
    only: list[Any] = []

    def read(value: dict[str, Any], problems: Problems) -> Iterator[Sampled]:
        for name in ("doc_id", "resps", "arguments"):
            if name not in value:
                raise _Bad(f"no {name!r}")
        only.append(value.get("filter"))
        if value.get("filter") != only[0]:
            return  # the same responses again, filtered differently
        del only[1:]
        # Files of several tasks may be joined: each counts its documents from 0.
        key = " ".join(str(value[k]) for k in ("doc_id", "doc_hash") if k in value)
        prompt = value["arguments"]
        while isinstance(prompt, dict) and prompt:
            prompt = next(iter(prompt.values()))
        for request in value["resps"]:
            for text in request if isinstance(request, list) else [request]:
                if not isinstance(text, str):
                    raise _Bad("'resps' holds no generated text (not a generate_until task)")
                right = _right(value.get("target"))
                yield Sampled(key, _readable(prompt), right, text)

    return read


def _verl(value: dict[str, Any], problems: Problems) -> Iterator[Sampled]:
    for name in ("input", "output"):
        if not isinstance(value.get(name), str):
            raise _Bad(f"no {name!r}")
    yield Sampled(value["input"], value["input"], _right(value.get("gts")), value["output"])


def _openai(value: dict[str, Any], problems: Problems) -> Iterator[Sampled]:
    key, response = value.get("custom_id"), value.get("response")
    if not isinstance(key, str):
        raise _Bad("no 'custom_id'")
    if value.get("error") or not isinstance(response, dict) or response.get("status_code") != 200:
        raise _Bad(f"{key} failed: {json.dumps(value.get('error') or response)[:80]}")
    choices = (response.get("body") or {}).get("choices")
    if not isinstance(choices, list):
        raise _Bad(f"{key}: no 'choices'")
    for each in choices:
        yield choice(each, key, problems)


def choice(value: dict[str, Any], key: str, problems: Problems) -> Sampled:
    """One of the choices that an OpenAI-compatible server gives for a prompt.

    Raises:
        ValueError: it has no text.
    """
    said = value["message"].get("content") or "" if "message" in value else value.get("text")
    text = _text(said)
    logp, tokens = _spelt(value.get("logprobs"), text, problems)
    return Sampled(key, None, None, text, logp, tokens, _finished(value.get("finish_reason")))


def _vllm(value: dict[str, Any], problems: Problems) -> Iterator[Sampled]:
    if not isinstance(value.get("outputs"), list):
        raise _Bad("no 'outputs'")
    prompt = _readable(value.get("prompt"))
    key = prompt if prompt is not None else _readable(value.get("prompt_token_ids"))
    key = key if key is not None else _readable(value.get("request_id"))
    if key is None:
        raise _Bad("no 'prompt'")
    for output in value["outputs"]:
        ids = output.get("token_ids")
        yield Sampled(
            key,
            prompt,
            None,
            _text(output.get("text")),
            _number(output.get("cumulative_logprob"), "cumulative_logprob"),
            len(ids) if isinstance(ids, list) else None,
            _finished(output.get("finish_reason")),
        )


_JSON: dict[str, tuple[Callable[[dict[str, Any]], bool], Callable[[], Read]]] = {
    "lm-eval": (lambda x: {"doc_id", "resps"} <= x.keys(), _lm_eval),
    "openai-batch": (lambda x: {"custom_id", "response"} <= x.keys(), lambda: _openai),
    "verl": (lambda x: {"input", "output", "gts"} <= x.keys(), lambda: _verl),
    "vllm": (
        lambda x: isinstance(x.get("outputs"), list) and bool({"prompt", "request_id"} & x.keys()),
        lambda: _vllm,
    ),
    "plain": (
        lambda x: (
            bool({"prompt", "id"} & x.keys())
            and bool({"responses", "response", "completions", "completion"} & x.keys())
        ),
        lambda: _plain,
    ),
}


# ---- parquet


def _open_parquet(path: Path) -> SamplesFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = set(pq.read_schema(path).names)
    except pa.ArrowException as error:
        raise UserError(f"{path}: not a whole parquet file: {error}", "give a whole file") from None
    for name, (columns, read) in _PARQUET.items():
        if set(columns) <= names:
            return SamplesFile(path, name, partial(_parquet_rows, columns=columns, read=read))
    raise UserError(f"{path}: no format with the columns {', '.join(sorted(names)[:12])}", _ASK)


def _parquet_rows(
    path: Path, problems: Problems, columns: Sequence[str], read: Read
) -> Iterator[Sampled]:
    import pyarrow.parquet as pq

    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH, columns=list(columns)):
            for row in batch.to_pylist():
                number += 1
                try:
                    rows = _all(read, row, problems)
                except _Bad as reason:
                    problems.add(f"row {number}", str(reason))
                    continue
                yield from rows


def _lighteval(row: dict[str, Any], problems: Problems) -> Iterator[Sampled]:
    doc, said = row["doc"], row["model_response"]
    if not said.get("text"):
        raise _Bad("no generated text")
    gold, choices = doc.get("gold_index"), doc.get("choices") or []
    gold = gold[0] if isinstance(gold, list) and gold else gold
    right = _right(choices[gold]) if isinstance(gold, int) and gold < len(choices) else None
    tokens = said.get("output_tokens") or []
    key = f"{doc.get('task_name')} {doc.get('id')} {doc.get('query')}"
    for i, text in enumerate(said["text"]):
        count = len(tokens[i]) if i < len(tokens) and tokens[i] else None
        yield Sampled(key, _readable(doc.get("query")), right, _text(text), tokens=count)


def _trl(row: dict[str, Any], problems: Problems) -> Iterator[Sampled]:
    prompt = _readable(row["prompt"])
    if prompt is None:
        raise _Bad("no prompt")
    said = row["completion"]
    if isinstance(said, list):
        said = "".join(m["content"] for m in said if isinstance(m.get("content"), str))
    yield Sampled(prompt, prompt, None, _text(said))


def _srlm(row: dict[str, Any], problems: Problems) -> Iterator[Sampled]:
    count = len(row["tokens"])
    yield Sampled(row["prompt_id"], None, None, row["text"], row["logp"], count, row["finished"])


def _srlm_server(row: dict[str, Any], problems: Problems) -> Iterator[Sampled]:
    values = (row[name] for name in ("text", "logp", "length", "finished"))
    yield Sampled(row["prompt_id"], None, None, *values)


_PARQUET: dict[str, tuple[tuple[str, ...], Read]] = {
    "lighteval": (("doc", "model_response"), _lighteval),
    "trl": (("prompt", "completion", "advantage"), _trl),
    "srlm": (("prompt_id", "text", "logp", "tokens", "finished"), _srlm),
    "srlm-server": (("prompt_id", "text", "logp", "length", "finished"), _srlm_server),
}


# ---- archives


def _inspect(path: Path, problems: Problems) -> Iterator[Sampled]:
    with path.open("rb") as raw, zipfile.ZipFile(raw) as archive:
        for entry in archive.infolist():
            if not entry.filename.startswith("samples/"):
                continue
            try:
                value = json.loads(_unpacked(raw, archive, entry))
                rows = _all(_inspect_sample, value, problems)
            except (_Bad, json.JSONDecodeError, zipfile.BadZipFile, zlib.error) as reason:
                problems.add(entry.filename, str(reason))
                continue
            yield from rows


def _unpacked(raw: Any, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.compress_type != ZSTANDARD:
        return archive.read(entry)
    import pyarrow as pa

    raw.seek(entry.header_offset)
    name, extra = struct.unpack("<HH", raw.read(30)[26:30])
    raw.seek(name + extra, 1)
    packed = pa.py_buffer(raw.read(entry.compress_size))
    with pa.CompressedInputStream(packed, "zstd") as stream:
        return bytes(stream.read())


def _inspect_sample(value: dict[str, Any], problems: Problems) -> Iterator[Sampled]:
    choices = (value.get("output") or {}).get("choices")
    if not choices:
        error = (value.get("error") or {}).get("message", "no output")
        raise _Bad(f"failed: {str(error)[:80]}")
    for choice in choices:
        said = choice["message"]["content"]
        if isinstance(said, list):
            said = "".join(part.get("text", "") for part in said if part.get("type") == "text")
        text = _text(said)
        logp, tokens = _spelt(choice.get("logprobs"), text, problems)
        right = _right(value.get("target"))
        finished = _finished(choice.get("stop_reason"))
        prompt = _readable(value.get("input"))
        yield Sampled(str(value["id"]), prompt, right, text, logp, tokens, finished)


# ---- values


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Bad(f"a response is no text but {type(value).__name__}")
    return value


def _readable(value: Any) -> str | None:
    """Text as it is, messages and the rest as JSON."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _right(value: Any) -> tuple[str, ...] | None:
    """Right answers; None where there is none. Of a list any is right."""
    if isinstance(value, float) and not math.isfinite(value):
        raise _Bad(f"the answer is {value}")
    given = [x for x in (value if isinstance(value, list) else [value]) if x not in (None, "")]
    try:
        return answers_of(given, "answer") or None
    except ValueError as error:
        raise _Bad(str(error)) from None


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise _Bad(f"{name!r} is no number")
    if value > 1e-3:
        raise _Bad(f"{name!r} is {value:g}: a log-probability is at most 0")
    if -math.inf < value < LEAST_LOGP:
        raise _Bad(f"{name!r} is {value:g}: no log-probability of a response")
    return float(value)


def _whole(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _Bad("'tokens' is no count of tokens")
    return value


def _finished(reason: Any) -> bool | None:
    if reason in (None, "unknown"):
        return None
    return reason not in ("length", "max_tokens", "model_length", False)


def _spelt(logprobs: Any, text: str, problems: Problems) -> tuple[float | None, int | None]:
    """Sum and number of token log-probabilities, where the tokens spell the response."""
    if not logprobs:
        return None, None
    if content := logprobs.get("content"):
        parts = [
            bytes(t["bytes"]) if t.get("bytes") is not None else t["token"].encode()
            for t in content
        ]
        value = [t["logprob"] for t in content]
    elif logprobs.get("token_logprobs"):
        parts = [t.encode() for t in logprobs["tokens"]]
        value = logprobs["token_logprobs"]
    else:
        return None, None
    if not b"".join(parts).decode(errors="ignore").strip().startswith(text.strip()):
        problems.misspelt += 1
        return None, None
    return _number(float(sum(value)), "logprobs"), len(value)
