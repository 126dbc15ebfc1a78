"""Minimum-norm least squares: x = argmin |x| over argmin |A x - b|, A [n, D], float64."""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack

from srlm.types import Floats

PIVOT = 1e-3
"""Least diagonal entry of the Cholesky factor, relative to the largest: about 1/cond(A)."""
RCOND = 1e-12
"""Singular values below this, relative to the largest, count as zero (``srlm.train``)."""


def min_norm(A_nD: Floats, b_n: Floats) -> Floats:
    """x [D], by normal equations where they are safe, else by singular values.

    Normal equations square the condition number; two steps of refinement, their residuals taken
    with A itself, each win back a factor eps cond(A)^2 <= 1e-9.

    Cost: n D^2 + D^3/3 multiply-adds; some ten times that by singular values.

    >>> min_norm(np.array([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0]]), np.ones(3)).round(12)
    array([0.66666667, 0.        ])
    """
    n, D = A_nD.shape
    if n > D:
        L_DD, info = lapack.dpotrf(A_nD.T @ A_nD, lower=1)
        pivot_D = np.diagonal(L_DD)
        if info == 0 and pivot_D.min() > PIVOT * pivot_D.max():
            x_D = np.zeros(D)
            for _ in range(3):
                x_D += lapack.dpotrs(L_DD, A_nD.T @ (b_n - A_nD @ x_D), lower=1)[0]
            return x_D
    return np.asarray(np.linalg.lstsq(A_nD, b_n, rcond=RCOND)[0])
