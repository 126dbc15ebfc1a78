"""Pairs: which responses of a prompt are compared with each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from srlm.errors import UserError
from srlm.types import Bools, Floats, Ints, Pairs, Prompt, Samples

Pair = Callable[[Samples, Floats], Pairs]
"""A pairing: samples and their rewards -> what is compared."""

RESOLUTION = 1e-3
"""Rewards of a prompt that lie nearer together than this are not distinguishable: at beta = 1 the
target's odds differ by a thousandth."""


def groups(samples: Samples, reward_R: Floats, *, reward_floor: float | None = None) -> Pairs:
    """All samples of a prompt compared with each other: one group per prompt.

    The mean over the pairs of k samples of (z - z')^2 costs k forward passes, not k(k-1)
    (``srlm.losses.square``). Equal samples are merged, their weights added. A prompt whose samples
    are all equal has nothing to compare and gives no square loss; it stays, as the weighted
    loss learns from it.

    Args:
        samples: samples with weights.
        reward_R: self-rewards, [R]; not-a-number is missing and leaves the row out.
        reward_floor: rewards further than this under the prompt's best are raised to it, nats.

    Raises:
        UserError: no prompt has a response with a reward.
    """
    return _merge(samples, reward_R, samples.prompt_R, reward_floor)


def pairs(samples: Samples, reward_R: Floats, *, reward_floor: float | None = None) -> Pairs:
    """The samples of a prompt two by two, in the order sampled: the paper's triples ([SR] section
    2).

    k samples give floor(k/2) independent pairs. A pair of equal responses is a group of one row:
    its square loss is 0 whatever the policy, and it counts in the mean.

    Raises:
        UserError: the responses are no independent samples (enumerated ones have unequal weights);
            or no prompt has a response with a reward.
    """
    count_P = np.bincount(samples.prompt_R)
    count_R = count_P[samples.prompt_R]
    if not np.allclose(samples.weight_R * count_R, 1.0):
        raise UserError(
            "pairs two by two are made of independent samples, and these responses were enumerated",
            "use --pairs groups with --source enumerate",
        )
    place_R = np.concatenate([np.arange(count) for count in count_P])
    keep = (count_R % 2 == 0) | (place_R < count_R - 1)
    kept = samples.take(keep)
    group_R = kept.prompt_R * (1 + place_R.max()) + place_R[keep] // 2
    return _merge(kept, reward_R[keep], group_R, reward_floor)


def best(samples: Samples, reward_R: Floats, *, reward_floor: float | None = None) -> Pairs:
    """The best of a prompt's samples by reward, one group per prompt; equals share by their
    samples.

    Maximum likelihood on it (``srlm.losses.weighted`` at any beta) is SFT-Sharpening ([SM]
    section 3.1) where the reward is the likelihood: as the samples grow, the target is the policy's
    mode. Raises as ``groups``.
    """
    made = groups(samples, reward_R, reward_floor=reward_floor)
    best_G, _ = _ends(made.group_R, made.reward_R)
    return _only(made, made.reward_R == best_G[made.group_R])


def best_worst(samples: Samples, reward_R: Floats, *, reward_floor: float | None = None) -> Pairs:
    """The best and the worst of a prompt's samples by reward, one pair per prompt ([SRLM] section
    2.4).

    Among equals the first sampled. A prompt whose rewards are all equal has no pair and is left
    out; no pair at all is no error here. Raises as ``groups``.
    """
    made = groups(samples, reward_R, reward_floor=reward_floor)
    best_G, worst_G = _ends(made.group_R, made.reward_R)
    keep_R = np.zeros(len(made), dtype=bool)
    for end_G in (best_G, worst_G):
        rows = np.flatnonzero(
            (made.reward_R == end_G[made.group_R]) & (best_G > worst_G)[made.group_R]
        )
        keep_R[rows[np.unique(made.group_R[rows], return_index=True)[1]]] = True
    two = _only(made, keep_R)
    return replace(two, weight_R=np.full(len(two), 0.5))


def voted(samples: Samples, reward_R: Floats, *, reward_floor: float | None = None) -> Pairs:
    """The pairs of ``best_worst``, each weighted by its margin r(y+) - r(y-).

    A pair's loss counts in proportion to its margin, divided by the mean margin, so that a
    learning rate means what it means for ``best_worst``. Where the reward is the vote share this
    is the weighted preference loss of ScPO (Prasad et al. 2024, arXiv 2411.04109, section 3):
    prompts on which the samples agree more are learnt from more. Margins are taken after the floor.
    Raises as ``groups``.
    """
    two = best_worst(samples, reward_R, reward_floor=reward_floor)
    return _by_margin(two) if two.groups else two


def without_tails(made: Pairs, share_R: Floats, tail: float) -> Pairs:
    """Groups without their rows of least share, as many as make ``tail`` at most together.

    What is left of a group has the shares of before over their sum, so that they change by
    ``tail`` in total variation at most. Every group keeps a row.

    Args:
        share_R: of each row in its group's target, [R], sums to 1 over a group.
        tail: in [0, 1).
    """
    order = np.lexsort((share_R, made.group_R))
    upto_R = np.cumsum(share_R[order])
    first_G = np.flatnonzero(np.diff(made.group_R, prepend=-1))
    before_G = upto_R[first_G] - share_R[order][first_G]
    keep_R = np.empty(len(made), dtype=bool)
    keep_R[order] = upto_R - before_G[made.group_R] > tail
    return _only(made, keep_R)


def joined(numbered: Sequence[tuple[Pairs, int]]) -> Pairs:
    """The pairs of parts of a round as one; margins are divided by the mean of them all.

    Args:
        numbered: parts, each about prompts of its own counted from 0, with the number of its
            first prompt in the round.

    Raises:
        UserError: there is no part.
    """
    if not numbered:
        raise _no_reward()
    parts = [part for part, _ in numbered]
    group = np.cumsum([0, *(part.groups for part in parts[:-1])])
    apart, of = zip(*(part.distinguishable for part in parts), strict=True)
    made = Pairs(
        group_R=np.concatenate([p.group_R + g for p, g in zip(parts, group, strict=True)]),
        prompt_R=np.concatenate([part.prompt_R + first for part, first in numbered]),
        samples=sum(part.samples for part in parts),
        distinguishable=(sum(apart), sum(of)),
        **_columns(parts),
    )
    if all(part.scale_G is None for part in parts) or not made.groups:
        return made
    return _by_margin(made)


def with_judge(made: Pairs, judged: Pairs, prompts: int, questions: Sequence[Prompt]) -> Pairs:
    """Groups of responses with groups of judgements after them, of which each counts the same.

    What is told of the responses' samples and rewards stays as it is.

    Args:
        made: groups about the round's prompts.
        judged: groups of the judge's answers.
        prompts: how many prompts the round has.
        questions: what ``judged.prompt_R`` counts; those that have a group are kept in ``asked``.
    """
    used, number_R = np.unique(judged.prompt_R, return_inverse=True)
    scale_G = None
    if made.scale_G is not None and judged.scale_G is not None:
        scale_G = np.concatenate([made.scale_G, judged.scale_G])
    return replace(
        made,
        group_R=np.concatenate([made.group_R, judged.group_R + made.groups]),
        prompt_R=np.concatenate([made.prompt_R, number_R.astype(np.int64) + prompts]),
        scale_G=scale_G,
        asked=tuple(questions[q] for q in used),
        **_columns([made, judged]),
    )


def _columns(parts: Sequence[Pairs]) -> dict[str, Any]:
    """Tokens, references, rewards and weights of the rows of several parts."""
    names = ("reference_R", "reward_R", "weight_R")
    made = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return {"tokens_R": tuple(t for part in parts for t in part.tokens_R), **made}


def _by_margin(two: Pairs) -> Pairs:
    """Pairs that count in proportion to their margin, over the mean margin."""
    best_G, worst_G = _ends(two.group_R, two.reward_R)
    margin_G = best_G - worst_G
    return replace(two, scale_G=margin_G / margin_G.mean())


def _no_reward() -> UserError:
    return UserError(
        "no response of this round has a reward", "look at the samples and at the reward"
    )


def _only(made: Pairs, keep_R: Bools) -> Pairs:
    """Some rows of the groups; weights sum to 1 again over those that are left."""
    number_R = np.unique(made.group_R[keep_R], return_inverse=True)[1].astype(np.int64)
    weight_R = made.weight_R[keep_R]
    return replace(
        made,
        group_R=number_R,
        prompt_R=made.prompt_R[keep_R],
        tokens_R=tuple(made.tokens_R[r] for r in np.flatnonzero(keep_R)),
        reference_R=made.reference_R[keep_R],
        reward_R=made.reward_R[keep_R],
        weight_R=weight_R / np.bincount(number_R, weight_R)[number_R],
    )


def _ends(group_R: Ints, reward_R: Floats) -> tuple[Floats, Floats]:
    """Best and worst reward of each group, [G] and [G]."""
    best_G = np.full(group_R.max() + 1, -np.inf)
    np.maximum.at(best_G, group_R, reward_R)
    worst_G = np.full(len(best_G), np.inf)
    np.minimum.at(worst_G, group_R, reward_R)
    return best_G, worst_G


def _merge(
    samples: Samples, reward_R: Floats, group_R: np.ndarray, reward_floor: float | None
) -> Pairs:
    first: dict[tuple[int, tuple[int, ...]], int] = {}
    row: list[int] = []
    weight: list[float] = []
    for r in np.flatnonzero(np.isfinite(reward_R)):
        key = (int(group_R[r]), samples.tokens_R[r])
        if key in first:
            weight[first[key]] += samples.weight_R[r]
        elif samples.weight_R[r] > 0:
            first[key] = len(row)
            row.append(int(r))
            weight.append(samples.weight_R[r])
    if not row:
        raise _no_reward()
    index = np.array(row)
    order = np.argsort(group_R[index], kind="stable")
    index = index[order]
    number_R = np.unique(group_R[index], return_inverse=True)[1].astype(np.int64)
    weight_R = np.array(weight)[order]
    weight_R = weight_R / np.bincount(number_R, weight_R)[number_R]
    reward = reward_R[index].astype(np.float64)
    if reward_floor is not None:
        best_G, _ = _ends(number_R, reward)
        reward = np.maximum(reward, best_G[number_R] - reward_floor)
    return Pairs(
        group_R=number_R,
        prompt_R=samples.prompt_R[index],
        tokens_R=tuple(samples.tokens_R[i] for i in index),
        reference_R=samples.logp_R[index],
        reward_R=reward,
        weight_R=weight_R,
        samples=len(samples),
        distinguishable=_distinguishable(samples, reward_R),
    )


def _distinguishable(samples: Samples, reward_R: Floats) -> tuple[int, int]:
    """Prompts whose rewards differ by more than ``RESOLUTION``, of the prompts with a reward."""
    rows = np.flatnonzero(np.isfinite(reward_R) & (samples.weight_R > 0))
    best_P, worst_P = _ends(samples.prompt_R[rows], reward_R[rows])
    known_P = np.isfinite(best_P)
    return int((best_P - worst_P > RESOLUTION)[known_P].sum()), int(known_P.sum())
