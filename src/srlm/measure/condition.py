"""The policy condition number kappa(pi) = E_x[1 / max_y pi(y|x)] and its estimators.

At sequence level, [SR] eq. 5, the coverage coefficient of [SM] eq. 6; in [1, |Y|]. It can be
astronomically large for long responses, so everything here works with log p*, and
``log10_kappa`` goes with every value. Two kinds of error are kept apart: ``low`` and ``high``
of an ``Estimate`` are for the sampling of prompts; ``guarantee`` is about the responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from srlm.errors import UserError
from srlm.measure.intervals import mean, mean_interval
from srlm.policies.base import Policy
from srlm.samples import blocks
from srlm.types import Estimate, Floats, Prompt, Samples

HEAVY = 0.5
"""The mean is said to hang on a few prompts where 1% of them (at least one) are this share."""

LIMIT = 4096
"""Samples per prompt at most, where their number adapts."""


def log_kappa(logp_P: Floats) -> float:
    """log mean exp(-log p*), nats; +inf where a prompt has p* = 0.

    >>> round(log_kappa(np.log([0.5, 0.25])), 6)  # log 3
    1.098612
    """
    return float(logsumexp(-logp_P) - np.log(len(logp_P)))


@dataclass(frozen=True, slots=True)
class Spread:
    """How 1/p* is spread over prompts, beside its mean."""

    median: float
    """Of log10(1/p*)."""
    top_share: float
    """Share of kappa that the worst hundredth of the prompts (at least one) makes up."""

    @property
    def heavy(self) -> bool:
        return self.top_share >= HEAVY


def spread(logp_P: Floats) -> Spread:
    """The median of log10(1/p*) and the share of the mean that the worst prompts carry."""
    # A median that is a prompt's value: no arithmetic with infinite ones.
    median = float(np.quantile(-logp_P / np.log(10), 0.5, method="inverted_cdf"))
    top = np.sort(logp_P)[: max(1, len(logp_P) // 100)]
    infinite = bool(np.isneginf(logp_P).any())
    share = 1.0 if infinite else float(np.exp(logsumexp(-top) - logsumexp(-logp_P)))
    return Spread(median, share)


def kappa(
    logp_P: Floats, method: str, *, seed: int, upper_P: Floats | None = None, guarantee: str = ""
) -> Estimate:
    """kappa from log p* of each prompt, or from log bounds on it.

    Args:
        logp_P: log p*, or a lower bound on it (the best outcome found), nats.
        method: name of the estimator.
        seed: of the bootstrap over prompts.
        upper_P: upper bound on log p*; None: ``guarantee`` says what ``logp_P`` is.
        guarantee: used where ``upper_P`` is None.

    The value is mean(1/p) at ``logp_P``; without an outcome for some prompt it is infinite, and
    the guarantee then says only where kappa begins. A note warns where few prompts carry it.
    """
    with np.errstate(over="ignore"):
        value_P = np.exp(-logp_P)
        if upper_P is not None:
            low, high = float(np.exp(-upper_P).mean()), float(value_P.mean())
            guarantee = _within(low, high, exact=bool((upper_P <= logp_P).all()))
    return mean(value_P, seed, method, least=1.0, guarantee=guarantee, note=_warning(logp_P))


def log10_kappa(
    logp_P: Floats, method: str, *, seed: int, upper_P: Floats | None = None, guarantee: str = ""
) -> Estimate:
    """log10 of kappa, as ``kappa``, for any size: finite where kappa itself overflows.

    The interval is that of kappa, in units of the largest 1/p*, carried over to log10.
    """
    log10 = float(np.log(10))
    if upper_P is not None:
        low, high = log_kappa(upper_P) / log10, log_kappa(logp_P) / log10
        guarantee = _within(low, high, exact=bool((upper_P <= logp_P).all()))
    value, n = log_kappa(logp_P) / log10, len(logp_P)
    if not np.isfinite(value) or n < 2:
        return Estimate(value, None, None, n, method, guarantee, _warning(logp_P))
    unit = float((-logp_P).max())
    ends = mean_interval(np.exp(-logp_P - unit), seed)
    # kappa >= 1 is what is left of the lower end where the bootstrap runs below 0.
    at_low, at_high = (
        max(0.0, float((unit + np.log(end)) / log10)) if end > 0 else 0.0 for end in ends
    )
    return Estimate(value, at_low, at_high, n, method, guarantee, _warning(logp_P))


def fixed_n(samples: Samples, prompts: int, *, seed: int = 0) -> Estimate:
    """An upper bound on kappa from the best of a prompt's N samples: p* >= max_i pi(y_i)."""
    best_P = np.full(prompts, -np.inf)
    np.maximum.at(best_P, samples.prompt_R, samples.logp_R)
    n = round(len(samples) / prompts)
    return kappa(best_P, f"fixed N = {n}", seed=seed, guarantee="upper bound")


def adaptive_sampling(
    policy: Policy,
    prompts: Sequence[Prompt],
    *,
    mu: float,
    seed: int,
    max_tokens: int,
    limit: int = LIMIT,
    block: int = 16,
) -> Estimate:
    """An upper bound on kappa from as many samples as it takes (``srlm.samples.blocks``).

    Args:
        mu: exponent of the failure probability, > 0.
        limit: samples per prompt at most, up to the block.
        block: samples asked for at a time.

    Raises:
        UserError: ``mu`` is not positive.
    """
    if not mu > 0:
        raise UserError(f"adaptive sampling: mu is {mu}", "give a number above 0, such as 5")
    logp_P, samples_P = np.full(len(prompts), -np.inf), np.zeros(len(prompts))
    for part in blocks(policy, prompts, mu, block, seed, max_tokens, most=limit):
        np.maximum.at(logp_P, part.prompt_R, part.logp_R)
        np.add.at(samples_P, part.prompt_R, 1)
    missed = int((np.log(samples_P) + logp_P < np.log(mu)).sum())
    text = f"upper bound; each mode found with probability >= {1 - np.exp(-mu):.4g}"
    if missed:
        text = f"upper bound; {missed} of {len(prompts)} prompts stopped at the limit"
    return kappa(logp_P, "adaptive sampling", seed=seed, guarantee=text)


def _within(low: float, high: float, *, exact: bool) -> str:
    return "exact" if exact else f"certified within [{low:.6g}, {high:.6g}]"


def _warning(logp_P: Floats) -> str:
    # Fewer than 20 prompts: one of them carrying half says nothing yet.
    lost = int(np.isneginf(logp_P).sum())
    if lost:
        return f"no outcome found for {lost} of {len(logp_P)} prompts: spend more on the search"
    if len(logp_P) < 20 or not (s := spread(logp_P)).heavy:
        return ""
    few = max(1, len(logp_P) // 100)
    return (
        f"{few} of {len(logp_P)} prompts carry {s.top_share:.0%} of the mean; "
        f"median of 1/p* is 10^{s.median:.2f}: judge by the median"
    )
