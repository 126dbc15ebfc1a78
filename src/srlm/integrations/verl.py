"""For verl: a score that returns the answer it read, and the vote of a prompt's responses.

::

    # verl 0.9, one score per response (validation, and files that ``srlm forecast`` reads)
    reward.custom_reward_function.path=.../srlm/integrations/verl.py
    reward.custom_reward_function.name=compute_score

``answer`` (how answers are read, as the command line's ``--answer``) goes by
``reward.custom_reward_function.reward_kwargs.answer``. ``compute_votes`` is for a reward
manager that hands over whole batches, as verl's ``BatchRewardManager``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from srlm.errors import UserError
from srlm.grading import Grader, grader
from srlm.integrations.votes import Votes


@lru_cache
def _grader(answer: str) -> Grader:
    return grader(answer)


@lru_cache
def _votes(answer: str) -> Votes:
    return Votes(_grader(answer))


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str | None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    answer: str = "math-verify",
    **others: Any,
) -> dict[str, Any]:
    """Score one response by its reference; ``pred`` is the answer that was read.

    Returns:
        score and acc: 1.0 right, 0.0 wrong or no answer; pred: the answer, "" where there is none.
    """
    found = _grader(answer).read(solution_str)
    right = ground_truth is not None and _grader(answer).right(found, (str(ground_truth),))
    return {"score": float(right), "acc": float(right), "pred": found or ""}


def compute_votes(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[str | None],
    extra_infos: Sequence[Mapping[str, Any]],
    *,
    answer: str = "math-verify",
    kind: str = "share",
    **others: Any,
) -> list[dict[str, Any]]:
    """The vote among each prompt's responses of a batch as their scores; no labels in ``score``.

    Args:
        extra_infos: with ``index``, the number of the prompt in its data (verl's datasets have it).
        kind: ``share`` (ScPO) or ``majority`` (TTRL).

    Returns:
        For each response: score, the vote (0 where no answer can be parsed); pred, the answer;
        acc, whether it is right, for looking only; and the batch's vote_share, readable_share and
        kappa_answer, the same in each row.

    Raises:
        UserError: a response without ``index``.
    """
    missing = [r for r, info in enumerate(extra_infos) if "index" not in info]
    if missing:
        raise UserError(
            f"{len(missing)} responses do not say which prompt they are of",
            "give each row of the data an extra_info.index",
        )
    key_R = [
        (source, str(info["index"])) for source, info in zip(data_sources, extra_infos, strict=True)
    ]
    vote = _votes(answer)(key_R, solution_strs)
    score_R = np.nan_to_num(vote.share_R if kind == "share" else vote.majority_R)
    known = _grader(answer)
    shown = {
        name: vote.metrics.get(name, float("nan"))
        for name in ("vote_share", "readable_share", "kappa_answer")
    }
    return [
        {
            "score": float(score),
            "acc": float(truth is not None and known.right(found, (str(truth),))),
            "pred": found or "",
            **shown,
        }
        for score, found, truth in zip(score_R, vote.answer_R, ground_truths, strict=True)
    ]
