"""How fast ``bulk`` is: ``OPENBLAS_NUM_THREADS=1 python -m srlm.lab.speed`` prints JSON.

Replicate-rounds a second of processor time on one thread, P = 64 prompts, n = 256 pairs, ten
rounds, measured beside a 2,048 x 2,048 float64 product on the same thread; each the best of some
repetitions, interleaved, for other work on the machine only ever slows. Operations are counted
as on paper, 2 X M D (logits) + 2 n D^2 (normal equations) + D^3 / 3 (Cholesky), whatever the
code saves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import torch

from srlm.lab import instances
from srlm.lab.bulk import bulk
from srlm.lab.twin import twin

PROMPTS, PAIRS, ROUNDS, BETA = 64, 256, 10, 2.0
SIZES = ((16, 16, 512), (64, 64, 128), (256, 1024, 64))
"""D, M and replicates."""


def speed(repeat: int = 5) -> list[dict[str, Any]]:
    """One row a size: rates, share of the matrix-product rate, ratio to the slow twin."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_row(d, m, replicates, repeat) for d, m, replicates in SIZES]
    finally:
        torch.set_num_threads(threads)


def _row(dimension: int, responses: int, replicates: int, repeat: int) -> dict[str, Any]:
    start = instances.linear(
        instances.exponential(dimension, 0.01),
        responses / 3,
        prompts=PROMPTS,
        responses=responses,
        seed=0,
    )
    matrix = torch.randn(2048, 2048, dtype=torch.float64)
    fast = product = float("inf")
    for _ in range(repeat):
        product = min(product, _seconds(lambda: matrix @ matrix))
        fast = min(
            fast,
            _seconds(
                lambda: bulk(
                    start, rounds=ROUNDS, pairs=PAIRS, beta=BETA, replicates=replicates, seed=0
                )
            ),
        )
    slow = min(
        _seconds(lambda: twin(start, rounds=2, pairs=PAIRS, beta=BETA, replicate=0, seed=0))
        for _ in range(2)
    )
    work = 2 * PROMPTS * responses * dimension + 2 * PAIRS * dimension**2 + dimension**3 / 3
    rate, twins = replicates * ROUNDS / fast, 2 / slow
    return {
        "D": dimension,
        "M": responses,
        "replicate-rounds a CPU-second": round(rate),
        "the twin's": round(twins, 1),
        "ratio": round(rate / twins),
        "GFLOP/s": round(rate * work / 1e9, 2),
        "matrix product, GFLOP/s": round(2 * 2048**3 / product / 1e9, 1),
        "share": round(rate * work / (2 * 2048**3 / product), 3),
    }


def _seconds(act: Callable[[], object]) -> float:
    began = time.process_time()
    act()
    return time.process_time() - began


if __name__ == "__main__":
    print(json.dumps(speed(), indent=1))
