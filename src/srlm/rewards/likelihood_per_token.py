"""Likelihood self-reward without its liking for short responses."""

from __future__ import annotations

from collections.abc import Sequence

from srlm.policies.base import Policy
from srlm.types import Floats, Prompt, Samples


def likelihood_per_token(policy: Policy, prompts: Sequence[Prompt], samples: Samples) -> Floats:
    """r_t(x, y) = log pi_t(y|x) / |y|, end-of-sequence counted in both. [R], nats a token, <= 0.

    No second pass. Its minimiser is no power of pi_t: among responses of one length the mode
    wins, across lengths it may not.
    """
    return samples.logp_R / samples.length_R
