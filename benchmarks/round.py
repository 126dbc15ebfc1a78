"""One self-rewarding round: ours beside TRL's DPO with its default loss.

    python -m benchmarks.round [--quick] [--only times learning memory]
    python -m benchmarks.round --tune        # learning rates and betas, on a seed of its own

Needs the extra: pip install -e '.[bench]'. The same model, prompts, samples per prompt, passes over
the pairs, optimiser steps and one thread for both; importing is left out of the times. Measured:

- times: a round from the base, again and again, the sides in turn;
- learning: two rounds from the demo's good start on each seed; headroom captured is the share of
  the way from the base's sampling accuracy to its mode accuracy, on the same held-out prompts with
  the same random numbers;
- memory: a round in a process of its own; above it, a process that imports as much and loads the
  model.

Learning rate and beta of each side are the best of ``GRIDS`` on seed 10, which is not reported
(``TUNED``; ``--tune`` finds them again); ``ours`` has srlm's default update at its defaults. A
prompt whose samples are all alike gives DPO no pair, so a step is made of fewer pairs there and the
steps are as many. Cost: about ten minutes on an idle core, a minute with ``--quick``.
Results: benchmarks/results/round.json (round_quick.json with --quick).
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import os
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import torch

from benchmarks import ours, trl_dpo
from benchmarks.side import STAGES, Setting, Side, Timed
from benchmarks.side_by_side import in_child, interleaved, ratio, spread, write
from srlm.config import MeasureSettings
from srlm.data import read_prompts, split
from srlm.demo.corpus import STARTS
from srlm.demo.network import RECIPE, blank_model
from srlm.demo.settings import settings
from srlm.grading import grader
from srlm.measure.evaluate import evaluate
from srlm.policies.hf import CausalLM
from srlm.policies.load import load
from srlm.progress import Progress
from srlm.rounds import derived
from srlm.types import Prompt

SIDES: dict[str, Side] = {
    "ours": ours.side("weighted"),
    "ours, dpo": ours.side("dpo"),
    "trl dpo": trl_dpo.one_round,
}
TUNED = {
    "ours": Setting(),
    "ours, dpo": Setting(lr=1e-3, beta=1.0),
    "trl dpo": Setting(lr=1e-3, beta=1.0),
}
GRIDS = {
    name: [Setting(lr=lr, beta=b) for lr in (2.5e-4, 5e-4, 1e-3, 2e-3) for b in (0.3, 1.0, 3.0)]
    for name in ("ours, dpo", "trl dpo")
}
TUNING_SEED = 10
LARGE = {"prompts_per_step": 16}
"""As many steps from few prompts."""
PARTS = ["times", "learning", "memory"]


@dataclass(frozen=True)
class Ground:
    """A base with prompts to train on and prompts held out."""

    model: Any
    tokenizer: Any
    train: list[Prompt]
    held_out: list[Prompt]
    seed: int

    def accuracy(self, model: Any) -> float:
        """Share of right samples on the held-out prompts, the same random numbers each time."""
        policy = CausalLM(model, self.tokenizer)
        seed = derived(self.seed, "held out")
        samples = policy.sample(self.held_out, 16, seed=seed, max_tokens=16)
        read = grader("last-number")
        right_R = read.grades(samples.text_R, samples.finished_R, self.held_out, samples.prompt_R)
        return float(right_R.mean())

    def mode_accuracy(self) -> float:
        """Share of held-out prompts on which the base's likeliest response is right."""
        policy = CausalLM(self.model, self.tokenizer)
        made = evaluate(
            policy,
            self.held_out,
            grader("last-number"),
            MeasureSettings(samples=2),
            seed=self.seed,
            max_tokens=16,
            base=None,
        )
        value = made.estimates["mode_accuracy"].value
        assert value is not None
        return value


def demo(seed: int, prompts: int) -> Ground:
    """The demo's good start: 0.1 million parameters, sums of two numbers."""
    config = settings(STARTS["good"], seed, Progress(quiet=True))
    policy = load(config.model, device="cpu")
    assert isinstance(policy, CausalLM)
    train, held_out = split(read_prompts(config.prompts.file), config.prompts.held_out)
    return Ground(policy.model, policy.tokenizer, train[:prompts], held_out[:512], seed)


def large(prompts: int) -> Ground:
    """An untrained model of 3 million parameters on the same prompts: for times and memory."""
    small = demo(0, prompts)
    recipe = replace(RECIPE, hidden=256, inner=704, layers=4)
    torch.manual_seed(0)
    return replace(small, model=blank_model("llama", recipe, small.tokenizer).eval())


def once(name: str, place: Ground, model: Any, setting: Setting, seed: int) -> Timed:
    """A side's round."""
    return SIDES[name](model, place.tokenizer, place.train, setting, seed)


# ---- times


def times(place: Ground, repeats: int, **changes: Any) -> dict[str, Any]:
    """Seconds of a round from the base by stage, and how many times as long TRL's takes."""
    made: dict[str, list[Timed]] = {name: [] for name in SIDES}

    def case(name: str) -> None:
        seed = derived(place.seed, "times", len(made[name]))
        setting = replace(TUNED[name], **changes)
        made[name].append(once(name, place, copy.deepcopy(place.model), setting, seed))

    interleaved({name: lambda name=name: case(name) for name in SIDES}, repeats=repeats)
    kept = {name: rounds[-repeats:] for name, rounds in made.items()}
    seconds = {
        name: {stage: [r.seconds[stage] for r in rounds] for stage in STAGES}
        | {"round": [r.total for r in rounds]}
        for name, rounds in kept.items()
    }
    return {
        "parameters": sum(p.numel() for p in place.model.parameters()),
        "prompts": len(place.train),
        "sides": {
            name: {
                "seconds": {k: spread(v) for k, v in seconds[name].items()},
                "tokens_per_second": spread([r.tokens / r.seconds["samples"] for r in rounds]),
                "steps": rounds[-1].steps,
                "pairs": rounds[-1].pairs,
            }
            for name, rounds in kept.items()
        },
        "trl_over": {
            name: {k: ratio(seconds["trl dpo"][k], seconds[name][k]) for k in seconds[name]}
            for name in ("ours", "ours, dpo")
        },
    }


# ---- learning


def learning(seed: int, prompts: int, rounds: int) -> dict[str, Any]:
    """Rounds of every side from one base; headroom captured and seconds so far after each."""
    place = demo(seed, prompts)
    start, mode = place.accuracy(place.model), place.mode_accuracy()
    sides: dict[str, Any] = {}
    for name in SIDES:
        model, so_far, found = copy.deepcopy(place.model), 0.0, []
        for t in range(rounds):
            so_far += once(name, place, model, TUNED[name], derived(seed, "round", t)).total
            headroom = (place.accuracy(model) - start) / (mode - start)
            found.append({"headroom": headroom, "seconds_so_far": so_far})
        sides[name] = {"setting": asdict(TUNED[name]), "rounds": found}
    return {"seed": seed, "prompts": prompts, "accuracy": start, "mode_accuracy": mode} | {
        "sides": sides
    }


def tune(prompts: int) -> None:
    """The headroom that every point of a grid captures in one round; the best last."""
    place = demo(TUNING_SEED, prompts)
    start, mode = place.accuracy(place.model), place.mode_accuracy()
    for name, grid in GRIDS.items():
        imported(name)
        found = []
        for setting in grid:
            model = copy.deepcopy(place.model)
            once(name, place, model, setting, derived(TUNING_SEED, "round"))
            found.append(((place.accuracy(model) - start) / (mode - start), setting))
        for headroom, setting in sorted(found, key=lambda x: x[0]):
            print(f"{name}: lr {setting.lr:g}, beta {setting.beta:g}: {headroom:.1%}", flush=True)


# ---- memory


def memory(names: list[str], prompts: int, size: str, repeats: int) -> dict[str, Any]:
    """Peak memory of a round, and above the bare model, MB, over processes of their own."""
    above: dict[str, list[float]] = {}
    sides: dict[str, Any] = {}
    for name in names:
        words = ("--child", name, "--prompts", str(prompts), "--size", size)
        whole = [in_child("benchmarks.round", *words)["peak_mb"] for _ in range(repeats)]
        bare = [in_child("benchmarks.round", *words, "--bare")["peak_mb"] for _ in range(repeats)]
        above[name] = [a - b for a, b in zip(whole, bare, strict=True)]
        sides[name] = {"bare_mb": spread(bare), "above_mb": spread(above[name])}
    over = {name: ratio(above[name], above["trl dpo"]) for name in names if name != "trl dpo"}
    return {"prompts": prompts, "sides": sides, "over_trl": over}


def child(name: str, prompts: int, size: str, bare: bool) -> None:
    """What ``memory`` starts."""
    imported(name)
    place = large(prompts) if size == "large" else demo(0, prompts)
    if not bare:
        setting = replace(TUNED[name], **(LARGE if size == "large" else {}))
        once(name, place, place.model, setting, 0)


def imported(name: str) -> None:
    """Import all that a side needs, without its progress bars."""
    os.environ["TQDM_DISABLE"] = "1"
    if name == "trl dpo":
        import datasets
        import transformers

        importlib.import_module("trl.trainer.dpo_trainer")
        datasets.disable_progress_bars()
        transformers.utils.logging.set_verbosity_error()


def run(quick: bool, parts: list[str]) -> dict[str, Any]:
    """The parts asked for, written as they come."""
    prompts, repeats = (512, 3) if quick else (4096, 5)
    name = "round_quick" if quick else "round"
    result: dict[str, Any] = {"trl": version("trl"), "tuning_seed": TUNING_SEED}
    for side in SIDES:
        imported(side)
    if "times" in parts:
        result["times"] = [times(demo(0, prompts), repeats)]
        if not quick:
            result["times"].append(times(large(64), repeats, **LARGE))
        write(name, result)
    if "learning" in parts:
        result["learning"] = []
        for seed in (0,) if quick else (0, 1, 2):
            result["learning"].append(learning(seed, prompts, 2))
            write(name, result)
    if "memory" in parts:
        result["memory"] = [memory(list(SIDES), prompts, "small", 1 if quick else 5)]
        if not quick:
            result["memory"].append(memory(list(SIDES), 64, "large", 5))
        write(name, result)
    return result


def main() -> None:
    """Parse, run, show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, few prompts; a minute")
    parser.add_argument("--only", nargs="+", default=PARTS, choices=PARTS, help="parts to run")
    parser.add_argument("--tune", action="store_true", help="print what each grid point captures")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--prompts", type=int, default=4096, help=argparse.SUPPRESS)
    parser.add_argument("--size", default="small", help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.child:
        child(asked.child, asked.prompts, asked.size, asked.bare)
    elif asked.tune:
        tune(512 if asked.quick else asked.prompts)
    else:
        print(json.dumps(run(asked.quick, asked.only), indent=1))


if __name__ == "__main__":
    main()
