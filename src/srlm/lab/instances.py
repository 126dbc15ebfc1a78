"""Instances of the theory: starts with a prescribed condition number, dimension and spectrum.

Features have |phi| <= 1 ([SR] Def. 6.1). The hard family is ``srlm.theory.hard_instance``, the
greedy traps ``srlm.theory.greedy``, the digits ``srlm.lab.digits``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax

from srlm.errors import UserError
from srlm.lab.bulk import Linear
from srlm.theory.checks import check_kappa, check_positive
from srlm.types import Floats


def exponential(dimension: int, rate: float) -> Floats:
    """s_i = exp(-rate (i - 1)), i = 1..D, [D].

    >>> exponential(3, 1.0).round(3)
    array([1.   , 0.368, 0.135])
    """
    return np.exp(-check_positive("rate", rate) * np.arange(dimension))


def polynomial(dimension: int, rate: float) -> Floats:
    """s_i = i^-rate, [D].

    >>> polynomial(3, 2.0).round(3)
    array([1.   , 0.25 , 0.111])
    """
    return np.arange(1.0, dimension + 1) ** -check_positive("rate", rate)


def spiked(dimension: int, rank: int, tail_mass: float) -> Floats:
    """``rank`` ones and a flat tail that sums to ``tail_mass``, [D].

    >>> spiked(4, 2, 0.1).tolist()
    [1.0, 1.0, 0.05, 0.05]
    """
    if not 0 < rank < dimension:
        raise UserError(f"rank is {rank}", f"give a rank between 1 and {dimension - 1}")
    return np.r_[np.ones(rank), np.full(dimension - rank, tail_mass / (dimension - rank))]


def linear(spectrum_D: Floats, kappa0: float, *, prompts: int, responses: int, seed: int) -> Linear:
    """A linear softmax start with this condition number and this spectrum of features.

    phi is a random matrix turned so that its X M rows have exactly the covariance (about 0)
    diag(spectrum), up to one factor that makes the longest row 1; theta points in a random
    direction and is as long as kappa needs.

    Raises:
        UserError: kappa0 is below 1, or not below the number of responses; too few rows.
    """
    check_kappa("kappa0", kappa0)
    if not 1.0 < kappa0 < responses:
        raise UserError(
            f"kappa0 is {kappa0:g} with {responses} responses",
            "give kappa0 above 1 and below the number of responses",
        )
    rows, D = prompts * responses, len(spectrum_D)
    if rows < D:
        raise UserError(
            f"{rows} prompts times responses span no {D} dimensions", "give more prompts"
        )
    rng = np.random.default_rng([seed, D, prompts, responses])
    raw_ND = rng.standard_normal((rows, D))
    white_ND = np.linalg.qr(raw_ND)[0] * np.sqrt(rows)
    phi_ND = white_ND * np.sqrt(spectrum_D)
    phi_ND /= np.linalg.norm(phi_ND, axis=1).max()
    start = Linear(
        phi_ND.reshape(prompts, responses, D), rng.standard_normal(D) * np.sqrt(spectrum_D)
    )
    return with_kappa(start, kappa0)


def with_kappa(instance: Linear, kappa0: float) -> Linear:
    """The start along the same direction that has this condition number.

    kappa falls from M at theta = 0 to the number of tied modes at infinity, always.

    >>> start = linear(exponential(4, 0.5), 3.0, prompts=8, responses=6, seed=0)
    >>> round(kappa(start), 9)
    3.0
    """
    logit_XM = instance.phi_XMD @ instance.theta_D
    unit = float(np.abs(logit_XM).max())

    def gap(log_scale: float) -> float:
        return _kappa(logit_XM * (np.exp(log_scale) / unit)) - kappa0

    scale = np.exp(brentq(gap, -20.0, 20.0, xtol=1e-14, rtol=1e-14)) / unit
    return replace(instance, theta_D=instance.theta_D * scale)


def kappa(instance: Linear) -> float:
    """kappa of the start, exact."""
    return _kappa(instance.phi_XMD @ instance.theta_D)


def _kappa(logit_XM: Floats) -> float:
    return float(np.exp(-log_softmax(logit_XM, axis=1).max(axis=1)).mean())
