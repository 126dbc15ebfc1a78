"""spectrum: the effective dimension under three regimes of decay, and of real features."""

from __future__ import annotations

from typing import Any

import numpy as np

from srlm.lab import instances
from srlm.lab.digits import digits
from srlm.lab.families import hidden_spectrum
from srlm.lab.fits import log_slope, slope
from srlm.lab.result import Finding
from srlm.lab.setting import Setting
from srlm.report.plots import COLORS, panels, series
from srlm.theory.dimension import (
    effective_dimension,
    exponential_bound,
    polynomial_bound,
    spiked_bound,
)
from srlm.theory.spectrum import fit_decay
from srlm.types import Estimate, Floats

D = 2000
RIDGES = np.geomspace(1e-6, 1e-1, 11)
EXPONENTIAL = (0.1, 0.5, 2.0)
POLYNOMIAL = (1.5, 2.0, 4.0)
SPIKED = ((4, 0.1), (16, 1.0))


def experiment(setting: Setting) -> Finding:
    """d_eff of spectra known in closed form against the formulas; spectra of real features."""
    table: list[dict[str, Any]] = []
    numbers: dict[str, Estimate | float] = {}
    traces = []
    for a in EXPONENTIAL:
        s, scale = instances.exponential(D, a), float(np.exp(a))
        seen = _rows(
            f"exponential, alpha = {a:g}", s, lambda r, a=a, c=scale: exponential_bound(c, a, r)
        )
        low = [row for row in seen if row["ridge"] <= 1e-2 and s[-1] < row["ridge"] / 100]
        numbers[f"d_eff per log(1/l), exponential {a:g} (1/alpha = {1 / a:g})"] = slope(
            [np.log(1 / row["ridge"]) for row in low], [row["d_eff"] for row in low]
        )
        table += seen
    for a in POLYNOMIAL:
        s = instances.polynomial(D, a)
        seen = _rows(f"polynomial, alpha = {a:g}", s, lambda r, a=a: polynomial_bound(1.0, a, r))
        low = [row for row in seen if row["ridge"] <= 1e-2 and s[-1] < row["ridge"] / 10]
        numbers[f"exponent of 1/l, polynomial {a:g} (1/alpha = {1 / a:g})"] = log_slope(
            [1 / row["ridge"] for row in low], [row["d_eff"] for row in low]
        )
        table += seen
    for rank, tail in SPIKED:
        s = instances.spiked(D, rank, tail)
        table += _rows(
            f"spiked, r = {rank}, tau = {tail:g}",
            s,
            lambda r, k=rank, m=tail: spiked_bound(k, m, r),
        )
    known = len(table)
    regimes = []
    for name, s in real_spectra(setting).items():
        fit = fit_decay(s)
        regimes.append(f"{name}: {fit.regime} ({fit.reason})")
        bound = None if fit.regime == "cannot be told" else fit.bound
        # Ridges are meant relative to the largest eigenvalue, which is 1 in the made spectra.
        scaled = None if bound is None else lambda r, b=bound, top=s[0]: b(r * top)
        table += _rows(name, s / s[0], scaled)
    for color, name in zip(
        COLORS * 3, dict.fromkeys(row["spectrum"] for row in table), strict=False
    ):
        chosen = [row for row in table if row["spectrum"] == name]
        x = [row["ridge"] for row in chosen]
        traces.append(series(x, [row["d_eff"] for row in chosen], name, color))
        if chosen[0]["formula"] is not None:
            dotted = series(x, [row["formula"] for row in chosen], name, color, dash="dot")
            traces.append(dotted | {"mode": "lines", "showlegend": False})
    over = max(row["d_eff"] / row["formula"] for row in table if row["formula"] is not None)
    gap = {
        law: max(
            row["formula"] - row["d_eff"]
            for row in table[:known]
            if row["spectrum"].startswith(law)
        )
        for law in ("exponential", "polynomial, alpha = 4")
    }
    numbers["largest d_eff / formula"] = over
    return Finding(
        claim="spectrum",
        instance=(
            f"{len(EXPONENTIAL) + len(POLYNOMIAL) + len(SPIKED)} spectra of D = {D:,} at "
            f"{len(RIDGES)} ridges; digits' pixels; the demo model's hidden states; "
            "ridges relative to the largest eigenvalue"
        ),
        figures=table,
        numbers=numbers,
        verdict="holds" if over <= 1 + 1e-12 else "violated",
        because=f"d_eff / formula is at most {over:.4f} over {len(table)} rows",
        says="log(1/l)/alpha, (1/l)^(1/alpha) and r + tau/l, with the constants of this package.",
        seen=(
            "The formulas hold. They are sharp: above d_eff by at most "
            f"{gap['exponential']:.2f} for exponential decay and "
            f"{gap['polynomial, alpha = 4']:.2f} for polynomial decay at alpha = 4, at every "
            f"ridge; slower polynomial decay is cut off at D = {D:,} and d_eff with it; the spiked "
            "formula is loose where l is below tau/D. Real features: " + "; ".join(regimes)
        ),
        plot=panels(
            traces, "ridge l", "d_eff (dotted: formula)", log_x=True, log_y=True, height=460
        ),
    )


def _rows(name: str, s: Floats, bound: Any) -> list[dict[str, Any]]:
    return [
        {
            "spectrum": name,
            "ridge": float(r),
            "d_eff": effective_dimension(s, float(r)),
            "formula": None if bound is None else bound(float(r)),
        }
        for r in RIDGES
    ]


def real_spectra(setting: Setting) -> dict[str, Floats]:
    """Covariance spectra of the digits' pixels and of the demo model's last hidden states."""
    _, train, _ = digits("good")
    v_ND = np.array([x.content for x in train])
    out = {"digits, pixels": np.linalg.eigvalsh(np.cov(v_ND.T))[::-1]}
    hidden = hidden_spectrum(setting)
    if hidden is not None:
        out[f"hidden states, {hidden[0]}"] = hidden[1]
    return out
