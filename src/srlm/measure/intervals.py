"""Intervals: studentised bootstrap over prompts, Clopper-Pearson, cluster and ratio bootstrap.

Prompts are the independent units throughout: the samples of a prompt share it. All intervals are
at 95% unless ``level`` says otherwise, and a given seed gives the same interval on every run.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats

from srlm.types import Estimate, Floats, Ints, undefined

Counts = npt.NDArray[np.uint16]
FEWEST = 6
"""Prompts that must differ before a difference is given a sign: of 5 all have the same one with
probability 2^-4 where none is meant, of 6 with 2^-5 < 0.05."""
RESAMPLES = 2000
CHUNK = 1 << 19
"""Numbers held at once: resamples are made in blocks of CHUNK / n."""
KEPT = 1 << 23
"""Counts of resamples that are kept for the next estimate of as many prompts, at most: making
them takes ten times as long as using them."""


def resamples(n: int, seed: int, count: int = RESAMPLES) -> Iterator[Floats]:
    """How often each of n units is chosen, in blocks [b, n]; ``count`` resamples in all.

    The same arguments give the same counts.
    """
    block = max(1, CHUNK // n)
    if n * count > KEPT:
        yield from (part_BN.astype(np.float64) for part_BN in _drawn(n, seed, count, block))
        return
    counts_CN = _kept(n, seed, count, block)
    for begin in range(0, count, block):
        yield counts_CN[begin : begin + block].astype(np.float64)


@lru_cache(maxsize=1)
def _kept(n: int, seed: int, count: int, block: int) -> Counts:
    return np.concatenate(list(_drawn(n, seed, count, block)))


def _drawn(n: int, seed: int, count: int, block: int) -> Iterator[Counts]:
    rng = np.random.default_rng([seed, n, count])
    for begin in range(0, count, block):
        b = min(block, count - begin)
        draw_BN = rng.integers(n, size=(b, n))
        draw_BN += n * np.arange(b)[:, None]
        yield np.bincount(draw_BN.ravel(), minlength=b * n).reshape(b, n).astype(np.uint16)


def mean_interval(value_P: Floats, seed: int, *, count: int = RESAMPLES) -> tuple[float, float]:
    """Studentised (bootstrap-t) interval of the mean of independent values.

    With mean m, standard error s and resampled m*, s*, the interval is
    [m - q_hi s, m - q_lo s], q the quantiles of (m* - m)/s*. Skewed values get the long side
    where it belongs, which the percentile interval does not: 1/p* is heavy-tailed, and its mean
    is mostly missed from below. Values that are all equal give an interval of no width.

    Cost: O(count * P). Source: Efron and Tibshirani 1993, section 12.5.

    >>> low, high = mean_interval(np.array([1.0, 2.0, 3.0, 10.0] * 8), seed=0)
    >>> bool(low < 4.0 < high and high - 4.0 > 4.0 - low)
    True
    """
    n = len(value_P)
    mean = float(value_P.mean())
    centred_P = value_P - mean
    scale = float(np.abs(centred_P).max())
    if n < 2 or scale <= 1e-15 * abs(mean):
        return mean, mean
    z_P = centred_P / scale
    error = float(np.sqrt((z_P**2).sum()) / n)
    t_blocks = []
    for count_BP in resamples(n, seed, count):
        m_B = count_BP @ z_P / n
        v_B = np.maximum(count_BP @ z_P**2 / n - m_B**2, 0.0)
        # A resample without spread says nothing about the ratio; it takes the sample's own error.
        s_B = np.sqrt(v_B / n)
        t_blocks.append(m_B / np.where(s_B > 1e-3 * error, s_B, error))
    low, high = np.quantile(np.concatenate(t_blocks), [0.025, 0.975])
    return mean - float(high) * error * scale, mean - float(low) * error * scale


def mean(
    value_P: Floats,
    seed: int,
    method: str,
    *,
    least: float = -np.inf,
    most: float = np.inf,
    guarantee: str = "estimate",
    note: str = "",
) -> Estimate:
    """The mean over prompts with its interval, cut to [least, most].

    Values in [0, 1] (``least`` 0 and ``most`` 1) get ``share_interval``, which holds near 0 and
    1 too, where the bootstrap misses from below; others the studentised bootstrap's.
    """
    n = len(value_P)
    if n == 0:
        return undefined(method, note or "no prompts")
    centre = float(value_P.mean())
    if not np.isfinite(centre):
        return Estimate(centre, None, None, n, method, guarantee, note)
    unit = least == 0 and most == 1
    if unit and (n > 1 or centre in (0.0, 1.0)):
        low, high = share_interval(value_P)
    elif n < 2:
        return Estimate(centre, None, None, n, method, guarantee, note)
    else:
        low, high = mean_interval(value_P, seed)
    return Estimate(centre, max(low, least), min(high, most), n, method, guarantee, note)


def share_interval(value_P: Floats) -> tuple[float, float]:
    """Interval of the mean of values in [0, 1], by Clopper and Pearson's on as many coin flips.

    With mean m and standard error s that is m (1 - m) / s^2 flips of which the share m are
    heads: n for n zeros and ones, where the interval is exact. Values that are all 0 or all 1
    count as n flips; other values that are all equal give an interval of no width. Source:
    Korn and Graubard 1998, Survey Methodology 24 (without their factor for the degrees of
    freedom, which is 1 for many prompts).

    >>> [round(x, 4) for x in share_interval(np.array([1.0] + [0.0] * 99))]
    [0.0003, 0.0545]
    """
    n, centre = len(value_P), float(value_P.mean())
    variance, most = float(value_P.var()), centre * (1 - centre)
    if most > 0 and variance <= 1e-15 * most:
        return centre, centre
    flips = n * most / variance if most > 0 else float(n)
    return clopper_pearson(centre * flips, flips)


def clopper_pearson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a binomial probability; covers at least ``level`` at every p.

    >>> [round(x, 4) for x in clopper_pearson(0, 10)]
    [0.0, 0.3085]
    """
    tail, fails = (1 - level) / 2, n - successes
    low = float(stats.beta.ppf(tail, successes, fails + 1)) if successes > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, successes + 1, fails)) if fails > 0 else 1.0
    return low, high


def share(
    hits: int, n: int, *, guarantee: str = "estimate", note: str = "", method: str = ""
) -> Estimate:
    """The share of n independent prompts that are hits, with its Clopper-Pearson interval."""
    name = method or "share of prompts (Clopper-Pearson)"
    if n == 0:
        return undefined(name, note or "no prompts to count")
    low, high = clopper_pearson(hits, n)
    return Estimate(hits / n, low, high, n, name, guarantee, note)


def enough(n: int, half: float, aim: float) -> int:
    """Prompts at which an interval of half-width ``half`` over n prompts would have ``aim``, for it
    shrinks with the root of their number: n (half / aim)^2, rounded up to two digits.

    >>> enough(16, 0.2, 0.05), enough(100, 0.07, 0.05), enough(1000, 0.1, 0.05)
    (260, 200, 4000)
    """
    count = n * (half / aim) ** 2
    unit = 10.0 ** max(np.floor(np.log10(max(count, 1.0))) - 1, 0)
    return int(np.ceil(count / unit - 1e-9) * unit)


def by_prompt(value_R: Floats, weight_R: Floats, prompt_R: Ints, prompts: int) -> Floats:
    """sum_r weight f over the rows of each prompt, [P]; rows of weight 0 count as 0.

    The cluster bootstrap of a mean over samples within prompts is the bootstrap of these.
    """
    product_R = np.where(weight_R > 0, value_R, 0.0) * weight_R
    return np.bincount(prompt_R, product_R, minlength=prompts).astype(np.float64)


def ratio_interval(
    top_P: Floats, bottom_P: Floats, seed: int, *, count: int = RESAMPLES
) -> tuple[float, float] | None:
    """Bootstrap percentile interval of mean(top) / mean(bottom), pairs resampled together.

    None where more than half a tail of the resamples has a denominator of the other sign (or
    zero): then the ratio has no bounded interval.
    """
    ratios = []
    sign = np.sign(bottom_P.mean())
    for count_BP in resamples(len(top_P), seed, count):
        bottom_B = count_BP @ bottom_P
        good = bottom_B * sign > 0
        ratios.append((count_BP @ top_P)[good] / bottom_B[good])
    ratio = np.concatenate(ratios)
    if len(ratio) < count * 0.9875:
        return None
    low, high = np.quantile(ratio, [0.025, 0.975])
    return float(low), float(high)
