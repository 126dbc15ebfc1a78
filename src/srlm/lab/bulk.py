"""Thousands of replicates of linear-softmax self-rewarding at once ([SR] Def. 6.1, section 6).

One round of a replicate, as ``align`` does it with ``pairs.pairs`` and ``update.square_objective``:
sample n prompts x uniformly, a pair y, y' ~ pi_theta(.|x) for each, then

    delta = min-norm least squares of phi(x,y) - phi(x,y') on (r - r')/beta,   r = log pi_theta,

theta <- theta + delta, projected to the ball |theta| <= radius. The prompts are the whole
population, so kappa, F, confidence and fidelity are exact at every round. Numbers are sampled by
counter (``counter.uniforms``): results do not depend on the size of the batch. ``twin.py`` is the
same through ``align``, one replicate at a time.

Everything is float64: with float32 logits one sample in 1e5 would differ from the twin's, and a
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
from srlm.lab.solve import min_norm_rows
from srlm.theory.bounds import check_count, check_positive
from srlm.types import Floats, Ints

BATCH = 64
"""Replicates at once, unless told otherwise."""
TILE = 1 << 17
"""Numbers of the logit table held at once: 1 MB, so that a core's cache holds it."""


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
        pairs: n per round, at least 1.
        beta: one exact round is pi^(1 + 1/beta).
        replicates: R.
        seed: with the replicate's number and the round it decides every sample.
        first: number of the first replicate.
        noise: standard deviation of a noise on each sample's reward, nats; 0 is the likelihood.
        chunk: replicates at once; no result depends on it.
        advance: called with the number of replicates done.

    Raises:
        UserError: pairs, beta, rounds or noise out of range, by name.

    Cost a replicate and round: 2 X M D + 2 n D^2 + D^3/3 operations (n > D).
    """
    check_count("n (pairs per round)", pairs)
    check_count("rounds", rounds, least=0)
    check_positive("beta", beta)
    if noise < 0:
        raise UserError(f"noise is {noise}", "give a standard deviation, 0 or more")
    size = chunk or BATCH
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


@dataclass(frozen=True, slots=True)
class _Draws:
    """What a round needs of its table of probabilities, which is never held whole."""

    stats_RS: torch.Tensor
    mode_X: torch.Tensor
    row_R2n: torch.Tensor
    """x M + y of the first and of the second responses."""
    reward_R2n: torch.Tensor


def _run(
    instance: Linear, part: Ints, rounds: int, pairs: int, beta: float, seed: int, noise: float
) -> tuple[Floats, Floats, int]:
    """Statistics [R, 5, T+1], last theta [R, D], problems solved by singular values."""
    X, M, D = instance.phi_XMD.shape
    flat = torch.from_numpy(instance.phi_XMD.reshape(X * M, D))
    theta_RD = torch.from_numpy(np.tile(instance.theta_D, (len(part), 1)))
    mode_X: torch.Tensor | None = None
    stats, hard = [], 0
    for t in range(rounds + 1):
        last = t == rounds
        count = 0 if last else pairs * (5 if noise else 3)
        u_RC = torch.from_numpy(uniforms(seed, part, t, count))
        drawn = _draw(flat, theta_RD, X, u_RC, 0 if last else pairs, mode_X)
        stats.append(drawn.stats_RS)
        mode_X = drawn.mode_X
        if last:
            break
        reward_R2n = drawn.reward_R2n
        if noise:
            reward_R2n += noise * torch.from_numpy(ndtri(u_RC[:, 3 * pairs :].numpy()))
        target_Rn = (reward_R2n[:, :pairs] - reward_R2n[:, pairs:]).div_(beta)
        delta_RD, more = min_norm_rows(flat.numpy(), drawn.row_R2n.numpy(), target_Rn.numpy())
        theta_RD = theta_RD + torch.from_numpy(delta_RD)
        if instance.radius is not None:
            size_R1 = theta_RD.norm(dim=1, keepdim=True)
            theta_RD = theta_RD * (instance.radius / size_R1).clamp_max(1.0)
        hard += more
    return torch.stack(stats, -1).numpy(), theta_RD.numpy(), hard


def _draw(
    flat: torch.Tensor,
    theta_RD: torch.Tensor,
    X: int,
    u_RC: torch.Tensor,
    pairs: int,
    mode_X: torch.Tensor | None,
) -> _Draws:
    """Statistics and pairs of a round, a tile of prompts at a time: the tile stays in the cache
    through all that is done to it."""
    R, M = len(theta_RD), len(flat) // X
    x_Rn = (u_RC[:, :pairs] * X).long()
    row_R2n = torch.empty(R, 2 * pairs, dtype=torch.int64)
    reward_R2n = torch.empty(R, 2 * pairs, dtype=torch.float64)
    stats_RS = torch.zeros(R, 5, dtype=torch.float64)
    stats_RS[:, 4] = 1.0
    modes = []
    tile = max(1, TILE // (R * M))
    for begin in range(0, X, tile):
        end = min(begin + tile, X)
        logit_RxM = (theta_RD @ flat[begin * M : end * M].T).view(R, end - begin, M)
        top_Rx = logit_RxM.amax(-1)
        weight_RxM = (logit_RxM - top_Rx.unsqueeze(-1)).exp_()
        sums_RxM = weight_RxM.cumsum(-1)
        modes.append(logit_RxM[0].argmax(-1) if mode_X is None else mode_X[begin:end])
        _add_statistics(stats_RS, logit_RxM, top_Rx, sums_RxM[:, :, -1], modes[-1])
        if not pairs:
            continue
        if end - begin == X:
            x, u = torch.cat([x_Rn, x_Rn], 1), u_RC[:, pairs : 3 * pairs]
            base = x.mul_(M).add_(torch.arange(R).unsqueeze(1) * (X * M))
            at = _search(sums_RxM.view(-1), base, u, M)
            reward_R2n = logit_RxM.view(-1).take(base + at)
            row_R2n = base.add_(at).sub_(torch.arange(R).unsqueeze(1) * (X * M))
        else:
            r, j = ((x_Rn >= begin) & (x_Rn < end)).nonzero(as_tuple=True)
            x = x_Rn[r, j] - begin
            base = (r * (end - begin) + x) * M
            for half in (0, pairs):
                at = _search(sums_RxM.view(-1), base, u_RC[r, pairs + half + j], M)
                row_R2n[r, half + j] = (x + begin) * M + at
                reward_R2n[r, half + j] = logit_RxM.view(-1).take(base + at)
    stats_RS[:, :4] /= X
    return _Draws(stats_RS, torch.cat(modes), row_R2n, reward_R2n)


def _add_statistics(
    stats_RS: torch.Tensor,
    logit_RxM: torch.Tensor,
    top_Rx: torch.Tensor,
    total_Rx: torch.Tensor,
    mode_x: torch.Tensor,
) -> None:
    """Sums of 1/p*, [p* <= 1/2], p*, [mode kept] and the least p*; 1/p* is the total itself."""
    p_Rx = total_Rx.reciprocal()
    kept_Rx = logit_RxM[:, torch.arange(len(mode_x)), mode_x] >= top_Rx - 1e-12
    stats_RS[:, 0] += total_Rx.sum(1)
    stats_RS[:, 1] += (total_Rx >= 2.0).sum(1)
    stats_RS[:, 2] += p_Rx.sum(1)
    stats_RS[:, 3] += kept_Rx.sum(1)
    stats_RS[:, 4] = torch.minimum(stats_RS[:, 4], p_Rx.amin(1))


def _search(sums: torch.Tensor, base: torch.Tensor, u: torch.Tensor, M: int) -> torch.Tensor:
    """Responses sampled by u from rows of M running sums that start at ``base``.

    A binary search for all samples in step: log2 M gathers without a branch, three times as fast
    as a search of each sample (measured at M = 16).
    """
    goal = u * sums.take(base + (M - 1))
    at = torch.zeros_like(base)
    step = 1 << (max(M - 1, 1).bit_length() - 1)
    while step:
        probe = (at + (step - 1)).clamp_max_(M - 1).add_(base)
        at += (sums.take(probe) <= goal).long().mul_(step)
        step //= 2
    return at.clamp_max_(M - 1)
