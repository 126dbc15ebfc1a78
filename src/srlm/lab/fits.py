"""Exponents with intervals: slopes of log y on log x."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from srlm.types import Estimate, undefined


def log_slope(x: ArrayLike, y: ArrayLike, what: str = "log-log least squares") -> Estimate:
    """Slope of log y on log x with a 95% t interval, over the points with x, y > 0.

    The interval is for scatter about a line; where the points bend it says only how well a line
    describes them.

    >>> round(log_slope([1, 10, 100], [5, 0.5, 0.05]).value, 12)
    -1.0
    """
    return slope(np.log(_positive(x, y)[0]), np.log(_positive(x, y)[1]), what)


def slope(x: ArrayLike, y: ArrayLike, what: str = "least squares") -> Estimate:
    """Slope of y on x with a 95% t interval."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(x) < 3 or np.ptp(x) == 0:
        return undefined(what, f"{len(x)} points are too few", len(x))
    line = stats.linregress(x, y)
    value, half = float(line.slope), float(stats.t.ppf(0.975, len(x) - 2) * line.stderr)
    return Estimate(value, value - half, value + half, len(x), what)


def bootstrap_slope(
    x: ArrayLike, values: list[np.ndarray], seed: int, what: str, count: int = 1000
) -> Estimate:
    """Slope of log mean(values[i]) on log x[i]; the interval resamples each point's replicates.

    Points whose mean is 0 are left out; so are resamples where a mean is 0.
    """
    points = [(float(a), np.asarray(v, float)) for a, v in zip(x, values, strict=True)]  # type: ignore[arg-type]
    points = [(a, v) for a, v in points if v.mean() > 0]
    if len(points) < 3:
        return undefined(what, f"{len(points)} points above 0 are too few", len(points))
    log_x = np.log([a for a, _ in points])
    centred = log_x - log_x.mean()
    weights = centred / (centred @ centred)
    value = float(weights @ np.log([v.mean() for _, v in points]))
    rng = np.random.default_rng([seed, len(points)])
    means = np.stack(
        [v[rng.integers(len(v), size=(count, len(v)))].mean(1) for _, v in points], axis=1
    )
    means = means[(means > 0).all(1)]
    low, high = np.quantile(np.log(means) @ weights, [0.025, 0.975])
    n = sum(len(v) for _, v in points)
    return Estimate(value, float(low), float(high), n, what)


def mean_of(values: ArrayLike) -> Estimate:
    """Mean with a 95% t interval over independent replicates."""
    v, what = np.asarray(values, dtype=float), "mean over replicates"
    if len(v) < 2:
        return Estimate(float(v.mean()), None, None, len(v), what)
    half = float(stats.t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / np.sqrt(len(v)))
    return Estimate(float(v.mean()), float(v.mean()) - half, float(v.mean()) + half, len(v), what)


def _positive(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    keep = (x > 0) & (y > 0)
    return x[keep], y[keep]
