"""Best-first search of one prompt, one prefix at a time, with a heap: the slow twin."""

from __future__ import annotations

import heapq

import numpy as np

from srlm.policies.base import PrefixTree
from srlm.types import Tokens


def naive_modes(tree: PrefixTree, prompt: int, outcomes: int = 1) -> tuple[list[Tokens], int]:
    """The ``outcomes`` likeliest outcomes, best first, and the prefixes opened for them.

    The head of the heap is opened if it is a prefix; if it is an outcome it is the next best.
    """
    nodes, logp_PV = tree.roots()
    heap: list[tuple[float, Tokens, int | None]] = []
    opened, found = 1, []

    def push(logp: float, prefix: Tokens, node: int, row: np.ndarray) -> None:
        for token, step in enumerate(row):
            if step > -np.inf:
                child = (*prefix, token)
                over = token in tree.ends or len(child) == tree.max_tokens
                heapq.heappush(heap, (-(logp + float(step)), child, None if over else node))

    push(0.0, (), int(nodes[prompt]), logp_PV[prompt].double().numpy())
    while heap and len(found) < outcomes:
        minus, prefix, parent = heapq.heappop(heap)
        if parent is None:
            found.append(prefix)
            continue
        child, row_BV = tree.extend(np.array([parent]), np.array([prefix[-1]]))
        opened += 1
        push(-minus, prefix, int(child[0]), row_BV[0].double().numpy())
    return found, opened
