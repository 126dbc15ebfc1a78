"""What a policy has kept of the base, in one number: how likely a sample is what the base favours.

Confidence and fidelity move against each other when a round makes a policy surer of modes some
of which are new. Both of these count the two at once, and neither needs an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import binom

from srlm.errors import quoted
from srlm.grading import Grader
from srlm.measure.evaluate import BaseReference, Measurement, log_probs, reference
from srlm.measure.intervals import mean
from srlm.measure.modes import TIE
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
    """base_mode_probability, base_answer_share, answer_spread and answer_agreement of a measured
    policy.

    With y_0* the base's mode and a_0* its majority answer:

    * base_mode_probability = E_x[pi(y_0*(x)|x)], over prompts whose base mode is certified and
      unique. Confidence for the base; tends to 1 under pure sharpening. Modes that were not sampled
      are scored.
    * base_answer_share = E_x[pi(a_0*(x)|x)]: accuracy by the base's votes, as if they were right.
      Both parts come from samples, so each of the base's K samples in turn is left out of the vote:
      the value is the mean over them of the share of a policy's samples with the majority answer of
      the other K - 1 (that of the base itself: whether the one left out has it). So rounds compare
      without the base's being flattered by a vote of the samples that it is judged on. Tied
      answers share. A single sample is no majority: it counts as missed, and prompts on which no
      two of the base's samples agree are left out.
    * answer_spread = P_x[a_t*(x) = a] - P_x[a_0*(x) = a], a the majority answer a_t* of most
      prompts, over those of which the base had an answer: how far one answer has spread. Exact
      rounds of votes never change a majority answer, and so leave it at 0; training carries a
      common answer to prompts that did not have it (docs/real-model.md).
    * answer_agreement = P_x[majority answer is a_0*], over prompts on which the base's majority is
      clear (more than half of pi_0 at level ``CLEAR``, one-sided binomial test).

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
    out["base_answer_share"] = base_answer_share(
        then.samples, then_R, None if base is None else made.samples, now_R, P, seed=seed
    )
    answer_P, clear_P = _majority(then.samples, then_R, P)
    now_P, _ = _majority(made.samples, now_R, P)
    votes = (
        [max(v, key=v.__getitem__, default=None) for v in _shares(some, some_R, P)]
        for some, some_R in ((made.samples, now_R), (then.samples, then_R))
    )
    out["answer_spread"] = answer_spread(*votes, seed=seed)
    if not clear_P.any():
        why = undefined("majority answers", "on no prompt has the base a clear majority answer")
        return out | {"answer_agreement": why}
    agree_P = np.array([float(a == b) for a, b in zip(now_P, answer_P, strict=True)])[clear_P]
    left_out = int((~clear_P).sum())
    note = f"{left_out} prompts left out: no clear majority in the base" if left_out else ""
    agreement = mean(agree_P, seed, "majority answers", least=0.0, most=1.0, note=note)
    return out | {"answer_agreement": agreement}


def base_answer_share(
    then: Samples,
    then_R: Sequence[str | None],
    now: Samples | None,
    now_R: Sequence[str | None],
    prompts: int,
    *,
    seed: int,
) -> Estimate:
    """base_answer_share (``kept``) from samples and their answers.

    Args:
        then, then_R: of the base.
        now, now_R: of the policy; None: it is the base.
        prompts: how many.
        seed: of the bootstrap over prompts.
    """
    samples = then if now is None else now
    then_P, now_P = (_shares(s, a_R, prompts) for s, a_R in ((then, then_R), (samples, now_R)))
    K_P = np.bincount(then.prompt_R, minlength=prompts)
    listed_P = _listed(then.weight_R, then.prompt_R, K_P)
    value_P = np.array(
        [
            voted(a, b, 0 if listed else K, same=now is None)
            for a, b, K, listed in zip(then_P, now_P, K_P.tolist(), listed_P, strict=True)
        ]
    )
    known_P = ~np.isnan(value_P)
    if not known_P.any():
        return undefined("the base's votes", "on no prompt do two of the base's samples agree")
    left_out = int((~known_P).sum())
    note = f"{left_out} prompts left out: no majority in the base" if left_out else ""
    return mean(value_P[known_P], seed, "the base's votes", least=0.0, most=1.0, note=note)


def voted(
    then: Mapping[str, float], now: Mapping[str, float], K: int, *, same: bool = False
) -> float:
    """A prompt's part of base_answer_share.

    Args:
        then: share of each answer among the base's samples.
        now: among the policy's.
        K: the base's samples; 0: its responses are listed, so that the shares are exact.
        same: the policy is the base.

    Returns:
        Not-a-number where there is no majority.

    >>> voted({"a": 0.75, "b": 0.25}, {"a": 0.5}, 4)
    0.5
    >>> voted({"a": 0.75, "b": 0.25}, {"a": 0.75, "b": 0.25}, 4, same=True)
    0.75
    """
    if K == 0:
        top = [a for a, share in then.items() if share >= max(then.values()) - TIE]
        return float(np.mean([now.get(a, 0.0) for a in top])) if top else float("nan")
    count = {a: round(share * K) for a, share in then.items()}
    left_out: list[tuple[str | None, int]] = [*count.items(), (None, K - sum(count.values()))]
    found, known = 0.0, False
    for answer, many in left_out:
        rest = {a: n - (a == answer) for a, n in count.items()}
        most = max(rest.values(), default=0)
        if not many or most < 2:
            continue
        top = [a for a, n in rest.items() if n == most]
        each = [float(a == answer) if same else now.get(a, 0.0) for a in top]
        found, known = found + many * float(np.mean(each)) / K, True
    return found if known else float("nan")


def answer_spread(
    now_P: Sequence[str | None], then_P: Sequence[str | None], *, seed: int
) -> Estimate:
    """answer_spread (``kept``) from the majority answers, None where no sample has one.

    Answers are compared as they are written. The note says which answer, and on how many prompts.

    >>> answer_spread(["2", "2", "2", "7", "2"], ["2", "3", "1", "7", None], seed=0).value
    0.5
    """
    known = [(a, b) for a, b in zip(now_P, then_P, strict=True) if b is not None]
    counts = Counter(a for a, _ in known if a is not None)
    if not counts:
        return undefined("majority answers", "no prompt has one")
    most = max(counts, key=counts.__getitem__)
    now, then = np.array([[a == most, b == most] for a, b in known], dtype=float).T
    note = f"{quoted(most)}: {now.sum():.0f} of {len(now)} prompts, {then.sum():.0f} in the base"
    return mean(now - then, seed, "majority answers, paired", least=-1.0, most=1.0, note=note)


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
    samples: Samples, answer_R: Sequence[str | None], prompts: int
) -> tuple[list[str | None], Bools]:
    """The answer with most weight among a prompt's responses, first of equals; whether it is
    clear. Responses without an answer count as one that is never clear."""
    weight_P = _weights(samples, answer_R, prompts)
    answer_P = [max(weight, key=weight.__getitem__, default=None) for weight in weight_P]
    share_P = np.array([max(weight.values(), default=0.0) for weight in weight_P])
    named_P = np.array([answer is not None for answer in answer_P], dtype=bool)
    return answer_P, named_P & _clear(share_P, samples.weight_R, samples.prompt_R)


def _weights(
    samples: Samples, answer_R: Sequence[str | None], prompts: int
) -> list[dict[str | None, float]]:
    """The weight of each answer of a prompt, and of responses without one."""
    weight_P: list[dict[str | None, float]] = [{} for _ in range(prompts)]
    rows = zip(samples.prompt_R.tolist(), answer_R, samples.weight_R.tolist(), strict=True)
    for p, answer, weight in rows:
        weight_P[p][answer] = weight_P[p].get(answer, 0.0) + weight
    return weight_P


def _shares(
    samples: Samples, answer_R: Sequence[str | None], prompts: int
) -> list[dict[str, float]]:
    """The share of each answer among a prompt's responses."""
    return [
        {a: weight for a, weight in one.items() if a is not None}
        for one in _weights(samples, answer_R, prompts)
    ]


def _listed(weight_R: Floats, prompt_R: Ints, K_P: Ints) -> Bools:
    """Whether a prompt's responses are listed with their probabilities; samples weigh the same."""
    uneven_R = ~np.isclose(weight_R, 1.0 / K_P[prompt_R])
    return np.bincount(prompt_R, uneven_R, minlength=len(K_P)) > 0


def _clear(share_P: Floats, weight_R: Floats, prompt_R: Ints) -> Bools:
    """Whether a share above one half is not chance; equal weights are those of samples."""
    P = len(share_P)
    K_P = np.bincount(prompt_R, minlength=P)
    hits_P = np.rint(share_P * K_P)
    by_chance_P = binom.sf(hits_P - 1, K_P, 0.5)
    return np.where(_listed(weight_R, prompt_R, K_P), share_P > 0.5, by_chance_P <= CLEAR)
