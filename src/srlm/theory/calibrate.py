"""The calibrated planner: the recursion fitted to observed rounds, the rest predicted.

The compact recursion of [SR] App. C, kappa' = a + b sqrt(kappa) + c log kappa, is an upper bound
with a contraction below 1/2 at its fixed point; a policy that sharpens slowly stays close to where
it was, which no (a, b, c) >= 0 says. The default form keeps its shape and adds that:

    kappa' - 1 = floor + keep (kappa - 1) + c log kappa,   floor, keep, c >= 0.

kappa = 1 is its fixed point unless there is a floor. Three transitions cannot carry three free
numbers, so the floor, which only late rounds show, is shrunk towards 0: a pseudo-observation of 0
with a tenth of its column's weight. Errors count relative to the excess kappa - 1, which spans
decades over a run. The paper's form is `form="compact"`; `backtest` scores both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from srlm.errors import UserError
from srlm.theory.bounds import check_count, check_kappa, check_probability

Form = Literal["relaxed", "compact"]
Step = Callable[[np.ndarray], np.ndarray]

BASES: dict[Form, tuple[tuple[str, Step], ...]] = {
    "relaxed": (("floor", np.ones_like), ("keep", lambda k: k - 1.0), ("log", np.log)),
    "compact": (("a", np.ones_like), ("b", np.sqrt), ("c", np.log)),
}
OFFSET: dict[Form, float] = {"relaxed": 1.0, "compact": 0.0}
FLOOR_SHRINKAGE = 0.1
LEAST_EXCESS = 1e-3  # kappa - 1 below this counts as this in relative errors
PACE_ERROR = 0.08  # relative error of a round's excess that a model of this shape is never below
MOST_ROUNDS = 1000


@dataclass(frozen=True)
class Calibration:
    """A recursion fitted to observed rounds.

    form:         "relaxed" or "compact"
    coefficients: by name, no unit: floor, keep, log; or a, b, c
    transitions:  rounds seen
    residual:     root mean square error of kappa_{t+1}, relative to its excess over 1
    """

    form: Form
    coefficients: dict[str, float]
    transitions: int
    residual: float

    def step(self, kappa: np.ndarray) -> np.ndarray:
        """The fitted kappa_{t+1} of kappa_t, never below 1; any shape."""
        values = np.array(list(self.coefficients.values()))
        return _advance(self.form, values[:, None], np.atleast_1d(kappa).astype(float))

    @property
    def limit(self) -> float:
        """Where the fitted recursion settles from above; inf if it does not."""
        low, high = 1.0, 1e9
        if self.step(np.array(high))[0] >= high:
            return math.inf
        for _ in range(200):  # bisection for the largest kappa with step(kappa) >= kappa
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self.step(np.array(middle))[0] > middle else (low, middle)
        return low


@dataclass(frozen=True)
class RoundForecast:
    """The rounds to come.

    round_R:     numbers of the rounds predicted, (R,)
    kappa_R:     predicted kappa, (R,);  low_R, high_R: the interval's ends, (R,)
    level:       of the intervals, each round apart
    target:      the kappa asked for, or None
    reached:     the round that reaches the target, None if none of the next 1,000 does
    reached_low, reached_high: its interval (None: not within 1,000 rounds)
    calibration: the fit behind it
    note:        what it assumes, and what would spoil it
    """

    round_R: np.ndarray
    kappa_R: np.ndarray
    low_R: np.ndarray
    high_R: np.ndarray
    level: float
    target: float | None
    reached: int | None
    reached_low: int | None
    reached_high: int | None
    calibration: Calibration
    note: str


def _advance(form: Form, coefficients_FR: np.ndarray, kappa_R: np.ndarray) -> np.ndarray:
    total = np.full(kappa_R.shape, OFFSET[form])
    for coefficient, (_, basis) in zip(coefficients_FR, BASES[form], strict=True):
        total = total + coefficient * basis(kappa_R)
    return np.maximum(total, 1.0)


def _solve(form: Form, now: np.ndarray, after: np.ndarray) -> np.ndarray:
    weight = 1.0 / np.maximum(after - 1.0, LEAST_EXCESS)
    design = np.stack([basis(now) for _, basis in BASES[form]], axis=1) * weight[:, None]
    target = (after - OFFSET[form]) * weight
    if form == "relaxed":
        shrink = np.zeros(len(BASES[form]))
        shrink[0] = math.sqrt(FLOOR_SHRINKAGE) * np.linalg.norm(design[:, 0])
        design, target = np.vstack([design, shrink]), np.append(target, 0.0)
    return np.asarray(nnls(design, target)[0])


def check_rounds(kappas: ArrayLike) -> np.ndarray:
    """Observed kappa_0..kappa_t as an array, t >= 2, each at least 1; or UserError by name."""
    path = np.asarray(kappas, dtype=float)
    if path.ndim != 1 or len(path) < 3:
        raise UserError(
            f"{path.size} values of kappa: two transitions at least are needed",
            "give kappa_0, kappa_1, kappa_2 and on",
        )
    for number, value in enumerate(path):
        check_kappa(f"kappa_{number}", float(value))
    return path


def fit_rounds(kappas: ArrayLike, form: Form = "relaxed") -> Calibration:
    """Non-negative least squares of the recursion on observed rounds kappa_0..kappa_t.

    Rows are divided by the excess kappa_{t+1} - 1; the relaxed form's floor is shrunk.
    Source: [SR] App. C for the compact form; relaxation and shrinkage are our own.
    Raises UserError by name.  Cost O(t).

    >>> fit = fit_rounds([3.0, 2.0, 1.5, 1.25])          # the excess halves
    >>> {name: round(value, 3) for name, value in fit.coefficients.items()}
    {'floor': 0.0, 'keep': 0.5, 'log': 0.0}
    """
    path = check_rounds(kappas)
    values = _solve(form, path[:-1], path[1:])
    fitted = _advance(form, values[:, None], path[:-1])
    relative = (fitted - path[1:]) / np.maximum(path[1:] - 1.0, LEAST_EXCESS)
    names = [name for name, _ in BASES[form]]
    return Calibration(
        form=form,
        coefficients=dict(zip(names, values.tolist(), strict=True)),
        transitions=len(path) - 1,
        residual=float(np.sqrt(np.mean(relative**2))),
    )


def predict_rounds(
    kappas: ArrayLike,
    rounds: int,
    target: float | None = None,
    *,
    form: Form = "relaxed",
    level: float = 0.9,
    replicates: int = 400,
    seed: int = 0,
) -> RoundForecast:
    """The next rounds of a run from those seen, with parametric-bootstrap intervals.

    A replicate samples new observations kappa_1..kappa_t from the fit, with relative errors of the
    excess of size s, refits, and goes on with a pace that is off by a factor exp(s z/2), the same
    in every round to come: the error of the form itself, which no refit shows. What is observed of
    a round to come has an error of size s too. s is the residual with its degrees of freedom paid,
    and at least `PACE_ERROR`.

    Runs on finitely many pairs settle above 1, and the rounds seen need not show where. So in half
    of the replicates the excess stops at a share, sampled evenly, of the last excess or of the last
    fall, whichever is less: a floor much larger than a round's fall would have been seen. Own
    construction; `benchmarks/planner.py` has its coverage.

    kappas: kappa_0..kappa_t, t >= 2.  rounds: how many to predict, >= 1.  target: kappa >= 1.
    level in (0, 1).  Cost: replicates small NNLS.  Raises UserError by name.

    >>> ahead = predict_rounds([3.0, 2.0, 1.5, 1.25], 2, target=1.05)
    >>> ahead.round_R.tolist(), ahead.kappa_R.round(4).tolist(), ahead.reached
    ([4, 5], [1.125, 1.0625], 6)
    """
    path = check_rounds(kappas)
    rounds = check_count("rounds", rounds)
    replicates = check_count("replicates", replicates, least=20)
    if check_probability("level", level) == 1.0:
        raise UserError("level is 1", "give level below 1, as 0.9")
    goal = None if target is None else check_kappa("target", target)
    calibration = fit_rounds(path, form)
    values = np.array(list(calibration.coefficients.values()))
    free = max(1, calibration.transitions - int(np.sum(values > 0.0)))
    size = max(PACE_ERROR, calibration.residual * math.sqrt(calibration.transitions / free))
    rng = np.random.default_rng(seed)
    fitted_excess = _advance(form, values[:, None], path[:-1]) - 1.0
    draws = np.empty((len(values), replicates + 1))
    draws[:, 0] = values
    for replicate in range(1, replicates + 1):
        after = 1.0 + fitted_excess * np.exp(size * rng.standard_normal(len(fitted_excess)))
        now = np.concatenate([path[:1], after[:-1]])
        draws[:, replicate] = _solve(form, now, after)
    pace = np.exp(0.5 * size * np.append(0.0, rng.standard_normal(replicates)))
    unseen = min(path[-1] - 1.0, max(path[-2] - path[-1], 0.0))
    floor = unseen * np.append(0.0, np.maximum(0.0, rng.uniform(-1.0, 1.0, replicates)))
    length = rounds if goal is None else max(rounds, MOST_ROUNDS)
    kappa = np.full(replicates + 1, path[-1])
    reached = np.where(kappa <= (goal or 0.0), len(path) - 1, 0)
    ahead: list[np.ndarray] = []
    for number in range(len(path), len(path) + length):
        excess = np.maximum((_advance(form, draws, kappa) - 1.0) * pace, floor)
        kappa = np.minimum(1.0 + excess, 1e12)
        if len(ahead) < rounds:
            error = np.exp(size * np.append(0.0, rng.standard_normal(replicates)))
            ahead.append(1.0 + (kappa - 1.0) * error)
        if goal is not None:
            reached = np.where((reached == 0) & (kappa <= goal), number, reached)
            if np.all(reached > 0) and len(ahead) == rounds:
                break
    ahead_RB = np.array(ahead)
    tail = (1.0 - level) / 2.0
    arrival = np.sort(np.where(reached[1:] == 0, MOST_ROUNDS * 10, reached[1:]))

    def round_at(share: float) -> int | None:
        value = int(arrival[min(int(share * replicates), replicates - 1)])
        return value if goal is not None and value < MOST_ROUNDS * 10 else None

    return RoundForecast(
        round_R=np.arange(len(path), len(path) + rounds),
        kappa_R=ahead_RB[:, 0],
        low_R=np.minimum(np.quantile(ahead_RB[:, 1:], tail, axis=1), ahead_RB[:, 0]),
        high_R=np.maximum(np.quantile(ahead_RB[:, 1:], 1.0 - tail, axis=1), ahead_RB[:, 0]),
        level=level,
        target=goal,
        reached=int(reached[0]) if goal is not None and reached[0] > 0 else None,
        reached_low=round_at(tail),
        reached_high=round_at(1.0 - tail),
        calibration=calibration,
        note=(
            f"fitted on {calibration.transitions} transitions; holds while the rounds to come are "
            "made as those seen were (pairs a round, beta, learning rate)"
        ),
    )
