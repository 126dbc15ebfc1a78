"""The map over a cluster's workers, on a cluster that is played: workers answer, or are lost."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from srlm.engines import cluster
from srlm.engines.cluster import SAME, Crew, answering
from srlm.errors import UserError
from srlm.policies.base import Policy
from tests import tiny
from tests.engines.played import Played
from tests.engines.played import play as put


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Played], Crew]]:
    """A crew on a cluster that is played."""

    def played(found: Played) -> Crew:
        put(monkeypatch, found)
        return Crew(None, lambda folder: tiny.tabular())

    return played


def square(policy: Policy, x: int) -> int:
    return x * x


HERE = Path("policy")


def test_every_item_once_whatever_is_lost(play: Callable[[Played], Crew]) -> None:
    ray = Played(4, loses=lambda n: n % 3 == 0)
    found = list(play(ray).map(HERE, square, range(40)))
    assert sorted(found) == [(x, x * x) for x in range(40)]
    assert ray.calls == 40 + len(ray.killed)
    assert ray.made == 4 + len(ray.killed)


def test_workers_stay_between_calls(play: Callable[[Played], Crew]) -> None:
    ray = Played(3)
    crew = play(ray)
    for _ in range(3):
        assert len(list(crew.map(HERE, square, range(10)))) == 10
    assert ray.made == 3


def test_items_are_taken_as_there_is_room(play: Callable[[Played], Crew]) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for x in range(100):
            taken += 1
            yield x

    ray = Played(2)
    for done, _ in enumerate(play(ray).map(HERE, square, items()), start=1):
        assert taken <= done + 2 + 1
    assert ray.most <= 2


def test_only_workers_that_answered_are_fed(play: Callable[[Played], Crew]) -> None:
    ray = Played(3, deaf=(0, 2))
    assert len(list(play(ray).map(HERE, square, range(5)))) == 5
    assert set(ray.fed) == {1}


def test_work_that_loses_every_worker_is_named(play: Callable[[Played], Crew]) -> None:
    with pytest.raises(UserError, match="lost one after another"):
        list(play(Played(2, loses=lambda n: True)).map(HERE, square, range(3)))


def test_no_worker_answers(play: Callable[[Played], Crew], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER", 0.01)
    with pytest.raises(UserError, match="no worker"):
        list(play(Played(2, deaf=(0, 1))).map(HERE, square, range(3)))


def test_no_room_for_a_worker(play: Callable[[Played], Crew]) -> None:
    with pytest.raises(UserError, match="0 CPUs"):
        list(play(Played(0)).map(HERE, square, range(3)))


def test_a_users_error_comes_through(play: Callable[[Played], Crew]) -> None:
    def bad(policy: Policy, x: int) -> int:
        raise UserError("line 3", "mend it")

    with pytest.raises(UserError, match="line 3"):
        list(play(Played(2)).map(HERE, bad, range(3)))


def test_other_versions_are_refused(
    play: Callable[[Played], Crew], monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = play(Played(1))
    monkeypatch.setattr(cluster, "version", lambda name: "0")
    assert {version(name) for name in SAME} != {"0"}
    with pytest.raises(UserError, match="versions"):
        list(crew.map(HERE, square, range(3)))


def test_nothing_to_do_needs_no_cluster(play: Callable[[Played], Crew]) -> None:
    ray = Played(0)
    assert list(play(ray).map(HERE, square, ())) == []
    assert ray.made == 0


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed"):
        answering(None)


@pytest.mark.parametrize("address", ["here", "ray://here:10001", "127.0.0.1:port"])
def test_no_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: name)
    with pytest.raises(UserError, match=address):
        answering(address)


def test_nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(UserError, match=address):
            answering(address)
