"""A Ray cluster that is played in this process: workers answer, or are lost. What is given to them
and what comes back goes through cloudpickle, as in a real one."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest

from srlm.engines import cluster
from srlm.errors import UserError


class Lost(Exception):
    """A worker is gone."""


class Failed(Lost):
    """What a worker raised."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


@dataclass(eq=False)
class Call:
    """A call of a worker's method, whose result is asked for later."""

    number: int
    name: str
    do: Callable[..., Any]
    given: tuple[Any, ...]


class Played:
    """Stands for the module ray: calls are made when their results are asked for.

    Args:
        cpus: of the cluster.
        loses: whether the call of that number loses its worker.
        deaf: workers that never answer.
    """

    def __init__(
        self, cpus: int, loses: Callable[[int], bool] = lambda n: False, deaf: Sequence[int] = ()
    ) -> None:
        self.exceptions = SimpleNamespace(RayError=Lost, RayTaskError=Failed)
        self.cpus, self.loses, self.deaf = cpus, loses, deaf
        self.calls = self.made = self.most = 0
        self.killed: list[int] = []
        self.fed: Counter[int] = Counter()

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.cpus)}

    def remote(self, kind: Any) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._actor(kind)))

    def _actor(self, kind: Any) -> Callable[..., Any]:
        def make(*given: Any) -> Any:
            number, self.made = self.made, self.made + 1
            own = kind(*given)

            def method(name: str) -> Any:
                return SimpleNamespace(remote=lambda *x: Call(number, name, getattr(own, name), x))

            return SimpleNamespace(
                number=number, ping=method("ping"), work=method("work"), rest=method("rest")
            )

        return make

    def wait(self, refs: Sequence[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        answering = [ref for ref in refs if ref.number not in self.deaf]
        self.most = max(self.most, sum(ref.name == "work" for ref in refs))
        return answering[-1:], []

    def get(self, ref: Any) -> Any:
        if ref.name == "work":
            self.calls += 1
            self.fed[ref.number] += 1
            if self.loses(self.calls):
                raise Lost("gone")
        try:
            return copied(ref.do(*copied(ref.given)))
        except UserError as error:
            raise Failed(error) from error

    def kill(self, actor: Any) -> None:
        self.killed.append(actor.number)


def copied(value: Any) -> Any:
    """As another process has it."""
    return cloudpickle.loads(cloudpickle.dumps(value))


def play(monkeypatch: pytest.MonkeyPatch, found: Played) -> None:
    """Put it in the place of ray; a worker has one thread."""
    monkeypatch.setitem(sys.modules, "ray", found)  # type: ignore[arg-type]
    monkeypatch.setattr(cluster, "find_spec", lambda name: name)
    monkeypatch.setattr(cluster.torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(cluster.torch, "set_num_threads", lambda n: None)
