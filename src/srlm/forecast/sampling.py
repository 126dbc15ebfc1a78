"""A forecast's own samples: of a model or a server, a fixed number, or as many as it takes.

Adaptive samples: 8 per prompt, then twice as many, up to a limit, of the prompts whose vote is
close, until the verdict is known or the limit of voting is known well enough. When to stop depends
on the answers seen, so means of samples are biased (a prompt whose first eight agree is not asked
again); the posterior of the shares is not: given what was seen, the rule that made it stop says
nothing more about them (the likelihood principle). So everything that is told of votes is computed
from the posterior; the bound without a posterior holds at all looks together (``split``); and other
rewards, which are followed on the samples themselves, always have a fixed number. Coverage, and
what is saved: ``experiments/adaptive.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from srlm.config import ALL, SampleSettings, width_of
from srlm.engines.base import Advance, Executor, drawn, prompts_per_shard
from srlm.engines.files import Sampled
from srlm.engines.server import Server, sample
from srlm.errors import UserError
from srlm.forecast import answers as posteriors
from srlm.forecast.answers import Shares
from srlm.forecast.from_samples import (
    OTHERS,
    SURE,
    SamplesForecast,
    Source,
    forecast_tallies,
    mode_probability,
)
from srlm.forecast.reward_paths import About, Parts
from srlm.forecast.tally import Tally, rows_of, tallies
from srlm.forecast.verdict import WORTH
from srlm.grading import EXACT, Grader
from srlm.policies.base import Policy
from srlm.rewards.base import Reward
from srlm.rewards.pieces import in_pieces
from srlm.run_folder.kept import Kept
from srlm.types import Prompt

FIRST = 8
"""Samples per prompt before the first look."""
SAMPLES = SampleSettings()
"""Plain ones."""
PROMPTS_TELL = 0.1
"""Share of an interval's variance from samples under which only more prompts make it narrower."""
More = Callable[[Sequence[Prompt], int, int], Iterable[Sampled]]
"""(prompts, samples per prompt, number of the look) -> responses; a prompt's key is its id."""


def counts_of_looks(most: int) -> list[int]:
    """Samples per prompt that each look adds.

    >>> counts_of_looks(64), counts_of_looks(20), counts_of_looks(8)
    ([8, 8, 16, 32], [8, 8, 4], [8])
    """
    out, had = [min(FIRST, most)], min(FIRST, most)
    while had < most:
        out.append(min(had, most - had))
        had += out[-1]
    return out


def collect(
    more: More,
    prompts: Sequence[Prompt],
    most: int,
    grader: Grader,
    *,
    until: str | None,
    seed: int,
) -> tuple[list[Tally], int]:
    """Samples of every prompt, counted; and how often the counts were looked at.

    Args:
        more: makes the samples.
        most: samples per prompt, at most.
        until: ``verdict`` or a width, as ``--until``; None: ``most`` of every prompt.
    """
    known = {x.id: x.answers for x in prompts if x.answers}
    if until is None:
        return tallies(more(prompts, most, 0), grader, known), 1
    some, look = list(prompts), 0
    every: list[Tally] = []
    for look, count in enumerate(counts_of_looks(most)):
        every = tallies(more(some, count, look), grader, known, before=every)
        close = undecided(every, until, seed)
        some = [x for x in some if x.id in close]
        if not some:
            break
    return every, look + 1


def undecided(every: Sequence[Tally], until: str, seed: int) -> set[str]:
    """Keys of the prompts whose vote is close; none where no more samples are needed.

    ``verdict``: the gain's interval lies on one side of what is worth a training, or is as wide as
    it is because of the prompts. A width: the limit's interval for these prompts is so narrow.
    Without right answers each prompt is decided alone.
    """
    counts = [t.counts() for t in every]
    post = posteriors.posterior(counts, seed=seed)
    drawn = [post.shares(p) for p in range(len(counts))]
    mine = [s for s in drawn if s.right is not None]
    if mine and _enough(mine, width_of(until), seed):
        return set()
    return {t.key for t, s in zip(every, drawn, strict=True) if mode_probability(s) < SURE}


def _enough(mine: Sequence[Shares], width: float | None, seed: int) -> bool:
    about = About(seed, posteriors.LEVEL)
    end_BP = np.column_stack([s.mode_right_B() for s in mine])
    if width is not None:
        these = about(end_BP, "accuracy of the mode", these=True)
        assert these.low is not None and these.high is not None
        return these.high - these.low <= width
    gain_BP = end_BP - np.column_stack([s.accuracy_B() for s in mine])
    gain = about(gain_BP, "gain")
    assert gain.low is not None and gain.high is not None
    told = gain.low >= WORTH or gain.high < WORTH
    own, between = float(gain_BP.mean(1).var()), float(gain_BP.mean(0).var()) / len(mine)
    return told or own < PROMPTS_TELL * (own + between)


def of_policy(
    policy: Policy,
    executor: Executor,
    rewards: Mapping[str, Reward],
    *,
    seed: int,
    max_tokens: int,
    advance: Advance,
) -> More:
    """Samples of a policy with the scores of ``rewards``, made by an executor.

    Args:
        rewards: by name, with whatever else decides their scores after a ``/``.
        advance: called with how many samples were made, or scored, since.
    """

    def more(some: Sequence[Prompt], count: int, look: int) -> Iterable[Sampled]:
        own = seed if look == 0 else _seed(seed, look)
        asked = SAMPLES.model_copy(update={"per_prompt": count, "max_tokens": max_tokens})
        shelf = executor.shelf("samples")

        def done(prompts: float) -> None:
            advance(prompts * count)

        parts = drawn(executor.engine, policy, some, asked, own, shelf, done)
        if not rewards:
            for part in parts:
                yield from rows_of(some, part, {})
            return
        held, step = list(parts), prompts_per_shard(policy, max_tokens, count)
        each = [
            in_pieces(policy, some, held, reward, step, executor, f"scores/{look:02d}-{file}", done)
            for reward, file in ((r, of.replace("/", "-")) for of, r in rewards.items())
        ]
        names = [of.partition("/")[0] for of in rewards]
        for made in zip(*each, strict=True):
            here, first, _ = made[0]
            part = replace(here, prompt_R=here.prompt_R + first)
            scores = {n: found.reward_R for n, (_, _, found) in zip(names, made, strict=True)}
            yield from rows_of(some, part, scores)

    return more


def of_server(server: Server, kept: Kept, *, seed: int, advance: Advance) -> More:
    """Samples of a server, kept prompt by prompt as they come.

    Args:
        advance: called with how many samples were made since.
    """

    def more(some: Sequence[Prompt], count: int, look: int) -> Iterable[Sampled]:
        own = seed if look == 0 else _seed(seed, look)
        found = [kept.rows(f"{look:02d}-{x.id}") for x in some]
        missing = [p for p, rows in enumerate(found) if rows is None]
        advance((len(some) - len(missing)) * count)
        for i, rows in sample(server, [some[p] for p in missing], count, seed=own):
            p = missing[i]
            found[p] = kept.keep_rows(f"{look:02d}-{some[p].id}", rows)
            advance(count)
        for responses in found:
            yield from responses or ()

    return more


def _seed(seed: int, look: int) -> int:
    return int(np.random.SeedSequence([seed, look]).generate_state(1, np.uint32)[0])


def forecast_rewards(
    policy: Policy,
    prompts: Sequence[Prompt],
    *,
    rewards: Mapping[str, Reward] | None = None,
    reward: str = ALL,
    grader: Grader = EXACT,
    beta: float | None = None,
    rounds: int = 8,
    samples: int = 64,
    max_tokens: int = 256,
    until: str | None = None,
    seed: int = 0,
) -> SamplesForecast:
    """Forecast votes, likelihoods and any other rewards from samples of a policy, side by side.

    Args:
        policy: the base.
        prompts: all of them are used.
        rewards: beside votes and likelihoods, by name; their scores are those of the base.
        reward: the one that the verdict is about: ``consistency``, ``likelihood``,
            ``likelihood-per-token`` or a name of ``rewards``; ``all``: the one recommended.
        grader: reads answers and compares them.
        beta: of all rewards; None: of each its default.
        rounds: of the forecast.
        samples: per prompt; at most, with ``until``.
        max_tokens: length limit of a response.
        until: consistency alone: ``verdict`` or the width of the limit's interval: adaptive
            samples.
        seed: of samples and posterior.

    Raises:
        UserError: fewer than two samples or no prompts; ``until`` with another reward.
    """
    check(samples, until, reward)
    scorers = dict(rewards or {})
    more = of_policy(
        policy,
        Executor(),
        scorers,
        seed=seed,
        max_tokens=max_tokens,
        advance=lambda samples: None,
    )
    every, looks = collect(more, prompts, samples, grader, until=until, seed=seed)
    return forecast_tallies(
        every,
        Source(type(policy).__name__, "own samples", grader.name, looks=looks),
        reward=reward,
        others=OTHERS | {name: {name: 1.0} for name in scorers},
        beta=beta,
        rounds=rounds,
        seed=seed,
    )


def others_of(reward: str, parts: Parts, scored: Sequence[str]) -> dict[str, Parts]:
    """The rewards beside votes that a forecast of ``reward`` shows."""
    if reward == ALL:
        return OTHERS | {name: {name: 1.0} for name in scored}
    return {} if set(parts) == {"consistency"} else {reward: parts}


def check(samples: int, until: str | None, reward: str) -> None:
    """Refuse settings that do not go together."""
    if samples < 2:
        raise UserError(f"--samples {samples}: too few", "at least two samples per prompt")
    if until is not None and reward != "consistency":
        raise UserError(
            f"--until with --reward {reward}: adaptive samples are for votes",
            "use --reward consistency, or leave --until out",
        )
