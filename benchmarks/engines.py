"""An engine beside the sampler of this process: the same distribution? how many tokens a second?

    python -m benchmarks.engines --model FOLDER --engine vllm
    python -m benchmarks.engines --model FOLDER --engine server --server http://localhost:8000/v1

The same prompts, samples and length limit for both. Agreement is tested three ways, with the
policy's own numbers on one side:

- the first token of each prompt's responses against its exact distribution: chi-square over the
  tokens with an expected count of ``LEAST`` or more, the others together, added over prompts;
- E log pi(y) of the engine's responses against the local ones', two-sided, standard errors over
  responses within prompts;
- the same of the lengths.

Responses of an engine are scored by the policy here, all of them, which also gives the gap of its
log-probabilities. Times leave starting and loading out. Results: benchmarks/results/engines.json,
an entry an engine, as ``--name``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import chi2, norm

from srlm.config import resolve
from srlm.data import prompt_id
from srlm.engines.base import LOCAL, MemoryShelf, Shard, drawn, rescore
from srlm.engines.opened import opened
from srlm.policies.hf import CausalLM
from srlm.policies.load import load
from srlm.types import Floats, Prompt, Samples
from srlm.writing import write_json

RESULTS = Path(__file__).parent / "results" / "engines.json"
LEAST = 5.0


@dataclass
class At(MemoryShelf):
    """Shards in memory, of a policy in a folder."""

    folder: Path

    def __post_init__(self) -> None:
        super().__init__()
        self.weights = self.folder


def first_tokens(policy: CausalLM, prompts: list[Prompt], samples: Samples) -> tuple[float, int]:
    """Chi-square of the first tokens against their exact distribution, and degrees of freedom."""
    total, free = 0.0, 0
    read = policy.along(prompts, np.arange(len(prompts)), [(0,)] * len(prompts), lambda x: x)
    for p, logp_1V in enumerate(read):
        counts_V = np.bincount(
            [samples.tokens_R[r][0] for r in np.flatnonzero(samples.prompt_R == p)],
            minlength=logp_1V.shape[1],
        )
        expected_V = np.exp(logp_1V[0]) * counts_V.sum()
        big_V = expected_V >= LEAST
        seen = np.append(counts_V[big_V], counts_V[~big_V].sum())
        expected = np.append(expected_V[big_V], expected_V[~big_V].sum())
        if len(seen) > 1 and expected[-1] > 0:
            total += float(((seen - expected) ** 2 / expected).sum())
            free += len(seen) - 1
    return total, free


def difference(one_R: Floats, other_R: Floats, prompt_R: Any) -> tuple[float, float]:
    """Mean over prompts of the difference of the means, and its standard error."""
    means, variances = [], []
    for p in np.unique(prompt_R):
        a, b = one_R[prompt_R == p], other_R[prompt_R == p]
        means.append(a.mean() - b.mean())
        variances.append(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    return float(np.mean(means)), math.sqrt(sum(variances)) / len(means)


def agreement(
    policy: CausalLM, prompts: list[Prompt], own: Samples, other: Samples
) -> dict[str, float]:
    """p-values, and what they are of. ``other.logp_R`` must be the policy's."""
    square, free = first_tokens(policy, prompts, other)
    out = {"chi_square": square, "degrees": free, "p_first_token": float(chi2.sf(square, free))}
    for name, a_R, b_R in (
        ("logp", other.logp_R, own.logp_R),
        ("length", other.length_R.astype(float), own.length_R.astype(float)),
    ):
        value, error = difference(a_R, b_R, own.prompt_R)
        out |= {f"{name}_difference": value, f"{name}_error": error}
        out[f"p_{name}"] = float(2 * norm.sf(abs(value) / error)) if error else 1.0
    return out


def questions(count: int) -> list[Prompt]:
    """Sums of two small numbers."""
    texts = [f"What is {i + 2}+{3 * i + 1}?" for i in range(count)]
    return [Prompt(prompt_id(text), text, line=i + 1) for i, text in enumerate(texts)]


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--model", required=True)
    ask.add_argument("--engine", default="vllm")
    ask.add_argument("--server")
    ask.add_argument("--name")
    ask.add_argument("--prompts", type=int, default=6)
    ask.add_argument("--samples", type=int, default=64)
    ask.add_argument("--tokens", type=int, default=8)
    ask.add_argument("--concurrency", type=int, default=16)
    ask.add_argument("--rescore", type=float, default=0.05, help="1: no log-probabilities asked")
    given = ask.parse_args()
    flags = {
        "model": given.model,
        "prompts.file": "-",
        "engine.kind": given.engine,
        "engine.url": given.server,
        "engine.concurrency": given.concurrency,
        "engine.rescore": given.rescore,
        "samples.per_prompt": given.samples,
        "samples.max_tokens": given.tokens,
    }
    config = resolve(None, flags)
    policy = load(given.model)
    assert isinstance(policy, CausalLM)
    prompts = questions(given.prompts)
    folder = Path(given.model)
    two = config.samples.model_copy(update={"per_prompt": 2})

    def timed(engine: Any, seed: int, some: list[Prompt]) -> tuple[Samples, float]:
        began = time.perf_counter()
        shelf = At(folder)
        parts = drawn(engine, policy, some, config.samples, seed, shelf)
        made = Samples.joined(list(parts))
        seconds = time.perf_counter() - began
        print(
            f"{len(made)} responses, {int(made.length_R.sum())} tokens, {seconds:.1f} s", flush=True
        )
        return made, seconds

    timed(LOCAL, 9, prompts[:1])
    own, own_seconds = timed(LOCAL, 0, prompts)
    with opened(config, folder) as engine:
        began = time.perf_counter()
        list(drawn(engine, policy, prompts[:1], two, 8, At(folder)))
        start = time.perf_counter() - began
        began = time.perf_counter()
        list(drawn(engine, policy, prompts[:1], two, 7, At(folder)))
        reload = time.perf_counter() - began
        unchecked = replace(engine, rescored=1e-9, gap=math.inf)
        other, other_seconds = timed(unchecked, 1, prompts)
    shard = Shard(0, 0, tuple(prompts), config.samples, 1)
    told = other
    other = rescore(policy, shard, told, 1.0)
    assert other.gap_R is not None
    gap_G = other.gap_R[np.isfinite(other.gap_R) & ~np.isinf(told.gap_R)]
    found = {
        "engine": given.engine,
        "prompts": given.prompts, "samples": given.samples, "max_tokens": given.tokens,
        "threads": torch.get_num_threads(), "cores": os.cpu_count(),
        "local_tokens": int(own.length_R.sum()),
        "local_tokens_per_second": float(own.length_R.sum() / own_seconds),
        "engine_tokens": int(other.length_R.sum()),
        "engine_tokens_per_second": float(other.length_R.sum() / other_seconds),
        "first_start_seconds": start, "next_start_seconds": reload,
        "gaps": len(gap_G),
        "mean_gap_size": float(np.abs(gap_G).mean()) if len(gap_G) else None,
        "largest_gap": float(np.abs(gap_G).max()) if len(gap_G) else None,
        "mean_gap": float(gap_G.mean()) if len(gap_G) else None,
        **agreement(policy, prompts, own, other),
    }  # fmt: skip
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    write_json(RESULTS, before | {given.name or given.engine: found})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
