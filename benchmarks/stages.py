"""Where a round's time goes: each stage by kind of operation, beside its floor.

    python benchmarks/stages.py [--prompts 1024] [--repeats 5] [--quick]

One round of the demo's good base on one thread: draws, pairs (rewards and their report included, as
in ``srlm.loop``), update, measurement. Each stage is timed without the profiler in every turn; once
more with torch's profiler, whose shares by kind of operation are then taken of that time. What no
operation accounts for is Python and dispatch. The floor is what the stage's operations (torch's
flop counter, as executed) cost at the rate of products of matrices of the model's own shapes -
torch's in the update, the wide ones of ``srlm.policies.linear`` elsewhere - and what the bytes that
elementwise work must move cost at the machine's copying rate; all measured in the same run.
Results: benchmarks/results/stages.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from side_by_side import interleaved, spread, write
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from srlm import pairs
from srlm import samples as draws
from srlm import train as update
from srlm.data import read_prompts, split
from srlm.demo.settings import settings
from srlm.grading import checker, extractor
from srlm.measure.evaluate import evaluate
from srlm.policies.linear import widen
from srlm.policies.load import load
from srlm.progress import Progress
from srlm.rewards.base import scored
from srlm.rewards.likelihood import likelihood
from srlm.rewards.report import report
from srlm.types import Pairs

KINDS = {
    "products of matrices": ("mm", "addmm", "bmm", "linear", "baddbmm"),
    "attention": ("scaled_dot_product", "flash_attention"),
    "softmax and drawing": (
        "softmax", "log_softmax", "cumsum", "searchsorted", "isin", "isfinite", "gather", "topk",
        "sort", "argmax",
    ),
    "copies and indices": (
        "copy_", "cat", "index", "clone", "fill_", "zero", "repeat", "stack", "embedding", "select",
        "empty", "new_", "nonzero", "arange",
    ),
    "elementwise": (
        "mul", "add", "silu", "pow", "div", "neg", "rsqrt", "mean", "sum", "cos", "sin", "sub",
        "exp", "log", "where", "gelu", "tanh", "ge", "gt", "lt", "le", "eq", "ne", "clamp",
        "bitwise", "sqrt", "foreach", "lerp", "norm", "all", "any",
    ),
}  # fmt: skip


def _linear_flops(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    """Of ``srlm.policies.linear``'s products, from the shapes."""
    out = 2 * int(weight[0])
    for length in x:
        out *= int(length)
    return out


COUNTED = {torch.ops.mkldnn._linear_pointwise: _linear_flops}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="128 prompts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = stages(128 if options.quick else options.prompts)
    a, b, wide = torch.randn(8192, 64), torch.randn(64, 176), nn.Linear(64, 176, bias=False)
    widen(nn.Sequential(wide))
    x, y = torch.randn(1 << 24), torch.empty(1 << 24)

    def product() -> None:
        for _ in range(100):
            a @ b

    @torch.inference_mode()
    def widely() -> None:
        for _ in range(100):
            wide(a)

    seconds = interleaved(
        work | {"product": product, "wide": widely, "copy": lambda: y.copy_(x)},
        repeats=options.repeats,
    )
    rate = {
        name: [100 * 2 * a.numel() * b.shape[1] / s / 1e9 for s in seconds[name]]
        for name in ("product", "wide")
    }
    bandwidth = [2 * x.numel() * 4 / s / 1e9 for s in seconds["copy"]]
    rows = []
    for name, stage in work.items():
        took = spread(seconds[name])
        parts, moved = by_kind(stage, took["value"])
        with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
            stage()
        gflops = rate["product" if name == "update" else "wide"]
        floors = [counter.get_total_flops() / g / 1e9 for g in gflops]
        moving = [moved / g / 1e9 for g in bandwidth]
        rows.append(
            {
                "stage": name,
                "seconds": took,
                "shares": parts,
                "gigaflop": counter.get_total_flops() / 1e9,
                "gigabyte": moved / 1e9,
                "floor_products": spread(floors),
                "floor_moving": spread(moving),
                "over_floor": spread(
                    [s / (f + m) for s, f, m in zip(seconds[name], floors, moving, strict=True)]
                )
                if moved
                else None,
            }
        )
        told(rows[-1])
    write(
        "stages_quick" if options.quick else "stages",
        {
            "prompts": 128 if options.quick else options.prompts,
            "gflops": spread(rate["product"]),
            "gflops_wide": spread(rate["wide"]),
            "gigabytes_a_second": spread(bandwidth),
            "rows": rows,
        },
    )


def stages(count: int) -> dict[str, Callable[[], Any]]:
    """The stages of round 1, each on the result of the one before."""
    config = settings("good", 0, Progress(quiet=True))
    policy = load(config.model, device="cpu", dtype="float32")
    train, held_out = split(read_prompts(config.prompts.file), config.prompts.held_out)
    train = train[:count]
    samples = draws.draw(policy, train, config.samples, seed=1)
    made = pairs.groups(samples, samples.logp_R)
    right, read = checker(config.prompts.answer), extractor(config.prompts.answer)

    def paired() -> Pairs:
        found = scored(likelihood(policy, train, samples), samples)
        report(samples, found, read=read)
        return pairs.groups(samples, found.reward_R)

    return {
        "samples": lambda: draws.draw(policy, train, config.samples, seed=1),
        "pairs": paired,
        "update": lambda: update.fit(
            policy.copy(), train, made, update.weighted_objective, config.update, seed=0
        ),
        "measure": lambda: evaluate(
            policy,
            held_out[: max(8, count // 4)],
            right,
            config.measure,
            seed=1,
            max_tokens=config.samples.max_tokens,
            base=None,
        ),
    }


def by_kind(stage: Callable[[], Any], whole: float) -> tuple[dict[str, float], float]:
    """Shares of the time by kind of operation, and the bytes that elementwise work moved."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as prof:
        stage()
    parts = dict.fromkeys([*KINDS, "Python and dispatch"], 0.0)
    moved = 0.0
    for event in prof.key_averages(group_by_input_shape=True):
        name = event.key.removeprefix("aten::").removeprefix("mkldnn::").lstrip("_")
        kind = next((k for k, words in KINDS.items() if name.startswith(words)), None)
        if kind is None or not event.key.startswith(("aten::", "mkldnn::")):
            continue
        parts[kind] += event.self_cpu_time_total / 1e6
        if kind == "elementwise":
            sizes = [numel(shape) for shape in event.input_shapes if shape]
            moved += 4.0 * event.count * (sum(sizes) + max(sizes, default=0))
    parts["Python and dispatch"] = max(0.0, whole - sum(parts.values()))
    total = sum(parts.values())
    return {name: round(value / total, 3) for name, value in parts.items()}, moved


def numel(shape: list[Any]) -> int:
    """Numbers in a tensor of that shape; none for lists of tensors."""
    out = 1
    for length in shape:
        if not isinstance(length, int):
            return 0
        out *= length
    return out


def told(row: dict[str, Any]) -> None:
    print(f"{row['stage']:8} {row['seconds']['value']:.3f} s", end="")
    if row["over_floor"]:
        print(
            f", {row['over_floor']['value']:.1f} times its floor "
            f"({row['floor_products']['value']:.3f} products, "
            f"{row['floor_moving']['value']:.3f} moving)",
            end="",
        )
    print()
    shares = sorted(row["shares"].items(), key=lambda kv: -kv[1])
    print("         " + ", ".join(f"{k} {v:.0%}" for k, v in shares if v >= 0.01), flush=True)


if __name__ == "__main__":
    main()
