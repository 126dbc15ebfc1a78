"""A run's forecast of its later rounds, made again after each round from what the run keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from srlm.config import reward_parts
from srlm.forecast import dynamics
from srlm.forecast.dynamics import Mass, Score
from srlm.forecast.groups import Rows, ScoreOf
from srlm.forecast.pace import (
    MOST_ROWS,
    RELIABLE,
    Gone,
    Method,
    State,
    forecast_json,
    gone,
    later_rounds,
    parted,
    short_share,
)
from srlm.forecast.powers import sharpen
from srlm.forecast.trajectory import Evidence, gather, read_all
from srlm.grading import Grader
from srlm.types import Estimate, Floats, Ints, Prompt, PromptTable, Round, Samples

AHEAD = 8
"""Rounds forecast. A run's files do not depend on how many rounds are asked for, so that it can be
given more later on."""
READ = ("likelihood", "likelihood-per-token", "consistency")
"""Rewards that samples show by themselves, in each round anew."""


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
        exact=not np.allclose(samples.weight_R, 1.0 / counts[samples.prompt_R]),
        seed=seed,
    )


def state_of(
    samples: Samples,
    table: PromptTable,
    grader: Grader,
    *,
    likelihood: bool,
    score_R: Floats | None = None,
) -> State:
    """What a forecast rests on: the held-out samples of a round, or for the likelihood their
    distinct responses and the modes, whose probabilities are known.

    Args:
        samples, table: of the round.
        grader: reads answers.
        likelihood: the reward is the likelihood alone.
        score_R: rewards of the samples that they do not show themselves.
    """
    if likelihood and not np.isnan(table.log_p_star).any():
        found = evidence_of(samples, table, grader, 0)
        listed = found.known
        with np.errstate(divide="ignore"):
            log_R = np.log(sharpen(listed, 1.0).weight_R)
        rows = Rows(
            listed.prompt_R,
            _numbers(listed.prompt_R, found.answer_R),
            found.length_R.astype(np.int64),
            np.full(len(log_R), np.nan),
        )
        return State(
            rows, Mass(listed.prompt_R, log_R, listed.logp_R), found.right_R, listed.mode_R
        )
    prompts = [
        Prompt(i, i, answers) for i, answers in zip(table.prompt_id, table.answers, strict=True)
    ]
    answer_R = grader.answers(samples.text_R, samples.finished_R, samples.prompt_R)
    rows = Rows(
        samples.prompt_R,
        _numbers(samples.prompt_R, answer_R),
        samples.length_R,
        np.full(len(samples), np.nan) if score_R is None else score_R,
    )
    right_R = grader.grades(samples.text_R, samples.finished_R, prompts, samples.prompt_R)
    return State(rows, dynamics.of_samples(samples), right_R)


def _numbers(prompt_R: Ints, answer_R: Sequence[str | None]) -> Ints:
    """Answers of each prompt counted from 0; -1 where there is none."""
    index: dict[int, dict[str, int]] = {}
    out = []
    for p, answer in zip(prompt_R.tolist(), answer_R, strict=True):
        names = index.setdefault(p, {})
        out.append(-1 if answer is None else names.setdefault(answer, len(names)))
    return np.array(out, dtype=np.int64)


def score_of(reward: str, length_tolerance: float | None = None) -> ScoreOf:
    """A reward of the command line, read off rows: those of ``READ`` under the shares as they are;
    the sum of all others is what the rows hold, as it was when they were sampled.

    Args:
        reward: ``--reward``.
        length_tolerance: ``--length-tolerance``.
    """
    parts = reward_parts(reward)

    def of(rows: Rows) -> Score:
        made: list[tuple[Score, float]] = []
        for name, weight in parts.items():
            if name == "likelihood":
                made.append((dynamics.likelihood, weight))
            elif name == "likelihood-per-token":
                made.append((dynamics.likelihood_per_token(rows.length_R), weight))
            elif name == "consistency":
                made.append((dynamics.vote_share(rows.ballot()), weight))
        if set(parts) - set(READ):
            made.append((dynamics.frozen(rows.score_R), 1.0))
        score = dynamics.combined(made)
        if length_tolerance is None:
            return score
        return dynamics.length_controlled(score, rows.length_R, length_tolerance)

    return of


def method_of(
    reward: str,
    beta: float,
    k: int | None,
    update: str = "weighted",
    length_tolerance: float | None = None,
) -> Method:
    """A run's rounds as its forecast sees them, from settings of the command line.

    Args:
        reward: ``--reward``.
        beta: of the update.
        k: samples of a prompt in a round; None where all responses are listed.
        update: ``--update``.
        length_tolerance: ``--length-tolerance``.
    """
    parts = set(reward_parts(reward))
    return Method(
        score_of(reward, length_tolerance),
        beta,
        k,
        update,
        own=not parts - {"likelihood", "likelihood-per-token"},
        moves=bool(asked(reward)),
        reliable=k is None or (update in RELIABLE and "self-certainty" not in parts),
    )


def asked(reward: str) -> dict[str, float]:
    """The parts of a reward that held-out samples must be given by the model.

    >>> asked("judge:1,consistency:0.5"), asked("consistency")
    ({'judge': 1.0}, {})
    """
    return {name: w for name, w in reward_parts(reward).items() if name not in READ}


def forecast_after(
    records: Sequence[Round],
    state: State,
    before: Sequence[Mapping[str, Any]],
    method: Method,
    seed: int,
) -> dict[str, Any]:
    """The forecast of the ``AHEAD`` rounds after the last record (``pace.forecast_json``).

    Args:
        records: of rounds 0 to t.
        state: of the last.
        before: the forecasts made after rounds 0 to t - 1.
        method: of the rounds.
        seed: of the groups.
    """
    state = state.first(MOST_ROWS)
    cut = below(before[0]) if before else parted(state.rows, state.mass)
    short = None if cut is None else short_share(state, state.mass, cut)
    done = paces_of(records, before, short)
    t = records[-1].round
    now = records[-1].estimates
    later = later_rounds(state, now, done, method, at=t, ahead=AHEAD, seed=seed, cut=cut)
    return forecast_json(t, state, method, done, later, seed, cut)


def below(made: Mapping[str, Any]) -> int | None:
    """The length under which responses are short, as the first forecast of a run says."""
    told = made.get("short")
    return None if told is None else int(told["below"])


def paces_of(
    records: Sequence[Round], before: Sequence[Mapping[str, Any]], short: float | None
) -> list[Gone]:
    """What each round did, from the forecasts made before it.

    Args:
        records: of rounds 0 to t.
        before: the forecasts made after rounds 0 to t - 1.
        short: share of short responses in the last round.
    """
    at = {r.round: r for r in records}
    told = {
        made["made"]: made["short"]["share"] for made in before if made.get("short") is not None
    }
    if short is not None:
        told[records[-1].round] = short
    return [
        gone(
            made,
            at[t].estimates,
            at[t + 1].estimates,
            _error(made["by"], at[t], at[t + 1]),
            told.get(t + 1),
        )
        for made in before
        if (t := made["made"]) + 1 in at and "steps" in made
    ]


def _error(name: str, a: Round, b: Round) -> float:
    """Standard error of the mean change of a share over the prompts."""
    one, two = (
        None if r.table is None else r.table.vote_share if name == "vote_share" else r.table.p_star
        for r in (a, b)
    )
    if one is None or two is None or len(one) != len(two) or len(one) < 2:
        return float(np.hypot(_half(a[name]), _half(b[name]))) / 2
    change_P = two - one
    return float(np.nanstd(change_P, ddof=1) / np.sqrt(len(change_P)))


def _half(e: Estimate) -> float:
    return 0.0 if e.low is None or e.high is None else (e.high - e.low) / 2
