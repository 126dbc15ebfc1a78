"""What exact updates would have given, beside what was measured, and where the difference lies.

From the base's held-out draws and modes, as the run folder keeps them: the *ideal* trajectory,
pi_0 to the power (1 + 1/beta)^t, and the forecast *at the exponent reached*: the power at which
the base is as sure as the round was (its mean p*). The slope p_eff weighs unlikely responses, which
training hardly moves, and understates it (docs/decisions/0002). Then

    ideal - measured = (ideal - at exponent) + (at exponent - measured) = pace + drift:

pace is training that has not come as far along the path, drift is training that left it. Both
are paired over the held-out prompts. Only for the likelihood reward: other rewards lead elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from srlm import run_folder as runs
from srlm.forecast.pace import step
from srlm.forecast.powers import Known, Sharpened, expect, exponents, known, sharpen
from srlm.grading import checker
from srlm.measure.intervals import mean
from srlm.report.read import Run
from srlm.types import Estimate, Floats, Prompt

SEED = 0
LEAST_SUPPORTED = 0.9
"""Share of prompts whose forecast must be carried by draws, else it is an extrapolation."""


@dataclass(frozen=True, slots=True)
class Part:
    """One quantity of one round. Differences are paired over prompts, 95 % intervals."""

    measured: Estimate
    at_exponent: Estimate
    ideal: Estimate
    pace: Estimate
    """ideal - at exponent."""
    drift: Estimate
    """at exponent - measured; its interval holds that of the exponent too."""


@dataclass(frozen=True, slots=True)
class Step:
    """One round: the exponents, and each quantity in its parts."""

    round: int
    exponent: Estimate
    ideal_exponent: float
    r2: Estimate
    fidelity: Estimate
    parts: dict[str, Part]
    """By name: ``kappa`` (``confidence`` where kappa is astronomical), ``sampling_accuracy``."""
    firm: bool
    """The ideal forecast is carried by the base's draws and modes."""


@dataclass(frozen=True, slots=True)
class Foretold:
    """All rounds; round 0 compares the forecast's method with the base itself."""

    names: tuple[str, ...]
    steps: tuple[Step, ...]
    prompts: int


Value = Callable[[Sharpened], Floats]
"""Of pi_0 to a power: the quantity of each prompt."""


def foretold(run: Run) -> Foretold | None:
    """The comparison, or None where the folder does not hold what it takes. O(rounds x draws).

    It takes two rounds of metrics with exponents, the base's held-out draws and modes, the
    tables of prompts, and the likelihood reward.
    """
    base = _base(run)
    beta = run.config.get("update.beta")
    if base is None or not isinstance(beta, int | float) or beta <= 0 or len(run.rounds) < 2:
        return None
    listed, right_R = base
    sure = "kappa" if run.kappa_name == "kappa" else "confidence"
    sign = -1.0 if sure == "kappa" else 1.0
    values: dict[str, Value] = {sure: lambda s: np.exp(sign * s.log_top_P)}
    if run.has_answers and right_R is not None:
        values["sampling_accuracy"] = lambda s: expect(listed, s, right_R)
    ids = run.rounds[0].table.prompt_id if run.rounds[0].table else ()
    steps = []
    for r, ideal in zip(run.rounds, exponents(beta, len(run.rounds) - 1), strict=True):
        p = _reached(listed, run.rounds[0]["confidence"], r["confidence"], r["exponent"], beta)
        if r.table is None or r.table.prompt_id != ids or p.value is None or p.value <= 0:
            continue
        measured = {sure: r.table.p_star**sign, "sampling_accuracy": r.table.sampling_accuracy}
        best = sharpen(listed, float(ideal))
        ends = [e for e in (p.low, p.high) if e is not None and e > 0]
        at = [sharpen(listed, e) for e in (p.value, *ends)]
        steps.append(
            Step(
                round=r.round,
                exponent=p,
                ideal_exponent=float(ideal),
                r2=r["exponent_r2"],
                fidelity=r["fidelity"],
                parts={
                    name: _part(measured[name], [value(s) for s in at], value(best))
                    for name, value in values.items()
                },
                firm=bool(best.supported_P.mean() >= LEAST_SUPPORTED),
            )
        )
    return Foretold(tuple(values), tuple(steps), len(ids)) if len(steps) > 1 else None


def _reached(
    base: Known, before: Estimate, now: Estimate, slope: Estimate, beta: float
) -> Estimate:
    """The power of the base that is as sure as the round; the slope p_eff where none is."""

    def power(confidence: float | None) -> float | None:
        if confidence is None or before.value is None:
            return None
        return step(base, before.value, confidence, beta).exponent

    value = power(now.value)
    if value is None:
        return slope
    return Estimate(value, power(now.low), power(now.high), now.n, "power of equal confidence")


def _part(measured_P: Floats, at_EP: list[Floats], ideal_P: Floats) -> Part:
    """The parts over the prompts where all is known; at_EP: at the exponent and at its ends."""
    at_P = at_EP[0]
    use = np.isfinite(measured_P) & np.isfinite(at_P) & np.isfinite(ideal_P)

    def average(value_P: Floats, how: str) -> Estimate:
        return mean(value_P[use], SEED, how)

    pace = average(ideal_P - at_P, "ideal - at the exponent, paired")
    drift = average(at_P - measured_P, "at the exponent - measured, paired")
    shifts = [float((other - at_P)[use].mean()) for other in at_EP[1:]]
    return Part(
        measured=average(measured_P, "measured"),
        at_exponent=average(at_P, "base to the measured exponent"),
        ideal=average(ideal_P, "base to the ideal exponent"),
        pace=_wider(pace, [-s for s in shifts]),
        drift=_wider(drift, shifts),
    )


def _wider(e: Estimate, shifts: list[float]) -> Estimate:
    """The interval with the exponent's own error added."""
    if e.low is None or e.high is None:
        return e
    low, high = e.low + min(0.0, *shifts, 0.0), e.high + max(0.0, *shifts, 0.0)
    return Estimate(e.value, low, high, e.n, e.method, e.guarantee, e.note)


def _base(run: Run) -> tuple[Known, Floats | None] | None:
    """The base's known responses and which are right; None where the folder lacks them."""
    folder = run.folder / "rounds" / "000"
    draws, table = folder / "held_out.parquet", folder / "prompts.parquet"
    if run.config.get("reward", "likelihood") != "likelihood":
        return None
    prompts = run.rounds[0].table
    if prompts is None or not draws.is_file():
        return None
    import pyarrow.parquet as pq

    columns = pq.read_table(table)
    if not {"mode_tokens", "log_p_star"} <= set(columns.column_names):
        return None
    samples = runs.read_samples(draws)
    listed = known(
        samples,
        [tuple(t) for t in columns["mode_tokens"].to_pylist()],
        columns["log_p_star"].to_numpy(),
        exact=run.rounds[0]["kappa"].method == "enumeration",
    )
    spec = run.config.get("prompts.answer")
    if not isinstance(spec, str) or not run.has_answers:
        return listed, None
    asked = [Prompt(i, None, a) for i, a in zip(prompts.prompt_id, prompts.answer, strict=True)]
    correct, cache = checker(spec), dict[tuple[int, str], float]()
    right_R = np.full(len(listed.prompt_R), np.nan)
    for k, (p, row) in enumerate(zip(listed.prompt_R.tolist(), listed.row_R.tolist(), strict=True)):
        if asked[p].answer is None:
            continue
        if row < 0:
            right_R[k] = prompts.mode_correct[p]
            continue
        key = (p, samples.text_R[row])
        if key not in cache:
            cache[key] = float(correct(key[1], asked[p]))
        right_R[k] = cache[key]
    return listed, right_R


def to_json(found: Foretold) -> dict[str, Any]:
    """The comparison for programs."""
    return {
        "prompts": found.prompts,
        "rounds": [
            {
                "round": s.round,
                "exponent": s.exponent.to_json(),
                "ideal_exponent": s.ideal_exponent,
                "firm": s.firm,
                **{
                    name: {
                        key: getattr(part, key).to_json()
                        for key in ("measured", "at_exponent", "ideal", "pace", "drift")
                    }
                    for name, part in s.parts.items()
                },
            }
            for s in found.steps
        ],
    }
