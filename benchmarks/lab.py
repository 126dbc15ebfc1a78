"""The lab in bulk: replicate-rounds a second beside the plain loop, and the share of the machine.

    OPENBLAS_NUM_THREADS=1 python benchmarks/lab.py [--repeats 5] [--quick]

P = 64 prompts, n = 256 pairs, ten rounds, on one thread; in every turn `srlm.lab.bulk`, its slow
twin (two rounds of one replicate) and a 2,048 x 2,048 float64 product. Processor seconds.
Operations are counted as on paper, 2 X M D (logits) + 2 n D^2 (normal equations) + D^3 / 3
(Cholesky) a replicate-round, whatever the code saves. At D = 16 the matrices are too small to
fill the processor: drawing pairs and scattering them is most of the work there.
Results: benchmarks/results/lab.json.
"""

from __future__ import annotations

import argparse
from time import process_time
from typing import Any

import torch
from side_by_side import interleaved, ratio, spread, write

from srlm.lab import instances
from srlm.lab.bulk import bulk
from srlm.lab.twin import twin

PROMPTS, PAIRS, ROUNDS, BETA = 64, 256, 10, 2.0
SIZES = ((16, 16, 512), (64, 64, 128), (256, 1024, 64))
"""D, M and replicates."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="the two small sizes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for dimension, responses, replicates in SIZES[: 2 if options.quick else None]:
        rows.append(measured(dimension, responses, replicates, options.repeats))
        row = rows[-1]
        print(
            f"D = {dimension:3}, M = {responses:4}: {row['rate']['value']:,.0f} replicate-rounds "
            f"a second, {row['over_twin']['value']:.0f} times the plain loop, "
            f"{row['share']['value']:.0%} of the rate of products",
            flush=True,
        )
    write("lab_quick" if options.quick else "lab", {"rows": rows})


def measured(dimension: int, responses: int, replicates: int, repeats: int) -> dict[str, Any]:
    """Figures of one size."""
    start = instances.linear(
        instances.exponential(dimension, 0.01),
        responses / 3,
        prompts=PROMPTS,
        responses=responses,
        seed=0,
    )
    matrix = torch.randn(2048, 2048, dtype=torch.float64)
    shared: dict[str, Any] = {"pairs": PAIRS, "beta": BETA, "seed": 0}
    seconds = interleaved(
        {
            "bulk": lambda: bulk(start, rounds=ROUNDS, replicates=replicates, **shared),
            "twin": lambda: twin(start, rounds=2, replicate=0, **shared),
            "product": lambda: matrix @ matrix,
        },
        repeats=repeats,
        clock=process_time,
    )
    work = 2 * PROMPTS * responses * dimension + 2 * PAIRS * dimension**2 + dimension**3 / 3
    rate = [replicates * ROUNDS / s for s in seconds["bulk"]]
    return {
        "D": dimension,
        "M": responses,
        "rate": spread(rate),
        "over_twin": ratio(rate, [2 / s for s in seconds["twin"]]),
        "gflops": spread([r * work / 1e9 for r in rate]),
        "share": ratio([r * work for r in rate], [2 * 2048**3 / s for s in seconds["product"]]),
    }


if __name__ == "__main__":
    main()
