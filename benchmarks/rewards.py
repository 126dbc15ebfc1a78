"""Every reward on the demo's starts, and a judge that goes past the mode.

    python benchmarks/rewards.py [--starts good diffuse] [--seeds 0 1 2] [--rounds 4] [--out DIR]
                                 [--judge-rounds 4] [--only likelihood judge ...]

The same base, prompts, draws and update for every reward. Rewards come in units of their own, so
beta is set for each to the same strength: beta = beta_likelihood * s / s_likelihood with s the
mean standard deviation of the reward among a prompt's draws from the base. The judge runs on the
start whose corpus also holds verdicts on worked answers; it is asked in the corpus's own words.
Beside them, without training: majority vote, best of n by likelihood or by the judge, greedy
decoding. Right answers serve for showing alone. A start that the judge cannot judge leaves it out;
judge-pairwise and meta-judge need a model that can compare texts, which the demo's cannot.

Results: benchmarks/results/rewards.json and docs/rewards.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from environment import environment

from srlm import runs
from srlm.answers import checker
from srlm.config import RunConfig, flatten, resolve
from srlm.demo.settings import settings
from srlm.loop import derived, run
from srlm.policy.base import Policy
from srlm.policy.load import load
from srlm.progress import Progress
from srlm.prompts import read_prompts, split
from srlm.rewards.base import scored
from srlm.rewards.named import reward_of
from srlm.rewards.report import report
from srlm.stop import by_judge, rule_of
from srlm.types import Estimate, Floats, Prompt, Samples, rows_by_prompt, undefined

HERE = Path(__file__).parent
JUDGE = {
    "judge.template": "{prompt}{response}?",
    "judge.read": "expected",
    "judge.scores": "y=1,n=0",
}
"""How the corpus asks for a verdict."""
ALIKE = ("likelihood", "likelihood-per-token", "self-certainty", "consistency")
"""Rewards run at equal strength on every start."""
JUDGED = {
    "likelihood": {"update.beta": 1.0},
    "judge": {"update.beta": 0.02},
    "judge:1,likelihood:0.01": {"update.beta": 0.02},
}
"""What is run on the start with verdicts, and with which beta."""
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


def config_of(start: str, seed: int, changes: dict[str, Any]) -> RunConfig:
    """The demo's settings, changed."""
    base = settings(start, seed, Progress(quiet=True))
    return resolve(None, flatten(base.model_dump(mode="json")) | changes)


def strengths(config: RunConfig, names: Sequence[str]) -> dict[str, float]:
    """Mean standard deviation of each reward among a prompt's draws from the base."""
    policy, train, _ = opened(config)
    some = train[:256]
    samples = policy.sample(some, 8, seed=derived(config.seed, "strength"), max_tokens=16)
    found = {}
    for name in names:
        reward = reward_of(config.model_copy(update={"reward": name}))
        spread = report(samples, scored(reward(policy, some, samples), samples)).spread.value
        found[name] = spread or 1.0
    return found


def opened(config: RunConfig, folder: str = "") -> tuple[Policy, list[Prompt], list[Prompt]]:
    """A policy (the base) and the prompts of a run."""
    policy = load(folder or config.model, device="cpu", dtype=config.dtype)
    train, held_out = split(read_prompts(config.prompts.file), config.prompts.held_out)
    return policy, train, held_out


def one(name: str, config: RunConfig, out: Path) -> dict[str, Any]:
    """A run's rounds in figures."""
    summary = run(config, out, progress=Progress(quiet=True))
    judging = "judge" in name
    rounds = []
    votes: list[Estimate] = []
    worn = None
    history = [{"fidelity": undefined("", "")} for _ in summary.rounds]  # by_judge counts them
    for line in summary.rounds:
        t = line["round"]
        figures = {key: line[key]["value"] for key in MEASURED}
        figures["distinct"] = distinct_responses(out / f"rounds/{t:03d}/held_out.parquet")
        figures["seconds"] = round(sum(line["seconds"].values()), 1)
        drawn = out / f"rounds/{t:03d}/samples.parquet"
        figures["tokens"] = tokens(drawn) if drawn.exists() else 0
        if "reward" in line:
            rewards = line["reward"]
            votes.append(Estimate(**({"note": ""} | rewards["vote_correlation"])))
            if worn is None and by_judge(history[:t], votes, rule_of(name)):
                worn = t - 1
            figures["reward"] = {
                "missing": rewards["missing"],
                **{k: rewards[k]["value"] for k in ("spread", "length_correlation")},
                "vote_correlation": rewards["vote_correlation"]["value"],
            }
        if judging:
            figures["auc"] = judge_auc(config, out, t)
        rounds.append(figures)
    return {"reward": name, "beta": config.update.beta, "worn": worn, "rounds": rounds}


def distinct_responses(path: Path) -> float:
    """Mean number of distinct responses a held-out prompt, of the draws."""
    samples = runs.read_samples(path)
    groups = rows_by_prompt(samples.prompt_R, int(samples.prompt_R.max()) + 1)
    return float(np.mean([len({samples.tokens_R[r] for r in rows}) for rows in groups]))


def tokens(path: Path) -> int:
    """Tokens drawn for training."""
    return int(sum(len(x) for x in pq.read_table(path)["tokens"].to_pylist()))


def judge_auc(config: RunConfig, out: Path, t: int) -> float:
    """P(the judge of round t prefers a right to a wrong draw of its own), within prompts."""
    policy, _, held_out = opened(config, str(out / f"rounds/{t:03d}/policy"))
    samples = runs.read_samples(out / f"rounds/{t:03d}/held_out.parquet")
    ids = pq.read_table(out / f"rounds/{t:03d}/prompts.parquet")["prompt_id"].to_pylist()
    by_id = {x.id: x for x in held_out}
    kept = [by_id[i] for i in ids]
    reward = reward_of(config.model_copy(update={"reward": "judge"}))
    score_R = scored(reward(policy, kept, samples), samples).reward_R
    right_R = rightness(config, kept, samples)
    return within_auc(score_R, right_R, samples)


def rightness(config: RunConfig, prompts: Sequence[Prompt], samples: Samples) -> np.ndarray:
    """Which rows are right, [R]."""
    right = checker(config.prompts.answer)
    rows = zip(samples.text_R, samples.prompt_R, strict=True)
    return np.array([right(text, prompts[p]) for text, p in rows])


def within_auc(score_R: Floats, right_R: np.ndarray, samples: Samples) -> float:
    """Share of the (right, wrong) pairs of a prompt that the score puts in order; ties half."""
    above = pairs = 0.0
    for rows in rows_by_prompt(samples.prompt_R, int(samples.prompt_R.max()) + 1):
        known = rows[np.isfinite(score_R[rows])]
        good, bad = (score_R[known[right_R[known] == flag]] for flag in (True, False))
        above += float((good[:, None] > bad).sum() + 0.5 * (good[:, None] == bad).sum())
        pairs += len(good) * len(bad)
    return above / pairs if pairs else float("nan")


def controls(config: RunConfig, judging: bool) -> dict[str, float]:
    """Accuracy of the base on held-out prompts by what needs no training."""
    policy, _, held_out = opened(config)
    x = held_out[:512]
    samples = policy.sample(x, CONTROL_DRAWS, seed=derived(config.seed, "controls"), max_tokens=16)
    greedy = policy.greedy(x, max_tokens=16)
    right_R = rightness(config, x, samples)
    rows_P = rows_by_prompt(samples.prompt_R, len(x))

    def best(score_R: Floats) -> float:
        usable = np.where(np.isfinite(score_R), score_R, -np.inf)
        return float(np.mean([right_R[rows[np.argmax(usable[rows])]] for rows in rows_P]))

    def chosen(name: str) -> Floats:
        reward: Callable[..., Any] = reward_of(config.model_copy(update={"reward": name}))
        return scored(reward(policy, x, samples), samples).reward_R

    out = {
        "one draw": float(right_R.mean()),
        "greedy": float(rightness(config, x, greedy).mean()),
        f"majority of {CONTROL_DRAWS}": best(chosen("consistency")),
        f"best of {CONTROL_DRAWS} by likelihood": best(samples.logp_R),
    }
    if judging:
        out[f"best of {CONTROL_DRAWS} by judge"] = best(chosen("judge"))
    return out


def table(result: dict[str, Any]) -> str:
    """The page in docs/."""
    machine = result["environment"]
    lines = [
        "# The rewards compared",
        "",
        "Written by `python benchmarks/rewards.py`; do not edit. "
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"torch {machine['torch']}.",
        "",
        "Equal draws, equal update, beta of equal strength (see the script). The last round, and "
        "the base before it:",
        "",
        "| start | seed | reward | beta | accuracy | greedy | mode | headroom | fidelity | κ | F | "
        "entropy | distinct of 16 | s | tokens |",
        "|" + " --- |" * 15,
    ]
    for row in result["rows"]:
        first, last = row["rounds"][0], row["rounds"][-1]
        headroom = last["headroom_captured"]

        def change(key: str, digits: int = 3, a: Any = first, b: Any = last) -> str:
            return f"{a[key]:.{digits}f} → {b[key]:.{digits}f}"

        lines.append(
            f"| {row['start']} | {row['seed']} | {row['reward']} | {row['beta']:.3g} | "
            f"{change('sampling_accuracy')} | {change('greedy_accuracy')} | "
            f"{change('mode_accuracy')} | {'–' if headroom is None else f'{headroom:.1%}'} | "
            f"{last['fidelity']:.3f} | {change('kappa')} | {change('failure_fraction')} | "
            f"{change('entropy', 2)} | {change('distinct', 1)} | "
            f"{sum(r['seconds'] for r in row['rounds']):.0f} | "
            f"{sum(r['tokens'] for r in row['rounds']):,} |"
        )
    lines += ["", "Without training, accuracy on the held-out prompts:", ""]
    for row in result["controls"]:
        kinds = ", ".join(f"{k} {v:.3f}" for k, v in row["accuracy"].items())
        lines.append(f"- {row['start']}, seed {row['seed']}: {kinds}")
    judged = [r for r in result["rows"] if "auc" in r["rounds"][0]]
    if judged:
        lines += [
            "",
            "## The judge, round by round",
            "",
            "AUC: how often the judge prefers a right draw of its own policy to a wrong one of the "
            "same prompt (.5 is a coin). Votes: correlation of its scores with the answers' vote "
            "shares within prompts, which needs no labels, on the draws that the next round is "
            "trained on.",
            "",
            "| start | seed | reward | round | greedy | mode | accuracy | AUC | votes | spread | "
            "--stop auto |",
            "|" + " --- |" * 11,
        ]
        for row in judged:
            for t, now in enumerate(row["rounds"]):
                ahead = row["rounds"][t + 1]["reward"] if t + 1 < len(row["rounds"]) else None
                votes, spread = (
                    "–" if ahead is None or ahead[key] is None else f"{ahead[key]:.3f}"
                    for key in ("vote_correlation", "spread")
                )
                lines.append(
                    f"| {row['start']} | {row['seed']} | {row['reward']} | {t} | "
                    f"{now['greedy_accuracy']:.3f} | {now['mode_accuracy']:.3f} | "
                    f"{now['sampling_accuracy']:.3f} | {now['auc']:.3f} | {votes} | {spread} | "
                    f"{'stops here' if row['worn'] == t else ''} |"
                )
    lines += [
        "",
        "judge-pairwise and meta-judge are not here: they need a model that can compare two texts, "
        "and the demo's corpus holds no comparisons.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked, write results and page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", nargs="*", default=["good", "diffuse"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--judge-rounds", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=None, help="training prompts a round")
    parser.add_argument("--only", nargs="*", default=None, help="rewards to run")
    parser.add_argument("--out", type=Path, default=Path("runs/rewards"))
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    beside: list[dict[str, Any]] = []
    for seed in asked.seeds:
        for start in [*asked.starts, "judge"]:
            judging = start == "judge"
            shared = {"rounds": asked.judge_rounds if judging else asked.rounds}
            if asked.prompts:
                shared["samples.prompts"] = asked.prompts
            plain = config_of(start, seed, shared | (JUDGE if judging else {}))
            if judging:
                todo = JUDGED
            else:
                s = strengths(plain, ALIKE)
                by = plain.update.beta / s["likelihood"]
                todo = {name: {"update.beta": by * s[name]} for name in ALIKE}
            beside.append({"start": start, "seed": seed, "accuracy": controls(plain, judging)})
            for name, changes in todo.items():
                if asked.only is not None and name not in asked.only:
                    continue
                config = config_of(
                    start,
                    seed,
                    shared | (JUDGE if judging else {}) | {"reward": name} | changes,
                )
                folder = asked.out / f"{start}-{seed}-{name.replace(':', '-').replace(',', '-')}"
                rows.append({"start": start, "seed": seed} | one(name, config, folder))
                print(json.dumps(rows[-1]), flush=True)
    result = {"environment": environment(), "rows": rows, "controls": beside}
    (HERE / "results/rewards.json").write_text(json.dumps(result, indent=1) + "\n")
    (HERE.parent / "docs/rewards.md").write_text(table(result), encoding="utf-8")


if __name__ == "__main__":
    main()
