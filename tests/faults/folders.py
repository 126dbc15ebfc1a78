"""Damage to the files of a run folder, and what the commands make of it.

Every kind of file x damage x round x command. A command may end as if nothing had been done
(``same``: it does not read the file, or the other copy of it), make the file again to the same
bytes (``rebuilt``), or say by name what is wrong (``named``: and show the rest, or refuse).
``silent`` is another result without a word, ``traceback`` whatever is no error of srlm's own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from srlm import runner
from srlm.config import RunConfig
from srlm.errors import UserError
from srlm.report.page import write_page
from srlm.report.summary import summarise
from srlm.run_folder import read_run
from srlm.run_folder.check import check

Outcome = Literal["same", "rebuilt", "named", "silent", "traceback"]
COMMANDS = ("run", "report", "check")
TOP = ("config.yaml", "manifest.json", "metrics.jsonl", "stop.json", "report.html")
INPUTS = ("inputs/files.json", "inputs/0000-*")


def truncate(file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path, other: Path) -> None:
    file.write_bytes(b"")


def flip(file: Path, other: Path) -> None:
    """One bit, in the middle, of a byte that is no space: in text a digit or a letter changes."""
    data = bytearray(file.read_bytes())
    at = next(i for i in range(len(data) // 2, len(data)) if not chr(data[i]).isspace())
    data[at] ^= 1
    file.write_bytes(bytes(data))


def delete(file: Path, other: Path) -> None:
    file.unlink()


def swap(file: Path, other: Path) -> None:
    """With the same file of another round; beside the rounds with another file."""
    mine, theirs = file.read_bytes(), other.read_bytes()
    file.write_bytes(theirs)
    other.write_bytes(mine)


DAMAGES: tuple[Callable[[Path, Path], None], ...] = (truncate, empty, flip, delete, swap)


@dataclass(frozen=True)
class Fault:
    """A damage to a file."""

    file: str
    other: str
    """What it is swapped with."""
    damage: Callable[[Path, Path], None]
    where: str
    """last, earlier or beside the rounds."""

    @property
    def kind(self) -> str:
        """The file without its round."""
        return self.file.split("/", 2)[2] if self.file.startswith("rounds/") else self.file

    def do(self, folder: Path) -> None:
        """Damage it."""
        self.damage(folder / self.file, folder / self.other)

    def names(self, said: str) -> bool:
        """Whether a text names the file, or its round."""
        files = (self.file, self.other) if self.damage is swap else (self.file,)
        return any((f[:10] if f.startswith("rounds/") else f) in said for f in files)


def faults(folder: Path) -> Iterator[Fault]:
    """All damages to a run's folder: each kind of file in the last round that has it and in one
    before, and what lies beside the rounds."""
    names = sorted(
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and p.name != ".lock"
    )
    kinds: dict[str, list[str]] = {}
    for name in names:
        if name.startswith("rounds/"):
            kinds.setdefault(name.split("/", 2)[2], []).append(name)
    beside = [name for name in names if not name.startswith("rounds/")]
    for damage in DAMAGES:
        for i, name in enumerate(beside):
            yield Fault(name, beside[i - 1], damage, "beside")
        for found in kinds.values():
            if len(found) == 1:  # where the base is
                yield Fault(found[0], beside[0], damage, "earlier")
                continue
            yield Fault(found[-1], found[-2], damage, "last")
            yield Fault(found[-2], found[-1 if len(found) < 3 else -3], damage, "earlier")


def outcome(fault: Fault, whole: Path, config: RunConfig, command: str, out: Path) -> Outcome:
    """What a command makes of a fault, in a copy of a finished run's folder."""
    shutil.copytree(whole, out)
    fault.do(out)
    alike = contents(out, everything=True) == contents(whole, everything=True)
    if alike or (fault.damage is delete and fault.file == "report.html"):
        command = "report" if command == "check" else command  # nothing is wrong with the folder
    act = {"run": _run, "report": _report, "check": _check}[command]
    try:
        return act(fault, whole, config, out)
    except UserError as error:
        return "named" if fault.names(str(error)) else "silent"
    except Exception:
        return "traceback"
    finally:
        shutil.rmtree(out)


def _run(fault: Fault, whole: Path, config: RunConfig, out: Path) -> Outcome:
    damaged = contents(out)
    runner.run(config, out)
    good, now = contents(whole), contents(out)
    if now == good:
        return "same" if damaged == good else "rebuilt"
    both = {fault.file, fault.other} if fault.damage is swap else {fault.file}
    differ = {n for n in good.keys() | now.keys() if good.get(n) != now.get(n)}
    unread = all("/policy/" in n or n.endswith("samples.parquet") for n in differ)
    return "same" if differ <= both and unread else "silent"


def _report(fault: Fault, whole: Path, config: RunConfig, out: Path) -> Outcome:
    summary = summarise(out)
    write_page(summary)
    if any(fault.names(name) for name in read_run(out).damaged):
        return "named"
    same = repr(summary).replace(str(out), "") == repr(summarise(whole)).replace(str(whole), "")
    return "same" if same else "silent"


def _check(fault: Fault, whole: Path, config: RunConfig, out: Path) -> Outcome:
    found = check(out)
    return "named" if any(fault.names(d.name) for d in found.damage) else "silent"


def contents(folder: Path, *, everything: bool = False) -> dict[str, Any]:
    """What must be the same, by path: bytes, and parsed where a time stands in it."""
    out: dict[str, Any] = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_dir() or file.name in (".lock", "" if everything else "report.html"):
            continue
        out[name] = data = file.read_bytes()
        try:
            if name.endswith("files.json"):
                out[name] = json.loads(data) | {"seconds": None, "sha256": None}
            if name == "metrics.jsonl":
                lines = [json.loads(line) for line in data.decode().splitlines()]
                out[name] = [json.dumps(line | {"seconds": None}) for line in lines]
            if name == "manifest.json":
                out[name] = json.loads(data) | {"created": None, "sha256": None}
        except (ValueError, TypeError):
            pass
    return out
