"""Ten rounds on digits, shared by the claims that look at them from different sides."""

from __future__ import annotations

from functools import cache

import numpy as np

from srlm.lab.classes import ClassPath, class_rounds
from srlm.lab.digits import digits
from srlm.lab.setting import Setting

ROUNDS, BETA = 10, 2.0
SIZES = (64, 256, 1024, 4096)


@cache
def digit_path(start: str, pairs: int, seed: int, replicate: int) -> ClassPath:
    """One replicate of ten rounds."""
    policy, train, held_out = digits(start)
    return class_rounds(
        policy,
        train,
        held_out,
        rounds=ROUNDS,
        pairs=pairs,
        beta=BETA,
        seed=seed,
        replicate=replicate,
    )


def replicates(setting: Setting, pairs: int) -> int:
    """More where they are cheap and scattered."""
    full = {64: 20, 256: 20, 1024: 6, 4096: 3}[pairs]
    return setting.pick(full, 6 if pairs <= 256 else 1)


def paths(setting: Setting, start: str, pairs: int) -> list[ClassPath]:
    """All replicates."""
    return [digit_path(start, pairs, setting.seed, r) for r in range(replicates(setting, pairs))]


def over(paths: list[ClassPath], name: str) -> np.ndarray:
    """A statistic by replicate and round, [R, T+1]."""
    return np.stack([getattr(p, name) for p in paths])
