"""Which assumptions of the theory hold here, by name and with evidence.

[SR] Theorem 5.3 asks of every prompt and round: realizability (the class contains the exact
minimiser), a unique mode, a margin gamma > 0 and a least confidence mu > 0. Measured quantities
come with a certified range a prompt, [low, high] (a search stopped early, a Clopper-Pearson
interval), so an answer is one of three: it holds on every prompt measured, it fails on some, or it
cannot be told. What holds on P prompts sampled from D still says only that, with confidence 95%,
less than 1 - 0.05^(1/P) of the prompts of D break it: that share is in the evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from srlm.errors import UserError
from srlm.theory.bounds import check_positive, check_probability

State = Literal["holds", "fails", "cannot be told"]


@dataclass(frozen=True)
class Assumption:
    """One assumption, judged.

    name:     "realizability", "unique mode", "margin" or "least confidence"
    state:    "holds", "fails" or "cannot be told"
    evidence: sentences with numbers
    value:    the number behind it: explained share, share of prompts certified, nats, probability
    """

    name: str
    state: State
    evidence: tuple[str, ...]
    value: float


@dataclass(frozen=True)
class Range:
    """A quantity known a prompt up to certified ends: low_P <= truth <= high_P, both (P,)."""

    low_P: np.ndarray
    high_P: np.ndarray

    def __post_init__(self) -> None:
        if self.low_P.shape != self.high_P.shape or self.low_P.ndim != 1 or not self.low_P.size:
            raise UserError("the ends of a range differ in shape, or are empty", "give (P,) twice")
        if not np.all(self.low_P <= self.high_P):
            raise UserError("a range has its low end above its high end", "exchange them")


def probability_range(low_P: ArrayLike, high_P: ArrayLike | None = None) -> Range:
    """A range of probabilities in [0, 1]; exact where `high_P` is left out.

    >>> probability_range([0.25, 0.5]).high_P.tolist()
    [0.25, 0.5]
    """
    low = np.asarray(low_P, dtype=float)
    high = low if high_P is None else np.asarray(high_P, dtype=float)
    if np.any(~(low >= 0.0)) or np.any(~(high <= 1.0)):
        raise UserError("a probability lies outside [0, 1]", "give probabilities, not logs")
    return Range(low, high)


def _judge(holds_P: np.ndarray, fails_P: np.ndarray) -> State:
    if np.any(fails_P):
        return "fails"
    return "holds" if np.all(holds_P) else "cannot be told"


def _counts(holds_P: np.ndarray, fails_P: np.ndarray) -> str:
    total, good, bad = len(holds_P), int(holds_P.sum()), int(fails_P.sum())
    text = f"{good} of {total} prompts certified, {bad} refuted, {total - good - bad} open"
    if good == total:
        text += f"; of all prompts at most {1.0 - 0.05 ** (1.0 / total):.2%} break it (95%)"
    return text


def unique_mode(p_star: Range, runner_up: Range, tie: float = 1e-9) -> Assumption:
    """Is argmax_y pi(y|x) one response? p*(x) > runner-up(x), prompt by prompt.

    Holds where p*_low > runner_up_high; fails where the two are exact and equal up to the relative
    difference `tie`. A value: the share of prompts certified.
    Source: [SR] Theorem 5.3, assumption.  Raises UserError by name.

    >>> unique_mode(probability_range([0.6, 0.4]), probability_range([0.2, 0.3])).state
    'holds'
    >>> unique_mode(probability_range([0.5]), probability_range([0.5])).state
    'fails'
    >>> unique_mode(probability_range([0.3], [0.4]), probability_range([0.2], [0.35])).state
    'cannot be told'
    """
    _same_prompts(p_star, runner_up)
    holds = p_star.low_P > runner_up.high_P * (1.0 + tie)
    fails = runner_up.low_P * (1.0 + tie) >= p_star.high_P
    gap = float(np.min(p_star.low_P - runner_up.high_P))
    return Assumption(
        "unique mode",
        _judge(holds, fails),
        (_counts(holds, fails), f"least certified gap p* - runner-up: {gap:.3g}"),
        float(np.mean(holds)),
    )


def least_margin(p_star: Range, runner_up: Range, required: float) -> Assumption:
    """Is log p*(x) - log runner-up(x) >= gamma on every prompt?

    Value: the least certified margin, nats.

    required: gamma > 0, nats; take it from the bound that is to be used.
    A runner-up of probability 0 has an infinite margin.
    Source: [SR] Theorem 5.3.  Raises UserError by name.

    >>> found = least_margin(probability_range([0.6, 0.4]), probability_range([0.2, 0.3]), 0.25)
    >>> found.state, round(found.value, 4)
    ('holds', 0.2877)
    """
    required = check_positive("margin", required)
    _same_prompts(p_star, runner_up)
    with np.errstate(divide="ignore", invalid="ignore"):
        low = np.log(p_star.low_P) - np.log(runner_up.high_P)
        high = np.log(p_star.high_P) - np.log(runner_up.low_P)
    low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
    holds, fails = low >= required * (1.0 - 1e-12), high < required * (1.0 - 1e-12)
    return Assumption(
        "margin",
        _judge(holds, fails),
        (
            _counts(holds, fails),
            f"least certified margin {low.min():.3g} nats, required {required:.3g}",
        ),
        float(low.min()),
    )


def least_confidence(p_star: Range, required: float) -> Assumption:
    """Is p*(x) >= mu on every prompt? Value: the least certified p*.

    required: mu in (0, 1].  Source: [SR] Theorem 5.3.  Raises UserError by name.

    >>> least_confidence(probability_range([0.6, 0.4]), 0.5).state
    'fails'
    """
    required = check_probability("confidence", required)
    holds = p_star.low_P >= required * (1.0 - 1e-12)
    fails = p_star.high_P < required * (1.0 - 1e-12)
    least = float(p_star.low_P.min())
    return Assumption(
        "least confidence",
        _judge(holds, fails),
        (_counts(holds, fails), f"least certified p* {least:.3g}, required {required:.3g}"),
        least,
    )


def realizability(
    residual_R: ArrayLike, target_R: ArrayLike, exact_minimiser: bool, tolerance: float = 0.01
) -> Assumption:
    """Does the class contain the exact minimiser pi_{t+1} of the update?

    The self-reward is a function of the response without noise, so the square loss of the exact
    minimiser is 0: the least loss over the class is 0 if and only if the class contains it (on
    the pairs' support). With residuals beta*(log-ratio difference) - (reward difference) on pairs
    held out from the update, u = mean residual^2 / mean target^2 is the share left unexplained,
    with a 95% interval by the ratio's delta method.

    Holds up to the tolerance where the interval lies below it. Above it, it fails only if the
    policy is the exact minimiser over its class (`exact_minimiser`, as linear least squares
    with enough pairs); a gradient-trained policy may simply not have arrived: cannot be told.
    Value: 1 - u, the share explained.

    residual_R, target_R: nats, (R,), one a held-out pair.  tolerance: in (0, 1].
    Source: [SR] Theorem 5.3, assumption; the test is our own.  Raises UserError by name.

    >>> target = np.array([1.0, -2.0, 0.5, 1.5])
    >>> realizability(0.0 * target, target, exact_minimiser=False).state
    'holds'
    >>> realizability(target, target, exact_minimiser=False).state
    'cannot be told'
    >>> realizability(target, target, exact_minimiser=True).state
    'fails'
    """
    tolerance = check_probability("tolerance", tolerance)
    residual, target = np.asarray(residual_R, dtype=float), np.asarray(target_R, dtype=float)
    if residual.shape != target.shape or residual.ndim != 1 or residual.size < 2:
        raise UserError("residuals and targets differ in shape", "give (R,) of each, R >= 2")
    total = float(np.mean(target**2))
    if not (np.all(np.isfinite(residual)) and np.isfinite(total) and total > 0.0):
        raise UserError("all rewards are equal, or one is not finite", "give pairs that differ")
    share = float(np.mean(residual**2)) / total
    error = float(np.std((residual**2 - share * target**2) / total, ddof=1) / residual.size**0.5)
    low, high = share - 1.96 * error, share + 1.96 * error
    state: State = "cannot be told"
    why = "a policy that has not reached its class's minimiser leaves the same trace"
    if high <= tolerance:
        state, why = "holds", f"up to the tolerance {tolerance:.3g}, on the pairs' support"
    elif low > tolerance and exact_minimiser:
        state, why = "fails", "the exact minimiser over the class leaves this much"
    elif exact_minimiser:
        why = "the interval holds the tolerance: more held-out pairs would tell"
    text = f"unexplained {share:.3g} of the target's square on {residual.size} held-out pairs"
    return Assumption(
        "realizability", state, (f"{text}, 95% interval [{low:.3g}, {high:.3g}]", why), 1.0 - share
    )


def realizability_linear(theta_norm: float, radius: float, beta: float) -> Assumption:
    """Linear softmax: the minimiser is theta (1 + 1/beta), in the ball if its norm is at most R.

    theta_norm: |theta_t| > 0.  radius: R > 0.  beta > 0.  Value: |theta| (1 + 1/beta) / R.
    Source: [SR] Def. 6.1, Thm 6.2.  Raises UserError by name.

    >>> realizability_linear(2.0, 5.0, 1.0).state, realizability_linear(2.0, 3.0, 1.0).state
    ('holds', 'fails')
    """
    norm = check_positive("theta_norm", theta_norm) * (1.0 + 1.0 / check_positive("beta", beta))
    radius = check_positive("radius", radius)
    state: State = "holds" if norm <= radius * (1.0 + 1e-12) else "fails"
    return Assumption(
        "realizability",
        state,
        (f"the exact minimiser has norm {norm:.4g}, the ball has radius {radius:.4g}",),
        norm / radius,
    )


def _same_prompts(p_star: Range, runner_up: Range) -> None:
    if p_star.low_P.shape != runner_up.low_P.shape:
        raise UserError("p* and runner-up are of different prompts", "give one of each per prompt")
