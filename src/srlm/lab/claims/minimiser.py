"""minimiser: one round gives pi^(1 + 1/beta) as soon as the pairs span the features."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import log_softmax

from srlm import pairs
from srlm import train as update
from srlm.config import MeasureSettings, SampleSettings, UpdateSettings
from srlm.lab import instances, tabular
from srlm.lab.bulk import Linear, bulk
from srlm.lab.fits import mean_of
from srlm.lab.result import Finding
from srlm.lab.setting import Setting
from srlm.loop import self_reward
from srlm.policies.listed import Listed
from srlm.policies.tabular import Tabular, rows
from srlm.report.plots import BLUE, VERMILION, panels, series
from srlm.rewards.likelihood import likelihood
from srlm.rounds import Method
from srlm.run_folder import Memory
from srlm.types import Bools, Floats

X, M, D, BETA, KAPPA = 24, 8, 16, 2.0, 3.0
EXACT = 1e-8


def experiment(setting: Setting) -> Finding:
    """Distance of the trained policy from the closed form, by the number of pairs."""
    replicates = setting.pick(400, 100)

    def cell(n: int, replicates: int) -> dict[str, Any]:
        start = instances.linear(
            instances.exponential(D, 0.2), KAPPA, prompts=X, responses=M, seed=setting.seed
        )
        paths = bulk(start, rounds=1, pairs=n, beta=BETA, replicates=replicates, seed=setting.seed)
        target_XM = closed_form(start)
        got_RXM = log_softmax(np.tensordot(paths.theta_RD, start.phi_XMD, (1, 2)), axis=2)
        distance_R = 0.5 * np.abs(np.exp(got_RXM) - np.exp(target_XM)).sum(2).mean(1)
        spans_R = spans(start, n, replicates, setting.seed)
        return {
            "spanning": float(spans_R.mean()),
            "worst where they span": float(distance_R[spans_R].max()) if spans_R.any() else None,
            "mean where not": float(distance_R[~spans_R].mean()) if (~spans_R).any() else None,
            "all": mean_of(distance_R).to_json()["value"],
        }

    cells = [{"n": n, "replicates": replicates} for n in (4, 8, 12, 16, 20, 24, 32, 48, 64, 96)]
    table = setting.sweep("minimiser", cells, cell)
    loops = {name: through_loop(name, setting.seed) for name in ("square", "weighted")}
    worst = max([r["worst where they span"] or 0.0 for r in table] + list(loops.values()))
    short = [r for r in table if r["n"] < D]
    return Finding(
        claim="minimiser",
        instance=(
            f"linear softmax, {X} prompts, {M} responses, D = {D}, kappa_0 = {KAPPA:g}, "
            f"beta = {BETA:g}, {replicates} replicates a row; and `self_reward` on a 12 x 6 table, "
            "enumerated, square and weighted loss"
        ),
        figures=table,
        numbers={
            "largest distance where the pairs span": worst,
            "largest distance through self_reward, square": loops["square"],
            "largest distance through self_reward, weighted": loops["weighted"],
        },
        verdict="holds" if worst < EXACT else "violated",
        because=(
            f"largest total variation from pi^(1 + 1/beta) is {worst:.1e} wherever the pairs "
            f"span the features (limit {EXACT:.0e})"
        ),
        says="The minimiser of the square loss is pi^(1 + 1/beta), if the class contains it.",
        seen=(
            "Exact to rounding once the differences of features span; with fewer than D = "
            f"{D} pairs none does, and the mean distance is {short[0]['all']:.3f} at n = "
            f"{short[0]['n']}, {short[-1]['all']:.3f} at n = {short[-1]['n']}: the minimum-norm "
            "solution sharpens only the directions that were seen."
        ),
        plot=panels(
            [
                series([r["n"] for r in table], [r["all"] for r in table], "mean distance", BLUE),
                series(
                    [r["n"] for r in table],
                    [r["spanning"] for r in table],
                    "share of replicates whose pairs span",
                    VERMILION,
                    dash="dot",
                ),
            ],
            "pairs of the round, n",
            "total variation from pi^(1 + 1/beta)",
        ),
    )


def closed_form(start: Linear) -> Floats:
    """log of pi_0^(1 + 1/beta) normalised, [X, M]."""
    base_XM = log_softmax(start.phi_XMD @ start.theta_D, axis=1)
    return np.asarray(log_softmax((1 + 1 / BETA) * base_XM, axis=1))


def spans(start: Linear, n: int, replicates: int, seed: int) -> Bools:
    """Whether the differences of features that each replicate of ``bulk`` sampled have rank D, [R]:
    by singular values."""
    logp_XM = log_softmax(start.phi_XMD @ start.theta_D, axis=1)
    logp_RXM, part = np.tile(logp_XM, (replicates, 1, 1)), np.arange(replicates)
    x_Rn, y_Rn, z_Rn = tabular.draw(logp_RXM, np.ones(X), n, seed=seed, t=0, part=part)
    difference_RnD = start.phi_XMD[x_Rn, y_Rn] - start.phi_XMD[x_Rn, z_Rn]
    return np.asarray(np.linalg.matrix_rank(difference_RnD) == D)


def through_loop(loss: str, seed: int) -> float:
    """Largest total variation from the closed form in three rounds of ``self_reward``."""
    rng = np.random.default_rng(seed)
    policy = Tabular(1.5 * rng.standard_normal((12, 6)))
    objective = update.square_objective if loss == "square" else update.weighted_objective
    recipe = Method(
        SampleSettings(source="enumerate"),
        likelihood,
        pairs.groups,
        objective,
        UpdateSettings(beta=BETA),
        MeasureSettings(),
    )
    memory, prompts = Memory(), rows(12)
    base_PM, worst = policy.log_table(prompts), 0.0
    for done in self_reward(policy, prompts, prompts, method=recipe, rounds=3, folder=memory):
        if done.round:
            assert isinstance(memory.policy, Listed)
            target_PM = log_softmax((1 + 1 / BETA) ** done.round * base_PM, axis=1)
            gap_PM = np.exp(memory.policy.log_table(prompts)) - np.exp(target_PM)
            worst = max(worst, float(0.5 * np.abs(gap_PM).sum(1).max()))
    return worst
