"""The gap between exact updates and what was measured, and where it comes from.

From the base's held-out samples and modes, as the run folder keeps them: the *exact* trajectory,
pi_0 to the power (1 + 1/beta)^t, and the forecast *at the exponent reached*: the power at which
the base is as sure as the round was (its mean p*). The exponent as a slope weighs unlikely
responses, which training hardly moves, and understates it (docs/decisions/0002). Then

    exact - measured = (exact - at exponent) + (at exponent - measured) = pace + drift:

pace is training that has not come as far along the path, drift is training that left it. Both
are paired over the held-out prompts. Only for the likelihood reward: other rewards lead elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from srlm.forecast.after_round import evidence_of
from srlm.forecast.pace import pace
from srlm.forecast.powers import Known, Sharpened, expect, exponents, sharpen
from srlm.forecast.trajectory import LEAST_SUPPORTED, Evidence
from srlm.grading import grader, is_imported
from srlm.measure.intervals import mean
from srlm.report.words import number, signed, with_interval
from srlm.run_folder import Run, sharpens
from srlm.types import Estimate, Floats

SAME = 0.005
"""A gap under this is no meaningful one."""
SEED = 0


@dataclass(frozen=True, slots=True)
class Part:
    """One quantity of one round. Differences are paired over prompts, 95% intervals."""

    measured: Estimate
    at_exponent: Estimate
    exact: Estimate
    pace: Estimate
    """exact - at exponent."""
    drift: Estimate
    """at exponent - measured; its interval holds that of the exponent too."""


@dataclass(frozen=True, slots=True)
class RoundGap:
    """One round: the exponents, and each quantity in its parts."""

    round: int
    exponent: Estimate
    exact_exponent: float
    r2: Estimate
    fidelity: Estimate
    parts: dict[str, Part]
    """By name: ``kappa`` (``confidence`` where kappa is astronomical), ``sampling_accuracy``."""
    supported: bool
    """The exact trajectory is supported by the base's samples and modes."""


@dataclass(frozen=True, slots=True)
class Gap:
    """All rounds; in round 0, where there is no gap, it is the method's own sampling error."""

    names: tuple[str, ...]
    rounds: tuple[RoundGap, ...]
    prompts: int

    @property
    def extrapolated(self) -> bool:
        """Whether too few samples support some round."""
        return not all(r.supported for r in self.rounds)

    @property
    def sentence(self) -> str:
        """Where the gap comes from, in the last round that is known."""
        last, name = self.rounds[-1], self.names[-1]
        part = last.parts[name]
        missing = (part.exact.value or 0.0) - (part.measured.value or 0.0)
        text = (
            f"round {last.round}, {name.replace('_', ' ')}: measured "
            f"{number(part.measured.value)}, exact updates {number(part.exact.value)}"
            f"{'' if last.supported else ' (extrapolated)'}"
        )
        if abs(missing) < SAME:
            return f"{text}: no meaningful difference (< {SAME:g})"
        return (
            f"{text}; difference {signed(missing)} = pace {with_interval(part.pace, sign=True)} "
            f"+ drift {with_interval(part.drift, sign=True)}"
        )


Value = Callable[[Sharpened], Floats]
"""Of pi_0 to a power: the quantity of each prompt."""


def gap(run: Run) -> Gap | None:
    """The comparison, or None where the folder does not hold what it takes. O(rounds x samples).

    It takes two rounds of metrics with exponents, the base's held-out samples and modes, the
    tables of prompts, and the likelihood reward.
    """
    base = _base(run)
    beta = run.config.get("update.beta")
    if base is None or not isinstance(beta, int | float) or beta <= 0 or len(run.rounds) < 2:
        return None
    listed = base.known
    sure = "kappa" if run.kappa_name == "kappa" else "confidence"
    sign = -1.0 if sure == "kappa" else 1.0
    values: dict[str, Value] = {sure: lambda s: np.exp(sign * s.log_top_P)}
    if run.has_answers:
        values["sampling_accuracy"] = lambda s: expect(listed, s, base.right_R)
    ids = run.rounds[0].table.prompt_id if run.rounds[0].table else ()
    rounds = []
    for r, exponent in zip(run.rounds, exponents(beta, len(run.rounds) - 1), strict=True):
        p = _reached(listed, run.rounds[0]["confidence"], r["confidence"], r["exponent"], beta)
        if r.table is None or r.table.prompt_id != ids or p.value is None or p.value <= 0:
            continue
        measured = {sure: r.table.p_star**sign, "sampling_accuracy": r.table.sampling_accuracy}
        best = sharpen(listed, float(exponent))
        ends = [e for e in (p.low, p.high) if e is not None and e > 0]
        at = [sharpen(listed, e) for e in (p.value, *ends)]
        rounds.append(
            RoundGap(
                round=r.round,
                exponent=p,
                exact_exponent=float(exponent),
                r2=r["exponent_r2"],
                fidelity=r["fidelity"],
                parts={
                    name: _part(measured[name], [value(s) for s in at], value(best))
                    for name, value in values.items()
                },
                supported=bool(best.supported_P.mean() >= LEAST_SUPPORTED),
            )
        )
    return Gap(tuple(values), tuple(rounds), len(ids)) if len(rounds) > 1 else None


def _reached(
    base: Known, before: Estimate, now: Estimate, slope: Estimate, beta: float
) -> Estimate:
    """The power of the base that is as sure as the round; the exponent's where none is."""

    def power(confidence: float | None) -> float | None:
        if confidence is None or before.value is None:
            return None
        return pace(base, before.value, confidence, beta).exponent

    value = power(now.value)
    if value is None:
        return slope
    return Estimate(value, power(now.low), power(now.high), now.n, "power of equal confidence")


def _part(measured_P: Floats, at_EP: list[Floats], exact_P: Floats) -> Part:
    """The parts over the prompts where all is known; at_EP: at the exponent and at its ends."""
    at_P = at_EP[0]
    use = np.isfinite(measured_P) & np.isfinite(at_P) & np.isfinite(exact_P)

    def average(value_P: Floats, how: str) -> Estimate:
        return mean(value_P[use], SEED, how)

    behind = average(exact_P - at_P, "exact - at the exponent, paired")
    drift = average(at_P - measured_P, "at the exponent - measured, paired")
    shifts = [float((other - at_P)[use].mean()) for other in at_EP[1:]]
    return Part(
        measured=average(measured_P, "measured"),
        at_exponent=average(at_P, "base to the measured exponent"),
        exact=average(exact_P, "base to the exact exponent"),
        pace=_wider(behind, [-s for s in shifts]),
        drift=_wider(drift, shifts),
    )


def _wider(e: Estimate, shifts: list[float]) -> Estimate:
    """The interval with the exponent's own error added."""
    if e.low is None or e.high is None:
        return e
    low, high = e.low + min(0.0, *shifts, 0.0), e.high + max(0.0, *shifts, 0.0)
    return Estimate(e.value, low, high, e.n, e.method, e.guarantee, e.note)


def _base(run: Run) -> Evidence | None:
    """What is known of the base; None where the folder lacks it, another reward was run, or answers
    are read by a function of the user's: a folder cannot name code that a report runs."""
    answer = run.config.get("prompts.answer")
    table, samples = run.rounds[0].table, run.held_out(0)
    if not sharpens(run.config) or not isinstance(answer, str) or table is None or samples is None:
        return None
    if np.isnan(table.log_p_star).any() or is_imported(answer):
        return None
    return evidence_of(samples, table, grader(answer), SEED)
