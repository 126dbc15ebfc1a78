"""The update: sequences a second, the share of the machine's rate, and what sharing prompts gains.

    python benchmarks/training.py [--prompts 1024] [--repeats 5] [--threads 1] [--quick]

One epoch of the default update on draws of the demo's good and diffuse bases, and on a model of
random weights whose prompts are long. Beside it in every turn: the same epoch with each row run as
one text (prompt and response, one batch), and in bfloat16. Operations are those that must be done:
6 for each weight of a matrix and position (2 forwards, 4 backwards), each prompt counted once, no
padding, the vocabulary at response positions only, attention left out. The rate is that of float32
products measured in the same turns: of 2,048 x 2,048 matrices, and of the model's own shapes.
Results: benchmarks/results/training.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from side_by_side import interleaved, ratio, spread, write

from srlm import pairs
from srlm import samples as draws
from srlm import train as update
from srlm.config import RunConfig
from srlm.data import prompt_id, read_prompts, split
from srlm.demo.network import Recipe, blank_model, character_tokenizer
from srlm.demo.settings import settings
from srlm.policies import scoring as given
from srlm.policies.devices import TRAINED
from srlm.policies.hf import CausalLM
from srlm.policies.load import load
from srlm.progress import Progress
from srlm.types import Pairs, Prompt

LONG = 44
"""Tokens of a long prompt; with its response it just fits the demo's context of 64."""


@dataclass(frozen=True)
class Task:
    """What is trained, on what."""

    name: str
    policy: CausalLM
    prompts: list[Prompt]
    pairs: Pairs
    config: RunConfig

    def epoch(self, policy: CausalLM) -> None:
        """One epoch of the default update, from a fresh copy."""
        once = self.config.update.model_copy(update={"epochs": 1, "tail": 0.0})
        update.fit(policy.copy(), self.prompts, self.pairs, update.weighted_objective, once, seed=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="128 prompts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    count = 128 if options.quick else options.prompts
    rows = []
    for make in (lambda: demo("good", count), lambda: demo("diffuse", count), lambda: long(count)):
        rows.append(measured(make(), options.repeats))
        told(rows[-1])
    write("training_quick" if options.quick else "training", {"prompts": count, "rows": rows})


def demo(start: str, count: int) -> Task:
    """Draws of a demo base."""
    config = settings(start, 0, Progress(quiet=True))
    policy = load(config.model, device="cpu", dtype="float32")
    assert isinstance(policy, CausalLM)
    train, _ = split(read_prompts(config.prompts.file), config.prompts.held_out)
    return task(start, policy, train[:count], config)


def long(count: int) -> Task:
    """Draws of random weights after prompts of ``LONG`` random digits."""
    config = settings("good", 0, Progress(quiet=True))
    tokenizer = character_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = CausalLM(blank_model("llama", Recipe(), tokenizer), tokenizer)
    digits = np.random.default_rng(0).integers(0, 10, (count, LONG))
    texts = ["".join(map(str, row)) for row in digits]
    return task("long prompts", policy, [Prompt(prompt_id(x), x) for x in texts], config)


def task(name: str, policy: CausalLM, prompts: list[Prompt], config: RunConfig) -> Task:
    """A round's groups."""
    samples = draws.draw(policy, prompts, config.samples, seed=1)
    return Task(name, policy, prompts, pairs.groups(samples, samples.logp_R), config)


def measured(work: Task, repeats: int) -> dict[str, Any]:
    """Rates, ratios and padding of a task."""
    half = work.policy.copy()
    half.model.to(torch.bfloat16)
    own, square = products(work)
    seconds = interleaved(
        {
            "ours": lambda: work.epoch(work.policy),
            "rows": lambda: whole_rows(lambda: work.epoch(work.policy)),
            "bfloat16": lambda: work.epoch(half),
            "own": own.run,
            "square": square.run,
        },
        repeats=repeats,
    )
    done, needed = positions(work)
    together, _ = whole_rows(lambda: positions(work))
    operations = needed_operations(work)
    gflops = [operations / s / 1e9 for s in seconds["ours"]]
    rate = {
        name: [p.operations / s / 1e9 for s in seconds[name]]
        for name, p in (("own", own), ("square", square))
    }
    return {
        "task": work.name,
        "parameters": sum(p.numel() for p in work.policy.parameters()),
        "groups": work.pairs.groups,
        "sequences": len(work.pairs),
        "sequences_a_second": spread([len(work.pairs) / s for s in seconds["ours"]]),
        "gflops": spread(gflops),
        "rate_own_shapes": spread(rate["own"]),
        "rate_square": spread(rate["square"]),
        "share_of_own_shapes": ratio(gflops, rate["own"]),
        "share_of_square": ratio(gflops, rate["square"]),
        "rows_over_ours": ratio(seconds["rows"], seconds["ours"]),
        "bfloat16_over_ours": ratio(seconds["bfloat16"], seconds["ours"]),
        "padding": {"ours": 1 - needed / done, "rows": 1 - needed / together},
    }


def whole_rows(do: Callable[[], Any]) -> Any:
    """With prompts and responses run as one text, in one batch."""
    kept, given.CALL = given.CALL, 1 << 60
    try:
        return do()
    finally:
        given.CALL = kept


@torch.inference_mode()
def positions(work: Task) -> tuple[int, int]:
    """Positions put through the model by one pass over all groups, and those that must be."""
    done = 0
    states = work.policy.network.states

    def counted(token_BL: torch.Tensor, *rest: Any, **named: Any) -> Any:
        nonlocal done
        done += token_BL.numel()
        return states(token_BL, *rest, **named)

    work.policy.network.states = counted  # type: ignore[method-assign]
    rows_G = [np.flatnonzero(work.pairs.group_R == g) for g in range(work.pairs.groups)]
    size_G = work.policy.positions(
        work.prompts, work.pairs.prompt_R, work.pairs.tokens_R, work.pairs.group_R
    )
    every = np.arange(work.pairs.groups)
    for start in range(0, len(every), work.config.update.prompts_per_step):
        step = every[start : start + work.config.update.prompts_per_step]
        for part in update.parted(size_G, step, TRAINED["cpu"]):
            rows = np.concatenate([rows_G[g] for g in part])
            tokens = [work.pairs.tokens_R[r] for r in rows]
            work.policy.log_prob_grad(work.prompts, work.pairs.prompt_R[rows], tokens)
    del work.policy.network.states
    used = np.unique(work.pairs.prompt_R)
    prompt = sum(len(work.policy.encode(work.prompts[p])) for p in used)
    return done, prompt + sum(len(y) - 1 for y in work.pairs.tokens_R)


def needed_operations(work: Task) -> int:
    """6 N positions, with the vocabulary's matrix at response positions; and the check at the end
    of ``update.fit``, forwards, on its share of the groups."""
    head = work.policy.model.get_output_embeddings().weight.numel()
    block = sum(
        p.numel()
        for name, p in work.policy.model.named_parameters()
        if p.ndim == 2 and "embed" not in name and "lm_head" not in name
    )
    _, through = positions(work)
    said = sum(map(len, work.pairs.tokens_R))
    checked = update.checked(work.pairs.groups) / work.pairs.groups
    return int((6 + 2 * checked) * (block * through + head * said))


@dataclass(frozen=True)
class Product:
    """A product of matrices, again and again."""

    a: torch.Tensor
    b: torch.Tensor
    times: int

    @property
    def operations(self) -> int:
        return 2 * self.a.shape[0] * self.a.shape[1] * self.b.shape[1] * self.times

    def run(self) -> None:
        for _ in range(self.times):
            self.a @ self.b


def products(work: Task) -> tuple[Product, Product]:
    """[positions of a step, width] x [width, inner], and 2,048 x 2,048."""
    config = work.policy.model.config
    done, _ = positions(work)
    step = done * work.config.update.prompts_per_step // work.pairs.groups
    own = Product(
        torch.randn(step, config.hidden_size),
        torch.randn(config.hidden_size, config.intermediate_size),
        200,
    )
    return own, Product(torch.randn(2048, 2048), torch.randn(2048, 2048), 3)


def told(row: dict[str, Any]) -> None:
    def of(name: str) -> str:
        return f"{row[name]['value']:.2f} ({row[name]['low']:.2f} to {row[name]['high']:.2f})"

    print(f"{row['task']}: {row['groups']} groups, {row['sequences']} sequences")
    print(f"  sequences a second  {row['sequences_a_second']['value']:,.0f}")
    print(f"  GFLOP/s             {of('gflops')}")
    print(f"  share of products   {of('share_of_own_shapes')} of the model's shapes,")
    print(f"                      {of('share_of_square')} of 2,048 x 2,048")
    print(f"  whole rows / ours   {of('rows_over_ours')}")
    print(f"  bfloat16 / ours     {of('bfloat16_over_ours')}")
    print(
        f"  positions in vain   ours {row['padding']['ours']:.1%}, "
        f"whole rows {row['padding']['rows']:.1%}",
        flush=True,
    )


if __name__ == "__main__":
    began = perf_counter()
    main()
    print(f"{perf_counter() - began:.0f} s")
