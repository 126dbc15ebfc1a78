"""dimension: the update's error against d and against d_eff, with and without noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import softmax

from srlm.lab import CLAIMS, instances
from srlm.lab.bulk import Linear, bulk
from srlm.lab.fits import log_slope
from srlm.lab.plots import BLUE, GREEN, PURPLE, VERMILION, figure, line
from srlm.lab.result import Finding
from srlm.lab.setting import Setting
from srlm.theory.dimension import effective_dimension
from srlm.types import Floats

X, M, BETA, KAPPA, N = 48, 16, 1.0, 4.0, 64
RIDGE, NOISE, FIXED_D, FIXED_RATE = 0.01, 1.0, 256, 0.2
DIMENSIONS = (16, 32, 48, 96, 128, 192, 256)
RATES = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)


def experiment(setting: Setting) -> Finding:
    """One round of 64 pairs: d varied at one d_eff, d_eff varied at one d; noise 0 and 1 nat."""
    replicates = setting.pick(48, 16)

    def cell(dimension: int, rate: float, noise: float, n: int, replicates: int) -> dict[str, Any]:
        spectrum_D = instances.exponential(dimension, rate)
        start = instances.linear(
            spectrum_D, KAPPA, prompts=X, responses=M, seed=setting.seed
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
            "d_eff": effective_dimension(spectrum_D, RIDGE),
            "error": float(error_R.mean()),
            "kappa_1": float(paths.kappa_RT[:, 1].mean()),
        }

    def grid(n: int, noise: float, **fixed: Any) -> list[dict[str, Any]]:
        part = {"noise": noise, "n": n, "replicates": replicates} | fixed
        if "rate" in fixed:
            return [{"dimension": d} | part for d in DIMENSIONS if noise == 0 or d < n]
        return [{"rate": a} | part for a in RATES]

    many = 1024
    by_d = setting.sweep("dimension", grid(N, 0.0, rate=FIXED_RATE), cell)
    by_eff = setting.sweep("dimension", grid(N, 0.0, dimension=FIXED_D), cell)
    noisy_d = setting.sweep("dimension", grid(many, NOISE, rate=FIXED_RATE), cell)
    noisy_eff = setting.sweep("dimension", grid(many, NOISE, dimension=128), cell)

    def fit(part: list[dict[str, Any]], key: str, least: float = 0.0) -> Any:
        chosen = [r for r in part if r["error"] > 1e-12 and r["dimension"] > least]
        return log_slope([r[key] for r in chosen], [r["error"] for r in chosen])

    in_d, in_eff = fit(by_d, "dimension", N), fit(by_eff, "d_eff")
    with_d, with_eff = fit(noisy_d, "dimension"), fit(noisy_eff, "d_eff")
    spread = [r["d_eff"] for r in by_d]
    exact = max(r["error"] for r in by_d if r["dimension"] <= N // 2)
    good = (in_d.value or 9) < 0.5 * (in_eff.value or 0)
    noise_by_d = (with_d.value or 0) > 0.7 and (with_eff.value or 9) < 0.5 * (with_d.value or 0)
    return Finding(
        claim="dimension",
        statement=CLAIMS["dimension"].statement,
        source=CLAIMS["dimension"].source,
        instance=(
            f"linear softmax, {X} prompts, {M} responses, kappa_0 = {KAPPA:g}, one round at beta = "
            f"{BETA:g}; spectrum exp(-alpha i), d_eff at l = {RIDGE:g}; {N} pairs without noise, "
            f"{many:,} with {NOISE:g} nat of noise; {replicates} replicates a row"
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
            f"exponent of d > {N} at d_eff fixed": in_d,
            f"exponent of d_eff at d = {FIXED_D}": in_eff,
            "with noise, exponent of d at d_eff fixed": with_d,
            "with noise, exponent of d_eff at d = 128": with_eff,
            "largest error for d <= n/2, without noise": exact,
        },
        verdict="holds" if good and not noise_by_d else "holds, loose by a factor"
        if good
        else "violated",
        because=(
            f"without noise the squared error goes as d_eff^{in_eff.value:.2f} at fixed d and "
            f"d^{in_d.value:.2f} at fixed d_eff (d > n); with noise as d^{with_d.value:.2f} and "
            f"d_eff^{with_eff.value:.2f}"
        ),
        says="eps^2 ~ d log(.)/n, or d_eff(l) in the place of d: an upper bound.",
        seen=(
            f"Without noise and with n over d the update is exact ({exact:.0e} at d <= n/2): "
            "neither matters. With n below d only the energy in unseen directions is lost, which "
            f"the spectrum decides: at alpha = {FIXED_RATE:g} d_eff is {min(spread):.1f} to "
            f"{max(spread):.1f} while d goes from {DIMENSIONS[0]} to {DIMENSIONS[-1]}. With noise "
            "least squares without a ridge pays d sigma^2/n whatever the spectrum: there d_eff "
            "does not take the place of d, and it would need a ridge in the update."
        ),
        plot=figure(
            [
                line([r["dimension"] for r in by_d], _shown(by_d), "d, at one d_eff", BLUE),
                line([r["dimension"] for r in noisy_d], _shown(noisy_d), "d, noise", PURPLE),
                line([r["d_eff"] for r in by_eff], _shown(by_eff), "d_eff, at one d", VERMILION, axis="2"),
                line([r["d_eff"] for r in noisy_eff], _shown(noisy_eff), "d_eff, noise", GREEN, axis="2"),
            ],
            ["d", "d_eff"],
            "relative squared error of one round",
            log_x=True,
            log_y=True,
        ),
    )


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
    return np.asarray(
        ((miss_RD @ flat.T) ** 2).sum(1) / ((flat @ start.theta_D / BETA) ** 2).sum()
    )
