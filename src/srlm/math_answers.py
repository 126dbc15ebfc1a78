"""Mathematics in answers, by math-verify, within a time limit.

math-verify's own limits are signals: they work on the main thread alone and cannot interrupt a
computation in C. So it runs in a process of its own (``math_worker``), which is ended and started
anew where a question takes longer than ``LIMIT`` seconds; such an answer is unlike any other.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import queue
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

from srlm.errors import UserError

LIMIT = 2.0
"""Seconds for one question."""
START = 60.0
"""Seconds for the process to start."""
LONGEST = 400
"""Characters of an answer; a longer one is compared as text."""
DEEPEST = 50
"""Brackets in brackets; a deeper answer is compared as text."""
TAIL = 4000
"""Characters at a response's end that are searched for an answer."""


def read(text: str) -> str | None:
    """What math-verify takes for the answer in a text without a box."""
    tail = text[-TAIL:]
    found = _asked("read", tail, "") if _fits(tail, TAIL) else None
    return None if found is None else " ".join(str(found).split()) or None


def key(answer: str) -> str | None:
    """One text for equal expressions, None where the answer is no mathematics."""
    found = _asked("key", answer, "") if _fits(answer, LONGEST) else None
    return None if found is None else str(found)


def verified(gold: str, answer: str) -> bool:
    """Whether math-verify takes the answer for the reference ``gold``."""
    if not _fits(gold, LONGEST) or not _fits(answer, LONGEST):
        return False
    return bool(_asked("verify", gold, answer))


def _fits(text: str, longest: int) -> bool:
    depth = deepest = 0
    for character in text[: longest + 1]:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return len(text) <= longest and deepest <= DEEPEST


@lru_cache(maxsize=1 << 16)
def _asked(kind: str, one: str, other: str) -> Any:
    question = {"gold": one, "answer": other} if kind == "verify" else {kind: one}
    with _LOCK:
        return _WORKER.ask(json.dumps(question))


class _Worker:
    """The process, started at the first question and again after one that it did not answer."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()

    def ask(self, question: str) -> Any:
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(question + "\n")
            process.stdin.flush()
            line = self._lines.get(timeout=LIMIT)
        except (queue.Empty, OSError):
            line = ""
        if not line:
            self.close()
            return None
        return json.loads(line)

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            _ended(self._process)
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("math_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_read_lines, args=(process, lines), daemon=True).start()
        try:
            ready = lines.get(timeout=START)
        except queue.Empty:
            ready = ""
        if not ready:
            _ended(process)
            raise UserError("math-verify cannot be started", "pip install math-verify")
        self._process, self._lines = process, lines
        return process


def _ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()


def _read_lines(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines.put(line)
    lines.put("")


_WORKER = _Worker()
_LOCK = threading.Lock()
atexit.register(_WORKER.close)
