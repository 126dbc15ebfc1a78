"""Minimum-norm least squares for many small problems at once.

x = argmin |x| over argmin |A x - b|, A [n, D], float64. Normal equations are the fast road and a
narrow one: the Gram matrix squares the condition number. So every answer is checked in float64
against A itself, and what fails the check is solved by singular values, one problem at a time:

1. n > D: Cholesky of A^T A, accepted where the pivots stay above ``PIVOT`` of the largest and
   the residual passes.
2. Otherwise, ridge steps: x += (A^T A + l)^-1 A^T (b - A x), or x += A^T (A A^T + l)^-1 (b - A x)
   where n <= D. They converge to the minimum-norm solution for any rank: every step lies in the
   row space of A. Accepted where the residual passes.
3. Otherwise ``numpy.linalg.lstsq``.

The residual passes where |b - A x| <= TOLERANCE |b| (the equations hold) or, n > D,
|A^T (b - A x)| <= TOLERANCE |A^T b| (they cannot, and x is the least-squares solution).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import blas, lapack

from srlm.types import Bools, Floats, Ints

PIVOT = 1e-4
"""Least diagonal entry of the Cholesky factor, relative to the largest."""
TOLERANCE = 1e-11
STEPS = 8
"""Ridge steps at most."""
RCOND = 1e-12
"""Singular values below this, relative to the largest, count as zero (``srlm.train``)."""
SMALL = 40
"""Up to this D one batched call serves all; above it BLAS earns its keep one problem at a time."""


def min_norm(A_RnD: Floats, b_Rn: Floats) -> tuple[Floats, int]:
    """x [R, D] and how many problems needed singular values.

    Cost: n D^2 + D^3/3 multiply-adds a problem (n <= D: n^2 D + n^3/3).

    >>> x, hard = min_norm(np.array([[[1.0, 0.0], [1.0, 0.0], [2.0, 0.0]]]), np.ones((1, 3)))
    >>> x.round(12), hard
    (array([[0.66666667, 0.        ]]), 0)
    """
    R, n, D = A_RnD.shape
    rows = np.arange(R * n).reshape(R, n)
    table = np.concatenate([A_RnD.reshape(R * n, D), np.zeros((1, D))])
    return min_norm_rows(table, np.hstack([rows, np.full((R, n), R * n)]), b_Rn)


def min_norm_rows(flat_ND: Floats, row_R2n: Ints, b_Rn: Floats) -> tuple[Floats, int]:
    """``min_norm`` for A = flat[row[:n]] - flat[row[n:]], which is made where it is used."""
    R, n = b_Rn.shape
    D = flat_ND.shape[1]

    def make(r: int) -> Floats:
        A_nD = flat_ND.take(row_R2n[r, :n], axis=0)
        A_nD -= flat_ND.take(row_R2n[r, n:], axis=0)
        return A_nD

    if min(SMALL, n) >= D:
        flat, row = torch.from_numpy(flat_ND), torch.from_numpy(row_R2n)
        A = flat.index_select(0, row[:, :n].reshape(-1))
        A.sub_(flat.index_select(0, row[:, n:].reshape(-1)))
        x_RD, done_R = _batched(A.view(R, n, D), torch.from_numpy(b_Rn))
    else:
        x_RD, done_R = np.empty((R, D)), np.empty(R, dtype=bool)
        one = _wide if n <= D else _tall
        for r in range(R):
            x_RD[r], done_R[r] = one(make(r), b_Rn[r])
    hard = np.flatnonzero(~done_R)
    for r in hard.tolist():
        x_RD[r] = np.linalg.lstsq(make(r), b_Rn[r], rcond=RCOND)[0]
    return x_RD, len(hard)


# ---- small D: all problems in one call


def _batched(A: torch.Tensor, b: torch.Tensor) -> tuple[Floats, Bools]:
    R, _, D = A.shape
    G_RDD = A.mT @ A
    v_RD = (A.mT @ b.unsqueeze(-1)).squeeze(-1)
    L_RDD, info_R = torch.linalg.cholesky_ex(G_RDD)
    pivot_RD = L_RDD.diagonal(dim1=1, dim2=2)
    good_R = (info_R == 0) & (pivot_RD.amin(1) > PIVOT * pivot_RD.amax(1))
    x_RD = torch.zeros(R, D, dtype=A.dtype)
    done_R = torch.zeros(R, dtype=torch.bool)
    if bool(good_R.all()):
        x_RD = torch.cholesky_solve(v_RD.unsqueeze(-1), L_RDD).squeeze(-1)
        done_R = _passes(A, b, v_RD, x_RD)
    elif bool(good_R.any()):
        keep = good_R.nonzero().squeeze(1)
        x_RD[keep] = torch.cholesky_solve(v_RD[keep].unsqueeze(-1), L_RDD[keep]).squeeze(-1)
        done_R = good_R & _passes(A, b, v_RD, x_RD)
    left = (~done_R).nonzero().squeeze(1)
    if len(left):
        # Iterated on D numbers a problem; A itself is read once more, for the check.
        again_RD = _ridge(G_RDD[left], v_RD[left])
        some = 2 * len(left) < R
        passed = _passes(A[left], b[left], v_RD[left], again_RD) if some else None
        if passed is None:
            x_RD[left] = again_RD
            done_R |= _passes(A, b, v_RD, x_RD)
        else:
            x_RD[left], done_R[left] = again_RD, passed
    return x_RD.numpy(), done_R.numpy()


def _passes(
    A: torch.Tensor, b: torch.Tensor, v_RD: torch.Tensor, x_RD: torch.Tensor
) -> torch.Tensor:
    """Whether the residual passes, [R]."""
    r_Rn = b - (A @ x_RD.unsqueeze(-1)).squeeze(-1)
    holds_R = r_Rn.norm(dim=1) <= TOLERANCE * b.norm(dim=1)
    if not bool(holds_R.all()):
        slope_RD = (A.mT @ r_Rn.unsqueeze(-1)).squeeze(-1)
        holds_R |= slope_RD.norm(dim=1) <= TOLERANCE * v_RD.norm(dim=1)
    return holds_R


def _ridge(G_RDD: torch.Tensor, v_RD: torch.Tensor) -> torch.Tensor:
    # The ridge is a compromise: rounding leaves about 1e-16/ridge (1e-10) of x outside the row
    # space, and a step leaves ridge/s^2 of the error along a singular value s.
    scale_R = G_RDD.diagonal(dim1=1, dim2=2).sum(1).clamp_min(1e-300)
    ridge = (1e-6 * scale_R)[:, None, None] * torch.eye(G_RDD.shape[1], dtype=G_RDD.dtype)
    L_RDD = torch.linalg.cholesky_ex(G_RDD + ridge)[0]
    x_RD, slope_RD1 = torch.zeros_like(v_RD), v_RD.unsqueeze(-1)
    for _ in range(STEPS):
        x_RD = x_RD + torch.cholesky_solve(slope_RD1, L_RDD).squeeze(-1)
        slope_RD1 = (v_RD - (G_RDD @ x_RD.unsqueeze(-1)).squeeze(-1)).unsqueeze(-1)
    return x_RD


# ---- large D: one problem at a time, half the work of a full product (BLAS syrk)


def _tall(A_nD: Floats, b_n: Floats) -> tuple[Floats, bool]:
    G_DD = blas.dsyrk(1.0, A_nD.T, lower=1)
    v_D = A_nD.T @ b_n
    bound = TOLERANCE * float(np.linalg.norm(b_n)), TOLERANCE * float(np.linalg.norm(v_D))
    trace = float(np.trace(G_DD))
    x_D = np.zeros(len(G_DD))
    L_DD, info = lapack.dpotrf(G_DD, lower=1, clean=0)
    pivot_D = np.diagonal(L_DD)
    if info != 0 or not pivot_D.min() > PIVOT * pivot_D.max():
        if trace == 0.0:
            return x_D, True
        G_DD[np.diag_indices_from(G_DD)] += 1e-6 * trace
        L_DD, info = lapack.dpotrf(G_DD, lower=1, clean=0)
    slope_D = v_D
    for _ in range(STEPS if info == 0 else 0):
        x_D = x_D + lapack.dpotrs(L_DD, slope_D, lower=1)[0]
        residual_n = b_n - A_nD @ x_D
        if np.linalg.norm(residual_n) <= bound[0]:
            return x_D, True
        slope_D = A_nD.T @ residual_n
        if np.linalg.norm(slope_D) <= bound[1]:
            return x_D, True
    return x_D, False


def _wide(A_nD: Floats, b_n: Floats) -> tuple[Floats, bool]:
    # Here the ridge may be tiny: what rounding makes of it lies in the null space of A^T.
    K_nn = blas.dsyrk(1.0, A_nD.T, trans=1, lower=1)
    trace, x_D = float(np.trace(K_nn)), np.zeros(A_nD.shape[1])
    if trace == 0.0:
        return x_D, True
    K_nn[np.diag_indices_from(K_nn)] += 1e-12 * trace
    L_nn, info = lapack.dpotrf(K_nn, lower=1, clean=0)
    bound, residual_n = TOLERANCE * float(np.linalg.norm(b_n)), b_n
    for _ in range(STEPS if info == 0 else 0):
        x_D = x_D + lapack.dpotrs(L_nn, residual_n, lower=1)[0] @ A_nD
        residual_n = b_n - A_nD @ x_D
        if np.linalg.norm(residual_n) <= bound:
            return x_D, True
    return x_D, False
