"""Checks of the theory's parameters: each returns its value or names what is wrong."""

from __future__ import annotations

import math

from srlm.errors import UserError


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
