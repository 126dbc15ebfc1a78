"""pairs -> next policy: exact where the policy is log-linear, by gradient descent otherwise.

``fit`` consumes the policy that it is given: a network is trained in place, because a second copy
would double the memory. References and rewards come with the pairs, so no second model is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import torch

from srlm import exact_updates as minimisers
from srlm import losses
from srlm.config import UpdateSettings
from srlm.errors import UserError
from srlm.losses import Loss
from srlm.pairs import Pair, best, best_worst, groups, without_tails
from srlm.policies.base import Differentiable, LogLinear, Policy
from srlm.policies.devices import (
    check_trainable,
    logp_error,
    memory,
    no_room,
    out_of_memory,
)
from srlm.policies.lora import Adaptable, adapted
from srlm.types import Floats, Ints, Pairs, Prompt, Tokens, UpdateReport, rows_by_prompt

WEIGHTS = ((3e6, 5e-4), (1.35e8, 7e-6), (8e9, 1e-6))
"""Parameters and peak learning rate where all weights are trained."""
ADAPTERS = ((3e6, 5e-4), (1e8, 2e-4), (8e9, 1e-4))
"""Parameters of the model and peak learning rate where adapters are trained."""
LARGE = 1e9
"""Parameters above which adapters are trained where nothing else is asked for."""
RANK = 16
"""Of those adapters."""
LEAST_STEPS = 4
"""Optimiser steps an epoch, at least, where the prompts allow it."""
RISE = 1e-3
"""Share of the loss above its floor that it may rise by before the update counts as diverged."""
CHECKED_GROUPS = 512
"""Groups, at most, on which a network's loss is measured before and after the update."""
CHECKED_SHARE = 8
"""One group in so many, as long as those are ``LEAST_CHECKED``."""
LEAST_CHECKED = 64


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss, its least value, and its exact minimiser for log-linear policies."""

    loss: Loss
    floor: Callable[[losses.Groups], torch.Tensor]
    solve: Callable[[LogLinear, Sequence[Prompt], Pairs, float], tuple[Floats, tuple[str, ...]]]
    trims: bool = False
    """Rows count by their share of the target, so that those of next to none can be left out."""
    pair: Pair = groups
    """The pairing that it is meant for."""


class Passes(Protocol):
    """The loss of some groups and its gradient, in passes that fit in memory."""

    def parameters(self) -> list[torch.nn.Parameter]:
        """What is trained."""
        ...

    def prepare(self, stack: ExitStack) -> None:
        """Layers are computed again in the backward pass, where nothing else fits."""
        ...

    def loss(self, chosen: Ints) -> float:
        """Mean loss of the groups, without gradient."""
        ...

    def gradient(self, chosen: Ints, held: Held, stack: ExitStack) -> None:
        """The gradient of the mean loss of the groups, anew."""
        ...

    def clip(self, held: Held, most: float) -> float:
        """Scale the gradient to the norm ``most`` where it is longer; its norm before that."""
        ...


Open = Callable[
    [Differentiable, Sequence[Prompt], Pairs, Objective, UpdateSettings],
    AbstractContextManager[Passes],
]
"""Passes over a round's pairs; on leaving, the policy has what was trained."""


@contextmanager
def alone(
    policy: Differentiable,
    prompts: Sequence[Prompt],
    pairs: Pairs,
    objective: Objective,
    settings: UpdateSettings,
) -> Iterator[Passes]:
    """The passes of one process."""
    yield Work(policy, prompts, pairs, objective, settings.strength, settings.pass_tokens)


Fit = Callable[..., tuple[Policy, UpdateReport]]
"""``fit``, or another with its arguments, ``passes`` left aside."""


def fit(
    policy: Policy,
    prompts: Sequence[Prompt],
    pairs: Pairs,
    objective: Objective,
    settings: UpdateSettings,
    *,
    seed: int,
    advance: Callable[[int], None] = lambda groups: None,
    passes: Open = alone,
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
        passes: how gradients are made: by this process, or by several (``srlm.parallel``).

    Raises:
        UserError: the loss or its gradient is not finite (the caller keeps the last good policy);
            adapters on a policy without layers; no pairs.
    """
    if not pairs.groups:
        raise UserError(
            "no prompt has two responses with unequal rewards: there is nothing to prefer",
            "take the last round; --stop auto ends there",
        )
    if settings.lora and not isinstance(policy, Adaptable):
        raise UserError(
            f"--lora {settings.lora}: {type(policy).__name__} has no layers to adapt",
            "leave --lora out; adapters are for language models",
        )
    if isinstance(policy, LogLinear):
        return _solve(policy, prompts, pairs, objective, settings)
    if isinstance(policy, Differentiable):
        settings = settled(settings, policy, pairs.groups)
        if objective.trims and settings.tail:
            pairs = _trimmed(pairs, settings)
        with ExitStack() as stack:
            stack.callback(policy.budget.release)
            if settings.lora:
                assert isinstance(policy, Adaptable)
                stack.enter_context(adapted(policy, settings.lora, settings.lora_alpha, seed))
            return _descend(policy, prompts, pairs, objective, settings, seed, advance, passes)
    raise TypeError(f"{type(policy).__name__} is neither LogLinear nor Differentiable")


# ---- gradient descent


def _trimmed(pairs: Pairs, settings: UpdateSettings) -> Pairs:
    """The pairs without rows that the weighted loss hardly looks at (``--tail``)."""
    share_R = losses.target_weights(losses.Groups.of(pairs, settings.strength))
    return without_tails(pairs, share_R.numpy(), settings.tail)


def _descend(
    policy: Differentiable,
    prompts: Sequence[Prompt],
    pairs: Pairs,
    objective: Objective,
    settings: UpdateSettings,
    seed: int,
    advance: Callable[[int], None],
    passes: Open,
) -> tuple[Policy, UpdateReport]:
    assert isinstance(policy, Policy)
    order = np.random.default_rng(seed)
    lr, epochs, per_step = settings.lr, settings.epochs, settings.prompts_per_step
    assert lr and epochs and per_step  # settled
    steps = epochs * -(-pairs.groups // per_step)
    looked_at = np.sort(order.permutation(pairs.groups)[: checked(pairs.groups)])
    rows_G = rows_by_prompt(pairs.group_R, pairs.groups)
    some = losses.Groups.of(pairs, settings.strength, [rows_G[g] for g in looked_at])
    before, floor = _before(objective, some)
    with passes(policy, prompts, pairs, objective, settings) as work, ExitStack() as stack:
        held = Held(work.parameters())
        optimizer = torch.optim.AdamW(
            held.wide,
            lr=lr,
            weight_decay=settings.weight_decay,
            betas=(0.9, 0.99),
            fused=held.wide[0].device.type in ("cpu", "cuda"),
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _ramp(steps, settings.warmup))
        if held.rounded:  # references may come from other numbers than these
            before = work.loss(looked_at)
        work.prepare(stack)
        for _ in range(epochs):
            shuffled = order.permutation(pairs.groups)
            for start in range(0, pairs.groups, per_step):
                chosen = shuffled[start : start + per_step]
                work.gradient(chosen, held, stack)
                if not np.isfinite(work.clip(held, settings.clip)):
                    where = f"at step {schedule.last_epoch + 1} of {steps}"
                    raise _diverged(f"gradient is not finite {where}", lr)
                optimizer.step()
                held.write()
                schedule.step()
                advance(len(chosen))
        stack.close()
        after = work.loss(looked_at)
        if not np.isfinite(after):
            raise _diverged("loss is not finite", lr)
        if after > before + RISE * abs(before - floor) + logp_error(held.dtype, 1):
            raise _diverged(f"loss on its own data rose from {before:.4g} to {after:.4g}", lr)
    return policy, UpdateReport(before, after, floor, steps)


def _diverged(what: str, lr: float) -> UserError:
    return UserError(
        f"the update's {what}: the learning rate, {lr:.2g}, is too high for this model",
        f"use --lr {lr / 10:.1g}, then raise --beta; the last good policy is kept",
    )


class Held:
    """The parameters in float32 while they are trained, with their gradients.

    Parameters in bfloat16 have 8 bits: steps of less than 1/256 of a weight would be lost one by
    one, so that steps are added up in float32 copies, and each parameter is its copy, rounded.

    Args:
        parameters: of the policy; float32 and float64 ones are their own copies.

    Raises:
        UserError: float16.
    """

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        for dtype in {p.dtype for p in parameters}:
            check_trainable(dtype)
        self.dtype = parameters[0].dtype
        self._parameters = parameters
        self.rounded = any(p.dtype.itemsize < 4 for p in parameters)
        self.wide = [
            p if p.dtype.itemsize >= 4 else p.detach().float().requires_grad_() for p in parameters
        ]

    def gather(self) -> None:
        """Add the gradients of a backward pass to those of the copies."""
        for parameter, wide in zip(self._parameters, self.wide, strict=True):
            if parameter is wide or parameter.grad is None:
                continue
            if wide.grad is None:
                wide.grad = torch.zeros_like(wide)
            wide.grad += parameter.grad
            parameter.grad = None

    def clear(self) -> None:
        """Forget all gradients."""
        for x in (*self._parameters, *self.wide):
            x.grad = None

    @torch.no_grad()
    def write(self) -> None:
        """Give the parameters the values of the copies."""
        for parameter, wide in zip(self._parameters, self.wide, strict=True):
            if parameter is not wide:
                parameter.copy_(wide)


class Work:
    """The loss of some groups and its gradient, in passes that fit in memory.

    Groups of like size are run together. A group that does not fit is run twice: all its
    log-probabilities first, without gradient; they give the loss and its derivative by each of
    them, and with these as weights the gradient is a sum over rows, some at a time.

    Args:
        positions: of a pass; None: as many as fit.
    """

    def __init__(
        self,
        policy: Differentiable,
        prompts: Sequence[Prompt],
        pairs: Pairs,
        objective: Objective,
        beta: float,
        positions: int | None,
    ) -> None:
        self.policy, self.prompts, self.pairs = policy, prompts, pairs
        self.objective, self.beta, self._positions = objective, beta, positions
        self.rows_G = rows_by_prompt(pairs.group_R, pairs.groups)
        self.size_G = self._sizes()
        size_R = policy.positions(
            prompts, pairs.prompt_R, pairs.tokens_R, np.arange(len(pairs.tokens_R))
        )
        self.longest = int(size_R.max())
        """Positions of the longest prompt with its response."""
        self._recomputed = False

    def parameters(self) -> list[torch.nn.Parameter]:
        """The policy's."""
        return self.policy.parameters()

    def prepare(self, stack: ExitStack) -> None:
        """Compute layers again where the longest response does not fit otherwise."""
        if not self.policy.budget.trainable(self.longest):
            self.recompute(stack)

    def recompute(self, stack: ExitStack) -> None:
        """From now on layers are computed again in the backward pass."""
        stack.enter_context(self.policy.recomputing())
        self._recomputed = True
        self.size_G = self._sizes()

    def _sizes(self) -> Ints:
        """Positions of each group."""
        pairs = self.pairs
        return self.policy.positions(self.prompts, pairs.prompt_R, pairs.tokens_R, pairs.group_R)

    def loss(self, chosen: Ints) -> float:
        """Mean loss of the groups, without gradient."""
        assert isinstance(self.policy, Policy)
        logp_R = self.policy.log_prob(self.prompts, *self.given(self.rows(chosen)))
        return float(self.of(torch.from_numpy(logp_R), chosen)) / len(chosen)

    def clip(self, held: Held, most: float) -> float:
        """Scale the gradient to the norm ``most`` where it is longer; its norm before that."""
        return float(torch.nn.utils.clip_grad_norm_(held.wide, most))

    def gradient(self, chosen: Ints, held: Held, stack: ExitStack) -> None:
        """The gradient of the mean loss of the groups, anew. Where memory runs out it is begun
        again in smaller passes, at last with layers that are computed again."""
        while True:
            held.clear()
            try:
                for part in parted(self.size_G, chosen, self._room()):
                    self._add(part, len(chosen), held)
                return
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            held.clear()
            self._less(stack)

    def _room(self) -> int:
        budget = self.policy.budget
        return self._positions or budget.trained(recomputed=self._recomputed)

    def _less(self, stack: ExitStack) -> None:
        if self._room() > 1:
            self.policy.budget.halve()
            if self._positions is not None:
                self._positions //= 2
        elif not self._recomputed:
            self.recompute(stack)
        else:
            raise no_room(self.policy.budget)

    def _add(self, part: Ints, groups: int, held: Held) -> None:
        prompt_R, tokens_R = self.given(self.rows(part))
        if len(part) > 1 or self.size_G[part[0]] <= self._room():
            logp_R = self.policy.log_prob_grad(self.prompts, prompt_R, tokens_R)
            (self.of(logp_R, part) / groups).backward()
            held.gather()
            return
        assert isinstance(self.policy, Policy)
        logp_R = torch.from_numpy(self.policy.log_prob(self.prompts, prompt_R, tokens_R))
        logp_R.requires_grad_()
        (slope_R,) = torch.autograd.grad(self.of(logp_R, part) / groups, logp_R)
        for rows in self.policy.passes(self.prompts, prompt_R, tokens_R, self._room()):
            some = [tokens_R[r] for r in rows]
            now_R = self.policy.log_prob_grad(self.prompts, prompt_R[rows], some)
            (slope_R[rows] @ now_R).backward()
            held.gather()

    def rows(self, part: Ints) -> Ints:
        """The rows of some groups, one group after another."""
        return np.concatenate([self.rows_G[g] for g in part])

    def given(self, rows: Ints) -> tuple[Ints, list[Tokens]]:
        """Prompt and tokens of rows."""
        return self.pairs.prompt_R[rows], [self.pairs.tokens_R[r] for r in rows]

    def of(self, logp_R: torch.Tensor, part: Ints) -> torch.Tensor:
        """Sum of the loss over some groups, from the log-probabilities of their rows."""
        g = losses.Groups.of(self.pairs, self.beta, [self.rows_G[i] for i in part])
        return g.scaled(self.objective.loss(logp_R, g)).sum()


def parted(size_G: Ints, chosen: Ints, positions: int) -> Iterator[Ints]:
    """The chosen groups in as few passes as hold them, about equally large, groups of like size
    together, so that little is padded; one group at least each. Larger ones come first: the
    memory that their pass gives back is room for the next one's."""
    left = chosen[np.argsort(-size_G[chosen], kind="stable")]
    while len(left):
        upto = np.cumsum(size_G[left])
        share = upto[-1] / -(-upto[-1] // positions)
        count = max(1, int(np.searchsorted(upto, share, side="right")))
        yield left[:count]
        left = left[count:]


@dataclass(frozen=True, slots=True)
class Recommended:
    """Settings of an update that suit a model's size."""

    lr: float
    batch: int
    """Prompts an optimiser step, at most."""
    epochs: int


def recommended(parameters: int, *, lora: bool = False) -> Recommended:
    """The learning rate, batch and epochs for a model of so many parameters that are trained, or
    that adapters are trained on.

    Between the sizes that are known, learning rates lie on straight lines of log lr over log
    parameters.

    >>> [f"{recommended(n).lr:.1e}" for n in (100_000, 135_000_000, 500_000_000, 8_000_000_000)]
    ['5.0e-04', '7.0e-06', '3.7e-06', '1.0e-06']
    >>> f"{recommended(135_000_000, lora=True).lr:.1e}"
    '1.9e-04'
    """
    known = ADAPTERS if lora else WEIGHTS
    sizes, rates = zip(*known, strict=True)
    lr = np.exp(np.interp(np.log(parameters), np.log(sizes), np.log(rates)))
    small = parameters <= WEIGHTS[0][0]
    return Recommended(float(f"{lr:.2g}"), 128 if small else 16, 2)


def settled(settings: UpdateSettings, policy: Policy, prompts: int) -> UpdateSettings:
    """The settings with what was left open chosen by the model's size, for networks.

    Adapters of rank ``RANK`` above ``LARGE`` parameters, or where AdamW's states for all weights
    would take more than half of the device's memory; else all weights. Learning rate, batch and
    epochs as ``recommended``, the batch no larger than allows ``LEAST_STEPS`` steps an epoch.

    Args:
        policy: in the number format that it is trained in.
        prompts: of a round.
    """
    if not isinstance(policy, Differentiable):
        return settings
    shape, lora = policy.budget.shape, settings.lora
    if lora is None:
        large = shape.parameters > LARGE or 2 * shape.states > memory(policy.budget.device)
        lora = RANK if large and isinstance(policy, Adaptable) else 0
    suits = recommended(shape.parameters, lora=lora > 0)
    chosen = UpdateSettings(
        lora=lora,
        lr=suits.lr,
        epochs=suits.epochs,
        prompts_per_step=max(1, min(suits.batch, prompts // LEAST_STEPS)),
    )
    left = [name for name in chosen.model_fields_set if getattr(settings, name) is None]
    return settings.model_copy(update={name: getattr(chosen, name) for name in left})


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


def _before(objective: Objective, g: losses.Groups) -> tuple[float, float]:
    """Mean loss at pi = pi_t (log pi is the reference: no forward pass), and its floor."""
    loss_G, floor_G = objective.loss(g.reference_R, g), objective.floor(g)
    return float(g.scaled(loss_G).mean()), float(g.scaled(floor_G).mean())


# ---- exact minimisers, for log-linear policies


def _solve(
    policy: LogLinear,
    prompts: Sequence[Prompt],
    pairs: Pairs,
    objective: Objective,
    settings: UpdateSettings,
) -> tuple[Policy, UpdateReport]:
    g = losses.Groups.of(pairs, settings.strength)
    before, floor = _before(objective, g)
    theta, notes = objective.solve(policy, prompts, pairs, settings.strength)
    updated = policy.with_theta(theta)
    assert isinstance(updated, Policy)
    logp_R = updated.log_prob(prompts, pairs.prompt_R, pairs.tokens_R)
    after = float(g.scaled(objective.loss(torch.from_numpy(logp_R), g)).mean())
    return updated, UpdateReport(before, after, floor, 1, notes)


# ---- objectives


def preference(loss: Loss, nll: float = 0.0, *, attained: bool) -> Objective:
    """A preference loss, with ``nll`` times the likelihood term of the preferred response.

    Args:
        loss: ``losses.dpo`` or ``losses.ipo``.
        nll: weight of ``losses.chosen``, >= 0.
        attained: whether the loss of one pair has a minimum (``minimisers.convex``).
    """

    def both(logp_R: torch.Tensor, g: losses.Groups) -> torch.Tensor:
        return loss(logp_R, g) + nll * losses.chosen(logp_R, g)

    total = both if nll else loss
    solve = partial(minimisers.convex, total, attained)
    return Objective(total, losses.zero_floor, solve, pair=best_worst)


square_objective = Objective(losses.square, losses.zero_floor, minimisers.square)
weighted_objective = Objective(
    losses.weighted, losses.weighted_floor, minimisers.weighted, trims=True
)
best_of_n_objective = replace(weighted_objective, pair=best)
dpo_objective = preference(losses.dpo, attained=False)
ipo_objective = preference(losses.ipo, attained=True)
