"""pairs -> next policy: exact where the policy is log-linear, by gradient descent otherwise.

``fit`` consumes the policy that it is given: a network is trained in place, because a second copy
would double the memory. References and rewards come with the pairs, so no second model is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from srlm import losses
from srlm.config import UpdateSettings
from srlm.errors import UserError
from srlm.policy.base import Differentiable, LogLinear, Policy
from srlm.policy.listed import Listed
from srlm.types import Floats, Ints, Pairs, Prompt, UpdateReport, rows_by_prompt

Loss = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int, float],
    torch.Tensor,
]
"""(logp_R, reference_R, reward_R, weight_R, group_R, groups, beta) -> loss of each group, [G]."""

CHECKED_GROUPS = 512
"""Groups on which a network's loss is measured before and after the update."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss, its least value, and its exact minimiser for log-linear policies."""

    loss: Loss
    floor: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
    solve: Callable[[LogLinear, Sequence[Prompt], Pairs, float], tuple[Floats, tuple[str, ...]]]


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
    gradients clipped.

    Args:
        policy: pi_t, consumed.
        prompts: what ``pairs.prompt_R`` counts.
        pairs: groups with references, rewards and weights.
        objective: ``square_objective``, ``weighted_objective`` or one's own.
        settings: beta, epochs, learning rate, ...
        seed: order of the groups.
        advance: called with the number of groups done, for progress.

    Raises:
        UserError: the loss or its gradient is not finite (the caller keeps the last good policy).
    """
    if isinstance(policy, LogLinear):
        return _solve(policy, prompts, pairs, objective, settings)
    if isinstance(policy, Differentiable):
        return _descend(policy, prompts, pairs, objective, settings, seed, advance)
    raise TypeError(f"{type(policy).__name__} is neither LogLinear nor Differentiable")


# ---- gradient descent


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
        parameters, lr=settings.lr, weight_decay=settings.weight_decay, betas=(0.9, 0.99)
    )
    steps = settings.epochs * -(-pairs.groups // settings.prompts_per_step)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _ramp(steps, settings.warmup))
    checked = np.sort(order.permutation(pairs.groups)[:CHECKED_GROUPS])
    before, floor = _loss_before(pairs, objective, settings.beta, rows_G, checked)
    for _ in range(settings.epochs):
        shuffled = order.permutation(pairs.groups)
        for start in range(0, pairs.groups, settings.prompts_per_step):
            chosen = shuffled[start : start + settings.prompts_per_step]
            optimizer.zero_grad(set_to_none=True)
            for batch in _micro_batches(rows_G, chosen, settings.micro_rows):
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
            float(_loss(policy, prompts, pairs, objective, settings.beta, batch))
            for batch in _micro_batches(rows_G, checked, settings.micro_rows)
        ) / len(checked)
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


def _micro_batches(rows_G: list[Ints], chosen: Ints, micro_rows: int) -> Iterator[_Batch]:
    """Whole groups, ``micro_rows`` rows at most unless one group alone has more."""
    part: list[Ints] = []
    size = 0
    for g in chosen:
        if part and size + len(rows_G[g]) > micro_rows:
            yield _as_batch(part)
            part, size = [], 0
        part.append(rows_G[g])
        size += len(rows_G[g])
    if part:
        yield _as_batch(part)


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
    return objective.loss(
        logp_R, reference_R, reward_R, weight_R, batch.group_R, batch.groups, beta
    ).sum()


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
    return float(loss_G.mean()), float(objective.floor(v_R, batch.group_R, batch.groups).mean())


# ---- exact minimisers


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
    return updated, UpdateReport(before, float(loss_G.mean()), floor, 1, notes)


def solve_square(
    policy: LogLinear, prompts: Sequence[Prompt], pairs: Pairs, beta: float
) -> tuple[Floats, tuple[str, ...]]:
    """theta of the square loss's minimiser, by least squares ([SR] section 6).

    log pi - log pi_t = <theta - theta_t, phi> + const within a prompt, so with
    delta = theta - theta_t the loss is a weighted least squares of centred rewards r / beta on
    features centred within their group. The minimum-norm delta leaves directions that no group
    compares as they are. Cost O(R D min(R, D)).
    """
    phi_RD = policy.features(prompts, pairs.prompt_R, pairs.tokens_R)
    target_R = pairs.reward_R / beta
    both = np.column_stack([phi_RD, target_R])
    mean = np.zeros((pairs.groups, both.shape[1]))
    np.add.at(mean, pairs.group_R, pairs.weight_R[:, None] * both)
    centred = np.sqrt(pairs.weight_R)[:, None] * (both - mean[pairs.group_R])
    live = np.flatnonzero(np.abs(centred[:, :-1]).max(axis=0) > 0)
    delta_D = np.zeros(phi_RD.shape[1])
    delta_D[live] = np.linalg.lstsq(centred[:, live], centred[:, -1], rcond=1e-12)[0]
    return policy.theta + delta_D, ()


def solve_weighted(
    policy: LogLinear, prompts: Sequence[Prompt], pairs: Pairs, beta: float
) -> tuple[Floats, tuple[str, ...]]:
    """theta of the weighted likelihood's maximiser, by Newton steps with halving.

    Concave in theta; the maximiser nearest theta_t is approached by pseudo-inverse steps. On few
    draws it may lie at infinity (the responses that were drawn can be separated from the rest);
    then the steps stop and a note says so. Cost O(G M D^2) a step.
    """
    assert isinstance(policy, Listed) and isinstance(policy, Policy)
    v_R = losses.target_weights(
        torch.from_numpy(pairs.reward_R),
        torch.from_numpy(pairs.weight_R),
        torch.from_numpy(pairs.group_R),
        pairs.groups,
        beta,
    ).numpy()
    used, place_R = np.unique(pairs.prompt_R, return_inverse=True)
    M = len(policy.responses_M)
    phi_SMD = policy.features(
        prompts, np.repeat(used, M), [t for _ in used for t in policy.responses_M]
    ).reshape(len(used), M, -1)
    column = {tokens: m for m, tokens in enumerate(policy.responses_M)}
    v_SM = np.zeros((len(used), M))
    np.add.at(v_SM, (place_R, np.array([column[t] for t in pairs.tokens_R])), v_R)
    v_SM /= pairs.groups
    mass_S = v_SM.sum(1)
    log_SM = policy.log_table([prompts[p] for p in used])
    drawn_SM = v_SM > 0  # elsewhere the probability may be zero, its logarithm minus infinity

    def value(delta_D: Floats) -> tuple[float, Floats]:
        logit_SM = log_SM + phi_SMD @ delta_D
        top_S = logit_SM.max(1)
        log_z_S = top_S + np.log(np.exp(logit_SM - top_S[:, None]).sum(1))
        return float(mass_S @ log_z_S - v_SM[drawn_SM] @ logit_SM[drawn_SM]), np.exp(
            logit_SM - log_z_S[:, None]
        )

    delta_D = np.zeros(len(policy.theta))
    now, p_SM = value(delta_D)
    for _ in range(60):
        mean_SD = np.einsum("sm,smd->sd", p_SM, phi_SMD)
        gradient_D = np.einsum("sm,smd->d", mass_S[:, None] * p_SM - v_SM, phi_SMD)
        if np.abs(gradient_D).max() < 1e-13:
            return policy.theta + delta_D, ()
        centred = (phi_SMD - mean_SD[:, None]) * np.sqrt(mass_S[:, None] * p_SM)[:, :, None]
        flat = centred.reshape(-1, len(delta_D))
        step_D = np.linalg.pinv(flat.T @ flat, rcond=1e-13, hermitian=True) @ gradient_D
        size = 1.0
        while True:
            new, p_new = value(delta_D - size * step_D)
            if new <= now + 1e-15 * abs(now) or size < 1e-6:
                break
            size /= 2
        if size < 1e-6:
            return policy.theta + delta_D, ()
        delta_D, now, p_SM = delta_D - size * step_D, new, p_new
    note = "the weighted likelihood has no finite maximum on these draws: stopped early"
    return policy.theta + delta_D, (note,)


square_objective = Objective(losses.square, losses.square_floor, solve_square)
weighted_objective = Objective(losses.weighted, losses.weighted_floor, solve_weighted)
