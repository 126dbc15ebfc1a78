"""The boundary of the command: what the system and libraries raise, as errors that a user can mend.

Inside the package nothing is caught just in case: a full disk, a lost device or a missing package
ends the command wherever it is, and the files that are there are whole (``srlm.writing``). Here, in
one place, each kind gets its words. What is of no kind is a bug of srlm.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import platform
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from srlm.errors import UserError, first_line

AGAIN = "give the same command again: what was finished is kept"
SYSTEM: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("no space left on the disk", f"free some and {AGAIN}"),
    errno.EDQUOT: ("no space left on the disk (the quota)", f"free some and {AGAIN}"),
    errno.EFBIG: ("larger than a file may be here", f"raise the limit (ulimit -f) and {AGAIN}"),
    errno.EROFS: ("the file system can only be read", "give a place that can be written to"),
    errno.EACCES: ("permission denied", "change its permissions, or give another place"),
    errno.EPERM: ("permission denied", "change its permissions, or give another place"),
    errno.ENAMETOOLONG: ("the name is too long", "give a shorter path"),
    errno.ELOOP: ("symbolic links that lead in a circle", "remove the link, or give another path"),
    errno.ENOENT: ("no such file or folder", "see that the path is right and still there"),
    errno.ENOTDIR: ("not a folder", "give another path"),
    errno.EISDIR: ("a folder, not a file", "give another path"),
    errno.EEXIST: ("there already: a file, or a link that leads nowhere", "give another path"),
    errno.EMFILE: ("too many open files", f"raise the limit (ulimit -n) and {AGAIN}"),
    errno.ENFILE: ("too many open files on this machine", f"close some and {AGAIN}"),
    errno.ENOMEM: ("out of memory", f"close other programs and {AGAIN}"),
}
"""What is wrong and the remedy, by the system's number."""
MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
DEVICE = ("CUDA error", "HIP error", "cuBLAS error", "CUBLAS_STATUS", "cuDNN error")
_NUMBER = re.compile(r"(?:os error|errno) (\d+)")
_PARTIAL = re.compile(r"\.[^.]+\.\d+\.partial")


def kinds() -> tuple[type[Exception], ...]:
    """What ``told`` knows words for."""
    from safetensors import SafetensorError

    return (OSError, MemoryError, ImportError, RuntimeError, SafetensorError)


def told(error: Exception) -> UserError | None:
    """An error in a user's words; None: it is of no kind that a user can mend.

    >>> told(OSError(errno.ENOSPC, "No space left on device", "runs/a/pairs.parquet")).problem
    'runs/a/pairs.parquet: no space left on the disk'
    >>> told(RuntimeError("shapes differ")) is None
    True
    """
    text, line = str(error), first_line(error)
    if isinstance(error, MemoryError) or any(x in text for x in MEMORY):
        return UserError(
            f"out of memory: {line}",
            f"lower --max-tokens, --samples or --pass-tokens, or use a smaller model; then {AGAIN}",
        )
    if isinstance(error, ImportError):
        return _package(error, line)
    if isinstance(error, RuntimeError):
        if any(x in text for x in DEVICE):
            return UserError(f"the device failed: {line}", f"{AGAIN}, or use --device cpu")
        if (number := _number(error)) is None:
            return None
        return _system(number, "", line)
    return _system(_number(error), _place(error), line)


def _number(error: Exception) -> int | None:
    """The system's number; libraries give it in words alone."""
    number = getattr(error, "errno", None)
    if number is None and (found := _NUMBER.search(str(error))):
        number = int(found[1])
    if number is None and "No space left on device" in str(error):
        number = errno.ENOSPC
    return number


def _place(error: Exception) -> str:
    """The file that the system was asked for, under its final name."""
    name = getattr(error, "filename", None)
    return "" if name is None else _PARTIAL.sub("", os.fsdecode(name))


def _system(number: int | None, place: str, line: str) -> UserError:
    where = f"{place}: " if place else ""
    if number in SYSTEM:
        problem, remedy = SYSTEM[number]
        return UserError(where + problem, remedy)
    return UserError(
        f"{where}a file cannot be read or written: {line}",
        f"see that the disk and the file are in order, and {AGAIN}",
    )


def _package(error: ImportError, line: str) -> UserError:
    name = (error.name or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and name:
        return UserError(f"the package {name} is not installed", f"pip install {name}")
    return UserError(
        f"a package is missing, or of a version that does not fit: {line}",
        "install srlm again, with the packages that it asks for",
    )


def fail(error: UserError) -> NoReturn:
    """End the command with what is wrong and the remedy."""
    if speaks():
        print(f"Error: {error.problem}\nRemedy: {error.remedy}", file=sys.stderr)
    sys.exit(2)


def speaks() -> bool:
    """Whether this process has the terminal: alone, or the first of torchrun's."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"


class Stopped(BaseException):
    """The number of a signal that ends the command."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the command with a sentence, and what it was writing is cleared."""

    def stop(number: int, _: object) -> NoReturn:
        raise Stopped(number)

    numbers = [x for x in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(x) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except Stopped as stopped:
        word = "Interrupted" if stopped.args[0] == signal.SIGINT else "Terminated"
        if speaks():
            print(f"\n{word}. The same command continues from what it has kept.", file=sys.stderr)
        sys.exit(128 + stopped.args[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


PLAIN = {"κ": "kappa", "β": "beta", "∞": "inf", "→": "->", "–": "-", "≤": "<=", "≥": ">="}
PLAIN |= {"…": "...", "“": '"', "”": '"', "₀": "0", "₁": "1", "²": "^2"}
"""What is printed where the terminal's encoding has no such character; a question mark else."""


def printable() -> None:
    """Print a replacement for what the terminal's encoding does not have, rather than fail."""

    def plain(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        lacking = error.object[error.start : error.end]
        return "".join(PLAIN.get(c, "?") for c in lacking), error.end

    codecs.register_error("srlm-plain", plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="srlm-plain")


def bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The hook for what nothing else caught: one line, and the traceback in a file.

    The file stays on this machine. Where none can be written the traceback is printed.
    """
    if issubclass(kind, KeyboardInterrupt):
        print("\nInterrupted.", file=sys.stderr)
        return
    from srlm import __version__

    lines = traceback.format_exception(kind, error, trace)
    head = [f"srlm {__version__}, Python {platform.python_version()}, {platform.platform()}\n"]
    head += [f"{sys.argv}\n\n"]
    try:
        number, name = tempfile.mkstemp(prefix="srlm-bug-", suffix=".txt")
        os.close(number)
        Path(name).write_text("".join(head + lines), encoding="utf-8", errors="replace")
    except OSError:
        sys.stderr.write("".join(lines))
        name = "the lines above"
    print(
        f"Error: a bug in srlm ({kind.__name__}: {first_line(error)}); what was finished is kept\n"
        f"Remedy: report it, with {name}",
        file=sys.stderr,
    )
