"""What every bound of the theory is handed back as, and the checks of its parameters.

A bound is *vacuous* when it says no more than was known without it: a probability at most 1, a
condition number at most its trivial ceiling. A vacuous bound is labelled, never shown as a number
that means something.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from srlm.errors import UserError

UP_TO_CONSTANT = "up to a universal constant c"


@dataclass(frozen=True)
class Bound:
    """An upper (or lower) bound with what it is worth.

    value:   the bound after the trivial ceiling (1 for a probability, 1/mu for kappa); no unit
    vacuous: True where the ceiling is all that is left
    form:    "iterated", "closed" or "one round": which statement produced it
    note:    what the number holds up to, and the reason where it is vacuous
    raw:     the bound before the ceiling: how far from meaning something
    """

    value: float
    vacuous: bool
    form: str
    note: str
    raw: float

    def __str__(self) -> str:
        if self.vacuous:
            return f"vacuous ({self.raw:.3g} before the ceiling {self.value:.3g})"
        return f"<= {self.value:.4g}"


def probability_bound(raw: float, form: str, note: str = UP_TO_CONSTANT) -> Bound:
    """A bound on a probability: capped at 1, and vacuous from 1 on.

    >>> probability_bound(0.25, "closed").vacuous, probability_bound(3.0, "closed").value
    (False, 1.0)
    """
    vacuous = not raw < 1.0
    return Bound(
        value=1.0 if vacuous else raw,
        vacuous=vacuous,
        form=form,
        note=f"{note}; vacuous: at or above 1" if vacuous else note,
        raw=raw,
    )


def kappa_bound(raw: float, mu: float, form: str, note: str = UP_TO_CONSTANT) -> Bound:
    """A bound on a condition number: capped at 1/mu, and vacuous from there on.

    >>> kappa_bound(1.5, 0.1, "iterated").vacuous, kappa_bound(40.0, 0.1, "iterated").value
    (False, 10.0)
    """
    ceiling = 1.0 / mu
    vacuous = not raw < ceiling and ceiling > 1.0
    return Bound(
        value=min(raw, ceiling),
        vacuous=vacuous,
        form=form,
        note=f"{note}; vacuous: no better than 1/mu" if vacuous else note,
        raw=raw,
    )


def check_positive(name: str, value: float) -> float:
    """Returns value, a finite number above 0, or raises UserError by name."""
    if not (math.isfinite(value) and value > 0.0):
        raise UserError(f"{name} is {value}", f"give {name} as a finite number above 0")
    return float(value)


def check_not_negative(name: str, value: float) -> float:
    """Returns value, a finite number not below 0, or raises UserError by name."""
    if not (math.isfinite(value) and value >= 0.0):
        raise UserError(f"{name} is {value}", f"give {name} as a finite number, 0 or more")
    return float(value)


def check_probability(name: str, value: float) -> float:
    """Returns value in (0, 1], or raises UserError by name."""
    if not 0.0 < value <= 1.0:
        raise UserError(f"{name} is {value}", f"give {name} in (0, 1]")
    return float(value)


def check_kappa(name: str, value: float) -> float:
    """Returns a condition number, finite and at least 1, or raises UserError by name."""
    if not (math.isfinite(value) and value >= 1.0):
        raise UserError(
            f"{name} is {value}",
            f"give {name} as a finite number of at least 1: it is the mean of 1/max_y pi(y|x)",
        )
    return float(value)


def check_count(name: str, value: int, least: int = 1) -> int:
    """Returns value, a whole number of at least `least`, or raises UserError by name."""
    if value < least or int(value) != value:
        raise UserError(f"{name} is {value}", f"give {name} as a whole number, {least} or more")
    return int(value)
