"""Draws that share prefixes: the distinct prefixes of a step, and the row that each takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from srlm.policies.linear import ROWS
from srlm.types import Ints


@dataclass(frozen=True, slots=True)
class Children:
    """The distinct prefixes that draws go on with, C of them, in order of their parents' rows."""

    parent_C: Ints
    """Row of the prefix before."""
    token_C: Ints
    """Token that each adds to it."""
    child_D: Ints
    """Which of them each draw has, nondecreasing."""
    draw_D: Ints
    """The draws, in that order."""

    def parts(self, most: int) -> Iterator[Children]:
        """As few parts of about one size as have ``most`` prefixes each at most."""
        C = len(self.parent_C)
        count = -(-C // most)
        if count == 1:
            yield self
            return
        for i in range(count):
            first, end = C * i // count, C * (i + 1) // count
            a, b = np.searchsorted(self.child_D, [first, end])
            yield Children(
                self.parent_C[first:end],
                self.token_C[first:end],
                self.child_D[a:b] - first,
                self.draw_D[a:b],
            )


def children(place_D: Ints, draw_D: Ints, V: int) -> Children:
    """The distinct pairs among row * V + token, one a draw. O(D log D).

    >>> found = children(np.array([7, 2, 7, 5]), np.array([10, 11, 12, 13]), V=5)
    >>> found.parent_C.tolist(), found.token_C.tolist()
    ([0, 1, 1], [2, 0, 2])
    >>> found.child_D.tolist(), found.draw_D.tolist()
    ([0, 1, 2, 2], [11, 13, 10, 12])
    """
    order_D = np.argsort(place_D, kind="stable")
    sorted_D = place_D[order_D]
    new_D = np.empty(len(sorted_D), dtype=bool)
    new_D[0] = True
    np.not_equal(sorted_D[1:], sorted_D[:-1], out=new_D[1:])
    parent_C, token_C = np.divmod(sorted_D[new_D], V)
    return Children(parent_C, token_C, np.cumsum(new_D) - 1, draw_D[order_D])


@dataclass(frozen=True, slots=True)
class Places:
    """Rows for children: row ``to[i]`` becomes a copy of row ``source[i]``, the others stay."""

    rows: int
    """Rows afterwards."""
    row_C: Ints
    """Each child's."""
    to: Ints
    source: Ints
    """No row is both copied and written, so that the order of the copies does not matter."""


def places(parent_C: Ints, rows: int) -> Places:
    """A row for each child among ``whole(C)``: the first of a parent stays in the parent's row.

    New rows that no child takes are copies as well, never unwritten memory.

    Args:
        parent_C: rows of the parents, nondecreasing.
        rows: that there are now.

    >>> found = places(np.array([0, 0, 2, 2, 3]), rows=4)
    >>> found.rows, found.row_C.tolist()
    (8, [0, 1, 2, 4, 3])
    >>> found.to.tolist(), found.source.tolist()
    ([1, 4, 5, 6, 7], [0, 2, 0, 0, 0])
    """
    then = whole(len(parent_C))
    stays_C = parent_C < then
    stays_C[1:] &= parent_C[1:] != parent_C[:-1]
    source = parent_C[~stays_C]
    if then <= rows and not len(source):
        return Places(then, parent_C, source, source)
    free_B = np.ones(then, dtype=bool)
    free_B[parent_C[stays_C]] = False
    free = np.flatnonzero(free_B)
    row_C = parent_C.copy()
    row_C[~stays_C] = free[: len(source)]
    unwritten = free[len(source) :]
    unwritten = unwritten[unwritten >= rows]
    return Places(
        then,
        row_C,
        np.concatenate([free[: len(source)], unwritten]),
        np.concatenate([source, np.full(len(unwritten), parent_C[0])]),
    )


def whole(rows: int) -> int:
    """At least so many rows, of the few batch sizes that come again and again (``linear.ROWS``)."""
    return -(-rows // ROWS) * ROWS if rows > ROWS else 1 << (rows - 1).bit_length()
