"""The likeliest responses of prompts and what is certain about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import numpy as np

from srlm.types import Bools, Floats, Ints, Samples, Tokens, rows_by_prompt

TIE = 1e-9
"""Outcomes whose log-probabilities differ by no more than this are called tied, nats."""


@dataclass(frozen=True, slots=True)
class Modes:
    """The best outcome of each of P prompts and what is certain about it. Logs are natural.

    log p*(x) lies in [logp_P, upper_P], and the log-probability of the second likeliest outcome
    in [second_P, second_upper_P] wherever the mode is certified. -inf stands for "none found".
    """

    tokens_P: tuple[Tokens, ...]
    """The likeliest outcome found; the empty tuple where none was."""
    logp_P: Floats
    upper_P: Floats
    certified_P: Bools
    """True: no outcome of the prompt is likelier than this one."""
    finished_P: Bools
    """False: the outcome is a response that the length limit cuts off (or none was found)."""
    second_P: Floats
    second_upper_P: Floats
    second_certified_P: Bools
    nodes_P: Ints
    """Prefixes opened, the empty one included: next-token distributions asked for."""
    tokens: int
    """Tokens that went through the policy, prompts not counted."""
    seconds: float
    note: str = ""
    """Why there was no search, where there was none."""

    @property
    def unique_P(self) -> Bools:
        """True: certified, and no other outcome is as likely (within 1e-9 nats)."""
        gap_P = self.logp_P - np.where(np.isneginf(self.logp_P), 0.0, self.second_upper_P)
        return self.certified_P & (gap_P > TIE)

    @classmethod
    def joined(cls, lots: Sequence[Modes]) -> Modes:
        """Those of some prompts after those of others; work and time add up."""

        def one(xs: list[Any]) -> Any:
            if isinstance(xs[0], np.ndarray):
                return np.concatenate(xs)
            return tuple(chain(*xs)) if isinstance(xs[0], tuple) else sum(xs)

        columns = [f.name for f in fields(cls) if f.name != "note"]
        made = {name: one([getattr(x, name) for x in lots]) for name in columns}
        return cls(**made, note=lots[0].note)


def enumerated(samples: Samples, prompts: int) -> Modes:
    """Exact modes from all responses of every prompt (``Exact.enumerate``). O(R log R).

    The first of equally likely responses is the mode; ``unique_P`` is False there.
    """
    rows_P = rows_by_prompt(samples.prompt_R, prompts)
    best_P = np.array([rows[np.argmax(samples.logp_R[rows])] for rows in rows_P], dtype=np.int64)
    logp_P = samples.logp_R[best_P]
    second_P = np.full(prompts, -np.inf)
    for p, rows in enumerate(rows_P):
        others = samples.logp_R[rows[rows != best_P[p]]]
        second_P[p] = others.max(initial=-np.inf)
    true_P = np.ones(prompts, dtype=bool)
    return Modes(
        tokens_P=tuple(samples.tokens_R[r] for r in best_P),
        logp_P=logp_P,
        upper_P=logp_P.copy(),
        certified_P=true_P,
        finished_P=samples.finished_R[best_P],
        second_P=second_P,
        second_upper_P=second_P.copy(),
        second_certified_P=true_P.copy(),
        nodes_P=np.zeros(prompts, dtype=np.int64),
        tokens=0,
        seconds=0.0,
    )


def unsearched(prompts: int, note: str) -> Modes:
    """What is known of P prompts before anything is: 0 <= p* <= 1."""
    none_P, zero_P = np.full(prompts, -np.inf), np.zeros(prompts)
    false_P = np.zeros(prompts, dtype=bool)
    return Modes(
        tokens_P=((),) * prompts,
        logp_P=none_P,
        upper_P=zero_P,
        certified_P=false_P,
        finished_P=false_P.copy(),
        second_P=none_P.copy(),
        second_upper_P=zero_P.copy(),
        second_certified_P=false_P.copy(),
        nodes_P=np.zeros(prompts, dtype=np.int64),
        tokens=0,
        seconds=0.0,
        note=note,
    )


def improved(modes: Modes, outcomes: Samples) -> Modes:
    """The modes, with likelier outcomes from elsewhere (samples, greedy responses) put in.

    Any outcome is a lower bound on p*, so where a search stopped early a sample can only tighten
    its interval. Certified modes stay as they are.
    """
    tokens, logp_P = list(modes.tokens_P), modes.logp_P.copy()
    second_P, second_upper_P = modes.second_P.copy(), modes.second_upper_P.copy()
    finished_P = modes.finished_P.copy()
    for r in np.flatnonzero(~modes.certified_P[outcomes.prompt_R]):
        p = outcomes.prompt_R[r]
        if outcomes.tokens_R[r] != tokens[p] and outcomes.logp_R[r] > logp_P[p]:
            second_P[p] = max(second_P[p], logp_P[p])
            second_upper_P[p] = modes.upper_P[p]
            tokens[p], logp_P[p] = outcomes.tokens_R[r], outcomes.logp_R[r]
            finished_P[p] = outcomes.finished_R[r]
    upper_P = np.maximum(modes.upper_P, logp_P)
    certified_P = modes.certified_P | (logp_P >= upper_P)
    return replace(
        modes,
        tokens_P=tuple(tokens),
        logp_P=logp_P,
        upper_P=upper_P,
        certified_P=certified_P,
        finished_P=finished_P,
        second_P=second_P,
        second_upper_P=np.maximum(second_upper_P, second_P),
        second_certified_P=certified_P & (second_P >= second_upper_P),
    )
