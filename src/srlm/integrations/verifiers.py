"""For verifiers (v1): the vote among an episode's traces as their reward.

::

    import verifiers.v1 as vf
    from srlm.integrations.verifiers import record_votes

    class Voted(vf.Env[vf.EnvConfig]):
        async def run(self, task, agents):
            ...                      # n solvers of one task
        async def finalize(self, task, episode):
            record_votes(episode.traces, answer="math-verify")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from srlm.grading import grader
from srlm.integrations.votes import Vote, Votes


def record_votes(
    traces: Sequence[Any], *, answer: str = "math-verify", weight: float = 1.0
) -> Vote:
    """Give each trace of one task the share of the traces that reach its answer, as reward "vote".

    A trace that was cut off, or whose last reply has no answer that can be parsed, gets 0. The
    metrics of the vote (``integrations.votes``) are recorded on every trace as ``srlm/NAME``.

    Args:
        traces: of one task: with ``last_reply``, ``is_truncated``, ``record_reward`` and
            ``record_metric``.
        answer: how answers are read, as the command line's ``--answer``.
        weight: of the reward.
    """
    vote = Votes(grader(answer))(
        ["task"] * len(traces),
        [trace.last_reply for trace in traces],
        [not trace.is_truncated for trace in traces],
    )
    for trace, share in zip(traces, np.nan_to_num(vote.share_R), strict=True):
        trace.record_reward("vote", float(share), weight)
        for name, value in vote.metrics.items():
            trace.record_metric(f"srlm/{name}", value)
    return vote
