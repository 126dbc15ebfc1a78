"""What a round's rewards are like: missing, alike, and what they go with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from srlm.grading import EXACT, Grader
from srlm.measure.intervals import by_prompt, mean, resamples, share
from srlm.rewards.base import Mean, Say, Scored
from srlm.rewards.consistency import votes
from srlm.rewards.rows import distinct
from srlm.types import Bools, Estimate, Floats, Ints, Samples, undefined

ALL_ALIKE = 0.9
"""Share of prompts without any difference of reward from which rewards count as saturated."""
LIKES_LENGTH = 0.5
"""Correlation of reward and length, either sign, from which the report speaks of it."""


@dataclass(frozen=True, slots=True)
class RewardReport:
    """A round's rewards in figures; none of them knows a right answer."""

    rows: int
    missing: int
    """Rows without a reward, left out of the pairs."""
    mean: Estimate
    """Of the rewards, over prompts."""
    spread: Estimate
    """Mean over prompts of the standard deviation among a prompt's rewards: what there is to
    learn from."""
    alike: Estimate
    """Share of the prompts with two or more distinct rewarded responses whose rewards are equal."""
    length_correlation: Estimate
    """Pearson's, of reward and length in tokens within prompts."""
    vote_correlation: Estimate
    """Pearson's, of reward (of the judge's own score where there is a judge) and the share of the
    prompt's samples with the same answer, within prompts. A judge that tells right from wrong goes
    along with the votes, as far as right answers are the commoner; where it falls, round after
    round, the judge degrades."""
    facts: dict[str, float]
    """What the reward itself told."""
    notes: tuple[str, ...]
    """What the user should know."""

    def to_json(self) -> dict[str, Any]:
        """The object of rounds/t/rewards.json."""
        names = ("mean", "spread", "alike", "length_correlation", "vote_correlation")
        return {
            "rows": self.rows,
            "missing": self.missing,
            **{name: getattr(self, name).to_json() for name in names},
            "facts": {k: float(v) if np.isfinite(v) else None for k, v in self.facts.items()},
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Seen:
    """What a report needs of rows that have a reward, without their tokens and texts."""

    rows: int
    """Responses, those without a reward too."""
    prompt_R: Ints
    weight_R: Floats
    length_R: Ints
    reward_R: Floats
    voted_R: Floats
    """What is compared with the votes: the judge's own scores, or the rewards."""
    vote_R: Floats
    """Share of the prompt's samples with the row's answer."""
    first_R: Bools
    """Whether no row before is the same response to the same prompt."""
    facts: dict[str, float]
    say: Say


def seen(samples: Samples, found: Scored, grader: Grader = EXACT) -> Seen:
    """The rows that have a reward.

    Args:
        samples: samples, all those of a prompt.
        found: their rewards.
        grader: reads and compares answers, for the votes.
    """
    known_R = np.isfinite(found.reward_R)
    kept, r_R = samples.take(known_R), found.reward_R[known_R]
    answer_R = grader.answers(kept.text_R, kept.finished_R, kept.prompt_R)
    first_R = np.zeros(len(kept), dtype=bool)
    first_R[distinct(kept)[0]] = True
    return Seen(
        rows=len(samples),
        prompt_R=kept.prompt_R,
        weight_R=kept.weight_R,
        length_R=kept.length_R,
        reward_R=r_R,
        voted_R=r_R if found.judged_R is None else found.judged_R[known_R],
        vote_R=votes(kept.prompt_R, answer_R, kept.weight_R),
        first_R=first_R,
        facts=dict(found.facts),
        say=found.say,
    )


def joined(parts: Sequence[Seen]) -> Seen:
    """Parts of a round as one, its facts joined as ``Scored`` says."""
    if len(parts) == 1:
        return parts[0]
    facts: dict[str, float] = {}
    for name in dict.fromkeys(name for p in parts for name in p.facts):
        values = [p.facts[name] for p in parts if name in p.facts]
        means = [v for v in values if isinstance(v, Mean)]
        if means:
            facts[name] = Mean(sum(m.total for m in means), sum(m.of for m in means))
        else:
            facts[name] = sum(values)
    columns = {
        name: np.concatenate([getattr(p, name) for p in parts])
        for name in ("prompt_R", "weight_R", "length_R", "reward_R", "voted_R", "vote_R", "first_R")
    }
    return Seen(sum(p.rows for p in parts), **columns, facts=facts, say=parts[0].say)


def report(
    samples: Samples,
    found: Scored,
    *,
    grader: Grader = EXACT,
    seed: int = 0,
) -> RewardReport:
    """``summary`` of samples that are in memory at once."""
    return summary(seen(samples, found, grader), seed=seed)


def summary(rows: Seen, *, seed: int = 0) -> RewardReport:
    """Figures of a round's rewards; intervals over prompts by bootstrap. O(R + resamples P).

    Args:
        rows: those with a reward.
        seed: of the bootstrap.
    """
    r_R = rows.reward_R
    missing = rows.rows - len(r_R)
    used, p_R = np.unique(rows.prompt_R, return_inverse=True)
    w_R = _shares(rows.weight_R, p_R)
    mean_P = by_prompt(r_R, w_R, p_R, len(used))
    spread_P = np.sqrt(by_prompt((r_R - mean_P[p_R]) ** 2, w_R, p_R, len(used)))
    alike, judged = _alike(rows, r_R), _alike(rows, rows.voted_R)
    length_R = rows.length_R.astype(np.float64)
    correlation = within(r_R, length_R, rows.prompt_R, rows.weight_R, "lengths", seed)
    agreement = within(rows.voted_R, rows.vote_R, rows.prompt_R, rows.weight_R, "votes", seed)
    average = mean(mean_P, seed, "mean over prompts")
    apart = mean(spread_P, seed, "standard deviation within prompts", least=0.0)
    notes = list(rows.say(rows.facts))
    if missing:
        notes.insert(0, f"{missing} of {rows.rows} responses have no reward and are left out")
    for name, same in (("the reward is", alike), ("the judge's scores are", judged)):
        if same.value is not None and same.value > ALL_ALIKE:
            notes.append(
                f"{name} saturated: alike within {same.value:.0%} of the prompts whose "
                "responses differ"
            )
            break
    if correlation.value is not None and abs(correlation.value) > LIKES_LENGTH:
        likes = "longer" if correlation.value > 0 else "shorter"
        notes.append(
            f"the reward goes with {likes} responses (correlation {correlation.value:.2f})"
        )
    return RewardReport(
        rows=rows.rows,
        missing=missing,
        mean=average,
        spread=apart,
        alike=alike,
        length_correlation=correlation,
        vote_correlation=agreement,
        facts=rows.facts,
        notes=tuple(notes),
    )


def _alike(rows: Seen, value_R: Floats) -> Estimate:
    """Of the prompts with several distinct responses, those whose values are all equal."""
    used, p_S = np.unique(rows.prompt_R[rows.first_R], return_inverse=True)
    low_P, high_P = np.full(len(used), np.inf), np.full(len(used), -np.inf)
    np.minimum.at(low_P, p_S, value_R[rows.first_R])
    np.maximum.at(high_P, p_S, value_R[rows.first_R])
    several_P = np.bincount(p_S, minlength=len(used)) > 1
    equal_P = high_P - low_P <= 1e-9 * np.maximum(1.0, np.abs(high_P))
    return share(int((equal_P & several_P).sum()), int(several_P.sum()))


def within(
    reward_R: Floats, other_R: Floats, prompt_R: Ints, weight_R: Floats, name: str, seed: int = 0
) -> Estimate:
    """Pearson correlation within prompts: pooled covariance over the root of pooled variances.

    Rows where either is not-a-number are left out. Interval by bootstrap over prompts.

    Args:
        reward_R, other_R: what is compared.
        prompt_R: the prompt of each row.
        weight_R: shares of the prompt's samples; taken anew over the rows that are left.
        name: what ``other_R`` are, for the note.
        seed: of the bootstrap.
    """
    method = "Pearson correlation within prompts"
    rows = np.flatnonzero(np.isfinite(reward_R) & np.isfinite(other_R))
    used, p_R = np.unique(prompt_R[rows], return_inverse=True)
    P = len(used)
    w_R = _shares(weight_R[rows], p_R)
    x_R, y_R = (v[rows] - by_prompt(v[rows], w_R, p_R, P)[p_R] for v in (reward_R, other_R))
    sums_P3 = np.stack([by_prompt(v, w_R, p_R, P) for v in (x_R * y_R, x_R**2, y_R**2)], axis=1)
    both, rewards, others = sums_P3.sum(0)
    if others <= 1e-12 * P or rewards <= 1e-18 * P:
        what = name if others <= 1e-12 * P else "rewards"
        return undefined(method, f"no prompt's {what} differ", P)
    values = []
    for count_BP in resamples(P, seed):
        sums_B3 = count_BP @ sums_P3
        below_B = np.sqrt(sums_B3[:, 1] * sums_B3[:, 2])
        values.append(sums_B3[below_B > 0, 0] / below_B[below_B > 0])
    low, high = np.quantile(np.concatenate(values), [0.025, 0.975])
    return Estimate(float(both / np.sqrt(rewards * others)), float(low), float(high), P, method)


def _shares(weight_R: Floats, p_R: Ints) -> Floats:
    """Weights that sum to 1 over each prompt's rows."""
    return np.asarray(weight_R / np.bincount(p_R, weight_R)[p_R]) if len(p_R) else weight_R
