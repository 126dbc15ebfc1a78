"""Pairs: which responses of a prompt are compared with each other."""

from __future__ import annotations

import numpy as np

from srlm.errors import UserError
from srlm.types import Floats, Pairs, Samples, rows_by_prompt


def groups(samples: Samples, reward_R: Floats, *, reward_floor: float | None = None) -> Pairs:
    """All draws of a prompt compared with each other: one group a prompt.

    The mean over the pairs of k draws of (z - z')^2 costs k forward passes, not k(k-1)
    (``srlm.losses.square``). Equal draws are merged, their weights added. A prompt whose draws
    are all equal has nothing to compare and gives no square loss; it stays, as the weighted
    loss learns from it.

    Args:
        samples: draws with weights.
        reward_R: self-rewards, [R]; not-a-number is missing and leaves the row out.
        reward_floor: rewards further than this under the prompt's best are raised to it, nats.

    Raises:
        UserError: no prompt has a response with a reward.
    """
    return _merge(samples, reward_R, samples.prompt_R, reward_floor)


def pairs(samples: Samples, reward_R: Floats, *, reward_floor: float | None = None) -> Pairs:
    """The draws of a prompt two by two, in the order drawn: the paper's triples ([SR] section 2).

    k draws give floor(k/2) independent pairs. A pair of equal responses is a group of one row:
    its square loss is 0 whatever the policy, and it counts in the mean.

    Raises:
        UserError: the responses are no independent draws (enumerated ones have unequal weights);
            or no prompt has a response with a reward.
    """
    if not np.allclose(samples.weight_R * np.bincount(samples.prompt_R)[samples.prompt_R], 1.0):
        raise UserError(
            "pairs two by two are made of independent draws, and these responses were enumerated",
            "use --pairs groups with --source enumerate",
        )
    place_R = np.concatenate(
        [np.arange(len(r)) for r in rows_by_prompt(samples.prompt_R, _prompts(samples))]
    )
    odd_R = np.bincount(samples.prompt_R)[samples.prompt_R] % 2 == 1
    last_R = place_R == np.bincount(samples.prompt_R)[samples.prompt_R] - 1
    keep = ~(odd_R & last_R)
    kept = samples.take(keep)
    group_R = kept.prompt_R * (1 + place_R.max()) + place_R[keep] // 2
    return _merge(kept, reward_R[keep], group_R, reward_floor)


def _prompts(samples: Samples) -> int:
    return int(samples.prompt_R.max()) + 1 if len(samples) else 0


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
        raise UserError(
            "no response of this round has a reward", "look at the samples and at the reward"
        )
    index = np.array(row)
    order = np.argsort(group_R[index], kind="stable")
    index = index[order]
    number_R = np.unique(group_R[index], return_inverse=True)[1].astype(np.int64)
    weight_R = np.array(weight)[order]
    weight_R = weight_R / np.bincount(number_R, weight_R)[number_R]
    reward = reward_R[index].astype(np.float64)
    if reward_floor is not None:
        best_G = np.full(number_R[-1] + 1, -np.inf)
        np.maximum.at(best_G, number_R, reward)
        reward = np.maximum(reward, best_G[number_R] - reward_floor)
    return Pairs(
        group_R=number_R,
        prompt_R=samples.prompt_R[index],
        tokens_R=tuple(samples.tokens_R[i] for i in index),
        reference_R=samples.logp_R[index],
        reward_R=reward,
        weight_R=weight_R,
        draws=len(samples),
    )
