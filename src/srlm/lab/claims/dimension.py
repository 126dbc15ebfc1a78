"""dimension: the update's error against d and against d_eff, with and without noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import softmax

from srlm.lab import instances
from srlm.lab.bulk import Linear, bulk
from srlm.lab.fits import log_slope
from srlm.lab.result import Finding
from srlm.lab.setting import Setting
from srlm.report.plots import BLUE, GREEN, PURPLE, VERMILION, panels, series
from srlm.theory.dimension import effective_dimension
from srlm.types import Floats

X, M, BETA, KAPPA, N, MANY = 48, 16, 1.0, 4.0, 32, 1024
RIDGE, NOISE, HELD_EFF, HELD_D = 0.01, 1.0, 24.0, 128
DIMENSIONS = (28, 32, 48, 64, 96, 128, 192, 256)
EFFECTIVE = (8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0)


def experiment(setting: Setting) -> Finding:
    """One round: d varied at one d_eff, d_eff varied at one d; noise 0 and 1 nat."""
    replicates = setting.pick(64, 16)

    def cell(dimension: int, d_eff: float, noise: float, n: int, replicates: int) -> dict[str, Any]:
        rate = rate_for(dimension, d_eff)
        start = instances.linear(
            instances.exponential(dimension, rate),
            KAPPA,
            prompts=X,
            responses=M,
            seed=setting.seed,
        )
        paths = bulk(
            start,
            rounds=1,
            pairs=n,
            beta=BETA,
            replicates=replicates,
            seed=setting.seed,
            noise=noise,
        )
        error_R = relative_error(start, paths.theta_RD)
        return {
            "alpha": rate,
            "error": float(error_R.mean()),
            "kappa_1": float(paths.kappa_RT[:, 1].mean()),
        }

    def sweep(n: int, noise: float, held: str) -> list[dict[str, Any]]:
        grid = (
            [(d, HELD_EFF) for d in DIMENSIONS]
            if held == "d_eff"
            else [(HELD_D, e) for e in EFFECTIVE]
        )
        part = {"noise": noise, "n": n, "replicates": replicates}
        cells = [{"dimension": d, "d_eff": e} | part for d, e in grid]
        return setting.sweep("dimension", cells, cell)

    by_d, by_eff = sweep(N, 0.0, "d_eff"), sweep(N, 0.0, "d")
    noisy_d, noisy_eff = sweep(MANY, NOISE, "d_eff"), sweep(MANY, NOISE, "d")
    whole = sweep(MANY, 0.0, "d_eff")

    def fit(part: list[dict[str, Any]], key: str, least: float = 0.0) -> Any:
        chosen = [r for r in part if r["error"] > 1e-12 and r["dimension"] > least]
        return log_slope([r[key] for r in chosen], [r["error"] for r in chosen])

    in_d, in_eff = fit(by_d, "dimension", N), fit(by_eff, "d_eff")
    with_d, with_eff = fit(noisy_d, "dimension"), fit(noisy_eff, "d_eff")
    exact = max(r["error"] for r in whole)
    good = (in_eff.low or 0) > max(0.0, in_d.high or 9)
    noise_by_d = (with_d.low or 0) > (with_eff.high or 9)
    return Finding(
        claim="dimension",
        instance=(
            f"linear softmax, {X} prompts, {M} responses, kappa_0 = {KAPPA:g}, one round at beta = "
            f"{BETA:g}; spectrum exp(-alpha i) with alpha set so that d_eff(l = {RIDGE:g}) is as "
            f"wanted; {N} pairs without noise, {MANY:,} with {NOISE:g} nat of noise; {replicates} "
            "replicates a row"
        ),
        figures=[
            {"case": case} | r
            for case, part in (
                ("d varied", by_d),
                ("d_eff varied", by_eff),
                ("d varied, noise", noisy_d),
                ("d_eff varied, noise", noisy_eff),
            )
            for r in part
        ],
        numbers={
            f"exponent of d > {N} at d_eff = {HELD_EFF:g}": in_d,
            f"exponent of d_eff at d = {HELD_D}": in_eff,
            f"with noise, exponent of d at d_eff = {HELD_EFF:g}": with_d,
            f"with noise, exponent of d_eff at d = {HELD_D}": with_eff,
            f"largest error at {MANY:,} pairs without noise": exact,
        },
        verdict="holds"
        if good and not noise_by_d
        else "holds, loose by a factor"
        if good
        else "violated",
        because=(
            f"without noise the squared error goes as d_eff^{in_eff.value:.2f} at fixed d and "
            f"d^{in_d.value:.2f} at fixed d_eff (d > n); with noise as d^{with_d.value:.2f} and "
            f"d_eff^{with_eff.value:.2f}"
        ),
        says="eps^2 ~ d log(.)/n, or d_eff(l) in the place of d: an upper bound.",
        seen=(
            f"Without noise and with {MANY:,} pairs the update is exact at every d ({exact:.0e}): "
            "neither d nor d_eff matters. With fewer pairs than d only the energy in unseen "
            f"directions is lost, and the spectrum decides: the error moves as d^{in_d.value:.2f} "
            f"while d_eff is held, and as d_eff^{in_eff.value:.2f} while d is. With noise, least "
            "squares without a ridge pays about d sigma^2/n whatever the spectrum: there d_eff "
            "does not take the place of d, and would need a ridge in the update."
        ),
        plot=panels(
            [
                series([r["dimension"] for r in by_d], _shown(by_d), "d, at one d_eff", BLUE),
                series([r["dimension"] for r in noisy_d], _shown(noisy_d), "d, noise", PURPLE),
                series(
                    [r["d_eff"] for r in by_eff],
                    _shown(by_eff),
                    "d_eff, at one d",
                    VERMILION,
                    axis="2",
                ),
                series(
                    [r["d_eff"] for r in noisy_eff],
                    _shown(noisy_eff),
                    "d_eff, noise",
                    GREEN,
                    axis="2",
                ),
            ],
            ["d", "d_eff"],
            "relative squared error of one round",
            log_x=True,
            log_y=True,
        ),
    )


def rate_for(dimension: int, d_eff: float) -> float:
    """alpha with which exp(-alpha (i-1)), i <= d, has this effective dimension at RIDGE.

    >>> round(effective_dimension(instances.exponential(64, rate_for(64, 24.0)), RIDGE), 6)
    24.0
    """

    def gap(rate: float) -> float:
        return effective_dimension(instances.exponential(dimension, rate), RIDGE) - d_eff

    return float(brentq(gap, 1e-9, 5.0, xtol=1e-12))


def _shown(part: list[dict[str, Any]]) -> list[float | None]:
    return [r["error"] if r["error"] > 1e-14 else None for r in part]


def relative_error(start: Linear, theta_RD: Floats) -> Floats:
    """Squared error of log-ratios on fresh pairs of pi_0 over their squared size, [R].

    The exact round adds theta_0/beta; with S = E_x Cov_{y ~ pi_0}(phi), a miss e costs e^T S e.
    """
    pi_XM = softmax(start.phi_XMD @ start.theta_D, axis=1)
    centred = start.phi_XMD - np.einsum("xm,xmd->xd", pi_XM, start.phi_XMD)[:, None]
    flat = (centred * np.sqrt(pi_XM / len(pi_XM))[:, :, None]).reshape(-1, centred.shape[2])
    miss_RD = theta_RD - start.theta_D * (1 + 1 / BETA)
    return np.asarray(((miss_RD @ flat.T) ** 2).sum(1) / ((flat @ start.theta_D / BETA) ** 2).sum())
