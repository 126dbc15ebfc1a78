"""A Dirichlet process mixture over prompts: what their samples say of each other.

The responses of a prompt can be parsed or not, those that can are right or wrong, the wrong ones
give one answer or another. In one *component* of the mixture

* the share that cannot be parsed is Beta, as the next one, where it goes with the share of right
  answers among the parseable (``linked``): prompts that are seldom answered at all are then seldom
  answered rightly. Else it is of one Beta for all prompts;
* the share of the right answer is Beta(rho S, (1 - rho) S);
* M wrong answers (all answers, where the right one is not known) divide the rest, as
  Dirichlet(W/M, ..., W/M); or one of them, any, is a *rival*, an answer that many responses share:
  it takes Beta(tau R, (1 - tau) R) of the rest, and the others W/(M-1) each of what is left.
  (Without rivals, many scattered wrong answers would be evidence against any common one, and the
  right answer would be the mode nearly everywhere.)

The number of components and the share of prompts of each are not assumed: components have a
Dirichlet process prior over a grid of these parameters, truncated at ``COMPONENTS`` (Ishwaran and
Zarepour 2002, *Exact and approximate sum representations for the Dirichlet process*), with its
concentration sampled as well, by blocked Gibbs sampling (Ishwaran and James 2001, *Gibbs sampling
methods for stick-breaking priors*). *Outliers* are prompts whose parameters are their own: the
sampler seldom finds a new component of few prompts.

No such model is true of a language model, so its posterior alone is overconfident. It is *bagged*
(Bühlmann 2014, *Discussion of big Bayes stories and BayesBag*; Huggins and Miller 2023,
*Reproducible model selection using bagged posteriors*): every few draws condition on another
bootstrap sample of the prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from scipy.special import gammaln
from scipy.stats import spearmanr

from srlm.types import Floats, Ints

RIGHTS = 1 / (1 + np.exp(-np.linspace(-6.0, 6.0, 401)))
"""rho of the grid, of both shares: finer than the standard error of 256 prompts x 64 samples."""
SIZES = np.geomspace(0.5, 400.0, 12)
"""S of the grid."""
OTHERS = (1, 2, 3, 4, 6, 9, 19, 39, 99, 299)
"""M of the grid."""
TOTALS = np.geomspace(0.2, 600.0, 12)
"""W of the grid."""
PARTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""tau of the grid."""
SPREADS = (4.0, 16.0, 64.0, 256.0)
"""R of the grid."""
COMPONENTS = 40
CONCENTRATIONS = np.array([8.0, 16.0, 32.0])
"""With less, prompts that few samples cannot distinguish would be one component for certain."""
OUTLIERS = 1.0
"""Dirichlet weight of outliers in the prior, in prompts."""
LINK = 0.05
"""Probability under which a correlation is no chance, and share of prompts that is not few."""
MANY = 8
"""Samples of which it says something that none can be parsed."""
FITTED = 256
"""Prompts at most that the mixture is fitted to."""
DRAWS, BAGS = 100, 10
"""Draws of the mixture, and bootstrap samples of the prompts among them."""
BURNT, SETTLED, APART = 100, 20, 3
"""Sweeps before anything is kept, after another bootstrap sample, and from one draw to the next."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """The grid of the wrong answers, [X] = [M, W, none or (tau, R)]."""

    others_X: Ints
    """M."""
    each_X: Floats
    """Dirichlet weight of each answer but the rival."""
    part_X: Floats
    """The rival's part is Beta(part, rest); 0: there is none."""
    rest_X: Floats
    log_prior_X: Floats


@dataclass(frozen=True, slots=True)
class Drawn:
    """A prompt's component under each draw, [B]."""

    right_B: Floats | None
    """The right answer's share is Beta(right, wrong); None: it is not known."""
    wrong_B: Floats | None
    others_B: Ints
    """M."""
    each_B: Floats
    """Dirichlet weight of each of them but the rival."""
    rival_B: Ints
    """Which of them is the rival, those given first; -1: there is none."""
    part_B: Floats
    """The rival's part is Beta(part, rest)."""
    rest_B: Floats
    silent_B: Floats | None
    """The share that cannot be parsed is Beta(silent, parsed); None: there is none."""
    parsed_B: Floats | None


@dataclass(frozen=True, slots=True)
class Components:
    """Draws of the mixture: grid cells of its components, [G, K], and the log share of each."""

    most: int
    """Other answers that a prompt gave, at most: they decide the grid."""
    right_GK: Ints | None
    """None: no right answer is known."""
    wrong_GK: Ints
    silent_GK: Ints | None
    """None: all samples could be parsed. The same for all components where it is not linked."""
    linked: bool
    log_share_GK: Floats
    """[G, K + 1]: the last one is that of outliers."""

    def of(
        self, hits: int, given: Ints, silent: int, draws: int, rng: np.random.Generator
    ) -> Drawn:
        """A prompt's component given its counts, ``draws`` times."""
        grid, n, K = wrong_grid(self.most), int(given.sum()), len(given)
        even_X = np.zeros(len(_share_grid()[0]))
        silent_GK = self.silent_GK if self.linked else None
        factors = [
            (self.right_GK, even_X if self.right_GK is None else log_share(hits, n), even_X),
            (self.wrong_GK, log_wrong(given, self.most), grid.log_prior_X),
            (silent_GK, even_X if silent_GK is None else log_share(silent, hits + n), even_X),
        ]
        log_GK, alone = np.zeros(self.wrong_GK.shape), 0.0
        for cell_GK, log_X, log_prior_X in factors:
            if cell_GK is not None:
                log_GK = log_GK + log_X[cell_GK]
                alone += float(_mean(log_X, log_prior_X))
        log_GK = np.pad(log_GK, ((0, 0), (0, 1)), constant_values=alone) + self.log_share_GK
        g_B = np.arange(draws) * len(self.wrong_GK) // draws
        k_B = pick(log_GK[g_B], rng)
        outlier = np.flatnonzero(k_B == COMPONENTS)
        at_B = (g_B, np.minimum(k_B, COMPONENTS - 1))
        cells: list[Ints | None] = []
        for cell_GK, log_X, log_prior_X in factors:
            cells.append(None if cell_GK is None else cell_GK[at_B])
            if (x_B := cells[-1]) is not None:
                x_B[outlier] = _pick_of(log_X + log_prior_X, len(outlier), rng)
        right_B, x_B, silent_B = cells
        if self.silent_GK is not None and not self.linked:
            silent_B = self.silent_GK[g_B, 0]
        (a_B, b_B), (c_B, d_B) = _betas(right_B), _betas(silent_B)
        assert x_B is not None
        M_B, each_B = grid.others_X[x_B], grid.each_X[x_B]
        part_B, rest_B = grid.part_X[x_B], grid.rest_X[x_B]
        none_B = part_B == 0
        part_B, rest_B = np.where(none_B, 1.0, part_B), np.where(none_B, 1.0, rest_B)
        # Which one the rival is: each of those given, or any that was not.
        all_B = each_B * np.maximum(M_B - 1, 1)
        log_BC = rising(part_B[:, None], given) + rising(rest_B[:, None], n - given)
        log_BC -= rising(each_B[:, None], given) + rising(all_B[:, None], n - given)
        with np.errstate(divide="ignore"):
            log_unseen_B = np.log(M_B - K)
        log_unseen_B += rising(rest_B, n) - rising(all_B, n)
        rival_B = np.where(none_B, -1, pick(np.column_stack([log_BC, log_unseen_B]), rng))
        return Drawn(a_B, b_B, M_B, each_B, rival_B, part_B, rest_B, c_B, d_B)


def draw(
    hits: Sequence[int] | None,
    given: Sequence[Ints],
    silent: Sequence[int] | None,
    rng: np.random.Generator,
) -> Components:
    """The mixture given the counts of all prompts.

    Cost: some 600 sweeps of (components in use) x prompts x 10,000 cells: a second or two, for any
    number of prompts and samples.

    Args:
        hits: samples of each prompt that gave the right answer; None: it is not known.
        given: how many gave each other answer that was given, [K] for each prompt.
        silent: how many could not be parsed; None: there is none.
    """
    most = max(len(g) for g in given)
    some = rng.permutation(len(given))[:FITTED]
    wrong = [int(given[p].sum()) for p in some]
    own = [0 if hits is None else hits[p] for p in some]
    tables = [np.array([log_wrong(given[p], most) for p in some])]
    priors = [wrong_grid(most).log_prior_X]
    even_X = np.zeros(len(_share_grid()[0]))
    if hits is not None:
        tables.insert(0, np.array([log_share(h, n) for h, n in zip(own, wrong, strict=True)]))
        priors.insert(0, even_X)
    link = False
    if silent is not None:
        rows = zip(some, own, wrong, strict=True)
        silent_PX = np.array([log_share(silent[p], h + n) for p, h, n in rows])
        parsed = np.add(own, wrong, dtype=np.int64)
        link = linked(np.array(silent)[some], np.array(own, dtype=np.int64), parsed)
        if link:
            tables.append(silent_PX)
            priors.append(even_X)
    cells, log_share_GK = _sampled(tables, priors, rng)
    right_GK, wrong_GK = cells.pop(0) if hits is not None else None, cells.pop(0)
    silent_GK = cells.pop() if link else None
    if silent is not None and not link:
        cell_G = _pick_of(silent_PX.sum(0), len(wrong_GK), rng)
        silent_GK = np.repeat(cell_G[:, None], COMPONENTS, axis=1)
    return Components(most, right_GK, wrong_GK, silent_GK, link, log_share_GK)


def linked(silent_P: Ints, hits_P: Ints, parsed_P: Ints) -> bool:
    """Whether prompts of many unparseable samples are right more or less often when they are
    parsed (Spearman's rank correlation), or more than ``LINK`` of all have no parseable sample,
    which says nothing of how often they are right.

    >>> silent = np.repeat([2, 8], 20)
    >>> linked(silent, np.repeat([7, 0], 20), 10 - silent)
    True
    >>> linked(silent, np.repeat([4, 1], 20), 10 - silent)
    False
    """
    some = parsed_P > 0
    if (~some & (silent_P >= MANY)).mean() > LINK:
        return True
    share_P, right_P = silent_P / (silent_P + parsed_P), hits_P[some] / parsed_P[some]
    if not len(right_P) or np.ptp(share_P[some]) == 0 or np.ptp(right_P) == 0:
        return False
    return bool(spearmanr(share_P[some], right_P).pvalue < LINK)


def _sampled(
    tables: Sequence[Floats], priors: Sequence[Floats], rng: np.random.Generator
) -> tuple[list[Ints], Floats]:
    """Gibbs sampling of components whose parameters are independent in the prior.

    Args:
        tables: log likelihood of each prompt in each cell of a grid, [P, X], for each grid.
        priors: log prior of the cells, [X], for each grid.

    Returns:
        Cells of the components for each grid, [G, K], and the log share of each and of outliers,
        [G, K + 1].
    """
    P = len(tables[0])
    each = [np.maximum(x - x.max(1, keepdims=True), -1e5).astype(np.float32) for x in tables]
    alone_P = np.sum([_mean(x, log_X) for x, log_X in zip(each, priors, strict=True)], axis=0)
    prior = [(x - x.max()).astype(np.float32) for x in priors]
    upto = [np.cumsum(np.exp(x, dtype=np.float64)) for x in prior]
    order_P = np.argsort((each[0] + prior[0]).argmax(1), kind="stable")
    first_P = np.empty(P, dtype=np.int64)
    first_P[order_P] = np.arange(P) * 8 // P  # prompts in order of their likeliest cell
    alpha = 1.0
    cells: list[Ints] = []
    log_share_K = np.zeros(COMPONENTS + 1)
    found: list[list[Ints]] = [[] for _ in each]
    shares = []
    for bag in range(BAGS):
        row_P = rng.integers(P, size=P)
        some, own_P = [x[row_P] for x in each], alone_P[row_P]
        of_P = first_P[row_P]
        if bag:
            of_P = pick(_log_each(some, own_P, cells) + log_share_K, rng)
        settled = SETTLED if bag else BURNT
        for sweep in range(settled + APART * (DRAWS // BAGS)):
            count_K = np.bincount(of_P, minlength=COMPONENTS + 1)
            used_U = np.flatnonzero(count_K[:COMPONENTS])
            of_UP = (of_P == used_U[:, None]).astype(np.float32)
            cells = []
            for log_PX, log_X, upto_X in zip(some, prior, upto, strict=True):
                cell_K = _at(upto_X, COMPONENTS, rng)
                cell_K[used_U] = pick(of_UP @ log_PX + log_X, rng)
                cells.append(cell_K)
            share_K = rng.dirichlet(
                np.append(np.full(COMPONENTS, alpha / COMPONENTS), OUTLIERS) + count_K
            )
            log_share_K = np.log(np.maximum(share_K, 1e-300))
            of_P = pick(_log_each(some, own_P, cells) + log_share_K, rng)
            count_K = np.bincount(of_P, minlength=COMPONENTS + 1)[:COMPONENTS]
            log_A = gammaln(CONCENTRATIONS) - gammaln(CONCENTRATIONS + count_K.sum())
            log_A += rising(CONCENTRATIONS[:, None] / COMPONENTS, count_K).sum(1)
            alpha = float(CONCENTRATIONS[pick(log_A[None], rng)[0]])
            if sweep >= settled and (sweep - settled) % APART == 0:
                for kept, cell_K in zip(found, cells, strict=True):
                    kept.append(cell_K)
                shares.append(log_share_K)
    return [np.array(x) for x in found], np.array(shares)


def _mean(log_X: Floats, log_prior_X: Floats) -> Floats:
    """log of the mean likelihood under the prior, over the last axis."""
    weight_X = np.exp(log_prior_X - log_prior_X.max())
    top = log_X.max(-1)
    mean = np.exp(log_X - top[..., None]) @ weight_X / weight_X.sum()
    return np.asarray(np.log(np.maximum(mean, 1e-300)) + top)


def _log_each(tables: Sequence[Floats], own_P: Floats, cells: Sequence[Ints]) -> Floats:
    """log likelihood of each prompt in each component and as an outlier, [P, K + 1]."""
    log_PK = np.zeros((len(own_P), COMPONENTS + 1))
    for log_PX, cell_K in zip(tables, cells, strict=True):
        log_PK[:, :COMPONENTS] += log_PX[:, cell_K]
    log_PK[:, COMPONENTS] = own_P
    return log_PK


def pick(log_BC: Floats, rng: np.random.Generator) -> Ints:
    """A column of each row, by its weights."""
    weight_BC = np.exp(log_BC - log_BC.max(1, keepdims=True))
    upto_BC = np.cumsum(weight_BC, axis=1, dtype=np.float64)
    under_BC = upto_BC < rng.random((len(log_BC), 1)) * upto_BC[:, -1:]
    return np.minimum(under_BC.sum(1), log_BC.shape[1] - 1).astype(np.int64)


def _pick_of(log_C: Floats, times: int, rng: np.random.Generator) -> Ints:
    """Columns of one row, by their weights."""
    return _at(np.cumsum(np.exp(log_C - log_C.max()), dtype=np.float64), times, rng)


def _at(upto_C: Floats, times: int, rng: np.random.Generator) -> Ints:
    """Columns by the cumulative sum of their weights."""
    found = np.searchsorted(upto_C, rng.random(times) * upto_C[-1])
    return np.minimum(found, len(upto_C) - 1)


# ---- likelihoods


def rising(weight: Floats, n: Ints | int) -> Floats:
    """log of Gamma(weight + n) / Gamma(weight)."""
    return np.asarray(gammaln(weight + n) - gammaln(weight))


@lru_cache(maxsize=1)
def _share_grid() -> tuple[Floats, Floats]:
    """rho S and (1 - rho) S, [X]."""
    rho_X, size_X = np.array(list(product(RIGHTS, SIZES))).T
    return rho_X * size_X, (1 - rho_X) * size_X


@lru_cache(maxsize=512)
def log_share(times: int, rest: int) -> Floats:
    """log P(a given sequence of so many of the one and of the other | rho, S), [X]."""
    return _two(*_share_grid(), times, rest)


def _betas(cell_B: Ints | None) -> tuple[Floats | None, Floats | None]:
    if cell_B is None:
        return None, None
    a_X, b_X = _share_grid()
    return a_X[cell_B], b_X[cell_B]


def _two(a: Floats, b: Floats, k: int, rest: int) -> Floats:
    """log of B(a + k, b + rest) / B(a, b)."""
    return rising(a, k) + rising(b, rest) - rising(a + b, k + rest)


@lru_cache(maxsize=4)
def _others_grid(most: int) -> tuple[Ints, Floats]:
    """M and W, [Y]."""
    others = [*OTHERS, *([2 * most] if most > OTHERS[-1] else [])]
    m_Y, w_Y = np.array(list(product(others, TOTALS))).T
    return m_Y.astype(np.int64), w_Y


@lru_cache(maxsize=1)
def _rival_grid() -> tuple[Floats, Floats]:
    """tau R and (1 - tau) R, [Q]."""
    tau_Q, size_Q = np.array(list(product(PARTS, SPREADS))).T
    return tau_Q * size_Q, (1 - tau_Q) * size_Q


@lru_cache(maxsize=4)
def wrong_grid(most: int) -> Wrong:
    """The grid for prompts that gave ``most`` other answers at most: every other component has a
    rival, but none where there is one wrong answer only."""
    (m_Y, w_Y), (part_Q, rest_Q) = _others_grid(most), _rival_grid()
    Y, Q = len(m_Y), len(part_Q)
    each_YQ = np.repeat((w_Y / np.maximum(m_Y - 1, 1))[:, None], 1 + Q, axis=1)
    each_YQ[:, 0] = w_Y / m_Y
    prior_YQ = np.repeat(np.array([[0.5] + [0.5 / Q] * Q]), Y, axis=0)
    prior_YQ[m_Y == 1, 1:] = 1e-300
    return Wrong(
        np.repeat(m_Y, 1 + Q),
        each_YQ.ravel(),
        np.tile(np.append(0.0, part_Q), Y),
        np.tile(np.append(0.0, rest_Q), Y),
        np.log(prior_YQ).ravel(),
    )


def log_wrong(given: Ints, most: int) -> Floats:
    """log P(a sequence of wrong answers, numbered as they appear | M, W, tau, R), [X].

    Of M answers K were given, the i-th n_i times, n in all. Without a rival, a = W/M:

        M!/(M-K)! Gamma(W)/Gamma(W+n) prod Gamma(a+n_i)/Gamma(a)

    and with one, of them or of those not given, each alike, a = W/(M-1), and D(n) the same formula
    for all the others:

        M!/(M-K)! 1/M [ sum_i B(tau R + n_i, (1-tau) R + n - n_i)/B D(without i)
                        + (M-K) B(tau R, (1-tau) R + n)/B D(all) ].
    """
    (m_Y, w_Y), (part_Q, rest_Q) = _others_grid(most), _rival_grid()
    K, n = len(given), int(given.sum())
    times, how_often = np.unique(given, return_counts=True)
    room_Y = np.maximum(m_Y, K)
    ways_Y = gammaln(room_Y + 1.0) - gammaln(room_Y - K + 1.0)
    none_Y, all_Y = ways_Y - rising(w_Y, n), ways_Y
    for t, often in zip(times.tolist(), how_often.tolist(), strict=True):
        alone_Y, beside_Y = _answer(t, most)
        none_Y, all_Y = none_Y + often * alone_Y, all_Y + often * beside_Y
    with np.errstate(divide="ignore"):
        unseen_Y = all_Y - rising(w_Y, n) + np.log(np.maximum(m_Y - K, 0) / m_Y)
    terms = [unseen_Y[:, None] + _two(part_Q, rest_Q, 0, n)]
    for t, often in zip(times.tolist(), how_often.tolist(), strict=True):
        seen_Y = all_Y - _answer(t, most)[1] - rising(w_Y, n - t) + np.log(often / m_Y)
        terms.append(seen_Y[:, None] + _two(part_Q, rest_Q, t, n - t))
    peak_YQ = np.max(terms, axis=0)
    rival_YQ = peak_YQ + np.log(np.sum([np.exp(x - peak_YQ) for x in terms], axis=0))
    rival_YQ[m_Y == 1] = none_Y[m_Y == 1, None]  # no rival where there is one wrong answer only
    out_YQ = np.column_stack([none_Y, rival_YQ])
    out_YQ[m_Y < K] = -np.inf
    return out_YQ.ravel()


@lru_cache(maxsize=512)
def _answer(n: int, most: int) -> tuple[Floats, Floats]:
    """log Gamma(a + n) / Gamma(a) of an answer that n samples gave, without and beside a rival."""
    m_Y, w_Y = _others_grid(most)
    return rising(w_Y / m_Y, n), rising(w_Y / np.maximum(m_Y - 1, 1), n)
