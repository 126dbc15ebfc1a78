"""Self-certainty: how far the policy's next-token distributions are from uniform."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from srlm.policies.base import Distributions, Policy
from srlm.rewards.rows import distinct
from srlm.types import Floats, Prompt, Samples


def divergence(logp_BTV: torch.Tensor) -> torch.Tensor:
    """KL(uniform || p) = -log V - (1/V) sum_v log p_v, nats, over the last axis.

    >>> divergence(torch.tensor([0.5, 0.5]).log())
    tensor(0.)
    """
    V = logp_BTV.shape[-1]
    return -logp_BTV.mean(-1) - math.log(V)


def self_certainty(policy: Policy, prompts: Sequence[Prompt], samples: Samples) -> Floats:
    """r_t(x, y) = (1/|y|) sum_t KL(uniform || pi_t(.|x, y_<t)), [R], nats a token, >= 0.

    Scores the distributions that the response leads through, not the tokens taken. One forward
    pass over the distinct responses. Infinite divergences (a token of probability 0) are missing.

    Source: Kang, Zhao, Song 2025 (self-certainty); Zhao et al. 2025 (Intuitor).

    Raises:
        TypeError: the policy does not show its distributions.
    """
    if not isinstance(policy, Distributions):
        raise TypeError(f"{type(policy).__name__} does not show its next-token distributions")
    row_S, place_R = distinct(samples)
    kl_S = policy.along(
        prompts, samples.prompt_R[row_S], [samples.tokens_R[r] for r in row_S], divergence
    )
    reward_S = np.array([float(kl_T.mean()) for kl_T in kl_S])
    return np.where(np.isfinite(reward_S), reward_S, np.nan)[place_R]
