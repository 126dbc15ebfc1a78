"""What a policy has kept of the base, in one number: how likely a sample is what the base favours.

Confidence and fidelity move against each other when a round makes a policy surer of modes some
of which are new. Both of these count the two at once, and neither needs an answer.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from srlm.grading import Grader
from srlm.measure.evaluate import BaseReference, Measurement, log_probs, reference
from srlm.measure.intervals import by_prompt, mean
from srlm.policies.base import Policy
from srlm.types import Bools, Estimate, Floats, Ints, Samples, undefined

CLEAR = 0.05
"""Level at which a majority among samples must be one of the policy's too."""


def kept(
    policy: Policy,
    made: Measurement,
    base: BaseReference | None,
    grader: Grader,
    *,
    seed: int,
) -> dict[str, Estimate]:
    """base_mode_probability, base_answer_share and answer_agreement of a measured policy.

    With y_0* the base's mode and a_0* its majority answer:

    * base_mode_probability = E_x[pi(y_0*(x)|x)], over prompts whose base mode is certified and
      unique. Confidence for the base; tends to 1 under pure sharpening. Modes that were not sampled
      are scored.
    * base_answer_share = E_x[pi(a_0*(x)|x)] by the samples, over prompts on which the base's
      majority is clear (more than half of pi_0 at level ``CLEAR``, one-sided binomial test).
    * answer_agreement = P_x[majority answer is a_0*], over the same prompts.

    Args:
        policy: the measured policy.
        made: its measurement.
        base: None where it is the base itself.
        grader: reads answers and compares them.
        seed: of the bootstrap over prompts.
    """
    then = reference(made) if base is None else base
    out = {"base_mode_probability": _mode(policy, made, then, seed)}
    P = len(made.prompts)
    then_R, now_R = _answers(grader, then.samples, made.samples)
    answer_P, clear_P = _majority(then.samples, then_R, P)
    names = ("base_answer_share", "answer_agreement")
    if not clear_P.any():
        why = undefined("majority answers", "on no prompt has the base a clear majority answer")
        return out | dict.fromkeys(names, why)
    now_P, _ = _majority(made.samples, now_R, P)
    same_R = np.array(
        [
            float(answer == answer_P[p])
            for p, answer in zip(made.samples.prompt_R.tolist(), now_R, strict=True)
        ]
    )
    share_P = by_prompt(same_R, made.samples.weight_R, made.samples.prompt_R, P)[clear_P]
    agree_P = np.array([float(a == b) for a, b in zip(now_P, answer_P, strict=True)])[clear_P]
    left_out = int((~clear_P).sum())
    note = f"{left_out} prompts left out: no clear majority in the base" if left_out else ""
    for name, value_P in zip(names, (share_P, agree_P), strict=True):
        out[name] = mean(value_P, seed, "majority answers", least=0.0, most=1.0, note=note)
    return out


def _mode(policy: Policy, made: Measurement, base: BaseReference, seed: int) -> Estimate:
    known = np.flatnonzero(base.unique_P)
    if not len(known):
        return undefined("scoring", "no mode of the base is certified")
    mode_K = [base.mode_P[int(p)] for p in known]
    logp_K = log_probs(policy.log_prob, made.prompts, known, mode_K, made.samples)
    left_out = len(base.unique_P) - len(known)
    note = f"{left_out} prompts left out: no certified mode in the base" if left_out else ""
    return mean(np.exp(logp_K), seed, "scoring", least=0.0, most=1.0, note=note)


def _answers(
    grader: Grader, then: Samples, now: Samples
) -> tuple[list[str | None], list[str | None]]:
    """The answers of both policies' responses, equal where they are the same."""
    both_R = grader.answers(
        then.text_R + now.text_R,
        np.concatenate([then.finished_R, now.finished_R]),
        np.concatenate([then.prompt_R, now.prompt_R]),
    )
    return both_R[: len(then)], both_R[len(then) :]


def _majority(
    samples: Samples, answer_R: list[str | None], prompts: int
) -> tuple[list[str | None], Bools]:
    """The answer with most weight among a prompt's responses, first of equals; whether it is
    clear. Responses without an answer count as one that is never clear."""
    weight_P: list[dict[str | None, float]] = [{} for _ in range(prompts)]
    rows = zip(samples.prompt_R.tolist(), answer_R, samples.weight_R.tolist(), strict=True)
    for p, answer, weight in rows:
        weight_P[p][answer] = weight_P[p].get(answer, 0.0) + weight
    answer_P = [max(weight, key=weight.__getitem__, default=None) for weight in weight_P]
    share_P = np.array([max(weight.values(), default=0.0) for weight in weight_P])
    named_P = np.array([answer is not None for answer in answer_P], dtype=bool)
    return answer_P, named_P & _clear(share_P, samples.weight_R, samples.prompt_R)


def _clear(share_P: Floats, weight_R: Floats, prompt_R: Ints) -> Bools:
    """Whether a share above one half is not chance; equal weights are those of samples."""
    P = len(share_P)
    K_P = np.bincount(prompt_R, minlength=P)
    per_draw_R = 1.0 / K_P[prompt_R]
    enumerated_P = np.bincount(prompt_R, ~np.isclose(weight_R, per_draw_R), minlength=P) > 0
    hits_P = np.rint(share_P * K_P)
    by_chance_P = binom.sf(hits_P - 1, K_P, 0.5)
    return np.where(enumerated_P, share_P > 0.5, by_chance_P <= CLEAR)
