"""Shards: any order, any death, the same samples; and what an engine's log-probabilities are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srlm.config import SampleSettings
from srlm.engines import base
from srlm.engines.base import Engine, MemoryShelf, Shard, Weights, cut, drawn, local
from srlm.errors import UserError
from srlm.policies.hf import CausalLM
from srlm.run_folder.shelf import FolderShelf
from srlm.types import Prompt, Samples
from tests import tiny

SETTINGS = SampleSettings(per_prompt=4, max_tokens=5)
PROMPTS = tiny.texts(9)


@pytest.fixture(autouse=True)
def two_prompts_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_rows", lambda policy, tokens: 8)


@pytest.fixture(scope="module")
def policy() -> CausalLM:
    return tiny.policy()


def taken(engine: Engine, policy: CausalLM, shelf: base.Shelf) -> Samples:
    return Samples.joined(list(drawn(engine, policy, PROMPTS, SETTINGS, 3, shelf)))


def same(one: Samples, other: Samples) -> bool:
    return (
        one.tokens_R == other.tokens_R
        and one.text_R == other.text_R
        and np.array_equal(one.prompt_R, other.prompt_R)
        and np.array_equal(one.logp_R, other.logp_R)
    )


def backwards(
    weights: Weights, shards: Iterable[Shard], advance: base.Advance
) -> Iterator[tuple[Shard, Samples]]:
    """The last shard first."""
    yield from local(weights, list(shards)[::-1], advance)


def off_by(nats: float, every: int = 1) -> base.Sampler:
    """A sampler whose log-probabilities are off in every so-manieth row."""

    def sampler(
        weights: Weights, shards: Iterable[Shard], advance: base.Advance
    ) -> Iterator[tuple[Shard, Samples]]:
        for shard, part in local(weights, shards, advance):
            told = part.logp_R + np.where(np.arange(len(part)) % every, 0.0, nats)
            yield shard, base.untrusted(replace(part, logp_R=told))

    return sampler


def test_the_order_of_arrival_changes_nothing(policy: CausalLM, tmp_path: Path) -> None:
    done: list[float] = []
    whole = taken(Engine(), policy, MemoryShelf())
    other = FolderShelf(tmp_path / "shards", tmp_path)
    parts = drawn(Engine(backwards), policy, PROMPTS, SETTINGS, 3, other, done.append)
    assert same(Samples.joined(list(parts)), whole)
    assert sum(done) == pytest.approx(len(PROMPTS))
    assert [len(s.prompts) for s in cut(policy, PROMPTS, SETTINGS, 3)] == [2, 2, 2, 2, 1]


def test_a_death_costs_the_shards_that_had_not_come(policy: CausalLM, tmp_path: Path) -> None:
    asked: list[int] = []

    def dies(
        weights: Weights, shards: Iterable[Shard], advance: base.Advance
    ) -> Iterator[tuple[Shard, Samples]]:
        for k, shard in enumerate(list(shards)[::-1]):
            if k == 3:
                raise UserError("gone", "again")
            yield from local(weights, [shard], advance)

    def counts(
        weights: Weights, shards: Iterable[Shard], advance: base.Advance
    ) -> Iterator[tuple[Shard, Samples]]:
        for shard in shards:
            asked.append(shard.number)
            yield from local(weights, [shard], advance)

    with pytest.raises(UserError, match="gone"):
        taken(Engine(dies), policy, FolderShelf(tmp_path / "shards", tmp_path))
    kept = sorted((tmp_path / "shards").iterdir())
    assert len(kept) == 3
    kept[-1].write_bytes(kept[-1].read_bytes()[:-9])  # damaged: made again
    (tmp_path / "shards" / "x.host.1.partial").write_bytes(b"half")
    again = taken(Engine(counts), policy, FolderShelf(tmp_path / "shards", tmp_path))
    assert asked == [0, 1, 4]
    assert same(again, taken(Engine(), policy, MemoryShelf()))


def test_shards_are_known_by_all_that_decides_them(policy: CausalLM) -> None:
    def key(seed: int = 0, first: int = 0, **changes: object) -> str:
        settings = SETTINGS.model_copy(update=changes)
        return next(iter(cut(policy, PROMPTS[first:], settings, seed))).key

    keys = [key(), key(1), key(first=1), key(max_tokens=6), key(temperature=0.5)]
    assert len(set(keys)) == 5 and key() == keys[0]


def test_a_share_is_scored_and_the_gap_is_kept(policy: CausalLM) -> None:
    own = taken(Engine(), policy, MemoryShelf())
    assert own.gap_R is None
    good = taken(Engine(off_by(0.01), "other", rescored=0.3), policy, MemoryShelf())
    assert good.gap_R is not None
    known = np.isfinite(good.gap_R)
    assert known.sum() == 4 * 3 + 2  # ceil(.3 * 8) of four shards, ceil(.3 * 4) of one
    assert good.gap_R[known] == pytest.approx(-0.01, abs=1e-4)
    assert good.logp_R[known] == pytest.approx(own.logp_R[known], abs=1e-4)
    assert good.logp_R[~known] == pytest.approx(own.logp_R[~known] + 0.01, abs=1e-12)


@pytest.mark.parametrize("nats", [0.5, -0.5, np.nan])
def test_past_the_threshold_all_are_scored(policy: CausalLM, nats: float, tmp_path: Path) -> None:
    own = taken(Engine(), policy, MemoryShelf())
    engine = Engine(off_by(nats), "other", rescored=0.3)
    taken(engine, policy, FolderShelf(tmp_path / "shards", tmp_path))
    bad = taken(
        engine, policy, FolderShelf(tmp_path / "shards", tmp_path)
    )  # all of it from the shelf
    assert bad.logp_R == pytest.approx(own.logp_R, abs=1e-4)
    assert bad.gap_R is not None
    expected = np.inf if np.isnan(nats) else -nats
    assert bad.gap_R == pytest.approx(np.full(len(own), expected), abs=1e-4)


def test_rows_without_a_log_probability_are_scored(policy: CausalLM) -> None:
    own = taken(Engine(), policy, MemoryShelf())
    some = taken(Engine(off_by(np.nan, every=2), "other", rescored=0.3), policy, MemoryShelf())
    assert some.logp_R == pytest.approx(own.logp_R, abs=1e-4)


def test_an_engine_that_gives_no_more_than_some_is_named(policy: CausalLM) -> None:
    def lazy(
        weights: Weights, shards: Iterable[Shard], advance: base.Advance
    ) -> Iterator[tuple[Shard, Samples]]:
        yield from local(weights, list(shards)[:2], advance)

    with pytest.raises(UserError, match="shards"):
        taken(Engine(lazy, "lazy"), policy, MemoryShelf())


def test_prompts_count_from_the_shard(policy: CausalLM) -> None:
    for shard, part in local(
        Weights(policy, None), cut(policy, PROMPTS, SETTINGS, 3), lambda n: None
    ):
        assert list(part.prompt_R) == sorted(list(range(len(shard.prompts))) * 4)
        assert all(isinstance(x, Prompt) for x in shard.prompts)


def test_another_model_is_named(policy: CausalLM) -> None:
    other = tiny.policy(seed=5)

    def sampler(
        weights: Weights, shards: Iterable[Shard], advance: base.Advance
    ) -> Iterator[tuple[Shard, Samples]]:
        for shard, part in local(Weights(other, None), shards, advance):
            yield shard, base.untrusted(part)

    with pytest.raises(UserError, match="another model"):
        taken(Engine(sampler, "other", rescored=0.5), policy, MemoryShelf())
