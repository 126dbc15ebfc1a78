"""The speed page's part on seconds to a share of the headroom."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
from markdown import of, table

Result = dict[str, Any]
STAGES = ("draw", "score", "update")
WORDS = {
    "prompts": "prompts a round",
    "draws": "draws",
    "prompts_per_step": "prompts a step",
    "epochs": "passes",
    "lr": "learning rate",
    "beta": "beta",
    "sft": "likelihood weight",
    "mu": "mu",
    "precompute": "reference beforehand",
}
"""The numbers that were searched."""


def reaching(result: Result) -> str:
    """Every side with the schedule that is fastest for it: tables."""
    tuning, turns = result["tuning"], result["turns"]
    seeds = sorted({t["seed"] for t in turns})
    less = "".join(f" ({name} to {share:.0%})" for name, share in tuning["less"].items())
    out = [
        "## Seconds to most of the headroom, each side with its own schedule\n",
        "The rounds above are all alike. Here every side has the schedule and settings that got it "
        f"to {tuning['share']:.0%} of the headroom most often in nine runs on seeds "
        f"{', '.join(map(str, tuning['seeds']))}{less}, which are not shown, and soonest "
        "among those: prompts a round, draws, passes, prompts a step, learning rate and, where a "
        "side has them, beta, the weight of DPO's likelihood term, mu (blocks of draws until k "
        "draws have k times their greatest probability at least mu), and whether TRL makes the "
        "reference's log-probabilities before training. *Sooner* is the plan with the least "
        "mean seconds where it got there, of those that did in two thirds of the nine runs, "
        "where that is another one. *trl dpo sigmoid* is TRL's DPO by its default loss; *trl "
        "dpo* may have the likelihood term beside. Plans were searched by one rule, from "
        "where an earlier search had ended, with the number of trials named below "
        "(`benchmarks/peers/searching.py`; all are in `results/reaching_tuning.json`). "
        "Optimiser and the shape of its schedule are the same for all. Drawing, scoring, "
        "datasets, the set-up of trainers, reference passes and updates are counted; what is "
        "paid once a process (imports, first calls, recorded steps) and the measuring of "
        "headroom are not.\n",
        f"Wall seconds to the end of the first round with the share, over {len(turns)} turns "
        f"on {len(seeds)} base models; a side stops after "
        f"{result['cap']:g} processor seconds, or when it has lost half of what it had captured:\n",
        table(
            ["", *result["sides"][next(iter(result["sides"]))]["to"], "rounds to 90%", *STAGES],
            [
                [
                    name,
                    *(_reached(x) for x in side["to"].values()),
                    f"{side['until_90']['rounds']:g}",
                    *(f"{side['until_90'][k]:.2f} s" for k in STAGES),
                ]
                for name, side in result["sides"].items()
            ],
        ),
        "How many times as long it takes, in the turns in which both got there:\n",
        table(
            ["", *next(iter(result["ratios"].values()))],
            [
                [name, *(of(x["seconds"]) if x["seconds"] else "" for x in shares.values())]
                for name, shares in result["ratios"].items()
            ],
        ),
        "What each side was tuned to:\n",
        table(
            ["", "trials", *WORDS.values()],
            [
                [
                    name,
                    str(result["trials"].get(name, "")),
                    *(_number(result["searched"][name], plan, k) for k in WORDS),
                ]
                for name, plan in result["plans"].items()
            ],
        ),
    ]
    return "\n".join(out)


def _reached(x: Result) -> str:
    if not x["reached"]:
        return "not reached"
    often = "" if x["reached"] == x["of"] else f", {x['reached']} of {x['of']} turns"
    return of(x["seconds"]) + often


def _number(searched: list[str], plan: Result, key: str) -> str:
    if key not in searched:
        return ""
    value = plan[key]
    if value is None:
        return "none"
    return ("no", "yes")[value] if isinstance(value, bool) else f"{value:g}"


def curves(result: Result, colors: tuple[str, ...]) -> go.Figure:
    """Headroom over wall seconds, a line for each turn, a colour for each side's surest plan."""
    figure = go.Figure()
    names = [name for name in result["sides"] if name in result["trials"]]
    for name, color in zip(names, colors, strict=True):
        for i, turn in enumerate(result["turns"]):
            rounds = turn["sides"][name]["rounds"]
            figure.add_scatter(
                x=[0.0, *(r["seconds_so_far"] for r in rounds)],
                y=[0.0, *(r["headroom"] for r in rounds)],
                name=name,
                legendgroup=name,
                showlegend=not i,
                mode="lines+markers",
                line={"color": color, "width": 1},
                marker={"size": 5},
                hovertemplate=f"{name}, seed {turn['seed']}: %{{y:.0%}} in %{{x:.1f}} s"
                "<extra></extra>",
            )
    figure.add_hline(y=0.9, line={"color": colors[-1], "dash": "dot"})
    return figure
