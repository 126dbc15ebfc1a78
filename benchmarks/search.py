"""Certifying modes: the batched search beside a plain one and beside beam search.

    python -m benchmarks.search [--prompts 512] [--repeats 5] [--threads 1] [--quick]

On the demo's good and diffuse bases: best-first search over all prompts at once
(`srlm.measure.search`), the same search one prompt and one prefix at a time without kept keys and
values, and Hugging Face beam search of 8, which certifies nothing. Times are of the same prompts
in the same run, as ratios with their spread; the plain search runs on a sample of the prompts.
Results: benchmarks/results/search.json.
"""

from __future__ import annotations

import argparse
import heapq
from typing import Any

import numpy as np
import torch

from benchmarks.side_by_side import interleaved, ratio, spread, write
from srlm.data import prompt_id
from srlm.demo.base import cached_base
from srlm.demo.corpus import STARTS, prompts
from srlm.measure.search import find_modes
from srlm.policies.hf import CausalLM
from srlm.policies.load import load
from srlm.types import Prompt

MAX_TOKENS = 16
SAMPLE = 32
"""Prompts of the plain search."""


@torch.inference_mode()
def plain(policy: CausalLM, prompt: Prompt) -> tuple[tuple[int, ...], float, int]:
    """Best-first search, one prefix at a time, each run from its first token."""
    start = policy.encode(prompt)
    queue: list[tuple[float, bool, tuple[int, ...]]] = [(0.0, False, ())]
    opened = 0
    while True:
        minus, done, prefix = heapq.heappop(queue)
        if done:
            return prefix, -minus, opened
        opened += 1
        logits = policy.model(torch.tensor([start + list(prefix)])).logits[0, -1]
        for token, logp in enumerate(torch.log_softmax(logits.float(), -1).tolist()):
            child = (*prefix, token)
            ended = token in policy.ends or len(child) == MAX_TOKENS
            heapq.heappush(queue, (minus - logp, ended, child))


@torch.inference_mode()
def beam(policy: CausalLM, asked: list[Prompt], width: int = 8) -> list[tuple[int, ...]]:
    """Hugging Face's beam search without length penalty; prompts of one length at a time."""
    out: dict[int, tuple[int, ...]] = {}
    encoded = [policy.encode(x) for x in asked]
    for size in sorted(set(map(len, encoded))):
        rows = [i for i, x in enumerate(encoded) if len(x) == size]
        found = policy.model.generate(
            torch.tensor([encoded[i] for i in rows]),
            num_beams=width,
            do_sample=False,
            max_new_tokens=MAX_TOKENS,
            length_penalty=0.0,
            early_stopping=False,
        )
        for i, row in zip(rows, found[:, size:].tolist(), strict=True):
            ends = [t for t, token in enumerate(row) if token in policy.ends]
            out[i] = tuple(row[: ends[0] + 1] if ends else row)
    return [out[i] for i in range(len(asked))]


def one(start: str, count: int, repeats: int) -> dict[str, Any]:
    """Figures of one base."""
    policy = load(cached_base(STARTS[start], 0))
    assert isinstance(policy, CausalLM)
    asked = [Prompt(prompt_id(text), text) for text in prompts(count, 7)]
    few = asked[:SAMPLE]

    def search() -> Any:
        return find_modes(
            policy.tree(asked, max_tokens=MAX_TOKENS), len(asked), nodes=2000, second="none"
        )

    modes, singles, beams = search(), [plain(policy, x) for x in few], beam(policy, asked)
    seconds = interleaved(
        {
            "ours": search,
            "plain": lambda: [plain(policy, x) for x in few],
            "beam": lambda: beam(policy, asked),
        },
        repeats=repeats,
        warm=0,
    )
    least = sum(opened for _, _, opened in singles)
    ours = [s / len(asked) for s in seconds["ours"]]
    return {
        "start": start,
        "prompts": len(asked),
        "certified": int(modes.certified_P.sum()),
        "kappa": float(np.exp(-modes.logp_P).mean()),
        "nodes_a_prompt": float(modes.nodes_P.mean()),
        "nodes_over_least": float(modes.nodes_P[:SAMPLE].sum() / least),
        "ms_a_prompt": spread([1e3 * s for s in ours]),
        "prompts_a_second": spread([1 / s for s in ours]),
        "plain_over_ours": ratio([s / len(few) for s in seconds["plain"]], ours),
        "beam_over_ours": ratio([s / len(asked) for s in seconds["beam"]], ours),
        "same_as_plain": int(
            sum(m == s for m, (s, _, _) in zip(modes.tokens_P, singles, strict=False))
        ),
        "plain_gap": max(
            abs(a - b) for a, (_, b, _) in zip(modes.logp_P.tolist(), singles, strict=False)
        ),
        "beam_is_mode": float(
            np.mean([m == b for m, b in zip(modes.tokens_P, beams, strict=True)])
        ),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="64 prompts")
    asked = parser.parse_args()
    if asked.quick:
        asked.prompts = 64
    torch.set_num_threads(asked.threads)
    rows = [one(start, asked.prompts, asked.repeats) for start in ("good", "diffuse")]
    for row in rows:
        print(
            f"{row['start']}: {row['ms_a_prompt']['value']:.2f} ms per prompt, "
            f"{row['plain_over_ours']['value']:.0f} times a plain search, "
            f"{row['beam_over_ours']['value']:.1f} times beam search; "
            f"{row['nodes_over_least']:.2f} times the nodes that must be opened"
        )
    write("search_quick" if asked.quick else "search", {"rows": rows})


if __name__ == "__main__":
    main()
