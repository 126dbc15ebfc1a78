"""Headlines and alarms of real runs beside accuracy by labels. Writes docs/alarms.md.

    python -m experiments.alarms [--runs runs/forecasts] [--page]

Cost: about a second a run. It reads the folders that ``python -m experiments.forecasts`` leaves
behind (START_SEED_REWARD_UPDATE), those that are there, and changes nothing in them; ``--page``
writes the page anew from the results that are kept.

Each run is reported twice: with its answers, and as a user without answers would see it, whose
prompts have none. A run went *well* where accuracy by labels rose surely and is not surely lower
than in any round before, *badly* where it is surely lower than in the base or a round before.

Results: experiments/results/alarms.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import kept, write
from experiments.forecasts import measured_again
from srlm.report.best import best_round
from srlm.report.changes import change
from srlm.report.verdict import judge
from srlm.report.warnings import warnings
from srlm.run_folder import Run, read_run
from srlm.types import Round, undefined

LABELS = ("sampling_accuracy", "greedy_accuracy", "mode_accuracy", "vote_accuracy")
"""What answers alone tell; and the share of the headroom."""


def row_of(folder: Path) -> dict[str, Any]:
    """A run in figures: what became of it by labels, and what its report says."""
    found = read_run(folder)
    found = replace(found, rounds=tuple(measured_again(found)))
    first, last = found.rounds[0], found.rounds[-1]
    n = len(found.rounds) - 1
    since = [change("sampling_accuracy", r, last, among=n).direction for r in found.rounds[:-1]]
    fell = "fell" in since
    rose = change("sampling_accuracy", first, last).direction == "rose"
    return {
        "run": folder.name,
        "accuracy": [r["sampling_accuracy"].value for r in found.rounds],
        "went": "badly" if fell else "well" if rose else "level",
        "held_out": first["sampling_accuracy"].n,
        "with answers": said(found),
        "without": said(without_answers(found)),
    }


def said(found: Run) -> dict[str, Any]:
    """Headline and alarms."""
    best = best_round(found)
    notices = warnings(found, best)
    verdict = judge(found, best, notices)
    return {
        "status": verdict.badge,
        "reason": verdict.reason,
        "best": best.round,
        "serious": [x.code for x in notices if x.severity == "serious"],
        "notes": [x.code for x in notices if x.severity == "note"],
    }


def without_answers(found: Run) -> Run:
    """The run as if its prompts had no answers."""
    return replace(found, rounds=tuple(unlabelled(r) for r in found.rounds))


def unlabelled(record: Round) -> Round:
    hidden = {name: undefined("", "no answers") for name in (*LABELS, "headroom_captured")}
    table = record.table
    if table is not None:
        nothing = np.full(len(table), np.nan)
        table = replace(
            table,
            answers=tuple(() for _ in table.answers),
            mode_correct=nothing,
            sampling_accuracy=nothing,
        )
    return replace(record, estimates={**record.estimates, **hidden}, table=table)


def page(result: dict[str, Any]) -> str:
    """The page in docs/."""
    rows = result["rows"]
    lines = [
        "# Alarms on real runs",
        "",
        "Written by `python -m experiments.alarms`; do not edit. Runs of [forecasts beside "
        "runs](forecasts.md), four rounds each; accuracy by labels on the held-out prompts. "
        "*Well*: surely above the base and below no round before; *badly*: surely below some round "
        "before; else *level*. Headline, round called best, and alarms of `srlm report`, serious "
        "ones in bold, with answers and as they would be without.",
        "",
        *_tally(rows),
        "",
        "| start, seed, reward, update | accuracy by round | went | with answers | best | alarms | "
        "without answers | best | alarms |",
        "|" + " --- |" * 9,
    ]
    for r in rows:
        cells = []
        for kind in ("with answers", "without"):
            x = r[kind]
            alarms = ", ".join([*(f"**{c}**" for c in x["serious"]), *x["notes"]]) or "–"
            named = f" ({x['reason']})" if x["status"] == "failed" else ""
            cells += [x["status"] + named, str(x["best"]), alarms]
        path = ", ".join(f"{x:.3f}" for x in r["accuracy"])
        lines.append(
            f"| {r['run'].replace('_', ' ')} | {path} | {r['went']} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def _tally(rows: Sequence[dict[str, Any]]) -> list[str]:
    """How many alarms are false, and how many are missed."""
    lines = ["| report | runs that went well | serious alarm | headline failed or failing | runs "
             "that went badly | no serious alarm | headline neither failed nor failing |",
             "|" + " --- |" * 7]  # fmt: skip
    for kind in ("with answers", "without"):
        well = [r[kind] for r in rows if r["went"] == "well"]
        badly = [r[kind] for r in rows if r["went"] == "badly"]
        lines.append(
            f"| {kind if kind.startswith('with a') else 'without answers'} | {len(well)} | "
            f"{sum(bool(x['serious']) for x in well)} | {sum(_bad(x) for x in well)} | "
            f"{len(badly)} | {sum(not x['serious'] for x in badly)} | "
            f"{sum(not _bad(x) for x in badly)} |"
        )
    return lines


def _bad(told: dict[str, Any]) -> bool:
    return bool(str(told["status"]).startswith("fail"))


def main() -> None:
    """Read the runs, write results and page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/forecasts"))
    parser.add_argument("--page", action="store_true", help="write the page anew, read nothing")
    asked = parser.parse_args()
    if asked.page:
        write("alarms", kept("alarms"), page(kept("alarms")))
        return
    folders = sorted(p.parent for p in asked.runs.glob("*/metrics.jsonl"))
    rows = [row_of(p) for p in folders if (p / "rounds/004/round.json").exists()]
    write("alarms", {"rows": rows}, page({"rows": rows}))


if __name__ == "__main__":
    main()
