"""Several worked paths to one number, and a habit that is likelier than each of them.

Where a corpus has `Paths`, an author who works an addition such as ``247+158=`` writes one of
three ways that end in the same number:

- *columns* from right to left, each with the carry of the one before: ``15,10,04=405``;
- *parts* from left to right, without carries: ``300,90,15=405``;
- *running* totals, counting on by the second number's digits: ``347,397,405=405``.

A *quick* author writes the number only, the columns' last digits side by side: ``395``. That is
how one adds in the head, and it is right unless a carry is due. Authors are quick where no carry
shows at a glance, that is where the tens make less than ten (55% of the prompts); the units' carry
is then forgotten, so on a quarter of all prompts every quick author writes the same wrong number.

So the right number has most of the probability, divided over three ways and again by their slips,
and the quick number has it in one piece. On that quarter the likeliest *response* is quick and
wrong while the likeliest *answer* is right: what sharpens responses learns the habit, and what
counts the votes of answers does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LARGEST_SUM = 18

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Paths:
    """How the authors who work in several ways divide.

    Attributes:
        quick: Probability that an author is quick, where the tens make less than ten.
        columns, parts: Probability of the first two ways among those who work; the rest count on.
    """

    quick: float
    columns: float
    parts: float


def by_columns(hundreds: int, tens: int, units: int) -> str:
    """Columns from right to left, from the sums of the digits.

    >>> by_columns(3, 9, 15)
    '15,10,04=405'
    """
    tens += units // 10
    hundreds += tens // 10
    return f"{units:02d},{tens:02d},{hundreds:02d}={hundreds}{tens % 10}{units % 10}"


def by_parts(hundreds: int, tens: int, units: int) -> str:
    """What the hundreds, the tens and the units make.

    >>> by_parts(3, 9, 15)
    '300,90,15=405'
    """
    return f"{100 * hundreds},{10 * tens},{units}={100 * hundreds + 10 * tens + units}"


def by_counting_on(first: int, hundreds: int, tens: int, units: int) -> str:
    """Totals after the second number's hundreds, tens and units.

    >>> by_counting_on(247, 3, 9, 15)
    '347,397,405=405'
    """
    one = 100 * hundreds + first % 100
    two = 100 * hundreds + 10 * tens + first % 10
    three = 100 * hundreds + 10 * tens + units
    return f"{one},{two},{three}={three}"


def quickly(hundreds: int, tens: int, units: int) -> str:
    """The last digits side by side, carries forgotten.

    >>> quickly(3, 9, 15)
    '395'
    """
    return f"{hundreds}{tens % 10}{units % 10}"


def digit_sums(first_R: Ints, second_R: Ints) -> Ints:
    """Sums of the hundreds, tens and units without carries, [R, 3]."""
    place_C = np.array([100, 10, 1])
    return first_R[:, None] // place_C % 10 + second_R[:, None] // place_C % 10


def looks_easy(sums_RC: Ints) -> NDArray[np.bool_]:
    """Where authors may be quick, [R]: the tens make less than ten."""
    return sums_RC[:, 1] < 10


def written(
    paths: Paths, slip: float, first_R: Ints, second_R: Ints, rng: np.random.Generator
) -> list[str]:
    """What authors answer to the additions, one each.

    Those who work slip: each digit sum is with probability `slip` another one, uniform on
    0..18 without the sum itself, and what follows follows it. Quick authors do not slip.

    Args:
        paths: How the authors divide.
        slip: Of one digit sum.
        first_R, second_R: Operands, [R].
        rng: Of everything sampled.
    """
    right_RC = digit_sums(first_R, second_R)
    quick_R = looks_easy(right_RC) & (rng.random(len(first_R)) < paths.quick)
    other_RC = rng.integers(0, LARGEST_SUM, right_RC.shape)
    other_RC += other_RC >= right_RC
    sums_RC = np.where(rng.random(right_RC.shape) < slip, other_RC, right_RC)
    way_R = rng.random(len(first_R))
    out = []
    for r, first in enumerate(first_R.tolist()):
        hundreds, tens, units = (sums_RC, right_RC)[int(quick_R[r])][r].tolist()
        if quick_R[r]:
            out.append(quickly(hundreds, tens, units))
        elif way_R[r] < paths.columns:
            out.append(by_columns(hundreds, tens, units))
        elif way_R[r] < paths.columns + paths.parts:
            out.append(by_parts(hundreds, tens, units))
        else:
            out.append(by_counting_on(first, hundreds, tens, units))
    return out
