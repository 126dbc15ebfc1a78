"""docs/reliability.md: what is broken on purpose and what comes of it.

``python -m tests.reliability`` writes the page. Every section runs in a process of its own, two at
a time; ``python -m tests.reliability SECTION`` prints one's rows. All of it takes some minutes on
two cores. The slow tests run the same sections.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
OUTCOMES = ("same", "rebuilt", "named", "works", "silent", "traceback")
Rows = dict[str, Counter[str]]
"""Outcomes by fault."""

BEFORE = """# Reliability

Made by `python -m tests.reliability`; do not edit. Everything is broken on purpose, the command is
given (again), and what it ends in is compared with a run that nothing happened to:

- same result: byte for byte, times aside; the command was not disturbed, or went on where it was
  killed;
- rebuilt: a damaged file was named and made again, to the same bytes;
- named: refused with the thing, the place and the remedy (exit code 2), or, by `srlm report`, named
  while the rest is shown; `srlm check` names the file;
- works: input that is strange but good is taken;
- silent: another result without a word;
- traceback: an error that is not one of srlm's own.

"""
AFTER = """
A run reads neither policies nor training samples of the rounds before its last: damage to those is
found by `srlm check`, and the run's result is the same. Kills are by SIGKILL in forked processes:
at each write of the run, before it, in the middle of it (half of the file is there), after it, and
at random moments. The full disk refuses one write after the other. What is done to files: cut to
half, emptied, one bit flipped, deleted, swapped with the same file of another round (beside the
rounds: with another file there).
"""


# ---- sections


def kills(job: str, phases: Sequence[str], random: int = 0) -> Rows:
    """Runs that die at every write, in some phases, and at random."""
    from tests import killing
    from tests.faults.folders import contents
    from tests.test_run_folder import JOBS

    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        config = JOBS[job](base / "in").model_dump(mode="json")
        runs, each = base / "runs", [["every", phase] for phase in phases]
        answer = killing.start(config, runs, each, random=random)
        whole = contents(runs / "whole")
        rows: Rows = {}
        del answer["codes"]["whole"]
        for kill, (first, second) in answer["codes"].items():
            died = first == (1 if kill.endswith("full") else -9) or kill.startswith("random")
            came = "traceback" if second or not died else "silent"
            if second == 0 and died and contents(runs / kill) == whole:
                came = "same"
            what = killing.SAID[kill.rpartition("-")[2] if not kill.startswith("random") else ""]
            rows.setdefault(f"{NAMES[job]}: {what}", Counter())[came] += 1
    return rows


NAMES = {"linear": "exact policy", "causal": "language model"}


def damage(job: str, command: str, policies: bool) -> Rows:
    """Every kind of file x damage x round, for a command.

    Args:
        job: the run.
        command: run, report or check.
        policies: the files of policies, or all others.
    """
    from srlm import runner
    from srlm.config import RunConfig
    from tests.faults import folders
    from tests.test_run_folder import JOBS

    rows: Rows = {}
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        config: RunConfig = JOBS[job](base / "in", rounds=3, stop="auto")
        runner.run(config, base / "whole")
        if command == "run":
            runner.write_page = lambda summary: summary.folder / "report.html"
        for fault in folders.faults(base / "whole"):
            if fault.kind.startswith("policy/") == policies:
                came = folders.outcome(fault, base / "whole", config, command, base / "case")
                what = "files of policies" if policies else "files of rounds"
                what = "files beside the rounds" if fault.where == "beside" else what
                row = f"`srlm {command}`, {NAMES[job]}: {what}, {fault.damage.__name__}"
                rows.setdefault(row, Counter())[came] += 1
    return rows


def given() -> Rows:
    """Folders of models, files of prompts and settings, good and bad."""
    from tests.faults.configs import CONFIGS
    from tests.faults.models import MODELS
    from tests.faults.prompts import PROMPTS

    tables = {"folders of models": MODELS, "files of prompts": PROMPTS, "settings": CONFIGS}
    rows: Rows = {}
    for name, cases in tables.items():
        for case in cases:
            with tempfile.TemporaryDirectory() as place:
                rows.setdefault(name, Counter())[_outcome(case, Path(place))] += 1
    return rows


def _outcome(case: Any, place: Path) -> str:
    """What the command line makes of a case, in this process."""
    from srlm import cli

    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    handler = logging.StreamHandler(err)
    logging.getLogger().addHandler(handler)
    try:
        sys.argv = ["srlm", *map(str, case.build(place))]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
        code: Any = 0
    except SystemExit as stop:
        code = stop.code or 0
    except Exception:
        return "traceback"
    finally:
        sys.argv = argv
        logging.getLogger().removeHandler(handler)
    said = (out.getvalue() + err.getvalue()).lower()
    if code not in (0, 2) or "traceback" in said:
        return "traceback"
    if case.refused:
        return "named" if code == 2 and case.refused.lower() in said else "silent"
    return "works" if code == 0 and case.flagged.lower() in said else "silent"


SECTIONS: dict[str, Callable[[], Rows]] = {
    "kills-before": partial(kills, "linear", ["before"], 16),
    "kills-middle": partial(kills, "linear", ["middle"], 16),
    "kills-after": partial(kills, "linear", ["after"], 16),
    "full-disk": partial(kills, "linear", ["full"]),
    "network-kills": partial(kills, "causal", ["middle"], 10),
    "run": partial(damage, "linear", "run", False),
    "run-policies": partial(damage, "linear", "run", True),
    "report": partial(damage, "linear", "report", False),
    "check": partial(damage, "linear", "check", False),
    "network-run": partial(damage, "causal", "run", True),
    "network-report": partial(damage, "causal", "report", True),
    "network-check": partial(damage, "causal", "check", True),
    "given": given,
}


# ---- the page


def in_child(section: str) -> Rows:
    """A section's rows, by a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.reliability", section],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{section}: {done.stderr[-2000:]}")
    print(section, file=sys.stderr, flush=True)
    return {k: Counter(v) for k, v in json.loads(done.stdout.splitlines()[-1]).items()}


def page(found: Rows) -> str:
    """The page's text."""
    head = "| fault | tries | same result | rebuilt | named | works | silent | traceback |"
    lines = [head, "| --- " + "| ---: " * 7 + "|"]
    for name, row in [*found.items(), ("**all**", sum(found.values(), Counter()))]:
        cells = (str(row[outcome]) for outcome in OUTCOMES)
        lines.append(f"| {name} | {row.total()} | {' | '.join(cells)} |")
    return BEFORE + "\n".join(lines) + "\n" + AFTER


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(SECTIONS[sys.argv[1]]()))
        return
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(in_child, SECTIONS))
    found: Rows = {}
    for part in parts:
        for name, row in part.items():
            found[name] = found.get(name, Counter()) + row
    PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
