"""Agreement past the likeliest response: the demo's start with several worked paths.

    python -m experiments.paths [--seeds 0 1 2] [--out runs/paths] [--only NAME ...] [--quick]

Cost: some two hours on an idle core; ``--quick`` takes a minute, on a base of 20 steps, and writes
neither results nor docs.

On the corpus `paths` (`experiments.ways`) the right number is divided over three ways of working,
and on a quarter of the prompts a quick, wrong number is likelier than any one of them. Three runs
a seed, equal samples and prompts, each with `--stop auto`: the likelihood reward; the consistency
reward with the weighted update; and the consistency reward with dpo on pairs weighted by the vote
margin, a likelihood term beside (ScPO). Design, strengths and learning rates were chosen on seed
10; the seeds reported had no part in it. Besides the run's own figures: the accuracy of the
majority of a prompt's held-out samples (the answer-level mode, as far as the samples can tell) and
both modes on the quarter of the prompts where the habit is wrong. Right answers serve for showing
alone.

Results: experiments/results/paths.json and docs/paths.md.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import environment
from experiments import corpora
from experiments.common import kept, write
from experiments.ways import digit_sums, looks_easy
from srlm.config import RunConfig
from srlm.grading import grader
from srlm.measure.answer_level import vote_curve
from srlm.progress import Progress
from srlm.run_folder import Run, read_run
from srlm.runner import run
from srlm.types import Bools, Pairs, Prompt, Samples

DRAWS = 32
"""Held-out samples per prompt, which vote."""
RUNS: dict[str, dict[str, Any]] = {
    "likelihood": {"reward": "likelihood", "update.beta": 0.5, "rounds": 5},
    "consistency": {"rounds": 12},
    "consistency, dpo voted": {
        "update.kind": "dpo",
        "pairs.kind": "voted",
        "update.beta": 0.5,
        "update.nll": 1.0,
        "rounds": 5,
    },
}
"""Changes to the corpus's own settings."""
MEASURED = (
    "greedy_accuracy",
    "sampling_accuracy",
    "mode_accuracy",
    "kappa",
    "confidence",
    "fidelity",
    "base_answer_share",
    "answer_agreement",
)


def config_of(seed: int, changes: dict[str, Any], quick: bool) -> RunConfig:
    """The demo's settings on the corpus, changed."""
    own = corpora.OWN["paths"] | {"measure.samples": DRAWS}
    return corpora.config_of("paths", seed, own | changes, quick=quick)


def one(config: RunConfig, out: Path) -> dict[str, Any]:
    """A run's rounds in figures."""
    run(config, out, progress=Progress(quiet=True))
    made, rounds = read_run(out), []
    for line in (record.to_json() for record in made.rounds):
        figures = {name: line[name]["value"] for name in MEASURED}
        figures |= voted(config, made, line["round"])
        figures["distinguishable"] = distinguishable(made.pairs(line["round"]))
        figures["seconds"] = round(sum(line["seconds"].values()), 1)
        rounds.append(figures)
    return {"beta": config.update.strength, "rounds": rounds}


def voted(config: RunConfig, found: Run, t: int) -> dict[str, float]:
    """Accuracy of the majority of the held-out samples, and of both modes where the habit errs."""
    table, samples = found.rounds[t].table, found.held_out(t)
    assert table is not None
    assert samples is not None
    prompts = list(map(Prompt, table.prompt_id, table.prompt, table.answers))
    read = grader(config.prompts.answer)
    answer_R = read.answers(samples.text_R, samples.finished_R, samples.prompt_R)
    right_R = read.grades(samples.text_R, samples.finished_R, prompts, samples.prompt_R) == 1
    out = {"answer_mode_accuracy": _majority(answer_R, right_R, samples, len(prompts))}
    trapped = trapped_prompts(prompts)
    kept = trapped[samples.prompt_R]
    few = samples.take(kept)
    few = replace(few, prompt_R=(np.cumsum(trapped) - 1)[few.prompt_R])
    answers = [a for a, k in zip(answer_R, kept, strict=True) if k]
    out["trap_answer_mode"] = _majority(answers, right_R[kept], few, int(trapped.sum()))
    out["trap_mode"] = float(table.mode_correct[trapped].mean())
    out["trap_sampling"] = float(right_R[kept].mean())
    return out


def _majority(answer_R: list[str | None], right_R: Bools, samples: Samples, prompts: int) -> float:
    found = vote_curve(samples, answer_R, right_R, prompts, [DRAWS])[DRAWS].value
    assert found is not None
    return found


def trapped_prompts(prompts: list[Prompt]) -> Bools:
    """Where quick authors forget a carry, [P]."""
    operands = [x.content.removesuffix("=").split("+") for x in prompts]
    first_P, second_P = (np.array([int(pair[i]) for pair in operands]) for i in (0, 1))
    sums_PC = digit_sums(first_P, second_P)
    return looks_easy(sums_PC) & (sums_PC[:, 2] >= 10)


def distinguishable(pairs: Pairs | None) -> float | None:
    """Share of the training prompts whose responses have unequal rewards."""
    if pairs is None:
        return None
    apart, of = pairs.distinguishable
    return apart / of


def page(result: dict[str, Any]) -> str:
    """The page in docs/."""
    machine = result["environment"]
    lines = [
        "# Several paths to one answer",
        "",
        "Written by `python -m experiments.paths`; do not edit. "
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"torch {machine['torch']}.",
        "",
        "The base learnt from authors who work an addition in three "
        "ways, and from some who write a quick number that forgets a carry. On a quarter of the "
        "prompts the quick, wrong number is likelier than any one worked path to the right one, "
        "and less likely than all of them together (`experiments.ways`). Likelihood self-reward "
        "leads to the likeliest response; consistency, the share of a prompt's own samples that "
        "reach the same number, leads to the likeliest answer. "
        "Strengths and learning rates were chosen on seed 10. An earlier rule of `--stop auto` "
        "ended the runs; what it keeps now: [forecasts beside runs](forecasts.md).",
        "",
        "Base and last round (all accuracies on held-out prompts; "
        f"*answer mode*: majority of {DRAWS} samples):",
        "",
        "| seed | run | beta | rounds | base mode | base answer mode | greedy "
        "| against base mode | sampling | mode | answer mode | κ | fidelity |",
        "|" + " --- |" * 13,
    ]
    for row in result["rows"]:
        first, last = row["rounds"][0], row["rounds"][-1]

        def change(key: str, a: Any = first, b: Any = last) -> str:
            return f"{a[key]:.3f} → {b[key]:.3f}"

        lines.append(
            f"| {row['seed']} | {row['run']} | {row['beta']:g} | "
            f"{len(row['rounds']) - 1} | {first['mode_accuracy']:.3f} | "
            f"{first['answer_mode_accuracy']:.3f} | {change('greedy_accuracy')} | "
            f"{last['greedy_accuracy'] - first['mode_accuracy']:+.3f} | "
            f"{change('sampling_accuracy')} | {change('mode_accuracy')} | "
            f"{change('answer_mode_accuracy')} | {change('kappa')} | {last['fidelity']:.3f} |"
        )
    lines += [
        "",
        "## Round by round",
        "",
        "*Trap*: the quarter of the prompts where the quick number is wrong. *Distinguishable*: "
        "share of the training prompts whose samples get different rewards, in the round that "
        "follows.",
        "",
        "| seed | run | round | greedy | sampling | mode | answer mode | trap: sampling | trap: "
        "mode | trap: answer mode | κ | fidelity | distinguishable | s |",
        "|" + " --- |" * 14,
    ]
    for row in result["rows"]:
        for t, now in enumerate(row["rounds"]):
            apart = "–" if now["distinguishable"] is None else f"{now['distinguishable']:.2f}"
            figures = " | ".join(
                f"{now[name]:.3f}"
                for name in (
                    "greedy_accuracy",
                    "sampling_accuracy",
                    "mode_accuracy",
                    "answer_mode_accuracy",
                    "trap_sampling",
                    "trap_mode",
                    "trap_answer_mode",
                    "kappa",
                    "fidelity",
                )
            )
            lines.append(
                f"| {row['seed']} | {row['run']} | {t} | {figures} | {apart} | "
                f"{now['seconds']:.0f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked, write results and page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=list(RUNS), help="of the runs")
    parser.add_argument("--out", type=Path, default=Path("runs/paths"))
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it runs")
    parser.add_argument("--page", action="store_true", help="write the page anew, run nothing")
    asked = parser.parse_args()
    if asked.page:
        write("paths", kept("paths"), page(kept("paths")))
        return
    if asked.quick:
        asked.seeds, asked.out = asked.seeds[:1], asked.out / "quick"
    rows: list[dict[str, Any]] = []
    for seed in asked.seeds:
        for name in asked.only:
            config = config_of(seed, RUNS[name], asked.quick)
            folder = asked.out / f"{seed}-{name.replace(', ', '-').replace(' ', '-')}"
            rows.append({"seed": seed, "run": name} | one(config, folder))
            print(json.dumps(rows[-1]), flush=True)
    if not asked.quick:
        result = {"environment": environment(), "rows": rows}
        write("paths", result, page(result))


if __name__ == "__main__":
    main()
