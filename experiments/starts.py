"""The demo's starts on several seeds: forecast, run, and how well the two agree.

    python -m experiments.starts [--starts good diffuse giveup] [--seeds 0 1 ...] [--quick]

Cost: two to five minutes per start and seed on an idle core, most of it for the base; rows of other
starts and seeds than those asked for are kept. ``--quick`` runs one and writes neither results nor
docs.

Each start and seed is `srlm demo` with its defaults: a forecast of the base, then the run. From
the run's rounds it reads the headroom captured, the fidelity and the seconds a round; from the
forecast the verdict and the limit; and from the forecast made after one round the error on
the rounds that followed. Results: experiments/results/starts.json and docs/starts.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.environment import environment
from experiments.common import kept, write
from srlm.demo.show import show
from srlm.progress import Progress
from srlm.run_folder import read_run
from srlm.writing import read_json

IN_SIGHT = (0, 1, 2)
"""Seeds whose runs were seen when the constants of the forecast after a pilot were chosen."""


def one(start: str, seed: int, out: Path) -> dict[str, Any]:
    """The figures of one start and seed."""
    folder = out / f"{start}-{seed}"
    shown = show(start, seed, folder, progress=Progress(quiet=True), console=Console(quiet=True))
    first, last = shown.rounds[0], shown.rounds[-1]
    before = read_json(out / f"{start}-{seed}-forecast/forecast.json")
    piloted = next(f for f in read_run(folder).forecasts if f["made"] == 1)
    ahead = {a["round"]: a for a in piloted["later"]}
    later = [line for line in shown.rounds if line["round"] in ahead]

    def value(line: dict[str, Any], name: str) -> float | None:
        number: float | None = line[name]["value"]
        return number

    change = last["sampling_accuracy"]["value"] - first["sampling_accuracy"]["value"]
    predicted = (shown.forecast or 0.0) - first["sampling_accuracy"]["value"]
    return {
        "start": start,
        "seed": seed,
        "verdict": shown.verdict,
        "sign_right": (change > 0) == (predicted > 0),
        "limit": shown.forecast,
        "limit_error": round((shown.forecast or 0.0) - before["mode_accuracy"]["value"], 4),
        "limit_error_held_out": round((shown.forecast or 0.0) - first["mode_accuracy"]["value"], 4),
        "base": {n: value(first, n) for n in MEASURED},
        "last": {n: value(last, n) for n in MEASURED},
        "rounds": last["round"],
        "seconds_a_round": [round(sum(x["seconds"].values()), 1) for x in shown.rounds[1:]],
        "seconds": shown.seconds,
        "certified": [x["kappa"]["guarantee"] for x in shown.rounds],
        "pilot_kappa_error": [
            round(told / x["kappa"]["value"] - 1, 4)
            for x in later
            if (told := ahead[x["round"]]["kappa"]["value"]) is not None
        ],
        "pilot_accuracy_error": [
            round(
                ahead[x["round"]]["sampling_accuracy"]["value"] - x["sampling_accuracy"]["value"],
                4,
            )
            for x in later
        ],
    }


MEASURED = (
    "kappa",
    "failure_fraction",
    "confidence",
    "fidelity",
    "sampling_accuracy",
    "greedy_accuracy",
    "mode_accuracy",
    "headroom_captured",
    "greedy_is_mode",
    "entropy",
    "length",
)


def table(result: dict[str, Any]) -> str:
    """The page in docs/."""
    rows, machine = result["rows"], result["environment"]
    older = sorted({r["seed"] for r in rows if r.get("kept")})
    lines = [
        "# The demo's starts, forecast and run",
        "",
        "Written by `python -m experiments.starts`; do not edit. "
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"torch {machine['torch']}."
        + (f" Seeds {', '.join(map(str, older))}: kept from an earlier run." if older else ""),
        "",
        "| start | seed | forecast | limit | accuracy | κ | F | headroom | fidelity | "
        "slowest round, s | to forecast, s | all rounds, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        a, b = r["base"], r["last"]
        headroom = b["headroom_captured"]
        lines.append(
            f"| {r['start']} | {r['seed']} | {r['verdict']} | {r['limit']:.3f} | "
            f"{a['sampling_accuracy']:.3f} → {b['sampling_accuracy']:.3f} | "
            f"{a['kappa']:.3f} → {b['kappa']:.3f} | "
            f"{a['failure_fraction']:.3f} → {b['failure_fraction']:.3f} | "
            f"{'–' if headroom is None else f'{headroom:.1%}'} | {b['fidelity']:.3f} | "
            f"{max(r['seconds_a_round']):.0f} | {r['seconds']['forecast']:.0f} | "
            f"{sum(r['seconds_a_round']):.0f} |"
        )
    lines += [
        "",
        "*Limit*: sampling accuracy where exact updates lead, forecast from samples of the "
        "base alone; it equals the exact mode accuracy of the forecast's 256 prompts to "
        f"{max(abs(r['limit_error']) for r in rows):.4f}, and that of the run's own held-out "
        f"prompts, others, to {max(abs(r['limit_error_held_out']) for r in rows):.3f}. "
        "Headroom is undefined where the base's modes are no better than its samples.",
        "",
        "After one pilot round, the rounds that followed (forecast - measured; κ relative). Its "
        "constants were chosen with the runs of seeds "
        f"{', '.join(map(str, IN_SIGHT))} in sight, whose errors reach {_worst(rows, True)}; "
        f"those of the other seeds reach {_worst(rows, False)}.",
        "",
        "| start | seed | κ, rounds 2, 3, ... | accuracy, rounds 2, 3, ... |",
        "| --- | --- | --- | --- |",
    ]
    for r in rows:
        kappa = ", ".join(f"{x:+.1%}" for x in r["pilot_kappa_error"])
        accuracy = ", ".join(f"{x:+.3f}" for x in r["pilot_accuracy_error"])
        lines.append(f"| {r['start']} | {r['seed']} | {kappa} | {accuracy} |")
    return "\n".join(lines) + "\n"


def _worst(rows: list[dict[str, Any]], in_sight: bool) -> str:
    """The greatest errors after a pilot, of the seeds that were in sight or of the others."""
    chosen = [r for r in rows if (r["seed"] in IN_SIGHT) == in_sight]
    if not chosen:
        return "- (not run)"
    kappa, accuracy = (
        max(abs(x) for r in chosen for x in r[key])
        for key in ("pilot_kappa_error", "pilot_accuracy_error")
    )
    return f"{kappa:.1%} of κ and {accuracy:.3f} of accuracy"


def with_kept(rows: list[dict[str, Any]], before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, and of an earlier run those of other starts and seeds, marked so."""
    made = {(r["start"], r["seed"]) for r in rows}
    others = [r | {"kept": True} for r in before if (r["start"], r["seed"]) not in made]
    return sorted(
        [*rows, *others], key=lambda r: (("good", "diffuse", "giveup").index(r["start"]), r["seed"])
    )


def main() -> None:
    """Run what is asked, write results and page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", nargs="+", default=["good", "diffuse", "giveup"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[*IN_SIGHT, 3, 4, 5])
    parser.add_argument("--out", type=Path, default=Path("runs/starts"))
    parser.add_argument(
        "--quick", action="store_true", help="one start and seed, to see that it runs"
    )
    parser.add_argument("--page", action="store_true", help="write the page anew, run nothing")
    asked = parser.parse_args()
    if asked.page:
        write("starts", kept("starts"), table(kept("starts")))
        return
    if asked.quick:
        asked.starts, asked.seeds = asked.starts[:1], asked.seeds[:1]
    rows = []
    for start in asked.starts:
        for seed in asked.seeds:
            rows.append(one(start, seed, asked.out))
            print(json.dumps(rows[-1]), flush=True)
    if not asked.quick:
        result = {"environment": environment(), "rows": with_kept(rows, kept("starts")["rows"])}
        write("starts", result, table(result))


if __name__ == "__main__":
    main()
