"""Writing atomically: under another name, flushed to the disk, renamed.

A name without ``.partial`` is complete. Every file that the package makes for a user goes this way.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def commit(path: Path, write: Callable[[Path], None]) -> None:
    """Make a file or a folder; leaves nothing on failure, and the old one where there was one.

    Args:
        path: its place; of a folder that is there, the files of the same names are replaced, one
            after the other.
        write: makes it at the place that it is given.
    """
    partial = half_made(path)
    try:
        write(partial)
        files = [f for f in partial.rglob("*") if f.is_file()] if partial.is_dir() else [partial]
        for file in files:
            with file.open("rb") as f:
                os.fsync(f.fileno())
        if partial.is_dir() and path.is_dir():
            for file in files:
                place = path / file.relative_to(partial)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, place)
            shutil.rmtree(partial)
        else:
            os.replace(partial, path)
    except BaseException:
        _remove(partial)
        raise


def half_made(path: Path) -> Path:
    """Where a file or folder is until it is whole; of this process alone."""
    return path.with_name(f"{path.name}.{_host()}.{os.getpid()}.partial")


def _host() -> str:
    return platform.node().replace(".", "-") or "host"


def _remove(partial: Path) -> None:
    if partial.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
    else:
        partial.unlink(missing_ok=True)


def clear_abandoned(path: Path) -> None:
    """Remove what processes of this machine that are gone left half made of a file or folder.

    Lists the folder: for files of which a folder holds few, as pages.
    """
    start, end = f"{path.name}.{_host()}.", ".partial"
    for other in path.parent.iterdir():
        name = other.name
        if name.startswith(start) and name.endswith(end):
            number = name[len(start) : -len(end)]
            if number.isdecimal() and not alive(int(number)):
                _remove(other)


def alive(process: int) -> bool:
    """Whether a process of this number runs; taken to where it cannot be asked."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """A text file in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """A file of these bytes."""

    def write(partial: Path) -> None:
        partial.write_bytes(data)

    commit(path, write)


def write_json(path: Path, value: Any) -> None:
    """Stable JSON: the same value gives the same bytes. Not-a-number is refused."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """The text of a JSON file."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """What ``write_json`` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))
