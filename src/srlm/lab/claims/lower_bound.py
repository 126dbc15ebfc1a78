"""lower-bound: the hard family's envelope, its slopes, and the closed form underneath it."""

from __future__ import annotations

from typing import Any

import numpy as np

from srlm.lab.fits import log_slope
from srlm.lab.result import Finding, Verdict
from srlm.lab.setting import Setting
from srlm.report.plots import COLORS, FAINT, panels, series
from srlm.theory.adversary import envelope
from srlm.theory.hard_family import simulate_failure
from srlm.theory.lower_bound import STATED_CEILING, STATED_CONSTANT, lower_bound_delta

PROMPTS = 32
KAPPAS = tuple(2.0**k for k in range(1, 9))
LOG_CLASS = 200.0


def experiment(setting: Setting) -> Finding:
    """The worst instance for each n and kappa_0, exactly; some of them simulated."""
    sizes = [int(n) for n in np.geomspace(3e3, 3e7, setting.pick(17, 9))]

    def exact(n: int, kappa0: float) -> dict[str, Any]:
        worst = envelope(n, kappa0, prompts=PROMPTS)
        log_class = worst.instance.log_class
        floor = min(STATED_CEILING, lower_bound_delta(n, kappa0, log_class, STATED_CONSTANT))
        # In the theorem's own terms: the class fixed, not the number of prompts.
        fixed = envelope(n, kappa0, log_class=LOG_CLASS)
        return {
            "failure": worst.failure,
            "formula": floor,
            "failure / formula": worst.failure / floor,
            "responses": worst.instance.responses,
            "normalised": worst.ratio,
            "failure, class fixed": fixed.failure,
        }

    cells = [{"n": n, "kappa0": k} for k in KAPPAS for n in sizes]
    table = setting.sweep("lower-bound", cells, exact)
    simulated = simulate(setting)
    small = 0.25  # nearer to 1 the loss saturates and no power law is meant

    def pick(key: str, value: float, column: str) -> tuple[list[float], list[float]]:
        chosen = [r for r in table if r[key] == value and r[column] and r["failure"] <= small]
        other = "kappa0" if key == "n" else "n"
        return [r[other] for r in chosen], [r[column] for r in chosen]

    in_n = {k: log_slope(*pick("kappa0", k, "failure")) for k in KAPPAS}
    top = sizes[-1]
    in_kappa = log_slope(*pick("n", top, "failure"))
    in_kappa_fixed = log_slope(*pick("n", top, "failure, class fixed"))
    ks, fails = pick("n", top, "failure")
    in_hidden = log_slope([k - 1 for k in ks], fails)
    worst_n = max((abs((e.value or 0) + 0.5), k) for k, e in in_n.items())
    least = min(r["failure / formula"] for r in table)
    # how the formula itself leans on kappa_0 over the same range, at the same log|Pi|
    lean = log_slope(ks, [r["formula"] for r in table if r["n"] == top and r["kappa0"] in ks])
    agrees = all(abs(s["z"]) < 4 for s in simulated)
    steady = worst_n[0] < 0.02
    verdict: Verdict = "holds" if least >= 1 and steady and agrees else "violated"
    ratios = [r["normalised"] for r in table if r["failure"] <= small]
    return Finding(
        claim="lower-bound",
        instance=(
            f"hard family, d = {PROMPTS} prompts (and log|Pi| = {LOG_CLASS:g} fixed), the "
            f"adversary picks Delta for each n; n = {sizes[0]:,} to {sizes[-1]:,}, kappa_0 = 2 "
            f"to 256; exact, and simulated at {len(simulated)} points"
        ),
        figures=table,
        numbers={
            **{f"slope in n, kappa_0 = {k:g}": e for k, e in in_n.items()},
            "slope in kappa_0, d fixed": in_kappa,
            "slope in kappa_0 - 1, d fixed": in_hidden,
            "slope in kappa_0, log|Pi| fixed": in_kappa_fixed,
            "slope of the formula in kappa_0, d fixed": lean,
            "least failure / formula": least,
            "largest |z| of the simulations": max(abs(s["z"]) for s in simulated),
            "normalised, least": min(ratios),
            "normalised, most": max(ratios),
        },
        verdict=verdict,
        because=(
            f"failure / formula with c = {STATED_CONSTANT} is never below {least:.3f}; slope in n "
            f"off -1/2 by at most {worst_n[0]:.4f} (kappa_0 = {worst_n[1]:g})"
        ),
        says=(
            "delta ~ sqrt(kappa_0 log|Pi| / n) up to a logarithm: slopes -1/2 in n, +1/2 in "
            "kappa_0."
        ),
        seen=(
            f"In n -1/2 everywhere. In kappa_0 the slope is {in_kappa.value:.3f} at d fixed and "
            f"{in_kappa_fixed.value:.3f} at log|Pi| fixed over 2 to 256: the family loses as "
            f"sqrt(kappa_0 - 1) (slope {in_hidden.value:.3f} in kappa_0 - 1), which is not "
            "sqrt(kappa_0) near 1, and so c cannot serve all kappa_0 >= 1. Failure over "
            "sqrt(kappa_0 log|Pi|/(n (1 + log(kappa_0/delta)))) lies between "
            f"{min(ratios):.2f} and {max(ratios):.2f}."
        ),
        plot=draw(table, sizes),
    )


def simulate(setting: Setting) -> list[dict[str, Any]]:
    """The learner on simulated triples at a few worst instances, in standard errors."""

    def cell(n: int, kappa0: float, replicates: int) -> dict[str, Any]:
        worst = envelope(n, kappa0, prompts=PROMPTS)
        rng = np.random.default_rng([setting.seed, n, int(kappa0)])
        mean, error = simulate_failure(worst.instance, n, replicates, rng)
        return {"mean": mean, "error": error, "z": (mean - worst.failure) / error}

    cells = [
        {"n": n, "kappa0": k, "replicates": setting.pick(400, 100)}
        for n, k in ((3_000, 2.0), (3_000, 32.0), (30_000, 4.0), (30_000, 256.0))
    ]
    return setting.sweep("lower-bound-simulated", cells, cell)


def draw(table: list[dict[str, Any]], sizes: list[int]) -> dict[str, Any]:
    """Failure against n for some kappa_0 with the formula dotted, and against kappa_0."""
    traces = []
    for color, k in zip(COLORS, (2.0, 8.0, 32.0, 256.0), strict=False):
        chosen = [r for r in table if r["kappa0"] == k]
        n = [r["n"] for r in chosen]
        traces.append(series(n, [r["failure"] for r in chosen], f"kappa_0 = {k:g}", color))
        formula = series(n, [r["formula"] for r in chosen], "formula", color, dash="dot")
        traces.append(formula | {"mode": "lines", "showlegend": False})
    for size in sizes[:: max(1, len(sizes) // 3)]:
        chosen = [r for r in table if r["n"] == size]
        x = [r["kappa0"] for r in chosen]
        traces.append(
            series(x, [r["failure"] for r in chosen], f"n = {size:,}", FAINT, axis="2")
            | {"showlegend": False}
        )
    return panels(
        traces, ["triples, n", "kappa_0"], "lost mass (dotted: formula)", log_x=True, log_y=True
    )
