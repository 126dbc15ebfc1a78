"""greedy: decoding token by token finds the mode above p* = 1/2, and need not below."""

from __future__ import annotations

from typing import Any

import numpy as np

from srlm.lab.result import Finding
from srlm.lab.setting import Setting
from srlm.policies.tabular import Tabular, rows
from srlm.report.plots import BLUE, VERMILION, panels, series
from srlm.theory.greedy import greedy_trap
from srlm.types import Floats

STEPS, TOKENS = 4, 3


def experiment(setting: Setting) -> Finding:
    """The trap family, and random policies forced to each p*, through the production decoder."""
    levels = [0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.49, 0.5, 0.501, 0.51, 0.6, 0.8, 0.99]
    policies = setting.pick(2000, 400)

    def cell(p_star: float, policies: int) -> dict[str, Any]:
        trapped = trap_misses(p_star) if p_star <= 0.5 else None
        return {"trap missed": trapped, "random missed": random_misses(p_star, policies, setting)}

    cells = [{"p_star": p, "policies": policies} for p in levels]
    table = setting.sweep("greedy", cells, cell)
    below = [r for r in table if r["p_star"] <= 0.5]
    above = [r for r in table if r["p_star"] > 0.5]
    missed = sum(r["random missed"] for r in above)
    good = all(r["trap missed"] for r in below) and missed == 0
    return Finding(
        claim="greedy",
        instance=(
            f"trap family at {len(below)} confidences; {policies:,} random autoregressive "
            f"policies ({STEPS} steps of {TOKENS} tokens) with p* set to each of "
            f"{len(levels)} values; `Tabular.greedy` against the enumerated mode"
        ),
        figures=table,
        numbers={
            "traps missed": sum(bool(r["trap missed"]) for r in below) / len(below),
            "random policies missed above 1/2": float(missed) / len(above),
        },
        verdict="holds" if good else "violated",
        because=(
            f"greedy missed all {len(below)} traps with p* <= 1/2 and none of "
            f"{policies * len(above):,} random policies with p* > 1/2"
        ),
        says="p* > 1/2 and a unique mode: greedy returns the mode. Below: no guarantee.",
        seen=(
            "As claimed; at p* = 1/2 itself greedy misses only by a tie that falls to the trap. "
            f"A random policy is no trap: at p* = 0.1 greedy misses "
            f"{next(r['random missed'] for r in table if r['p_star'] == 0.1):.0%} of them."
        ),
        plot=panels(
            [
                series([r["p_star"] for r in table], [r["random missed"] for r in table], "random"),
                series(
                    [r["p_star"] for r in below],
                    [float(r["trap missed"]) for r in below],
                    "trap",
                    VERMILION,
                    mode="markers",
                ),
                series([0.5, 0.5], [0, 1], "p* = 1/2", BLUE, dash="dot", mode="lines"),
            ],
            "confidence p*",
            "share on which greedy misses the mode",
        ),
    )


def trap_misses(p_star: float) -> bool:
    """Whether the production policy's greedy decoding misses the trap's mode."""
    responses, probabilities = greedy_trap(p_star)
    # Every response ends by itself; a mode as likely as the trap's first token is a tie, and
    # ties go to the lower number.
    policy = Tabular(np.log([probabilities]), responses)
    (greedy,) = policy.greedy(rows(1), max_tokens=2).tokens_R
    return greedy != responses[0]


def random_misses(p_star: float, policies: int, setting: Setting) -> float:
    """Share of random policies with this p* whose greedy response is not the mode."""
    rng = np.random.default_rng([setting.seed, round(p_star * 1e6)])
    responses = tuple(np.ndindex(*[TOKENS] * STEPS))
    raw_PM = rng.exponential(size=(policies, len(responses))) ** 3
    table = Tabular(
        _with_mode(raw_PM, p_star, rng), tuple(tuple(int(t) for t in y) for y in responses)
    )
    prompts = rows(policies)
    greedy = table.greedy(prompts, max_tokens=STEPS).tokens_R
    modes = table.log_table(prompts).argmax(1)
    return sum(y != table.responses_M[m] for y, m in zip(greedy, modes, strict=True)) / policies


def _with_mode(raw_PM: Floats, p_star: float, rng: np.random.Generator) -> Floats:
    """log pi with exactly p* on one response and less on the others, [P, M]."""
    P, M = raw_PM.shape
    best_P = rng.integers(M, size=P)
    raw_PM[np.arange(P), best_P] = 0.0
    pi_PM = raw_PM / raw_PM.sum(1, keepdims=True) * (1 - p_star)
    ceiling = 0.9 * p_star
    for _ in range(60):  # what stands above the ceiling is spread over the others
        over_PM = np.maximum(pi_PM - ceiling, 0.0)
        room_PM = np.where(pi_PM < ceiling, ceiling - pi_PM, 0.0)
        room_PM[np.arange(P), best_P] = 0.0
        pi_PM = (
            pi_PM
            - over_PM
            + over_PM.sum(1, keepdims=True)
            * room_PM
            / np.maximum(room_PM.sum(1, keepdims=True), 1e-300)
        )
    pi_PM[np.arange(P), best_P] = p_star
    with np.errstate(divide="ignore"):
        return np.log(pi_PM)
