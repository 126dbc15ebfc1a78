"""Judgements judged: whose verdicts are the sounder ones, and pairs to train the judge on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from srlm.config import JudgeSettings, score_values
from srlm.policies.base import Language, Policy
from srlm.rewards import asking
from srlm.rewards.base import JudgeTraining, Reward, Scored
from srlm.rewards.judge import Judgements, judgements, notes, score_reader
from srlm.rewards.judge_pairwise import duel, round_robin, wins
from srlm.rewards.judge_pairwise import notes as duel_notes
from srlm.types import Floats, Prompt, Samples


def meta_judge(settings: JudgeSettings, seed: int = 0) -> Reward:
    """The judge's score of each response, its judgements weighted by what they are judged worth.

    K judgements of each response are sampled and read as by ``judge`` (generated); the policy
    compares those of one response two by two, in both orders, and each gets its mean probability
    of being preferred as its weight. With K = 1, or a meta-judge that cannot tell, this is
    ``judge``. A template without ``{second}`` asks about each judgement by itself, and the two
    answers are compared.

    With ``judge.train`` the round also trains on judgements: of each prompt, those of the response
    whose scores vary most among its readable judgements, the one about which the judge is least
    sure; a prompt whose responses are all judged alike has none. So the judge's groups are no more
    than the responses' own.

    Source: Wu et al. 2024 (Meta-Rewarding), section 2; they rank by Elo where this takes the mean
    over all opponents, which needs no order of play.

    Raises:
        UserError: as ``judge`` and ``judge_pairwise``.
    """
    template, meta = settings.template or asking.GENERATED, settings.meta_template or asking.META
    asking.check_template(template, ("prompt", "response"), "judge.template")
    asking.check_template(meta, ("prompt", "first"), "judge.meta_template")
    read = score_reader(settings.pattern, score_values(settings.scores))

    def say(facts: Mapping[str, float]) -> tuple[str, ...]:
        return notes(facts) + duel_notes(facts, "meta-judge")

    def reward(policy: Policy, prompts: Sequence[Prompt], samples: Samples) -> Scored:
        judging = asking.language(policy, "meta-judge")
        found = judgements(policy, prompts, samples, template, read, settings, seed)
        preferred_J, facts = _preferred(judging, found, meta, settings.choices)
        weight_J = np.where(np.isfinite(preferred_J), preferred_J, 0.0)
        facts = found.facts() | facts
        score_R = found.mean_Q(weight_J)[found.place_R]
        if not settings.train:
            return Scored(score_R, facts, say, score_R)
        training = _training(found, preferred_J, samples)
        facts |= {"meta-judge: judgements to train on": float(len(training.samples))}
        used = training if len(training.samples) else None
        return Scored(score_R, facts, say, score_R, used)

    return reward


def _training(found: Judgements, preferred_J: Floats, samples: Samples) -> JudgeTraining:
    """The judgements that are trained on, see ``meta_judge``."""
    variance_Q = found.variance_Q()
    variance_Q[variance_Q < 1e-12] = 0.0  # equal scores, but for rounding
    best: dict[int, int] = {}
    for r in range(len(samples)):
        p, q = int(samples.prompt_R[r]), int(found.place_R[r])
        if variance_Q[q] > variance_Q[best[p]] if p in best else variance_Q[q] > 0:
            best[p] = q
    chosen_J = np.flatnonzero(np.isin(found.question_J, sorted(best.values())))
    asked, number_J = np.unique(found.question_J[chosen_J], return_inverse=True)
    count_Q = np.bincount(number_J, minlength=len(asked))
    return JudgeTraining(
        prompts=[found.questions[q] for q in asked],
        samples=Samples(
            prompt_R=number_J.astype(np.int64),
            tokens_R=tuple(found.tokens_J[j] for j in chosen_J),
            logp_R=found.logp_J[chosen_J],
            weight_R=1.0 / count_Q[number_J],
            finished_R=np.ones(len(chosen_J), dtype=bool),
            text_R=tuple(found.text_J[j] for j in chosen_J),
        ),
        reward_J=preferred_J[chosen_J],
    )


def _preferred(
    judging: Language, found: Judgements, template: str, choices: str
) -> tuple[Floats, dict[str, float]]:
    """How much each judgement is preferred, [J], missing for unreadable ones; and the duels' facts.

    Equal judgements of a question are one contestant, with their number as weight.
    """
    keys = list(zip(found.question_J.tolist(), found.tokens_J, strict=True))
    known = np.isfinite(found.score_J)
    first: dict[tuple[int, tuple[int, ...]], int] = {}
    for j in np.flatnonzero(known):
        first.setdefault(keys[j], int(j))
    row_S = np.array(sorted(first.values()), dtype=np.int64)
    number = {int(j): s for s, j in enumerate(row_S)}
    place_J = np.array([number[first[k]] if k in first else -1 for k in keys], dtype=np.int64)
    one_D, other_D = round_robin(found.question_J[row_S])
    duels = duel(
        judging,
        template,
        [str(found.questions[found.question_J[row_S[s]]].content) for s in one_D],
        [found.text_J[j] for j in row_S],
        one_D,
        other_D,
        choices,
    )
    weight_S = np.bincount(place_J[place_J >= 0], minlength=len(row_S)).astype(np.float64)
    won_S = wins(duels, weight_S, len(row_S))
    preferred_J = np.full(len(keys), np.nan)
    preferred_J[place_J >= 0] = won_S[place_J[place_J >= 0]]
    return preferred_J, duels.facts("meta-judge")
