"""Uniform numbers by counter: number j of a stream depends on its key and j alone.

SplitMix64 (Steele, Lea and Flood 2014): mix(key + j * golden ratio), a 64-bit finaliser that
passes the usual batteries of tests. A stream is a (seed, replicate, round), so a replicate's
numbers do not know how many replicates run beside it, nor in which batch. Two of the 1e5 streams
of a large experiment overlap with probability about 1e-6.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from srlm.types import Floats, Ints

Words = npt.NDArray[np.uint64]
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def mix(z: Words) -> Words:
    """The finaliser of SplitMix64, in place on ``z``, which is also returned."""
    z ^= z >> np.uint64(30)
    z *= FIRST
    z ^= z >> np.uint64(27)
    z *= SECOND
    z ^= z >> np.uint64(31)
    return z


def keys(seed: int, replicate_R: Ints, t: int) -> Words:
    """The key of each replicate's stream of round t, [R]. ``seed`` in [0, 2^63)."""
    key_R = np.full(len(replicate_R), seed, dtype=np.uint64)
    for part in (replicate_R.astype(np.uint64), np.full(len(replicate_R), t, dtype=np.uint64)):
        key_R = mix(key_R + GOLDEN) ^ part
    return mix(key_R * GOLDEN + GOLDEN)


def uniforms(seed: int, replicate_R: Ints, t: int, count: int) -> Floats:
    """Numbers in [0, 1), multiples of 2^-53, [R, count]. About 1 ns each.

    >>> both = uniforms(0, np.array([3, 7]), 1, 5)
    >>> bool((both[1, :2] == uniforms(0, np.array([7]), 1, 2)[0]).all())
    True
    """
    step_C = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
    z_RC = mix(keys(seed, replicate_R, t)[:, None] + step_C)
    z_RC >>= np.uint64(11)
    return np.asarray(z_RC * 2.0**-53, dtype=np.float64)
