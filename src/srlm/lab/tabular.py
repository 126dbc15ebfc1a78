"""Rounds of tabular self-rewarding, many tables at once, without a linear solver.

With one indicator feature per prompt and response, the pairs of a round are the edges of a graph
on responses, and min-norm least squares of theta-differences on (r - r')/beta is

    delta_y = (r_y - mean of r over y's component) / beta,

since r is itself a potential: the responses that pairs connect are sharpened together, the others
stay. Cost: one search for connected components, O(R X M + n).
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import log_softmax

from srlm.types import Floats, Ints


def uniforms(seed: int, part: Ints, t: int, count: int) -> Floats:
    """Numbers in [0, 1) of round t for the replicates numbered ``part``, [R, count].

    A replicate's numbers depend on (seed, its number, t) alone, not on those beside it.
    """
    return np.stack([np.random.default_rng([seed, r, t]).random(count) for r in part.tolist()])


def draw(
    logp_RXM: Floats, weight_X: Floats, pairs: int, *, seed: int, t: int, part: Ints
) -> tuple[Ints, Ints, Ints]:
    """x and two responses of each pair, each [R, n]: x ~ weight, y, y' ~ pi(.|x).

    ``part`` are the numbers of the R replicates.
    """
    R, X, M = logp_RXM.shape
    u_R3n = uniforms(seed, part, t, 3 * pairs).reshape(R, 3, pairs)
    edge_X = np.cumsum(weight_X)
    x_Rn = np.minimum(np.searchsorted(edge_X, u_R3n[:, 0] * edge_X[-1], side="right"), X - 1)
    sums_RXM = np.cumsum(np.exp(logp_RXM), axis=2)
    # One increasing list of all replicates' and prompts' running sums: row + share of its total.
    share_RXM = sums_RXM / sums_RXM[:, :, -1:]
    flat = (np.arange(R * X)[:, None] + share_RXM.reshape(R * X, M)).ravel()
    row_Rn = np.arange(R)[:, None] * X + x_Rn
    y = [
        np.minimum(
            np.searchsorted(flat, (row_Rn + u).ravel(), side="right").reshape(R, pairs)
            - row_Rn * M,
            M - 1,
        )
        for u in (u_R3n[:, 1], u_R3n[:, 2])
    ]
    return x_Rn, y[0], y[1]


def update(logp_RXM: Floats, x_Rn: Ints, y_Rn: Ints, other_Rn: Ints, beta: float) -> Floats:
    """log pi_{t+1}, [R, X, M]: the square loss's minimiser nearest to pi_t's parameters.

    >>> start = np.log([[[0.5, 0.25, 0.25]]])
    >>> x, y, z = np.zeros((1, 1), int), np.array([[0]]), np.array([[1]])
    >>> now = update(start, x, y, z, beta=1.0)[0, 0]
    >>> round(float((now[0] - now[1]) / np.log(2)), 6)
    2.0
    """
    R, X, M = logp_RXM.shape
    base_Rn = (np.arange(R)[:, None] * X + x_Rn) * M
    left, right = (base_Rn + y_Rn).ravel(), (base_Rn + other_Rn).ravel()
    apart = left != right
    used, index = np.unique(np.r_[left[apart], right[apart]], return_inverse=True)
    half = int(apart.sum())
    graph = coo_array(
        (np.ones(half, dtype=np.int8), (index[:half], index[half:])), shape=(len(used), len(used))
    )
    count, label = connected_components(graph, directed=False)
    reward = logp_RXM.reshape(-1)[used]
    mean = np.bincount(label, reward, count) / np.maximum(np.bincount(label, minlength=count), 1)
    theta = logp_RXM.copy().reshape(-1)
    theta[used] += (reward - mean[label]) / beta
    return np.asarray(log_softmax(theta.reshape(R, X, M), axis=2))
