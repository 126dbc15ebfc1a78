"""The theory's bounds and the calibrated planner on a run's own numbers (``srlm plan --run``).

The numbers come from the run folder: kappa_0 and the least confidence and margin, over prompts
and rounds, from its tables; beta and T from its settings; n from its pairs; log|Pi| from the size
of its policy. Any of them can be given instead. The bounds are [SR] Theorem 5.3's, up to its
universal constant, and on networks nearly always vacuous; the calibrated planner knows nothing of
networks, and predicts the run's next rounds from those seen.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srlm.lab.result import plain
from srlm.report.read import Run, read_run
from srlm.run_numbers import Seen, Stated, complexity_of, pairs_of, realizability_of, seen_of
from srlm.theory import (
    Assumption,
    Backtest,
    Plan,
    RoundForecast,
    backtest,
    least_confidence,
    least_margin,
    plan,
    predict_rounds,
    probability_range,
    unique_mode,
)
from srlm.theory.bounds import check_probability

AHEAD = 3
"""Rounds predicted where the run has none left to make."""
SHOWN = 4
"""Values of kappa that the back-test shows the planner: the start and three rounds."""
TIE = 1e-9
"""A margin no larger is a tie, nats."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What the theory says of a run."""

    folder: str
    prompts: int
    """Held-out prompts measured."""
    kappa_T: tuple[float | None, ...]
    """Measured, by round; None where it is undefined or overflows."""
    numbers: dict[str, Stated]
    """By parameter of ``srlm.theory.plan``: what it was given, and where that comes from."""
    plan: Plan | None
    unplanned: str
    """Why there is no plan; empty where there is one."""
    assumptions: tuple[Assumption, ...]
    """Unique mode, margin, least confidence, realizability."""
    kappa_target: float
    """1 + target: with kappa at most this, F <= target, for F <= kappa - 1."""
    reached: int | None
    """First measured round at or below it."""
    ahead: RoundForecast | None
    """The calibrated planner's rounds to come; None with ``unforeseen`` otherwise."""
    unforeseen: str
    score: Backtest | None
    """Fitted on the first three rounds, scored on the later ones; None where there are none."""
    notes: tuple[str, ...]


def plan_run(
    folder: Path,
    *,
    kappa0: float | None = None,
    margin: float | None = None,
    confidence: float | None = None,
    beta: float | None = None,
    complexity: float | None = None,
    rounds: int | None = None,
    samples: int | None = None,
    target: float = 0.1,
) -> RunPlan:
    """Bounds, assumptions and prediction for a run; what is given replaces the run's own number.

    Args:
        folder: of a run with its base measured.
        kappa0, margin, confidence, beta, complexity, rounds, samples, target: as in
            ``srlm.theory.plan``. A margin or confidence given is also what the assumptions are
            judged against; otherwise it is the least that the measurements certify.

    Raises:
        UserError: no run, or a table missing; a number out of range, by name.

    Source: [SR] Theorem 5.3, App. C. Cost: reading the tables, and some seconds of least squares.
    """
    target = check_probability("target", target)
    run = read_run(folder)
    seen = seen_of(run)
    kappa_T = tuple(_at_least_one(r["kappa"].value) for r in run.rounds)
    numbers = _measured(run, seen)
    given = {
        "kappa0": kappa0,
        "margin": margin,
        "confidence": confidence,
        "beta": beta,
        "complexity": complexity,
        "rounds": rounds,
        "samples": samples,
    }
    numbers |= {name: Stated(x, "given") for name, x in given.items() if x is not None}
    made, unplanned = _bounds(numbers, seen, target)
    goal = 1.0 + target
    ahead, score, unforeseen = _calibrated(kappa_T, numbers.get("rounds"), goal)
    return RunPlan(
        folder=str(folder),
        prompts=len(seen.margin_low_P),
        kappa_T=kappa_T,
        numbers=numbers,
        plan=made,
        unplanned=unplanned,
        assumptions=(*_assumptions(seen, numbers), realizability_of(run)),
        kappa_target=goal,
        reached=next((t for t, k in enumerate(kappa_T) if k is not None and k <= goal), None),
        ahead=ahead,
        unforeseen=unforeseen,
        score=score,
        notes=_notes(run),
    )


def to_json(made: Plan | RunPlan) -> dict[str, Any]:
    """Numbers for programs; infinities become null."""
    data: dict[str, Any] = plain(asdict(made))
    return data


def _at_least_one(kappa: float | None) -> float | None:
    return None if kappa is None else max(1.0, kappa)


def _measured(run: Run, seen: Seen) -> dict[str, Stated]:
    """What the folder says of each number; a number that it does not give is left out."""
    where = f"{len(seen.margin_low_P)} held-out prompts, rounds 0 to {len(run.rounds) - 1}"
    numbers = {"kappa0": Stated(seen.kappa0, f"round 0{seen.how_certain}")}
    gamma, mu = _least_margin(seen), _least_confidence(seen)
    if 0.0 < gamma < math.inf:
        numbers["margin"] = Stated(gamma, f"least certified over {where}")
    if mu > 0.0:
        numbers["confidence"] = Stated(mu, f"least certified over {where}")
    settings = {"beta": "update.beta", "rounds": "rounds"}
    for name, key in settings.items():
        if run.config.get(key) is not None:
            numbers[name] = Stated(run.config[key], "config.yaml")
    found = {"complexity": complexity_of(run.folder), "samples": pairs_of(run)}
    return numbers | {name: x for name, x in found.items() if x is not None}


def _runner_up(seen: Seen) -> tuple[np.ndarray, np.ndarray]:
    """Range of runner-up over mode, exp(-margin); a ratio, so that no probability underflows."""
    return np.exp(-seen.margin_high_P), np.exp(-seen.margin_low_P)


def _least_margin(seen: Seen) -> float:
    with np.errstate(divide="ignore"):
        return float(-np.log(_runner_up(seen)[1].max()))


def _least_confidence(seen: Seen) -> float:
    return float(np.exp(seen.logp_low_P.min()))


def _bounds(numbers: dict[str, Stated], seen: Seen, target: float) -> tuple[Plan | None, str]:
    lacking = [x for x in ("margin", "confidence", "beta", "complexity") if x not in numbers]
    if lacking:
        reasons = {
            "margin": "the least margin is a tie, infinite or not certified (it lies between "
            f"{seen.margin_low_P.min():.3g} and {seen.margin_high_P.min():.3g} nats)",
            "confidence": "p* is too small for a number on some prompt: log10 p* "
            f"{seen.logp_low_P.min() / math.log(10):.0f}",
            "beta": "config.yaml has no update.beta",
            "complexity": "rounds/000/policy has no safetensors",
        }
        why = "; ".join(reasons[name] for name in lacking)
        return None, f"{why}; give {' '.join('--' + name for name in lacking)}"
    if not math.isfinite(numbers["kappa0"].value):
        return None, "kappa_0 overflows: every bound is vacuous"
    names = ("kappa0", "margin", "confidence", "beta", "complexity", "rounds", "samples")
    values: dict[str, Any] = {name: numbers[name].value for name in names if name in numbers}
    return plan(**values, target=target), ""


def _assumptions(seen: Seen, numbers: dict[str, Stated]) -> tuple[Assumption, ...]:
    ratio = _runner_up(seen)
    mode, second = probability_range(np.ones(len(ratio[0]))), probability_range(*ratio)
    alone = unique_mode(mode, second, TIE)
    nearest = f"the nearest runner-up has at most {ratio[1].max():.3g} of its mode's probability"
    margin = numbers.get("margin", Stated(TIE, "none"))
    return (
        Assumption(alone.name, alone.state, (alone.evidence[0], nearest), alone.value),
        least_margin(mode, second, margin.value),
        _confidence(seen, numbers.get("confidence")),
    )


def _confidence(seen: Seen, required: Stated | None) -> Assumption:
    if required is None:
        text = f"least certified log10 p* {seen.logp_low_P.min() / math.log(10):.0f}"
        return Assumption("least confidence", "cannot be told", (text,), 0.0)
    p_star = probability_range(np.exp(seen.logp_low_P), np.exp(seen.logp_high_P))
    return least_confidence(p_star, required.value)


def _calibrated(
    kappa_T: tuple[float | None, ...], rounds: Stated | None, goal: float
) -> tuple[RoundForecast | None, Backtest | None, str]:
    known = [k for k in kappa_T if k is not None]
    if len(known) < len(kappa_T):
        return None, None, "kappa overflows in some round"
    if len(known) < 3:
        return None, None, f"{len(known) - 1} rounds measured: two at least are needed"
    left = 0 if rounds is None else int(rounds.value) - (len(known) - 1)
    ahead = predict_rounds(known, left if left > 0 else AHEAD, target=goal)
    return ahead, backtest([known], seen=SHOWN) if len(known) > SHOWN else None, ""


def _notes(run: Run) -> tuple[str, ...]:
    """Where the run is not what the theorem is about."""
    notes = []
    reward, kind = run.config.get("reward", "likelihood"), run.config.get("update.kind", "square")
    if reward != "likelihood":
        notes.append(f"the theorem is about the likelihood reward; this run's is {reward}")
    if kind == "weighted":
        notes.append(
            "the theorem is about the square loss; the weighted update has the same exact minimiser"
        )
    elif kind != "square":
        notes.append(f"the theorem is about the square loss; {kind} has another target")
    return tuple(notes)
