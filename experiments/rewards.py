"""Every reward on the demo's starts, and judges that go past the mode.

    python -m experiments.rewards [--starts good diffuse ...] [--seeds 0 1 2] [--only judge ...]
                                  [--rounds 4] [--prompts N] [--again] [--page] [--quick]

Cost: some three hours on an idle core; ``--quick`` takes a minute, on bases of 20 steps, and writes
neither results nor docs.

One JSON file a start, seed and reward goes to runs/rewards/parts/ as soon as it is made; what
is there with the same settings is not made again without --again. So the work can be cut off, and
divided among processes that run at once (one seed each, say). --page makes nothing new: it gathers
the parts into experiments/results/rewards.json and docs/rewards.md.

The same base, prompts, samples and update for every reward. Rewards come in units of their own, so
beta is set for each to the same strength: beta = beta_first * s / s_first with s the mean standard
deviation of the reward among a prompt's samples from the base. Judges run on the starts whose
corpus also holds verdicts on worked answers (judge), and comparisons and judgements of verdicts too
(compare); they are asked in the corpus's own words. Beside them, without training: majority vote,
best of n by likelihood or by a judge, greedy decoding. Right answers serve for showing alone.

Seconds are processor seconds of one thread for sampling, rewarding, pairing and training; measuring
is not counted.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.environment import environment
from experiments.common import Clock, kept, opened, write
from experiments.corpora import OWN, config_of
from experiments.rewards_page import page
from srlm.config import RunConfig, reward_parts
from srlm.grading import grader
from srlm.rewards.base import scored
from srlm.rewards.report import report
from srlm.rounds import derived
from srlm.run_folder import Run, read_run
from srlm.runner import reward_of, run
from srlm.types import Floats, Prompt, Samples, rows_by_prompt
from srlm.writing import write_text

ASKED: dict[str, dict[str, Any]] = {
    start: {k: v for k, v in own.items() if k.startswith("judge.") or k == "samples.max_tokens"}
    for start, own in OWN.items()
}
"""How a start's corpus asks for verdicts and comparisons, and how long its answers are."""
ALIKE: dict[str, dict[str, Any]] = {
    name: {"reward": name}
    for name in ("likelihood", "likelihood-per-token", "self-certainty", "consistency")
}
"""What runs on starts without verdicts, all at the strength of the first at the demo's beta."""
JUDGED: dict[str, dict[str, dict[str, Any]]] = {
    "judge": {
        "likelihood": {"reward": "likelihood", "update.beta": 1.0},
        "judge": {"reward": "judge", "update.beta": 0.02},
        "judge:1,likelihood:0.01": {"reward": "judge:1,likelihood:0.01", "update.beta": 0.02},
    },
    "compare": {
        "likelihood": {"reward": "likelihood", "update.beta": 1.0},
        "judge": {"reward": "judge", "update.beta": 0.02},
        "judge-pairwise": {"reward": "judge-pairwise", "update.beta": 0.02},
        "judge-pairwise:1,likelihood:0.01": {
            "reward": "judge-pairwise:1,likelihood:0.01",
            "update.beta": 0.02,
        },
        "meta-judge": {"reward": "meta-judge"},
        "meta-judge, judge trained": {"reward": "meta-judge", "judge.train": True},
    },
}
"""What runs on starts with verdicts. On compare the betas and the likelihood's share were tried on
seeds 10 and 11, which are not in the tables; where there is no beta, at the strength of the judge
at its own. At equal strength (0.004) judge-pairwise gained no more on seed 10 and lost it a round
sooner: its margins are small and many."""
MEASURED = (
    "kappa",
    "failure_fraction",
    "entropy",
    "fidelity",
    "sampling_accuracy",
    "greedy_accuracy",
    "mode_accuracy",
    "headroom_captured",
)
CONTROL_DRAWS = 8
JUDGED_PROMPTS = 256
"""Held-out prompts on whose samples a judge's order is compared with the right answers."""


# ---- settings


def changes_of(start: str, plain: RunConfig) -> dict[str, dict[str, Any]]:
    """What each reward is run with, at equal strength."""
    todo = JUDGED.get(start, ALIKE)
    first = "judge" if start in JUDGED else "likelihood"
    beta = todo[first].get("update.beta", plain.update.beta)
    own = [name for name, changes in todo.items() if "update.beta" not in changes]
    if not own:
        return todo
    s = strengths(plain, {first} | {todo[name]["reward"] for name in own})
    by = beta / s[first]
    return {
        name: changes | {"update.beta": by * s[changes["reward"]]} if name in own else changes
        for name, changes in todo.items()
    }


def strengths(config: RunConfig, names: set[str]) -> dict[str, float]:
    """Mean standard deviation of each reward among a prompt's samples from the base."""
    policy, train, _ = opened(config)
    some = train[:256]
    longest = config.samples.max_tokens
    samples = policy.sample(some, 8, seed=derived(config.seed, "strength"), max_tokens=longest)
    found = {}
    for name in sorted(names):
        reward = reward_of(plainly(config, name))
        spread = report(samples, scored(reward(policy, some, samples), samples)).spread.value
        found[name] = spread or 1.0
    return found


def plainly(config: RunConfig, reward: str) -> RunConfig:
    """The settings with another reward, and no training of a judge."""
    judge = config.judge.model_copy(update={"train": False})
    return config.model_copy(update={"reward": reward, "judge": judge})


# ---- one run


def one(config: RunConfig, out: Path) -> dict[str, Any]:
    """A run's rounds in figures."""
    shutil.rmtree(out, ignore_errors=True)  # what a cut-off run left has no times
    clock = Clock()
    run(config, out, progress=clock)  # type: ignore[arg-type]
    made = read_run(out)
    judging = next((n for n in reward_parts(config.reward) if "judge" in n), None)
    rounds = []
    lines = [record.to_json() for record in made.rounds]
    for line in lines:
        t = line["round"]
        figures = {key: line[key]["value"] for key in MEASURED}
        figures["distinct"] = distinct_responses(made, t)
        figures["seconds"] = round(clock.of_round(t), 1)
        figures["tokens"] = tokens(made, t - 1) if t else 0
        if "rewards" in line:
            kept = line["rewards"]
            figures["reward"] = {
                "missing": kept["missing"],
                "facts": kept["facts"],
                **{
                    k: kept[k]["value"]
                    for k in ("spread", "length_correlation", "vote_correlation")
                },
            }
        if judging:
            figures["auc"] = judge_auc(config, judging, made, t, t)
            figures["auc_base"] = judge_auc(config, judging, made, t, 0)
        rounds.append(figures)
    return {"beta": config.update.strength, "rounds": rounds}


def distinct_responses(found: Run, t: int) -> float:
    """Mean number of distinct responses per held-out prompt, of the samples."""
    samples = found.held_out(t)
    assert samples is not None
    groups = rows_by_prompt(samples.prompt_R, int(samples.prompt_R.max()) + 1)
    return float(np.mean([len({samples.tokens_R[r] for r in rows}) for rows in groups]))


def tokens(found: Run, t: int) -> int:
    """Tokens sampled for training in round t."""
    return sum(len(x) for part in found.samples(t) or () for x in part.tokens_R)


def judge_auc(config: RunConfig, reward: str, found: Run, t: int, source: int) -> float:
    """P(the judge of round t prefers a right to a wrong sample of round ``source``), within
    prompts."""
    policy, _, held_out = opened(config, str(found.policy(t)))
    everything, table = found.held_out(source), found.rounds[source].table
    assert everything is not None
    assert table is not None
    samples = everything.take(everything.prompt_R < JUDGED_PROMPTS)
    by_id = {x.id: x for x in held_out}
    kept = [by_id[i] for i in table.prompt_id]
    rewarded = scored(reward_of(plainly(config, reward))(policy, kept, samples), samples)
    return within_auc(rewarded.reward_R, rightness(config, kept, samples), samples)


def rightness(config: RunConfig, prompts: Sequence[Prompt], samples: Samples) -> np.ndarray:
    """Which rows are right, [R]."""
    read = grader(config.prompts.answer)
    return read.grades(samples.text_R, samples.finished_R, prompts, samples.prompt_R) == 1


def within_auc(score_R: Floats, right_R: np.ndarray, samples: Samples) -> float:
    """Share of the (right, wrong) pairs of a prompt that the score puts in order; ties half."""
    above = pairs = 0.0
    for rows in rows_by_prompt(samples.prompt_R, int(samples.prompt_R.max()) + 1):
        known = rows[np.isfinite(score_R[rows])]
        good, bad = (score_R[known[right_R[known] == flag]] for flag in (True, False))
        above += float((good[:, None] > bad).sum() + 0.5 * (good[:, None] == bad).sum())
        pairs += len(good) * len(bad)
    return above / pairs if pairs else float("nan")


def controls(config: RunConfig, judges: Sequence[str]) -> dict[str, float]:
    """Accuracy of the base on held-out prompts by what needs no training."""
    policy, _, held_out = opened(config)
    x = held_out[:512]
    seed, longest = derived(config.seed, "controls"), config.samples.max_tokens
    samples = policy.sample(x, CONTROL_DRAWS, seed=seed, max_tokens=longest)
    greedy = policy.greedy(x, max_tokens=longest)
    right_R = rightness(config, x, samples)
    rows_P = rows_by_prompt(samples.prompt_R, len(x))

    def best(score_R: Floats) -> float:
        usable = np.where(np.isfinite(score_R), score_R, -np.inf)
        return float(np.mean([right_R[rows[np.argmax(usable[rows])]] for rows in rows_P]))

    def chosen(name: str) -> Floats:
        reward: Callable[..., Any] = reward_of(plainly(config, name))
        return scored(reward(policy, x, samples), samples).reward_R

    out = {
        "one sample": float(right_R.mean()),
        "greedy": float(rightness(config, x, greedy).mean()),
        f"majority of {CONTROL_DRAWS}": best(chosen("consistency")),
        f"best of {CONTROL_DRAWS} by likelihood": best(samples.logp_R),
    }
    return out | {f"best of {CONTROL_DRAWS} by {name}": best(chosen(name)) for name in judges}


# ---- parts


def part(folder: Path, start: str, seed: int, what: str) -> Path:
    """Where a start's, seed's and reward's figures are kept."""
    plain = what.replace(", ", "-").replace(",", "-").replace(":", "-").replace(" ", "-")
    return folder / f"{start}-{seed}-{plain}.json"


def there(path: Path, asked: dict[str, Any]) -> bool:
    """Whether a part was made with the same settings."""
    return path.exists() and json.loads(path.read_text(encoding="utf-8"))["asked"] == asked


def make(start: str, seed: int, given: argparse.Namespace) -> None:
    """The parts of one start and seed that are not there."""
    asked = {"rounds": given.rounds, "prompts": given.prompts}
    shared = {"rounds": given.rounds, "samples.prompts": given.prompts}
    names = [n for n in JUDGED.get(start, ALIKE) if given.only is None or n in given.only]
    paths = {name: part(given.parts, start, seed, name) for name in [*names, "controls"]}
    missing = [n for n in paths if given.again or not there(paths[n], asked)]
    if not missing:
        return
    plain = config_of(start, seed, ASKED.get(start, {}) | shared, quick=given.quick)
    todo = changes_of(start, plain)
    for name in missing:
        begun = time.process_time()
        key = {"start": start, "seed": seed, "asked": asked}
        if name == "controls":
            judges = sorted({x["reward"] for x in todo.values() if x["reward"].startswith("judge")})
            judges = [n for n in judges if n in ("judge", "judge-pairwise")]
            found: dict[str, Any] = {"accuracy": controls(plain, judges)}
        else:
            changes = ASKED.get(start, {}) | shared | todo[name]
            config = config_of(start, seed, changes, quick=given.quick)
            found = {"reward": name} | one(config, given.out / paths[name].stem)
        found |= {"all_seconds": round(time.process_time() - begun, 1)}
        write_text(paths[name], json.dumps(key | found, indent=1) + "\n")
        print(paths[name].name, f"{found['all_seconds']:.0f} processor seconds", flush=True)


def gathered(folder: Path) -> dict[str, Any]:
    """All parts, by start and seed in the order of the tables."""
    starts = ["good", "diffuse", "giveup", "paths", "judge", "compare"]
    order = {name: i for i, name in enumerate([*ALIKE, *JUDGED["judge"], *JUDGED["compare"]])}
    found = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*.json"))]
    found.sort(key=lambda x: (starts.index(x["start"]), x["seed"], order.get(x.get("reward"), 0)))
    return {
        "environment": environment(),
        "rows": [x for x in found if "rounds" in x],
        "controls": [x for x in found if "accuracy" in x],
    }


def main() -> None:
    """Run what is asked, or gather what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", nargs="+", default=["good", "diffuse", "judge", "compare"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=None, help="training prompts a round")
    parser.add_argument("--only", nargs="*", default=None, help="rewards to run")
    parser.add_argument("--again", action="store_true", help="make anew what is there")
    parser.add_argument("--page", action="store_true", help="gather the parts, make nothing")
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("runs/rewards"), help="run folders")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.quick:
        given.seeds, given.out = given.seeds[:1], given.out / "quick"
    given.parts = given.out / "parts"
    if given.page:
        result = gathered(given.parts) if given.parts.exists() else kept("rewards")
        write("rewards", result, page(result, ASKED["compare"]))
        return
    given.parts.mkdir(parents=True, exist_ok=True)
    for start in given.starts:
        for seed in given.seeds:
            make(start, seed, given)


if __name__ == "__main__":
    main()
