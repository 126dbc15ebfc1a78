"""The answer level: pi(a|x) = sum of pi(y|x) over the responses y whose answer is a.

kappa_answer = E_x[1 / max_a pi(a|x)] <= kappa at sequence level, always. Three views of it from
samples, and the two curves that any method must be held against: majority vote over k samples
(cons@k) and at least one right in k (pass@k). Answers come as one text a row (None: unparseable).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from srlm.errors import UserError
from srlm.measure.condition import kappa, log10_kappa
from srlm.measure.intervals import clopper_pearson, mean
from srlm.types import Bools, Estimate, Floats, Ints, Samples, rows_by_prompt

Answers = Sequence[str | None]


@dataclass(frozen=True, slots=True)
class AnswerModes:
    """The likeliest answer of each prompt, as far as samples can tell."""

    answer_P: tuple[str | None, ...]
    """None where no sample has one."""
    log_low_P: Floats
    """Lower end for log pi(answer|x), nats: of long responses too small for a float without it."""
    high_P: Floats
    """Upper end for pi(answer|x); 1 where the method gives none."""
    method: str
    guarantee: str

    def kappa(self, *, seed: int = 0) -> Estimate:
        """kappa_answer at the lower ends: an upper bound, as sure as they are.

        max_a pi(a|x) >= pi(answer|x) >= low. Infinite where some prompt has no parseable sample.
        """
        return kappa(self.log_low_P, self.method, seed=seed, guarantee=self.guarantee)

    def log10_kappa(self, *, seed: int = 0) -> Estimate:
        """log10 of ``kappa``: the number to read where that is large."""
        return log10_kappa(self.log_low_P, self.method, seed=seed, guarantee=self.guarantee)


def split_sample(samples: Samples, answer_R: Answers, prompts: int) -> AnswerModes:
    """The commonest answer among the even samples, its share tested on the odd ones.

    The choice does not touch the samples that test it, so the Clopper-Pearson interval covers
    pi(answer|x) at 95% for each prompt. For samples only, not for enumerated responses.

    Raises:
        UserError: a prompt has fewer than two samples.
    """
    answers: list[str | None] = []
    low_P, high_P = np.zeros(prompts), np.ones(prompts)
    for p, rows in enumerate(rows_by_prompt(samples.prompt_R, prompts)):
        if len(rows) < 2:
            raise UserError(
                f"prompt {p} (counted from 0) has {len(rows)} samples",
                "sample at least 2 per prompt",
            )
        chosen = _commonest([answer_R[r] for r in rows[0::2]])
        answers.append(chosen)
        if chosen is not None:
            test = rows[1::2]
            hits = sum(answer_R[r] == chosen for r in test)
            low_P[p], high_P[p] = clopper_pearson(hits, len(test))
    guarantee = "upper bound; each prompt's share at 95%"
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
    """cons@k: probability that the commonest answer of k samples is right, ties broken by lot.

    Each prompt's samples are put into 64 random orders, and the first k of an order vote: without
    bias for the vote over k fresh samples, and exact where k is all of them. The error of the
    subsets is in the interval, for it differs from prompt to prompt. Unparseable samples do not
    vote; without votes it is wrong. Cost O(64 K m) per prompt of m answers.

    Args:
        right_R: whether the row's answer is right; equal answers of a prompt are equally right.
        ks: subset sizes, none above K.

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


def _rows(samples: Samples, prompts: int, most: int) -> list[Ints]:
    rows_P = rows_by_prompt(samples.prompt_R, prompts)
    for p, rows in enumerate(rows_P):
        if len(rows) < most:
            raise UserError(
                f"prompt {p} (counted from 0) has {len(rows)} samples, {most} are asked about",
                "sample more, or ask about fewer",
            )
    return rows_P
