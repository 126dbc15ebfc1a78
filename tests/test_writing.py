"""Atomic writing: whole or not at all, and nothing stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from srlm import writing


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    mine = writing.half_made(tmp_path / "report.html").name
    theirs = mine.replace(f".{os.getpid()}.", f".{gone.pid}.")
    alive = mine.replace(f".{os.getpid()}.", f".{os.getppid()}.")
    others = ["thesis.partial", "report.html.elsewhere.1.partial", theirs.replace("html", "txt")]
    for name in (theirs, alive, *others):
        (tmp_path / name).write_text("x")
    writing.clear_abandoned(tmp_path / "report.html")
    writing.write_text(tmp_path / "report.html", "whole")
    left = {alive, *others, "report.html"}
    assert {p.name for p in tmp_path.iterdir()} == left


def test_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    writing.write_text(tmp_path / "a", "old")

    def write(partial: Path) -> None:
        partial.write_text("half")
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        writing.commit(tmp_path / "a", write)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"
