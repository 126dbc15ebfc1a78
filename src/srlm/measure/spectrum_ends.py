"""The small end of a spectrum: the last eigenvalue that counts, where rounding lets it be told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from srlm.types import Estimate, Floats, undefined

NEGLIGIBLE = 1e-10
"""Eigenvalues below this share of the largest are taken for rounding, in float64."""
GAP = 100.0
"""Ratio that must lie between the last eigenvalue that counts and the first that does not."""


def ends(
    values: Floats, size: int, method: str, negligible: float = NEGLIGIBLE
) -> tuple[Estimate, Estimate, int | None]:
    """Smallest non-negligible eigenvalue, condition number and rank from all eigenvalues.

    Stable where the eigenvalues that count and those taken for rounding lie ``GAP`` apart; where
    they fall through the cutoff without such a gap, any number would say where the cutoff is,
    and none is given.

    >>> ends(np.array([4.0, 1.0, 1e-17]), 3, "by hand")[1].value
    4.0
    >>> ends(np.array([1.0, 1e-5, 2e-10, 5e-11]), 4, "by hand")[1].note[:20]
    'numerically unstable'
    """
    n = len(values)
    kept, rest = values[values > negligible * values[0]], values[values <= negligible * values[0]]
    if values[0] <= 0:
        why = "the policy does not depend on its parameters here: F = 0"
        return undefined(method, why, n), undefined(method, why, n), 0
    if len(rest) and kept[-1] < GAP * rest[0]:
        why = (
            f"numerically unstable: eigenvalues fall through {negligible:.0e} of the largest "
            f"without a gap ({kept[-1]:.1e}, {rest[0]:.1e}); at least {values[0] / kept[-1]:.1e}"
        )
        return undefined(method, why, n), undefined(method, why, n), None
    note = f"{size - len(kept)} of {size} eigenvalues are zero to rounding"
    note = note if len(kept) < size else ""

    def exact(x: float) -> Estimate:
        return Estimate(float(x), None, None, n, method, "exact", note)

    return exact(kept[-1]), exact(values[0] / kept[-1]), len(kept)


def small_end(
    largest: float, ritz: Floats, epsilon: float, steps: int
) -> tuple[Estimate, Estimate]:
    """Bounds from the smallest Ritz value, unless that is rounding."""
    method = f"Lanczos, {steps} steps"
    floor = 100 * epsilon * largest
    if ritz[0] <= floor:
        why = (
            f"numerically unstable: eigenvalues reach down to rounding ({floor / largest:.0e} of "
            f"the largest in this precision); above {largest / floor:.1e}"
        )
        return undefined(method, why, steps), undefined(method, why, steps)
    return (
        Estimate(float(ritz[0]), None, None, steps, method, "upper bound"),
        Estimate(largest / float(ritz[0]), None, None, steps, method, "lower bound"),
    )


def lanczos(times: Callable[[Floats], Floats], start_D: Floats, steps: int) -> Floats:
    """Ritz values after ``steps`` steps with full reorthogonalisation, rising.

    All lie within the spectrum; started in the range of F (at F z), within its non-zero part,
    so the smallest bounds the smallest non-zero eigenvalue from above.
    """
    basis = [start_D / np.linalg.norm(start_D)]
    diagonal, beside = [], []
    for _ in range(steps):
        w = times(basis[-1])
        diagonal.append(float(w @ basis[-1]))
        Q = np.stack(basis)
        w = w - Q.T @ (Q @ w)
        w = w - Q.T @ (Q @ w)
        size = float(np.linalg.norm(w))
        if size <= 1e-10 * max(diagonal):
            break
        beside.append(size)
        basis.append(w / size)
    T = np.diag(diagonal)
    for i, size in enumerate(beside[: len(diagonal) - 1]):
        T[i, i + 1] = T[i + 1, i] = size
    return np.asarray(np.linalg.eigvalsh(T))
