"""A pretrained model of 135 M parameters: a round beside TRL's DPO, sampling beside ``generate``.

    python -m benchmarks.real [--model FOLDER] [--repeats 3] [--quick] [--only times] [--ways LoRA]

Needs the extra: pip install -e '.[bench]'. The model is SmolLM2-135M-Instruct, which
``experiments.real_model`` fetches once (93 MB) if no folder is named; float32, one thread. Prompts
are sums with the chat template around them, the same text for every side.

- sampling: 8 prompts, 8 samples each, 16 tokens at most, with log-probabilities: tokens a second
  of ours over those of ``generate``;
- times: a round from the base with LoRA, and one with all weights, the sides in turn: as many
  samples and optimiser steps; TRL with its default loss on the best and worst of each prompt, ours
  with dpo on the same pairs, and with its default update on all samples;
- memory: each side's round in a process of its own; above a process that only loads the model.

Cost: about fifteen minutes on an idle core, three with ``--quick``.
Results: benchmarks/results/real.json (real_quick.json with --quick).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks import ours, trl_dpo
from benchmarks.round import imported
from benchmarks.side import STAGES, Setting, Side, Timed
from benchmarks.side_by_side import RESULTS, in_child, interleaved, ratio, spread, write
from experiments.real_model import smollm2, sums
from srlm.data import prompt_id
from srlm.policies.load import load
from srlm.types import Prompt

SIDES: dict[str, Side] = {
    "ours": ours.side("weighted"),
    "ours, dpo": ours.side("dpo"),
    "trl dpo": trl_dpo.one_round,
}
SETTING = Setting(per_prompt=8, max_tokens=16, prompts_per_step=4, epochs=1)
WAYS = {
    "LoRA": replace(SETTING, lora=8, lr=2e-4),
    "all weights": replace(SETTING, lr=1e-5),
}
PROMPTS = 8
PARTS = ("sampling", "times", "memory")


def opened(folder: Path) -> tuple[Any, Any, list[Prompt]]:
    """The model, its tokenizer and prompts in its chat template."""
    policy = load(folder, device="cpu", dtype="float32", trained=True)
    tokenizer = policy.tokenizer
    texts = []
    for line in sums(PROMPTS, 0):
        turn = line["prompt"][-1:]  # without the examples, responses are long
        texts.append(
            tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        )
    return policy.model, tokenizer, [Prompt(prompt_id(text), text) for text in texts]


def sampled(folder: Path, repeats: int) -> dict[str, Any]:
    """Tokens a second, ours and those of ``generate`` with log-probabilities."""
    from srlm.policies.hf import CausalLM

    model, tokenizer, prompts = opened(folder)
    policy = CausalLM(model, tokenizer)
    texts = [x.content for x in prompts]
    tokens: dict[str, list[int]] = {"srlm": [], "generate": []}

    def our_own() -> None:
        seed = len(tokens["srlm"])
        made = policy.sample(prompts, SETTING.per_prompt, seed=seed, max_tokens=SETTING.max_tokens)
        tokens["srlm"].append(int(made.length_R.sum()))

    def theirs() -> None:
        seed = len(tokens["generate"])
        made = trl_dpo.generated(model, tokenizer, texts, SETTING, seed)
        tokens["generate"].append(sum(map(len, made.tokens_R)))

    seconds = interleaved({"srlm": our_own, "generate": theirs}, repeats=repeats)
    rate = {
        name: [n / s for n, s in zip(tokens[name][-repeats:], taken, strict=True)]
        for name, taken in seconds.items()
    }
    return {
        "prompts": len(prompts),
        "per_prompt": SETTING.per_prompt,
        "tokens_a_second": {name: spread(values) for name, values in rate.items()},
        "ours_over": ratio(rate["srlm"], rate["generate"]),
    }


def times(folder: Path, way: str, repeats: int) -> dict[str, Any]:
    """Seconds of a round by stage, and how many times as long TRL's takes. No turn is thrown away:
    a round is long."""
    model, tokenizer, prompts = opened(folder)
    start = {name: x.clone() for name, x in model.state_dict().items()}
    made: dict[str, list[Timed]] = {name: [] for name in SIDES}

    def case(name: str) -> Callable[[], None]:
        def run() -> None:
            model.load_state_dict(start)
            seed = len(made[name])
            made[name].append(SIDES[name](model, tokenizer, prompts, WAYS[way], seed))

        return run

    interleaved({name: case(name) for name in SIDES}, repeats=repeats, warm=0)
    seconds = {
        name: {stage: [r.seconds[stage] for r in rounds] for stage in STAGES}
        | {"round": [r.total for r in rounds]}
        for name, rounds in made.items()
    }
    return {
        "sides": {
            name: {
                "seconds": {stage: spread(x) for stage, x in seconds[name].items()},
                "steps": rounds[-1].steps,
                "pairs": rounds[-1].pairs,
                "tokens": sum(r.tokens for r in rounds),
            }
            for name, rounds in made.items()
        },
        "trl_over": {
            name: {k: ratio(seconds["trl dpo"][k], seconds[name][k]) for k in seconds[name]}
            for name in SIDES
            if name != "trl dpo"
        },
    }


def memory(folder: Path, way: str) -> dict[str, Any]:
    """Peak memory of a round above that of a process that only loads the model, MB, and over
    TRL's."""
    above = {}
    for name in SIDES:
        words = ("--model", str(folder), "--ways", way, "--child", name)
        whole, bare = (
            in_child("benchmarks.real", *words, *more)["peak_mb"] for more in ((), ("--bare",))
        )
        above[name] = whole - bare
    return {"above_mb": above, "over_trl": {k: x / above["trl dpo"] for k, x in above.items()}}


def child(folder: Path, name: str, way: str, bare: bool) -> None:
    """What ``memory`` starts."""
    imported(name)
    model, tokenizer, prompts = opened(folder)
    if not bare:
        SIDES[name](model, tokenizer, prompts, WAYS[way], 0)
    print("{}")


def main() -> None:
    """Parse, run, show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="a folder, in place of the one in the cache")
    parser.add_argument("--repeats", type=int, help="3; of --quick 1")
    parser.add_argument("--quick", action="store_true", help="LoRA alone, once")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--only", nargs="+", default=PARTS, choices=PARTS, help="parts to run")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    folder = asked.model or smollm2()
    if asked.child:
        child(folder, asked.child, asked.ways[0], asked.bare)
        return
    for side in SIDES:
        imported(side)
    repeats = asked.repeats or (1 if asked.quick else 3)
    ways = asked.ways[: 1 if asked.quick else None]
    name = "real_quick" if asked.quick else "real"
    kept = RESULTS / f"{name}.json"
    result: dict[str, Any] = {"trl": version("trl"), "times": {}, "memory": {}}
    if kept.exists():  # other parts, measured before
        result |= json.loads(kept.read_text(encoding="utf-8"))
        del result["environment"]
    if "sampling" in asked.only:
        result["sampling"] = sampled(folder, repeats)
        write(name, result)
    for way in ways:
        if "times" in asked.only:
            result["times"][way] = times(folder, way, repeats)
            write(name, result)
        if "memory" in asked.only:
            result["memory"][way] = memory(folder, way)
            write(name, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
