"""Rewards that the policy is asked for, in pieces: the prompts of a shard at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from srlm.engines.base import Advance, Executor, Piece
from srlm.policies.base import Policy
from srlm.rewards.base import Reward, Say, Scored, scored
from srlm.types import Prompt, Samples


def in_pieces(
    policy: Policy,
    prompts: Sequence[Prompt],
    parts: Iterable[Samples],
    reward: Reward,
    step: int,
    executor: Executor,
    kind: str,
    advance: Advance = lambda prompts: None,
) -> Iterator[tuple[Samples, int, Scored]]:
    """Rewards of samples, made by an executor.

    Args:
        policy: that is asked, and has sampled.
        prompts: those that the samples count.
        parts: samples of some prompts each, all of them, in order; gone through twice.
        reward: of the prompts of a piece.
        step: prompts of a piece.
        executor, kind: as of ``Executor.each``.
        advance: called with the number of prompts done.

    Yields:
        Samples that count their prompts from 0, the number of their first prompt, their rewards.
    """
    do = partial(rewarded, reward)
    says: list[Say] = []

    def pieces() -> Iterator[Piece]:
        number = 0
        for part in parts:
            for first in range(int(part.prompt_R[0]), int(part.prompt_R[-1]) + 1, step):
                begin, end = np.searchsorted(part.prompt_R, [first, first + step])
                own = part.take(np.arange(begin, end))
                own = replace(own, prompt_R=own.prompt_R - first)
                some = tuple(prompts[first : first + int(own.prompt_R[-1]) + 1])
                yield Piece(number, first, some, own, _told(own))
                number += 1

    found = executor.each(kind, policy, do, pieces, advance, lambda made: says.append(made.say))
    for piece, made in found:
        if not says:  # all were there: sentences are not kept
            says.append(do(policy, piece, lambda prompts: None).say)
        yield piece.asked, piece.first, replace(made, say=says[0])


def rewarded(reward: Reward, policy: Policy, piece: Piece, advance: Advance) -> Scored:
    """The rewards of a piece's samples."""
    return scored(reward(policy, piece.prompts, piece.asked), piece.asked)


def _told(samples: Samples) -> str:
    """A hash of what rewards are of."""
    told = hashlib.sha256(json.dumps(samples.tokens_R).encode())
    for column in (samples.prompt_R, samples.logp_R, samples.weight_R):
        told.update(column.tobytes())
    return told.hexdigest()
