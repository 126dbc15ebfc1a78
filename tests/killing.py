"""Runs that are killed by SIGKILL at a chosen place and then given again, in forked processes.

A program, so that torch is imported once for all of them: ``python -m tests.killing JOBS``, a JSON
file with a list of jobs, each with ``config``, ``folder`` and ``kills``: pairs of a write (its
number, negative from the end; the end of its path; "every"; or "some", each third of those) and a
phase. Of the pieces of a stage, which are alike, "every" is the first. It writes
``folder/whole``, an uninterrupted run, and ``folder/NAME`` for each kill; the killed runs go on by
the same call. It prints, as JSON, the exit codes and the number of writes of the whole run.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PHASES = ("before", "middle", "after")
"""Of a write: nothing is written; something is, under the other name; it is there. And ``full``:
the disk is, and the process ends by the error."""
SAID = {
    "before": "killed before a write",
    "middle": "killed in a write",
    "after": "killed after a write",
    "full": "disk full at a write",
    "": "killed at random",
}


def go(config: dict[str, Any], out: Path) -> None:
    """The run as the command line does it, without the page."""
    from srlm import runner
    from srlm.config import RunConfig

    runner.write_page = lambda summary: summary.folder / "report.html"
    os.fsync = lambda _: None  # a killed process loses nothing that it wrote; only time is saved
    runner.run(RunConfig.model_validate(config), out)


def die() -> None:
    """As ``kill -9`` from outside: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def dying(at: int | str, phase: str) -> Callable[[Path, Callable[[Path], None]], None]:
    """``commit`` that dies at its ``at``-th call, from 1, or where a path ends with ``at``."""
    from srlm import writing

    real, calls = writing.commit, 0

    def commit(path: Path, write: Callable[[Path], None]) -> None:
        nonlocal calls
        calls += 1
        if calls != at if isinstance(at, int) else not str(path).endswith(at):
            real(path, write)
            return
        if phase == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if phase == "middle":
            partial = writing.half_made(path)
            write(partial)
            files = [f for f in partial.rglob("*") if f.is_file()] or [partial]
            for file in files:
                os.truncate(file, file.stat().st_size // 2)
        if phase == "after":
            real(path, write)
        die()

    return commit


def forked(act: Callable[[], None]) -> int:
    """Exit code of ``act`` in a child, -9 if it was killed."""
    child = os.fork()
    if child == 0:
        try:
            act()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def counted(config: dict[str, Any], out: Path, note: Path) -> None:
    """A whole run; its writes and the modules it used go to ``note``."""
    from srlm import writing

    real = writing.commit
    paths: list[str] = []

    def commit(path: Path, write: Callable[[Path], None]) -> None:
        paths.append(str(path))
        real(path, write)

    writing.commit = commit
    go(config, out)
    note.write_text(json.dumps({"writes": paths, "modules": list(sys.modules)}))


def killed_at(config: dict[str, Any], out: Path, at: int | str, phase: str) -> None:
    """A run that dies at a write."""
    from srlm import writing

    writing.commit = dying(at, phase)
    go(config, out)


def killed_after(config: dict[str, Any], out: Path, seconds: float) -> int:
    """Exit code of a run that is killed from outside after some time, if it still runs."""
    child = os.fork()
    if child == 0:
        go(config, out)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job; see the module."""
    import srlm.runner  # noqa: F401
    from srlm.run_folder import manifest

    config, folder = job["config"], Path(job["folder"])
    note = folder / "note.json"
    start = time.perf_counter()
    codes: dict[str, list[int]] = {
        "whole": [forked(lambda: counted(config, folder / "whole", note))]
    }
    took = time.perf_counter() - start
    noted = json.loads(note.read_text())
    writes = len(noted["writes"])
    folder_of = [str(Path(p).parent) for p in noted["writes"]]
    every = [
        i + 1
        for i, at in enumerate(folder_of)
        if "/shards/" not in f"{at}/" or at not in folder_of[:i]
    ]
    ranges = {"every": every, "some": every[::3]}
    for name in noted["modules"]:  # once here, not once in each child
        if name.split(".")[0] in (
            "srlm",
            "transformers",
            "scipy",
            "pyarrow",
            "plotly",
            "tokenizers",
        ):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    manifest.versions()
    gc.freeze()  # children share what is there
    for at, phase in [
        (i, phase) for given, phase in job["kills"] for i in ranges.get(given, [given])
    ]:
        at = at % (writes + 1) if isinstance(at, int) else at
        out = folder / f"{at}-{phase}".replace("/", "-")
        first = forked(lambda: killed_at(config, out, at, phase))  # noqa: B023
        codes[out.name] = [first, forked(lambda: go(config, out))]  # noqa: B023
    at_random = random.Random(0)
    for i in range(job.get("random", 0)):
        out = folder / f"random-{i}"
        deaths = [killed_after(config, out, at_random.uniform(0, took)) for _ in range(2)]
        codes[out.name] = [min(deaths), forked(lambda: go(config, out))]  # noqa: B023
    return {"codes": codes, "writes": writes}


def start(config: dict[str, Any], folder: Path, kills: list[Any], **more: Any) -> dict[str, Any]:
    """Do a job in a process of its own; its answer, with what it said on standard error."""
    (answer,) = start_all([{"config": config, "folder": str(folder), "kills": kills} | more])
    return answer


def start_all(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Do jobs one after the other in one process; their answers."""
    file = Path(jobs[0]["folder"]) / "jobs.json"
    for job in jobs:
        Path(job["folder"]).mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(jobs))
    done = subprocess.run(
        [sys.executable, "-m", "tests.killing", str(file)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return [answer | {"stderr": done.stderr} for answer in answers]


if __name__ == "__main__":
    print(json.dumps([main(job) for job in json.loads(Path(sys.argv[1]).read_text())]))
