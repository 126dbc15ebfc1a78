"""From a policy and prompts to a forecast: samples, search, powers, verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from srlm.config import BETA, MeasureSettings
from srlm.engines.base import Executor
from srlm.errors import UserError
from srlm.forecast.trajectory import Evidence, Point, evidence, limit, read_all, trajectory
from srlm.forecast.verdict import Verdict, decide
from srlm.grading import EXACT, Grader
from srlm.measure.answer_level import AnswerModes, pass_at, split_sample, vote_curve
from srlm.measure.evaluate import Draw, Measurement, evaluate
from srlm.policies.base import Exact, Policy
from srlm.run_folder import LARGE
from srlm.types import Bools, Estimate, Floats, Prompt, Samples, rows_by_prompt


@dataclass(frozen=True, slots=True)
class AnswerLevel:
    """The base at the level of answers, from its samples."""

    certain: AnswerModes
    """Deterministic lower bounds on the likeliest answer's mass: kappa at most this."""
    tested: AnswerModes | None
    """Chosen on one half of the samples and tested on the other."""
    majority: dict[int, Estimate]
    """cons@k: accuracy of a majority vote over k samples."""
    passed: dict[int, Estimate]
    """pass@k: at least one of k samples right."""

    @property
    def kappa(self) -> tuple[str, Estimate]:
        """Name and value of kappa_answer's upper bound: its logarithm where it is large."""
        found = self.certain.kappa()
        if found.value is not None and found.value <= LARGE:
            return "κ of answers", found
        return "log₁₀ κ of answers", self.certain.log10_kappa()


@dataclass(frozen=True, slots=True)
class Forecast:
    """What self-rewarding is predicted to do to a policy, and why."""

    verdict: Verdict
    measurement: Measurement
    evidence: Evidence
    answers: AnswerLevel | None
    beta: float
    trajectories: dict[float, list[Point]]
    """Rounds 0..T by beta; ``beta`` is among them."""
    end: Point
    """The limit of infinitely many rounds."""
    cut_off: tuple[int, ...]
    """Prompts whose every sample was cut off by the length limit."""

    @property
    def points(self) -> list[Point]:
        """The trajectory at the beta asked for."""
        return self.trajectories[self.beta]

    @property
    def has_answers(self) -> bool:
        """Whether right and wrong are known of any prompt."""
        return bool(self.evidence.answered_P.any())

    @property
    def log_kappa(self) -> bool:
        """Whether kappa is so large that its logarithm is the number to read."""
        value = self.points[0].kappa.value
        return value is None or not value <= LARGE


def make_forecast(
    policy: Policy,
    prompts: Sequence[Prompt],
    *,
    grader: Grader = EXACT,
    beta: float = BETA,
    betas: Sequence[float] = (0.5, 1.0, 2.0),
    rounds: int = 8,
    samples: int = 64,
    max_tokens: int = 256,
    nodes: int = 2000,
    tokens: int = 1 << 20,
    seconds: float = 120.0,
    executor: Executor | None = None,
    draw: Draw | None = None,
    advance: Callable[[float], None] = lambda prompts: None,
    seed: int = 0,
) -> Forecast:
    """Forecast self-rewarding from ``samples`` samples per prompt, without training.

    Args:
        policy: the base.
        prompts: all of them are used.
        grader: reads answers and compares them.
        beta, rounds: of the forecast; ``betas`` are shown beside it.
        samples: per prompt.
        max_tokens: length limit of a response.
        nodes, tokens, seconds: what the search for the modes may spend.
        executor, draw: as of ``evaluate``.
        advance: called with the number of prompts sampled for, for progress.
        seed: of samples and bootstrap.

    Raises:
        UserError: fewer than two samples or no prompts; a policy that gives not-a-number.
    """
    if samples < 2:
        raise UserError(f"--samples {samples}: too few", "at least two samples per prompt")
    settings = MeasureSettings(
        prompts=len(prompts), samples=samples, nodes=nodes, tokens=tokens, seconds=seconds
    )
    measurement = evaluate(
        policy,
        prompts,
        grader,
        settings,
        seed=seed,
        max_tokens=max_tokens,
        base=None,
        executor=executor,
        draw=draw,
        advance=advance,
    )
    return from_measurement(
        measurement,
        grader=grader,
        beta=beta,
        betas=betas,
        rounds=rounds,
        exact=isinstance(policy, Exact),
        seed=seed,
    )


def from_measurement(
    measurement: Measurement,
    *,
    grader: Grader,
    beta: float,
    betas: Sequence[float],
    rounds: int,
    exact: bool,
    seed: int,
) -> Forecast:
    """The forecast that a measurement of the base carries; nothing more is sampled."""
    prompts, drawn = measurement.prompts, measurement.samples
    mode_text_P = measurement.table["mode_text"]
    modes = measurement.modes
    answer_R, mode_answer_P = read_all(grader, drawn, mode_text_P, modes.finished_P)
    right_R = grader.grades(drawn.text_R, drawn.finished_R, prompts, drawn.prompt_R)
    mode_right_P = grader.grades(mode_text_P, modes.finished_P, prompts)
    found = evidence(
        measurement,
        answer_R,
        mode_answer_P,
        right_R,
        mode_right_P,
        exact=exact,
        seed=seed,
    )
    by_beta = {
        float(b): trajectory(found, beta=float(b), rounds=rounds) for b in sorted({beta, *betas})
    }
    answered = np.flatnonzero(found.answered_P)
    level = None if exact else _answer_level(found, drawn, answer_R, right_R, answered, seed)
    end = limit(found)
    sampling_P = np.array(
        [np.nan if v is None else v for v in measurement.table["sampling_accuracy"]], dtype=float
    )
    k = min(16, max(level.majority)) if level is not None and level.majority else 0
    verdict = decide(
        by_beta[float(beta)],
        end,
        mode_text_P,
        sampling_P[answered],
        mode_right_P[answered],
        (k, level.majority[k].value or 0.0) if level is not None and k else None,
        seed,
        sampled=_shares(drawn, len(prompts)),
    )
    return Forecast(
        verdict=verdict,
        measurement=measurement,
        evidence=found,
        answers=level,
        beta=float(beta),
        trajectories=by_beta,
        end=end,
        cut_off=_cut_off(drawn, len(prompts)),
    )


def to_json(forecast: Forecast) -> dict[str, Any]:
    """The forecast for programs; the names are stable."""
    e = forecast.measurement.estimates
    level = forecast.answers
    out: dict[str, Any] = {
        "verdict": forecast.verdict.verdict,
        "reason": forecast.verdict.reason,
        "advice": forecast.verdict.advice,
        "gain": forecast.verdict.gain.to_json() if forecast.verdict.gain else None,
        "prompts": len(forecast.measurement.prompts),
    }
    for name in (
        "kappa",
        "log10_kappa",
        "failure_fraction",
        "confidence",
        "margin",
        "least_confidence",
        "greedy_is_mode",
        "mode_accuracy",
        "sampling_accuracy",
        "greedy_accuracy",
        "length",
        "entropy",
        "truncated",
        "distinct_responses",
    ):
        out[name] = e[name].to_json()
    out["kappa_answer"] = level.certain.kappa().to_json() if level else None
    out["log10_kappa_answer"] = level.certain.log10_kappa().to_json() if level else None
    out["kappa_answer_tested"] = level.tested.kappa().to_json() if level and level.tested else None
    out["majority_vote"] = {str(k): v.to_json() for k, v in level.majority.items()} if level else {}
    out["pass_at"] = {str(k): v.to_json() for k, v in level.passed.items()} if level else {}
    out["trajectory"] = [p.to_json() for p in forecast.points]
    out["trajectories"] = {
        f"{beta:g}": [p.to_json() for p in points] for beta, points in forecast.trajectories.items()
    }
    end = forecast.end.to_json()
    out["limit"] = {k: v for k, v in end.items() if k not in ("round", "beta", "exponent")}
    out["cut_off"] = [forecast.measurement.prompts[p].line for p in forecast.cut_off]
    return out


def _shares(drawn: Samples, P: int) -> dict[str, float]:
    """Share of the samples that is each text."""
    out: dict[str, float] = {}
    for text, weight in zip(drawn.text_R, drawn.weight_R.tolist(), strict=True):
        out[text] = out.get(text, 0.0) + weight / P
    return out


def _answer_level(
    found: Evidence,
    drawn: Samples,
    answer_R: list[str | None],
    right_R: Floats,
    answered: np.ndarray,
    seed: int,
) -> AnswerLevel:
    P = found.known.prompts
    most = int(np.bincount(drawn.prompt_R, minlength=P).min())
    ks = [k for k in (1, 2, 4, 8, 16, 32, 64, 128) if k <= most]
    majority: dict[int, Estimate] = {}
    passed: dict[int, Estimate] = {}
    if len(answered):
        keep_R: Bools = np.isin(drawn.prompt_R, answered)
        part = drawn.take(keep_R)
        part = replace(part, prompt_R=np.searchsorted(answered, part.prompt_R).astype(np.int64))
        answers = [a for a, k in zip(answer_R, keep_R, strict=True) if k]
        right: Bools = np.nan_to_num(right_R[keep_R]) > 0.5
        majority = vote_curve(part, answers, right, len(answered), ks, seed=seed)
        passed = pass_at(part, right, len(answered), ks, seed=seed)
    own_R = [f"\0{t}" if a is None else a for a, t in zip(answer_R, drawn.text_R, strict=True)]
    return AnswerLevel(
        certain=_certain(found),
        tested=split_sample(drawn, own_R, P) if most >= 4 else None,
        majority=majority,
        passed=passed,
    )


def _certain(found: Evidence) -> AnswerModes:
    """The answer with the most probability among all responses known, the modes with them.

    A response without an answer counts as an answer of its own. The mode's answer has at least the
    mode's probability, so kappa_answer <= kappa here too.
    """
    listed = found.known
    mass: dict[tuple[int, str | int], float] = {}
    rows = zip(listed.prompt_R.tolist(), found.answer_R, listed.logp_R.tolist(), strict=True)
    for r, (p, answer, logp) in enumerate(rows):
        key = (p, r if answer is None else answer)
        mass[key] = float(np.logaddexp(mass.get(key, -np.inf), logp))
    best: list[str | None] = [None] * listed.prompts
    low_P = np.full(listed.prompts, -np.inf)
    for (p, of), total in mass.items():
        if total > low_P[p]:
            best[p], low_P[p] = of if isinstance(of, str) else None, min(0.0, total)
    method = "answer level, distinct samples and modes"
    return AnswerModes(tuple(best), low_P, np.ones(listed.prompts), method, "upper bound")


def _cut_off(drawn: Samples, P: int) -> tuple[int, ...]:
    rows_P = rows_by_prompt(drawn.prompt_R, P)
    return tuple(p for p, rows in enumerate(rows_P) if not drawn.finished_R[rows].any())
