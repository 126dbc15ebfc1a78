"""What one round consists of, for the loop: its prompts, its pairs, its measurement, its seeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import log

import numpy as np

from srlm import pairs as pairing
from srlm import stopping
from srlm.config import MeasureSettings, SampleSettings, UpdateSettings
from srlm.engines.base import (
    LOCAL,
    Advance,
    Engine,
    Executor,
    Shelf,
    drawn,
    prompts_per_shard,
)
from srlm.errors import UserError
from srlm.forecast.powers import kappa_next
from srlm.grading import EXACT, Grader
from srlm.measure.agreement import kept
from srlm.measure.evaluate import BaseReference, Measurement, evaluate
from srlm.measure.votes import votes
from srlm.pairs import Pair
from srlm.policies.base import Exact, Policy
from srlm.rewards.base import Mean, Reward, Say, Scored, scored
from srlm.rewards.likelihood import likelihood
from srlm.rewards.pieces import in_pieces
from srlm.rewards.report import RewardReport, Seen, joined, seen, summary
from srlm.train import Fit, Objective, fit, weighted_objective
from srlm.types import Estimate, Pairs, Prompt, Round, Samples, undefined

SAMPLES, UPDATE, MEASURE = SampleSettings(), UpdateSettings(), MeasureSettings()
"""The defaults of the command line."""


@dataclass(frozen=True, slots=True)
class Method:
    """How a round is made: functions and their settings. Every field has a default."""

    samples: SampleSettings = SAMPLES
    reward: Reward = likelihood
    pair: Pair | None = None
    """How responses are compared; None: as the objective is meant to be used."""
    objective: Objective = weighted_objective
    update: UpdateSettings = UPDATE
    measure: MeasureSettings = MEASURE
    grader: Grader = EXACT
    """How answers are read and compared: for votes, and to measure accuracy."""
    stop: stopping.Rule | None = None
    """None: all rounds are run."""
    engine: Engine = LOCAL
    """What makes the training samples, and what the policy's other work is spread by."""
    fit: Fit = fit
    """What makes the next policy."""
    asks: bool = False
    """Whether the reward asks the policy, as a judge does: it is made, and kept, in pieces."""


def round_prompts(prompts: Sequence[Prompt], count: int | None, seed: int, t: int) -> list[Prompt]:
    """The training prompts of a round: all, or ``count`` chosen without replacement."""
    if count is None or count >= len(prompts):
        return list(prompts)
    order = np.random.default_rng(derived(seed, "prompts", t)).permutation(len(prompts))
    return [prompts[i] for i in np.sort(order[:count])]


def sample_round(
    policy: Policy,
    prompts: Sequence[Prompt],
    method: Method,
    seed: int,
    shelf: Shelf,
    advance: Advance,
) -> Iterator[Samples]:
    """The training samples of a round, in parts, by the method's engine
    (``srlm.engines.base.drawn``)."""
    return drawn(method.engine, policy, prompts, method.samples, seed, shelf, advance)


@dataclass(frozen=True, slots=True)
class Paired:
    """Some prompts of a round: the pairs made of their samples, and what the rewards were like."""

    first: int
    """Number of its first prompt in the round."""
    pairs: Pairs | None
    """None where no response has a reward."""
    rewards: Seen
    judged: Pairs | None = None
    """Of judgements that are trained on beside the responses."""
    questions: tuple[Prompt, ...] = ()
    """What ``judged`` counts."""
    reward: str = ""
    """Name of the reward."""
    unrewarded: tuple[str, ...] = ()
    """The first responses without a reward."""


def rewards_and_pairs(
    policy: Policy,
    prompts: Sequence[Prompt],
    parts: Iterable[Samples],
    method: Method,
    executor: Executor,
    advance: Advance = lambda prompts: None,
) -> Iterator[Paired]:
    """Reward the samples of a round and pair them, part by part.

    Args:
        parts: of some prompts each, all their samples; gone through twice where the reward asks
            the policy.
    """
    if method.asks:
        for own, first, found in rewards_in_pieces(
            policy, prompts, parts, method, executor, "rewards", advance
        ):
            yield paired(own, first, found, method)
        return
    for part in parts:
        first, last = int(part.prompt_R[0]), int(part.prompt_R[-1])
        own = replace(part, prompt_R=part.prompt_R - first)
        found = scored(method.reward(policy, prompts[first : last + 1], own), own)
        advance(last + 1 - first)
        yield paired(own, first, found, method)


def rewards_in_pieces(
    policy: Policy,
    prompts: Sequence[Prompt],
    parts: Iterable[Samples],
    method: Method,
    executor: Executor,
    kind: str,
    advance: Advance = lambda prompts: None,
) -> Iterator[tuple[Samples, int, Scored]]:
    """``in_pieces`` of the method's reward."""
    step = prompts_per_shard(policy, method.samples.max_tokens, method.samples.per_prompt)
    return in_pieces(policy, prompts, parts, method.reward, step, executor, kind, advance)


def paired(own: Samples, first: int, found: Scored, method: Method) -> Paired:
    """Pair samples by their rewards.

    Args:
        own: all samples of some prompts, which they count from 0.
        first: number of the first of these prompts.
        found: their rewards.
    """
    pair = method.pair or method.objective.pair
    found = with_gap(found, own)
    judge = found.training
    return Paired(
        first=first,
        pairs=pair(own, found.reward_R) if np.isfinite(found.reward_R).any() else None,
        rewards=seen(replace(own, prompt_R=own.prompt_R + first), found, method.grader),
        judged=pair(judge.samples, judge.reward_J) if judge else None,
        questions=tuple(judge.prompts) if judge else (),
        reward=getattr(method.reward, "__qualname__", "own").partition(".")[0],
        unrewarded=tuple(own.text_R[r] for r in np.flatnonzero(~np.isfinite(found.reward_R))[:3]),
    )


CHECKED, SIZE, GAP = "engine: checked", "engine: |gap|, nats", "engine: gap, nats"
"""Facts of samples of an engine: share of the responses scored here too, and of those the mean
difference of a response's log-probability here and there, where the engine gave any."""


def with_gap(found: Scored, samples: Samples) -> Scored:
    """Rewards with what is known of the log-probabilities of an engine, where one sampled."""
    if samples.gap_R is None:
        return found
    gap_G = samples.gap_R[np.isfinite(samples.gap_R)]
    facts = {CHECKED: Mean(float((~np.isnan(samples.gap_R)).sum()), len(samples))}
    if len(gap_G):
        facts[SIZE] = Mean(float(np.abs(gap_G).sum()), len(gap_G))
        facts[GAP] = Mean(float(gap_G.sum()), len(gap_G))
    return replace(found, facts={**found.facts, **facts}, say=partial(_say_gap, found.say))


def _say_gap(say: Say, facts: Mapping[str, float]) -> list[str]:
    if SIZE not in facts:
        return [*say(facts), "the engine gave no log-probabilities; all are the policy's"]
    checked, size, gap = facts[CHECKED], facts[SIZE], facts[GAP]
    return [
        *say(facts),
        f"the engine's log-probabilities are {size:.2g} nats a response off the policy's, on "
        f"average ({gap:+.2g} with sign; {checked:.0%} checked)"
        + ("; all are the policy's" if checked == 1 else ""),
    ]


def reward_report(parts: Sequence[Paired]) -> RewardReport:
    """What the rewards of a round were like."""
    return summary(joined([part.rewards for part in parts]))


def joined_pairs(parts: Sequence[Paired], prompts: int) -> Pairs:
    """The pairs of a round of so many prompts; those of its judge after them.

    Raises:
        UserError: no response has a reward; three of them are shown.
    """
    if all(part.pairs is None for part in parts):
        shown = ", ".join(repr(x[:80]) for part in parts for x in part.unrewarded[:3])
        raise UserError(
            f"no response of this round has a reward: {parts[0].reward} gave none to "
            f"{sum(part.rewards.rows for part in parts)} responses, such as {shown[:300]}",
            "look at what the reward makes of them: a judge's text or an answer that cannot be "
            "read, or responses cut off by --max-tokens; use another --reward or settings of it",
        )
    made = pairing.joined([(part.pairs, part.first) for part in parts if part.pairs is not None])
    questions: list[Prompt] = []
    judged: list[tuple[Pairs, int]] = []
    for part in parts:
        if part.judged is not None:
            judged.append((part.judged, len(questions)))
            questions += part.questions
    if not judged:
        return made
    return pairing.with_judge(made, pairing.joined(judged), prompts, questions)


def measure_round(
    policy: Policy,
    held_out: Sequence[Prompt],
    method: Method,
    base: BaseReference | None,
    before: Sequence[Round],
    seed: int,
    advance: Advance,
    executor: Executor | None = None,
) -> Measurement:
    """Measure pi_t: ``evaluate``, its votes, what it kept of the base, its pace on exact updates.

    Args:
        policy: pi_t.
        held_out: prompts that are never trained on.
        method: settings; the grader.
        base: what pi_t is compared with; None for the base itself.
        before: the records of rounds 0 to t - 1.
        seed: of the run.
        advance: called with the number of prompts sampled for.
        executor: as of ``evaluate``.
    """
    made = evaluate(
        policy,
        held_out,
        method.grader,
        method.measure,
        seed=derived(seed, "measure"),
        max_tokens=method.samples.max_tokens,
        base=base,
        executor=executor,
        advance=advance,
    )
    beta = method.update.strength
    ahead = kappa_next(made.samples, made.modes, beta, seed=seed, exact=isinstance(policy, Exact))
    ideal = undefined("one exact round from the policy before", "this is the base")
    table = before[-1].table if before else None
    voted, columns = votes(policy, made, method.grader, table, seed=seed)
    more = {
        "kappa_next": ahead,
        **voted,
        **kept(policy, made, base, method.grader, seed=seed),
        "efficiency": efficiency(made.estimates["exponent"], len(before), beta),
        "kappa_ideal": before[-1]["kappa_next"] if before else ideal,
    }
    return replace(made, estimates=made.estimates | more, table=made.table | columns)


def efficiency(exponent: Estimate, t: int, beta: float) -> Estimate:
    """Update efficiency log p / (t log(1 + 1/beta)) of the exponent p (theory.md section 3).

    >>> round(efficiency(Estimate(4.0, 2.0, 8.0, 9, "slope"), 2, 1.0).value, 6)
    1.0
    """
    method = "log exponent / log of t exact rounds'"
    if t == 0 or exponent.value is None or exponent.value <= 0:
        return undefined(method, "no update yet")
    ideal = t * log(1 + 1 / beta)
    low, high = (
        None if x is None or x <= 0 else log(x) / ideal for x in (exponent.low, exponent.high)
    )
    return Estimate(log(exponent.value) / ideal, low, high, exponent.n, method)


def derived(seed: int, purpose: str, t: int = 0) -> int:
    """A seed for one purpose of one round, 63 bits.

    >>> derived(0, "samples", 1) != derived(0, "samples", 2)
    True
    """
    state = np.random.SeedSequence([seed, t, *purpose.encode()]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
