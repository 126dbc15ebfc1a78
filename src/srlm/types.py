"""What the stages hand each other: frozen dataclasses with the shape and unit of each field.

The flow is ``prompts -> samples -> rewards -> pairs -> update -> measure -> report``. Axis
names are suffixes: P prompts, K draws of a prompt, R rows (one a response), T tokens,
V vocabulary, G groups. All logarithms are natural, all log-probabilities are float64 sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Tokens = tuple[int, ...]
"""A response as token ids; the end-of-sequence token is the last one where it was drawn."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt. ``id`` is a hash of ``content`` alone and seeds the prompt's draws."""

    id: str
    content: Any
    """Text, chat messages (a list of role/content objects), or a vector of features."""
    answers: tuple[str, ...] = ()
    """Reference answers, any of which is right; empty where none is known."""
    line: int = 0
    """Line of the file that it came from, from 1; 0 where there is no file."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Responses of a policy to prompts, one a row; the rows of a prompt lie together.

    Under ``Policy.sample`` the rows are independent draws y ~ pi(.|x) at temperature 1 and
    every weight is 1/K. Under ``Policy.enumerate`` they are all responses, each once, with
    weight pi(y|x). In both, sum_r weight_R[r] f(y_r) over a prompt's rows estimates
    E_{y~pi(.|x)} f(y): without bias under sampling, exactly under enumeration.
    """

    prompt_R: Ints
    """Index of the row's prompt in the sequence of prompts that was asked."""
    tokens_R: tuple[Tokens, ...]
    logp_R: Floats
    """log pi(y|x), nats, end-of-sequence included, at the time of drawing."""
    weight_R: Floats
    """Sums to 1 over the rows of a prompt."""
    finished_R: Bools
    """False where the length limit cut the response off before its end-of-sequence token."""
    text_R: tuple[str, ...]
    """The response as a person reads it, special tokens left out."""
    token_logp_R: tuple[Floats, ...] = ()
    """log pi(token|x, tokens before it) of each token, nats; empty for single-label policies."""

    def __len__(self) -> int:
        return len(self.tokens_R)

    @property
    def length_R(self) -> Ints:
        """Tokens a response, end-of-sequence included."""
        return np.array([len(t) for t in self.tokens_R], dtype=np.int64)

    def take(self, rows: npt.NDArray[Any]) -> Samples:
        """The samples at ``rows`` (indices or a mask), in that order."""
        index = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Samples(
            prompt_R=self.prompt_R[index],
            tokens_R=tuple(self.tokens_R[i] for i in index),
            logp_R=self.logp_R[index],
            weight_R=self.weight_R[index],
            finished_R=self.finished_R[index],
            text_R=tuple(self.text_R[i] for i in index),
            token_logp_R=tuple(self.token_logp_R[i] for i in index) if self.token_logp_R else (),
        )


@dataclass(frozen=True, slots=True)
class Pairs:
    """Groups of responses to compare; the distinct responses of a group lie together.

    A group of two is the pair of the paper; in a group of k all k(k-1)/2 pairs count. Equal
    draws are merged into one row and their weights added: a pair of equal responses has
    z - z' = 0 whatever the policy, so merging changes no loss and no gradient and saves the
    forward pass.
    """

    group_R: Ints
    """Index of the row's group, 0..G-1, never decreasing."""
    prompt_R: Ints
    tokens_R: tuple[Tokens, ...]
    reference_R: Floats
    """log pi_t(y|x) of the sampling policy, nats."""
    reward_R: Floats
    """Self-reward r_t(x, y), nats for the likelihood reward."""
    weight_R: Floats
    """Share of the group's draws, sums to 1 over a group."""
    draws: int
    """Draws that the groups were made from, duplicates included."""
    distinguishable: tuple[int, int] = (0, 0)
    """Prompts whose responses have unequal rewards, of the prompts that have rewards."""
    scale_G: Floats | None = None
    """Weight of each group's loss, mean 1 over the groups; None: 1 each."""
    asked: tuple[Prompt, ...] = ()
    """Questions of the judge that groups are about: ``prompt_R`` counts the round's prompts and
    then these."""

    def __len__(self) -> int:
        return len(self.tokens_R)

    @property
    def groups(self) -> int:
        return int(self.group_R[-1]) + 1 if len(self) else 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number that carries its error.

    ``low`` and ``high`` bound ``value`` at 95 % over the prompts (None: no interval can be
    given), ``n`` is the number of independent units behind it, ``method`` names the estimator,
    ``guarantee`` says what the value is beyond the sampling of prompts: "exact", "lower bound",
    "upper bound", "certified within [a, b]", "estimate". ``value`` None means undefined, and
    ``note`` says why; ``note`` also carries warnings.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str
    guarantee: str = "estimate"
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The object written to metrics.jsonl; not-a-number becomes null."""
        out: dict[str, Any] = {
            "value": _finite(self.value),
            "low": _finite(self.low),
            "high": _finite(self.high),
            "n": self.n,
            "method": self.method,
            "guarantee": self.guarantee,
        }
        if self.note:
            out["note"] = self.note
        return out


def undefined(method: str, note: str, n: int = 0) -> Estimate:
    """An estimate that cannot be given, with the reason."""
    return Estimate(None, None, None, n, method, guarantee="undefined", note=note)


def _finite(x: float | None) -> float | None:
    return None if x is None or not np.isfinite(x) else float(x)


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What an update did, on the round's own data."""

    loss_before: float
    loss_after: float
    """Same loss, same data, before and after: an under-trained round shows as a small fall."""
    loss_floor: float
    """The least that the loss can be on this data (0 for the square loss on distinct rewards
    that are consistent; the entropy of the weights for the weighted one)."""
    steps: int
    notes: tuple[str, ...] = field(default=())


def rows_by_prompt(prompt_R: Sequence[int] | Ints, prompts: int) -> list[Ints]:
    """Row indices of each of ``prompts`` prompts, in row order. O(R log R)."""
    index = np.asarray(prompt_R, dtype=np.int64)
    order = np.argsort(index, kind="stable")
    bounds = np.searchsorted(index[order], np.arange(prompts + 1))
    return [order[bounds[p] : bounds[p + 1]] for p in range(prompts)]
