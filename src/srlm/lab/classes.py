"""Self-rewarding of a softmax regression: prompts that are vectors, held out apart from trained on.

The rounds of ``bulk`` with class features phi(x, y) = e_y (x) v, one replicate at a time: D = M d
is in the hundreds, and a round's cost is its least squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.special import log_softmax

from srlm.lab.tabular import uniforms
from srlm.policies.linear_softmax import LinearSoftmax
from srlm.types import Floats, Ints, Prompt

CUT = 1e-13
"""Eigenvalues of the Gram matrix below this, relative to the largest, count as zero."""


@dataclass(frozen=True, slots=True)
class ClassPath:
    """One replicate on P held-out prompts, all exact, each [T+1]."""

    kappa_T: Floats
    failure_T: Floats
    confidence_T: Floats
    fidelity_T: Floats
    sampling_T: Floats
    """Sampling accuracy: mean probability of the right class."""
    mode_T: Floats
    """Mode accuracy; greedy's too, as a response is one token."""
    logp_PM: Floats
    """After the last round."""


def class_rounds(
    policy: LinearSoftmax,
    train: Sequence[Prompt],
    held_out: Sequence[Prompt],
    *,
    rounds: int,
    pairs: int,
    beta: float,
    seed: int,
    replicate: int = 0,
) -> ClassPath:
    """Rounds of the square loss by min-norm least squares, measured on the held-out prompts."""
    M = len(policy.text_M)
    v_Nd, v_Pd = (np.array([x.content for x in part]) / policy.scale for part in (train, held_out))
    right_P = np.array([int(x.answers[0]) for x in held_out])
    theta_Md = policy.theta.reshape(M, -1)
    logp_PM = log_softmax(v_Pd @ theta_Md.T, axis=1)
    base_P = logp_PM.argmax(1)
    stats = [_statistics(logp_PM, base_P, right_P)]
    for t in range(rounds):
        u_3n = uniforms(seed, np.array([replicate]), t, 3 * pairs).reshape(3, pairs)
        x_n = (u_3n[0] * len(v_Nd)).astype(np.int64)
        logp_nM = log_softmax(v_Nd[x_n] @ theta_Md.T, axis=1)
        sums_nM = np.cumsum(np.exp(logp_nM), axis=1)
        y_n, other_n = ((sums_nM <= (u * sums_nM[:, -1])[:, None]).sum(1) for u in u_3n[1:])
        row = np.arange(pairs)
        target_n = (logp_nM[row, y_n] - logp_nM[row, other_n]) / beta
        theta_Md = theta_Md + _solve(v_Nd[x_n], y_n, other_n, target_n, M)
        logp_PM = log_softmax(v_Pd @ theta_Md.T, axis=1)
        stats.append(_statistics(logp_PM, base_P, right_P))
    kappa, failure, confidence, fidelity, sampling, mode = np.array(stats).T
    return ClassPath(kappa, failure, confidence, fidelity, sampling, mode, logp_PM)


def _solve(v_nd: Floats, y_n: Ints, other_n: Ints, target_n: Floats, M: int) -> Floats:
    """Min-norm least squares of (e_y - e_y') (x) v on the targets, [M, d]."""
    apart = y_n != other_n
    v_nd, y_n, other_n, b_n = v_nd[apart], y_n[apart], other_n[apart], target_n[apart]
    n, d = v_nd.shape
    if n == 0:
        return np.zeros((M, d))
    # <a_i, a_j> = <v_i, v_j> (signed matches of their classes): the wide problem needs no A.
    if n <= M * d:
        match = (y_n[:, None] == y_n).astype(float) + (other_n[:, None] == other_n)
        match -= (y_n[:, None] == other_n).astype(float) + (other_n[:, None] == y_n)
        w_n = _pseudo(v_nd @ v_nd.T * match, b_n)
        return _back(v_nd, y_n, other_n, w_n, M)
    A_nMd = np.zeros((n, M, d))
    A_nMd[np.arange(n), y_n] = v_nd
    A_nMd[np.arange(n), other_n] = -v_nd
    A_nD = A_nMd.reshape(n, -1)
    return _pseudo(linalg.blas.dsyrk(1.0, A_nD.T, lower=1), A_nD.T @ b_n).reshape(M, d)


def _back(v_nd: Floats, y_n: Ints, other_n: Ints, w_n: Floats, M: int) -> Floats:
    """A^T w, [M, d]."""
    sign_Mn = (np.arange(M)[:, None] == y_n) * w_n - (np.arange(M)[:, None] == other_n) * w_n
    return sign_Mn @ v_nd


def _pseudo(gram: Floats, b: Floats) -> Floats:
    """The pseudo-inverse of a Gram matrix (its lower half) times b."""
    value, vector = linalg.eigh(gram, lower=True, check_finite=False, driver="evd")
    keep = value > CUT * value[-1]
    return vector[:, keep] @ ((b @ vector[:, keep]) / value[keep])


def _statistics(logp_PM: Floats, base_P: Ints, right_P: Ints) -> tuple[float, ...]:
    pi_PM = np.exp(logp_PM)
    p_P, mode_P = pi_PM.max(1), pi_PM.argmax(1)
    return (
        float((1 / p_P).mean()),
        float((p_P <= 0.5).mean()),
        float(p_P.mean()),
        float((mode_P == base_P).mean()),
        float(pi_PM[np.arange(len(p_P)), right_P].mean()),
        float((mode_P == right_P).mean()),
    )
