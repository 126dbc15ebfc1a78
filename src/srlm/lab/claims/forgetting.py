"""forgetting: how long kappa_0 is felt, by kappa_0 and by the pairs of a round."""

from __future__ import annotations

from typing import Any

import numpy as np

from srlm.lab import instances
from srlm.lab.bulk import bulk
from srlm.lab.fits import slope
from srlm.lab.result import Finding
from srlm.lab.setting import Setting
from srlm.report.plots import COLORS, panels, series
from srlm.theory.compact import rounds_to_forget

X, M, D, BETA, ROUNDS = 32, 256, 16, 1.0, 12
KAPPAS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
SIZES = (8, 16, 24, 64, 256)
TARGET = 1.5
"""The start is forgotten where kappa is below this."""


def experiment(setting: Setting) -> Finding:
    """Rounds until kappa is below 1.5, along one direction of theta, for each start and n."""
    replicates = setting.pick(128, 32)

    def cell(kappa0: float, n: int, replicates: int) -> dict[str, Any]:
        start = instances.linear(
            instances.exponential(D, 0.1), kappa0, prompts=X, responses=M, seed=setting.seed
        )
        paths = bulk(
            start, rounds=ROUNDS, pairs=n, beta=BETA, replicates=replicates, seed=setting.seed
        )
        below = paths.kappa_RT <= TARGET
        needed_R = np.where(below.any(1), below.argmax(1), ROUNDS + 1)
        return {
            "rounds needed": float(needed_R.mean()),
            "never in 12": float((~below.any(1)).mean()),
            "path": paths.kappa_RT.mean(0).tolist(),
        }

    cells = [{"kappa0": k, "n": n, "replicates": replicates} for n in SIZES for k in KAPPAS]
    raw = setting.sweep("forgetting", cells, cell)
    table = [{k: v for k, v in r.items() if k != "path"} for r in raw]

    def needed(n: int) -> list[float]:
        return [r["rounds needed"] for r in table if r["n"] == n]

    slopes = {n: slope(np.log(KAPPAS), needed(n), "rounds on log kappa_0") for n in SIZES}
    falls = all(a >= b - 0.2 for a, b in zip(needed(SIZES[0]), needed(SIZES[-1]), strict=True))
    worst = max(needed(SIZES[-1]))
    reached = [n for n in SIZES if max(r["never in 12"] for r in table if r["n"] == n) == 0]
    influence = [
        (t, abs(np.log(a) - np.log(b)))
        for t, (a, b) in enumerate(
            zip(_path(raw, SIZES[-1], KAPPAS[-1]), _path(raw, SIZES[-1], KAPPAS[0]), strict=True)
        )
    ]
    told = [rounds_to_forget(k, 1.2, 1.0) for k in KAPPAS]
    steep = slopes[SIZES[-1]]
    return Finding(
        claim="forgetting",
        instance=(
            f"linear softmax, {X} prompts, {M} responses, D = {D}, beta = {BETA:g}; theta along "
            f"one direction, kappa_0 = 2 to 128; {replicates} replicates a row"
        ),
        figures=table,
        numbers={
            **{f"rounds a unit of log kappa_0, n = {n}": e for n, e in slopes.items()},
            "rounds needed from kappa_0 = 128, most pairs": worst,
        },
        verdict="holds" if falls and bool(reached) and worst <= ROUNDS else "violated",
        because=(
            f"rounds until kappa <= {TARGET:g} rise by {steep.value:.2f} [{steep.low:.2f}, "
            f"{steep.high:.2f}] a unit of log kappa_0 at n = {SIZES[-1]}, and fall with n: from "
            f"kappa_0 = 128 {needed(24)[-1]:.1f} at n = 24, {worst:.1f} at n = {SIZES[-1]}"
        ),
        says=(
            "Rounds to forget grow as log kappa_0 / log(1/lambda), and are fewer for larger n. "
            f"(At a = 1.2, B' = 1: {told[0]} to {told[-1]} rounds for kappa_0 = 2 to 128.)"
        ),
        seen=(
            "Logarithmic growth or slower. Once n is well over D the rounds no longer depend on "
            "n, since the update is exact. With n below D directions stay unseen in every round "
            f"and some starts are not forgotten in {ROUNDS} rounds "
            f"({max(r['never in 12'] for r in table):.0%} at worst). The influence of the start, "
            f"|log kappa_t(128) - log kappa_t(2)|, falls from {influence[0][1]:.2f} to "
            f"{influence[4][1]:.2f} in 4 rounds and {influence[8][1]:.1e} in 8."
        ),
        plot=panels(
            [
                series(list(KAPPAS), needed(n), f"n = {n}", COLORS[i % len(COLORS)])
                for i, n in enumerate(SIZES)
            ]
            + [
                series(
                    [t for t, _ in influence],
                    [v if v > 1e-12 else None for _, v in influence],
                    f"influence, n = {SIZES[-1]}",
                    COLORS[-1],
                    dash="dot",
                    axis="2",
                )
            ],
            ["kappa_0", "round"],
            [f"rounds until kappa <= {TARGET:g}", "|log kappa_t(128) - log kappa_t(2)|"],
            log_x=[True, False],
            log_y=[False, True],
        ),
    )


def _path(raw: list[dict[str, Any]], n: int, kappa0: float) -> list[float]:
    return next(r["path"] for r in raw if r["n"] == n and r["kappa0"] == kappa0)
