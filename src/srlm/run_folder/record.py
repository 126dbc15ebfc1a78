"""What the files of a round must be: ``files.json``, one in each round's folder.

It is written before any file that it names, and every file that it names is read only where its
SHA-256 is the one given there. So a file that is not there yet, was cut off, changed, or belongs
to another round is known for what it is, and so is a round made with other settings or inputs.
The file, and other small ones, are sealed: they end in the SHA-256 of what stands before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from srlm import writing

NAME = "files.json"
CARD = "policy/README.md"
"""The model card: in a policy's folder, and no part of the policy."""
SEAL = "sha256"
COMMENT = "# srlm run, SHA-256 of the lines below: "
MISSING, CHANGED = "missing", "damaged"


@dataclass
class Record:
    """What a round rests on, and the hashes of its files."""

    round: int
    settings: Mapping[str, Any]
    """Those that decide its numbers: without how many rounds are asked for, and without the places
    of the inputs."""
    inputs: Mapping[str, str]
    """SHA-256 of the model and of the prompts; a model of the hub has its name there."""
    versions: dict[str, str]
    """Of the libraries; two, as "1.0, 1.1", where the round was begun with one and ended with the
    other."""
    made_from: dict[str, str] = field(default_factory=dict)
    """SHA-256 by name of the files of the round before from which its policy was trained."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 by name, that of a file of the policy as ``policy/config.json``."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage."""

    def of(self, name: str) -> dict[str, str]:
        """Hashes of a file, or of those in a folder of the round; the policy's without the card."""
        found = within(self.files, name)
        return found if name == CARD else {k: v for k, v in found.items() if k != CARD}


def within(files: Mapping[str, str], name: str) -> dict[str, str]:
    """The entries of a file, or of those in a folder.

    >>> within({"policy/a": "1", "pairs": "2"}, "policy")
    {'policy/a': '1'}
    """
    return {k: v for k, v in files.items() if k == name or k.startswith(name + "/")}


def round_folder(folder: Path, t: int) -> Path:
    """Where round t is kept."""
    return folder / "rounds" / f"{t:03d}"


def round_numbers(folder: Path) -> list[int]:
    """The rounds that have a folder."""
    names = (p.name for p in (folder / "rounds").glob("*") if p.is_dir())
    return sorted(int(n) for n in names if n.isdecimal() and n == f"{int(n):03d}")


def write_record(folder: Path, record: Record) -> None:
    """Write a round's files.json."""
    place = round_folder(folder, record.round) / NAME
    write_sealed(place, asdict(record))


def read_record(folder: Path, t: int) -> Record | None:
    """Read a round's files.json; None where it is missing, damaged, or another round's."""
    told = unsealed(round_folder(folder, t) / NAME)
    if told is None or told.get("round") != t:
        return None
    return Record(**told)


def wrong(
    folder: Path, files: Mapping[str, str], hash_of: Callable[[Path], str] | None = None
) -> dict[str, str]:
    """Of some files in a folder those that are not as recorded: ``MISSING`` or ``CHANGED``."""
    hash_of = hash_of or hash_file
    out = {}
    for name, sha256 in files.items():
        file = folder / name
        if not file.is_file():
            out[name] = MISSING
        elif hash_of(file) != sha256:
            out[name] = CHANGED
    return out


def hashes(path: Path, name: str) -> dict[str, str]:
    """SHA-256 of a file called ``name``, or of all files in a folder called so."""
    if path.is_dir():
        files = (f for f in sorted(path.rglob("*")) if f.is_file())
        return {f"{name}/{f.relative_to(path).as_posix()}": hash_file(f) for f in files}
    return {name: hash_file(path)}


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def metrics_line(told: Mapping[str, Any], before: Record | None, own: Record | None) -> str:
    """A line of metrics.jsonl: a round.json, and the time that it took to make the round."""
    return json_line(dict(told) | {"seconds": seconds(before, own)})


def json_line(told: Mapping[str, Any]) -> str:
    """An object on a line of its own."""
    return json.dumps(told, allow_nan=False) + "\n"


def seconds(before: Record | None, own: Record | None) -> dict[str, float]:
    """By stage, of the round of ``own``; its samples and pairs are of the one before."""
    parts = [(before, ("samples", "pairs")), (own, ("update", "measure"))]
    return {n: r.seconds[n] for r, names in parts if r for n in names if n in r.seconds}


# ---- sealed files


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object that ends in its own hash, atomically."""
    writing.write_text(path, sealed(value, path.name))


def sealed(value: Mapping[str, Any], name: str) -> str:
    """The text of a JSON object that ends in its own hash, for a file of this name."""
    digest = hashlib.sha256(f"{name}\n{writing.json_text(value)}".encode()).hexdigest()
    return writing.json_text(dict(value) | {SEAL: digest})


def unsealed(path: Path) -> dict[str, Any] | None:
    """What ``write_sealed`` wrote; None where that is not what the file holds, or there is none."""
    try:
        text = path.read_text(encoding="utf-8")
        told = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    told.pop(SEAL, None)
    return told if text == sealed(told, path.name) else None


def sealed_lines(text: str) -> str:
    """A text below a comment with its hash."""
    return COMMENT + hashlib.sha256(text.encode()).hexdigest() + "\n" + text


def unsealed_lines(path: Path) -> str | None:
    """What ``sealed_lines`` made, the comment left out; None where the file is something else."""
    try:
        first, _, text = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, ValueError):
        return None
    return text if first == COMMENT + hashlib.sha256(text.encode()).hexdigest() else None


def sealed_page(text: str) -> str:
    """A page of HTML with its hash in a comment at the end."""
    return f"{text}<!-- SHA-256 {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def whole_page(path: Path) -> bool:
    """Whether a page is one that ``sealed_page`` made."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return text == sealed_page(text[: text.rfind("<!-- SHA-256")])
