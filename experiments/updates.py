"""Every update on the demo's starts, at equal samples and at equal time.

    python -m experiments.updates [--starts good diffuse giveup] [--seeds 0 1 2] [--rounds 3]
                                  [--prompts 4096] [--only weighted dpo ...] [--page] [--quick]

Cost: some two hours on an idle core; ``--quick`` takes a minute, on bases of 20 steps, and writes
neither results nor docs.

The same base, prompts, samples per prompt and learning rate schedule for every update; each has the
beta and learning rate of ``CHOICES``, best of those tried on one start and seed. Seconds are
processor seconds of one thread for sampling, rewarding, pairing and training; measuring is not
counted. Two tables: after the same rounds, so from the same number of samples; and at the last
round that ends within the seconds that the default takes for all of its rounds. Beside them,
without training: majority vote and best of n by likelihood over as many samples as a round has,
greedy decoding, and the modes themselves. Answers serve for showing alone.

One JSON file a start and seed goes to runs/updates/, so that the work can be divided
among processes; ``--page`` gathers the parts. Results: experiments/results/updates.json and
docs/updates.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.environment import environment
from experiments import corpora
from experiments.common import Clock, kept, opened, write
from srlm.config import RunConfig, flatten
from srlm.grading import grader
from srlm.loop import self_reward
from srlm.policies.base import Policy
from srlm.rewards.consistency import consistency
from srlm.rounds import derived
from srlm.runner import method_of
from srlm.types import Prompt, Samples, rows_by_prompt

PARTS = Path("runs/updates")
STARTS = ("good", "diffuse", "giveup")
DRAWS = 4
CHOICES: dict[str, dict[str, Any]] = {
    "weighted": {},
    "square, groups": {"update.kind": "square", "update.beta": 2.0, "pairs.reward_floor": 4.0},
    "square, pairs": {
        "update.kind": "square",
        "update.beta": 2.0,
        "pairs.kind": "pairs",
        "pairs.reward_floor": 4.0,
    },
    "best-of-n": {"update.kind": "best-of-n"},
    "best-of-n, mu 2": {"update.kind": "best-of-n", "samples.mu": 2.0},
    "dpo": {"update.kind": "dpo", "update.beta": 0.5},
    "dpo, nll 0.2": {"update.kind": "dpo", "update.beta": 0.5, "update.nll": 0.2},
    "ipo": {"update.kind": "ipo", "update.beta": 0.2},
    "weighted, LoRA 8": {"update.lora": 8, "update.lr": 4e-3},
}
"""What each update is run with, beside the defaults."""
MEASURED = (
    "kappa",
    "failure_fraction",
    "confidence",
    "fidelity",
    "base_mode_probability",
    "answer_agreement",
    "sampling_accuracy",
    "greedy_accuracy",
    "mode_accuracy",
    "headroom_captured",
    "entropy",
    "distinct_responses",
    "exponent",
)


def config_of(start: str, seed: int, changes: dict[str, Any], quick: bool) -> RunConfig:
    """The demo's settings, changed."""
    return corpora.config_of(start, seed, {"samples.per_prompt": DRAWS} | changes, quick=quick)


def one(name: str, config: RunConfig) -> dict[str, Any]:
    """A run's rounds in figures; seconds and tokens add up from the base on."""
    policy, train, held_out = opened(config)
    recipe, clock, tokens = method_of(config), Clock(), 0

    def counting(policy: Policy, prompts: Sequence[Prompt], samples: Samples) -> Any:
        nonlocal tokens
        tokens += int(samples.length_R.sum())
        return recipe.reward(policy, prompts, samples)

    rounds = []
    for done in self_reward(
        policy,
        train,
        held_out,
        method=replace(recipe, reward=counting),
        rounds=config.rounds,
        seed=config.seed,
        progress=clock,  # type: ignore[arg-type]
    ):
        figures: dict[str, Any] = {key: done.estimates[key].value for key in MEASURED}
        rounds.append(figures | {"seconds": round(clock.total, 2), "tokens": tokens})
    flat = flatten(config.update.model_dump())
    return {"update": name, "settings": flat, "rounds": rounds}


def controls(config: RunConfig) -> dict[str, float]:
    """Accuracy of the base on held-out prompts by what needs no training."""
    policy, _, held_out = opened(config)
    x = held_out[: config.measure.prompts]
    read = grader(config.prompts.answer)
    samples = policy.sample(x, DRAWS, seed=derived(config.seed, "controls"), max_tokens=16)
    greedy = policy.greedy(x, max_tokens=16)
    rows_P = rows_by_prompt(samples.prompt_R, len(x))

    right_R = read.grades(samples.text_R, samples.finished_R, x, samples.prompt_R)
    vote_R = np.nan_to_num(consistency(read)(policy, x, samples).reward_R)

    def best(score_R: np.ndarray) -> float:
        return float(np.mean([right_R[rows[np.argmax(score_R[rows])]] for rows in rows_P]))

    return {
        "one sample": float(right_R.mean()),
        "greedy": float(read.grades(greedy.text_R, greedy.finished_R, x).mean()),
        f"majority of {DRAWS}": best(vote_R),
        f"likeliest of {DRAWS}": best(samples.logp_R),
    }


def page(result: dict[str, Any]) -> str:
    """docs/updates.md."""
    machine, rows = result["environment"], result["rows"]
    lines = [
        "# The updates compared",
        "",
        "Written by `python -m experiments.updates`; do not edit. "
        f"{machine['processor']}, {machine['cores']} cores, one thread, torch {machine['torch']}; "
        f"{result['prompts']} prompts and {DRAWS} samples per prompt and round.",
        "",
        "Seconds are processor seconds for sampling and training, without measuring. Distinct: "
        "share of distinct responses among 16 samples of a held-out prompt. Kept: probability that "
        "a sample is the base's mode.",
        "",
    ]
    lines += summary(rows)
    groups = list(dict.fromkeys((r["start"], r["seed"]) for r in rows))
    for start, seed in groups:
        mine = [r for r in rows if (r["start"], r["seed"]) == (start, seed)]
        beside = next(c for c in result["controls"] if (c["start"], c["seed"]) == (start, seed))
        base = mine[0]["rounds"][0]
        known = ", ".join(f"{k} {v:.3f}" for k, v in beside["accuracy"].items())
        lines += [
            f"## {start}, seed {seed}",
            "",
            f"The base: κ {base['kappa']:.3f}, F {base['failure_fraction']:.3f}, entropy "
            f"{base['entropy']:.2f}, distinct {base['distinct_responses']:.2f}. Accuracy without "
            f"training: {known}, mode {base['mode_accuracy']:.3f}.",
            "",
        ]
        budget = mine[0]["rounds"][-1]["seconds"]
        last = {r["update"]: len(r["rounds"]) - 1 for r in mine}
        within = {
            r["update"]: max(t for t, x in enumerate(r["rounds"]) if x["seconds"] <= budget)
            for r in mine
        }
        head = f"within the {budget:.0f} s of {mine[0]['update']}'s rounds"
        for title, at in (("after the same rounds", last), (head, within)):
            lines += [
                f"Equal {'samples' if at is last else 'time'}, {title}:",
                "",
                "| update | round | headroom | accuracy | mode | fidelity | kept | κ | F | "
                "entropy | distinct | s | tokens |",
                "|" + " --- |" * 13,
            ]
            for r in mine:
                x, room = r["rounds"][at[r["update"]]], None
                room = x["headroom_captured"]
                lines.append(
                    f"| {r['update']} | {at[r['update']]} | "
                    f"{'–' if room is None else f'{room:.1%}'} | {x['sampling_accuracy']:.3f} | "
                    f"{x['mode_accuracy']:.3f} | {x['fidelity']:.3f} | "
                    f"{x['base_mode_probability']:.3f} | {x['kappa']:.3f} | "
                    f"{x['failure_fraction']:.3f} | {x['entropy']:.2f} | "
                    f"{x['distinct_responses']:.2f} | {x['seconds']:.0f} | {x['tokens']:,} |"
                )
            lines.append("")
    lines += ["Settings beside the defaults: ", ""]
    lines += [
        f"- {name}: {changed or 'the defaults'}" for name, changed in result["choices"].items()
    ]
    return "\n".join(lines) + "\n"


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """Means over seeds after equal rounds, one table a start."""
    lines = [
        "## All seeds",
        "",
        "Means over the seeds after the same rounds; fidelity is the least.",
    ]
    for start in dict.fromkeys(r["start"] for r in rows):
        mine = [r for r in rows if r["start"] == start]
        seeds = sorted({r["seed"] for r in mine})
        lines += [
            "",
            f"{start}, seeds {', '.join(map(str, seeds))}:",
            "",
            "| update | headroom | accuracy | mode | fidelity, least | κ | s |",
            "|" + " --- |" * 7,
        ]
        for name in dict.fromkeys(r["update"] for r in mine):
            ends = [r["rounds"][-1] for r in mine if r["update"] == name]
            rooms = [x["headroom_captured"] for x in ends]
            room = "undefined"
            if None not in rooms:
                room = f"{np.mean(rooms):.1%} ({min(rooms):.0%} to {max(rooms):.0%})"

            def mean(key: str, ends: list[dict[str, Any]] = ends) -> float:
                return float(np.mean([x[key] for x in ends]))

            lines.append(
                f"| {name} | {room} | {mean('sampling_accuracy'):.3f} | "
                f"{mean('mode_accuracy'):.3f} | {min(x['fidelity'] for x in ends):.3f} | "
                f"{mean('kappa'):.3f} | {mean('seconds'):.0f} |"
            )
    return [*lines, ""]


def gathered() -> dict[str, Any]:
    """The parts as one result, in the order of starts, seeds and choices."""
    parts = [json.loads(f.read_text(encoding="utf-8")) for f in sorted(PARTS.glob("updates-*"))]
    parts.sort(key=lambda p: (STARTS.index(p["start"]), p["seed"]))
    return {
        "environment": parts[-1]["environment"],
        "prompts": parts[-1]["prompts"],
        "choices": parts[-1]["choices"],
        "rows": [row for part in parts for row in part["rows"]],
        "controls": [part["controls"] for part in parts],
    }


def main() -> None:
    """Run what is asked, write results and page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", nargs="+", default=list(STARTS), choices=STARTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=4096)
    parser.add_argument(
        "--only", nargs="*", default=None, help="updates to run, the first sets the time"
    )
    parser.add_argument("--page", action="store_true", help="gather the parts, run nothing")
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it runs")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.quick:
        asked.starts, asked.seeds = asked.starts[:1], asked.seeds[:1]
    names = asked.only or list(CHOICES)
    shared = {"rounds": asked.rounds, "samples.prompts": asked.prompts}
    for start, seed in [] if asked.page else product(asked.starts, asked.seeds):
        plain = config_of(start, seed, shared, asked.quick)
        rows = []
        for name in names:
            config = config_of(start, seed, shared | CHOICES[name], asked.quick)
            rows.append({"start": start, "seed": seed} | one(name, config))
            print(json.dumps(rows[-1]), flush=True)
        part = {
            "start": start,
            "seed": seed,
            "environment": environment(),
            "prompts": asked.prompts,
            "choices": {name: CHOICES[name] for name in names},
            "rows": rows,
            "controls": {"start": start, "seed": seed, "accuracy": controls(plain)},
        }
        if not asked.quick:
            PARTS.mkdir(parents=True, exist_ok=True)
            text = json.dumps(part, indent=1) + "\n"
            (PARTS / f"updates-{start}-{seed}.json").write_text(text, encoding="utf-8")
    if not asked.quick:
        result = gathered() if any(PARTS.glob("updates-*")) else kept("updates")
        write("updates", result, page(result))


if __name__ == "__main__":
    main()
