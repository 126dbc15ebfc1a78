"""The engine ``ray`` on a cluster of two nodes on this machine: what it survives, and its cost.

    python -m experiments.cluster [kills workers memory handled page]

``kills``: 30 runs on two nodes of one CPU each, in which a worker, a node or the driver is killed
by SIGKILL at a random number of pieces of held-out samples, search, samples and judging, ten times
each; then the same command again. Each folder is compared with that of the local engine, byte for
byte, and its samples are counted; where it was stopped it goes on. ``workers``: a round's samples
by the local engine and by 1, 2 and 4 workers, their bytes and their times; alone on the machine.
``memory``: the driver's greatest resident memory from a thousand to a million prompts.
``handled``: what a sample costs the run itself. Every section writes docs/cluster.md from the
results of all; ``page`` does that alone.

Cost: a quarter of an hour, two minutes and five on two cores; ray must be installed. Results:
experiments/results/cluster.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from srlm.writing import write_json, write_text

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "cluster.json", HERE.parent / "docs" / "cluster.md"
SOFAR = RESULTS.with_name("cluster-kills.jsonl")
HOSTS, PORT = ("127.0.0.2", "127.0.0.3"), 6399
KINDS, EACH = ("worker", "node", "driver"), 10
LAST = 80
"""Pieces by which something is killed."""


# ---- a cluster of this machine


class Nodes:
    """Ray nodes on addresses of this machine, of one CPU each.

    Args:
        folder: where Ray puts its sockets and logs; a short path.
    """

    def __init__(self, folder: Path, count: int = 2, cpus: int = 1) -> None:
        self._folder, self._cpus = folder, cpus
        self.address = f"{HOSTS[0]}:{PORT}"
        self._there: list[subprocess.Popen[bytes]] = []
        for i in range(count):
            self.start(i)

    def start(self, i: int) -> None:
        """Start node ``i``; 0 is the head. It is tried three times: on a busy machine Ray's own
        time limit may be too short."""
        for _ in range(3):
            if self._started(i):
                return
        raise SystemExit(f"node {i} did not start:\n{self._log(i).read_text(errors='replace')}")

    def _log(self, i: int) -> Path:
        return self._folder.parent / f"node{i}.log"

    def _started(self, i: int) -> bool:
        where = ["--address", self.address] if i else ["--head", "--port", str(PORT)]
        if not i:
            where += ["--temp-dir", str(self._folder), "--include-dashboard=false"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *where]
        command += [f"--node-ip-address={HOSTS[i]}", f"--num-cpus={self._cpus}"]
        with self._log(i).open("wb") as log:
            node = subprocess.Popen(
                [*command, "--disable-usage-stats"],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._there[i:] = [node]
        while b"Ray runtime started" not in self._log(i).read_bytes():
            if node.poll() is not None:
                return False
            time.sleep(0.5)
        return True

    def workers(self) -> list[int]:
        """The processes of actors, on all nodes."""
        return [
            pid
            for node in self._there
            for pid, said in family(node.pid).items()
            if said.startswith("ray::_Worker")
        ]

    def kill(self, i: int) -> None:
        """All processes of a node, at once."""
        node = self._there[i]
        for pid in [*family(node.pid), node.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()

    def end(self) -> None:
        """All of them."""
        for i in reversed(range(len(self._there))):
            self.kill(i)


def family(pid: int) -> dict[int, str]:
    """Children of a process, and theirs: number and command."""
    said = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 2) for line in said.stdout.splitlines()]
    found: dict[int, str] = {}
    reached = {pid}
    while more := {int(a): c for a, b, c in rows if int(b) in reached and int(a) not in found}:
        found |= more
        reached = set(more)
    return found


@contextmanager
def nodes(count: int = 2, cpus: int = 1) -> Iterator[Nodes]:
    """A cluster while inside."""
    with tempfile.TemporaryDirectory(prefix="srlm-ray-", ignore_cleanup_errors=True) as name:
        found = Nodes(Path(name) / "ray", count, cpus)
        try:
            yield found
        finally:
            found.end()


# ---- runs


def go(config: dict[str, Any], out: Path, address: str | None) -> None:
    """The command: a run whose pieces come from the cluster, or from this process."""
    from srlm import runner
    from srlm.config import RunConfig
    from srlm.engines import base
    from srlm.measure import search

    base.WORK, search.LOT = {"cpu": 0.0}, 4  # pieces of 64 samples, of 4 prompts
    runner.write_page = lambda summary: summary.folder / "report.html"  # not what is asked here
    engine = {} if address is None else {"engine": {"kind": "ray", "ray_address": address}}
    runner.run(RunConfig.model_validate(config | engine), out)


def forked(act: Callable[[], None]) -> int:
    """A child that does it and ends; its number."""
    child = os.fork()
    if child:
        return child
    try:
        act()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def running(child: int) -> bool:
    """Whether it has not ended."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def ended(child: int, seconds: float = 300.0) -> int:
    """Its exit code; -9 where it was killed, here if it takes longer than that."""
    until = time.monotonic() + seconds
    while (found := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.05)
    return os.waitstatus_to_exitcode(found[1])


def contents(folder: Path) -> dict[str, str]:
    """The files of a run, times aside: what ``files.json`` of each round says of them, checked."""
    from srlm.run_folder.check import check

    damaged = [x.name for x in check(folder).damage]
    assert not damaged, f"{folder}: {damaged}"
    found: dict[str, str] = {}
    for record in sorted(folder.glob("rounds/*/files.json")):
        files = json.loads(record.read_text(encoding="utf-8"))["files"]
        found |= {f"{record.parent.name}/{name}": sha for name, sha in files.items()}
    return found


def counted(folder: Path, prompts: int, samples: int) -> tuple[int, int]:
    """Rows of the rounds' samples that are there twice, and that are missing."""
    import pyarrow.parquet as parquet

    twice = missing = 0
    for file in sorted(folder.glob("rounds/*/samples.parquet")):
        ids = parquet.read_table(file, columns=["prompt_id"])["prompt_id"].to_pylist()
        each = Counter(ids)
        twice += sum(max(0, n - samples) for n in each.values())
        missing += prompts * samples - sum(min(n, samples) for n in each.values())
    return twice, missing


def inputs(folder: Path) -> dict[str, Any]:
    """A tiny model, prompts and the settings of a run of two rounds, its judge the model itself:
    ``PIECES`` of 4 prompts each."""
    from tests import tiny

    model = tiny.saved(folder / "model")
    file = tiny.write_prompts(folder / "prompts.jsonl", tiny.texts(92))
    changes = {
        "samples.per_prompt": 16,
        "samples.prompts": 64,
        "samples.max_tokens": 8,
        "measure.samples": 16,
        "measure.nodes": 100,
        "update.kind": "best-of-n",
        "reward": "judge",
        "judge.read": "expected",
        "judge.template": "{prompt}b{response}",
        "judge.scores": "a=1,b=2,c=3",
    }
    return tiny.config(model, file, **changes).model_dump(mode="json")


PIECES = {
    "round.json": ("held_out", "modes"),
    "forecast.json": ("scores",),
    "samples.parquet": ("samples",),
    "pairs.parquet": ("rewards",),
}
"""The pieces that a stage is made of, by the file that it becomes."""
NAMES = {
    "held_out": "held-out samples",
    "modes": "search",
    "scores": "judging of held-out samples",
    "samples": "samples",
    "rewards": "judging",
}


def pieces(folder: Path) -> Counter[tuple[str, str]]:
    """How many pieces of each round and kind are put aside now."""
    there = (p.parent for p in folder.glob("rounds/*/shards/*/*") if p.suffix != ".partial")
    return Counter((p.parent.parent.name, p.name) for p in there)


NONE = "none"


class Seen:
    """The pieces that a run has put aside so far, also those that are gone since."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._most = folder, Counter[tuple[str, str]]()

    def look(self) -> int:
        """Look, and count them."""
        with suppress(FileNotFoundError):
            self._most |= pieces(self._folder)
        return self._most.total()

    def kind(self) -> str:
        """The kind of work that is being done: that of pieces that are no stage yet."""
        found = [
            kind
            for (t, kind) in pieces(self._folder)
            for file, kinds in PIECES.items()
            if kind in kinds and not (self._folder / "rounds" / t / file).is_file()
        ]
        return NAMES[found[-1]] if found else NONE


def kills(each: int = EACH) -> dict[str, Any]:
    """Runs in which something is killed, and the same command again. Each is put into ``SOFAR``,
    and where that is there they go on after it; it goes when all are done."""
    import ray  # noqa: F401  (once, not in every child)

    import srlm.runner  # noqa: F401

    rows: list[dict[str, Any]] = []
    if SOFAR.exists():
        rows = [json.loads(line) for line in SOFAR.read_text().splitlines()]
    with tempfile.TemporaryDirectory() as name, nodes() as cluster:
        base = Path(name)
        config = inputs(base)
        assert ended(forked(lambda: go(config, base / "local", None))) == 0
        expected = contents(base / "local")
        for i in range(len(rows), each * len(KINDS)):
            kind, out, at_random = KINDS[i % len(KINDS)], base / f"{i}", random.Random(i)
            began = time.monotonic()
            driver = forked(lambda: go(config, out, cluster.address))  # noqa: B023
            at, seen = at_random.randrange(1, LAST), Seen(out)
            while seen.look() < at and running(driver):
                time.sleep(0.005)
            reached, stage = seen.look(), seen.kind() if running(driver) else "ended"
            if kind == "worker":
                os.kill(at_random.choice(cluster.workers()), signal.SIGKILL)
            elif kind == "node":
                cluster.kill(1)
            else:
                os.kill(driver, signal.SIGKILL)
            first = ended(driver)
            again = ended(forked(lambda: go(config, out, cluster.address)))  # noqa: B023
            twice, missing = counted(out, 64, 16)
            rows.append(
                {
                    "killed": kind,
                    "at": reached,
                    "stage": stage,
                    "first": first,
                    "again": again,
                    "same": contents(out) == expected,
                    "twice": twice,
                    "missing": missing,
                    "seconds": round(time.monotonic() - began, 1),
                }
            )
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            write_text(SOFAR, "".join(json.dumps(row) + "\n" for row in rows))
            shutil.rmtree(out)
            if kind == "node":
                cluster.start(1)
    SOFAR.unlink()
    return {"runs": rows}


# ---- workers and memory


def hashed(parts: Iterable[tuple[Any, Any]]) -> tuple[str, int]:
    """SHA-256 of shards' tokens and log-probabilities in order, and how many tokens."""
    found = sorted(parts, key=lambda pair: pair[0].number)
    digest, tokens = hashlib.sha256(), 0
    for _, made in found:
        tokens += sum(map(len, made.tokens_R))
        digest.update(json.dumps(made.tokens_R).encode() + made.logp_R.tobytes())
    return digest.hexdigest(), tokens


def clocked(policy: Any, shard: Any) -> tuple[Any, float]:
    """A shard's samples, and the processor seconds that they took."""
    from srlm.engines.base import sampled

    spent = time.process_time()
    made = sampled(policy, shard, lambda prompts: None)
    return made, time.process_time() - spent


def timed(model: Path, address: str | None, file: Path) -> None:
    """The samples of a round by one cluster, or by this process: seconds, tokens and hash."""
    from srlm.config import SampleSettings
    from srlm.engines import base
    from srlm.engines.cluster import Crew
    from srlm.policies.load import load
    from tests import tiny

    policy, settings = load(model, device="cpu"), SampleSettings(per_prompt=64, max_tokens=24)
    base.WORK = {"cpu": 1024.0 * 24 * sum(p.numel() for p in policy.parameters())}
    shards = list(base.cut(policy, tiny.texts(256), settings, 0))
    crew = Crew(address, partial(load, device="cpu"))

    def go(some: Sequence[Any]) -> list[Any]:
        if address is None:
            return [(shard, clocked(policy, shard)) for shard in some]
        return list(crew.map(model, clocked, some))

    go(shards[:4])  # workers are there
    began, spent = time.perf_counter(), time.process_time()
    made = go(shards)
    seconds, driver = time.perf_counter() - began, time.process_time() - spent
    work = sum(x for _, (_, x) in made)
    sha, tokens = hashed((shard, x) for shard, (x, _) in made)
    found = {"seconds": seconds, "work": work, "driver": driver - work * (address is None)}
    write_json(file, found | {"tokens": tokens, "sha256": sha, "shards": len(shards)})


def workers() -> dict[str, Any]:
    """The local engine, and 1, 2 and 4 workers."""
    from tests import tiny

    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        base, sizes = Path(name), {"hidden_size": 64, "intermediate_size": 176, "head_dim": 32}
        model = tiny.saved(base / "model", **sizes)
        for label, count, cpus in (("local", 0, 0), ("1", 1, 1), ("2", 2, 1), ("4", 2, 2)):
            file = base / f"{label}.json"
            if not count:
                assert ended(forked(lambda: timed(model, None, file))) == 0  # noqa: B023
            else:
                with nodes(count, cpus) as cluster:
                    where = cluster.address
                    assert ended(forked(lambda: timed(model, where, file))) == 0  # noqa: B023
            rows[label] = json.loads(file.read_text())
            print(label, rows[label], file=sys.stderr, flush=True)
    return rows


class Many(Sequence[Any]):
    """So many vector prompts, each made when it is asked for."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: Any) -> Any:
        from srlm.data import prompt_id
        from srlm.types import Prompt

        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(self._count))]
        content = [float(at % 1009) / 1009, float(at % 13) - 6.0, float(at)]
        return Prompt(prompt_id(content), content, line=at + 1)


def streamed(model: Path, count: int, address: str, file: Path) -> None:
    """The samples of so many prompts by a cluster: the greatest memory of this process."""
    from srlm.config import SampleSettings
    from srlm.engines.base import drawn
    from srlm.engines.cluster import on_cluster
    from srlm.policies.load import load
    from srlm.run_folder.shelf import FolderShelf

    policy, settings = load(model), SampleSettings(per_prompt=2, max_tokens=1)
    engine = on_cluster(address, load)
    shelf = FolderShelf(file.parent / f"round-{count}", model)
    began, spent = time.perf_counter(), time.process_time()
    rows = sum(len(x) for x in drawn(engine, policy, Many(count), settings, 0, shelf))
    assert rows == 2 * count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = time.perf_counter() - began
    write_json(
        file, {"seconds": seconds, "processor": time.process_time() - spent, "peak_mb": peak}
    )


def memory(counts: Sequence[int] = (1_000, 10_000, 100_000, 1_000_000)) -> dict[str, Any]:
    """The driver's memory by the number of prompts; of an exact policy, which is fast."""
    from tests import tiny

    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, nodes(1) as cluster:
        base = Path(name)
        tiny.linear().save(base / "model")
        for count in counts:
            file = base / f"{count}.json"
            driver = forked(lambda: streamed(base / "model", count, cluster.address, file))  # noqa: B023
            assert ended(driver, 1800) == 0
            rows[str(count)] = json.loads(file.read_text())
            print(count, rows[str(count)], file=sys.stderr, flush=True)
    return rows


def handled(rows: int = 2048, tokens: int = 256) -> dict[str, float]:
    """Processor seconds and bytes of a sample of so many tokens in the process that owns the
    shards: received, put aside, read, and written into the round's samples."""
    import io
    import pickle

    import numpy as np

    from srlm.run_folder.shelf import FolderShelf
    from srlm.run_folder.tables import write_samples
    from srlm.types import Samples
    from tests import tiny

    rng, prompts = np.random.default_rng(0), tiny.texts(rows // 16)
    token_RT = rng.integers(0, 50_000, (rows, tokens)).tolist()
    made = Samples(
        prompt_R=np.arange(rows) // 16,
        tokens_R=tuple(map(tuple, token_RT)),
        logp_R=rng.standard_normal(rows),
        weight_R=np.full(rows, 1 / 16),
        finished_R=np.ones(rows, dtype=bool),
        text_R=tuple("".join(map(str, row[:64])) for row in token_RT),
        token_logp_R=tuple(rng.standard_normal((rows, tokens))),
    )
    sent = pickle.dumps(made)
    with tempfile.TemporaryDirectory() as name:
        shelf = FolderShelf(Path(name), Path(name))
        spent = time.process_time()
        shelf.put("shard", pickle.loads(sent), prompts)
        write_samples(prompts, [shelf.get("shard")], io.BytesIO())
        spent = time.process_time() - spent
    return {"tokens": tokens, "seconds": spent / rows, "bytes": len(sent) / rows}


# ---- the page

BEFORE = """# Several processes and machines

The measurements are made by `python -m experiments.cluster`, which writes this page. The run
folder stays the only truth: one process owns it, and the same command continues after anything
that ends it.

## Several processes: torchrun

    srlm run --processes 4 --model models/mine --prompts prompts.jsonl --out runs/mine
    torchrun --nnodes 2 --nproc-per-node 8 ... -m srlm run ... # several machines; the folder on a shared disk

Rank 0 is the run. Samples go round in shards, one a process; updates are sharded by FSDP2, LoRA
too, and are the step of one process up to the order in which float32 numbers are added ([decision
39](decisions/0039-several-processes.md)). Policies in the folder are plain Hugging Face folders.
On CUDA each process has the GPU of its number (NCCL), on the CPU gloo. For an update of P
parameters N processes take 16 P / N bytes each in float32, 20 P / N in bfloat16, one layer and
activations; between updates each has the whole model, to sample. A process that dies ends the run
with its number (exit code 2). Where memory runs out in an update, nothing is tried again in
smaller passes: give `--pass-tokens`.

Tested: two and three processes on the CPU. Not run: NCCL, several machines.

## A Ray cluster

    pip install 'srlm[ray]'                                # on all machines, the same versions
    ray start --head --port 6379                           # on one
    ray start --address HOST:6379                          # on the others
    srlm run --engine ray --ray-address HOST:6379 ...      # without an address: a cluster on this machine

The samples of a round, training and held-out, the search for modes and what a judge is asked are
made by the cluster's workers, in pieces of some prompts; scoring and updates stay with the run. A
worker takes as many CPUs as the run has threads (`OMP_NUM_THREADS`), or a GPU where the run's model
lies on one, and loads the policy from the run folder, which all machines must see under the same
path. The files are those of `--engine local`, byte for byte, on processors of one kind (but for a
search that its seconds end, see [engines](engines.md)), so that a run may go on with the other
engine. Ray 2.60 asks for a token where it finds one: set `RAY_AUTH_MODE` and `RAY_AUTH_TOKEN` alike
on all machines.

- A worker or a machine that is lost: its pieces are made by others, another worker is asked for,
  and only workers that have answered are given work. Four workers lost one after another at the
  same piece are an error.
- No worker answers in two minutes, a piece takes half an hour (a search: beyond its own limit), no
  cluster at the address, no room for a worker, other versions, ray not installed: errors by name.
- The run itself is killed: the same command goes on with the pieces that are missing.
- What becomes of a run whose head is lost was not tried: start the cluster, and give the same
  command.

`srlm measure` and `srlm forecast` take the same options: samples, search and scores by the workers,
with the model's folder in the place of the run's. `srlm lab all --engine ray --out runs/lab` makes the cells of the lab's sweeps by workers of one
thread each, and keeps each as it comes; what is no sweep is done here. The figures are those of
`--engine local` with one thread.

Run on a cluster of this machine (ray 2.60, one and two workers): a run that judges itself and two of the lab's claims
(`pytest -m slow tests/engines/test_executor.py`), `srlm measure` and `srlm forecast --reward consistency` of 40 prompts x 8
samples of a model of 0.1 M parameters: every byte and figure as by `local`. Starting the cluster and its workers takes
ten seconds or more.
"""  # noqa: E501

KILLS = """
### What it survives

Runs of two rounds of a tiny model that judges itself, on two nodes of one CPU each on one machine,
in pieces of four prompts. In each a process was killed by SIGKILL: a worker, all processes of a
node, or the run itself. Then the same command was given again.

| killed | runs | ended by themselves | complete after the same command | same bytes as `local` | samples twice | samples lost |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

Pieces that were being made when it was killed (none: scoring, an update): {stages}.
"""  # noqa: E501

WORKERS = """
### Workers

{tokens:,} tokens in {shards} shards by a model of 0.1 M parameters, one thread a worker, on two
cores; workers were there already. Efficiency by the clock: the time of one worker over that of n,
divided by n; four workers share two cores, and a piece's worth of waiting at the end counts for much in a
second. By processor time: that of the local engine over that of the workers and the run together.

| workers | seconds | efficiency by the clock | processor seconds of workers | of the run | efficiency by processor time | same bytes as `local` |
| --- | --- | --- | --- | --- | --- | --- |
{rows}
"""  # noqa: E501

MEMORY = """
### Memory of the run

Greatest resident memory of the process that owns the shards, and its processor time, for two
samples each of so many prompts of an exact policy. The prompts are made as they are asked for:
`srlm run` itself has all of them in memory.

| prompts | MB | processor seconds |
| --- | --- | --- |
{rows}
"""

PLAN = """
### 64 GPUs, on paper

Nothing here was run on a GPU. A sample of {tokens} tokens costs the run {each:.2f} ms of one
core to receive, put aside, read and write (measured), and is {size:.1f} kB; the run is one
process. With 64 workers of r tokens/s each it keeps up as long as r is below {rate:,.0f}; faster
workers wait for it. A round of a million prompts x 16 samples takes it {hours:.1f} hours at
least, whatever the workers do. A shard is sized to take half a minute or less, which is what the
end of a round can lose to waiting. At the start of a round each worker reads the policy: 8 G
parameters in bfloat16 are 16 GB, 64 times, or 1 TB from the shared disk: 100 s at an assumed 10
GB/s, which many small rounds would feel. An update by 64 processes holds 20 x 8 G / 64 = 2.5 GB
in each, one layer, and activations.
"""


def page(result: dict[str, Any]) -> str:
    """docs/cluster.md."""
    parts = [BEFORE]
    if "kills" in result:
        parts.append(killed_table(result["kills"]["runs"]))
    if "workers" in result:
        parts.append(workers_table(result["workers"]))
    if "memory" in result:
        parts.append(memory_table(result["memory"]))
    if "handled" in result:
        parts.append(plan(result["handled"]))
    return "\n".join(parts)


def killed_table(rows: list[dict[str, Any]]) -> str:
    """What came of the runs in which something was killed."""
    lines = []
    for kind in KINDS:
        mine = [row for row in rows if row["killed"] == kind]
        lines.append(
            f"| {kind} | {len(mine)} | {sum(row['first'] == 0 for row in mine)} "
            f"| {sum(row['again'] == 0 for row in mine)} "
            f"| {sum(row['same'] for row in mine)} | {sum(row['twice'] for row in mine)} "
            f"| {sum(row['missing'] for row in mine)} |"
        )
    each = Counter(row["stage"] for row in rows).most_common()
    stages = ", ".join(f"{stage} {count}" for stage, count in each)
    return KILLS.format(rows="\n".join(lines), stages=stages)


def workers_table(rows: dict[str, Any]) -> str:
    """Times of a round's samples."""
    alone, one = rows["local"], rows["1"]["seconds"]
    lines = []
    for label, row in rows.items():
        count = 1 if label == "local" else int(label)
        same = "yes" if row["sha256"] == alone["sha256"] else "no"
        lines.append(
            f"| {label} | {row['seconds']:.1f} | {one / row['seconds'] / count:.0%} "
            f"| {row['work']:.1f} | {row['driver']:.2f} "
            f"| {alone['work'] / (row['work'] + row['driver']):.0%} | {same} |"
        )
    return WORKERS.format(rows="\n".join(lines), shards=alone["shards"], tokens=alone["tokens"])


def memory_table(rows: dict[str, Any]) -> str:
    """The driver's memory by prompts."""
    lines = [
        f"| {int(count):,} | {row['peak_mb']:.0f} | {row['processor']:.1f} |"
        for count, row in rows.items()
    ]
    return MEMORY.format(rows="\n".join(lines))


def plan(found: dict[str, float]) -> str:
    """What the measured cost of the run says about 64 workers."""
    each, tokens = found["seconds"], int(found["tokens"])
    return PLAN.format(
        tokens=tokens,
        each=each * 1e3,
        size=found["bytes"] / 1e3,
        rate=float(f"{tokens / (64 * each):.2g}"),
        hours=1.6e7 * each / 3600,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sections", nargs="*", default=list(SECTIONS), choices=[*SECTIONS, "page"])
    asked = parser.parse_args().sections
    result = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in asked:
        if name in SECTIONS:
            result[name] = SECTIONS[name]()
            write_json(RESULTS, result)
    write_text(PAGE, page(result))


SECTIONS: dict[str, Callable[[], Any]] = {
    "kills": kills,
    "workers": workers,
    "memory": memory,
    "handled": handled,
}

if __name__ == "__main__":
    # ray reads these when it is imported
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ |= {"OMP_NUM_THREADS": "1"}
    main()
