"""The answer level: pi(a|x) = sum of pi(y|x) over the responses y whose answer is a.

kappa_answer = E_x[1 / max_a pi(a|x)] <= kappa at sequence level, always. Three views of it from
samples, and the two curves that any method must be held against: majority vote over k samples
(cons@k) and at least one right in k (pass@k). Answers come as one text a row (None: unreadable).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb

import numpy as np
from scipy.special import gammaln

from srlm.errors import UserError
from srlm.measure.condition import kappa, log10_kappa
from srlm.measure.intervals import clopper_pearson, mean
from srlm.types import Bools, Estimate, Floats, Ints, Samples, rows_by_prompt

Answers = Sequence[str | None]


@dataclass(frozen=True, slots=True)
class AnswerModes:
    """The likeliest answer of each prompt, as far as samples can tell."""

    answer_P: tuple[str | None, ...]
    """None where no sample could be read."""
    log_low_P: Floats
    """Lower end for log pi(answer|x), nats: of long responses too small for a float without it."""
    high_P: Floats
    """Upper end for pi(answer|x); 1 where the method gives none."""
    method: str
    guarantee: str

    def kappa(self, *, seed: int = 0) -> Estimate:
        """kappa_answer at the lower ends: an upper bound, as sure as they are.

        max_a pi(a|x) >= pi(answer|x) >= low. Infinite where some prompt has no readable sample.
        """
        return kappa(self.log_low_P, self.method, seed=seed, guarantee=self.guarantee)

    def log10_kappa(self, *, seed: int = 0) -> Estimate:
        """log10 of ``kappa``: the number to read where that is large."""
        return log10_kappa(self.log_low_P, self.method, seed=seed, guarantee=self.guarantee)

    @property
    def low_P(self) -> Floats:
        """Lower end for pi(answer|x)."""
        return np.exp(self.log_low_P)


def split_sample(
    samples: Samples, answer_R: Answers, prompts: int, *, level: float = 0.95
) -> AnswerModes:
    """The commonest answer among the even samples, its share tested on the odd ones.

    The choice does not touch the samples that test it, so the Clopper-Pearson interval covers
    pi(answer|x) at ``level`` for each prompt. For samples only, not for enumerated responses.

    Raises:
        UserError: a prompt has fewer than two samples.
    """
    answers: list[str | None] = []
    low_P, high_P = np.zeros(prompts), np.ones(prompts)
    for p, rows in enumerate(rows_by_prompt(samples.prompt_R, prompts)):
        _need_two(len(rows), p)
        chosen = _commonest([answer_R[r] for r in rows[0::2]])
        answers.append(chosen)
        if chosen is not None:
            test = rows[1::2]
            hits = sum(answer_R[r] == chosen for r in test)
            low_P[p], high_P[p] = clopper_pearson(hits, len(test), level)
    guarantee = f"upper bound; each prompt's share at {level:.0%}"
    with np.errstate(divide="ignore"):
        log_low_P = np.log(low_P)
    return AnswerModes(
        tuple(answers), log_low_P, high_P, "answer level, split sample (Clopper-Pearson)", guarantee
    )


def _commonest(answers: list[str | None]) -> str | None:
    count: dict[str, int] = {}
    for answer in answers:
        if answer is not None:
            count[answer] = count.get(answer, 0) + 1
    return max(count, key=lambda a: count[a], default=None)


def pass_at(
    samples: Samples, right_R: Bools, prompts: int, ks: Sequence[int], *, seed: int = 0
) -> dict[int, Estimate]:
    """pass@k: probability that at least one of k samples is right.

    From K samples of which c are right, 1 - C(K-c, k) / C(K, k): the average over all subsets of
    k samples, without bias. Interval over prompts by bootstrap. ``ks`` above the samples of a
    prompt are refused.
    """
    rows_P = _rows(samples, prompts, max(ks))
    out = {}
    for k in ks:
        none_P = np.array(
            [comb(len(r) - int(right_R[r].sum()), k) / comb(len(r), k) for r in rows_P]
        )
        method = f"pass@{k}, all subsets of {len(rows_P[0])} samples"
        out[k] = mean(1.0 - none_P, seed, method, least=0.0, most=1.0)
    return out


def vote_at(
    samples: Samples,
    answer_R: Answers,
    right_R: Bools,
    prompts: int,
    ks: Sequence[int],
    *,
    seed: int = 0,
) -> dict[int, Estimate]:
    """cons@k: probability that the commonest answer of k samples is right, ties broken by lot.

    The average over all subsets of k of a prompt's K samples, in closed form, so without bias
    for the vote over k fresh samples. Unreadable samples do not vote; without votes it is wrong.

    Args:
        right_R: whether the row's answer is right; equal answers of a prompt are equally right.
        ks: subset sizes, none above K.

    Cost: O(m K^2) per prompt and k for m distinct answers; equal sets of counts are done once.
    """
    rows_P = _rows(samples, prompts, max(ks))
    right_counts, wrong_counts = [], []
    for rows in rows_P:
        count: dict[str, int] = {}
        right: dict[str, bool] = {}
        for r in rows:
            answer = answer_R[r]
            if answer is not None:
                count[answer] = count.get(answer, 0) + 1
                right[answer] = bool(right_R[r])
        right_counts.append(tuple(sorted(n for a, n in count.items() if right[a])))
        wrong_counts.append(tuple(sorted(n for a, n in count.items() if not right[a])))
    out = {}
    for k in ks:
        win_P = np.zeros(prompts)
        for p, (good, bad) in enumerate(zip(right_counts, wrong_counts, strict=True)):
            silent = len(rows_P[p]) - sum(good) - sum(bad)
            for i, count_i in enumerate(good):
                others = tuple(sorted((*good[:i], *good[i + 1 :], *bad)))
                win_P[p] += win_probability(count_i, others, silent, k)
        method = f"majority of {k}, all subsets of {len(rows_P[0])} samples"
        out[k] = mean(np.minimum(win_P, 1.0), seed, method, least=0.0, most=1.0)
    return out


ORDERS = 64
"""Random orders of a prompt's samples behind ``vote_curve``."""


def vote_curve(
    samples: Samples,
    answer_R: Answers,
    right_R: Bools,
    prompts: int,
    ks: Sequence[int],
    *,
    seed: int = 0,
) -> dict[int, Estimate]:
    """cons@k as ``vote_at`` gives it, from random subsets instead of all of them.

    Each prompt's samples are put into 64 random orders, and the first k of an order vote: without
    bias for every k, and fast where there are many distinct answers. The error of the subsets is
    in the interval, for it differs from prompt to prompt. Cost O(64 K m) per prompt of m answers.

    Raises:
        UserError: a prompt has fewer samples than the largest k.
    """
    rows_P = _rows(samples, prompts, max(ks))
    rng = np.random.default_rng(seed)
    win_kP = np.zeros((len(ks), prompts))
    for p, rows in enumerate(rows_P):
        names: dict[str, int] = {}
        right: list[bool] = []
        vote_K = np.full(len(rows), -1)
        for i, r in enumerate(rows):
            answer = answer_R[r]
            if answer is None:
                continue
            if answer not in names:
                names[answer] = len(names)
                right.append(bool(right_R[r]))
            vote_K[i] = names[answer]
        if not any(right):
            continue
        ballot_KA = vote_K[:, None] == np.arange(len(names))
        order_OK = rng.permuted(np.tile(np.arange(len(rows)), (ORDERS, 1)), axis=1)
        for j, k in enumerate(ks):
            count_OA = ballot_KA[order_OK[:, :k]].sum(1)
            top_OA = (count_OA == count_OA.max(1, keepdims=True)) & (count_OA > 0)
            share_O = (top_OA & np.array(right)).sum(1) / np.maximum(top_OA.sum(1), 1)
            win_kP[j, p] = share_O.mean()
    return {
        k: mean(
            win_kP[j],
            seed,
            f"majority of {k}, {ORDERS} random subsets of {len(rows_P[0])} samples",
            least=0.0,
            most=1.0,
        )
        for j, k in enumerate(ks)
    }


@lru_cache(maxsize=100_000)
def win_probability(mine: int, others: tuple[int, ...], silent: int, k: int) -> float:
    """Probability that an answer wins the vote among k samples without replacement.

    It was given ``mine`` times, other answers as often as ``others`` says, and ``silent`` samples
    had none. With j votes for it and t answers level with it, it wins with probability
    1/(1+t) = integral of u^t over u in [0, 1]. A subset of k is k independent binomial counts
    given their sum (any q), so for each j the others' votes have the generating polynomial
    prod_i sum_{l<=j} Bin(l; c_i, q) u^[l=j] z^l * sum_l Bin(l; silent, q) z^l, whose coefficient
    of z^(k-j) is a polynomial in u of degree at most (k-j)/j, integrated exactly by Gauss.

    >>> round(win_probability(2, (1,), 0, 1), 12)  # one draw of three
    0.666666666667
    >>> round(win_probability(1, (1,), 0, 2), 12)  # a tie
    0.5
    """
    total = mine + sum(others) + silent
    q = (k + 0.5) / (total + 1)
    mine_Z, silent_Z = _binomial(mine, q), _binomial(silent, q)
    rest_Z = _binomial(total - mine, q)
    # With more than half of the votes it has won.
    sure = [j for j in range(k // 2 + 1, min(mine, k) + 1) if k - j <= total - mine]
    wins = sum(float(mine_Z[j] * rest_Z[k - j]) for j in sure)
    for j in range(1, min(mine, k // 2) + 1):
        room = k - j
        u_U, share_U = np.polynomial.legendre.leggauss(room // j // 2 + 1)
        ways_UZ = np.zeros((len(u_U), room + 1))
        ways_UZ[:, : silent + 1] = silent_Z[: room + 1]
        for count in others:
            factor_UZ = np.tile(_binomial(count, q)[: j + 1], (len(u_U), 1))
            if count >= j:
                factor_UZ[:, j] *= (u_U + 1) / 2
            ways_UZ = _product(ways_UZ, factor_UZ)
        wins += float(mine_Z[j]) * float(share_U / 2 @ ways_UZ[:, room])
    return wins / float(_binomial(total, q)[k])


@lru_cache(maxsize=10_000)
def _binomial(n: int, q: float) -> Floats:
    """Bin(l; n, q) for l = 0..n."""
    votes = np.arange(n + 1)
    log_ways = gammaln(n + 1) - gammaln(votes + 1) - gammaln(n - votes + 1)
    return np.asarray(np.exp(log_ways + votes * np.log(q) + (n - votes) * np.log1p(-q)))


def _product(a_UZ: Floats, b_UZ: Floats) -> Floats:
    """Product of polynomials in z, cut to the degree of the first."""
    out_UZ = np.zeros_like(a_UZ)
    Z = a_UZ.shape[1]
    for v in range(min(b_UZ.shape[1], Z)):
        out_UZ[:, v:] += b_UZ[:, v : v + 1] * a_UZ[:, : Z - v]
    return out_UZ


def _need_two(samples: int, prompt: int) -> None:
    if samples < 2:
        raise UserError(
            f"prompt {prompt} (counted from 0) has {samples} samples",
            "sample at least 2 per prompt",
        )


def _rows(samples: Samples, prompts: int, most: int) -> list[Ints]:
    rows_P = rows_by_prompt(samples.prompt_R, prompts)
    for p, rows in enumerate(rows_P):
        if len(rows) < most:
            raise UserError(
                f"prompt {p} (counted from 0) has {len(rows)} samples, {most} are asked about",
                "sample more, or ask about fewer",
            )
    return rows_P
