"""What N samples per prompt say about its answers: shares, the mode, kappa, the vote.

The plug-in share of the commonest answer is biased up (it was chosen for being large), so kappa
from it is biased down, and the accuracy of the majority of N is not that of the mode. So each
prompt's shares get a posterior. Among the readable responses they are Dirichlet, with weight
T rho for the right answer and T (1 - rho) / M for each of M others (T / M for each of M where the
right answer is not known); T and rho are log-normal and logit-normal over the prompts. The
unreadable share is Beta. Means, spreads and M have a flat prior on a grid, and their posterior
given all prompts is summed exactly, so that the intervals carry what is not known of them.

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
LOG_TOTALS = np.linspace(np.log(0.2), np.log(150.0), 29)
"""log T of the grid."""
LOGITS = np.linspace(-4.5, 4.5, 19)
"""logit rho of the grid."""
OTHERS = (1, 2, 3, 4, 6, 9, 14, 19, 29, 39, 59, 99, 299)
"""M of the grid."""
SPREADS = (0.15, 0.7, 1.4, 2.8)
"""Standard deviations of log T and logit rho over the prompts."""
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
        counts, prior, B = self.counts[p], self.prior_P[p], self.draws
        total_B, right_B, others_B = prior.draw(counts, rng)
        labelled = counts.right is not None
        each_B = total_B * (1 - right_B) / others_B
        given = [n for a, n in enumerate(counts.count_A) if a != counts.right]
        unseen_B = others_B - len(given)
        U = int(unseen_B.max())
        # Columns: the right answer (if there is one), the others given, the others not given.
        shape_BA = np.zeros((B, labelled + len(given) + U))
        if labelled:
            shape_BA[:, 0] = total_B * right_B + counts.hits
        shape_BA[:, labelled : labelled + len(given)] = each_B[:, None] + np.array(given)
        rest = np.arange(U)[None] < unseen_B[:, None]
        shape_BA[:, labelled + len(given) :] = np.where(rest, each_B[:, None], 0.0)
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
class Prior:
    """Draws from the posterior of what the prompts share: M, and the weights of T and rho."""

    others_B: Ints
    log_total_BT: Floats
    """log P(T) on the grid."""
    log_right_BR: Floats
    """log P(rho) on the grid; one column where the right answer is not known."""

    def draw(self, counts: Counts, rng: np.random.Generator) -> tuple[Floats, Floats, Ints]:
        """T, rho (0 where the right answer is not known) and M given a prompt's counts, [B]."""
        numbers, place_B = np.unique(self.others_B, return_inverse=True)
        like_MTR = _log_likelihood(counts, numbers)
        log_BTR = self.log_total_BT[:, :, None] + self.log_right_BR[:, None] + like_MTR[place_B]
        B, R = len(log_BTR), log_BTR.shape[2]
        log_BC = log_BTR.reshape(B, -1)
        upto_BC = np.cumsum(np.exp(log_BC - log_BC.max(1, keepdims=True)), axis=1)
        cell_B = (upto_BC < rng.random((B, 1)) * upto_BC[:, -1:]).sum(1)
        right_B = _RIGHTS[cell_B % R] if counts.right is not None else np.zeros(B)
        return _TOTALS[cell_B // R], right_B, self.others_B


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
    """The posterior of M and of the means and spreads of log T and logit rho."""
    labelled = counts[0].right is not None
    most = max(len(c.count_A) - (c.right is not None and c.right >= 0) for c in counts)
    numbers = np.array([m for m in OTHERS if m >= most] or [2 * most], dtype=np.int64)
    like_PMTR = np.array([_log_likelihood(c, numbers) for c in counts])
    top_P = like_PMTR.max((1, 2, 3), keepdims=True)
    weight_HT = _weights(LOG_TOTALS)
    weight_JR = _weights(LOGITS) if labelled else np.ones((1, 1))
    some_PMHR = np.einsum("pmtr,ht->pmhr", np.exp(like_PMTR - top_P), weight_HT)
    some_PMHJ = some_PMHR @ weight_JR.T
    log_MHJ = np.log(np.maximum(some_PMHJ, 1e-300)).sum(0)
    _, H, J = log_MHJ.shape
    cell_B = _choice(log_MHJ.ravel(), rng, draws)
    with np.errstate(divide="ignore"):
        return Prior(
            numbers[cell_B // (H * J)],
            np.log(weight_HT[cell_B // J % H]),
            np.log(weight_JR[cell_B % J]),
        )


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
    """log P(counts | T, rho, M) up to a constant, [M, T, R] (R = 1 without a right answer).

    With weights a_r of the right answer and a of each of M others, of which K were given:
    Gamma(S)/Gamma(S+n) Gamma(a_r+n_r)/Gamma(a_r) M!/(M-K)! prod Gamma(a+n_i)/Gamma(a).
    """
    labelled = counts.right is not None
    given = np.array([n for a, n in enumerate(counts.count_A) if a != counts.right], dtype=float)
    K = len(given)
    total_MTR = np.exp(LOG_TOTALS)[None, :, None]
    own_MTR = total_MTR * (_RIGHTS if labelled else np.zeros(1))
    each_MTR = (total_MTR - own_MTR) / others_M[:, None, None]
    out_MTR = gammaln(total_MTR) - gammaln(total_MTR + counts.readable)
    if labelled:
        out_MTR = out_MTR + gammaln(own_MTR + counts.hits) - gammaln(own_MTR)
    times, how_often = np.unique(given, return_counts=True)
    for n, m in zip(times, how_often, strict=True):
        out_MTR = out_MTR + m * (gammaln(each_MTR + n) - gammaln(each_MTR))
    room_M = np.where(others_M >= K, others_M, K)
    ways_M = gammaln(room_M + 1.0) - gammaln(room_M - K + 1.0)
    ways_M = np.where(others_M >= K, ways_M, -np.inf)
    return np.asarray(out_MTR + ways_M[:, None, None] + np.zeros_like(each_MTR))


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
    value_BP: Floats, method: str, *, seed: int = 0, level: float = LEVEL, these: bool = False
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
    """
    B, P = value_BP.shape
    rng = np.random.default_rng([seed, B, P])
    counted = bool(np.isin(value_BP, (0.0, 1.0)).all())
    if these:
        mean_B = value_BP.mean(1)
        step = 1 / P if counted else 0.0
        low_B = high_B = mean_B + step * (rng.random(B) - 0.5)
    else:
        weight_BP = rng.standard_exponential((B, P))
        sum_B, all_B = (value_BP * weight_BP).sum(1), weight_BP.sum(1)
        low_B = high_B = mean_B = sum_B / all_B
        if counted and _few(value_BP):
            one_B = rng.standard_exponential(B)
            low_B, high_B = sum_B / (all_B + one_B), (sum_B + one_B) / (all_B + one_B)
    tail = (1 - level) / 2 * (INVERSE_TAIL if value_BP.max() > 1 else 1.0)
    low, high = np.quantile(low_B, tail), np.quantile(high_B, 1 - tail)
    if these or not counted:
        low, high = max(low, value_BP.min()), min(high, value_BP.max())
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
