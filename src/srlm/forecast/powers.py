"""The trajectory of self-rewarding before any training: pi_p proportional to pi_0^p.

Exact rounds give pi_t proportional to pi_0^(p_t), p_t = (1 + 1/beta)^t (theory.md section 1;
[SR] eq. 4's minimiser iterated). So every number of round t is a sum over responses of powers
of the base's probabilities, and can be estimated from the base's own samples:

    Z_p = sum_y pi_0(y)^p,   E_{pi_p} m = sum_y pi_0(y)^p m(y) / Z_p.

The estimator here is exact on what is known and unbiased on the rest. With S the distinct
responses sampled (N samples), every response's probability is known, and a response other than the
searched mode y* is among the samples with probability a(y) = 1 - (1 - pi_0(y))^N. Hence

    sum_y pi_0(y)^p m(y) = pi_0(y*)^p m(y*) + E sum_{y in S, y != y*} pi_0(y)^p m(y) / a(y)

(Horvitz-Thompson). Responses that the samples hit for certain count exactly; the mode counts
exactly even where no sample hit it. What is neither sampled nor the mode has mass U = 1 - sum
known, and no response in it is likelier than the mode, so its share of Z_p vanishes as p grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from srlm.errors import UserError
from srlm.measure.intervals import mean
from srlm.measure.modes import Modes
from srlm.types import Bools, Estimate, Floats, Ints, Samples, Tokens

LEAST_SAMPLE_SIZE = 8.0
"""Effective sample size under which a prompt's forecast is not supported by its samples."""
LEAST_KNOWN = 0.95
"""Share of Z_p on responses known for certain at which a forecast needs no samples' support."""


@dataclass(frozen=True, slots=True)
class Known:
    """The distinct responses known of P prompts: those sampled, and the mode. One row each.

    Rows of a prompt lie together. ``pi_p`` is a softmax of p * ``logp_R`` - ``log_reach_R``.
    """

    prompt_R: Ints
    logp_R: Floats
    """log pi_0(y|x), nats."""
    log_reach_R: Floats
    """log a(y), a the probability that the samples contain y; 0 for the mode."""
    mode_R: np.ndarray
    """True on the row of the mode."""
    draws_R: Ints
    """How often y was sampled."""
    sure_R: np.ndarray
    """True on the row of a mode than which nothing is likelier, and on all where all are listed."""
    row_R: Ints
    """Row of ``samples`` with this response; -1 for a mode that no sample hit."""
    prompts: int
    exact: bool
    """All responses are listed: every number is exact given the prompt."""


def known(
    samples: Samples,
    mode_P: Sequence[Tokens],
    mode_logp_P: Floats,
    *,
    certified_P: Bools | None = None,
    exact: bool = False,
) -> Known:
    """The distinct responses of the samples, and the mode of each prompt.

    Args:
        samples: at least two samples per prompt (or an enumeration, with ``exact``).
        mode_P: the likeliest response found of each prompt; empty where none is known.
        mode_logp_P: its log-probability.
        certified_P: whether no response of the prompt is likelier; all are, if left out.
        exact: the samples list all responses.

    Raises:
        UserError: fewer than two samples per prompt; probabilities that are not numbers; a sample
            that is impossible. Impossible responses of an enumeration are left out.
    """
    P = len(mode_P)
    count_P = np.bincount(samples.prompt_R, minlength=P)
    if count_P.min() < (1 if exact else 2):
        raise UserError(
            f"forecast: {int(count_P.min())} samples for prompt {int(count_P.argmin())}",
            "give at least two samples per prompt (--samples)",
        )
    if np.isnan(samples.logp_R).any() or np.isnan(mode_logp_P).any():
        raise UserError(
            "forecast: log-probabilities that are not numbers", "check the model's weights"
        )
    possible_R = samples.logp_R > -np.inf  # an impossible response weighs nothing at any power
    if not exact and not possible_R.all():
        raise UserError(
            f"forecast: a sample of prompt {int(samples.prompt_R[~possible_R][0])} (counted from "
            "0) has probability zero",
            "check the model's weights, or use --dtype float32",
        )
    first: dict[tuple[int, Tokens], int] = {}
    prompt: list[int] = []
    logp: list[float] = []
    draws: list[int] = []
    row: list[int] = []
    for r, p in enumerate(samples.prompt_R.tolist()):
        if not possible_R[r]:
            continue
        key = (p, samples.tokens_R[r])
        if key in first:
            draws[first[key]] += 1
            continue
        first[key] = len(prompt)
        prompt.append(p)
        logp.append(float(samples.logp_R[r]))
        draws.append(1)
        row.append(r)
    mode = [False] * len(prompt)
    for p, tokens in enumerate(mode_P):
        if not tokens:
            continue
        at = first.get((p, tokens))
        if at is None:
            prompt.append(p)
            logp.append(float(mode_logp_P[p]))
            draws.append(0)
            row.append(-1)
            mode.append(True)
        else:
            mode[at] = True
    order = np.argsort(prompt, kind="stable")
    logp_R = np.array(logp)[order]
    prompt_R = np.array(prompt, dtype=np.int64)[order]
    mode_R = np.array(mode)[order]
    log_reach_R = _log_reach(logp_R, count_P[prompt_R])
    return Known(
        prompt_R=prompt_R,
        logp_R=logp_R,
        log_reach_R=np.where(mode_R | exact, 0.0, log_reach_R),
        mode_R=mode_R,
        draws_R=np.array(draws, dtype=np.int64)[order],
        sure_R=(mode_R & (True if certified_P is None else certified_P[prompt_R])) | exact,
        row_R=np.array(row, dtype=np.int64)[order],
        prompts=P,
        exact=exact,
    )


@dataclass(frozen=True, slots=True)
class Sharpened:
    """pi_p of each prompt, p one number or one per prompt. Arrays over P."""

    log_z_P: Floats
    """log Z_p."""
    log_top_P: Floats
    """log pi_p(y*|x) = p log pi_0(y*|x) - log Z_p, at most 0; y* the likeliest known response."""
    weight_R: Floats
    """pi_p(y|x) of the known responses, normalised over a prompt."""
    sample_size_P: Floats
    """(sum w)^2 / sum w^2 of the samples' weights pi_0(y)^(p-1)."""
    known_P: Floats
    """Share of Z_p on a certified mode and on responses that samples hardly miss: 1 if exact."""
    entropy_P: Floats
    """H(pi_p), nats."""

    @property
    def supported_P(self) -> np.ndarray:
        """The samples, or what is known for certain, carry the forecast of the prompt."""
        return (self.sample_size_P >= LEAST_SAMPLE_SIZE) | (self.known_P >= LEAST_KNOWN)


def sharpen(known: Known, exponent: float | Floats) -> Sharpened:
    """pi_0^p normalised, from what is known of pi_0. O(R)."""
    P, at = known.prompts, known.prompt_R
    p_R = np.broadcast_to(np.asarray(exponent, dtype=float), (P,))[at]
    score_R = p_R * known.logp_R - known.log_reach_R
    sum_P = _logsumexp(score_R, at, P)
    weight_R = np.exp(score_R - sum_P[at])
    log_z_P = np.where(np.broadcast_to(exponent, (P,)) == 1.0, 0.0, sum_P)  # Z_1 = 1
    best_P = np.full(P, -np.inf)
    np.maximum.at(best_P, at, known.logp_R)
    top_P = np.minimum(np.broadcast_to(exponent, (P,)) * best_P - log_z_P, 0.0)
    # Weight of one sample, up to a constant per prompt; a mode that no sample hit is none.
    draw_R = np.where(known.draws_R > 0, (p_R - 1) * known.logp_R, -np.inf)
    draw_R = np.asarray(np.exp(draw_R - _most(draw_R, at, P)[at]), dtype=np.float64)
    count_R = known.draws_R.astype(np.float64)
    total_P = _sum(count_R * draw_R, at, P)
    squares_P = _sum(count_R * draw_R**2, at, P)
    seen_R = ~known.mode_R & (known.log_reach_R > np.log(LEAST_KNOWN))
    sure_R = known.sure_R | seen_R
    mean_logp_P = _sum(weight_R * known.logp_R, at, P)
    entropy_P = log_z_P - np.broadcast_to(exponent, (P,)) * mean_logp_P
    return Sharpened(
        log_z_P=log_z_P,
        log_top_P=top_P,
        weight_R=weight_R,
        sample_size_P=np.full(P, np.inf) if known.exact else total_P**2 / squares_P,
        known_P=_sum(weight_R * sure_R, at, P),
        entropy_P=np.maximum(entropy_P, 0.0),
    )


def expect(known: Known, sharpened: Sharpened, metric_R: Floats) -> Floats:
    """E_{y ~ pi_p(.|x)} m(x, y) of each prompt, [P], m given on the known responses."""
    value_R = np.where(sharpened.weight_R > 0, sharpened.weight_R * metric_R, 0.0)
    return _sum(value_R, known.prompt_R, known.prompts)


def exponents(beta: float, rounds: int) -> Floats:
    """p_t = (1 + 1/beta)^t for t = 0..rounds.

    >>> exponents(1.0, 3)
    array([1., 2., 4., 8.])
    """
    if beta <= 0:
        raise UserError(f"beta {beta}: not positive", "give --beta above 0")
    return np.asarray((1 + 1 / beta) ** np.arange(rounds + 1))


def kappa_next(
    samples: Samples, modes: Modes, beta: float, *, seed: int, exact: bool = False
) -> Estimate:
    """kappa after one exact round from here: E_x[ Z_p / p*^p ], p = 1 + 1/beta.

    The distance of the trained round from it is the update's own error (theory.md section 1).
    """
    listed = known(
        samples, modes.tokens_P, modes.logp_P, certified_P=modes.certified_P, exact=exact
    )
    kappa_P = np.exp(-sharpen(listed, 1 + 1 / beta).log_top_P)
    return mean(kappa_P, seed, "one exact update, from the samples and the mode", least=1.0)


def _log_reach(logp_R: Floats, draws_R: Ints) -> Floats:
    """log(1 - (1 - pi)^N) for any log pi: of responses too unlikely for a float, log(N pi)."""
    tiny_R = logp_R < -30.0
    p_R = np.exp(np.clip(logp_R, -30.0, -1e-12))
    return np.where(tiny_R, np.log(draws_R) + logp_R, np.log(-np.expm1(draws_R * np.log1p(-p_R))))


def _logsumexp(score_R: Floats, at: Ints, P: int) -> Floats:
    most_P = _most(score_R, at, P)
    return np.asarray(most_P + np.log(_sum(np.exp(score_R - most_P[at]), at, P)))


def _sum(value_R: Floats, at: Ints, P: int) -> Floats:
    return np.asarray(np.bincount(at, value_R, minlength=P), dtype=np.float64)


def _most(score_R: Floats, at: Ints, P: int) -> Floats:
    most_P = np.full(P, -np.inf)
    np.maximum.at(most_P, at, score_R)
    return most_P
