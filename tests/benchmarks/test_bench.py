"""`make bench`: every script in turn, the page at the end, failures named."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.page import SECTIONS

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
echo "$@ threads=$OMP_NUM_THREADS" >> "$(dirname "$0")/calls"
case "$2" in *".$FAILING") exit 3 ;; esac
"""


def bench(venv: Path, failing: str = "none") -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """What make said and which scripts it ran, with an interpreter that only notes them down."""
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    for made in ("ready", "benched"):  # as after an installation
        (venv / made).touch()
        os.utime(venv / made, (4e9, 4e9))
    done = subprocess.run(
        ["make", "bench", f"VENV={venv}", "PYTHON=python3", "BENCH=--quick"],
        cwd=ROOT,
        env=os.environ | {"FAILING": failing},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, (venv / "bin" / "calls").read_text().splitlines()


@pytest.mark.parametrize("failing", ["none", "round", "page"])
def test_bench_runs_every_script_whatever_fails(tmp_path: Path, failing: str) -> None:
    done, calls = bench(tmp_path, failing)
    names = [call.split()[1].removeprefix("benchmarks.") for call in calls]
    assert names == [*SECTIONS, "page"]
    assert all(call.endswith(" --quick threads=1") for call in calls)
    assert all((ROOT / f"benchmarks/{name}.py").is_file() for name in names)
    assert (done.returncode != 0) == (failing != "none")
    assert (f"failed: {failing}\n" in done.stderr) == (failing != "none")
