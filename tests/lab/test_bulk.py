"""Bulk replicates against the production loop, and the least squares underneath."""

from __future__ import annotations

import numpy as np
import pytest

from srlm.errors import UserError
from srlm.lab import instances
from srlm.lab.bulk import Linear, bulk
from srlm.lab.solve import min_norm
from srlm.lab.tabular import uniforms
from tests.naive.counted import twin

START = instances.linear(instances.exponential(6, 0.1), 2.5, prompts=24, responses=5, seed=1)


def wide(dimension: int) -> Linear:
    return instances.linear(
        instances.exponential(dimension, 0.1), 2.5, prompts=24, responses=8, seed=1
    )


@pytest.mark.parametrize(
    ("dimension", "pairs", "noise"),
    [
        (6, 3, 0.0),  # fewer pairs than dimensions
        (6, 40, 0.0),  # batched normal equations
        (6, 40, 0.3),  # equations that cannot hold
        (50, 30, 0.0),  # wide
        (50, 200, 0.0),  # tall, near-singular
        (50, 200, 0.5),
    ],
)
def test_bulk_is_the_production_loop(dimension: int, pairs: int, noise: float) -> None:
    start = wide(dimension)
    args = {"rounds": 3, "pairs": pairs, "beta": 1.5, "seed": 5, "noise": noise}
    fast = bulk(start, replicates=3, first=2, **args)  # type: ignore[arg-type]
    slow, theta_D = twin(start, replicate=4, **args)  # type: ignore[arg-type]
    assert np.abs(fast.theta_RD[2] - theta_D).max() < 1e-8 * np.abs(theta_D).max()
    for name, path_RT in (
        ("kappa", fast.kappa_RT),
        ("failure_fraction", fast.failure_RT),
        ("least_confidence", fast.least_RT),
    ):
        assert np.abs(path_RT[2] - slow[name]).max() < 1e-8, name


def test_the_ball_holds_theta_in_both() -> None:
    radius = 1.2 * float(np.linalg.norm(START.theta_D))
    start = Linear(START.phi_XMD, START.theta_D, radius)
    fast = bulk(start, rounds=3, pairs=60, beta=1.0, replicates=2, seed=0)
    _, theta_D = twin(start, rounds=3, pairs=60, beta=1.0, replicate=1, seed=0)
    assert np.linalg.norm(fast.theta_RD, axis=1) == pytest.approx(radius)
    assert np.abs(fast.theta_RD[1] - theta_D).max() < 1e-8


def test_results_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    args = {"rounds": 3, "pairs": 12, "beta": 1.0, "seed": 3}
    whole = bulk(START, replicates=9, **args)  # type: ignore[arg-type]
    later = bulk(START, replicates=4, first=5, **args)  # type: ignore[arg-type]
    assert np.abs(later.kappa_RT - whole.kappa_RT[5:]).max() < 1e-8
    monkeypatch.setattr("srlm.lab.bulk.BATCH", 4)
    parts = bulk(START, replicates=9, **args)  # type: ignore[arg-type]
    assert np.abs(parts.theta_RD - whole.theta_RD).max() < 1e-8


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"pairs": 0}, "n "),
        ({"beta": 0.0}, "beta"),
        ({"rounds": -1}, "rounds"),
        ({"noise": -1.0}, "noise"),
    ],
)
def test_bad_parameters_are_named(wrong: dict[str, float], name: str) -> None:
    args: dict[str, float] = {"rounds": 1, "pairs": 4, "beta": 1.0, "replicates": 1, "seed": 0}
    with pytest.raises(UserError, match=name):
        bulk(START, **(args | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "D"), [(5, 8), (8, 8), (30, 8), (30, 50), (120, 50)])
@pytest.mark.parametrize("kind", ["full rank", "repeated rows", "few directions", "scaled", "zero"])
@pytest.mark.parametrize("consistent", [True, False])
def test_min_norm_is_lstsq(n: int, D: int, kind: str, consistent: bool) -> None:
    rng = np.random.default_rng([n, D])
    A_nD = rng.standard_normal((n, D))
    if kind == "repeated rows":
        A_nD[n // 2 :] = A_nD[: n - n // 2]
    if kind == "few directions":
        A_nD = A_nD[:, :3] @ rng.standard_normal((3, D))
    if kind == "scaled":  # condition about 1e7, which normal equations would square
        A_nD *= 10.0 ** -(np.arange(D) % 8)
    if kind == "zero":
        A_nD[:] = 0.0
    b_n = A_nD @ rng.standard_normal(D)
    if not consistent:
        b_n = b_n + rng.standard_normal(n)
    want_D = np.linalg.lstsq(A_nD, b_n, rcond=1e-12)[0]
    assert np.abs(min_norm(A_nD, b_n) - want_D).max() < 1e-8 * max(1.0, np.abs(want_D).max())


def test_numbers_of_a_replicate_do_not_depend_on_those_beside_it() -> None:
    u_RC = uniforms(7, np.arange(64), 3, 128)
    assert (uniforms(7, np.array([9]), 3, 50)[0] == u_RC[9, :50]).all()
    assert np.abs(np.corrcoef(u_RC) - np.eye(64)).max() < 0.5
    for other in (uniforms(7, np.arange(64), 4, 128), uniforms(8, np.arange(64), 3, 128)):
        assert np.abs(other - u_RC).mean() > 0.3
