"""Likelihood self-reward: the policy's own log-probability of its response."""

from __future__ import annotations

from collections.abc import Sequence

from srlm.policies.base import Policy
from srlm.types import Floats, Prompt, Samples


def likelihood(policy: Policy, prompts: Sequence[Prompt], samples: Samples) -> Floats:
    """r_t(x, y) = log pi_t(y|x), summed over tokens, end-of-sequence included ([SR] section 2).

    No second pass: sampling gave it. [R], nats, at most 0.
    """
    return samples.logp_R
