"""Losses: pure functions of log pi and of what is compared, one value a group, an equation each.

``square`` and ``weighted`` have the same minimiser, pi_t exp(r / beta); ``dpo`` and ``ipo`` see
only which of two responses has the higher reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from srlm.types import Ints, Pairs


@dataclass(frozen=True, slots=True)
class Groups:
    """What is compared: the rows of some groups, which lie together.

    They may be part of a step's groups: the caller divides the sum of their losses by the step's
    number of groups, so that micro-batches add up to the same step.
    """

    reference_R: torch.Tensor
    """log pi_t(y|x) of the policy that sampled, [R], nats."""
    reward_R: torch.Tensor
    """r_t(x, y), [R]."""
    weight_R: torch.Tensor
    """Share of the group's samples, [R]; sums to 1 over a group."""
    group_R: torch.Tensor
    """Group of each row, [R], integers in [0, groups)."""
    groups: int
    """G."""
    beta: float
    """Strength of the reference; the minimiser is pi_t exp(r / beta)."""
    scale_G: torch.Tensor | None = None
    """Weight of each group's loss, [G]; None: 1 each."""

    @classmethod
    def of(cls, pairs: Pairs, beta: float, rows_G: Sequence[Ints] | None = None) -> Groups:
        """All groups of some pairs, or those of these rows each, numbered from 0."""
        rows, group_R, scale_G = np.arange(len(pairs)), pairs.group_R, pairs.scale_G
        if rows_G is not None:
            rows = np.concatenate(rows_G)
            group_R = np.repeat(np.arange(len(rows_G)), [len(x) for x in rows_G])
            if scale_G is not None:
                scale_G = scale_G[[pairs.group_R[x[0]] for x in rows_G]]
        return cls(
            torch.from_numpy(pairs.reference_R[rows]),
            torch.from_numpy(pairs.reward_R[rows]),
            torch.from_numpy(pairs.weight_R[rows]),
            torch.from_numpy(group_R),
            pairs.groups if rows_G is None else len(rows_G),
            beta,
            None if scale_G is None else torch.from_numpy(scale_G),
        )

    def sum(self, x_R: torch.Tensor) -> torch.Tensor:
        """Sum over the rows of each group, [G]."""
        return x_R.new_zeros(self.groups).index_add(0, self.group_R, x_R)

    def scaled(self, loss_G: torch.Tensor) -> torch.Tensor:
        """Losses times the groups' weights, [G]."""
        return loss_G if self.scale_G is None else loss_G * self.scale_G.to(loss_G)

    def ends(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Best and worst reward of each group, [G] and [G]."""
        least_G = self.reward_R.new_full((self.groups,), -torch.inf)
        best_G = least_G.scatter_reduce(0, self.group_R, self.reward_R, "amax")
        return best_G, (-least_G).scatter_reduce(0, self.group_R, self.reward_R, "amin")


Loss = Callable[[torch.Tensor, Groups], torch.Tensor]
"""log pi(y|x) of the policy in training, [R], nats, with gradient, and what is compared -> the
loss of each group, [G]. Cost O(R)."""


def square(logp_R: torch.Tensor, g: Groups) -> torch.Tensor:
    """Square loss on the pairs of a group, [G] ([SR] eq. 4; [SM] eq. 8; [REBEL]).

    With z = beta (log pi - log pi_t) - r, the mean over two independent rows of a group, sampled
    by weight, of (z - z')^2:

        sum_ij w_i w_j (z_i - z_j)^2 = 2 Var_w(z).

    Zero iff log pi - log pi_t - r / beta is constant within the group, that is
    pi proportional to pi_t exp(r / beta) on it. For a pair of distinct samples (weights 1/2) this
    is half of the paper's (z - z')^2: the other half of the four ordered pairs are a sample with
    itself.
    """
    z_R = g.beta * (logp_R - g.reference_R) - g.reward_R
    deviation_R = z_R - g.sum(g.weight_R * z_R)[g.group_R]
    return 2.0 * g.sum(g.weight_R * deviation_R**2)


def weighted(logp_R: torch.Tensor, g: Groups) -> torch.Tensor:
    """Weighted maximum likelihood, [G]: forward KL to the same minimiser.

    -sum_i v_i log pi(y_i|x) with v_i proportional to w_i exp(r_i / beta), summing to 1 over the
    group. As the samples grow it tends to KL(pi* || pi) + const with
    pi* proportional to pi_t exp(r / beta); with r = log pi_t, pi_t^(1 + 1/beta) ([SR] eq. 4's
    minimiser). The least value over all pi supported on the group is the entropy of v
    (``weighted_floor``). The reference enters only through the samples.
    """
    return -g.sum(target_weights(g).to(logp_R.dtype) * logp_R)


def dpo(logp_R: torch.Tensor, g: Groups) -> torch.Tensor:
    """Direct preference optimisation, [G]: logistic loss on a preferred and another response.

    With h = log pi - log pi_t, summed over the response's tokens, and y+ the row of the higher
    reward, -log sigmoid(beta (h(y+) - h(y-))) (Rafailov et al., arXiv 2305.18290, eq. 7). Only
    the sign of r(y+) - r(y-) counts. Where preferences are sampled with probability
    sigmoid(r - r') (Bradley-Terry) the population's minimiser is pi_t exp(r / beta); where they
    are certain it lies at infinity. A group whose rewards are equal, or of one row, says nothing
    and costs log 2.

    Raises:
        ValueError: a group has more than two rows.
    """
    margin_G, _ = _preference(logp_R, g)
    return torch.nn.functional.softplus(-g.beta * margin_G)


def ipo(logp_R: torch.Tensor, g: Groups) -> torch.Tensor:
    """Identity preference optimisation, [G]: a fixed margin between two responses.

    (h(y+) - h(y-) - 1 / (2 beta))^2 with h as in ``dpo``, summed over tokens, not averaged
    (Azar et al., arXiv 2310.12036, eq. 17, tau = beta). Certain preferences have a finite
    minimiser: log-ratio 1 / (2 beta) above pi_t's. A group whose rewards are equal, or of one
    row, costs nothing. Raises as ``dpo``.
    """
    margin_G, prefers_G = _preference(logp_R, g)
    return (margin_G - prefers_G / (2 * g.beta)) ** 2


def chosen(logp_R: torch.Tensor, g: Groups) -> torch.Tensor:
    """-log pi(y|x) of the group's best response, [G]; equals share by their weights.

    The likelihood term beside a preference loss (Pang et al., arXiv 2404.19733, eq. 1), which
    keeps the preferred response likely; summed over tokens, where they divide by the length.
    ``weighted`` in the limit beta -> 0.
    """
    best_G, _ = g.ends()
    v_R = torch.where(g.reward_R == best_G[g.group_R], g.weight_R, 0.0)
    v_R = v_R / g.sum(v_R)[g.group_R]
    return -g.sum(v_R.to(logp_R.dtype) * logp_R)


def _preference(logp_R: torch.Tensor, g: Groups) -> tuple[torch.Tensor, torch.Tensor]:
    """h(y+) - h(y-) of each group, and 1 where there is a preference, 0 where there is none."""
    if len(g.group_R) and int(torch.bincount(g.group_R).max()) > 2:
        raise ValueError("a preference is between two responses, and a group has more")
    h_R = logp_R - g.reference_R
    best_G, worst_G = g.ends()
    is_best_R, is_worst_R = g.reward_R == best_G[g.group_R], g.reward_R == worst_G[g.group_R]
    sign_R = is_best_R.to(h_R.dtype) - is_worst_R.to(h_R.dtype)
    return g.sum(sign_R * h_R), (best_G > worst_G).to(h_R.dtype)


def target_weights(g: Groups) -> torch.Tensor:
    """v_i = w_i exp(r_i / beta) / sum over the group, [R]. Safe for rewards of any size.

    >>> r = torch.tensor([0.0, -1000.0]); w = torch.tensor([0.5, 0.5])
    >>> target_weights(Groups(r, r, w, torch.tensor([0, 0]), 1, 1.0))
    tensor([1., 0.])
    """
    score_R = g.reward_R / g.beta + g.weight_R.log()
    most_G = score_R.new_full((g.groups,), -torch.inf)
    most_G = most_G.scatter_reduce(0, g.group_R, score_R, "amax")
    v_R = (score_R - most_G[g.group_R]).exp()
    return v_R / g.sum(v_R)[g.group_R]


def zero_floor(g: Groups) -> torch.Tensor:
    """Least value of ``square``, ``dpo`` (not attained) and ``ipo`` on any group: 0, [G]."""
    return g.reward_R.new_zeros(g.groups)


def weighted_floor(g: Groups) -> torch.Tensor:
    """Least value of ``weighted``: the entropy of the target weights, [G], nats."""
    v_R = target_weights(g)
    return g.sum(-torch.xlogy(v_R, v_R))
