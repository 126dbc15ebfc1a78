"""What sampling and search need of a language model: its network, its tokens, its memory budget."""

from __future__ import annotations

from typing import Any, Protocol

from srlm.policies.devices import Budget
from srlm.policies.network import Network
from srlm.types import Prompt


class Parts(Protocol):
    """Satisfied by ``CausalLM``."""

    network: Network
    budget: Budget
    tokenizer: Any
    ends: frozenset[int]
    """Tokens that end a response."""

    def encode(self, prompt: Prompt) -> list[int]:
        """The prompt's tokens."""
        ...
