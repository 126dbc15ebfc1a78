"""Rows of samples that say the same are worked on once."""

from __future__ import annotations

import numpy as np

from srlm.types import Ints, Samples


def distinct(samples: Samples) -> tuple[Ints, Ints]:
    """First rows of the distinct (prompt, response), [S], and each row's place among them, [R].

    ``value_S[place_R]`` spreads what was found on the distinct rows over all of them.
    """
    first: dict[tuple[int, tuple[int, ...]], int] = {}
    row: list[int] = []
    place_R = np.empty(len(samples), dtype=np.int64)
    keys = zip(samples.prompt_R.tolist(), samples.tokens_R, strict=True)
    for r, key in enumerate(keys):
        if key not in first:
            first[key] = len(row)
            row.append(r)
        place_R[r] = first[key]
    return np.array(row, dtype=np.int64), place_R
