"""What the stages hand each other: frozen dataclasses with the shape and unit of each field.

The flow is ``prompts -> samples -> rewards -> pairs -> train -> measure -> report``. Axis
names are suffixes: P prompts, K samples of a prompt, R rows (one a response), T tokens,
V vocabulary, G groups. All logarithms are natural, all log-probabilities are float64 sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Tokens = tuple[int, ...]
"""A response as token ids; the end-of-sequence token is the last one where it was sampled."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt. ``id`` is a hash of ``content`` alone and seeds the prompt's samples."""

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

    Under ``Policy.sample`` the rows are independent samples y ~ pi(.|x) at temperature 1 and
    every weight is 1/K. Under ``Policy.enumerate`` they are all responses, each once, with
    weight pi(y|x). In both, sum_r weight_R[r] f(y_r) over a prompt's rows estimates
    E_{y~pi(.|x)} f(y): without bias under sampling, exactly under enumeration.
    """

    prompt_R: Ints
    """Index of the row's prompt in the sequence of prompts that was asked."""
    tokens_R: tuple[Tokens, ...]
    logp_R: Floats
    """log pi(y|x), nats, end-of-sequence included, at the time of sampling."""
    weight_R: Floats
    """Sums to 1 over the rows of a prompt."""
    finished_R: Bools
    """False where the length limit cut the response off before its end-of-sequence token."""
    text_R: tuple[str, ...]
    """The response as a person reads it, special tokens left out."""
    token_logp_R: tuple[Floats, ...] = ()
    """log pi(token|x, tokens before it) of each token, nats; empty for single-label policies."""
    gap_R: Floats | None = None
    """Of samples of an engine (``srlm.engines.base``): log pi(y|x) as the policy here scores it,
    which is then ``logp_R``, minus what the engine said, nats; infinite where that said nothing,
    not-a-number where the row is not scored here and ``logp_R`` is the engine's. None: sampled by
    the policy itself."""

    def __len__(self) -> int:
        return len(self.tokens_R)

    @property
    def length_R(self) -> Ints:
        """Tokens a response, end-of-sequence included."""
        return np.array([len(t) for t in self.tokens_R], dtype=np.int64)

    def take(self, rows: npt.NDArray[Any]) -> Samples:
        """The samples at ``rows`` (indices or a mask), in that order."""
        index = np.flatnonzero(rows) if rows.dtype == bool else rows

        def at(x: Any) -> Any:
            if x is None:
                return None
            return x[index] if isinstance(x, np.ndarray) else tuple(x[i] for i in index if x)

        return Samples(**{f.name: at(getattr(self, f.name)) for f in fields(self)})

    @classmethod
    def joined(cls, parts: Sequence[Samples]) -> Samples:
        """Samples one after another, their prompts numbered already."""

        def one(xs: list[Any]) -> Any:
            known = [x for x in xs if x is not None]
            if not known:
                return None
            return np.concatenate(known) if isinstance(xs[0], np.ndarray) else tuple(chain(*known))

        return cls(**{f.name: one([getattr(x, f.name) for x in parts]) for f in fields(cls)})


@dataclass(frozen=True, slots=True)
class Pairs:
    """Groups of responses to compare; the distinct responses of a group lie together.

    A group of two is the pair of the paper; in a group of k all k(k-1)/2 pairs count. Equal
    samples are merged into one row and their weights added: a pair of equal responses has
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
    """Share of the group's samples, sums to 1 over a group."""
    samples: int
    """Samples that the groups were made from, duplicates included."""
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

    ``low`` and ``high`` bound ``value`` at 95% over the prompts (None: no interval can be
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
        out = asdict(self) | {x: _finite(getattr(self, x)) for x in ("value", "low", "high")}
        return out if self.note else {name: x for name, x in out.items() if name != "note"}

    @classmethod
    def from_json(cls, data: Any) -> Estimate:
        """What ``to_json`` made; of anything else an undefined estimate.

        >>> Estimate.from_json({"value": 1.5, "low": 1.4, "high": 1.6, "n": 9}).high
        1.6
        >>> Estimate.from_json(None).note
        'not recorded'
        """
        if not isinstance(data, Mapping):
            return undefined("none", "not recorded")
        value, low, high = (_number(data.get(name)) for name in ("value", "low", "high"))
        words = (str(data.get(name, "")) for name in ("method", "guarantee", "note"))
        return cls(value, low, high, int(_number(data.get("n")) or 0), *words)


def undefined(method: str, note: str, n: int = 0) -> Estimate:
    """An estimate that cannot be given, with the reason."""
    return Estimate(None, None, None, n, method, guarantee="undefined", note=note)


def _number(x: Any) -> float | None:
    if isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x):
        return None
    return float(x)


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


@dataclass(frozen=True, slots=True)
class PromptTable:
    """The held-out prompts of one round, one a row; NaN and None where a value is unknown."""

    prompt_id: tuple[str, ...]
    prompt: tuple[str, ...]
    """As text; messages and vectors as JSON."""
    answers: tuple[tuple[str, ...], ...]
    p_star: Floats
    """max_y pi(y|x); where ``certified`` is False, the best found, so a lower bound."""
    log_p_star: Floats
    log_p_star_upper: Floats
    certified: Bools
    unique: Bools
    """The mode is certified and no other response is as likely."""
    mode_text: tuple[str | None, ...]
    """None where no finished response was found."""
    mode_tokens: tuple[Tokens, ...]
    mode_finished: Bools
    greedy_text: tuple[str | None, ...]
    mode_is_base_mode: Floats
    """1, 0 or NaN."""
    mode_correct: Floats
    """1, 0 or NaN (no answer)."""
    greedy_correct: Floats
    sampling_accuracy: Floats
    margin: Floats
    """Certified lower end of log p* - log p2, nats; ``margin_high`` the upper one."""
    margin_high: Floats
    nodes: Ints
    vote: tuple[str | None, ...]
    """The majority answer of the samples."""
    vote_share: Floats
    """Its share of them."""
    vote_correct: Floats
    """1, 0 or NaN (no answer)."""

    def __len__(self) -> int:
        return len(self.prompt_id)

    @classmethod
    def of(cls, columns: Mapping[str, Sequence[Any]]) -> PromptTable:
        """From the columns of a measurement or of a file; a column that is missing is unknown."""
        rows = len(columns["prompt_id"])
        unknown: dict[str, Any] = {"prompt": "", "answers": (), "mode_tokens": (), "unique": False}

        def read(name: str, kind: Any) -> Any:
            column = columns.get(name, [None] * rows)
            if kind == "Floats":
                return np.array([np.nan if v is None else float(v) for v in column])
            if kind == "Bools":
                missing = unknown.get(name, True)
                return np.array([missing if v is None else bool(v) for v in column], dtype=bool)
            if kind == "Ints":
                return np.array([int(v or 0) for v in column], dtype=np.int64)
            missing = unknown.get(name)
            made = (tuple(v) if missing == () and v is not None else v for v in column)
            return tuple(missing if v is None else v for v in made)

        return cls(**{f.name: read(f.name, f.type) for f in fields(cls)})


@dataclass(frozen=True, slots=True)
class Round:
    """The record of one round: what is known of pi_t. Round 0 is the base.

    ``record["kappa"]`` is an ``Estimate``; of a name that was not measured, an undefined one.
    """

    round: int
    """t."""
    estimates: Mapping[str, Estimate]
    """By name; every estimate that was measured."""
    update: UpdateReport | None = None
    """Of the training that made pi_t; None for the base."""
    rewards: Mapping[str, Any] | None = None
    """``RewardReport.to_json`` of the rewards from which pi_t was made; None for the base."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By stage: samples, pairs and train of pi_t, and its measure. Known of runs in folders."""
    table: PromptTable | None = None

    def __getitem__(self, name: str) -> Estimate:
        return self.estimates.get(name, undefined("none", "not recorded"))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the update and of the rewards."""
        rewards = self.rewards.get("notes", ()) if self.rewards else ()
        return (*(self.update.notes if self.update else ()), *rewards)

    @property
    def loss_before(self) -> float | None:
        return self.update.loss_before if self.update else None

    @property
    def loss_after(self) -> float | None:
        return self.update.loss_after if self.update else None

    @property
    def loss_floor(self) -> float | None:
        return self.update.loss_floor if self.update else None

    @property
    def loss_progress(self) -> float | None:
        """Share of the way from the loss before to its floor: (before - after)/(before - floor)."""
        if self.update is None:
            return None
        way = self.update.loss_before - self.update.loss_floor
        return (self.update.loss_before - self.update.loss_after) / way if way > 1e-12 else None

    def to_json(self) -> dict[str, Any]:
        """A line of metrics.jsonl, without the table."""
        names = ("loss_before", "loss_after", "loss_floor", "steps")
        rewards = {k: v for k, v in (self.rewards or {}).items() if k != "notes"}
        return {
            "round": self.round,
            **{name: estimate.to_json() for name, estimate in self.estimates.items()},
            **{name: getattr(self.update, name) if self.update else None for name in names},
            "notes": list(self.notes),
            **({"rewards": rewards} if self.rewards else {}),
            "seconds": dict(self.seconds),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], table: PromptTable | None = None) -> Round:
        """What ``to_json`` made. All estimates are taken that are there, whatever their names."""
        before, after = (_number(data.get(name)) for name in ("loss_before", "loss_after"))
        update = None
        rewards = data.get("rewards")
        notes = tuple(str(note) for note in data.get("notes") or ())
        if before is not None and after is not None:
            floor, steps = (_number(data.get(name)) or 0.0 for name in ("loss_floor", "steps"))
            update = UpdateReport(before, after, floor, int(steps), () if rewards else notes)
        seconds = data.get("seconds") or {}
        return cls(
            round=int(data["round"]),
            estimates={
                name: Estimate.from_json(value)
                for name, value in data.items()
                if isinstance(value, Mapping) and "value" in value
            },
            update=update,
            rewards={**rewards, "notes": list(notes)} if isinstance(rewards, Mapping) else None,
            seconds={str(k): float(v) for k, v in seconds.items() if _number(v) is not None},
            table=table,
        )


def rows_by_prompt(prompt_R: Sequence[int] | Ints, prompts: int) -> list[Ints]:
    """Row indices of each of ``prompts`` prompts, in row order. O(R log R)."""
    index = np.asarray(prompt_R, dtype=np.int64)
    order = np.argsort(index, kind="stable")
    bounds = np.searchsorted(index[order], np.arange(prompts + 1))
    return [order[bounds[p] : bounds[p + 1]] for p in range(prompts)]
