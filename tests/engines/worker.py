"""Stands in for a worker process of vLLM; imports nothing that is slow."""

from __future__ import annotations

import sys
import time
from multiprocessing.connection import Connection
from typing import Any

DIES, STALLS, FAILS, GIVES_ONE, GIVES_NONSENSE = range(9, 14)
"""By the length of the longest prompt; others are answered."""


def stand_in(pipe: Connection, options: dict[str, Any]) -> None:
    """Answers each prompt twice with token 4 and the end, at -1 nats."""
    while True:
        try:
            what, value = pipe.recv()
        except EOFError:
            return
        if what == "load":
            pipe.send((True, None))
            continue
        longest = max(len(ids) for ids, _ in value)
        if longest == DIES:
            sys.exit(3)
        if longest == STALLS:
            time.sleep(60)
        if longest == FAILS:
            pipe.send((False, "ValueError: too long"))
            continue
        token = 99 if longest == GIVES_NONSENSE else 4
        row = ((token, 1), -1.0, "stop")
        pipe.send((True, [[row] * (1 if longest == GIVES_ONE else 2) for _ in value]))
