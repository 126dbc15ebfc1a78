"""Many prompts' uniform numbers are those of each alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srlm.policies.base import uniforms
from srlm.policies.streams import uniforms_of

ids = st.lists(st.integers(0, 2**64 - 1).map(lambda i: f"{i:016x}"), min_size=1, max_size=5)


@given(seed=st.integers(0, 2**70), ids=ids, draws=st.integers(1, 3), tokens=st.integers(1, 9))
def test_the_same_as_one_at_a_time(seed: int, ids: list[str], draws: int, tokens: int) -> None:
    together = uniforms_of(seed, ids, draws, tokens)
    assert together.shape == (len(ids) * draws, tokens)
    apart = np.concatenate([uniforms(seed, x, draws, tokens) for x in ids])
    assert np.array_equal(together, apart)


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 2**64 - 1, 2**64])
@pytest.mark.parametrize("number", [0, 1, 2**32 - 1, 2**32, 2**64 - 1, 2**96])
def test_words_at_their_edges(seed: int, number: int) -> None:
    x = f"{number:x}"
    assert np.array_equal(uniforms_of(seed, [x, "5"], 2, 3)[:2], uniforms(seed, x, 2, 3))
    assert np.array_equal(uniforms_of(seed, [x, "5"], 2, 3)[2:], uniforms(seed, "5", 2, 3))


def test_no_prompts() -> None:
    assert uniforms_of(0, [], 2, 3).shape == (0, 3)
