"""Exact minimisers of the losses for log-linear policies: one function an objective.

Each takes (policy, prompts, pairs, beta) and gives theta and notes. Where the minimiser is not
unique the one nearest theta_t is taken; where it lies at infinity a note says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from srlm.losses import Groups, Loss, target_weights
from srlm.policies.base import LogLinear, Policy
from srlm.policies.listed import Listed
from srlm.types import Floats, Ints, Pairs, Prompt

STEPS = 60
FLAT = 1e-13
"""Largest entry of a gradient that counts as none."""
ROUNDING = 1e-14
"""Share of a loss that its own rounding may be."""
FAR = 20.0
"""A log-probability that moved further than this, nats, is on its way to infinity."""


def square(
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
    weight_R = pairs.weight_R * _scale(pairs)[pairs.group_R]
    centred = np.sqrt(weight_R)[:, None] * (both - mean[pairs.group_R])
    live = np.flatnonzero(np.abs(centred[:, :-1]).max(axis=0) > 0)
    delta_D = np.zeros(phi_RD.shape[1])
    delta_D[live] = np.linalg.lstsq(centred[:, live], centred[:, -1], rcond=1e-12)[0]
    return policy.theta + delta_D, ()


def weighted(
    policy: LogLinear, prompts: Sequence[Prompt], pairs: Pairs, beta: float
) -> tuple[Floats, tuple[str, ...]]:
    """theta of the weighted likelihood's maximiser, by Newton steps with halving.

    Concave in theta; the maximiser nearest theta_t is approached by pseudo-inverse steps. On few
    samples it may lie at infinity (the responses that were sampled can be separated from the rest);
    then the steps stop and a note says so. Cost O(G M D^2) a step.
    """
    v_R = target_weights(Groups.of(pairs, beta)).numpy()
    t = _table(policy, prompts, pairs)
    v_SM = np.zeros(t.log_SM.shape)
    np.add.at(v_SM, (t.place_R, t.column_R), v_R * _scale(pairs)[pairs.group_R])
    v_SM /= pairs.groups
    mass_S = v_SM.sum(1)
    drawn_SM = v_SM > 0  # elsewhere the probability may be zero, its logarithm minus infinity

    def value(delta_D: Floats) -> float:
        logit_SM, log_z_S = t.logits(delta_D)
        return float(mass_S @ log_z_S - v_SM[drawn_SM] @ logit_SM[drawn_SM])

    def derivatives(delta_D: Floats) -> tuple[Floats, Floats]:
        logit_SM, log_z_S = t.logits(delta_D)
        p_SM = np.exp(logit_SM - log_z_S[:, None])
        gradient_D = np.einsum("sm,smd->d", mass_S[:, None] * p_SM - v_SM, t.phi_SMD)
        mean_SD = np.einsum("sm,smd->sd", p_SM, t.phi_SMD)
        root_SM = np.sqrt(mass_S[:, None] * p_SM)
        flat = ((t.phi_SMD - mean_SD[:, None]) * root_SM[:, :, None]).reshape(-1, len(delta_D))
        return gradient_D, flat.T @ flat

    delta_D, reached = _newton(value, derivatives, np.zeros(len(policy.theta)))
    note = "the weighted likelihood has no finite maximum on these samples: stopped early"
    return policy.theta + delta_D, () if reached else (note,)


def convex(
    loss: Loss,
    attained: bool,
    policy: LogLinear,
    prompts: Sequence[Prompt],
    pairs: Pairs,
    beta: float,
) -> tuple[Floats, tuple[str, ...]]:
    """theta of any loss that is convex in theta, by Newton steps on its derivatives by autograd.

    From theta_t with pseudo-inverse steps, so that a quadratic loss gets its minimum of least
    norm in one step. Cost O(G M D^2) a step and D backward passes for the second derivatives.

    Args:
        loss: of ``srlm.losses``.
        attained: the loss of a single group has a minimum; where it has none (``dpo``), theta
            may go off to infinity, and a note says that it did.
    """
    t = _table(policy, prompts, pairs)
    log_SM, phi_SMD = torch.from_numpy(t.log_SM), torch.from_numpy(t.phi_SMD)
    rows = (torch.from_numpy(t.place_R), torch.from_numpy(t.column_R))
    g = Groups.of(pairs, beta)

    def logp(delta_D: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(log_SM + phi_SMD @ delta_D, 1)[rows]

    def mean(delta_D: torch.Tensor) -> torch.Tensor:
        return g.scaled(loss(logp(delta_D), g)).mean()

    def value(delta_D: Floats) -> float:
        return float(mean(torch.from_numpy(delta_D)))

    def derivatives(delta_D: Floats) -> tuple[Floats, Floats]:
        at = torch.from_numpy(delta_D).requires_grad_()
        (gradient,) = torch.autograd.grad(mean(at), at)
        hessian = torch.autograd.functional.hessian(mean, at.detach())
        assert isinstance(hessian, torch.Tensor)
        return gradient.numpy(), hessian.numpy()

    delta_D, reached = _newton(value, derivatives, np.zeros(len(policy.theta)))
    moved = float((logp(torch.from_numpy(delta_D)) - g.reference_R).abs().max())
    if reached and (attained or moved < FAR):
        return policy.theta + delta_D, ()
    return policy.theta + delta_D, ("the loss has no finite minimum on these pairs: stopped early",)


# ---- what they share


def _scale(pairs: Pairs) -> Floats:
    """Weight of each group, [G]."""
    return np.ones(pairs.groups) if pairs.scale_G is None else pairs.scale_G


@dataclass(frozen=True, slots=True)
class _Table:
    """The prompts of some pairs with all their responses, S prompts by M responses."""

    log_SM: Floats
    phi_SMD: Floats
    place_R: Ints
    """Prompt of each row, among the S."""
    column_R: Ints
    """Response of each row, among the M."""

    def logits(self, delta_D: Floats) -> tuple[Floats, Floats]:
        """Logits at theta_t + delta and the logarithm of their sum, [S, M] and [S]."""
        logit_SM = self.log_SM + self.phi_SMD @ delta_D
        top_S = logit_SM.max(1)
        return logit_SM, top_S + np.log(np.exp(logit_SM - top_S[:, None]).sum(1))


def _table(policy: LogLinear, prompts: Sequence[Prompt], pairs: Pairs) -> _Table:
    assert isinstance(policy, Listed) and isinstance(policy, Policy)
    used, place_R = np.unique(pairs.prompt_R, return_inverse=True)
    M = len(policy.responses_M)
    phi_SMD = policy.features(
        prompts, np.repeat(used, M), [t for _ in used for t in policy.responses_M]
    ).reshape(len(used), M, -1)
    column = {tokens: m for m, tokens in enumerate(policy.responses_M)}
    return _Table(
        log_SM=policy.log_table([prompts[p] for p in used]),
        phi_SMD=phi_SMD,
        place_R=place_R,
        column_R=np.array([column[t] for t in pairs.tokens_R], dtype=np.int64),
    )


def _newton(
    value: Callable[[Floats], float],
    derivatives: Callable[[Floats], tuple[Floats, Floats]],
    start_D: Floats,
) -> tuple[Floats, bool]:
    """Minimum of a convex function by damped Newton steps, (H + damping I)^+ gradient.

    The damping grows until a step brings a tenth of what the quadratic model promises, and
    shrinks after each that does, so that steps end as Newton's own. Directions without curvature
    stay as they are. Near the minimum a step promises less than the value's own rounding; there
    it counts if it makes the gradient smaller, so that the point is as near as float64 and the
    condition of H allow: |gradient| / (least curvature), not the square root of the rounding.

    Returns:
        The point, and whether the gradient vanished there as far as float64 can tell.
    """
    at_D, now, damping = start_D, value(start_D), 0.0
    gradient_D, hessian_DD = derivatives(at_D)
    for _ in range(STEPS):
        flat = float(np.abs(gradient_D).max())
        if flat < FLAT:
            return at_D, True
        curvature_D, axis_DD = np.linalg.eigh(hessian_DD)
        curved = curvature_D > 1e-13 * curvature_D[-1]
        curvature_K, axis_DK = curvature_D[curved], axis_DD[:, curved]
        slope_K = axis_DK.T @ gradient_D
        for _ in range(STEPS):
            step_K = slope_K / (curvature_K + damping)
            promised = float(slope_K @ step_K - curvature_K @ step_K**2 / 2)
            new_D = at_D - axis_DK @ step_K
            new = value(new_D)
            if promised <= ROUNDING * max(1.0, abs(now)) or new <= now - promised / 10:
                break
            damping = max(4 * damping, 1e-3 * float(curvature_K[-1]))
        else:
            return at_D, False
        new_gradient_D, hessian_DD = derivatives(new_D)
        if promised <= ROUNDING * max(1.0, abs(now)) and np.abs(new_gradient_D).max() >= flat:
            return at_D, flat < 1e3 * FLAT
        at_D, now, gradient_D = new_D, new, new_gradient_D
        damping = damping / 16 if damping > 1e-9 * curvature_K[-1] else 0.0
    return at_D, False
