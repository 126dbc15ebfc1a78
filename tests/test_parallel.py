"""Several processes make the update of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml

from srlm import train
from srlm.parallel import together
from srlm.policies.hf import CausalLM
from srlm.policies.load import load
from srlm.run_folder.check import check as check_folder
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


def started(out: Path, *more: str) -> subprocess.Popen[str]:
    """``srlm run``, begun."""
    command = (sys.executable, "-m", "srlm", "run", "--config", str(out.parent / "run.yaml"))
    return subprocess.Popen(
        [*command, "--out", str(out), *more],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def second_of(pid: int) -> int:
    """The child of a process that torchrun made rank 1."""
    said = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = (map(int, line.split()) for line in said.stdout.splitlines())
    for child in [a for a, b in pairs if b == pid]:
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if b"RANK=1" in environment:
            return child
    raise AssertionError("no rank 1")


def opened(folder: Path) -> CausalLM:
    """The policy in a folder."""
    policy = load(folder, device="cpu")
    assert isinstance(policy, CausalLM)
    return policy


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_a_run_in_two_processes_that_loses_one(tmp_path: Path) -> None:
    """The run ends by name, the same command goes on, and its round is that of one process."""
    changes = {"update.kind": "dpo", "update.lora": 4, "update.lr": 1e-2, "samples.per_prompt": 8}
    file = tiny.write_prompts(tmp_path / "prompts.jsonl", tiny.texts(30))
    config = tiny.config(tiny.saved(tmp_path / "model"), file, **changes)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    run = started(tmp_path / "two", "--processes", "2")
    while not (tmp_path / "two/rounds/001/policy").exists():
        assert run.poll() is None
        time.sleep(0.05)
    os.kill(second_of(run.pid), signal.SIGKILL)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 2
    assert "process 1 of 2: killed by signal 9" in said
    again = started(tmp_path / "two", "--processes", "2")
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    one = started(tmp_path / "one")
    _, said = one.communicate(timeout=300)
    assert one.returncode == 0, said
    assert not check_folder(tmp_path / "two").damage
    for name in ("samples.parquet", "pairs.parquet", "held_out.parquet"):
        first, second = (tmp_path / side / "rounds/000" / name for side in ("one", "two"))
        assert first.read_bytes() == second.read_bytes(), name
    start = spread.flat(opened(tmp_path / "model"))
    one_end, two_end = (
        spread.flat(opened(tmp_path / side / "rounds/001/policy")) for side in ("one", "two")
    )
    assert (two_end - one_end).norm() < CLOSE * (one_end - start).norm()
