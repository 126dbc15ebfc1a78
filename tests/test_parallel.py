"""Several processes make the update of one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from srlm import train
from srlm.parallel import together
from tests import spread, tiny

CLOSE = 1e-3
"""As in test_train: the precision of float32, 6e-8, times a gradient's terms and the condition of
Adam's step; of how far the update moved."""
EXACT = 1e-12
"""The precision of float64, 1e-16, times a gradient's terms, some hundred a parameter and layer."""


@pytest.fixture
def group() -> Iterator[None]:
    """This process as the only one of a group."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def check(found: dict[str, Any], alone: dict[str, Any]) -> None:
    """The same updates and gradients, up to the order in which numbers are added."""
    for name in found.keys() & spread.CASES.keys():
        one, other, case = alone[name], found[name], spread.CASES[name]
        np.testing.assert_allclose(other["losses"], one["losses"], rtol=CLOSE, err_msg=name)
        far = np.linalg.norm(other["moved"] - one["moved"])
        assert far < CLOSE * np.linalg.norm(one["moved"]), name
        if case.family == "llama":  # no entries whose gradient is rounding alone
            start = spread.flat(tiny.policy("llama"))
            assert (other["flat"] - one["flat"]).norm() < CLOSE * (one["flat"] - start).norm()
    for positions in (None, 30):
        one, other = alone[f"gradient {positions}"], found[f"gradient {positions}"]
        assert one.dtype == torch.float64
        torch.testing.assert_close(other, one, rtol=0, atol=EXACT * float(one.norm()))


def test_one_process_with_shards(group: None) -> None:
    names = ("weighted", "large groups")
    check(spread.everything(together, names), spread.everything(train.alone, names))


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_an_update_does_not_depend_on_the_processes(tmp_path: Path, size: int) -> None:
    alone = spread.everything(train.alone)
    start = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size))
    subprocess.run(
        [sys.executable, *start, "-m", "tests.spread", str(tmp_path / "found")],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    ranks = [torch.load(tmp_path / f"found.{r}", weights_only=False) for r in range(size)]
    for found in ranks:
        check(found, alone)
        for name in spread.CASES:  # the policy is whole, and the same everywhere
            assert torch.equal(found[name]["flat"], ranks[0][name]["flat"])
