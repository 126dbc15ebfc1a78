"""Whether gradients are taken once only: then backward passes need not be differentiable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

ONCE: ContextVar[bool] = ContextVar("ONCE", default=False)


@contextmanager
def differentiated_once() -> Iterator[None]:
    """Inside, no gradient of a gradient is asked for: an update, and not the Fisher information."""
    before = ONCE.set(True)
    try:
        yield
    finally:
        ONCE.reset(before)
