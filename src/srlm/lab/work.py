"""Running experiments: here, or spread over processes of one thread each.

``python -m srlm.lab.work '{"claims": [...], "seed": 0, "quick": true, "out": "..."}'`` is one such
process. They hand their findings over as the files of ``out``. One thread each, because many
small matrix products gain nothing from a second one and wait for each other.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from srlm.errors import UserError
from srlm.lab import CLAIMS, TASKS
from srlm.lab.page import page
from srlm.lab.result import Finding
from srlm.lab.setting import Map, Setting, here
from srlm.progress import Progress
from srlm.writing import write_text

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def run(
    claims: Sequence[str],
    *,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
    progress: Progress | None = None,
    workers: int = 1,
    over: Map | None = None,
) -> list[Finding]:
    """Run claims' experiments; the findings come in the order asked for.

    Args:
        claims: ids of ``CLAIMS``; ``["all"]`` for all of them.
        seed: decides every sample; the same seed gives the same figures.
        quick: fewer replicates, no transformer is trained.
        out: folder for a JSON file a claim, ``lab.html``, and the cells of unfinished sweeps;
            started again with the same folder, the lab continues where it stopped. None: keep
            nothing.
        progress: where to show stages; silent if left out.
        workers: processes of one thread each, which is the faster way (their stages are not
            shown); 1 runs here.
        over: makes the cells of the sweeps elsewhere, as the workers of a Ray cluster; all else is
            done here, claim by claim.

    Raises:
        UserError: an unknown claim, or none; a worker that failed.
    """
    names = list(CLAIMS) if list(claims) == ["all"] else list(dict.fromkeys(claims))
    unknown = [name for name in names if name not in CLAIMS]
    if unknown or not names:
        raise UserError(
            f"no such claim: {', '.join(unknown) or 'none given'}",
            f"choose among all, {', '.join(CLAIMS)}",
        )
    progress = progress or Progress.silent()
    if over is not None:
        found = experiments(names, seed=seed, quick=quick, out=out, progress=progress, over=over)
    elif workers > 1:
        found = spread(names, seed=seed, quick=quick, out=out, progress=progress, workers=workers)
    else:
        found = experiments(names, seed=seed, quick=quick, out=out, progress=progress)
    if out is not None:
        write_text(out / "lab.html", page(found))
    return found


def experiments(
    names: Sequence[str],
    *,
    seed: int,
    quick: bool,
    out: Path | None,
    progress: Progress,
    over: Map = here,
) -> list[Finding]:
    """Run experiments one after the other in this process."""
    setting = Setting(seed, quick, None if out is None else out / "cells", progress, over)
    found = []
    for name in names:
        module = importlib.import_module(f"srlm.lab.claims.{name.replace('-', '_')}")
        began = time.perf_counter()
        one: Finding = module.experiment(setting)
        found.append(replace(one, seconds=round(time.perf_counter() - began, 2)))
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_text(out / f"{name}.json", found[-1].to_json())
    return found


def spread(
    names: Sequence[str],
    *,
    seed: int,
    quick: bool,
    out: Path | None,
    progress: Progress,
    workers: int,
) -> list[Finding]:
    """Run experiments in processes of their own, ``workers`` at a time."""
    lots = [[name for name in lot if name in names] for lot in TASKS]
    with tempfile.TemporaryDirectory() as temporary, progress.stage("claims", len(names)) as bar:
        folder = out or Path(temporary)

        def one(lot: list[str]) -> None:
            order = {"claims": lot, "seed": seed, "quick": quick, "out": str(folder)}
            done = subprocess.run(
                [sys.executable, "-m", "srlm.lab.work", json.dumps(order)],
                env=os.environ | ONE_THREAD,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise UserError(
                    f"lab: {', '.join(lot)}: {last}", "run the claim alone for the whole message"
                )
            bar.advance(len(lot))

        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(one, [lot for lot in lots if lot]):
                pass
        return [
            Finding.from_json((folder / f"{name}.json").read_text(encoding="utf-8"))
            for name in names
        ]


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    experiments(
        given["claims"],
        seed=given["seed"],
        quick=given["quick"],
        out=Path(given["out"]),
        progress=Progress.silent(),
    )
