"""What a prompt's own samples vote for: figures of a round that need no right answer.

With v(a|x) the share of a prompt's samples whose answer is a, over all its samples (all responses,
where they are listed): unparseable ones are in the whole and vote for nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from srlm.grading import Grader
from srlm.measure.condition import kappa
from srlm.measure.evaluate import Measurement
from srlm.measure.intervals import mean, share
from srlm.policies.base import Exact, Policy
from srlm.types import Estimate, PromptTable, undefined


def votes(
    policy: Policy,
    made: Measurement,
    grader: Grader,
    before: PromptTable | None,
    *,
    seed: int,
) -> tuple[dict[str, Estimate], dict[str, list[Any]]]:
    """readable, vote_share, kappa_vote, vote_flips and vote_accuracy of a measured policy.

    * readable = E_x[sum_a v(a|x)].
    * vote_share = E_x[max_a v(a|x)]; from K samples biased up, for the answer was chosen for its
      share, so
    * kappa_vote = E_x[1 / max_a v(a|x)] is biased down, by the more the fewer samples. It is kappa
      of answers where everything is parseable; exact rounds of votes never raise it. A prompt
      without a parseable sample counts with the share 1/K, and a note says how many do.
    * vote_flips = P_x[the majority answer is another one than a round before]; a prompt whose
      samples vote for nothing has an answer of its own.
    * vote_accuracy = P_x[the majority answer is right], over the prompts whose answer is known.

    Args:
        policy: the measured policy.
        made: its measurement.
        grader: reads answers and compares them.
        before: the table of the round before; None for the base.
        seed: of the bootstrap over prompts.

    Returns:
        The estimates, and three columns for the table: ``vote`` (the majority answer; the first of
        equals), ``vote_share`` and ``vote_correct`` (None without a known answer).
    """
    samples, P = made.samples, len(made.prompts)
    answer_R = grader.answers(samples.text_R, samples.finished_R, samples.prompt_R)
    share_P: list[dict[str, float]] = [{} for _ in range(P)]
    rows = zip(samples.prompt_R.tolist(), answer_R, samples.weight_R.tolist(), strict=True)
    for p, answer, weight in rows:
        if answer is not None:
            share_P[p][answer] = share_P[p].get(answer, 0.0) + weight
    vote_P = [max(v, key=v.__getitem__, default=None) for v in share_P]
    top_P = np.minimum([max(v.values(), default=0.0) for v in share_P], 1.0)
    readable_P = np.minimum([sum(v.values()) for v in share_P], 1.0)
    exact = isinstance(policy, Exact)
    method = "enumeration" if exact else "votes of the held-out samples"
    guarantee = "exact" if exact else "estimate"
    silent = int((top_P == 0).sum())
    least_P = 1 / np.bincount(samples.prompt_R, minlength=P)
    note = f"{silent} prompts without a parseable sample count as {least_P[0]:.3g}" * (silent > 0)
    with np.errstate(divide="ignore"):
        sure = kappa(
            np.log(np.where(top_P > 0, top_P, least_P)),
            method + ("" if exact else ", biased down"),
            seed=seed,
            guarantee=guarantee,
        )
    out = {
        "readable": mean(readable_P, seed, method, least=0.0, most=1.0, guarantee=guarantee),
        "vote_share": mean(
            top_P,
            seed,
            method + ("" if exact else ", biased up"),
            least=0.0,
            most=1.0,
            guarantee=guarantee,
        ),
        "kappa_vote": _noted(sure, note),
        "vote_flips": undefined("majority answers", "this is the base"),
    }
    if before is not None:
        pairs = zip(vote_P, before.vote, strict=True)
        flips = sum(not _same(grader, now, then) for now, then in pairs)
        out["vote_flips"] = share(flips, P, method="majority answers of two rounds")
    right_P = [
        grader.right(a, x.answers) if x.answers else None
        for a, x in zip(vote_P, made.prompts, strict=True)
    ]
    right = [r for r in right_P if r is not None]
    known = share(sum(right), len(right), method="majority answers") if right else None
    out["vote_accuracy"] = known or undefined("majority answers", "no answers")
    return out, {"vote": vote_P, "vote_share": top_P.tolist(), "vote_correct": right_P}


def _same(grader: Grader, one: str | None, other: str | None) -> bool:
    return one == other or (one is not None and other is not None and grader.same(one, other))


def _noted(e: Estimate, note: str) -> Estimate:
    text = "; ".join(filter(None, (note, e.note)))
    return Estimate(e.value, e.low, e.high, e.n, e.method, e.guarantee, text)
