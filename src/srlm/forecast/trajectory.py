"""Rounds of exact updates: every number with its interval and its support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from srlm.forecast.powers import Known, Sharpened, expect, exponents, known, sharpen
from srlm.grading import Grader
from srlm.measure.condition import kappa, log10_kappa
from srlm.measure.intervals import mean
from srlm.types import Bools, Estimate, Floats, Samples, Tokens, undefined

if TYPE_CHECKING:
    from srlm.measure.evaluate import Measurement

LEAST_SUPPORTED = 0.9
"""Share of prompts that must be supported for a round to be."""
LIMIT = 1e6
"""The power that stands for infinitely many rounds."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a forecast rests on: the responses known of each prompt, and what is known of them."""

    known: Known
    length_R: Floats
    """Tokens of each known response."""
    answer_R: tuple[str | None, ...]
    """Its extracted answer."""
    right_R: Floats
    """1 right, 0 wrong, not-a-number where the prompt has no answer."""
    answered_P: np.ndarray
    """Prompts whose responses are known to be right or wrong."""
    seed: int


@dataclass(frozen=True, slots=True)
class Point:
    """A round as forecast."""

    round: float
    beta: float
    exponent: float
    """p_t; pi_t is the base to this power."""
    kappa: Estimate
    log10_kappa: Estimate
    """The same for long responses, whose kappa overflows."""
    failure_fraction: Estimate
    confidence: Estimate
    sampling_accuracy: Estimate
    answer_accuracy: Estimate
    """Share of prompts whose likeliest *answer* is right: a majority vote without end."""
    length: Estimate
    entropy: Estimate
    effective_sample_size: float
    """Median over prompts of the effective number of samples behind the forecast."""
    supported_share: float
    """Share of prompts whose forecast is supported by samples or by what is known for certain."""

    @property
    def supported(self) -> bool:
        """False: an extrapolation, to be marked as one."""
        return self.supported_share >= LEAST_SUPPORTED

    def to_json(self) -> dict[str, Any]:
        """Numbers for programs."""
        out: dict[str, Any] = {
            "round": self.round,
            "beta": self.beta,
            "exponent": self.exponent,
            "effective_sample_size": (
                self.effective_sample_size if np.isfinite(self.effective_sample_size) else None
            ),
            "supported_share": self.supported_share,
            "supported": self.supported,
        }
        for name in (
            "kappa",
            "log10_kappa",
            "failure_fraction",
            "confidence",
            "sampling_accuracy",
            "answer_accuracy",
            "length",
            "entropy",
        ):
            out[name] = getattr(self, name).to_json()
        return out


def evidence(
    measurement: Measurement,
    answer_R: Sequence[str | None],
    mode_answer_P: Sequence[str | None],
    right_R: Floats,
    mode_right_P: Floats,
    *,
    exact: bool,
    seed: int,
) -> Evidence:
    """From a measurement of the base, with the answers of its samples and of its modes read.

    Args:
        measurement: of the base policy.
        answer_R, right_R: of each sample: its answer; 1, 0 or not-a-number.
        mode_answer_P, mode_right_P: of each prompt's mode.
        exact: the samples are an enumeration.
        seed: of the bootstrap.
    """
    modes = measurement.modes
    return gather(
        measurement.samples,
        modes.tokens_P,
        modes.logp_P,
        answer_R,
        mode_answer_P,
        right_R,
        mode_right_P,
        certified_P=modes.certified_P,
        exact=exact,
        seed=seed,
    )


def read_all(
    grader: Grader, drawn: Samples, mode_text_P: Sequence[str | None], finished_P: Bools
) -> tuple[list[str | None], list[str | None]]:
    """The answers of the samples and of the modes; those of a prompt are equal where they are the
    same."""
    both = grader.answers(
        [*drawn.text_R, *mode_text_P],
        np.concatenate([drawn.finished_R, finished_P]),
        np.concatenate([drawn.prompt_R, np.arange(len(mode_text_P))]),
    )
    return both[: len(drawn)], both[len(drawn) :]


def gather(
    samples: Samples,
    mode_P: Sequence[Tokens],
    mode_logp_P: Floats,
    answer_R: Sequence[str | None],
    mode_answer_P: Sequence[str | None],
    right_R: Floats,
    mode_right_P: Floats,
    *,
    certified_P: Bools | None = None,
    exact: bool,
    seed: int,
) -> Evidence:
    """``evidence`` from a measurement's parts, as a run folder keeps them.

    Args:
        certified_P: whether no response of the prompt is likelier than its mode; all, if left out.
    """
    listed = known(samples, mode_P, mode_logp_P, certified_P=certified_P, exact=exact)
    drawn = listed.row_R >= 0
    length_R = np.where(
        drawn,
        samples.length_R[listed.row_R],
        np.array([len(t) for t in mode_P])[listed.prompt_R],
    )
    answers = tuple(
        answer_R[r] if r >= 0 else mode_answer_P[p]
        for r, p in zip(listed.row_R.tolist(), listed.prompt_R.tolist(), strict=True)
    )
    right = np.where(drawn, right_R[listed.row_R], mode_right_P[listed.prompt_R])
    answered = np.bincount(listed.prompt_R, ~np.isnan(right), minlength=listed.prompts) > 0
    return Evidence(
        known=listed,
        length_R=length_R.astype(np.float64),
        answer_R=answers,
        right_R=right,
        answered_P=answered,
        seed=seed,
    )


def trajectory(
    evidence: Evidence, *, beta: float, rounds: int, efficiency: float | Sequence[float] = 1.0
) -> list[Point]:
    """Rounds 0..T of exact updates; slower ones at ``efficiency`` < 1 (p_t^efficiency).

    Args:
        evidence: what is known of the policy of round 0.
        beta: of the update.
        rounds: T.
        efficiency: one number, or one for each of the T + 1 rounds.

    Cost O(T R) plus the bootstrap.
    """
    exponent_T = exponents(beta, rounds) ** np.asarray(efficiency)
    return [
        at_exponent(evidence, p, beta=beta, number=t) for t, p in enumerate(exponent_T.tolist())
    ]


def limit(evidence: Evidence) -> Point:
    """Where exact updates lead: all mass on the likeliest response (shared among tied ones)."""
    return at_exponent(evidence, LIMIT, beta=float("nan"), number=float("inf"))


def at_exponent(
    evidence: Evidence, exponent: float | Floats, *, beta: float, number: float
) -> Point:
    """pi_0^p for one p, or for one p a prompt (its mean is then the point's exponent)."""
    listed = evidence.known
    sharp = sharpen(listed, exponent)
    seed = evidence.seed
    ess = sharp.sample_size_P
    supported = float(sharp.supported_P.mean())
    guarantee = "estimate" if supported >= LEAST_SUPPORTED else "extrapolation"
    guarantee = "exact" if listed.exact else guarantee
    method = "powers of the base" + ("" if listed.exact else ", from its samples and the mode")

    def over_prompts(value_P: Floats, least: float, most: float = np.inf) -> Estimate:
        return mean(value_P, seed, method, least=least, most=most, guarantee=guarantee)

    confidence_P = np.exp(sharp.log_top_P)
    answered = np.flatnonzero(evidence.answered_P)
    accuracy = answer_accuracy = undefined(method, "no answers")
    if len(answered):
        right_P = expect(listed, sharp, np.nan_to_num(evidence.right_R))
        accuracy = over_prompts(right_P[answered], 0.0, 1.0)
        answer_accuracy = over_prompts(_best_answer_right(evidence, sharp)[answered], 0.0, 1.0)
    return Point(
        round=number,
        beta=beta,
        exponent=float(np.mean(exponent)),
        kappa=kappa(sharp.log_top_P, method, seed=seed, guarantee=guarantee),
        log10_kappa=log10_kappa(sharp.log_top_P, method, seed=seed, guarantee=guarantee),
        failure_fraction=over_prompts((confidence_P <= 0.5).astype(float), 0.0, 1.0),
        confidence=over_prompts(confidence_P, 0.0, 1.0),
        sampling_accuracy=accuracy,
        answer_accuracy=answer_accuracy,
        length=over_prompts(expect(listed, sharp, evidence.length_R), 0.0),
        entropy=over_prompts(sharp.entropy_P, 0.0),
        effective_sample_size=float(np.median(ess)),
        supported_share=supported,
    )


def _best_answer_right(evidence: Evidence, sharp: Sharpened) -> Floats:
    """1 where the answer with most mass under pi_p is right, [P]."""
    mass: dict[tuple[int, str], float] = {}
    right: dict[tuple[int, str], float] = {}
    rows = zip(
        evidence.known.prompt_R.tolist(),
        evidence.answer_R,
        sharp.weight_R.tolist(),
        np.nan_to_num(evidence.right_R).tolist(),
        strict=True,
    )
    for p, answer, weight, is_right in rows:
        if answer is None:
            continue
        mass[p, answer] = mass.get((p, answer), 0.0) + weight
        right[p, answer] = is_right
    best_P = np.zeros(evidence.known.prompts)
    out_P = np.zeros(evidence.known.prompts)
    for (p, answer), weight in mass.items():
        if weight > best_P[p]:
            best_P[p], out_P[p] = weight, right[p, answer]
    return out_P
