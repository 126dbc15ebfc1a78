"""The training samples of a round: a fixed number per prompt, all responses, or as many as it
takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from srlm.config import SampleSettings
from srlm.errors import UserError
from srlm.policies.base import Exact, Policy, Temperable
from srlm.types import Prompt, Samples

CHUNK = 4096
"""Samples asked of the policy at once. A prompt's samples do not depend on it."""
PART_TOKENS = 1 << 18
"""Tokens of a part, about; as Python numbers with their log-probabilities some 60 bytes each."""
MOST = 1024
"""Samples per prompt at most, where their number adapts."""


def sample(
    policy: Policy,
    prompts: Sequence[Prompt],
    settings: SampleSettings,
    seed: int,
    *,
    advance: Callable[[float], None] = lambda prompts: None,
) -> Samples:
    """Responses as the settings of a round say, in memory at once. A prompt's samples do not depend
    on the other prompts.

    Args:
        advance: called with how many prompts were done since, for progress; may be a fraction.

    Raises:
        UserError: the policy's responses are to be enumerated, or tempered, and cannot be.
    """
    if settings.source == "enumerate":
        if not isinstance(policy, Exact):
            raise UserError(
                f"{type(policy).__name__}: responses cannot be enumerated",
                "use --source sampling; enumeration is for linear-softmax and tabular policies",
            )
        made = policy.enumerate(prompts)
        advance(len(prompts))
        return made
    how: Callable[..., Samples] | None = None
    if not settings.plain:
        if not isinstance(policy, Temperable):
            raise UserError(
                f"{type(policy).__name__}: sampled at temperature 1 only",
                "leave --temperature and --top-p out; they are for language models",
            )
        how = partial(policy.tempered, temperature=settings.temperature, top_p=settings.top_p)
    if settings.mu is not None:
        parts = blocks(policy, prompts, settings.mu, settings.per_prompt, seed, settings.max_tokens)
        made = gathered(parts)
        advance(len(prompts))
        return made
    return in_parts(
        policy,
        prompts,
        settings.per_prompt,
        seed=seed,
        max_tokens=settings.max_tokens,
        rows=CHUNK,
        advance=advance,
        how=how,
    )


def in_parts(
    policy: Policy,
    prompts: Sequence[Prompt],
    samples: int,
    *,
    seed: int,
    max_tokens: int,
    rows: int,
    advance: Callable[[float], None],
    how: Callable[..., Samples] | None = None,
) -> Samples:
    """``policy.sample`` on about ``rows`` rows at a time; the samples are the same.

    Args:
        advance: called with the number of prompts done.
        how: in the place of ``policy.sample``.
    """
    take = how or policy.sample
    step = max(1, rows // samples)
    parts = []
    for first in range(0, len(prompts), step):
        chunk = prompts[first : first + step]
        part = take(chunk, samples, seed=seed, max_tokens=max_tokens, advance=advance)
        parts.append(replace(part, prompt_R=part.prompt_R + first))
    return Samples.joined(parts)


def gathered(parts: Iterable[Samples]) -> Samples:
    """All samples of ``blocks``, those of a prompt together, each of weight 1/k."""
    every = Samples.joined(list(parts))
    weight_R = 1.0 / np.bincount(every.prompt_R)[every.prompt_R]
    return replace(every, weight_R=weight_R).take(np.argsort(every.prompt_R, kind="stable"))


def blocks(
    policy: Policy,
    prompts: Sequence[Prompt],
    mu: float,
    block: int,
    seed: int,
    max_tokens: int,
    *,
    most: int = MOST,
) -> Iterator[Samples]:
    """Blocks of samples until k * max_{i<=k} pi(y_i|x) >= mu at the end of a block.

    If a prompt stops at k with a best sample under p*, then k > mu/p*, and none of the first mu/p*
    samples was a mode, which has probability at most (1-p*)^(mu/p*) <= exp(-mu). So the likeliest
    sample is a mode with probability at least 1 - exp(-mu), after at most (1 + mu)/p*(x) samples
    on average, up to the block ([SM] Lemma I.1, with ``block`` = 1). Sure prompts stop early, so
    that samples go where they are needed.

    Args:
        mu: exponent of the failure probability, > 0.
        block: samples made of a prompt before the rule is looked at; each block has its own seed.
        most: samples per prompt at most; a prompt that reaches it keeps the best that it has.
    """
    left = np.arange(len(prompts))
    best_P = np.full(len(prompts), -np.inf)
    for k in range(block, most + block, block):
        key = int(np.random.SeedSequence([seed, k // block - 1]).generate_state(1, np.uint32)[0])
        part = policy.sample(
            [prompts[int(p)] for p in left], block, seed=key, max_tokens=max_tokens
        )
        part = replace(part, prompt_R=left[part.prompt_R])
        np.maximum.at(best_P, part.prompt_R, part.logp_R)
        yield part
        left = left[np.log(k) + best_P[left] < np.log(mu)]
        if not len(left):
            return
