"""A run's forecast of its later rounds, made again after each round from what the run keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from srlm.forecast.make import read_all
from srlm.forecast.pace import Pace, forecast_json, later_rounds, pace_of_round
from srlm.forecast.trajectory import Evidence, gather
from srlm.grading import Grader
from srlm.types import Prompt, PromptTable, Round, Samples

AHEAD = 8
"""Rounds forecast. A run's files do not depend on how many rounds are asked for, so that it can be
given more later on."""


def evidence_of(samples: Samples, table: PromptTable, grader: Grader, seed: int) -> Evidence:
    """What the held-out samples and modes of a round say of its policy.

    Args:
        samples: held-out samples.
        table: its prompts with their modes.
        grader: reads answers.
        seed: of the bootstrap.
    """
    rows = zip(table.prompt_id, table.prompt, table.answers, strict=True)
    prompts = [Prompt(i, text, answers) for i, text, answers in rows]
    finished_P = table.mode_finished
    answer_R, mode_answer_P = read_all(grader, samples, table.mode_text, finished_P)
    counts = np.bincount(samples.prompt_R)
    return gather(
        samples,
        table.mode_tokens,
        table.log_p_star,
        answer_R,
        mode_answer_P,
        grader.grades(samples.text_R, samples.finished_R, prompts, samples.prompt_R),
        grader.grades(table.mode_text, finished_P, prompts),
        certified_P=table.certified,
        exact=not np.allclose(samples.weight_R, 1.0 / counts[samples.prompt_R]),
        seed=seed,
    )


def forecast_after(
    records: Sequence[Round], at: Sequence[Evidence], paces: Sequence[Pace], *, beta: float
) -> dict[str, Any]:
    """The forecast of the ``AHEAD`` rounds after the last record (``pace.forecast_json``).

    Args:
        records: of rounds 0 to t.
        at: evidence of the last round, and before it that of the round before, if there is one.
        paces: of rounds 1 to t - 1.
        beta: of the update.
    """
    t = records[-1].round
    known = list(paces)
    if t:
        known.append(pace_of_round(at[0], records[-2].estimates, records[-1].estimates, beta))
    later = later_rounds(at[-1], t, known, beta=beta, rounds=t + AHEAD)
    return forecast_json(t, known, later)


def paces_of(forecasts: Sequence[Mapping[str, Any]]) -> list[Pace]:
    """What each round did, of forecasts as they are kept."""
    return [Pace(**made["pace"]) for made in forecasts if made["pace"] is not None]
