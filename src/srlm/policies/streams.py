"""The uniform numbers of many prompts at once: ``srlm.policies.base.uniforms``, row for row.

numpy makes a generator in about 15 microseconds a prompt, as long as a small model takes to draw
from it. Here the keys of all prompts are made together and one generator is set to each in turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from srlm.policies.base import uniforms
from srlm.types import Floats

POOL = 4
"""Words that numpy's ``SeedSequence`` mixes; absent ones count as zeros."""

Words = NDArray[np.uint32]


def uniforms_of(seed: int, prompt_ids: Sequence[str], draws: int, max_tokens: int) -> Floats:
    """``uniforms`` of each prompt, one under the other, [P * draws, max_tokens].

    >>> ids = ["ab", "9106aa00033ab689"]
    >>> both = uniforms_of(1, ids, 2, 3)
    >>> bool((both == np.concatenate([uniforms(1, x, 2, 3) for x in ids])).all())
    True
    """
    word_WP = _words(seed, [int(x, 16) for x in prompt_ids])
    if len(word_WP) > POOL:
        return np.concatenate([uniforms(seed, x, draws, max_tokens) for x in prompt_ids])
    bits = np.random.Philox(key=0)
    numbers = np.random.Generator(bits)
    state = bits.state
    out_PKT = np.empty((len(prompt_ids), draws, max_tokens))
    for key, out_KT in zip(_keys(word_WP), out_PKT, strict=True):
        state["state"]["key"] = key
        bits.state = state
        numbers.random(out=out_KT)
    return out_PKT.reshape(-1, max_tokens)


def _words(seed: int, ids: list[int]) -> Words:
    """The seed and then an id in words of 32 bits, least first, [W, P]."""
    first = range(0, max(1, seed.bit_length()), 32)
    then = range(0, max(1, *(x.bit_length() for x in ids)) if ids else 1, 32)
    rows = [[seed >> i & 0xFFFFFFFF] * len(ids) for i in first]
    rows += [[x >> i & 0xFFFFFFFF for x in ids] for i in then]
    return np.array(rows, dtype=np.uint32)


def _keys(word_WP: Words) -> NDArray[np.uint64]:
    """``SeedSequence(words).generate_state(2, uint64)`` of each column, [P, 2].

    O'Neill's seed_seq_fe with numpy's constants, arithmetic modulo 2^32.
    """
    factor, by = 0x43B0D7E5, 0x931E8875

    def hashed(word_P: Words) -> Words:
        nonlocal factor
        word_P = word_P ^ np.uint32(factor)
        factor = factor * by & 0xFFFFFFFF
        word_P = word_P * np.uint32(factor)
        return word_P ^ (word_P >> np.uint32(16))

    absent_P = np.zeros(word_WP.shape[1], dtype=np.uint32)
    pool = [hashed(word_WP[i] if i < len(word_WP) else absent_P) for i in range(POOL)]
    for i in range(POOL):
        for j in range(POOL):
            if i != j:
                mixed_P = pool[j] * np.uint32(0xCA01F9DD) - hashed(pool[i]) * np.uint32(0x4973F715)
                pool[j] = mixed_P ^ (mixed_P >> np.uint32(16))
    factor, by = 0x8B51F9DD, 0x58F38DED
    half = [hashed(word_P).astype(np.uint64) for word_P in pool]
    return np.stack([half[i] | half[i + 1] << np.uint64(32) for i in (0, 2)], axis=1)
