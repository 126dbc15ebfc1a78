"""The slow twins of ``srlm.losses``: sums over draws spelled out, in Python floats."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

Draw = tuple[float, float, float]
"""log pi, log pi_t, reward of one draw; equal responses are separate draws."""


def square(draws: Sequence[Draw], beta: float) -> float:
    """Mean over all ordered pairs of draws, each with itself included, of (z - z')^2."""
    z = [beta * (now - then) - reward for now, then, reward in draws]
    return sum((a - b) ** 2 for a in z for b in z) / len(z) ** 2


def paper(one: Draw, other: Draw, beta: float) -> float:
    """The paper's square on one pair ([SR] eq. 4)."""
    ratio = (one[0] - one[1]) - (other[0] - other[1])
    return (beta * ratio - (one[2] - other[2])) ** 2


def weights(rewards: Sequence[float], beta: float) -> list[float]:
    """exp(r / beta) over the draws of a prompt, normalised."""
    raw = [exp(r / beta) for r in rewards]
    return [v / sum(raw) for v in raw]


def weighted(draws: Sequence[Draw], beta: float) -> float:
    """-sum_j v_j log pi(y_j) over the draws."""
    v = weights([d[2] for d in draws], beta)
    return -sum(v_j * d[0] for v_j, d in zip(v, draws, strict=True))


def margin(draws: Sequence[Draw]) -> float | None:
    """log pi / pi_t of the draw with the higher reward less that of the other; None at a tie."""
    if len(draws) < 2 or draws[0][2] == draws[1][2]:
        return None
    better, worse = sorted(draws, key=lambda d: -d[2])
    return (better[0] - better[1]) - (worse[0] - worse[1])


def dpo(draws: Sequence[Draw], beta: float) -> float:
    """-log of the logistic function of beta times the margin."""
    m = margin(draws)
    return -log(1 / (1 + exp(-beta * (0.0 if m is None else m))))


def ipo(draws: Sequence[Draw], beta: float) -> float:
    """The square of what the margin lacks of 1 / (2 beta)."""
    m = margin(draws)
    return 0.0 if m is None else (m - 1 / (2 * beta)) ** 2


def entropy(p: Sequence[float]) -> float:
    """-sum p log p, nats."""
    return -sum(x * log(x) for x in p if x > 0)
