"""Thousands of replicates of linear-softmax self-rewarding at once ([SR] Def. 6.1, section 6).

One round of a replicate, as ``align`` does it with ``pairs.pairs`` and ``update.square_objective``:
draw n prompts x uniformly, a pair y, y' ~ pi_theta(.|x) for each, then

    delta = min-norm least squares of phi(x,y) - phi(x,y') on (r - r')/beta,   r = log pi_theta,

theta <- theta + delta, projected to the ball |theta| <= radius. The prompts are the whole
population, so kappa, F, confidence and fidelity are exact at every round. Numbers are drawn by
counter (``counter.uniforms``): results do not depend on the size of the batch. ``twin.py`` is the
same through ``align``, one replicate at a time.

Everything is float64: with float32 logits one draw in 1e5 would differ from the twin's, and a
float32 Gram matrix needs refinement steps that cost what it saves (measured).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri

from srlm.errors import UserError
from srlm.lab.counter import uniforms
from srlm.lab.solve import min_norm
from srlm.theory.bounds import check_count, check_positive
from srlm.types import Floats, Ints

CHUNK = 1 << 19
"""Numbers of the logit table held at once: 4 MB, about a core's caches."""


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
    confidence_RT: Floats
    """E_x[p*]"""
    fidelity_RT: Floats
    """P_x[the start's mode is still one]"""
    least_RT: Floats
    """min_x p*"""
    theta_RD: Floats
    """After the last round."""
    hard: int
    """Least-squares problems that needed singular values."""


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
    chunk: int | None = None,
    advance: Callable[[int], None] = lambda replicates: None,
) -> Paths:
    """Replicates ``first``, ..., ``first + replicates - 1`` of ``rounds`` rounds.

    Args:
        instance: the start and its population.
        rounds: T, 0 or more.
        pairs: n a round, at least 1.
        beta: one exact round is pi^(1 + 1/beta).
        replicates: R.
        seed: with the replicate's number and the round it decides every draw.
        first: number of the first replicate.
        noise: standard deviation of a noise on each draw's reward, nats; 0 is the likelihood.
        chunk: replicates at once; no result depends on it.
        advance: called with the number of replicates done.

    Raises:
        UserError: pairs, beta, rounds or noise out of range, by name.

    Cost a replicate and round: 2 X M D + 2 n D^2 + D^3/3 operations (n > D).
    """
    check_count("n (pairs a round)", pairs)
    check_count("rounds", rounds, least=0)
    check_positive("beta", beta)
    if noise < 0:
        raise UserError(f"noise is {noise}", "give a standard deviation, 0 or more")
    X, M, _ = instance.phi_XMD.shape
    size = chunk or max(1, CHUNK // (X * M))
    numbers = np.arange(first, first + replicates)
    parts = []
    for start in range(0, replicates, size):
        part = numbers[start : start + size]
        parts.append(_run(instance, part, rounds, pairs, beta, seed, noise))
        advance(len(part))
    stats_RST = np.concatenate([p[0] for p in parts])
    return Paths(
        kappa_RT=stats_RST[:, 0],
        failure_RT=stats_RST[:, 1],
        confidence_RT=stats_RST[:, 2],
        fidelity_RT=stats_RST[:, 3],
        least_RT=stats_RST[:, 4],
        theta_RD=np.concatenate([p[1] for p in parts]),
        hard=sum(p[2] for p in parts),
    )


def _run(
    instance: Linear, part: Ints, rounds: int, pairs: int, beta: float, seed: int, noise: float
) -> tuple[Floats, Floats, int]:
    """Statistics [R, 5, T+1], last theta [R, D], problems solved by singular values."""
    X, M, D = instance.phi_XMD.shape
    flat = torch.from_numpy(np.ascontiguousarray(instance.phi_XMD.reshape(X * M, D)))
    theta_RD = torch.from_numpy(np.tile(instance.theta_D, (len(part), 1)))
    mode_X = None
    stats, hard = [], 0
    for t in range(rounds + 1):
        logit_RXM = (theta_RD @ flat.T).view(len(part), X, M)
        top_RX = logit_RXM.amax(-1)
        weight_RXM = (logit_RXM - top_RX.unsqueeze(-1)).exp_()
        total_RX = weight_RXM.sum(-1)
        if mode_X is None:
            mode_X = logit_RXM[0].argmax(-1)
        stats.append(_statistics(logit_RXM, top_RX, total_RX, mode_X))
        if t == rounds:
            break
        count = pairs * (5 if noise else 3)
        u_RC = torch.from_numpy(uniforms(seed, part, t, count))
        row_R2n = _draw(weight_RXM, u_RC, pairs)
        reward_R2n = logit_RXM.view(len(part), -1).gather(1, row_R2n)
        if noise:
            reward_R2n = reward_R2n + noise * torch.from_numpy(ndtri(u_RC[:, 3 * pairs :].numpy()))
        target_Rn = (reward_R2n[:, :pairs] - reward_R2n[:, pairs:]).div_(beta)
        theta_RD, more = _update(flat, row_R2n, target_Rn, theta_RD, instance.radius)
        hard += more
    return torch.stack(stats, -1).numpy(), theta_RD.numpy(), hard


def _statistics(
    logit_RXM: torch.Tensor, top_RX: torch.Tensor, total_RX: torch.Tensor, mode_X: torch.Tensor
) -> torch.Tensor:
    """kappa, F, confidence, fidelity and least confidence, [R, 5]: 1/p* is the sum itself."""
    X = len(mode_X)
    p_RX = total_RX.reciprocal()
    kept_RX = logit_RXM[:, torch.arange(X), mode_X] >= top_RX - 1e-12
    return torch.stack(
        [
            total_RX.mean(1),
            (p_RX <= 0.5).double().mean(1),
            p_RX.mean(1),
            kept_RX.double().mean(1),
            p_RX.amin(1),
        ],
        1,
    )


def _draw(weight_RXM: torch.Tensor, u_RC: torch.Tensor, pairs: int) -> torch.Tensor:
    """Rows x * M + y of the first and the second responses, [R, 2n], by inverse distributions.

    A binary search of the prompt's M running sums for all draws in step: log2 M gathers without
    a branch, three times as fast as a search of each draw (measured at M = 16).
    """
    R, X, M = weight_RXM.shape
    sums_RF = weight_RXM.view(R, X, M).cumsum(-1).view(R, X * M)
    x_Rn = (u_RC[:, :pairs] * X).long()
    base_R2n = torch.cat([x_Rn, x_Rn], 1).mul_(M)
    goal_R2n = u_RC[:, pairs : 3 * pairs] * sums_RF.gather(1, base_R2n + (M - 1))
    at_R2n = torch.zeros_like(base_R2n)
    step = 1 << max(M - 1, 1).bit_length() - 1
    while step:
        probe = at_R2n + (step - 1)
        below = sums_RF.gather(1, base_R2n + probe.clamp_max_(M - 1)) <= goal_R2n
        at_R2n += below.long().mul_(step)
        step //= 2
    return base_R2n.add_(at_R2n.clamp_max_(M - 1))


def _update(
    flat: torch.Tensor,
    row_R2n: torch.Tensor,
    target_Rn: torch.Tensor,
    theta_RD: torch.Tensor,
    radius: float | None,
) -> tuple[torch.Tensor, int]:
    R, n2 = row_R2n.shape
    n = n2 // 2
    A = flat.index_select(0, row_R2n[:, :n].reshape(-1))
    A.sub_(flat.index_select(0, row_R2n[:, n:].reshape(-1)))
    delta_RD, hard = min_norm(A.view(R, n, -1).numpy(), target_Rn.numpy())
    theta_RD = theta_RD + torch.from_numpy(delta_RD)
    if radius is not None:
        theta_RD = theta_RD * (radius / theta_RD.norm(dim=1, keepdim=True)).clamp_max(1.0)
    return theta_RD, hard
