"""How well the calibrated planner predicts rounds that it did not see, next to simpler guesses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from srlm.errors import UserError
from srlm.theory.bounds import check_count
from srlm.theory.calibrate import Calibration, check_rounds, fit_rounds, predict_rounds


@dataclass(frozen=True)
class Backtest:
    """How well the fit on the first rounds predicts the rounds that it did not see.

    runs, seen, predicted: runs scored, values of kappa shown (kappa_0 included), rounds scored
    error:       median over runs of the mean |log predicted - log observed kappa|
    mean_error:  the mean over runs of the same
    coverage:    share of unseen rounds inside the interval, and `level`, what it should be
    mean_error_of: by rival: the compact form, the last ratio of excesses repeated, kappa as it was
    """

    runs: int
    seen: int
    predicted: int
    error: float
    mean_error: float
    coverage: float
    level: float
    mean_error_of: dict[str, float]


def backtest(
    runs: Sequence[ArrayLike], seen: int = 4, level: float = 0.9, replicates: int = 200
) -> Backtest:
    """Fit on the first `seen` values of kappa of each run, score on the later ones.

    Runs with nothing after them are left out; with none left, UserError.  Cost: `predict_rounds`
    a run.

    >>> score = backtest([[3.0, 2.0, 1.5, 1.25, 1.125, 1.0625]])
    >>> score.predicted, round(score.mean_error, 6), score.coverage
    (2, 0.0, 1.0)
    """
    seen = check_count("seen", seen, least=3)
    paths = [check_rounds(run) for run in runs if np.size(run) > seen]
    if not paths:
        raise UserError(
            f"no run has more than {seen} values of kappa", "give longer runs, or a smaller seen"
        )
    names = ("relaxed", "compact", "last ratio", "as it was")
    errors: dict[str, list[float]] = {name: [] for name in names}
    inside: list[bool] = []
    for path in paths:
        shown, hidden = path[:seen], path[seen:]
        ahead = predict_rounds(shown, len(hidden), level=level, replicates=replicates)
        compact = fit_rounds(shown, "compact")
        ratio = min(1.0, (shown[-1] - 1.0) / max(shown[-2] - 1.0, 1e-12))
        rivals = {
            "relaxed": ahead.kappa_R,
            "compact": _roll(compact, float(shown[-1]), len(hidden)),
            "last ratio": 1.0 + (shown[-1] - 1.0) * ratio ** np.arange(1, len(hidden) + 1),
            "as it was": np.full(len(hidden), shown[-1]),
        }
        for name, guess in rivals.items():
            errors[name].append(float(np.mean(np.abs(np.log(guess) - np.log(hidden)))))
        inside.extend(((ahead.low_R <= hidden) & (hidden <= ahead.high_R)).tolist())
    own = errors.pop("relaxed")
    return Backtest(
        runs=len(paths),
        seen=seen,
        predicted=len(inside),
        error=float(np.median(own)),
        mean_error=float(np.mean(own)),
        coverage=float(np.mean(inside)),
        level=level,
        mean_error_of={name: float(np.mean(values)) for name, values in errors.items()},
    )


def _roll(calibration: Calibration, kappa: float, rounds: int) -> np.ndarray:
    path = []
    for _ in range(rounds):
        kappa = float(calibration.step(np.array(kappa))[0])
        path.append(kappa)
    return np.array(path)
