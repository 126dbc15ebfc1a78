"""An exact policy that may only be drawn from and searched, as a language model is."""

from __future__ import annotations

from typing import Any


class Drawn:
    """``policy`` without ``enumerate``."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    def __getattr__(self, name: str) -> Any:
        if name in ("enumerate", "policy"):
            raise AttributeError(name)
        return getattr(self.policy, name)
