"""Two ways of doing one thing, measured side by side: ratios with their spread.

Machines are noisy, so a time alone says little. Every case is run in turn, again and again, and
the ratio of two cases is taken within a turn, where both met the same machine. A figure is the
median of those ratios with the least and the greatest; of n turns, the range holds the true median
with probability 1 - 2^(1-n) (94% at n = 5).

``in_child`` runs a case in a process of its own, for its peak memory and its start-up.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import environment

RESULTS = Path(__file__).parent / "results"
REPEATS = 5


def interleaved(
    cases: dict[str, Callable[[], Any]],
    *,
    repeats: int = REPEATS,
    warm: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each case, [repeats], the cases taken in turn after ``warm`` unmeasured turns.

    Every second turn goes backwards, so that no case always follows the same other.

    Args:
        clock: ``time.process_time`` for processor seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(warm + repeats):
        order = list(cases.items())
        for name, case in order if turn % 2 == 0 else reversed(order):
            began = clock()
            case()
            took = clock() - began
            if turn >= warm:
                seconds[name].append(took)
    return seconds


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> dict[str, Any]:
    """Median of the ratios turn by turn, their range, and how many.

    >>> ratio([4.0, 6.0, 9.0], [2.0, 2.0, 3.0])
    {'value': 3.0, 'low': 2.0, 'high': 3.0, 'n': 3}
    """
    found = [a / b for a, b in zip(numerator, denominator, strict=True)]
    return {
        "value": statistics.median(found),
        "low": min(found),
        "high": max(found),
        "n": len(found),
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """The median of some values, their range, and how many."""
    return ratio(values, [1.0] * len(values))


def in_child(module: str, *arguments: str) -> dict[str, Any]:
    """The JSON object that a module prints as its last line, with its wall and peak memory.

    ``seconds`` is that of the whole process; ``peak_mb`` its greatest resident set, in MB.
    """
    watched = (
        "import json, resource, subprocess, sys;"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True);"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss;"
        "print(done.stdout); print(json.dumps([done.returncode, used / 1024]))"
    )
    command = [sys.executable, "-c", watched, sys.executable, "-m", module, *arguments]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    *printed, last = done.stdout.strip().splitlines()
    code, peak = json.loads(last)
    if code:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{done.stderr}")
    said = [line for line in printed if line.startswith("{")]
    return (json.loads(said[-1]) if said else {}) | {"seconds": seconds, "peak_mb": peak}


def write(name: str, result: dict[str, Any]) -> Path:
    """``results/NAME.json``, with the machine and the versions."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"environment": environment()} | result, indent=1) + "\n")
    return path
