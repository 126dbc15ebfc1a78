"""docs/rewards.md out of the results of experiments/rewards.py."""

from __future__ import annotations

import shlex
from itertools import accumulate
from typing import Any

from srlm.cli import flag_of, options
from srlm.config import RunConfig

Row = dict[str, Any]


def page(result: dict[str, Any], asked: dict[str, Any]) -> str:
    """The page.

    Args:
        result: what experiments/results/rewards.json holds.
        asked: the settings by which the compare start is asked.
    """
    machine = result["environment"]
    lines = [
        "# The rewards compared",
        "",
        "Written by `python -m experiments.rewards --page`; do not edit. "
        f"{machine['processor']}, {machine['cores']} cores, one thread, torch {machine['torch']}.",
        "",
        "Equal samples, equal update; beta of equal strength, or for judges the best of those "
        "tried: on seeds outside the table for the compare start, on seeds 0 to 2 for the judge "
        "start, whose seeds 3 to 5 are fresh. The last round, and the base before it; s are "
        "processor seconds of all rounds, measuring left out:",
        "",
        *_ends(result["rows"]),
        "",
        "Equal time: the last round that ends within the seconds of likelihood's rounds from the "
        "same base.",
        "",
        *_within(result["rows"]),
        "",
        "Without training, accuracy on the held-out prompts:",
        "",
    ]
    for row in result["controls"]:
        kinds = ", ".join(f"{k} {v:.3f}" for k, v in row["accuracy"].items())
        lines.append(f"- {row['start']}, seed {row['seed']}: {kinds}")
    judged = [r for r in result["rows"] if "auc" in r["rounds"][0]]
    if judged:
        lines += ["", *_past_the_mode(judged), "", *_rounds(judged), "", *_commands(asked)]
    return "\n".join(lines) + "\n"


def _ends(rows: list[Row]) -> list[str]:
    """One line a run: the base and the last round."""
    lines = [
        "| start | seed | reward | beta | accuracy | greedy | mode | headroom | fidelity | κ | F | "
        "entropy | distinct of 16 | s | tokens |",
        "|" + " --- |" * 15,
    ]
    for row in rows:
        first, last = row["rounds"][0], row["rounds"][-1]
        headroom = last["headroom_captured"]

        def change(key: str, digits: int = 3, a: Row = first, b: Row = last) -> str:
            return f"{a[key]:.{digits}f} → {b[key]:.{digits}f}"

        lines.append(
            f"| {row['start']} | {row['seed']} | {row['reward']} | {row['beta']:.3g} | "
            f"{change('sampling_accuracy')} | {change('greedy_accuracy')} | "
            f"{change('mode_accuracy')} | {'–' if headroom is None else f'{headroom:.1%}'} | "
            f"{last['fidelity']:.3f} | {change('kappa')} | {change('failure_fraction')} | "
            f"{change('entropy', 2)} | {change('distinct', 1)} | "
            f"{sum(r['seconds'] for r in row['rounds']):.0f} | "
            f"{sum(r['tokens'] for r in row['rounds']):,} |"
        )
    return lines


def _within(rows: list[Row]) -> list[str]:
    """One line a run that has a likelihood run beside it."""
    lines = [
        "| start | seed | reward | round | s | accuracy | greedy | headroom | fidelity | κ |",
        "|" + " --- |" * 10,
    ]
    budgets = {
        (row["start"], row["seed"]): sum(r["seconds"] for r in row["rounds"])
        for row in rows
        if row["reward"] == "likelihood"
    }
    for row in rows:
        if (budget := budgets.get((row["start"], row["seed"]))) is None:
            continue
        until = list(accumulate(r["seconds"] for r in row["rounds"]))
        t = max(t for t, s in enumerate(until) if s <= budget)
        now = row["rounds"][t]
        room = now["headroom_captured"]
        lines.append(
            f"| {row['start']} | {row['seed']} | {row['reward']} | {t} | {until[t]:.0f} | "
            f"{now['sampling_accuracy']:.3f} | {now['greedy_accuracy']:.3f} | "
            f"{'–' if room is None else f'{room:.1%}'} | {now['fidelity']:.3f} | "
            f"{now['kappa']:.3f} |"
        )
    return lines


def _past_the_mode(rows: list[Row]) -> list[str]:
    """What a judge gains beyond the limit of the likelihood."""
    lines = [
        "## Past the mode",
        "",
        "Likelihood leads to the base's mode accuracy and no further. A judge's greedy accuracy "
        "less that, in rounds 1, 2, ...: it rises and may fall again. Where `--stop auto` ends "
        "runs: [forecasts beside runs](forecasts.md).",
        "",
        "| start | seed | reward | base's mode | gain by round |",
        "|" + " --- |" * 5,
    ]
    for row in rows:
        base = row["rounds"][0]["mode_accuracy"]
        gains = ", ".join(f"{r['greedy_accuracy'] - base:+.3f}" for r in row["rounds"][1:])
        lines.append(f"| {row['start']} | {row['seed']} | {row['reward']} | {base:.3f} | {gains} |")
    return lines


def _rounds(rows: list[Row]) -> list[str]:
    """The judges, round by round."""
    lines = [
        "## The judges, round by round",
        "",
        "AUC: how often the judge prefers a right sample to a wrong one of the same prompt (0.5 is "
        "a coin), on samples of its own policy and of the base. Votes: correlation of its "
        "scores with the answers' vote shares within prompts, which needs no labels, on the "
        "samples that the next round is trained on. Place: P(first) - 1/2 of the comparisons over "
        "both orders. Trained: judgements that the next round is trained on.",
        "",
        "| start | seed | reward | round | greedy | mode | accuracy | AUC own | AUC base | votes | "
        "spread | place | trained |",
        "|" + " --- |" * 13,
    ]
    for row in rows:
        for t, now in enumerate(row["rounds"]):
            ahead = row["rounds"][t + 1]["reward"] if t + 1 < len(row["rounds"]) else {}
            facts = ahead.get("facts", {})
            told = [
                ahead.get("vote_correlation"),
                ahead.get("spread"),
                facts.get("judge-pairwise: position bias"),
            ]
            trained = facts.get("meta-judge: judgements to train on")
            lines.append(
                f"| {row['start']} | {row['seed']} | {row['reward']} | {t} | "
                f"{now['greedy_accuracy']:.3f} | {now['mode_accuracy']:.3f} | "
                f"{now['sampling_accuracy']:.3f} | {now['auc']:.3f} | {now['auc_base']:.3f} | "
                + " | ".join("–" if x is None else f"{x:.3f}" for x in told)
                + f" | {'–' if trained is None else f'{trained:,.0f}'} |"
            )
    return lines


def _commands(asked: dict[str, Any]) -> list[str]:
    """How a user asks the same."""
    flag = {key: flag_of(field) for key, field in options(RunConfig)}
    told = " \\\n    ".join(f"{flag[k]} {shlex.quote(str(v))}" for k, v in asked.items())
    return [
        "## From the command line",
        "",
        "The compare start is asked in its corpus's own words, `y` and `n` for right and wrong, "
        "and for the first and the second:",
        "",
        "```sh",
        "srlm run --model BASE --prompts PROMPTS.jsonl --answer last-number --out runs/judged \\",
        "    --max-tokens 16 --stop auto --reward meta-judge --judge-train \\",
        f"    {told}",
        "```",
        "",
        "`--judge-train` trains the judge too: of each prompt the response whose judgements vary "
        "most gives a group of judgements, rewarded by how much the model prefers them, beside the "
        "group of responses (Meta-Rewarding).",
    ]
