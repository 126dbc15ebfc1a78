"""The engine ``ray``: a map over pieces of work by the workers of a Ray cluster.

The driver, which is the run, owns the pieces and hands each to a worker that is free. Workers are
actors that load the policy from the run's folder, which all machines see under the same path, and
keep it until another is asked for. A piece's result does not depend on the worker, so that a worker
or a machine may be lost at any moment: its piece is made by another, and another worker is asked
for in its place. Only workers that have answered are given work. The driver holds as many pieces as
there are workers.

A worker computes with as many threads as the driver does, because sums of floats depend on their
number; so many of the cluster's CPUs it takes, or one GPU where the policy lies on one.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch

from srlm.boundary import AGAIN
from srlm.engines.base import LOCAL, Advance, Do, Engine, Shard, Weights, sampled
from srlm.errors import UserError
from srlm.policies.base import Policy
from srlm.types import Samples

ANSWER = 120.0
"""Seconds in which some worker must answer where none works."""
SHARD = 1800.0
"""Seconds that a piece may take beyond a limit of its own; then its worker is lost."""
CONNECT = 10.0
"""Seconds in which an address must answer."""
LOSSES = 4
"""Workers that one shard may lose before it is to blame."""
SAME = ("srlm", "torch", "transformers", "numpy")
"""Packages that must be of one version everywhere."""

T = TypeVar("T")
R = TypeVar("R")
Open = Callable[[Path], Policy]
"""Reads a policy from a folder."""


def answering(address: str | None) -> str | None:
    """See that ray is there, and a cluster at the address; the address, None for this machine.

    Args:
        address: HOST:PORT; ``RAY_ADDRESS`` if left out.

    Raises:
        UserError: it is not.
    """
    if find_spec("ray") is None:
        raise UserError("--engine ray needs ray, which is not installed", "pip install 'srlm[ray]'")
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None:
        return None
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise _silent(address)
    try:
        socket.create_connection((host, int(port)), CONNECT).close()
    except OSError as error:
        raise _silent(address) from error
    return address


def _silent(address: str) -> UserError:
    return UserError(
        f"--ray-address {address}: no Ray cluster answers there",
        "give HOST:PORT of `ray start --head`, and its token in RAY_AUTH_TOKEN where it asks for "
        "one; without an address a cluster is started on this machine",
    )


def connect(address: str | None) -> None:
    """Join the cluster, once a process; without an address start one on this machine.

    Raises:
        UserError: as ``answering``.
    """
    address = answering(address)
    import ray

    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        ray.init("local", include_dashboard=False, **quiet)
        return
    try:
        ray.init(address, **quiet)
    except (RuntimeError, ConnectionError, ValueError) as error:
        raise _silent(address) from error


class _Worker:
    """An actor: a policy, and what is done with it."""

    def __init__(self, threads: int, open_policy: Open | None) -> None:
        torch.set_num_threads(threads)
        self._open = open_policy
        self._folder: Path | None = None
        self._policy: Policy | None = None

    def ping(self) -> dict[str, str]:
        """Its versions: it is there."""
        return {name: version(name) for name in SAME}

    def work(self, folder: Path | None, do: Callable[[Any, Any], Any], item: Any) -> Any:
        """``do`` with the policy in a folder, or with none."""
        if folder is None:
            return do(None, item)
        if folder != self._folder:
            assert self._open is not None
            self._policy = None  # room for the next
            self._policy, self._folder = self._open(folder), folder
        assert self._policy is not None
        return do(self._policy, item)

    def rest(self) -> None:
        """Let the policy go."""
        self._policy = self._folder = None
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


@dataclass(slots=True)
class _Task:
    """An item, how many workers it was lost with, and since when it is at work."""

    item: Any
    losses: int = 0
    since: float = 0.0

    @property
    def most(self) -> float:
        """Seconds that it may take."""
        return SHARD + float(getattr(self.item, "seconds", 0.0))


class Crew:
    """The workers of a cluster: those asked for, those that are free, those at work.

    They stay between calls, and let their policy go.

    Args:
        address: of the cluster; None: on this machine. It is joined when there is work.
        open_policy: reads a policy from a folder that all machines see under the same path; None
            where no work needs a policy.
        gpu: each worker has one.
        threads: of a worker; as many as this process has if left out.
    """

    def __init__(
        self,
        address: str | None,
        open_policy: Open | None,
        *,
        gpu: bool = False,
        threads: int | None = None,
    ) -> None:
        self._address, self._open, self._gpu = address, open_policy, gpu
        self._threads = threads or torch.get_num_threads()
        self._versions = {name: version(name) for name in SAME}
        self._asked: dict[Any, Any] = {}
        self._busy: dict[Any, tuple[Any, _Task]] = {}
        self._free: deque[Any] = deque()
        self._redo: deque[_Task] = deque()
        self._heard, self._lost = 0.0, ""

    def map(
        self, folder: Path | None, do: Callable[[Any, T], R], items: Iterable[T]
    ) -> Iterator[tuple[T, R]]:
        """``do`` with the policy in a folder and each of the items, in any order.

        Args:
            folder: of the policy; None where none is needed.
            do: a function of a module, the same whoever calls it.
            items: taken as there is room for them.

        Raises:
            UserError: see ``connect``; the cluster has no room for a worker; no worker answers in
                ``ANSWER`` seconds; an item that loses ``LOSSES`` workers one after another; what
                ``do`` raises.
        """
        left = (_Task(item) for item in items)
        if (task := next(left, None)) is None:
            return
        connect(self._address)
        self._muster()
        try:
            while task is not None or self._busy or self._redo:
                while self._free and self._redo:
                    self._give(folder, do, self._redo.popleft())
                while self._free and task is not None:
                    self._give(folder, do, task)
                    task = next(left, None)
                yield from self._done()
        finally:
            self._rest()

    def _muster(self) -> None:
        """Ask all workers whether they are there, and for as many as there is room for."""
        import ray

        has = ray.cluster_resources()
        room = has.get("GPU", 0) if self._gpu else has.get("CPU", 0) // self._threads
        if room < 1:
            raise UserError(
                f"the Ray cluster has {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs: a "
                f"worker takes {'a GPU and ' if self._gpu else ''}{self._threads} CPUs",
                "start it with more, or set OMP_NUM_THREADS lower",
            )
        self._heard, self._lost = time.monotonic(), ""
        while self._free:
            self._ping(self._free.popleft())
        while len(self._asked) < room:
            self._ask()

    def _ask(self) -> None:
        """Ask for a worker."""
        import ray

        make = ray.remote(_Worker).options(
            scheduling_strategy="SPREAD", num_cpus=self._threads, num_gpus=int(self._gpu)
        )
        self._ping(make.remote(self._threads, self._open))

    def _ping(self, actor: Any) -> None:
        self._asked[actor.ping.remote()] = actor

    def _give(self, folder: Path | None, do: Callable[[Any, Any], Any], task: _Task) -> None:
        """Give work to a worker that is free."""
        actor, task.since = self._free.popleft(), time.monotonic()
        self._busy[actor.work.remote(folder, do, task.item)] = actor, task

    def _done(self) -> Iterator[tuple[Any, Any]]:
        """Wait for something, and yield what was finished."""
        import ray

        ready: list[Any] = []
        while not ready:
            ready, _ = ray.wait([*self._asked, *self._busy], timeout=1.0)
            now = time.monotonic()
            for ref in [ref for ref, (_, x) in self._busy.items() if now - x.since > x.most]:
                self._lose(ref, f"took longer than {self._busy[ref][1].most:.0f} s")
            if not self._busy and now - self._heard > ANSWER:
                raise UserError(
                    f"no worker of the Ray cluster answers in {ANSWER:.0f} s{self._lost}",
                    f"see `ray status` for free CPUs and for errors; {AGAIN}",
                )
        for ref in ready:
            if ref not in self._asked and ref not in self._busy:
                continue
            try:
                value = ray.get(ref)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, UserError):
                    raise UserError(error.cause.problem, error.cause.remedy) from error
                raise
            except ray.exceptions.RayError as error:
                lines = [type(error).__name__, *str(error).strip().splitlines()]
                self._lose(ref, ": ".join(lines[:2])[:200])
                continue
            self._heard = time.monotonic()
            if ref in self._asked:
                actor = self._asked.pop(ref)
                if value != self._versions:
                    raise UserError(
                        f"a worker of the Ray cluster has {value}, and this process "
                        f"{self._versions}",
                        "install the same versions on all machines",
                    )
                self._free.append(actor)
                continue
            actor, task = self._busy.pop(ref)
            self._free.append(actor)
            yield task.item, value

    def _lose(self, ref: Any, why: str) -> None:
        """Put another worker in the place of one that is lost."""
        import ray

        self._lost = f"; the last one lost: {why}"
        if ref in self._asked:
            actor = self._asked.pop(ref)
        else:
            actor, task = self._busy.pop(ref)
            task.losses += 1
            if task.losses >= LOSSES:
                raise UserError(
                    f"{LOSSES} workers of the Ray cluster were lost one after another at the same "
                    f"work ({why})",
                    f"see their logs: out of memory, mostly; use fewer --samples; {AGAIN}",
                )
            self._redo.append(task)
        ray.kill(actor)
        self._ask()

    def _rest(self) -> None:
        """Workers let their policies go; those at work for nothing are let go themselves."""
        import ray

        for actor, _ in self._busy.values():
            ray.kill(actor)
        self._busy.clear()
        self._redo.clear()
        for actor in self._free:
            actor.rest.remote()


def on_cluster(address: str | None, open_policy: Open) -> Engine:
    """The engine of a Ray cluster, whose shards and pieces are as good as those made here;
    arguments as ``Crew``."""
    crews: dict[bool, Crew] = {}

    def spread(
        weights: Weights, do: Do, pieces: Iterable[Any], advance: Advance
    ) -> Iterator[tuple[Any, Any]]:
        if weights.folder is None:
            raise UserError(
                "--engine ray: the policy lies in memory alone", "keep the run in a folder"
            )
        gpu = getattr(weights.policy, "device", torch.device("cpu")).type == "cuda"
        crew = crews.setdefault(gpu, Crew(address, open_policy, gpu=gpu))
        for piece, made in crew.map(weights.folder.resolve(), partial(silently, do), pieces):
            advance(len(piece.prompts))
            yield piece, made

    def sampler(
        weights: Weights, shards: Iterable[Shard], advance: Advance
    ) -> Iterator[tuple[Shard, Samples]]:
        yield from spread(weights, sampled, shards, advance)

    return Engine(sampler, LOCAL.name, spread=spread)


def mapped(address: str | None) -> Callable[[Callable[[T], R], Iterable[T]], Iterator[tuple[T, R]]]:
    """A map over a Ray cluster for work that needs no policy, by workers of one thread each."""
    crew = Crew(address, None, threads=1)
    return lambda do, items: crew.map(None, partial(alone, do), items)


def alone(do: Callable[[T], R], nothing: None, item: T) -> R:
    """``do`` of an item."""
    return do(item)


def silently(do: Do, policy: Policy, piece: Any) -> Any:
    """``do`` without a sign of progress."""
    return do(policy, piece, lambda prompts: None)
