"""The engine ``ray``: a map over shards by the workers of a Ray cluster.

The driver, which is the run, owns the shards and hands each to a worker that is free. Workers are
actors that load the policy from the run's folder, which all machines see under the same path, and
keep it until another is asked for. A shard's result does not depend on the worker, so that a worker
or a machine may be lost at any moment: its shard is made by another, and another worker is asked
for in its place. Only workers that have answered are given work. The driver holds as many shards as
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
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from srlm import samples as sampling
from srlm.boundary import AGAIN
from srlm.engines.base import Advance, Sampler, Shard, Weights
from srlm.errors import UserError
from srlm.policies.base import Policy
from srlm.types import Samples

ANSWER = 120.0
"""Seconds in which some worker must answer where none works."""
SHARD = 1800.0
"""Seconds that a shard may take; then its worker is lost."""
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


def require_ray() -> None:
    """See that ray is there.

    Raises:
        UserError: it is not.
    """
    if find_spec("ray") is None:
        raise UserError("--engine ray needs ray, which is not installed", "pip install 'srlm[ray]'")


def connect(address: str | None) -> None:
    """Join the cluster, once a process; without an address start one on this machine.

    Raises:
        UserError: ray is not installed; no cluster answers at the address.
    """
    require_ray()
    import ray

    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        ray.init("local", include_dashboard=False, **quiet)
        return
    host, _, port = address.rpartition(":")
    told = UserError(
        f"--ray-address {address}: no Ray cluster answers there",
        "give HOST:PORT of `ray start --head`; without it a cluster is started on this machine",
    )
    if not host or not port.isdecimal() or "/" in host:
        raise told
    try:
        socket.create_connection((host, int(port)), CONNECT).close()
        ray.init(address, **quiet)
    except (OSError, RuntimeError, ConnectionError, ValueError) as error:
        raise told from error


class _Worker:
    """An actor: a policy, and what is done with it."""

    def __init__(self, threads: int, open_policy: Open) -> None:
        torch.set_num_threads(threads)
        self._open = open_policy
        self._folder: Path | None = None
        self._policy: Policy | None = None

    def ping(self) -> dict[str, str]:
        """Its versions: it is there."""
        return {name: version(name) for name in SAME}

    def work(self, folder: Path, do: Callable[[Policy, Any], Any], item: Any) -> Any:
        """``do`` with the policy in a folder."""
        if folder != self._folder:
            self._policy = None  # room for the next
            self._policy, self._folder = self._open(folder), folder
        assert self._policy is not None
        return do(self._policy, item)


@dataclass(slots=True)
class _Task(Generic[T]):
    """An item, and how many workers it was lost with."""

    item: T
    losses: int = 0
    since: float = 0.0


class _Crew(Generic[T]):
    """The workers: those asked for, those that are free, those at work.

    Args:
        open_policy: reads a policy from a folder.
        gpu: each worker has a GPU.
    """

    def __init__(self, open_policy: Open, *, gpu: bool) -> None:
        import ray

        self._ray = ray
        self._threads = torch.get_num_threads()
        self._versions = {name: version(name) for name in SAME}
        needs = {"num_cpus": self._threads, "num_gpus": int(gpu)}
        self._make = ray.remote(_Worker).options(scheduling_strategy="SPREAD", **needs)
        self._open = open_policy
        self._asked: dict[Any, Any] = {}
        self.busy: dict[Any, tuple[Any, _Task[T]]] = {}
        self.free: deque[Any] = deque()
        self.redo: deque[_Task[T]] = deque()
        self._heard, self._lost = time.monotonic(), ""
        has = ray.cluster_resources()
        count = has.get("GPU", 0) if gpu else has.get("CPU", 0) // self._threads
        if count < 1:
            raise UserError(
                f"the Ray cluster has {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs: "
                f"a worker here takes {self._threads} CPUs and {int(gpu)} GPUs",
                "start it with more, or set OMP_NUM_THREADS lower",
            )
        for _ in range(int(count)):
            self.ask()

    def ask(self) -> None:
        """Ask for a worker."""
        actor = self._make.remote(self._threads, self._open)
        self._asked[actor.ping.remote()] = actor

    def give(self, folder: Path, do: Callable[[Policy, T], Any], task: _Task[T]) -> None:
        """Give work to a worker that is free."""
        actor, task.since = self.free.popleft(), time.monotonic()
        self.busy[actor.work.remote(folder, do, task.item)] = actor, task

    def done(self) -> Iterator[tuple[T, Any]]:
        """Wait for something, and yield what was finished.

        Raises:
            UserError: no worker answers; one is of other versions; an item is not done by any.
        """
        ready: list[Any] = []
        while not ready:
            ready, _ = self._ray.wait([*self._asked, *self.busy], timeout=1.0)
            now = time.monotonic()
            late = [ref for ref, (_, task) in self.busy.items() if now - task.since > SHARD]
            for ref in late:
                self._lose(ref, f"took longer than {SHARD:.0f} s")
            if not self.busy and now - self._heard > ANSWER:
                raise UserError(
                    f"no worker of the Ray cluster answers in {ANSWER:.0f} s{self._lost}",
                    f"see `ray status` for free CPUs and for errors; {AGAIN}",
                )
        for ref in ready:
            try:
                value = self._ray.get(ref)
            except self._ray.exceptions.RayTaskError as error:
                raise self._told(error) from error
            except self._ray.exceptions.RayError as error:
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
                self.free.append(actor)
                continue
            actor, task = self.busy.pop(ref)
            self.free.append(actor)
            yield task.item, value

    def _lose(self, ref: Any, why: str) -> None:
        """Put another worker in the place of one that is lost."""
        self._lost = f"; the last one lost: {why}"
        if ref in self._asked:
            actor = self._asked.pop(ref)
        else:
            actor, task = self.busy.pop(ref)
            task.losses += 1
            if task.losses >= LOSSES:
                raise UserError(
                    f"{task.item}: lost {LOSSES} workers of the Ray cluster one after another "
                    f"({why})",
                    f"see their logs: out of memory, mostly; use fewer --samples; {AGAIN}",
                )
            self.redo.append(task)
        self._ray.kill(actor)
        self.ask()

    def _told(self, error: Any) -> Exception:
        """What a worker raised: the user's error as it is."""
        cause = error.cause
        if isinstance(cause, UserError):
            return UserError(cause.problem, cause.remedy)
        raise error

    def end(self) -> None:
        """Let all workers go."""
        for actor in chain(self._asked.values(), (a for a, _ in self.busy.values()), self.free):
            self._ray.kill(actor)


def spread(
    address: str | None,
    open_policy: Open,
    folder: Path,
    do: Callable[[Policy, T], R],
    items: Iterable[T],
    *,
    gpu: bool = False,
) -> Iterator[tuple[T, R]]:
    """``do`` with a policy and each of the items, by the cluster's workers, in any order.

    Args:
        address: of the cluster; None: on this machine.
        open_policy: reads the policy from its folder.
        folder: seen by all machines under this path.
        do: the same whoever does it.
        items: taken as there is room for them.
        gpu: each worker has one.

    Raises:
        UserError: see ``connect``; no worker answers in ``ANSWER`` seconds; an item that loses
            ``LOSSES`` workers one after another; what ``do`` raises.
    """
    left: Iterator[_Task[T]] = (_Task(item) for item in items)
    if (task := next(left, None)) is None:
        return
    connect(address)
    crew: _Crew[T] = _Crew(open_policy, gpu=gpu)
    try:
        while task is not None or crew.busy or crew.redo:
            while crew.free and crew.redo:
                crew.give(folder, do, crew.redo.popleft())
            while crew.free and task is not None:
                crew.give(folder, do, task)
                task = next(left, None)
            yield from crew.done()
    finally:
        crew.end()


def on_cluster(address: str | None, open_policy: Open) -> Sampler:
    """The sampler of a Ray cluster; arguments as ``spread``."""

    def sampler(
        weights: Weights, shards: Iterable[Shard], advance: Advance
    ) -> Iterator[tuple[Shard, Samples]]:
        if weights.folder is None:
            raise UserError(
                "--engine ray: the policy lies in memory alone", "keep the run in a folder"
            )
        device = getattr(weights.policy, "device", torch.device("cpu"))
        gpu = device.type == "cuda"
        for shard, made in spread(
            address, open_policy, weights.folder.resolve(), _sampled, shards, gpu=gpu
        ):
            advance(len(shard.prompts))
            yield shard, made

    return sampler


def _sampled(policy: Policy, shard: Shard) -> Samples:
    return sampling.sample(policy, shard.prompts, shard.settings, shard.seed)
