"""Where a step of ``CausalLM.sample`` goes, beside the least time the machine could take.

The floor of a step: its products at the rate measured for those very shapes (the better of torch's
and oneDNN's), plus the bytes it must touch once (weights, keys and values, scores) at the measured
bandwidth. Attention is counted by its bytes. Stages are timed by wrapping the functions that do
them, in runs of their own that call the model in every step; what no stage holds is Python, modules
and elementwise work. Recorded steps (``srlm.policy.recorded``) cannot be looked into: their runs
are timed as a whole.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from generating import Task, draw, tokens_of

from srlm.policy import causal_lm, decoding, recorded
from srlm.policy.cache import GrowingLayer
from srlm.policy.linear import WideConv1D, WideLinear, wide

STAGES: dict[str, list[tuple[Any, str]]] = {
    "products": [(WideLinear, "forward"), (WideConv1D, "forward")],
    "attention": [(F, "scaled_dot_product_attention")],
    "cache writes": [(GrowingLayer, "update")],
    "cache moves": [(GrowingLayer, "move")],
    "log-softmax": [(F, "log_softmax")],
    "choice": [(decoding, "_inverse")],
    "uniform numbers": [(decoding, "uniforms_of")],
    "shared rows": [(decoding, "children"), (decoding, "places")],
    "texts": [(decoding, "_texts")],
    "model": [(causal_lm.CausalLM, "_called")],
}
"""What is wrapped. ``model`` holds the products, the attention and the cache writes."""
WITHIN = ("products", "attention", "cache writes")


def best(case: Callable[[], Any], repeats: int = 9) -> float:
    """Least seconds of some runs: what the machine can do."""
    seconds = []
    for _ in range(repeats):
        began = perf_counter()
        case()
        seconds.append(perf_counter() - began)
    return min(seconds)


@torch.inference_mode()
def machine() -> dict[str, Any]:
    """Greatest rates: products of 1,024 x 768 x 2,048, copies of 256 MB."""
    x, weight = torch.randn(1024, 768), torch.randn(2048, 768)
    work = 2 * 1024 * 768 * 2048 / 1e9
    a, b = torch.zeros(1 << 25), torch.ones(1 << 25)
    return {
        "threads": torch.get_num_threads(),
        "torch_gflops": work / best(lambda: F.linear(x, weight)),
        "onednn_gflops": work / best(lambda: onednn(x, weight)) if wide() else None,
        "copy_gb_a_second": 2 * 4 * (1 << 25) / 1e9 / best(lambda: a.copy_(b)),
    }


def onednn(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x W^T by oneDNN."""
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return out


@torch.inference_mode()
def least(task: Task, rows: int, columns: int) -> dict[str, float]:
    """Seconds that one pass over ``rows`` new positions cannot go below.

    Args:
        task: names the model.
        rows: of every product; the head's are as many as the batch.
        columns: cached positions that attention reads, over all rows.
    """
    config = task.model.config
    batch = len(task.prompts)
    products, weights = 0.0, 0
    shapes: dict[tuple[int, int, int], int] = defaultdict(int)
    for layer in task.model.modules():
        if isinstance(layer, torch.nn.Linear):
            n = batch if layer is task.model.lm_head else rows
            shapes[n, layer.in_features, layer.out_features] += 1
            weights += layer.weight.numel()
    for (n, i, o), count in shapes.items():
        x, weight = torch.randn(n, i), torch.randn(o, i)
        ways = [best(lambda x=x, w=weight: F.linear(x, w), 5)]
        if wide():
            ways.append(best(lambda x=x, w=weight: onednn(x, w), 5))
        products += count * min(ways)
    width = config.num_key_value_heads * config.head_dim * config.num_hidden_layers
    return {
        "products": products,
        "flop": float(sum(2 * n * i * o * c for (n, i, o), c in shapes.items())),
        "bytes": 4.0 * (weights + 2 * width * (columns + rows) + 2 * batch * config.vocab_size),
    }


@contextmanager
def stages() -> Iterator[dict[str, float]]:
    """Seconds of each stage, gathered inside."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def outer(*args: Any, **kwargs: Any) -> Any:
            began = perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                seconds[name] += perf_counter() - began

        return outer

    patches = [
        patch.object(owner, what, timed(name, getattr(owner, what)))
        for name, places in STAGES.items()
        for owner, what in places
    ]
    for p in patches:
        p.start()
    try:
        yield seconds
    finally:
        for p in patches:
            p.stop()


def floor(task: Task, repeats: int = 5) -> dict[str, Any]:
    """Seconds of a whole draw by stage (medians), its floor, and the floor's share of it.

    The floor is that of a row a draw, so tasks of one draw a prompt are meant.
    """
    draw(task, 0)
    used, whole, parts = [], [], []
    for seed in range(repeats):
        began = perf_counter()
        tokens = tokens_of(draw(task, seed))
        used.append(perf_counter() - began)
        with patch.object(recorded, "AFTER", 1 << 60):
            began = perf_counter()
            draw(task, seed)
            whole.append(perf_counter() - began)
            with stages() as seconds:
                draw(task, seed)
        parts.append(dict(seconds))
    median = {name: statistics.median(p.get(name, 0.0) for p in parts) for name in STAGES}
    inside = sum(median[name] for name in WITHIN)
    median["modules and elementwise"] = median.pop("model") - inside
    total = statistics.median(whole)
    median["other"] = total - sum(median.values())

    bandwidth = machine()["copy_gb_a_second"] * 1e9
    batch, prompt = len(task.prompts), task.prompt_PL.shape[1]
    steps = min(task.new_tokens, 14) - 1 if task.name == "0.1 M" else task.new_tokens - 1
    first = least(task, batch * prompt, 0)
    middle = least(task, batch, batch * (prompt + steps // 2))
    products = first["products"] + steps * middle["products"]
    moved = first["bytes"] + steps * middle["bytes"]
    flop = first["flop"] + steps * middle["flop"]
    return {
        "model": task.name,
        "batch": batch,
        "threads": torch.get_num_threads(),
        "tokens": tokens,
        "seconds": statistics.median(used),
        "called_seconds": total,
        "stages": median,
        "gflop": flop / 1e9,
        "gbytes": moved / 1e9,
        "floor": {"products": products, "bytes": moved / bandwidth},
        "share_of_floor": (products + moved / bandwidth) / statistics.median(used),
        "product_gflops": flop / 1e9 / median["products"],
    }
