"""Where a round's samples come from: an engine makes them shard by shard, in any order.

A **shard** is some consecutive prompts of a round with the settings and the seed of their samples:
all that decides them but the weights. The driver (``drawn``) owns the shards. It hands those that
are missing to the engine's sampler::

    sampler(weights, shards, advance) -> iterator of (shard, samples)

and puts each on the folder's shelf as it arrives. So a worker, an engine or the driver may die at
any moment: the same command goes on with the shards that are missing. When all are there they are
read in order and become the round's ``samples.parquet``, which alone the rest of the round reads.

A sampler promises:

- It takes shards from the iterator as it has room for them, yields each of them once, in any order,
  and is done when it has yielded all. Rows of a shard's samples count the shard's prompts from 0;
  the rows of a prompt lie together, prompts in order, weights summing to 1 over a prompt.
- ``srlm.samples.sample(policy, shard.prompts, shard.settings, shard.seed)`` with the weights is
  what a shard is (``local`` is nothing else). A sampler that does this elsewhere gives the same
  bytes, wherever and how often it does it; shards do not depend on how many workers there are.
- Others (a server, vLLM) sample by their own numbers: temperature 1, nothing cut off, unless the
  settings say so. They set ``Samples.gap_R`` to not-a-number (``untrusted``), which says that
  the log-probabilities are their own, not-a-number where they gave none.
- What a user can mend is a ``UserError``, in bounded time; shards that were yielded are kept.

Log-probabilities of an engine are never trusted blindly. The driver scores a share of each shard's
rows by its own policy and keeps the gap; rows that came without are scored too. Where the upper
95% limit of the mean |gap| of the round is over what is allowed, all rows are scored.

All else that a round asks of the policy itself (held-out samples, search, judging) is cut into
pieces in the same way, and an ``Executor`` has them made by the engine's ``spread``: in this
process, or by the workers of a Ray cluster, to the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from srlm import samples as sampling
from srlm.config import SampleSettings
from srlm.errors import UserError
from srlm.policies.base import Differentiable, Policy
from srlm.types import Floats, Ints, Prompt, Samples

WORK = {"cpu": 2e11}
"""Multiply-adds of a shard, about; elsewhere 1e15. Half a minute, or less."""
FOREIGN = 0.25
"""Mean |gap| of a token, nats, from which an engine is taken to serve another model."""
LEAST_ROWS = 64
"""Samples of a shard of a network, at least: fewer at once are slower."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Some prompts of a round, and what decides their samples but the weights. Can be pickled."""

    number: int
    first: int
    """Number of its first prompt in the round."""
    prompts: tuple[Prompt, ...]
    settings: SampleSettings
    seed: int

    @property
    def key(self) -> str:
        """Its name: its number, and a hash of all else."""
        asked = [self.seed, self.settings.model_dump(mode="json"), [x.id for x in self.prompts]]
        return _key(self.number, asked)

    @property
    def seconds(self) -> float:
        """Time that its settings let it take beyond what any work takes."""
        return 0.0


@dataclass(frozen=True, slots=True)
class Piece:
    """Some prompts, and what else is asked about them of the policy. Can be pickled."""

    number: int
    first: int
    """Number of its first prompt."""
    prompts: tuple[Prompt, ...]
    asked: Any
    """For whoever does the work."""
    told: str
    """All that decides the result, but the weights and the prompts."""
    seconds: float = 0.0
    """As of ``Shard``."""

    @property
    def key(self) -> str:
        """Its name, as of ``Shard``."""
        return _key(self.number, [self.told, [x.id for x in self.prompts]])


def _key(number: int, asked: Any) -> str:
    text = json.dumps(asked, sort_keys=True)
    return f"{number:07d}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Weights:
    """The policy that is sampled."""

    policy: Policy
    """Here in memory."""
    folder: Path | None
    """Where it lies, as ``srlm.policies.load.load`` reads it; None: in memory alone."""
    scratch: Path | None = None
    """Folder for what an engine writes, as a copy of the weights that it can read; it goes when the
    round's samples are there."""


Advance = Callable[[float], None]
"""Called with the number of prompts done since; may be a fraction."""
Sampler = Callable[[Weights, Iterable[Shard], Advance], Iterator[tuple[Shard, Samples]]]
"""See the module."""
Do = Callable[[Policy, Any, Advance], Any]
"""What is done with a piece: a function of a module, or a ``partial`` of one."""
Spread = Callable[[Weights, Do, Iterable[Any], Advance], Iterator[tuple[Any, Any]]]
"""Does the same with each piece, in any order; promises what a sampler does."""


class Shelf(Protocol):
    """Where shards or pieces are put aside until all of a round are there."""

    weights: Path | None
    """Where the round's policy lies."""
    scratch: Path | None
    """Of ``Weights``."""

    def has(self, key: str) -> bool:
        """Whether a shard is there and whole."""
        ...

    def put(self, key: str, made: Any, prompts: Sequence[Prompt]) -> None:
        """Keep a shard, atomically."""
        ...

    def get(self, key: str) -> Any:
        """A shard that is there."""
        ...


class MemoryShelf:
    """Shards in memory; each is handed out once.

    Args:
        weights: where the policy lies, if anywhere.
    """

    scratch: Path | None = None

    def __init__(self, weights: Path | None = None) -> None:
        self.weights = weights
        self._there: dict[str, Any] = {}

    def has(self, key: str) -> bool:
        """Whether a shard is there."""
        return key in self._there

    def put(self, key: str, made: Any, prompts: Sequence[Prompt]) -> None:
        """Keep a shard."""
        self._there[key] = made

    def get(self, key: str) -> Any:
        """Hand a shard out."""
        return self._there.pop(key)


def local(
    weights: Weights, shards: Iterable[Shard], advance: Advance
) -> Iterator[tuple[Shard, Samples]]:
    """The sampler of this process: one shard after the other."""
    yield from here(weights, sampled, shards, advance)


def here(
    weights: Weights, do: Do, pieces: Iterable[Any], advance: Advance
) -> Iterator[tuple[Any, Any]]:
    """The spread of this process: one piece after the other."""
    for piece in pieces:
        yield piece, do(weights.policy, piece, advance)


def sampled(policy: Policy, shard: Shard, advance: Advance) -> Samples:
    """A shard's samples."""
    return sampling.sample(policy, shard.prompts, shard.settings, shard.seed, advance=advance)


def greedily(policy: Policy, piece: Piece, advance: Advance) -> Samples:
    """The greedy responses to a piece's prompts; asked: the length limit."""
    return policy.greedy(piece.prompts, max_tokens=piece.asked)


@dataclass(frozen=True, slots=True)
class Engine:
    """A sampler, and how far its log-probabilities are trusted."""

    sampler: Sampler = local
    name: str = "own"
    """Of shards that are as good as each other: ``own`` for those that are byte for byte what
    ``local`` makes. A run that goes on with another name makes the round's shards anew."""
    rescored: float = 0.05
    """Share of the rows whose log-probabilities are checked, in (0, 1]; one of a shard at least."""
    gap: float = 0.1
    """Largest mean |gap|, nats a response; over it all are rescored."""
    spread: Spread = here
    """Does what only the policy itself can; to the bytes of ``here``."""


LOCAL = Engine()


@dataclass(frozen=True, slots=True)
class Executor:
    """What has pieces of work done, and keeps them as they come."""

    engine: Engine = LOCAL
    shelf: Callable[[str], Shelf] = field(default=lambda kind: MemoryShelf())
    """Where the pieces of a kind of work are put aside."""

    def each(
        self,
        kind: str,
        policy: Policy,
        do: Do,
        pieces: Callable[[], Iterable[Any]],
        advance: Advance = lambda prompts: None,
        fresh: Callable[[Any], None] = lambda made: None,
    ) -> Iterator[tuple[Any, Any]]:
        """``do`` of each piece, in order; nothing comes before all are there.

        Args:
            kind: of work.
            policy: that is asked.
            do: the work.
            pieces: makes them; called twice.
            advance: called with how many prompts were done since.
            fresh: called with what was not on the shelf.
        """
        shelf = self.shelf(kind)

        def missing() -> Iterator[Any]:
            for piece in pieces():
                if shelf.has(piece.key):
                    advance(len(piece.prompts))
                else:
                    yield piece

        weights = Weights(policy, shelf.weights, shelf.scratch)
        for piece, made in self.engine.spread(weights, do, missing(), advance):
            fresh(made)
            shelf.put(piece.key, made, piece.prompts)
        for piece in pieces():
            yield piece, shelf.get(piece.key)


def cut(
    policy: Policy, prompts: Sequence[Prompt], settings: SampleSettings, seed: int
) -> Iterator[Shard]:
    """The shards of a round: as many prompts each as take half a minute or less, by the model's
    size and where it lies. Nothing else decides them."""
    step = prompts_per_shard(policy, settings.max_tokens, settings.per_prompt)
    if settings.source == "enumerate":
        step = max(1, len(prompts))
    for number, first in enumerate(range(0, len(prompts), step)):
        yield Shard(number, first, tuple(prompts[first : first + step]), settings, seed)


def prompts_per_shard(policy: Policy, max_tokens: int, per_prompt: int) -> int:
    """Prompts of a shard of so many responses each."""
    return max(1, _rows(policy, max_tokens) // per_prompt)


def _rows(policy: Policy, max_tokens: int) -> int:
    weights = policy.parameters() if isinstance(policy, Differentiable) else []
    if not weights:
        return sampling.CHUNK
    work = WORK.get(weights[0].device.type, 1e15)
    rows = int(work / (sum(p.numel() for p in weights) * max_tokens))
    return min(max(rows, LEAST_ROWS), sampling.CHUNK)


def drawn(
    engine: Engine,
    policy: Policy,
    prompts: Sequence[Prompt],
    settings: SampleSettings,
    seed: int,
    shelf: Shelf,
    advance: Advance = lambda prompts: None,
) -> Iterator[Samples]:
    """The samples of a round in parts, all those of consecutive prompts, in order.

    Nothing comes before every shard is there, but from a policy that is no network, in this
    process: it samples faster than shards are written, and is not kept. Memory does not grow with
    the prompts; a shard at a time, and a part, of about ``samples.PART_TOKENS`` tokens.

    Args:
        engine: makes them.
        policy: that is sampled, and scores.
        prompts: of the round.
        settings, seed: of the samples.
        shelf: where shards are put aside.
        advance: called with how many prompts were done since, for progress.

    Raises:
        UserError: the policy cannot be sampled so; whatever the engine cannot do.
    """
    weights, gaps = Weights(policy, shelf.weights, shelf.scratch), Gaps()

    def key(shard: Shard) -> str:
        return f"{shard.key}-{engine.name}"

    def shards() -> Iterator[Shard]:
        return cut(policy, prompts, settings, seed)

    def missing() -> Iterator[Shard]:
        for shard in shards():
            if shelf.has(key(shard)):
                gaps.add(shelf.get(key(shard)))
                advance(len(shard.prompts))
            else:
                yield shard

    if engine.sampler is local and not isinstance(policy, Differentiable):
        yield from _joined(local(weights, shards(), advance), settings)
        return
    for shard, part in engine.sampler(weights, missing(), advance):
        checked = rescore(policy, shard, part, engine.rescored)
        gaps.add(checked)
        if gaps.per_token() > FOREIGN:
            raise UserError(
                f"the engine's log-probabilities are {gaps.per_token():.2g} nats a token off the "
                "policy's: it serves another model, or other weights",
                "let it serve the run's model, and see that it takes each round's weights "
                "(--reload)",
            )
        shelf.put(key(shard), checked, shard.prompts)

    def whole() -> Iterator[tuple[Shard, Samples]]:
        for shard in shards():
            if not shelf.has(key(shard)):
                raise UserError(
                    f"the engine gave no samples for shard {shard.number} and said nothing of it",
                    "give the same command again: the shards that came are kept",
                )
            part = shelf.get(key(shard))
            if part.gap_R is not None and gaps.upper() > engine.gap:
                part = scored(policy, shard.prompts, part, np.isnan(part.gap_R))
            yield shard, part

    yield from _joined(whole(), settings)


def _joined(shards: Iterable[tuple[Shard, Samples]], settings: SampleSettings) -> Iterator[Samples]:
    """Shards in order as parts."""
    most = max(sampling.PART_TOKENS // settings.max_tokens, sampling.CHUNK) // settings.per_prompt
    held: list[Samples] = []
    prompts = 0
    for shard, part in shards:
        if held and prompts + len(shard.prompts) > most:
            yield Samples.joined(held)
            held, prompts = [], 0
        held.append(replace(part, prompt_R=part.prompt_R + shard.first))
        prompts += len(shard.prompts)
    if held:
        yield Samples.joined(held)


# ---- log-probabilities


def untrusted(samples: Samples) -> Samples:
    """Samples whose log-probabilities are an engine's own."""
    return replace(samples, gap_R=np.full(len(samples), np.nan))


def rescore(policy: Policy, shard: Shard, part: Samples, share: float) -> Samples:
    """Score some rows of an engine's samples by the policy; nothing of samples that are trusted.

    Args:
        share: of the rows, chosen by the shard's key; all rows without a log-probability beside.
    """
    if part.gap_R is None:
        return part
    rng = np.random.default_rng(int(shard.key.rpartition("-")[2], 16))
    chosen_R = np.zeros(len(part), dtype=bool)
    chosen_R[rng.permutation(len(part))[: math.ceil(share * len(part))]] = True
    return scored(policy, shard.prompts, part, chosen_R | ~np.isfinite(part.logp_R))


def scored(
    policy: Policy, prompts: Sequence[Prompt], part: Samples, chosen_R: np.ndarray
) -> Samples:
    """Samples with the policy's own log-probabilities in the rows chosen, and their gaps: log pi of
    the policy minus the engine's, nats; infinite where the engine gave none."""
    rows = np.flatnonzero(chosen_R)
    if not len(rows) or part.gap_R is None:
        return part
    own = policy.log_prob(prompts, part.prompt_R[rows], [part.tokens_R[r] for r in rows])
    logp_R, gap_R = part.logp_R.copy(), part.gap_R.copy()
    gap_R[rows] = np.where(np.isfinite(logp_R[rows]), own - logp_R[rows], np.inf)
    logp_R[rows] = own
    return replace(part, logp_R=logp_R, gap_R=gap_R)


class Gaps:
    """The gaps of a round so far.

    >>> gaps = Gaps()
    >>> gaps.upper()
    inf
    >>> gaps.count_in(np.array([0.1, np.nan, -0.1, 0.3, -0.3]), np.full(5, 2))
    >>> round(gaps.upper(), 3), round(gaps.per_token(), 3)
    (0.313, 0.1)
    """

    def __init__(self) -> None:
        self._n, self._sum, self._squares, self._tokens = 0, 0.0, 0.0, 0

    def add(self, part: Samples) -> None:
        """Those of a shard."""
        if part.gap_R is not None:
            self.count_in(part.gap_R, part.length_R)

    def count_in(self, gap_R: Floats, length_R: Ints) -> None:
        """Gaps, nats, and lengths, tokens; of rows that have a gap."""
        known_R = np.isfinite(gap_R)
        size_G = np.abs(gap_R[known_R])
        self._tokens += int(length_R[known_R].sum())
        self._n += len(size_G)
        self._sum += float(size_G.sum())
        self._squares += float(size_G @ size_G)

    def upper(self) -> float:
        """Upper 95% limit of the mean |gap|, nats: mean + 1.96 s / sqrt(n); infinite for n < 2."""
        if self._n < 2:
            return math.inf
        mean = self._sum / self._n
        variance = max(0.0, self._squares - self._n * mean**2) / (self._n - 1)
        return mean + 1.96 * math.sqrt(variance / self._n)

    def per_token(self) -> float:
        """Mean |gap| of a response over the mean length, nats a token; 0 without any."""
        return self._sum / self._tokens if self._tokens else 0.0
