"""Pieces of measuring, search and judging: wherever they are made, the same run to the byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srlm import runner
from srlm.config import MeasureSettings
from srlm.engines import base
from srlm.engines.base import Advance, Do, Engine, Executor, Weights, here
from srlm.engines.cluster import mapped, on_cluster
from srlm.errors import UserError
from srlm.lab.work import run as lab
from srlm.measure import search
from srlm.measure.evaluate import evaluate
from srlm.measure.modes import Modes
from srlm.measure.search import find_modes, lots, searched
from srlm.rewards.base import JudgeTraining, Mean, Scored
from srlm.rounds import Method, rewards_in_pieces
from srlm.run_folder.check import check
from srlm.run_folder.shelf import FolderShelf, shelf
from srlm.types import Prompt, Samples
from tests import tiny
from tests.engines.played import Played, play

JUDGED = {
    "reward": "judge:1,judge-pairwise:0.5",
    "judge.template": "{prompt}b{response}",
    "judge.scores": "a=1,b=2,c=3",
    "judge.read": "expected",
    "judge.compare_template": "{prompt}a{first}b{second}",
    "judge.choices": "a,b",
    "update.kind": "dpo",
}
"""A judge whose questions fit a tiny model."""


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_rows", lambda policy, tokens: 16)
    monkeypatch.setattr(search, "LOT", 4)
    monkeypatch.setattr(runner, "write_page", lambda summary: summary.folder / "report.html")


def contents(folder: Path) -> dict[str, str]:
    """Hashes of all files of the rounds."""
    assert not check(folder).damage
    found: dict[str, str] = {}
    for record in sorted(folder.glob("rounds/*/files.json")):
        files = json.loads(record.read_text(encoding="utf-8"))["files"]
        found |= {f"{record.parent.name}/{name}": sha for name, sha in files.items()}
    return found


def run(place: Path, name: str, **changes: Any) -> dict[str, str]:
    """What a run of two rounds comes to."""
    model, file = place / "model", place / "prompts.jsonl"
    if not model.exists():
        tiny.saved(model)
        tiny.write_prompts(file, tiny.texts(24))
    runner.run(tiny.config(model, file, **changes), place / name)
    assert not list((place / name).glob("rounds/*/shards"))
    return contents(place / name)


@pytest.mark.parametrize(
    "changes",
    [
        JUDGED,
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"reward": "self-certainty"}, marks=pytest.mark.slow),
    ],
)
def test_a_run_by_workers_is_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, str]
) -> None:
    """One worker, and two of which one is lost again and again."""
    expected = run(tmp_path, "local", **changes)
    played = [Played(1), Played(2, loses=lambda n: n % 3 == 0)]
    for k, ray in enumerate(played):
        play(monkeypatch, ray)
        assert run(tmp_path, f"ray{k}", **changes, **{"engine.kind": "ray"}) == expected
        assert ray.calls > 20
    assert played[-1].killed


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
def test_a_run_and_claims_by_a_real_cluster(tmp_path: Path, world: int) -> None:
    ray = pytest.importorskip("ray")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    claims = ["greedy", "contraction"]
    ray.init("local", num_cpus=world, include_dashboard=False, log_to_driver=False)
    try:
        expected = run(tmp_path, "local", **JUDGED)
        assert run(tmp_path, "ray", **JUDGED, **{"engine.kind": "ray"}) == expected
        here, there = lab(claims, quick=True), lab(claims, quick=True, over=mapped(None))
    finally:
        ray.shutdown()
        torch.set_num_threads(threads)
    for one, other in zip(here, there, strict=True):
        assert replace(one, seconds=0.0).to_json() == replace(other, seconds=0.0).to_json()


class Dies(Exception):
    """The driver is gone."""


def dying(after: int, made: list[str]) -> Engine:
    """An engine of this process that ends it after so many pieces."""

    def spread(
        weights: Weights, do: Do, pieces: Iterable[Any], advance: Advance
    ) -> Iterator[tuple[Any, Any]]:
        for piece, found in here(weights, do, pieces, advance):
            if len(made) == after:
                raise Dies
            made.append(piece.key)
            yield piece, found

    return Engine(spread=spread)


def shelved(folder: Path) -> Callable[[str], FolderShelf]:
    return lambda kind: shelf(folder, folder, kind)


def test_a_measurement_goes_on_with_the_pieces_that_are_missing(tmp_path: Path) -> None:
    policy, prompts = tiny.policy(), tiny.texts(9)
    settings = MeasureSettings(samples=4, nodes=50)

    def measured(executor: Executor) -> Any:
        return evaluate(policy, prompts, settings=settings, max_tokens=4, executor=executor)

    whole = measured(Executor())
    made: list[str] = []
    for after in (1, 3, 6):
        with pytest.raises(Dies):
            measured(Executor(dying(after, made), shelved(tmp_path)))
    again = measured(Executor(dying(99, made), shelved(tmp_path)))
    assert len(made) == 1 + 3 + 3  # greedy, held-out, lots
    assert again.table == whole.table
    assert again.estimates == whole.estimates


def test_lots_are_searched_as_if_alone() -> None:
    policy, prompts = tiny.policy(), tiny.texts(9)
    settings = MeasureSettings(nodes=300, tokens=10**5, seconds=900.0)
    pieces = list(lots(prompts, settings, 3))
    assert [len(x.prompts) for x in pieces] == [4, 4, 1]
    assert sum(x.seconds for x in pieces) == pytest.approx(settings.seconds)
    found = Modes.joined([searched(policy, x, lambda prompts: None) for x in pieces])
    together = find_modes(policy.tree(prompts, max_tokens=3), 9, nodes=300)
    both = found.certified_P & together.certified_P
    assert both.sum() >= 8
    for p in np.flatnonzero(both):
        assert found.tokens_P[p] == together.tokens_P[p]
    assert found.logp_P[both] == pytest.approx(together.logp_P[both], abs=1e-5)


def test_rewards_from_the_shelf_have_their_sentences(tmp_path: Path) -> None:
    calls: list[int] = []

    def reward(policy: Any, prompts: list[Prompt], samples: Samples) -> Scored:
        calls.append(len(prompts))
        known = Mean(samples.prompt_R.sum(), len(samples))
        return Scored(samples.logp_R, {"a": known, "n": 1.0}, lambda facts: [f"{facts['n']:g}"])

    policy, prompts = tiny.policy(), tiny.texts(9)
    parts = [policy.sample(prompts, 4, seed=0, max_tokens=3)]
    method = Method(reward=reward, asks=True)

    def made(executor: Executor) -> list[Any]:
        return list(rewards_in_pieces(policy, prompts, parts, method, executor, "rewards"))

    first = made(Executor(shelf=shelved(tmp_path)))
    assert calls == [4, 4, 1]
    again = made(Executor(shelf=shelved(tmp_path)))
    assert calls == [4, 4, 1, 4]
    for (own, at, one), (_, _, other) in zip(first, again, strict=True):
        assert np.array_equal(one.reward_R, other.reward_R)
        assert one.facts == other.facts and one.facts["a"].of == other.facts["a"].of == len(own)
        assert one.notes == other.notes == ["1"]
        assert [prompts[at + p].id for p in own.prompt_R] == [
            prompts[p].id for p in parts[0].prompt_R[4 * at : 4 * at + len(own)]
        ]
    parts = [policy.sample(prompts, 4, seed=1, max_tokens=3)]  # of other samples: made anew
    made(Executor(shelf=shelved(tmp_path)))
    assert calls == [4, 4, 1, 4, 4, 4, 1]


def same(one: Any, other: Any) -> None:
    for name in one.__dataclass_fields__:
        a, b = getattr(one, name), getattr(other, name)
        assert type(a) is type(b), name
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, name)
        else:
            assert a == b, name


def test_pieces_are_read_as_they_were_put(tmp_path: Path) -> None:
    policy, prompts = tiny.policy(), tiny.texts(3)
    modes = find_modes(policy.tree(prompts, max_tokens=3), 3, nodes=1)
    judged = policy.sample(prompts, 2, seed=0, max_tokens=3)
    judged = Samples(*(getattr(judged, n) for n in list(Samples.__dataclass_fields__)[:6]))
    reward_R = np.array([np.nan, np.inf, -0.1])
    scored = Scored(
        reward_R,
        {"x": Mean(1, 3), "count": 2.0},
        judged_R=reward_R[::-1].copy(),
        training=JudgeTraining(prompts, judged, np.arange(6.0)),
    )
    for kind, made in (("modes", modes), ("rewards", scored)):
        place = shelf(tmp_path, tmp_path, kind)
        place.put("k", made, prompts)
        found = shelf(tmp_path, tmp_path, kind).get("k")
        if kind == "modes":
            same(found, made)
            continue
        np.testing.assert_array_equal(found.reward_R, made.reward_R)
        np.testing.assert_array_equal(found.judged_R, made.judged_R)
        assert found.facts == made.facts and found.facts["x"].of == 3
        same(found.training.samples, judged)
        np.testing.assert_array_equal(found.training.reward_J, np.arange(6.0))
        assert [x.content for x in found.training.prompts] == [x.content for x in prompts]


def test_a_policy_in_memory_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, Played(1))
    engine = on_cluster(None, lambda folder: tiny.policy())
    with pytest.raises(UserError, match="memory"):
        evaluate(tiny.policy(), tiny.texts(3), max_tokens=3, executor=Executor(engine))
