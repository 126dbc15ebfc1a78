"""Votes among the responses of a batch, and what they say of the policy: for any trainer."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from srlm.forecast import answers
from srlm.grading import Grader
from srlm.rewards.consistency import votes
from srlm.types import Estimate, Floats, rows_by_prompt


@dataclass(frozen=True, slots=True)
class Vote:
    """The vote of one batch: R responses of P prompts."""

    share_R: Floats
    """v(a(y)|x), the share of the prompt's responses with the row's answer, in (0, 1], [R];
    not-a-number where no answer can be parsed."""
    majority_R: Floats
    """1 / t for a row whose answer is one of the prompt's t commonest, else 0 (TTRL), [R];
    not-a-number where no answer can be parsed."""
    answer_R: list[str | None]
    metrics: dict[str, float]
    """By name: vote_share (mean share of the commonest answer), readable_share, kappa_answer with
    its 90% interval as kappa_answer_low and kappa_answer_high, effective_answers (mean of
    1 / sum of squared shares among parsed responses), and flip_rate once prompts come again."""


@dataclass(slots=True)
class Votes:
    """Counts votes batch by batch, and remembers each prompt's last winner.

    >>> from srlm.grading import grader
    >>> count = Votes(grader("last-number"))
    >>> vote = count(["x"] * 4, ["7", "so 7", "8", "none"])
    >>> vote.share_R.tolist(), vote.majority_R.tolist()
    ([0.5, 0.5, 0.25, nan], [1.0, 1.0, 0.0, nan])
    >>> count(["x"] * 2, ["8", "8"]).metrics["flip_rate"]
    1.0
    """

    grader: Grader
    winners: dict[Hashable, str] = field(default_factory=dict)
    """Of each prompt, the normal form of the answer that won when it was last seen."""

    def __call__(
        self,
        key_R: Sequence[Hashable],
        text_R: Sequence[str],
        finished_R: Sequence[bool] | None = None,
    ) -> Vote:
        """Count one batch. O(R), and some 50 ms for the interval of kappa_answer.

        Args:
            key_R: the prompt of each response; equal keys are the same prompt.
            text_R: responses.
            finished_R: False where a length limit cut one off: it has no answer.
        """
        number: dict[Hashable, int] = {}
        prompt_R = np.array([number.setdefault(key, len(number)) for key in key_R], dtype=np.int64)
        done_R = [True] * len(text_R) if finished_R is None else list(finished_R)
        answer_R = self.grader.answers(text_R, done_R, prompt_R)
        rows_P = rows_by_prompt(prompt_R, len(number))
        size_P = np.array([len(rows) for rows in rows_P])
        share_R = votes(prompt_R, answer_R, 1.0 / size_P[prompt_R])
        majority_R = np.where(np.isnan(share_R), np.nan, 0.0)
        counts: list[answers.Counts] = []
        flips: list[float] = []
        top_P = np.zeros(len(number))
        effective: list[float] = []
        for (key, p), rows in zip(number.items(), rows_P, strict=True):
            tally: dict[str, int] = {}
            for r in rows:
                answer = answer_R[r]
                if answer is not None:
                    tally[answer] = tally.get(answer, 0) + 1
            count_A = np.array(list(tally.values()), dtype=np.int64)
            counts.append(answers.Counts(count_A, None, len(rows) - int(count_A.sum())))
            if not tally:
                continue
            most = int(count_A.max())
            top_P[p] = most / len(rows)
            effective.append(float(count_A.sum() ** 2 / (count_A**2).sum()))
            first = [answer for answer, n in tally.items() if n == most]
            for r in rows:
                if answer_R[r] in first:
                    majority_R[r] = 1.0 / len(first)
            names = [self.grader.normal(answer) for answer in first]
            before = self.winners.get(key)
            if before is not None:
                flips.append(float(before not in names))
            self.winners[key] = before if before in names else names[0]
        metrics = {
            "vote_share": float(top_P.mean()),
            "readable_share": float(np.mean([answer is not None for answer in answer_R])),
        }
        if effective:
            metrics["effective_answers"] = float(np.mean(effective))
            metrics |= _kappa(counts)
        if flips:
            metrics["flip_rate"] = float(np.mean(flips))
        return Vote(share_R, majority_R, answer_R, metrics)


def _kappa(counts: Sequence[answers.Counts]) -> dict[str, float]:
    """kappa_answer of these prompts by the posterior of their shares (``forecast.answers``)."""
    drawn_BP = answers.values(answers.posterior(counts, draws=200), answers.kappa)
    found: Estimate = answers.estimate(drawn_BP, "answer level")
    ends = {"": found.value, "_low": found.low, "_high": found.high}
    return {f"kappa_answer{end}": float(x) for end, x in ends.items() if x is not None}
