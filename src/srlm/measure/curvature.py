"""The Fisher information's spectrum and the *Fisher condition number*: another quantity than kappa.

F(theta) = E_x E_{y ~ pi}[grad log pi grad log pi^T] (theory.md section 2). Its condition number,
largest over smallest non-negligible eigenvalue, says how unevenly the parameters shape the policy;
kappa says how hard the likeliest response is to hit. Beside it the effective dimension of the
features: phi for linear softmax, the last hidden states for networks ([SR] Cor. 6.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats
from scipy.sparse.linalg import eigsh

from srlm.errors import UserError
from srlm.measure.fisher_product import FisherProduct
from srlm.measure.spectrum_ends import ends, lanczos, small_end
from srlm.policies.base import Exact, LogLinear, Policy
from srlm.policies.hf import CausalLM
from srlm.theory.dimension import effective_dimension
from srlm.theory.spectrum import CANNOT_BE_TOLD, DecayFit, fit_decay
from srlm.types import Estimate, Floats, Prompt, Samples, rows_by_prompt

RIDGES = (1e-1, 1e-2, 1e-3)
"""Ridges of the effective dimension, as shares of the features' largest eigenvalue."""


@dataclass(frozen=True, slots=True)
class FisherSpectrum:
    """What is known of F(theta) and of the features' covariance."""

    parameters: int
    responses: int
    """Responses behind it; all of them where they are listed."""
    method: str
    largest: tuple[float, ...]
    """Largest eigenvalues, in falling order."""
    smallest: Estimate
    """Smallest eigenvalue that is not negligible."""
    rank: int | None
    """Eigenvalues that are not negligible; None: not known."""
    trace: Estimate
    condition: Estimate
    """The Fisher condition number. Undefined, with the reason, where it would be rounding."""
    features: str
    """Whose covariance ``spectrum`` is."""
    spectrum: tuple[float, ...]
    """Eigenvalues of the features' covariance, in falling order."""
    decay: DecayFit

    @property
    def dimensions(self) -> dict[float, float]:
        """d_eff at each of ``RIDGES`` times the largest eigenvalue of the features."""
        return {r: effective_dimension(self.spectrum, r * self.spectrum[0]) for r in RIDGES}

    def print(self, console: Console) -> None:
        """A table of 80 columns."""
        table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
        table.add_column(no_wrap=True)
        table.add_column()
        table.add_row("Fisher information", f"{self.parameters:,} parameters; {self.method}")
        table.add_row("largest eigenvalues", "  ".join(f"{x:.3g}" for x in self.largest[:5]))
        table.add_row("smallest, not negligible", _said(self.smallest))
        table.add_row("trace", _said(self.trace))
        table.add_row("Fisher condition number", _said(self.condition))
        dims = "  ".join(f"{d:.1f} at {r:g}" for r, d in self.dimensions.items())
        table.add_row(f"effective dimension of {len(self.spectrum)}", f"{dims} of the largest")
        table.add_row("", f"{self.features}; decay: {self.decay.regime} ({self.decay.reason})")
        console.print()
        console.print(table)

    def to_json(self) -> dict[str, Any]:
        """Numbers for programs."""
        top = self.spectrum[0]
        told = self.decay.regime != CANNOT_BE_TOLD
        return {
            "parameters": self.parameters,
            "responses": self.responses,
            "method": self.method,
            "largest_eigenvalues": list(self.largest),
            "smallest_eigenvalue": self.smallest.to_json(),
            "rank": self.rank,
            "trace": self.trace.to_json(),
            "fisher_condition_number": self.condition.to_json(),
            "features": {
                "of": self.features,
                "eigenvalues": list(self.spectrum),
                "effective_dimension": [
                    {"ridge": r * top, "ridge_share": r, "value": d,
                     "bound": self.decay.bound(r * top) if told else None}
                    for r, d in self.dimensions.items()
                ],
                "decay": self.decay.regime,
                "reason": self.decay.reason,
            },
        }  # fmt: skip


def fisher(
    policy: Policy,
    prompts: Sequence[Prompt],
    samples: Samples,
    *,
    responses: int = 128,
    top: int = 8,
    probes: int = 16,
    steps: int = 40,
    seed: int = 0,
) -> FisherSpectrum:
    """The Fisher spectrum: exact for log-linear policies that list responses, else matrix-free.

    Args:
        policy: a log-linear exact policy, or a causal model.
        prompts: what the expectation over x is taken over.
        samples: samples from the policy; not looked at where responses are listed.
        responses: samples used at most, spread over the prompts.
        top: largest eigenvalues asked for (SciPy's Lanczos).
        probes: random vectors of the trace (Hutchinson: unbiased; 95% interval of their mean).
        steps: Lanczos steps towards the small end.
        seed: of the random vectors.

    Raises:
        UserError: another kind of policy; weights in half precision; a product that is not finite.

    Cost: exact O(P M D min(P M, D)); else about ``probes`` + ``steps`` + 5 ``top`` products of
    a forward and three backward passes over the responses.
    """
    if isinstance(policy, LogLinear) and isinstance(policy, Exact):
        return _log_linear(policy, prompts, top)
    if isinstance(policy, CausalLM):
        chosen = _spread(samples, len(prompts), responses)
        return _network(policy, prompts, chosen, top, probes, steps, seed)
    raise UserError(
        f"Fisher information: not for {type(policy).__name__}",
        "give a causal language model or a linear-softmax policy",
    )


def _log_linear(policy: Any, prompts: Sequence[Prompt], top: int) -> FisherSpectrum:
    """F = E_x Cov_{y ~ pi}(phi), all eigenvalues."""
    every = policy.enumerate(prompts)
    phi_RD = policy.features(prompts, every.prompt_R, every.tokens_R)
    weight_R = every.weight_R / len(prompts)
    mean_PD = np.zeros((len(prompts), phi_RD.shape[1]))
    np.add.at(mean_PD, every.prompt_R, every.weight_R[:, None] * phi_RD)
    values = _squares(np.sqrt(weight_R)[:, None] * (phi_RD - mean_PD[every.prompt_R]))
    centred_RD = np.sqrt(weight_R)[:, None] * (phi_RD - weight_R @ phi_RD)
    D = phi_RD.shape[1]
    method = "all eigenvalues, responses enumerated"
    smallest, condition, rank = ends(values, D, method)
    spectrum = np.pad(np.sort(_squares(centred_RD))[::-1], (0, D))[:D]
    return FisherSpectrum(
        parameters=D,
        responses=len(every),
        method=method,
        largest=tuple(values[:top].tolist()),
        smallest=smallest,
        rank=rank,
        trace=Estimate(float(values.sum()), None, None, len(prompts), method, "exact"),
        condition=condition,
        features=f"features phi(x, y), {D} numbers",
        spectrum=tuple(spectrum.tolist()),
        decay=fit_decay(spectrum),
    )


def _squares(root_RD: Floats) -> Floats:
    """Eigenvalues of A^T A that A's shape lets be other than zero, falling."""
    return np.asarray(np.linalg.svd(root_RD, compute_uv=False) ** 2)


def _spread(samples: Samples, prompts: int, most: int) -> Samples:
    """At most ``most`` samples: the first of every prompt, then the second, ..."""
    rows_P = rows_by_prompt(samples.prompt_R, prompts)
    deepest = max(map(len, rows_P))
    order = [rows[k] for k in range(deepest) for rows in rows_P if k < len(rows)]
    return samples.take(np.array(order[:most]))


def _network(
    policy: CausalLM,
    prompts: Sequence[Prompt],
    samples: Samples,
    top: int,
    probes: int,
    steps: int,
    seed: int,
) -> FisherSpectrum:
    product = FisherProduct(policy, prompts, samples)
    D, rng = product.size, np.random.default_rng(seed)
    start_D = product.times(rng.choice([-1.0, 1.0], D))
    if not np.isfinite(start_D).all():
        raise UserError("Fisher information: not finite", "check the model's weights")
    largest, Q_DK = eigsh(product.operator(), k=min(top, D - 1), which="LA", v0=start_D, tol=1e-4)
    largest = largest[::-1]
    # tr F = tr(Q^T F Q) + tr F(1 - Q Q^T): probes are left with the rest, where they differ less.
    rest_K = []
    for _ in range(probes):
        z_D = rng.choice([-1.0, 1.0], D)
        z_D -= Q_DK @ (Q_DK.T @ z_D)
        rest_K.append(float(z_D @ product.times(z_D)))
    trace_K = float(largest.sum()) + np.array(rest_K)
    how = f"Hutchinson, {probes} probes beside the {len(largest)} largest"
    method = f"matrix-free, {len(samples)} samples"
    ritz = lanczos(product.times, start_D, min(steps, D))
    smallest, condition = small_end(float(largest[0]), ritz, product.epsilon, steps)
    states_NH = product.hidden_states()
    values = np.linalg.svd(states_NH - states_NH.mean(0), compute_uv=False) ** 2 / len(states_NH)
    return FisherSpectrum(
        parameters=D,
        responses=len(samples),
        method=method,
        largest=tuple(np.asarray(largest).tolist()),
        smallest=smallest,
        rank=None,
        trace=_mean(trace_K, how),
        condition=condition,
        features=f"last hidden states, {states_NH.shape[1]} numbers, {len(states_NH)} tokens",
        spectrum=tuple(np.pad(values, (0, states_NH.shape[1]))[: states_NH.shape[1]].tolist()),
        decay=fit_decay(values, floor=product.epsilon),
    )


def _mean(value_K: Floats, method: str) -> Estimate:
    """Mean of independent probes with Student's interval; the choice of samples is not in it."""
    n, centre = len(value_K), float(value_K.mean())
    half = float(stats.t.ppf(0.975, n - 1) * value_K.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    low, high = (None, None) if half is None else (centre - half, centre + half)
    return Estimate(centre, low, high, n, method, "estimate over these samples")


def _said(e: Estimate) -> str:
    if e.value is None:
        return e.note
    spread = f" [{e.low:.4g}, {e.high:.4g}]" if e.low is not None and e.high is not None else ""
    note = f"; {e.note}" if e.note else ""
    return f"{e.value:.4g}{spread}  {e.method}; {e.guarantee}{note}"
