"""A run in several processes, started by torchrun: sampling and updates are spread over them.

Rank 0 is the run: it alone has the folder, its lock and the terminal, and calls the others, which
``follow``. What they do together:

* **Samples**: shards go round, one a process. A shard is the same wherever it is made.
* **Updates**: the model is sharded by FSDP2 (``fully_shard``): each process holds a part of every
  weight, of its gradient and of AdamW's states, and gathers a layer at a time. A step's groups are
  dealt out; their gradients, each divided by the step's number of groups, are added up. So the
  step is that of one process, but for the order in which float32 numbers are added: a sum of n
  numbers g in another order differs by n u sum |g| at most, u = 2^-24. Adam's step divides by the
  gradient's size, so that an entry whose gradient is rounding alone may move by the learning rate
  either way; see docs/decisions/0039.

All processes must call the layers equally often, so that a response is read by one call of them
(``Network.once``), and one with fewer passes than another makes up for it with passes of weight
zero. Memory of an update of P parameters, N processes: 16 P / N bytes in float32, 20 P / N in
bfloat16, the largest layer, and activations; between updates the whole model.

A process that ends, for whatever reason, ends the run: the others' next exchange fails, and so
does torchrun. The same command goes on. One that stops without ending does so after ``TIMEOUT``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.launcher import LaunchConfig, elastic_launch
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from srlm import boundary, train
from srlm.config import UpdateSettings
from srlm.engines.base import Advance, Shard, Weights, local
from srlm.errors import UserError, first_line
from srlm.policies.base import Differentiable, Policy
from srlm.policies.hf import CausalLM
from srlm.samples import sample
from srlm.train import Held, Objective, Passes, Work
from srlm.types import Ints, Pairs, Prompt, Samples, UpdateReport

TIMEOUT = timedelta(minutes=30)
"""An exchange of numbers that takes longer has failed."""


# ---- an update


class _Root(torch.nn.Module):
    """The model, and whatever is to be done with it while what lies in no layer is gathered."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, run: Callable[[], Any]) -> Any:
        return run()


def _sharded(model: torch.nn.Module, mesh: DeviceMesh) -> tuple[_Root, list[FSDPModule]]:
    """The model's layers and the rest, sharded; gradients are added up, not averaged.

    Its parameters take the place of the model's own, which are empty from then on.
    """
    memo: dict[int, Any] = {
        id(p): torch.nn.Parameter(p.data, requires_grad=p.requires_grad) for p in model.parameters()
    }
    root = _Root(deepcopy(model, memo))
    for parameter in model.parameters():
        parameter.data = parameter.data.new_empty(0)
    del memo
    layers = [x for x in root.modules() if isinstance(x, GradientCheckpointingLayer)]
    units: list[FSDPModule] = []
    for module in (*layers, root):
        unit = fully_shard(module, mesh=mesh)
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)  # gloo cannot scale
        units.append(unit)
    return root, units


class Shared:
    """``train.Passes`` of all processes together, each on its share of the groups.

    Args:
        policy: of the sharded model.
        root: that model.
    """

    def __init__(
        self,
        policy: CausalLM,
        root: _Root,
        units: list[FSDPModule],
        prompts: Sequence[Prompt],
        pairs: Pairs,
        objective: Objective,
        settings: UpdateSettings,
    ) -> None:
        self._policy, self._root, self._units = policy, root, units
        self._work = Work(
            policy, prompts, pairs, objective, settings.strength, settings.pass_tokens
        )
        self._positions, self._recomputed = settings.pass_tokens, False
        rows = np.arange(len(pairs.tokens_R))
        self._size_R = policy.positions(prompts, pairs.prompt_R, pairs.tokens_R, rows)
        self._count_G = np.array([len(rows) for rows in self._work.rows_G])
        self._width_G = np.array([self._size_R[rows].max() for rows in self._work.rows_G])
        self._least = np.array([int(np.argmin(self._size_R))])

    def parameters(self) -> list[torch.nn.Parameter]:
        """This process's shards of them."""
        return self._policy.parameters()

    def prepare(self, stack: ExitStack) -> None:
        """Compute layers again where the longest response does not fit otherwise."""
        if _most(not self._policy.budget.trainable(self._work.longest)):
            self._root(lambda: stack.enter_context(self._policy.recomputing()))
            self._reshard()
            self._recomputed = True

    def loss(self, chosen: Ints) -> float:
        """Mean loss of the groups, without gradient."""
        mine = self._dealt(chosen)
        logp_R = self._quietly(self._work.rows(mine) if len(mine) else mine)
        total = torch.zeros(1, dtype=torch.float64)
        if len(mine):
            total += self._work.of(logp_R, mine).detach()
        dist.all_reduce(total)
        return float(total) / len(chosen)

    def gradient(self, chosen: Ints, held: Held, stack: ExitStack) -> None:
        """The gradient of the mean loss of the groups, anew."""
        held.clear()
        whole, large = self._parted(self._dealt(chosen))
        jobs: list[Callable[[], torch.Tensor]] = []
        jobs += [partial(self._of_groups, part) for part in whole]
        rows_G = [self._work.rows_G[g] for g in large]
        rows_R = np.concatenate([np.empty(0, dtype=np.int64), *rows_G])
        if _most(len(rows_R)):
            logp_GR = self._quietly(rows_R).split([len(rows) for rows in rows_G])
            for g, rows, own in zip(large, rows_G, logp_GR, strict=True):
                own_R = own.clone().requires_grad_()
                (slope_R,) = torch.autograd.grad(self._work.of(own_R, np.array([g])), own_R)
                for some in self._fitting(rows):
                    jobs.append(partial(self._of_rows, rows[some], slope_R[some]))
        for i in range(_most(len(jobs))):
            loss = jobs[i]() / len(chosen) if i < len(jobs) else 0.0 * self._logp(self._least).sum()
            loss.backward()
            held.gather()

    def clip(self, held: Held, most: float) -> float:
        """Scale the gradient to the norm ``most`` where it is longer; its norm before that."""
        norm: torch.Tensor = torch.nn.utils.clip_grad_norm_(held.wide, most)
        assert isinstance(norm, DTensor)
        return float(norm.full_tensor())

    def _of_groups(self, part: Ints) -> torch.Tensor:
        """Sum of the groups' losses."""
        return self._work.of(self._logp(self._work.rows(part)), part)

    def _of_rows(self, rows: Ints, slope_R: torch.Tensor) -> torch.Tensor:
        """What has the gradient of a loss of this slope by the rows' log-probabilities."""
        return slope_R @ self._logp(rows)

    def _logp(self, rows: Ints) -> torch.Tensor:
        """Log-probabilities of some rows, [R], in one call of the layers by every process."""
        prompt_R, tokens_R = self._work.given(rows)
        out: torch.Tensor = self._root(
            lambda: self._policy.log_prob_grad(self._work.prompts, prompt_R, tokens_R)
        )
        return out

    def _quietly(self, rows: Ints) -> torch.Tensor:
        """Log-probabilities of any number of rows, [R], without gradient."""
        out_R = torch.zeros(len(rows), dtype=torch.float64)
        parts = list(self._fitting(rows))
        with torch.no_grad():
            for i in range(_most(len(parts))):
                logp_R = self._logp(rows[parts[i]] if i < len(parts) else self._least)
                if i < len(parts):
                    out_R[parts[i]] = logp_R
        self._reshard()
        return out_R

    def _reshard(self) -> None:
        """Keep shards alone, as the backward pass does otherwise."""
        for unit in self._units:
            unit.reshard()

    def _room(self) -> int:
        return self._positions or self._policy.budget.trained(recomputed=self._recomputed)

    def _dealt(self, chosen: Ints) -> Ints:
        """This process's share of the groups, about as large as the others'."""
        size_G = self._count_G[chosen] * self._width_G[chosen]
        return chosen[np.argsort(-size_G, kind="stable")][dist.get_rank() :: dist.get_world_size()]

    def _parted(self, groups: Ints) -> tuple[list[Ints], list[int]]:
        """Groups that are run together in a pass, and groups that are larger than one; padding
        counts. Groups of like width come together, the widest first."""
        whole: list[list[int]] = []
        large: list[int] = []
        width = count = 0
        for g in groups[np.argsort(-self._width_G[groups], kind="stable")]:
            rows = int(self._count_G[g])
            if rows * self._width_G[g] > self._room():
                large.append(int(g))
            elif whole and (count + rows) * width <= self._room():
                whole[-1].append(int(g))
                count += rows
            else:
                whole.append([int(g)])
                width, count = int(self._width_G[g]), rows
        return [np.array(part) for part in whole], large

    def _fitting(self, rows: Ints) -> Iterator[Ints]:
        """Places of rows in passes, the longest first."""
        left = np.argsort(-self._size_R[rows], kind="stable")
        while len(left):
            most = max(1, self._room() // int(self._size_R[rows[left[0]]]))
            yield left[:most]
            left = left[most:]


def _most(number: int) -> int:
    """The largest of the processes' numbers."""
    found = torch.tensor([int(number)])
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


@contextmanager
def together(
    policy: Differentiable,
    prompts: Sequence[Prompt],
    pairs: Pairs,
    objective: Objective,
    settings: UpdateSettings,
) -> Iterator[Passes]:
    """``train.Open`` of all processes: ``policy`` is sharded inside, and whole again after it, the
    same everywhere. After an error it is of no use."""
    assert isinstance(policy, CausalLM)
    device, world = policy.device, dist.get_world_size()
    root, units = _sharded(policy.model, init_device_mesh(device.type, (world,)))
    own = CausalLM(
        root.model,
        policy.tokenizer,
        chat=policy.chat,
        system=policy.system,
        chat_args=policy.chat_args,
        pass_tokens=policy.budget.positions,
    )
    own.network.once, own.budget.shards = True, world
    shards = list(root.model.parameters())
    with torch.no_grad():
        root(lambda: own.network.kind)
    for unit in units:
        unit.reshard()
    yield Shared(own, root, units, prompts, pairs, objective, settings)
    for whole, shard in zip(policy.model.parameters(), shards, strict=True):
        assert isinstance(shard.data, DTensor)
        whole.data = shard.data.full_tensor().clone()


# ---- the processes


class Team:
    """The processes of a run, as one of them sees them.

    Args:
        store: of torchrun; says what went wrong in a process that has ended.
    """

    def __init__(self, store: dist.Store) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._store = store
        self._idle = dist.new_group(backend="gloo", timeout=timedelta(days=365))
        """Where the others wait for the next call."""

    # ---- rank 0

    def fit(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        pairs: Pairs,
        objective: Objective,
        settings: UpdateSettings,
        *,
        seed: int,
        advance: Callable[[int], None] = lambda groups: None,
    ) -> tuple[Policy, UpdateReport]:
        """``train.fit`` by all processes; by this one where the policy is no network.

        Raises:
            UserError: as ``train.fit``; a process has ended.
        """
        if not isinstance(policy, CausalLM):
            return train.fit(
                policy, prompts, pairs, objective, settings, seed=seed, advance=advance
            )
        with self._named():
            self._call("fit", (prompts, pairs, settings, seed))
            self._share(policy)
            return train.fit(
                policy,
                prompts,
                pairs,
                objective,
                settings,
                seed=seed,
                advance=advance,
                passes=together,
            )

    def sampler(
        self, weights: Weights, shards: Iterable[Shard], advance: Advance
    ) -> Iterator[tuple[Shard, Samples]]:
        """An engine's sampler (``srlm.engines.base``): shards go round, one a process.

        Raises:
            UserError: as ``samples.sample``; a process has ended.
        """
        policy, left = weights.policy, iter(shards)
        if not isinstance(policy, CausalLM):
            yield from local(weights, left, advance)
            return
        given = list(islice(left, self.size))
        if given:
            with self._named():
                self._call("weights", None)
                self._share(policy)
        while given:
            with self._named():
                self._call("sample", given)
                own = sample(
                    policy, given[0].prompts, given[0].settings, given[0].seed, advance=advance
                )
                made: list[Any] = [None] * self.size
                dist.gather_object(own, made, dst=0)
            advance(sum(len(shard.prompts) for shard in given[1:]))
            yield from zip(given, made, strict=False)
            given = list(islice(left, self.size))

    def end(self) -> None:
        """Let the others go."""
        with self._named():
            self._call("end", None)

    # ---- the others

    def follow(self, policy: Policy, objective_of: Callable[[UpdateSettings], Objective]) -> None:
        """Do what rank 0 calls for, until it ends.

        Args:
            policy: of the run's model; its weights come from rank 0.
            objective_of: the objective that an update's settings name.
        """
        while (call := self._called())[0] != "end":
            assert isinstance(policy, CausalLM)  # rank 0 calls for nothing else
            name, given = call
            if name == "weights":
                self._share(policy)
            elif name == "sample":
                own = given[self.rank] if self.rank < len(given) else None
                made = own and sample(policy, own.prompts, own.settings, own.seed)
                dist.gather_object(made, dst=0)
            elif name == "fit":
                self._share(policy)
                prompts, pairs, settings, seed = given
                objective = objective_of(settings)
                train.fit(policy, prompts, pairs, objective, settings, seed=seed, passes=together)

    # ---- both

    def _call(self, name: str, given: Any) -> None:
        dist.broadcast_object_list([(name, given)], src=0, group=self._idle)

    def _called(self) -> tuple[str, Any]:
        call: list[Any] = [None]
        dist.broadcast_object_list(call, src=0, group=self._idle)
        name, given = call[0]
        return name, given

    def _share(self, policy: CausalLM) -> None:
        """Give all processes the weights of rank 0's policy."""
        with torch.no_grad():
            for tensor in (*policy.model.parameters(), *policy.model.buffers()):
                dist.broadcast(tensor, src=0)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """An exchange that fails, in a user's words."""
        try:
            yield
        except RuntimeError as error:
            if not lost(error):
                raise
            told = [
                f"process {rank} of {self.size}: {self._store.get(_key(rank)).decode()}"
                for rank in range(self.size)
                if self._store.check([_key(rank)])
            ]
            line = first_line(error)
            raise UserError(
                "; ".join(told) or f"a process of the run has ended, or does not answer: {line}",
                boundary.AGAIN,
            ) from error

    def failed(self, error: UserError) -> None:
        """Say what this process, which is about to end, has met."""
        self._store.set(_key(self.rank), error.problem)


def lost(error: RuntimeError) -> bool:
    """Whether an error says that an exchange between processes failed."""
    return isinstance(error, dist.DistError) or any(x in str(error) for x in ("gloo", "NCCL"))


def _key(rank: int) -> str:
    return f"failed/{rank}"


@contextmanager
def joined(device: str) -> Iterator[Team | None]:
    """The processes that torchrun started; None where it is one, or was not torchrun.

    Args:
        device: as ``--device``; on CUDA each process has the GPU of its number on its machine.

    Raises:
        UserError: fewer GPUs than processes.
    """
    if not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        yield None
        return
    cuda = torch.cuda.is_available() and device in ("auto", "cuda")
    if cuda:
        here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if here > gpus:
            raise UserError(
                f"{here} processes on a machine with {gpus} GPUs",
                f"start {gpus}, or use --device cpu",
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, rank, size = next(dist.rendezvous("env://"))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=dist.PrefixStore("exchange", store),
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )
    team = Team(dist.PrefixStore("srlm", store))
    try:
        yield team
    except UserError as error:
        team.failed(error)
        raise
    except RuntimeError as error:
        if team.rank and lost(error):  # rank 0 has ended, and says why
            sys.exit(2)
        raise
    if team.rank == 0:
        team.end()
    dist.destroy_process_group()


def launch(processes: int, arguments: Sequence[str]) -> None:
    """``srlm`` with these arguments but ``--processes`` in so many processes on this machine, as
    torchrun --standalone starts them; returns when all have ended.

    Raises:
        UserError: a process other than rank 0 ended first; rank 0 says itself what it met.
        SystemExit: rank 0 ended with that code; or a signal came.
    """
    if dist.is_torchelastic_launched():
        raise UserError("--processes, and torchrun beside it", "use one of them")
    kept = [x for x in arguments if not x.startswith("--processes=")]
    if "--processes" in kept:
        at = kept.index("--processes")
        del kept[at : at + 2]
    cores = os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="srlm",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "srlm", *kept)
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if rank == 0 and failure.exitcode > 0:
            sys.exit(failure.exitcode)
        how = f"killed by signal {-failure.exitcode}" if failure.exitcode < 0 else "ended"
        raise UserError(f"process {rank} of {processes}: {how}", boundary.AGAIN) from None
