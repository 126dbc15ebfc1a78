"""What N samples per prompt say about its answers: shares, the mode, kappa, the vote.

The plug-in share of the commonest answer is biased up (it was chosen for being large), so kappa
from it is biased down, and the accuracy of the majority of N is not that of the mode. So each
prompt's shares get a posterior. Among the readable responses they are Dirichlet, with weight T rho
for the right answer and T (1 - rho) / M for each of M others (T / M for each of M where the right
answer is not known); T and rho are log-normal and logit-normal over the prompts. Some prompts have
a *rival*, a wrong answer that many responses share: any of the others, which takes the part sigma
of the right one's weight, or the part tau of all the others'. (Were all others alike, many
scattered wrong answers would speak against any one that is common, and the right one would be the
mode nearly everywhere.) Some are *strays*, of any rho, without a rival: were all prompts of one
kind, few right answers would speak for a rival. How many have a rival, with which sigma or tau, and
how many are strays has a Dirichlet prior; the unreadable share is Beta. Means, spreads and M have a
flat prior on a grid. All of it is drawn from its posterior given all prompts, so that the intervals
carry what is not known.

* Answers that no sample gave are part of it: M counts them.
* A draw of the posterior is a set of shares for each prompt; intervals of anything computed from
  shares (the accuracy of the mode, kappa, later rounds) are quantiles over draws.
* Two questions, two intervals: about **these prompts** (the draws alone), and about **prompts
  like these** (each draw also weighs the prompts: the Bayesian bootstrap).

Certain bounds that need no such model stand beside: the split sample
(``srlm.measure.answer_level``). Coverage by simulation: ``tests/forecast/coverage.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from scipy.special import gammaln

from srlm.types import Estimate, Floats, Ints

DRAWS = 400
LEVEL = 0.9
FEW = 5.0
NEAR = 0.05
"""Prompts, and share of them, on one side under which a count is near 0 or P."""
INVERSE_TAIL = 0.8
"""Share of the nominal tails that intervals of 1 / share leave out: the posterior is a little too
sure of them (86% to 88% of its 90% intervals held over simulated problems, 89% to 90% so)."""
LOG_TOTALS = np.linspace(np.log(0.2), np.log(600.0), 16)
"""log T of the grid."""
LOGITS = np.linspace(-4.5, 4.5, 55)
"""logit rho of the grid: as fine as the least of ``SPREADS``."""
OTHERS = (1, 2, 3, 4, 6, 9, 14, 19, 29, 39, 59, 99, 299)
"""M of the grid."""
SPREADS = (0.15, 0.7, 1.4, 2.8)
"""Standard deviations of log T and logit rho over the prompts."""
PARTS = np.array([0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.85])
"""sigma of the grid, finer where the rival is about as common as the right answer."""
SLIPS = np.array([0.2, 0.4, 0.6, 0.8])
"""tau of the grid."""
RARE = 2.0, 0.2, 0.2
"""Dirichlet prior of the shares of prompts without a rival, with one of each sigma or tau, and of
strays."""
FITTED = 256
"""Prompts at most that tell what prompts share."""
SWEEPS, CELLS = 3, 200
"""Rounds of expectation-maximisation before sampling, and cells of the grid that sampling uses."""
MOST = 1 - 1e-9
"""The largest unreadable share, so that shares stay numbers."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each answer of a prompt was given."""

    count_A: Ints
    """Of the answers that were given."""
    right: int | None
    """Which of them is right; -1: none of them; None: not known."""
    silent: int = 0
    """Samples without an answer that can be read, cut-off ones included."""
    cut: int = 0
    """Of these, samples that a length limit cut off."""
    alike: int = 0
    """Of these, samples with the commonest text: a response of its own, that does not vote."""

    @property
    def hits(self) -> int:
        """Samples that are right."""
        return int(self.count_A[self.right]) if self.right is not None and self.right >= 0 else 0

    @property
    def readable(self) -> int:
        return int(self.count_A.sum())

    @property
    def samples(self) -> int:
        return self.readable + self.silent


# ---- the posterior


@dataclass(frozen=True, slots=True)
class Shares:
    """Draws of a prompt's shares. Columns: the answers given, then answers not given."""

    share_BA: Floats
    """[B, A]; with the unreadable share they sum to 1."""
    right: int | None
    """Column of the right answer; None: not known."""
    alike_B: Floats | None = None
    """Share of the commonest unreadable response, [B]; None: there is none."""

    @property
    def silent_B(self) -> Floats:
        return np.maximum(1.0 - self.share_BA.sum(1), 0.0)

    def top_B(self) -> Floats:
        """max_a v(a), [B], over answers and over responses without one, which say but themselves.

        So 1 / max is at most that of whole responses.
        """
        top_B = self.share_BA.max(1)
        return top_B if self.alike_B is None else np.maximum(top_B, self.alike_B)

    def mode_right_B(self) -> Floats:
        """1 where the right answer is the mode, [B]."""
        assert self.right is not None
        return (self.share_BA.argmax(1) == self.right).astype(np.float64)

    def accuracy_B(self) -> Floats:
        """v(right), [B]."""
        assert self.right is not None
        return self.share_BA[:, self.right]


@dataclass(frozen=True, slots=True)
class Posterior:
    """What is known of the shares of P prompts; ``shares`` draws them."""

    counts: Sequence[Counts]
    prior_P: tuple[Prior, ...]
    """One for the prompts with a known right answer, one for the others."""
    silent: tuple[tuple[float, float], ...]
    """(a, b) of the unreadable share's Beta prior under each draw; empty where every sample was
    readable: then all responses are taken to be."""
    seed: int
    draws: int

    def shares(self, p: int) -> Shares:
        """Draws of prompt p's shares; the same for the same seed. O(draws x answers)."""
        rng = np.random.default_rng([self.seed, p])
        counts, B = self.counts[p], self.draws
        labelled = counts.right is not None
        given = _others(counts)
        drawn = self.prior_P[p].draw(counts, rng)
        unseen_B = drawn.others_B - len(given)
        U = int(unseen_B.max())
        # Columns: the right answer (if there is one), the others given, the others not given.
        shape_BA = np.zeros((B, labelled + len(given) + U))
        if labelled:
            shape_BA[:, 0] = drawn.right_B
        shape_BA[:, labelled : labelled + len(given)] = drawn.each_B[:, None]
        rest = np.arange(U)[None] < unseen_B[:, None]
        shape_BA[:, labelled + len(given) :] = np.where(rest, drawn.each_B[:, None], 0.0)
        has = np.flatnonzero(drawn.rival_B >= 0)
        shape_BA[has, labelled + drawn.rival_B[has]] = drawn.weight_B[has]
        if labelled:
            shape_BA[:, 0] += counts.hits
        shape_BA[:, labelled : labelled + len(given)] += given
        share_BA = _dirichlet(rng, shape_BA)
        silent_B = np.zeros(B)
        if self.silent:
            a_B, b_B = np.array(self.silent).T
            silent_B = np.minimum(rng.beta(a_B + counts.silent, b_B + counts.readable), MOST)
        alike_B = None
        if counts.alike:
            alike_B = silent_B * rng.beta(counts.alike, counts.silent - counts.alike + 1, B)
        return Shares(share_BA * (1 - silent_B)[:, None], 0 if labelled else None, alike_B)


@dataclass(frozen=True, slots=True)
class Weights:
    """Draws of a prompt's Dirichlet weights."""

    others_B: Ints
    """M."""
    right_B: Floats
    """Of the right answer; 0 where it is not known."""
    each_B: Floats
    """Of each other answer but the rival."""
    rival_B: Ints
    """Which of the other answers is the rival, those given first; -1: there is none."""
    weight_B: Floats
    """Of the rival."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Draws from the posterior of what the prompts share: M, epsilon, the weights of T and rho."""

    others_B: Ints
    log_rival_BC: Floats
    """log share of prompts without a rival (column 0), with one of each sigma and tau, and of
    strays (the last)."""
    log_total_BT: Floats
    """log P(T) on the grid."""
    log_right_BR: Floats
    """log P(rho) on the grid; one column where the right answer is not known."""

    def draw(self, counts: Counts, rng: np.random.Generator) -> Weights:
        """A prompt's weights given its counts, [B]."""
        labelled = counts.right is not None
        given = _others(counts)
        numbers, place_B = np.unique(self.others_B, return_inverse=True)
        like_MTRC = _log_likelihood(counts, numbers)
        scaled_MTRC = np.exp(like_MTRC - like_MTRC.max())
        share_BC = np.exp(self.log_rival_BC)
        B, (_, T, R, C) = len(share_BC), scaled_MTRC.shape
        p_BTR = np.empty((B, T, R))
        for m in range(len(numbers)):
            of_B = place_B == m
            p_BTR[of_B] = (share_BC[of_B, :C] @ scaled_MTRC[m].reshape(-1, C).T).reshape(-1, T, R)
        p_BTR *= np.exp(self.log_right_BR)[:, None]
        p_BTR += share_BC[:, C, None, None] / R * scaled_MTRC[place_B, :, :, 0]
        p_BTR *= np.exp(self.log_total_BT)[:, :, None]
        upto_BX = np.cumsum(p_BTR.reshape(B, -1), axis=1)
        cell_B = (upto_BX < rng.random((B, 1)) * upto_BX[:, -1:]).sum(1)
        t_B, r_B = cell_B // R, cell_B % R
        b = np.arange(B)
        log_BC = self.log_rival_BC.copy()
        log_BC[:, :C] += like_MTRC[place_B, t_B, r_B]
        log_BC[:, :C] += self.log_right_BR[b, r_B][:, None]
        log_BC[:, C] += like_MTRC[place_B, t_B, r_B, 0] - np.log(R)
        c_B = _pick(log_BC, rng) % C  # a stray has no rival
        own, each, rival = _weights_of(tuple(numbers.tolist()), labelled)
        here = (place_B, t_B, r_B, c_B)
        right_B, each_B, rival_B = own[here], each[here], rival[here]
        # Which one the rival is: each of those given, or any that was not.
        log_BG = _rising(rival_B[:, None], given) - _rising(each_B[:, None], given)
        unseen_B = np.log(np.maximum(self.others_B - len(given), 1e-300))
        which_B = _pick(np.column_stack([log_BG, unseen_B]), rng)
        return Weights(self.others_B, right_B, each_B, np.where(c_B > 0, which_B, -1), rival_B)


def _pick(log_BC: Floats, rng: np.random.Generator) -> Ints:
    """A column of each row, by its weights."""
    upto_BC = np.cumsum(np.exp(log_BC - log_BC.max(1, keepdims=True)), axis=1)
    under_BC = upto_BC < rng.random((len(log_BC), 1)) * upto_BC[:, -1:]
    return np.asarray(under_BC.sum(1), dtype=np.int64)


def _others(counts: Counts) -> Ints:
    """Counts of the answers given, but for the right one."""
    return np.array([n for a, n in enumerate(counts.count_A) if a != counts.right], dtype=np.int64)


def _rising(weight: Floats, n: Ints | int) -> Floats:
    """log of Gamma(weight + n) / Gamma(weight)."""
    return np.asarray(gammaln(weight + n) - gammaln(weight))


_TOTALS = np.exp(LOG_TOTALS)
_RIGHTS = 1 / (1 + np.exp(-LOGITS))


def posterior(counts: Sequence[Counts], *, seed: int = 0, draws: int = DRAWS) -> Posterior:
    """Condition the prior on all prompts' counts, then each prompt's shares on its own.

    Prompts with a known right answer and prompts without are fitted apart. Cost O(P) times some
    thousand grid points.
    """
    rng = np.random.default_rng([seed, len(counts)])
    prior = {
        known: _prior([c for c in counts if (c.right is not None) == known], rng, draws)
        for known in {c.right is not None for c in counts}
    }
    silent: tuple[tuple[float, float], ...] = ()
    if any(c.silent for c in counts):
        grid = [(m * s, (1 - m) * s) for m, s in product(_MEANS, _SIZES) if (1 - m) * s > 0.3]
        a_H, b_H = np.array(grid).T
        k_P = np.array([c.silent for c in counts])[:, None]
        n_P = np.array([c.readable for c in counts])[:, None]
        log_H = (_betaln(a_H + k_P, b_H + n_P) - _betaln(a_H, b_H)).sum(0)
        silent = tuple(grid[h] for h in _choice(log_H, rng, draws))
    return Posterior(
        tuple(counts), tuple(prior[c.right is not None] for c in counts), silent, seed, draws
    )


_MEANS = 1 / (1 + np.exp(-np.linspace(-6.0, 4.0, 31)))
_SIZES = np.geomspace(0.5, 200.0, 19)


def _prior(counts: Sequence[Counts], rng: np.random.Generator, draws: int) -> Prior:
    """The posterior of what the prompts share: M, the means and spreads of log T and logit rho,
    and how many have a rival of which sigma. The last by Gibbs sampling, with the others on the
    cells of their grid that matter where expectation-maximisation ends."""
    labelled = counts[0].right is not None
    most = max(len(_others(c)) for c in counts)
    numbers = np.array([m for m in OTHERS if m >= most] or [2 * most], dtype=np.int64)
    some = [counts[i] for i in rng.permutation(len(counts))[:FITTED]]
    weight_HT = _weights(LOG_TOTALS).astype(np.float32)
    weight_JR = (_weights(LOGITS) if labelled else np.ones((1, 1))).astype(np.float32)
    H, J = len(weight_HT), len(weight_JR)
    like_PMTRC = np.empty((len(some), len(numbers), *_shape(labelled)), dtype=np.float32)
    for p, c in enumerate(some):
        log_MTRC = _log_likelihood(c, numbers)
        like_PMTRC[p] = np.exp(log_MTRC - log_MTRC.max())
    C = _shape(labelled)[2]
    rare_C = np.array([RARE[0], *[RARE[1]] * (C - 1), RARE[2]])
    share_C = rare_C / rare_C.sum()
    stray_PMT = like_PMTRC[..., 0].mean(3)
    for sweep in range(SWEEPS + 1):
        log_X = np.zeros(len(numbers) * H * J)
        for like_MTRC, stray_MT in zip(like_PMTRC, stray_PMT, strict=True):
            mixed_MTR = like_MTRC @ share_C[:C].astype(np.float32)
            some_MHJ = weight_HT @ (mixed_MTR @ weight_JR.T)
            some_MHJ += (np.float32(share_C[C]) * stray_MT @ weight_HT.T)[:, :, None]
            log_X += np.log(np.maximum(some_MHJ, np.float32(1e-37))).ravel()
        kept_X = np.argsort(-log_X, kind="stable")[: CELLS if sweep == SWEEPS else 8]
        m_X, h_X, j_X = kept_X // (H * J), kept_X // J % H, kept_X % J
        weight_XTR = weight_HT[h_X][:, :, None] * weight_JR[j_X][:, None]
        like_XPC = np.empty((len(kept_X), len(some), C + 1))
        for m in range(len(numbers)):
            flat_PTRC = like_PMTRC[:, m].reshape(len(some), -1, C)
            weight_XF = weight_XTR[m_X == m].reshape(-1, flat_PTRC.shape[1])
            like_XPC[m_X == m, :, :C] = np.swapaxes(weight_XF @ flat_PTRC, 0, 1)
            like_XPC[m_X == m, :, C] = weight_HT[h_X[m_X == m]] @ stray_PMT[:, m].T
        if sweep < SWEEPS:
            p_X = np.exp(log_X[kept_X] - log_X[kept_X[0]])
            each_XPC = like_XPC * share_C
            each_XPC /= np.maximum(each_XPC.sum(2, keepdims=True), 1e-300)
            share_C = rare_C + np.einsum("x,xpc->c", p_X / p_X.sum(), each_XPC)
            share_C /= share_C.sum()
    cell_B, share_BC = np.empty(draws, dtype=np.int64), np.empty((draws, len(share_C)))
    for b in range(draws):
        log_X = np.log(np.maximum(like_XPC @ share_C, 1e-300)).sum(1)
        cell_B[b] = _pick(log_X[None], rng)[0]
        with np.errstate(divide="ignore"):
            member_P = _pick(np.log(like_XPC[cell_B[b]] * share_C), rng)
        share_C = rng.dirichlet(rare_C + np.bincount(member_P, minlength=len(rare_C)))
        share_BC[b] = share_C
    with np.errstate(divide="ignore"):
        return Prior(
            numbers[m_X[cell_B]],
            np.log(share_BC),
            np.log(weight_HT[h_X[cell_B]].astype(np.float64)),
            np.log(weight_JR[j_X[cell_B]].astype(np.float64)),
        )


def _shape(labelled: bool) -> tuple[int, int, int]:
    """T, R, C of the grid."""
    if labelled:
        return len(LOG_TOTALS), len(LOGITS), 1 + len(PARTS) + len(SLIPS)
    return len(LOG_TOTALS), 1, 1 + len(PARTS)


def _weights(grid_T: Floats) -> Floats:
    """Normal weights on a grid, a row for each mean on it and each spread, [H, T]."""
    rows = []
    for mean, spread in product(grid_T, SPREADS):
        away_T = (grid_T - mean) / max(spread, 1e-9)
        row_T = np.exp(-np.minimum(away_T**2, 1400.0) / 2)
        rows.append(row_T / row_T.sum())
    return np.array(rows)


def _choice(log_H: Floats, rng: np.random.Generator, draws: int) -> Ints:
    p_H: Floats = np.exp(log_H - log_H.max())
    return np.asarray(rng.choice(len(p_H), draws, p=p_H / p_H.sum()), dtype=np.int64)


def _log_likelihood(counts: Counts, others_M: Ints) -> Floats:
    """log P(counts | T, rho, M, the rival's sigma) up to a constant, [M, T, R, C]: R = 1 without a
    right answer, C = 0 without a rival.

    With weights a_r of the right answer and a of each of M others, of which K were given:
    Gamma(S)/Gamma(S+n) Gamma(a_r+n_r)/Gamma(a_r) M!/(M-K)! prod Gamma(a+n_i)/Gamma(a). A rival is
    any of the M; with weight b in the place of a it brings the factor

        [ sum_i Gamma(b+n_i)/Gamma(b) Gamma(a)/Gamma(a+n_i) + M-K ] / M.
    """
    labelled = counts.right is not None
    given = _others(counts)
    key = tuple(others_M.tolist())
    own_MTRC, each_MTRC, _ = _weights_of(key, labelled)
    ways_M = _ways(counts, others_M)
    out_MTRC = np.zeros_like(each_MTRC) + ways_M[:, None, None, None]
    out_MTRC -= _rising(_TOTALS[:, None, None], counts.readable)
    if labelled:
        out_MTRC += _rising(own_MTRC, counts.hits)
    with np.errstate(divide="ignore"):
        left_M = np.log(np.maximum(others_M - len(given), 0))
    which_MTRQ = np.broadcast_to(left_M[:, None, None, None], each_MTRC[..., 1:].shape)
    times, how_often = np.unique(given, return_counts=True)
    for n, m in zip(times.tolist(), how_often.tolist(), strict=True):
        plain_MTRC, own_MTRQ = _rising_others(key, labelled, n)
        out_MTRC += m * plain_MTRC
        which_MTRQ = np.logaddexp(which_MTRQ, np.log(m) + own_MTRQ)
    out_MTRC[..., 1:] += which_MTRQ - np.log(others_M)[:, None, None, None]
    return out_MTRC


@lru_cache(maxsize=8)
def _weights_of(others: tuple[int, ...], labelled: bool) -> tuple[Floats, Floats, Floats]:
    """Weights of the right answer, of each of the M others, and of the rival, [M, T, R, C].

    The rival's is that of an other plus the part sigma of the right one's, or the part tau of all
    others'; where no right answer is known, the part sigma of all.
    """
    M = np.array(others)[:, None, None, None]
    part_C = np.concatenate([[0.0], PARTS, *([0.0 * SLIPS] if labelled else [])])
    slip_C = np.concatenate([[0.0], 0.0 * PARTS, *([SLIPS] if labelled else [])])
    total = _TOTALS[:, None, None]
    if labelled:
        rho = _RIGHTS[:, None]
        own, each = rho * (1 - part_C), (1 - rho) * (1 - slip_C) / M
        extra = rho * part_C + (1 - rho) * slip_C
    else:
        own, each, extra = np.zeros((1, 1)), (1 - part_C) / M, part_C
    whole = np.zeros((len(others), *_shape(labelled)))
    return total * own + whole, total * each + whole, total * (each + extra) + whole


@lru_cache(maxsize=64)
def _rising_others(others: tuple[int, ...], labelled: bool, n: int) -> tuple[Floats, Floats]:
    """log Gamma(a+n)/Gamma(a) of an answer that n samples gave, and by how much more it is if the
    answer is the rival."""
    _, each, rival = _weights_of(others, labelled)
    plain = _rising(each, n)
    return plain, _rising(rival[..., 1:], n) - plain[..., 1:]


def _ways(counts: Counts, others_M: Ints) -> Floats:
    """log M!/(M-K)!, [M]; nothing where more were given than there are."""
    K = len(_others(counts))
    room_M = np.maximum(others_M, K)
    ways_M = gammaln(room_M + 1.0) - gammaln(room_M - K + 1.0)
    return np.where(others_M >= K, ways_M, -np.inf)


def _dirichlet(rng: np.random.Generator, shape_BA: Floats) -> Floats:
    """Rows of Dirichlet variates; a shape of 0 is a share of 0.

    A gamma variate of a small shape is one of shape + 1 times U^(1/shape), taken in logarithms so
    that it does not vanish.
    """
    with np.errstate(divide="ignore"):
        log_BA = np.log(rng.standard_gamma(shape_BA + 1.0))
        log_BA += np.log(rng.random(shape_BA.shape)) / np.where(shape_BA > 0, shape_BA, 1.0)
    log_BA = np.where(shape_BA > 0, log_BA, -np.inf)
    out_BA = np.exp(log_BA - log_BA.max(1, keepdims=True))
    return np.asarray(out_BA / out_BA.sum(1, keepdims=True))


def _betaln(a: Floats, b: Floats) -> Floats:
    return np.asarray(gammaln(a) + gammaln(b) - gammaln(a + b))


# ---- what is asked of it


Values = Callable[[Shares, Counts], Floats]
"""A prompt's quantity under each draw of its shares, [B]."""


def values(post: Posterior, of: Values) -> Floats:
    """``of`` on every prompt, [B, P]."""
    return np.column_stack([of(post.shares(p), counts) for p, counts in enumerate(post.counts)])


def estimate(
    value_BP: Floats,
    method: str,
    *,
    seed: int = 0,
    level: float = LEVEL,
    these: bool = False,
    inverse: bool = False,
) -> Estimate:
    """Mean over the prompts with its interval from the posterior's draws.

    A count of these prompts moves in steps of one: its draws are spread over the step (mid-p), or
    intervals would hold more often than they say. Of prompts like these, a count near 0 or P
    gets one prompt more on the far side at each end, which for zeros and ones is Clopper and
    Pearson's interval; the Bayesian bootstrap alone knows none but the values seen.

    Args:
        value_BP: draws of each prompt's quantity.
        level: of the interval.
        these: about these prompts; else about prompts like these, by the Bayesian bootstrap.
        inverse: the quantity is 1 / a share, and no share itself.
    """
    B, P = value_BP.shape
    rng = np.random.default_rng([seed, B, P])
    counted = not inverse and bool(np.isin(value_BP, (0.0, 1.0)).all())
    if these:
        mean_B = value_BP.mean(1)
        step = 1 / P if counted else 0.0
        low_B = high_B = mean_B + step * (rng.random(B) - 0.5)
    else:
        weight_BP = rng.standard_exponential((B, P))
        all_B = weight_BP.sum(1)
        mean_P = value_BP.mean(0)
        sum_B = weight_BP @ mean_P + (value_BP - mean_P).mean(1) * all_B
        low_B = high_B = mean_B = sum_B / all_B
        if counted and _few(value_BP):
            one_B = rng.standard_exponential(B)
            low_B, high_B = sum_B / (all_B + one_B), (sum_B + one_B) / (all_B + one_B)
    tail = (1 - level) / 2 * (INVERSE_TAIL if inverse else 1.0)
    low, high = np.quantile(low_B, tail), np.quantile(high_B, 1 - tail)
    least, most = (value_BP.min(), value_BP.max()) if these or not counted else (0.0, 1.0)
    low, high = max(low, least), min(high, most)
    about = "these prompts" if these else "prompts like these"
    name = f"{method}; {level:.0%} for {about} (posterior of the shares)"
    return Estimate(float(np.median(mean_B)), float(low), float(high), P, name)


def _few(value_BP: Floats) -> bool:
    """Whether fewer than ``FEW`` prompts, and less than ``NEAR`` of them, lie on one side."""
    share = float(value_BP.mean())
    share = min(share, 1 - share)
    return share < NEAR and share * value_BP.shape[1] < FEW


def destination(shares: Shares, counts: Counts) -> Floats:
    """1[the right answer is the mode]: where votes lead, [B]."""
    return shares.mode_right_B()


def kappa(shares: Shares, counts: Counts) -> Floats:
    """1 / max_a v(a), [B]."""
    return 1.0 / shares.top_B()
