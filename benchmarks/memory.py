"""Peak memory of sampling, scoring, search and updates beside the formulas of policies.devices.

    python benchmarks/memory.py MODEL [--prompts 8] [--samples 4] [--tokens 32] [--dtype float32]

MODEL is a folder. On Linux the process's high-water mark is set back before each stage
(/proc/self/clear_refs); what the stage took is its mark less what was held before, and the weights.
On a GPU it is torch's own count.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from srlm import pairs, train
from srlm.config import UpdateSettings
from srlm.data import prompt_id
from srlm.policies.hf import CausalLM
from srlm.policies.load import load
from srlm.policies.network import CHUNK
from srlm.types import Prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    policy = load(options.model, dtype=options.dtype)
    assert isinstance(policy, CausalLM)
    K, T = options.samples, options.tokens
    number = np.random.default_rng(0).integers(2, 60, (options.prompts, 2))
    texts = [f"What is {a} plus {b}? Reply with the number." for a, b in number]
    asked = [Prompt(prompt_id(text), text) for text in texts]
    L = max(len(policy.encode(x)) for x in asked)
    shape, budget = policy.budget.shape, policy.budget
    chunk = CHUNK.get(policy.device.type, 1 << 27)
    samples = policy.sample(asked, K, seed=0, max_tokens=T)
    made = pairs.groups(samples, samples.logp_R)
    rows = len(samples)
    positions = int((samples.length_R + L).sum())

    def search() -> None:
        tree = policy.tree(asked, max_tokens=T)
        node, logp = tree.roots()
        for _ in range(T):
            node, logp = tree.extend(node, logp.argmax(-1).cpu().numpy())

    def update() -> None:
        once = UpdateSettings(epochs=1, lr=1e-6, prompts_per_step=len(asked))
        train.fit(policy, asked, made, train.weighted_objective, once, seed=0)

    kept = len(asked) * (L + T)
    passed = min(positions, budget.scored())
    trained = min(positions, budget.trained())
    stages: dict[str, tuple[Callable[[], object], int]] = {
        "sampling": (
            lambda: policy.sample(asked, K, seed=0, max_tokens=T),
            shape.sampling(min(rows, budget.rows(L + T)), L + T),
        ),
        "scoring": (
            lambda: policy.log_prob(asked, samples.prompt_R, samples.tokens_R),
            shape.scoring(passed, min(chunk, passed * shape.vocabulary)),
        ),
        "search": (search, shape.search(kept, len(asked), L + T)),
        "update": (update, shape.update(trained, min(chunk, trained * shape.vocabulary))),
    }
    out = {}
    for name, (run, formula) in stages.items():
        took = peak(policy, run)
        out[name] = {"measured_mb": took >> 20, "formula_mb": formula >> 20}
        print(
            f"{name}: measured {took / 2**20:,.0f} MB, formula {formula / 2**20:,.0f} MB",
            flush=True,
        )
    print(json.dumps(out))


def peak(policy: CausalLM, run: Callable[[], object]) -> int:
    """Bytes that a stage takes at most, the weights included."""
    gc.collect()
    weights = policy.budget.shape.width * policy.budget.shape.parameters
    if policy.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
        return int(torch.cuda.max_memory_allocated())
    ctypes.CDLL(None).malloc_trim(0)  # what earlier stages gave back counts as free
    before = held("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    run()
    return held("VmHWM") - before + weights


def held(name: str) -> int:
    """A line of the process's status, bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    main()
