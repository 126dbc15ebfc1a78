"""How time and memory grow: samples, model, length of responses, rounds, nodes of the search.

    python -m benchmarks.growth [--repeats 3] [--quick] [--only nodes]

Every point but those of nodes is a `srlm run` in a process of its own: seconds by stage out of the
run folder, and the greatest resident memory above that of a process that only loads the same model.
Samples and rounds are of the demo's good base; sizes and lengths of Llama-like models of random
weights over 256 words, whose responses nearly all reach the limit. Nodes: the search of ``srlm
measure``, its limits of tokens and seconds the defaults, where hardly a mode can be certified: on
32 prompts of a tree that costs nothing, whose tokens are as uneven as a language model's
(``Uneven``: the search's own time), and on 16 prompts of the smallest model. The exponent is the
slope of log seconds over log size from the first point to the last.

Cost: about fifteen minutes on an idle core, two with ``--quick``.
Results: benchmarks/results/growth.json.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.side_by_side import in_child, spread, write

if TYPE_CHECKING:
    import torch

    from srlm.policies.base import PrefixTree
    from srlm.types import Ints

SAMPLES = (4, 16, 64, 256)
ROUNDS = (1, 2, 4, 8)
LENGTHS = (16, 32, 64, 128)
NODES = (300, 600, 1200, 2400)
SIZES = {"0.1 M": (64, 176, 2), "1 M": (160, 432, 3), "3 M": (256, 688, 4), "10 M": (384, 1024, 6)}
"""Width, inner width and layers."""
AXES = ("samples", "rounds", "length", "size")
STAGES = ("samples", "pairs", "train", "measure")
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two points of each, once")
    parser.add_argument("--only", nargs="+", default=[*AXES, "nodes"], choices=[*AXES, "nodes"])
    parser.add_argument("--child", help="one point, as JSON")
    options = parser.parse_args()
    if options.child:
        child(json.loads(options.child))
        return
    few = (lambda values: tuple(values)[:2]) if options.quick else tuple
    repeats = 1 if options.quick else options.repeats
    axes = {
        "samples": [{"samples": n, "prompts": 256} for n in few(SAMPLES)],
        "rounds": [{"rounds": T, "prompts": 512} for T in few(ROUNDS)],
        "length": [{"max_tokens": T, "size": "0.1 M"} for T in few(LENGTHS)],
        "size": [{"size": name} for name in few(SIZES)],
    }
    axes = {name: points for name, points in axes.items() if name in options.only}
    models = dict.fromkeys(p.get("size") for points in axes.values() for p in points)
    bare = {size: [peak(size) for _ in range(min(3, repeats))] for size in models}
    result: dict[str, Any] = {"repeats": repeats}
    for axis, points in axes.items():
        result[axis] = {"points": [measured(p, repeats, bare[p.get("size")]) for p in points]}
        result[axis]["exponent"] = exponent(axis, result[axis]["points"])
        write("growth_quick" if options.quick else "growth", result)
        for row in result[axis]["points"]:
            seconds = ", ".join(f"{name} {row['seconds'][name]['value']:.2f}" for name in STAGES)
            print(f"{axis:7} {row['at']!s:>6}: {seconds} s; +{row['memory_mb']['value']:.0f} MB")
        print(f"{axis:7} exponents: {result[axis]['exponent']}", flush=True)
    if "nodes" in options.only:
        result["nodes"] = searched(few(NODES), repeats)
        print(f"nodes   {result['nodes']}")
        write("growth_quick" if options.quick else "growth", result)


def searched(nodes: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Processor seconds of a search of so many nodes a prompt and their exponent, by kind of
    tree."""
    import torch

    from srlm.data import prompt_id
    from srlm.demo.corpus import prompts
    from srlm.policies.load import load
    from srlm.types import Prompt

    torch.set_num_threads(1)
    asked = [Prompt(prompt_id(text), text) for text in prompts(16, 7)]
    with tempfile.TemporaryDirectory() as place:
        policy = load(random_model(Path(place) / "model", *SIZES["0.1 M"]), device="cpu")
        return {
            "no model": of_tree(lambda: Uneven(32), 32, nodes, repeats),
            "0.1 M": of_tree(lambda: policy.tree(asked, max_tokens=64), 16, nodes, repeats),
        }


def of_tree(
    tree: Callable[[], PrefixTree], prompts: int, nodes: tuple[int, ...], repeats: int
) -> dict[str, Any]:
    """The search of a kind of tree."""
    from srlm.config import MeasureSettings
    from srlm.measure.search import find_modes

    limits, points = MeasureSettings(), []
    for most in nodes:
        seconds = []
        for _ in range(repeats):
            began = process_time()
            found = find_modes(
                tree(),
                prompts,
                nodes=most,
                tokens=limits.tokens,
                seconds=limits.seconds,
                second="least",
            )
            seconds.append(process_time() - began)
        opened = int(found.nodes_P.sum())
        points.append({"at": most, "opened": opened, "seconds": spread(seconds)})
    first, last = points[0], points[-1]
    slope = math.log(last["seconds"]["value"] / first["seconds"]["value"])
    slope /= math.log(last["opened"] / first["opened"])
    return {"prompts": prompts, "points": points, "exponent": round(slope, 2)}


class Uneven:
    """Prefixes whose next tokens are one of 256 distributions, by a hash of the prefix.

    Scores are normal with deviation 4 over 8,192 tokens: the likeliest token has 0.3 in the median,
    and the tail is long. Token 0 ends; the limit is 64 tokens.

    Args:
        prompts: how many.
    """

    ends = frozenset({0})
    max_tokens = 64

    def __init__(self, prompts: int) -> None:
        import torch

        score_NV = np.random.default_rng(SEED).normal(0, 4, (256, 8192))
        self.logp_NV = torch.log_softmax(torch.from_numpy(score_NV).float(), 1)
        self.hash_N = np.arange(prompts, dtype=np.uint64) * np.uint64(7919)

    def roots(self) -> tuple[Ints, torch.Tensor]:
        """Of ``policies.base.PrefixTree``."""
        return np.arange(len(self.hash_N)), self._rows(self.hash_N)

    def extend(self, node_B: Ints, token_B: Ints) -> tuple[Ints, torch.Tensor]:
        """Of ``policies.base.PrefixTree``."""
        mixed_B = self.hash_N[node_B] * np.uint64(6364136223846793005) + token_B.astype(np.uint64)
        new_B = mixed_B ^ (mixed_B >> np.uint64(29))
        first = len(self.hash_N)
        self.hash_N = np.concatenate([self.hash_N, new_B])
        return np.arange(first, len(self.hash_N)), self._rows(new_B)

    def _rows(self, hash_B: Any) -> torch.Tensor:
        return self.logp_NV[(hash_B % np.uint64(256)).astype(np.int64)]


def peak(size: str | None) -> float:
    """Greatest resident memory of a process that loads the model only, MB."""
    point = {"bare": True} | ({"size": size} if size else {})
    return float(in_child("benchmarks.growth", "--child", json.dumps(point))["peak_mb"])


def measured(point: dict[str, Any], repeats: int, bare: list[float]) -> dict[str, Any]:
    """A point of an axis: time by stage and memory above the bare model, over repeats."""
    said = [in_child("benchmarks.growth", "--child", json.dumps(point)) for _ in range(repeats)]
    return {
        "at": next(iter(point.values())),
        "parameters": said[0]["parameters"],
        "seconds": {name: spread([one["stages"][name] for one in said]) for name in STAGES},
        "memory_mb": spread([one["peak_mb"] - median(bare) for one in said]),
        "bare_mb": spread(bare),
    }


def exponent(axis: str, points: list[dict[str, Any]]) -> dict[str, float]:
    """Slope of log seconds from the first point to the last; of memory too."""
    first, last = points[0], points[-1]
    key = "parameters" if axis == "size" else "at"
    run = math.log(last[key] / first[key])
    slopes = {
        name: math.log(last["seconds"][name]["value"] / first["seconds"][name]["value"]) / run
        for name in STAGES
    }
    low = max(1.0, first["memory_mb"]["value"])
    slopes["memory"] = math.log(max(1.0, last["memory_mb"]["value"]) / low) / run
    return {name: round(slope, 2) for name, slope in slopes.items()}


def child(point: dict[str, Any]) -> None:
    """One run, or only its model; prints stages' seconds as JSON."""
    import torch

    from srlm.config import flatten, resolve
    from srlm.demo.corpus import STARTS
    from srlm.demo.settings import settings
    from srlm.policies.load import load
    from srlm.progress import Progress
    from srlm.runner import run

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rounds = point.get("rounds", 1)
        changes = {
            "rounds": rounds,
            "samples.per_prompt": point.get("samples", 4),
            "samples.prompts": point.get("prompts", 128),
            "samples.max_tokens": point.get("max_tokens", 16),
            "measure.prompts": 32,
            "measure.nodes": 50,
            "update.epochs": 1,
        }
        config = settings(STARTS["good"], SEED, Progress(quiet=True))
        if "size" in point:
            changes["model"] = str(random_model(folder / "model", *SIZES[point["size"]]))
        config = resolve(None, flatten(config.model_dump(mode="json")) | changes)
        policy = load(config.model, device="cpu", dtype="float32")
        said: dict[str, Any] = {"parameters": sum(p.numel() for p in policy.parameters())}
        del policy
        if not point.get("bare"):
            rounds_done = run(config, folder / "run").rounds
            last = rounds_done[-1].seconds
            said["stages"] = {
                name: sum(r.seconds.get(name, 0.0) for r in rounds_done[1:]) for name in last
            }
    print(json.dumps(said))


def random_model(folder: Path, hidden: int, inner: int, layers: int) -> Path:
    """A Llama-like model over 256 words that reads the demo's prompts."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from srlm.demo.network import character_tokenizer

    tokenizer = character_tokenizer()
    tokenizer.add_tokens([f"w{i}" for i in range(256 - len(tokenizer))])
    config = AutoConfig.for_model(
        "llama",
        vocab_size=256,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=256,
        bos_token_id=None,
        pad_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(SEED)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
