"""What a run folder says, as data: verdict, changes, warnings, best round, examples.

``summarise`` reads and judges; ``charts``, ``page`` and ``terminal`` only show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srlm.forecast.pace import FORECAST, Score, score
from srlm.report.best import Best, best_round
from srlm.report.changes import Change, change
from srlm.report.examples import Group, choose
from srlm.report.gap import Gap, gap
from srlm.report.verdict import Verdict, judge
from srlm.report.warnings import Notice, warnings
from srlm.run_folder import Run, read_run
from srlm.types import Estimate, Round

KEY_FIGURES = (
    "sampling_accuracy",
    "greedy_accuracy",
    "mode_accuracy",
    "confidence",
    "fidelity",
    "kappa",
    "log10_kappa",
    "failure_fraction",
    "vote_accuracy",
    "vote_share",
    "kappa_vote",
    "answer_agreement",
    "base_answer_share",
    "answer_spread",
    "vote_flips",
    "readable",
    "entropy",
    "length",
    "kl_to_base",
    "distinct_responses",
    "greedy_is_mode",
    "margin",
    "least_confidence",
    "truncated",
)
NEED_ANSWERS = (
    "sampling_accuracy",
    "greedy_accuracy",
    "mode_accuracy",
    "vote_accuracy",
    "headroom_captured",
)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The forecast of later rounds that was made after round ``made``, and how it did since."""

    made: int
    expected: float
    """Share of the way to its target that the next round was expected to go."""
    later: Mapping[int, Mapping[str, Estimate]]
    """By round and quantity."""
    scores: tuple[Score, ...]
    extrapolated: frozenset[int] = frozenset()
    """Rounds that the rounds so far do not tell (``forecast.pace``)."""
    below: int | None = None
    """Responses of fewer tokens are short, where they go a way of their own; else None."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that a report of a run shows."""

    folder: Path
    config: Mapping[str, Any]
    """Dotted keys, as resolved; so ``manifest``."""
    manifest: Mapping[str, Any]
    verdict: Verdict
    has_answers: bool
    kappa_name: str
    """``kappa``, or ``log10_kappa`` where that is the number to read."""
    planned: int
    """Rounds that the settings ask for; ``rounds`` holds those that are done, and the base."""
    best: Best
    changes: tuple[Change, ...]
    """Key figures from the base to the last round, those that were measured."""
    warnings: tuple[Notice, ...]
    rounds: tuple[Round, ...]
    examples: tuple[Group, ...]
    stop: Mapping[str, Any]
    """Why the run ended and its best round without looking at answers; empty where not recorded."""
    gap: Gap | None
    """To exact updates; None where the folder does not hold what that takes."""
    forecasts: tuple[Forecast, ...]
    """Made after each round, of the later ones."""

    @property
    def last(self) -> Round:
        return self.rounds[-1]

    @property
    def later_rounds(self) -> list[int]:
        """The rounds that some forecast is about, up to the one after the last."""
        end = max(self.planned, self.last.round + 1)
        return sorted({t for f in self.forecasts for t in f.later if t <= end})

    @property
    def forecast_names(self) -> set[str]:
        """The quantities that some forecast has a value of."""
        each = (row for f in self.forecasts for row in f.later.values())
        return {name for row in each for name, e in row.items() if e.value is not None}

    @property
    def beta(self) -> float | None:
        value = self.config.get("update.beta")
        return float(value) if isinstance(value, int | float) and value > 0 else None

    def ideal_exponent(self, round: int) -> float | None:
        """p_t = (1 + 1/beta)^t, the exponent after t exact rounds ([SR] eq. 4)."""
        return None if self.beta is None else float((1 + 1 / self.beta) ** round)


def summarise(folder: Path) -> Summary:
    """Read a run folder and judge it. Changes nothing; the same folder gives the same summary.

    Raises:
        UserError: as ``read_run``.
    """
    return summary_of(read_run(folder))


def summary_of(run: Run, gap_of: Callable[[Run], Gap | None] = gap) -> Summary:
    """The summary of a run that is read already.

    Args:
        run: what is summarised.
        gap_of: the gap to exact updates, the one part that takes more than a moment.
    """
    best = best_round(run)
    found = warnings(run, best)
    first, last = run.rounds[0], run.rounds[-1]
    other = "kappa" if run.kappa_name == "log10_kappa" else "log10_kappa"
    changes = (change(name, first, last) for name in KEY_FIGURES if name != other)
    planned = run.config.get("rounds")
    return Summary(
        folder=run.folder,
        config=run.config,
        manifest=run.manifest,
        verdict=judge(run, best, found),
        has_answers=run.has_answers,
        kappa_name=run.kappa_name,
        planned=planned if isinstance(planned, int) else last.round,
        best=best,
        changes=tuple(c for c in changes if c.start.value is not None or c.end.value is not None),
        warnings=found,
        rounds=run.rounds,
        examples=choose(run),
        stop=run.stop,
        gap=gap_of(run),
        forecasts=forecasts(run),
    )


def forecasts(run: Run) -> tuple[Forecast, ...]:
    """Those made after each round, as far as rounds are planned, scored on the rounds since."""
    measured = {r.round: r.estimates for r in run.rounds}
    planned = max(run.rounds[-1].round, int(run.config.get("rounds") or 0))
    out = []
    for made in run.forecasts:
        rows = [row for row in made["later"] if row["round"] <= planned]
        later = {
            row["round"]: {n: Estimate.from_json(row.get(n)) for n in FORECAST} for row in rows
        }
        if later and "expected" in made:
            scores = tuple(score(rows, measured))
            extrapolated = frozenset(x["round"] for x in rows if not x.get("supported", True))
            below = made["short"]["below"] if made.get("kind") is not None else None
            out.append(Forecast(made["made"], made["expected"], later, scores, extrapolated, below))
    return tuple(out)
