"""pairs -> next policy: exact where the policy is log-linear, by gradient descent otherwise.

``fit`` consumes the policy that it is given: a network is trained in place, because a second copy
would double the memory. References and rewards come with the pairs, so no second model is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from srlm import exact_updates as minimisers
from srlm import losses
from srlm.config import UpdateSettings
from srlm.errors import UserError
from srlm.exact_updates import Loss
from srlm.pairs import without_tails
from srlm.policies.base import Differentiable, LogLinear, Policy
from srlm.policies.lora import Adaptable, adapted
from srlm.room import Room
from srlm.types import Floats, Ints, Pairs, Prompt, UpdateReport, rows_by_prompt

CHECKED_GROUPS = 512
"""Groups, at most, on which a network's loss is measured before and after the update."""
CHECKED_SHARE = 8
"""One group in so many, as long as those are ``LEAST_CHECKED``."""
LEAST_CHECKED = 64


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss, its least value, and its exact minimiser for log-linear policies."""

    loss: Loss
    floor: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
    solve: Callable[[LogLinear, Sequence[Prompt], Pairs, float], tuple[Floats, tuple[str, ...]]]
    trims: bool = False
    """Rows count by their share of the target, so that those of next to none can be left out."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows of some groups, with the groups renumbered from 0."""

    rows: Ints
    group_R: torch.Tensor
    groups: int


def fit(
    policy: Policy,
    prompts: Sequence[Prompt],
    pairs: Pairs,
    objective: Objective,
    settings: UpdateSettings,
    *,
    seed: int,
    advance: Callable[[int], None] = lambda groups: None,
) -> tuple[Policy, UpdateReport]:
    """The next policy pi_{t+1}, which minimises the objective on the round's pairs.

    Log-linear policies get the exact minimiser (nearest to theta_t where it is not unique),
    others AdamW with linear warm-up and linear decay to zero, whole groups in a batch,
    gradients clipped; with ``settings.lora`` on adapters, which are merged at the end.

    Args:
        policy: pi_t, consumed.
        prompts: what ``pairs.prompt_R`` counts.
        pairs: groups with references, rewards and weights.
        objective: ``weighted_objective``, ``square_objective``, ... or one's own.
        settings: beta, epochs, learning rate, ...
        seed: order of the groups.
        advance: called with the number of groups done, for progress.

    Raises:
        UserError: the loss or its gradient is not finite (the caller keeps the last good policy);
            adapters on a policy without layers; no pairs.
    """
    if not pairs.groups:
        raise UserError(
            "no prompt has two responses with unequal rewards: there is nothing to prefer",
            "take the last round; --stop auto ends there",
        )
    if settings.lora is not None and not isinstance(policy, Adaptable):
        raise UserError(
            f"--lora {settings.lora}: {type(policy).__name__} has no layers to adapt",
            "leave --lora out; adapters are for language models",
        )
    if isinstance(policy, LogLinear):
        return _solve(policy, prompts, pairs, objective, settings)
    if isinstance(policy, Differentiable):
        if objective.trims and settings.tail:
            pairs = _trimmed(pairs, settings)
        if settings.lora is None:
            return _descend(policy, prompts, pairs, objective, settings, seed, advance)
        assert isinstance(policy, Adaptable)
        with adapted(policy, settings.lora, settings.lora_alpha, seed):
            return _descend(policy, prompts, pairs, objective, settings, seed, advance)
    raise TypeError(f"{type(policy).__name__} is neither LogLinear nor Differentiable")


# ---- gradient descent


def _trimmed(pairs: Pairs, settings: UpdateSettings) -> Pairs:
    """The pairs without rows that the weighted loss hardly looks at (``--tail``)."""
    reward_R, weight_R = torch.from_numpy(pairs.reward_R), torch.from_numpy(pairs.weight_R)
    group_R = torch.from_numpy(pairs.group_R)
    share_R = losses.target_weights(reward_R, weight_R, group_R, pairs.groups, settings.beta)
    return without_tails(pairs, share_R.numpy(), settings.tail)


def _descend(
    policy: Differentiable,
    prompts: Sequence[Prompt],
    pairs: Pairs,
    objective: Objective,
    settings: UpdateSettings,
    seed: int,
    advance: Callable[[int], None],
) -> tuple[Policy, UpdateReport]:
    rows_G = rows_by_prompt(pairs.group_R, pairs.groups)
    order = np.random.default_rng(seed)
    parameters = policy.parameters()
    optimizer = torch.optim.AdamW(
        parameters,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        betas=(0.9, 0.99),
        fused=parameters[0].device.type in ("cpu", "cuda"),
    )
    steps = settings.epochs * -(-pairs.groups // settings.prompts_per_step)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _ramp(steps, settings.warmup))
    looked_at = np.sort(order.permutation(pairs.groups)[: checked(pairs.groups)])
    size_G = policy.positions(prompts, pairs.prompt_R, pairs.tokens_R, pairs.group_R)
    room = Room(settings.pass_tokens, policy)
    before, floor = _loss_before(pairs, objective, settings.beta, rows_G, looked_at)
    for _ in range(settings.epochs):
        shuffled = order.permutation(pairs.groups)
        for start in range(0, pairs.groups, settings.prompts_per_step):
            chosen = shuffled[start : start + settings.prompts_per_step]
            optimizer.zero_grad(set_to_none=True)
            for part in room.parted(size_G, chosen):
                batch = _as_batch([rows_G[g] for g in part])
                with room.weighed(int(size_G[part].sum())):
                    loss = _loss(policy, prompts, pairs, objective, settings.beta, batch)
                (loss / len(chosen)).backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
            if not bool(torch.isfinite(norm)):
                raise UserError(
                    f"the update's gradient is not finite at step {schedule.last_epoch + 1} of "
                    f"{steps}",
                    "lower --lr or raise --beta; the last good policy is kept",
                )
            optimizer.step()
            schedule.step()
            advance(len(chosen))
    with torch.inference_mode():
        after = sum(
            float(_loss(policy, prompts, pairs, objective, settings.beta, _as_batch(rows)))
            for rows in ([rows_G[g] for g in part] for part in room.parted(size_G, looked_at))
        ) / len(looked_at)
    if not np.isfinite(after):
        raise UserError(
            "the update's loss is not finite",
            "lower --lr or raise --beta; the last good policy is kept",
        )
    assert isinstance(policy, Policy)
    return policy, UpdateReport(before, after, floor, steps)


def _ramp(steps: int, warmup: float) -> Callable[[int], float]:
    """Share of the peak learning rate at each step: up over ``warmup`` of them, then down to 0."""
    rise = max(1, round(warmup * steps))
    return lambda step: min((step + 1) / rise, (steps - step) / max(1, steps - rise + 1), 1.0)


def checked(groups: int) -> int:
    """How many groups the loss is measured on.

    >>> [checked(n) for n in (10, 100, 1024, 100_000)]
    [10, 64, 128, 512]
    """
    return min(groups, CHECKED_GROUPS, max(LEAST_CHECKED, groups // CHECKED_SHARE))


def _as_batch(part: list[Ints]) -> _Batch:
    group_R = np.repeat(np.arange(len(part)), [len(rows) for rows in part])
    return _Batch(np.concatenate(part), torch.from_numpy(group_R), len(part))


def _tensors(pairs: Pairs, rows: Ints) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        torch.from_numpy(pairs.reference_R[rows]),
        torch.from_numpy(pairs.reward_R[rows]),
        torch.from_numpy(pairs.weight_R[rows]),
    )


def _loss(
    policy: Differentiable,
    prompts: Sequence[Prompt],
    pairs: Pairs,
    objective: Objective,
    beta: float,
    batch: _Batch,
) -> torch.Tensor:
    """Sum of the loss over the groups of a batch."""
    logp_R = policy.log_prob_grad(
        prompts, pairs.prompt_R[batch.rows], [pairs.tokens_R[r] for r in batch.rows]
    ).cpu()
    reference_R, reward_R, weight_R = _tensors(pairs, batch.rows)
    loss_G = objective.loss(
        logp_R, reference_R, reward_R, weight_R, batch.group_R, batch.groups, beta
    )
    return _scaled(loss_G, pairs, batch.rows).sum()


def _scaled(loss_G: torch.Tensor, pairs: Pairs, rows: Ints) -> torch.Tensor:
    """The losses of the groups that ``rows`` are of, times the groups' weights."""
    if pairs.scale_G is None:
        return loss_G
    group_R = pairs.group_R[rows]
    group_G = group_R[np.diff(group_R, prepend=-1) != 0]
    return loss_G * torch.from_numpy(pairs.scale_G[group_G]).to(loss_G)


def _loss_before(
    pairs: Pairs, objective: Objective, beta: float, rows_G: list[Ints], chosen: Ints
) -> tuple[float, float]:
    """Mean loss at pi = pi_t (log pi is the reference: no forward pass), and its floor."""
    batch = _as_batch([rows_G[g] for g in chosen])
    reference_R, reward_R, weight_R = _tensors(pairs, batch.rows)
    v_R = losses.target_weights(reward_R, weight_R, batch.group_R, batch.groups, beta)
    loss_G = objective.loss(
        reference_R, reference_R, reward_R, weight_R, batch.group_R, batch.groups, beta
    )
    floor_G = objective.floor(v_R, batch.group_R, batch.groups)
    before, floor = (_scaled(x, pairs, batch.rows).mean() for x in (loss_G, floor_G))
    return float(before), float(floor)


# ---- exact minimisers, for log-linear policies


def _solve(
    policy: LogLinear,
    prompts: Sequence[Prompt],
    pairs: Pairs,
    objective: Objective,
    settings: UpdateSettings,
) -> tuple[Policy, UpdateReport]:
    rows_G = rows_by_prompt(pairs.group_R, pairs.groups)
    everything = np.arange(pairs.groups)
    before, floor = _loss_before(pairs, objective, settings.beta, rows_G, everything)
    theta, notes = objective.solve(policy, prompts, pairs, settings.beta)
    updated = policy.with_theta(theta)
    assert isinstance(updated, Policy)
    logp_R = updated.log_prob(prompts, pairs.prompt_R, pairs.tokens_R)
    reference_R, reward_R, weight_R = _tensors(pairs, np.arange(len(pairs)))
    loss_G = objective.loss(
        torch.from_numpy(logp_R),
        reference_R,
        reward_R,
        weight_R,
        torch.from_numpy(pairs.group_R),
        pairs.groups,
        settings.beta,
    )
    after = float(_scaled(loss_G, pairs, np.arange(len(pairs))).mean())
    return updated, UpdateReport(before, after, floor, 1, notes)


# ---- objectives


def preference(loss: Loss, nll: float = 0.0, *, attained: bool) -> Objective:
    """A preference loss, with ``nll`` times the likelihood term of the preferred response.

    Args:
        loss: ``losses.dpo`` or ``losses.ipo``.
        nll: weight of ``losses.chosen``, >= 0.
        attained: whether the loss of one pair has a minimum (``minimisers.convex``).
    """

    def both(
        logp_R: torch.Tensor,
        reference_R: torch.Tensor,
        reward_R: torch.Tensor,
        weight_R: torch.Tensor,
        group_R: torch.Tensor,
        groups: int,
        beta: float,
    ) -> torch.Tensor:
        rest = (reference_R, reward_R, weight_R, group_R, groups, beta)
        return loss(logp_R, *rest) + nll * losses.chosen(logp_R, *rest)

    total = both if nll else loss
    return Objective(total, losses.zero_floor, partial(minimisers.convex, total, attained))


square_objective = Objective(losses.square, losses.zero_floor, minimisers.square)
weighted_objective = Objective(
    losses.weighted, losses.weighted_floor, minimisers.weighted, trims=True
)
dpo_objective = preference(losses.dpo, attained=False)
ipo_objective = preference(losses.ipo, attained=True)
