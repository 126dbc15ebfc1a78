"""Rows of a file of any usual kind: JSONL, JSON, CSV, TSV, parquet, Arrow, gzip of each, folders.

``open_source`` reads everything once, so that a pipe or the standard input will do; ``Rows`` are
made from what was read. What a file is, its content says, not its name.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srlm.errors import UserError, first_line

NAMES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
"""Ends of the names of files that are read from a folder; ``.gz`` may follow."""
KINDS = "JSONL, a JSON array, CSV, TSV, parquet or Arrow, also as .gz, or a folder of them"
STRANGERS = {
    b"PK\x03\x04": "a zip archive (or a spreadsheet)",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "HDF5",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
}
MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Source:
    """What was read: a file's bytes, or those of several files in the order of their names."""

    name: str
    files: tuple[tuple[str, bytes], ...]
    sha256: str
    """Of the bytes; of several files, of their names and hashes."""


@dataclass(slots=True)
class Rows:
    """The rows of a source, to go through once; what is no row is known after that."""

    rows: Iterator[tuple[int, dict[str, Any]]] = field(default_factory=lambda: iter(()))
    """Number and columns. Lines are counted in text, rows elsewhere, from 1, over all files."""
    bad: dict[int, str] = field(default_factory=dict)
    """Number and reason."""
    unit: str = "line"
    starts: list[tuple[int, str]] = field(default_factory=list)
    """Of each file: its first number less one, and its name."""

    def place(self, number: int) -> str:
        """Where a row is: "line 3", in a folder "b.jsonl line 3"."""
        before, name = max(x for x in self.starts if x[0] < number or x[0] == 0)
        file = f"{name} " if len(self.starts) > 1 else ""
        return f"{file}{self.unit} {number - before}"


def open_source(path: str | Path) -> Source:
    """Read a file, a folder or, for ``-``, the standard input; each file once.

    Raises:
        UserError: there is nothing to read, or a folder without a file of rows.
    """
    name = str(path)
    if name == "-":
        data = sys.stdin.buffer.read()
        return Source(
            "standard input", (("standard input", data),), hashlib.sha256(data).hexdigest()
        )
    try:
        if not Path(path).is_dir():
            data = Path(path).read_bytes()
            return Source(name, ((name, data),), hashlib.sha256(data).hexdigest())
        files = tuple((f.name, f.read_bytes()) for f in _of_folder(Path(path)))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        where = getattr(error, "filename", None) or name
        raise UserError(f"{where}: {reason.lower()}", f"give a file: {KINDS}") from None
    listing = "".join(f"{hashlib.sha256(data).hexdigest()} {name}\n" for name, data in files)
    return Source(name, files, hashlib.sha256(listing.encode()).hexdigest())


def _of_folder(folder: Path) -> list[Path]:
    """The files of a folder that hold rows: those of ``save_to_disk``, or all of a known name."""
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(x.name for x in folder.iterdir() if x.is_dir())
        raise UserError(
            f"{folder}: a dataset of several splits: {', '.join(splits)}",
            f"give one of them, as {folder / splits[0] if splits else folder}",
        )
    state = folder / "state.json"
    if state.is_file() and (folder / "dataset_info.json").is_file():
        said, files = _state(state)
        if said.get("_indices_data_files"):
            raise UserError(
                f"{folder}: a dataset with an order or a choice of its own",
                "save it again after dataset.flatten_indices()",
            )
        for name in files:
            if "/" in name or "\\" in name or name in ("", ".", ".."):
                raise UserError(f"{state}: {name[:100]!r} leaves the folder", "save it again")
        return [folder / name for name in files]
    names = sorted(x for x in folder.iterdir() if x.is_file() and not x.name.startswith("."))
    found = [x for x in names if x.name.lower().removesuffix(".gz").endswith(NAMES)]
    if not found:
        seen = ", ".join(x.name for x in names[:5]) or "no files"
        raise UserError(f"{folder}: a folder without files of rows ({seen})", f"give {KINDS}")
    return found


def _state(file: Path) -> tuple[dict[str, Any], list[str]]:
    """What ``save_to_disk`` says of a folder, and the names of its files."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        return dict(said), [str(x["filename"]) for x in said["_data_files"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{file}: broken", "save the data set again") from None


def rows_of(source: Source, column: str) -> Rows:
    """The rows of a source.

    Args:
        source: what was read.
        column: one that is wanted, to tell a header of CSV from other text.

    Raises:
        UserError: a file that is none of the kinds, is broken, or has no rows.
    """
    out = Rows()
    out.rows = _all(source, column, out)
    return out


def _all(source: Source, column: str, out: Rows) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    some = False
    for name, data in source.files:
        out.starts.append((number, name))
        place = name if len(source.files) == 1 else f"{source.name}/{name}"
        last = number
        for last, row in _file(place, data, column, out, number):
            some = True
            if isinstance(row, dict):
                yield last, row
            else:
                out.bad[last] = str(row) if isinstance(row, _Bad) else _no_object(row)
        number = last + 1  # between the numbers of two files, so that ``place`` can tell
    if not some:
        raise UserError(f"{source.name}: the file is empty", "write one JSON object a line")


def _no_object(row: Any) -> str:
    return f"not a JSON object but {kind(row)}"


def _file(name: str, data: bytes, column: str, out: Rows, start: int) -> Iterator[tuple[int, Any]]:
    """A file's rows, numbered from ``start`` + 1."""
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{name}: broken gzip: {error}", "copy the file again") from None
    for magic, what in STRANGERS.items():
        if data.startswith(magic):
            raise UserError(f"{name}: {what}", f"give {KINDS}")
    binary = data.startswith((b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"))
    if not binary and b"\x00" in data[:4096]:
        raise UserError(f"{name}: no text, and no kind of file that is known", f"give {KINDS}")
    if binary:
        out.unit = "row"
        made: Iterator[tuple[int, Any]] = _numbered(_table(name, data))
    else:
        data = data.removeprefix(MARK)
        head = data.lstrip()[:1]
        whole = _whole(name, data) if head in (b"[", b"{") else None
        if whole is not None:
            out.unit = "row"
            made = _numbered(whole)
        elif _is_csv(name, data, column):
            made = _csv(name, data)
        else:
            made = _lines(data)
    return ((start + number, row) for number, row in made)


class _Bad(str):
    """Why there is no row."""


def _numbered(rows: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    return iter(enumerate(rows, start=1))


def _table(name: str, data: bytes) -> list[Any]:
    """Rows of parquet, an Arrow file or an Arrow stream."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    what = "parquet" if data.startswith(b"PAR1") else "Arrow"
    try:
        buffer = pa.BufferReader(data)
        if what == "parquet":
            table = pq.read_table(buffer)
        elif data.startswith(b"ARROW1"):
            table = pa.ipc.open_file(buffer).read_all()
        else:
            table = pa.ipc.open_stream(buffer).read_all()
        return list(table.to_pylist())
    except (pa.ArrowException, OSError, ValueError, UnicodeDecodeError) as error:
        said = first_line(error)
        raise UserError(f"{name}: broken {what}: {said}", "copy the file again") from None


def _whole(name: str, data: bytes) -> list[Any] | None:
    """The rows of a JSON array, or of one object over several lines; None: it is JSONL."""
    first = data.lstrip().split(b"\n", 1)
    if len(first) > 1 and first[1].strip():
        try:
            json.loads(first[0])
        except (ValueError, RecursionError):
            pass
        else:
            return None  # the first line is JSON by itself, and more follows
    elif first[0].startswith(b"{"):
        return None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, list):
        return found
    lists = [k for k, v in found.items() if isinstance(v, list) and v and isinstance(v[0], dict)]
    if len(lists) == 1:
        raise UserError(
            f"{name}: one JSON object, whose {lists[0]!r} may be the rows",
            "write that list alone into the file, or one object a line",
        )
    return [found]


def _is_csv(name: str, data: bytes, column: str) -> bool:
    """Whether the first line is a header: by the file's name, or by the column that is wanted."""
    if data.lstrip()[:1] in (b"{", b"["):
        return False
    if name.lower().removesuffix(".gz").endswith((".csv", ".tsv")):
        return True
    head = data.split(b"\n", 1)[0].decode("utf-8", "replace")
    names = [x.strip().strip('"') for x in head.split(_delimiter(head))]
    return len(names) > 1 and column in names


def _delimiter(head: str) -> str:
    return max("\t;,", key=lambda c: (head.count(c), c == ","))


def _csv(name: str, data: bytes) -> Iterator[tuple[int, Any]]:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{name}: line {line} is not UTF-8 (byte 0x{data[error.start]:02x})",
            "save the file as UTF-8",
        ) from None
    csv.field_size_limit(max(len(text), 1))
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=_delimiter(text.split("\n", 1)[0]), strict=True
    )
    header: list[str] | None = None
    before = 0
    try:
        for cells in reader:
            line, before = before + 1, reader.line_num
            if not any(cells):
                continue
            if header is None:
                header = [x.strip() for x in cells]
            elif len(cells) != len(header):
                yield line, _Bad(f"{len(cells)} cells, where the header has {len(header)}")
            else:
                yield (
                    line,
                    {k: v if v.strip() else None for k, v in zip(header, cells, strict=True)},
                )
    except csv.Error as error:
        yield reader.line_num, _Bad(f"not CSV ({error})")


def _lines(data: bytes) -> Iterator[tuple[int, Any]]:
    for line, raw in enumerate(data.split(b"\n"), start=1):
        if not raw.strip():
            continue
        row: Any
        try:
            row = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            row = _Bad(f"not UTF-8 (byte 0x{raw[error.start]:02x} at byte {error.start + 1})")
        except json.JSONDecodeError as error:
            reason = f"{error.msg[0].lower()}{error.msg[1:]} at column {error.colno}"
            row = _Bad(f"not JSON ({reason})")
        except (ValueError, RecursionError):
            row = _Bad("not JSON that can be read (a number too long, or nesting too deep)")
        yield line, row


def kind(value: Any) -> str:
    """What a value is, in words.

    >>> [kind(value) for value in (None, True, 3, float("nan"), "a", [], {})]
    ['null', 'true or false', 'a number', 'nan', 'text', 'a list', 'an object']
    """
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return str(value)
    names = {bool: "true or false", int: "a number", float: "a number", str: "text"}
    names |= {list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")
