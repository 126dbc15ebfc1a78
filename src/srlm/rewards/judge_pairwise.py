"""The model compares its own responses two by two, in both orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from srlm.config import JudgeSettings
from srlm.policies.base import Language, Policy
from srlm.rewards import asking
from srlm.rewards.base import Mean, Reward, Scored
from srlm.rewards.judge import LEAST_MASS
from srlm.rewards.rows import distinct
from srlm.types import Floats, Ints, Prompt, Samples, rows_by_prompt

BIASED = 0.1
"""Distance of the first place's share of wins from a half from which the report speaks of it."""


@dataclass(frozen=True, slots=True)
class Duels:
    """Comparisons of texts, each in both orders. D duels."""

    one_D: Ints
    other_D: Ints
    forward_D: Floats
    """P(A) where ``one`` stands first; not-a-number where unreadable."""
    backward_D: Floats
    """P(A) where ``other`` stands first."""
    too_long: int
    """Duels that the context has no room for, unreadable."""
    alone: bool = False
    """Whether each text was asked about by itself."""

    @property
    def win_D(self) -> Floats:
        """P(one beats other), the mean of both orders: (P(A) + 1 - P'(A)) / 2."""
        return (self.forward_D + 1 - self.backward_D) / 2

    def facts(self, name: str) -> dict[str, float]:
        """Position bias and its kin.

        position bias: mean P(first wins) over both orders less 1/2, 0 for a judge without bias;
        contradictory: share of the duels whose winner changes with the order. Where each text is
        asked about by itself they are called approval, mean P(yes) less 1/2, and undecided, share
        of the duels whose texts are both approved or both refused.
        """
        known = np.isfinite(self.forward_D) & np.isfinite(self.backward_D)
        f_D, b_D = self.forward_D[known], self.backward_D[known]
        out = {
            f"{name}: duels": float(len(known)),
            f"{name}: unreadable": Mean((~known).sum(), len(known)),
            f"{name}: too long": Mean(self.too_long, len(known)),
        }
        if len(f_D):
            names = ("approval", "undecided") if self.alone else ("position bias", "contradictory")
            out[f"{name}: {names[0]}"] = Mean((f_D + b_D - 1).sum() / 2, len(f_D))
            out[f"{name}: {names[1]}"] = Mean(((f_D > 0.5) == (b_D > 0.5)).sum(), len(f_D))
        return out


def duel(
    policy: Language,
    template: str,
    task_D: Sequence[str],
    texts: Sequence[str],
    one_D: Ints,
    other_D: Ints,
    choices: str,
) -> Duels:
    """Which of ``texts[one]`` and ``texts[other]`` is the better on a task, both orders.

    P(A) / (P(A) + P(B)) right after the template; unreadable where both together have less than
    1%. Two forward passes per duel; equal questions are asked once. A template without
    ``{second}`` asks about each text by itself, and P(one beats other) = (P(A) + 1 - P'(A)) / 2
    compares the two answers.

    Args:
        policy: the judge.
        template: the question.
        task_D: what stands for ``{prompt}``.
        texts: what is compared.
        one_D, other_D: the two texts of each duel.
        choices: A and B, as the judge says them, with a comma between.

    Raises:
        UserError: a choice is no token of the model.
    """
    letters = asking.score_tokens(policy, dict.fromkeys(choices.split(","), 0.0), "judge.choices")

    def question(d: int, first: int, second: int) -> Prompt:
        fields = {"prompt": task_D[d], "first": texts[first], "second": texts[second]}
        return asking.as_prompt(asking.fill(template, fields, policy))

    D = len(one_D)
    asked = [question(d, int(one_D[d]), int(other_D[d])) for d in range(D)]
    asked += [question(d, int(other_D[d]), int(one_D[d])) for d in range(D)]
    fit = asking.fits(policy, asked, 1)
    p_first = np.full(2 * D, np.nan)
    fitting = np.flatnonzero(fit)
    p_FS = asking.first_token(policy, [asked[q] for q in fitting], letters)
    readable = p_FS.sum(1) >= LEAST_MASS
    p_first[fitting[readable]] = p_FS[readable, 0] / p_FS[readable].sum(1)
    too_long = int((~(fit[:D] & fit[D:])).sum())
    return Duels(one_D, other_D, p_first[:D], p_first[D:], too_long, "{second}" not in template)


def wins(duels: Duels, weight_S: Floats, items: int) -> Floats:
    """Mean probability of beating the others, weighted by their weights, [S].

    An item without opponents beats itself half the time: 1/2. One whose duels are all unreadable
    has not-a-number.
    """
    above_S, below_S = np.zeros(items), np.zeros(items)
    met_S = np.zeros(items, dtype=bool)
    win_D = duels.win_D
    known = np.isfinite(win_D)
    for me, you, win in (
        (duels.one_D, duels.other_D, win_D),
        (duels.other_D, duels.one_D, 1 - win_D),
    ):
        met_S[me] = True
        np.add.at(above_S, me[known], weight_S[you[known]] * win[known])
        np.add.at(below_S, me[known], weight_S[you[known]])
    out_S = np.divide(above_S, below_S, out=np.full(items, np.nan), where=below_S > 0)
    return np.where(met_S, out_S, 0.5)


def round_robin(group_S: Ints) -> tuple[Ints, Ints]:
    """All unordered pairs of items of the same group.

    >>> [x.tolist() for x in round_robin(np.array([0, 0, 1, 0]))]
    [[0, 0, 1], [1, 3, 3]]
    """
    one: list[int] = []
    other: list[int] = []
    for rows in rows_by_prompt(group_S, int(group_S.max()) + 1 if len(group_S) else 0):
        i, j = np.triu_indices(len(rows), k=1)
        one += rows[i].tolist()
        other += rows[j].tolist()
    return np.array(one, dtype=np.int64), np.array(other, dtype=np.int64)


def judge_pairwise(settings: JudgeSettings) -> Reward:
    """r_t(x, y) = mean probability that the policy prefers y to the prompt's other responses.

    Every two distinct responses of a prompt are shown in both orders and the policy answers A or
    B (``judge.choices``), read as probabilities of the first token; the mean of both orders
    cancels a liking for the first place that is the same for every pair, and the bias is reported.
    Opponents count by their share of the samples. k distinct responses cost k(k-1) forward passes.

    Raises:
        UserError: the template lacks a place; A or B is no token; the policy is no language model.
    """
    template = settings.compare_template or asking.COMPARE
    asking.check_template(template, ("prompt", "first", "second"), "judge.compare_template")

    def reward(policy: Policy, prompts: Sequence[Prompt], samples: Samples) -> Scored:
        judging = asking.language(policy, "judge-pairwise")
        row_S, place_R = distinct(samples)
        one_D, other_D = round_robin(samples.prompt_R[row_S])
        task_D = [asking.as_text(prompts[samples.prompt_R[row_S[s]]].content) for s in one_D]
        texts = [samples.text_R[r] for r in row_S]
        duels = duel(judging, template, task_D, texts, one_D, other_D, settings.choices)
        weight_S = np.bincount(place_R, samples.weight_R, minlength=len(row_S)).astype(np.float64)
        facts = duels.facts("judge-pairwise")
        won_R = wins(duels, weight_S, len(row_S))[place_R]
        return Scored(won_R, facts, notes, won_R)

    return reward


def notes(facts: Mapping[str, float], name: str = "judge-pairwise") -> tuple[str, ...]:
    """Sentences about a judge that favours a position, or is unparseable."""
    out = []
    bias = facts.get(f"{name}: position bias", 0.0)
    if abs(bias) > BIASED:
        place = "first" if bias > 0 else "second"
        out.append(
            f"{name}: prefers what stands {place} ({facts[f'{name}: contradictory']:.0%} of the"
            " comparisons change with the order)"
        )
    if facts[f"{name}: unreadable"] > BIASED:
        out.append(f"{name}: {facts[f'{name}: unreadable']:.0%} of the comparisons are unparseable")
    return tuple(out)
