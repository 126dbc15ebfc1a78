"""How time and memory grow: with the draws, the model, the length of responses and the rounds.

    python benchmarks/growth.py [--repeats 3] [--quick]

Every point is a `srlm run` in a process of its own: seconds by stage out of the run folder, and the
greatest resident memory above that of a process that only loads the same model. Draws and rounds
are of the demo's good base; sizes and lengths of Llama-like models of random weights over 256
words, whose responses nearly all reach the limit. The exponent is the slope of log seconds over
log size from the first point to the last. Three repeats a point: sizes grow by 8 to 100 times, and
nothing is compared with a rival.
Results: benchmarks/results/growth.json.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from side_by_side import in_child, spread, write

DRAWS = (4, 16, 64, 256)
ROUNDS = (1, 2, 4, 8)
LENGTHS = (16, 32, 64, 128)
SIZES = {"0.1 M": (64, 176, 2), "1 M": (160, 432, 3), "3 M": (256, 688, 4), "10 M": (384, 1024, 6)}
"""Width, inner width and layers."""
STAGES = ("samples", "pairs", "update", "measure")
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two points of each, once")
    parser.add_argument("--child", help="one point, as JSON")
    options = parser.parse_args()
    if options.child:
        child(json.loads(options.child))
        return
    few = (lambda values: tuple(values)[:2]) if options.quick else tuple
    repeats = 1 if options.quick else options.repeats
    axes = {
        "draws": [{"draws": n, "prompts": 256} for n in few(DRAWS)],
        "rounds": [{"rounds": T, "prompts": 512} for T in few(ROUNDS)],
        "length": [{"max_tokens": T, "size": "0.1 M"} for T in few(LENGTHS)],
        "size": [{"size": name} for name in few(SIZES)],
    }
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


def peak(size: str | None) -> float:
    """Greatest resident memory of a process that loads the model only, MB."""
    point = {"bare": True} | ({"size": size} if size else {})
    return float(in_child(Path(__file__), "--child", json.dumps(point))["peak_mb"])


def measured(point: dict[str, Any], repeats: int, bare: list[float]) -> dict[str, Any]:
    """A point of an axis: time by stage and memory above the bare model, over repeats."""
    said = [in_child(Path(__file__), "--child", json.dumps(point)) for _ in range(repeats)]
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
    from srlm.demo.settings import settings
    from srlm.loop import run
    from srlm.policies.load import load
    from srlm.progress import Progress
    from srlm.report import page

    torch.set_num_threads(1)
    page.write_page = lambda summary: summary.folder / "report.html"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rounds = point.get("rounds", 1)
        changes = {
            "rounds": rounds,
            "samples.per_prompt": point.get("per_prompt", point.get("draws", 4)),
            "samples.prompts": point.get("prompts", 128),
            "samples.max_tokens": point.get("max_tokens", 16),
            "measure.prompts": 32,
            "measure.nodes": 50,
            "update.epochs": 1,
        }
        config = settings("good", SEED, Progress(quiet=True))
        if "size" in point:
            changes["model"] = str(random_model(folder / "model", *SIZES[point["size"]]))
        config = resolve(None, flatten(config.model_dump(mode="json")) | changes)
        policy = load(config.model, device="cpu", dtype="float32")
        said: dict[str, Any] = {"parameters": sum(p.numel() for p in policy.parameters())}
        del policy
        if not point.get("bare"):
            lines = run(config, folder / "run").rounds
            last = lines[-1]["seconds"]
            said["stages"] = {
                name: sum(line["seconds"].get(name, 0.0) for line in lines[1:]) for name in last
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
    sys.exit(main())
