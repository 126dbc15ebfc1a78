"""What a policy has kept of the base, in one number: how likely a draw is what the base favours.

Confidence and fidelity move against each other when a round makes a policy surer of modes some
of which are new. Both of these count the two at once, and neither needs an answer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import binom

from srlm.measure.evaluate import BaseReference, Measurement, reference
from srlm.measure.intervals import by_prompt, mean
from srlm.policy.base import Policy
from srlm.types import Bools, Estimate, Floats, Samples, rows_by_prompt, undefined

CLEAR = 0.05
"""Level at which a majority among draws must be one of the policy's too."""


def kept(
    policy: Policy,
    made: Measurement,
    base: BaseReference | None,
    read: Callable[[str], str | None],
    *,
    seed: int,
) -> dict[str, Estimate]:
    """base_mode_probability, base_answer_share and answer_agreement of a measured policy.

    With y_0* the base's mode and a_0* its majority answer:

    * base_mode_probability = E_x[pi(y_0*(x)|x)], over prompts whose base mode is certified and
      unique. Confidence for the base; tends to 1 under pure sharpening. One scoring pass.
    * base_answer_share = E_x[pi(a_0*(x)|x)] by the draws, over prompts on which the base's
      majority is clear (more than half of pi_0 at level ``CLEAR``, one-sided binomial test).
    * answer_agreement = P_x[majority answer is a_0*], over the same prompts.

    Args:
        policy: the measured policy.
        made: its measurement.
        base: None where it is the base itself.
        read: a response's answer, None where there is none (``srlm.answers.extractor``).
        seed: of the bootstrap over prompts.
    """
    then = reference(made) if base is None else base
    out = {"base_mode_probability": _mode(policy, made, then, seed)}
    P = len(made.prompts)
    answer_P, clear_P = _majority(then.samples, read, P)
    names = ("base_answer_share", "answer_agreement")
    if not clear_P.any():
        why = undefined("majority answers", "on no prompt has the base a clear majority answer")
        return out | dict.fromkeys(names, why)
    same_R = np.array(
        [
            float(read(text) == answer_P[p])
            for p, text in zip(made.samples.prompt_R, made.samples.text_R, strict=True)
        ]
    )
    share_P = by_prompt(same_R, made.samples.weight_R, made.samples.prompt_R, P)[clear_P]
    now_P, _ = _majority(made.samples, read, P)
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
    logp_K = policy.log_prob(made.prompts, known, [base.mode_P[int(p)] for p in known])
    left_out = len(base.unique_P) - len(known)
    note = f"{left_out} prompts left out: no certified mode in the base" if left_out else ""
    return mean(np.exp(logp_K), seed, "scoring", least=0.0, most=1.0, note=note)


def _majority(
    samples: Samples, read: Callable[[str], str | None], prompts: int
) -> tuple[list[str | None], Bools]:
    """The answer with most weight among a prompt's responses, first of equals; whether it is
    clear. Responses without an answer count as one that is never clear."""
    known: dict[str, str | None] = {text: read(text) for text in set(samples.text_R)}
    answer_P: list[str | None] = []
    clear_P = np.zeros(prompts, dtype=bool)
    for p, rows in enumerate(rows_by_prompt(samples.prompt_R, prompts)):
        weight: dict[str | None, float] = {}
        for r in rows:
            answer = known[samples.text_R[r]]
            weight[answer] = weight.get(answer, 0.0) + float(samples.weight_R[r])
        top = max(weight, key=lambda a: weight[a]) if weight else None
        answer_P.append(top)
        clear_P[p] = top is not None and _clear(weight[top], samples.weight_R[rows])
    return answer_P, clear_P


def _clear(share: float, weight_K: Floats) -> bool:
    """Whether a share above one half is not chance; equal weights are those of draws."""
    K = len(weight_K)
    if not np.allclose(weight_K, 1.0 / K):
        return share > 0.5
    return bool(binom.sf(round(share * K) - 1, K, 0.5) <= CLEAR)
