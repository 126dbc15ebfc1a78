"""A case of what can be wrong with what a user gives: how it is made, and what must come of it.

The tests run the tables of this package (``models``, ``prompts``, ``configs``), and
``docs/reliability.md`` counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """Something given to a command."""

    name: str
    build: Callable[[Path], Sequence[str]]
    """Makes it in an empty folder, which is there, and gives the command's arguments."""
    refused: str = ""
    """A part of the error, in lower case; empty: the command works."""
    flagged: str = ""
    """A part of what the command says where it works."""
    also: tuple[str, ...] = ()
    """More parts of the error: everything that is wrong is named at once."""
