"""Many replicates of linear-softmax self-rewarding ([SR] Def. 6.1, section 6).

One round of a replicate, as ``self_reward`` does it with ``pairs.pairs`` and the square loss:
sample n prompts x uniformly, a pair y, y' ~ pi_theta(.|x) for each, then

    delta = min-norm least squares of phi(x,y) - phi(x,y') on (r - r')/beta,   r = log pi_theta,

theta <- theta + delta, projected to the ball |theta| <= radius. The prompts are the whole
population, so kappa and F are exact at every round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, ndtri

from srlm.errors import UserError
from srlm.lab import tabular
from srlm.lab.solve import min_norm
from srlm.theory.checks import check_count, check_positive
from srlm.types import Floats

BATCH = 64
"""Replicates at once; no result depends on it."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear softmax instance: X prompts (all of the population), M responses, D features."""

    phi_XMD: Floats
    theta_D: Floats
    """pi_0's parameters."""
    radius: float | None = None
    """R of the ball |theta| <= R."""


@dataclass(frozen=True, slots=True)
class Paths:
    """R replicates over T rounds; all but ``theta_RD`` are [R, T+1], round 0 being the start."""

    kappa_RT: Floats
    """E_x[1/p*]"""
    failure_RT: Floats
    """P_x[p* <= 1/2]"""
    least_RT: Floats
    """min_x p*"""
    theta_RD: Floats
    """After the last round."""


def bulk(
    instance: Linear,
    *,
    rounds: int,
    pairs: int,
    beta: float,
    replicates: int,
    seed: int,
    first: int = 0,
    noise: float = 0.0,
) -> Paths:
    """Replicates ``first``, ..., ``first + replicates - 1`` of ``rounds`` rounds.

    Args:
        instance: the start and its population.
        rounds: T, 0 or more.
        pairs: n per round, at least 1.
        beta: one exact round is pi^(1 + 1/beta).
        replicates: R.
        seed: with the replicate's number and the round it decides every sample.
        first: number of the first replicate.
        noise: standard deviation of a noise on each sample's reward, nats; 0 is the likelihood.

    Raises:
        UserError: pairs, beta, rounds or noise out of range, by name.

    Cost a replicate and round: 2 X M D + 2 n D^2 + D^3/3 operations (n > D).
    """
    check_count("n (pairs per round)", pairs)
    check_count("rounds", rounds, least=0)
    check_positive("beta", beta)
    if noise < 0:
        raise UserError(f"noise is {noise}", "give a standard deviation, 0 or more")
    parts = []
    for start in range(0, replicates, BATCH):
        part = np.arange(first + start, first + min(start + BATCH, replicates))
        theta_RD = np.tile(instance.theta_D, (len(part), 1))
        p_TRX = [_p_star(instance, theta_RD)]
        for t in range(rounds):
            theta_RD = _round(instance, theta_RD, part, t, pairs, beta, seed, noise)
            p_TRX.append(_p_star(instance, theta_RD))
        parts.append((np.stack(p_TRX, axis=1), theta_RD))
    p_RTX = np.concatenate([p for p, _ in parts])
    return Paths(
        kappa_RT=(1 / p_RTX).mean(2),
        failure_RT=(p_RTX <= 0.5).mean(2),
        least_RT=p_RTX.min(2),
        theta_RD=np.concatenate([theta for _, theta in parts]),
    )


def _logp(instance: Linear, theta_RD: Floats) -> Floats:
    X, M, D = instance.phi_XMD.shape
    logit_RN = theta_RD @ instance.phi_XMD.reshape(X * M, D).T
    return np.asarray(log_softmax(logit_RN.reshape(-1, X, M), axis=2))


def _p_star(instance: Linear, theta_RD: Floats) -> Floats:
    return np.exp(_logp(instance, theta_RD).max(2))


def _round(
    instance: Linear,
    theta_RD: Floats,
    part: np.ndarray,
    t: int,
    pairs: int,
    beta: float,
    seed: int,
    noise: float,
) -> Floats:
    """theta after round t of the replicates ``part``, [R, D]."""
    phi, logp_RXM = instance.phi_XMD, _logp(instance, theta_RD)
    x_Rn, y_Rn, z_Rn = tabular.draw(logp_RXM, np.ones(len(phi)), pairs, seed=seed, t=t, part=part)
    row = np.arange(len(part))[:, None]
    gap_Rn = logp_RXM[row, x_Rn, y_Rn] - logp_RXM[row, x_Rn, z_Rn]
    if noise:
        e_R2n = noise * ndtri(tabular.uniforms(seed, part, t, 5 * pairs)[:, 3 * pairs :])
        gap_Rn += e_R2n[:, :pairs] - e_R2n[:, pairs:]
    after_RD = theta_RD + [
        min_norm(phi[x, y] - phi[x, z], gap / beta)
        for x, y, z, gap in zip(x_Rn, y_Rn, z_Rn, gap_Rn, strict=True)
    ]
    if instance.radius is not None:
        size_R1 = np.linalg.norm(after_RD, axis=1, keepdims=True)
        after_RD *= np.minimum(instance.radius / size_R1, 1.0)
    return np.asarray(after_RD)
