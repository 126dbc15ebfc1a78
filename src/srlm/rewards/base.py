"""What a self-reward is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from srlm.policy.base import Policy
from srlm.types import Floats, Prompt, Samples

Reward = Callable[[Policy, Sequence[Prompt], Samples], Floats]
"""r_t(x, y) of each row, [R]: (the policy that drew, prompts, its samples) -> rewards.
Not-a-number marks a reward that is missing; such rows are left out of the pairs and counted."""
