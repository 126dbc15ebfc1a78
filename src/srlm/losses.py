"""Losses: pure functions on tensors, one value a group, an equation number each.

``square`` and ``weighted`` have the same minimiser, pi_t exp(r / beta); ``dpo`` and ``ipo`` see
only which of two responses has the higher reward.

Rows are the distinct responses of groups that lie together. ``weight_R`` sums to 1 over a group;
``group_R`` numbers the groups of the batch from 0. A batch may hold part of the step's groups:
the caller divides the sum by the step's number of groups, so that micro-batches add up to the
same step.
"""

from __future__ import annotations

import torch


def square(
    logp_R: torch.Tensor,
    reference_R: torch.Tensor,
    reward_R: torch.Tensor,
    weight_R: torch.Tensor,
    group_R: torch.Tensor,
    groups: int,
    beta: float,
) -> torch.Tensor:
    """Square loss on the pairs of a group, [G] ([SR] eq. 4; [SM] eq. 8; [REBEL]).

    With z = beta (log pi - log pi_t) - r, the mean over two independent rows of a group, sampled
    by weight, of (z - z')^2:

        sum_ij w_i w_j (z_i - z_j)^2 = 2 Var_w(z).

    Zero iff log pi - log pi_t - r / beta is constant within the group, that is
    pi proportional to pi_t exp(r / beta) on it. For a pair of distinct samples (weights 1/2) this
    is half of the paper's (z - z')^2: the other half of the four ordered pairs are a sample with
    itself.

    Args:
        logp_R: log pi(y|x) of the policy in training, [R], nats, with gradient.
        reference_R: log pi_t(y|x) of the policy that sampled, [R], nats.
        reward_R: r_t(x, y), [R].
        weight_R: share of the group's samples, [R].
        group_R: group of each row, [R], integers in [0, groups).
        groups: G.
        beta: strength of the reference; the minimiser is pi_t exp(r / beta).

    Returns:
        The loss of each group, [G]. Cost O(R).
    """
    z_R = beta * (logp_R - reference_R) - reward_R
    mean_G = z_R.new_zeros(groups).index_add(0, group_R, weight_R * z_R)
    deviation_R = z_R - mean_G[group_R]
    return 2.0 * z_R.new_zeros(groups).index_add(0, group_R, weight_R * deviation_R**2)


def weighted(
    logp_R: torch.Tensor,
    reference_R: torch.Tensor,
    reward_R: torch.Tensor,
    weight_R: torch.Tensor,
    group_R: torch.Tensor,
    groups: int,
    beta: float,
) -> torch.Tensor:
    """Weighted maximum likelihood, [G]: forward KL to the same minimiser.

    -sum_i v_i log pi(y_i|x) with v_i proportional to w_i exp(r_i / beta), summing to 1 over the
    group. As the samples grow it tends to KL(pi* || pi) + const with
    pi* proportional to pi_t exp(r / beta); with r = log pi_t, pi_t^(1 + 1/beta) ([SR] eq. 4's
    minimiser). The least value over all pi supported on the group is the entropy of v
    (``weighted_floor``). Arguments as in ``square``; the reference enters only through the samples.
    """
    v_R = target_weights(reward_R, weight_R, group_R, groups, beta)
    return -logp_R.new_zeros(groups).index_add(0, group_R, v_R.to(logp_R.dtype) * logp_R)


def dpo(
    logp_R: torch.Tensor,
    reference_R: torch.Tensor,
    reward_R: torch.Tensor,
    weight_R: torch.Tensor,
    group_R: torch.Tensor,
    groups: int,
    beta: float,
) -> torch.Tensor:
    """Direct preference optimisation, [G]: logistic loss on a preferred and another response.

    With h = log pi - log pi_t, summed over the response's tokens, and y+ the row of the higher
    reward, -log sigmoid(beta (h(y+) - h(y-))) (Rafailov et al., arXiv 2305.18290, eq. 7). Only
    the sign of r(y+) - r(y-) counts. Where preferences are sampled with probability
    sigmoid(r - r') (Bradley-Terry) the population's minimiser is pi_t exp(r / beta); where they
    are certain it lies at infinity. A group whose rewards are equal, or of one row, says nothing
    and costs log 2. Arguments as in ``square``.

    Raises:
        ValueError: a group has more than two rows.
    """
    margin_G, _ = _preference(logp_R - reference_R, reward_R, group_R, groups)
    return torch.nn.functional.softplus(-beta * margin_G)


def ipo(
    logp_R: torch.Tensor,
    reference_R: torch.Tensor,
    reward_R: torch.Tensor,
    weight_R: torch.Tensor,
    group_R: torch.Tensor,
    groups: int,
    beta: float,
) -> torch.Tensor:
    """Identity preference optimisation, [G]: a fixed margin between two responses.

    (h(y+) - h(y-) - 1 / (2 beta))^2 with h as in ``dpo``, summed over tokens, not averaged
    (Azar et al., arXiv 2310.12036, eq. 17, tau = beta). Certain preferences have a finite
    minimiser: log-ratio 1 / (2 beta) above pi_t's. A group whose rewards are equal, or of one
    row, costs nothing. Arguments and errors as in ``dpo``.
    """
    margin_G, prefers_G = _preference(logp_R - reference_R, reward_R, group_R, groups)
    return (margin_G - prefers_G / (2 * beta)) ** 2


def chosen(
    logp_R: torch.Tensor,
    reference_R: torch.Tensor,
    reward_R: torch.Tensor,
    weight_R: torch.Tensor,
    group_R: torch.Tensor,
    groups: int,
    beta: float,
) -> torch.Tensor:
    """-log pi(y|x) of the group's best response, [G]; equals share by their weights.

    The likelihood term beside a preference loss (Pang et al., arXiv 2404.19733, eq. 1), which
    keeps the preferred response likely; summed over tokens, where they divide by the length.
    ``weighted`` in the limit beta -> 0. Arguments as in ``square``.
    """
    v_R = best_weights(reward_R, weight_R, group_R, groups)
    return -logp_R.new_zeros(groups).index_add(0, group_R, v_R.to(logp_R.dtype) * logp_R)


def best_weights(
    reward_R: torch.Tensor, weight_R: torch.Tensor, group_R: torch.Tensor, groups: int
) -> torch.Tensor:
    """``target_weights`` at beta -> 0, [R]: the best rows of each group, equals by weight.

    >>> r = torch.tensor([0.0, -1.0, 0.0]); w = torch.tensor([0.75, 0.15, 0.1])
    >>> best_weights(r, w, torch.tensor([0, 0, 1]), 2)
    tensor([1., 0., 1.])
    """
    best_G, _ = _ends(reward_R, group_R, groups)
    v_R = torch.where(reward_R == best_G[group_R], weight_R, 0.0)
    return v_R / v_R.new_zeros(groups).index_add(0, group_R, v_R)[group_R]


def _preference(
    h_R: torch.Tensor, reward_R: torch.Tensor, group_R: torch.Tensor, groups: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """h(y+) - h(y-) of each group, and 1 where there is a preference, 0 where there is none."""
    if len(group_R) and int(torch.bincount(group_R).max()) > 2:
        raise ValueError("a preference is between two responses, and a group has more")
    best_G, worst_G = _ends(reward_R, group_R, groups)
    is_best_R, is_worst_R = reward_R == best_G[group_R], reward_R == worst_G[group_R]
    sign_R = is_best_R.to(h_R.dtype) - is_worst_R.to(h_R.dtype)
    return h_R.new_zeros(groups).index_add(0, group_R, sign_R * h_R), (best_G > worst_G).to(
        h_R.dtype
    )


def _ends(
    reward_R: torch.Tensor, group_R: torch.Tensor, groups: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Best and worst reward of each group, [G] and [G]."""
    least_G = reward_R.new_full((groups,), -torch.inf)
    best_G = least_G.scatter_reduce(0, group_R, reward_R, "amax")
    return best_G, (-least_G).scatter_reduce(0, group_R, reward_R, "amin")


def target_weights(
    reward_R: torch.Tensor,
    weight_R: torch.Tensor,
    group_R: torch.Tensor,
    groups: int,
    beta: float,
) -> torch.Tensor:
    """v_i = w_i exp(r_i / beta) / sum over the group, [R]. Safe for rewards of any size.

    >>> r = torch.tensor([0.0, -1000.0]); w = torch.tensor([0.5, 0.5])
    >>> target_weights(r, w, torch.tensor([0, 0]), 1, 1.0)
    tensor([1., 0.])
    """
    score_R = reward_R / beta + weight_R.log()
    most_G = score_R.new_full((groups,), -torch.inf)
    most_G = most_G.scatter_reduce(0, group_R, score_R, "amax")
    v_R = (score_R - most_G[group_R]).exp()
    return v_R / v_R.new_zeros(groups).index_add(0, group_R, v_R)[group_R]


def zero_floor(v_R: torch.Tensor, group_R: torch.Tensor, groups: int) -> torch.Tensor:
    """Least value of ``square``, ``dpo`` (not attained) and ``ipo`` on any group: 0, [G]."""
    return v_R.new_zeros(groups)


def weighted_floor(v_R: torch.Tensor, group_R: torch.Tensor, groups: int) -> torch.Tensor:
    """Least value of ``weighted``: the entropy of the target weights, [G], nats."""
    return v_R.new_zeros(groups).index_add(0, group_R, -torch.xlogy(v_R, v_R))
