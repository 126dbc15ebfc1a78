"""Instances have the condition number, spectrum and norm that they promise."""

from __future__ import annotations

import numpy as np
import pytest

from srlm.errors import UserError
from srlm.lab import instances


@pytest.mark.parametrize("kappa0", [1.01, 3.0, 9.9])
@pytest.mark.parametrize(
    "spectrum_D",
    [
        instances.exponential(12, 0.3),
        instances.polynomial(12, 2.0),
        instances.spiked(12, 3, 0.1),
    ],
)
def test_prescribed(kappa0: float, spectrum_D: np.ndarray) -> None:
    start = instances.linear(spectrum_D, kappa0, prompts=16, responses=10, seed=3)
    assert instances.kappa(start) == pytest.approx(kappa0, abs=1e-9)
    flat = start.phi_XMD.reshape(-1, 12)
    assert np.linalg.norm(flat, axis=1).max() == pytest.approx(1.0)
    found = np.linalg.svd(flat, compute_uv=False) ** 2
    assert found / found[0] == pytest.approx(spectrum_D, rel=1e-9)


@pytest.mark.parametrize("kappa0", [0.5, 1.0, 10.0, float("nan")])
def test_impossible_kappa_is_named(kappa0: float) -> None:
    with pytest.raises(UserError, match="kappa0"):
        instances.linear(instances.exponential(4, 1.0), kappa0, prompts=8, responses=10, seed=0)


def test_other_bad_parameters_are_named() -> None:
    with pytest.raises(UserError, match="rate"):
        instances.exponential(4, 0.0)
    with pytest.raises(UserError, match="rank"):
        instances.spiked(4, 4, 0.1)
    with pytest.raises(UserError, match="span"):
        instances.linear(instances.exponential(50, 1.0), 2.0, prompts=4, responses=4, seed=0)
