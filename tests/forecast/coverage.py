"""Coverage of the intervals of destination and kappa_answer over simulated problems.

    python tests/forecast/coverage.py 0 400             # first seed, problems
    python tests/forecast/coverage.py 0 100 linked      # hard prompts run into the length limit

A problem: 20 to 100 prompts, 8 to 64 samples of each. Shares are Dirichlet with 2 to 40 answers
and total weight .5 to 12, the same for all prompts or (every third problem) another for each; the
right answer weighs as the others, or up to six times as much; part of the problems have unreadable
samples. The truth for these prompts comes from their own shares, that for prompts like these from
20,000 others. Seeds 0 to 399 chose the construction, seeds from 10,000 on confirm it. ``linked``:
four answers; on half of the prompts the right one is seldom the mode and four fifths of the
responses are unreadable, on the others it mostly is, and a twentieth are.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from srlm.forecast import answers
from srlm.types import Floats

MANY = 20_000


@dataclass(frozen=True)
class Setting:
    answers: int
    total: float
    boost: float
    spread: float
    silent: float
    linked: bool = False


def setting(rng: np.random.Generator, linked: bool = False) -> Setting:
    return Setting(
        answers=int(rng.choice([2, 3, 5, 10, 20, 40])),
        total=float(np.exp(rng.uniform(np.log(0.5), np.log(12)))),
        boost=float(rng.choice([1.0, 1.0, 2.0, 6.0])),
        spread=float(rng.choice([0.0, 0.0, 1.0])),
        silent=float(rng.choice([0.0, 0.0, 0.1, 0.4])),
        linked=linked,
    )


def shares(s: Setting, prompts: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Shares of the answers, the right one first, [P, A]; unreadable share, [P]."""
    weight_A = np.full(s.answers, 1 / s.answers)
    weight_A[0] *= s.boost
    weight_A /= weight_A.sum()
    total_P = s.total * np.exp(s.spread * rng.normal(size=prompts))
    gamma_PA = np.maximum(rng.gamma(total_P[:, None] * weight_A), 1e-300)
    silent_P = np.zeros(prompts)
    if s.linked:
        hard_P = rng.random(prompts) < 0.5
        weight_PA = np.where(hard_P[:, None], [1.0, 6.0, 2.0, 2.0], [6.0, 1.0, 1.0, 1.0])
        gamma_PA = rng.gamma(weight_PA)
        silent_P = np.where(hard_P, rng.beta(16, 4, prompts), rng.beta(1, 19, prompts))
    elif s.silent:
        silent_P = rng.beta(4 * s.silent, 4 * (1 - s.silent), size=prompts)
    return gamma_PA / gamma_PA.sum(1, keepdims=True) * (1 - silent_P)[:, None], silent_P


def counted(v_PA: Floats, silent_P: Floats, N: int, rng: np.random.Generator) -> list:  # type: ignore[type-arg]
    made = []
    for v_A, silent in zip(v_PA, silent_P, strict=True):
        cells = np.append(v_A, silent)
        count = rng.multinomial(N, cells / cells.sum())
        given = np.flatnonzero(count[:-1])
        right = int(np.flatnonzero(given == 0)[0]) if 0 in given else -1
        made.append(answers.Counts(count[given], right, int(count[-1])))
    return made


def problem(
    seed: int, draws: int = 400, level: float = 0.9, linked: bool = False
) -> dict[str, tuple[int, float, float]]:
    """{interval: (truth under it -1, in it 0, over it 1; truth; width)}."""
    rng = np.random.default_rng(seed)
    s = setting(rng, linked)
    N = int(rng.choice([8, 16, 32, 64]))
    P = int(rng.choice([20, 50, 100]))
    v_PA, silent_P = shares(s, P, rng)
    many_PA, _ = shares(s, MANY, rng)
    post = answers.posterior(counted(v_PA, silent_P, N, rng), seed=seed, draws=draws)
    out = {}
    drawn = [post.shares(p) for p in range(P)]
    for name in ("destination", "kappa_answer"):
        value_BP = np.column_stack(
            [s.mode_right_B() if name == "destination" else 1 / s.top_B() for s in drawn]
        )
        for these, true_PA in ((True, v_PA), (False, many_PA)):
            if name == "destination":
                truth = float((true_PA.argmax(1) == 0).mean())
            else:
                truth = float((1 / true_PA.max(1)).mean())
            e = answers.estimate(
                value_BP, name, seed=seed, these=these, level=level, inverse=name == "kappa_answer"
            )
            assert e.low is not None and e.high is not None
            side = -1 if truth < e.low - 1e-12 else int(truth > e.high + 1e-12)
            out[f"{name}, {'these' if these else 'like these'}"] = (side, truth, e.high - e.low)
    return out


def coverage(first: int, count: int, linked: bool = False) -> dict[str, tuple[float, float, float]]:
    """{interval: (share that held, share with the truth below, above)}."""
    runs = [problem(seed, linked=linked) for seed in range(first, first + count)]
    return {
        name: tuple(float(np.mean([r[name][0] == side for r in runs])) for side in (0, -1, 1))  # type: ignore[misc]
        for name in runs[0]
    }


if __name__ == "__main__":
    for name, (held, below, above) in coverage(
        int(sys.argv[1]), int(sys.argv[2]), "linked" in sys.argv
    ).items():
        print(f"{name:28} held {held:.3f}, truth below {below:.3f}, above {above:.3f}")
