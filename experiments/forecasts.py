"""Runs beside their forecasts: several starts and rewards, seeds apart. Writes docs/forecasts.md.

    python -m experiments.forecasts [--out runs/forecasts] [--only NAME ...] [--page]

Cost: some three hours of one core. ``--page`` writes the pages anew from the results that are
kept, and runs nothing; docs/published.md is written too (figures that papers report).

Every run has four rounds of 1,024 prompts x 8 samples, 256 held-out prompts with 32 samples each.
The start `good` has a base of its own for each seed; of each other start one base serves seeds 0 to
2, one seeds 3 to 5, and so on, with other prompts and samples for each seed. The constants of
``srlm.forecast.pace`` were chosen on seeds 0 and 3 (``CHOSEN``), one of each base; those of votes
anew after seeds 6 to 8 (``APART``) had shown that the ones before were too high, and judged on
``UNSEEN``; short and long responses that go ways of their own (docs/decisions/0047) were seen on
all of these, and are judged on ``NEW``.

Results: experiments/results/forecasts.json, docs/forecasts.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments import published
from experiments.common import kept, write
from experiments.corpora import CORPORA, OWN
from experiments.votes import Given, counted, ends, majority, numbered, votes
from srlm.config import RunConfig, flatten, resolve
from srlm.demo.base import cache_folder
from srlm.demo.corpus import CORPUS_VERSION, write_prompts
from srlm.demo.settings import PROMPTS, settings
from srlm.errors import UserError
from srlm.forecast import after_round, dynamics, pace
from srlm.forecast.answers import Counts, estimate, posterior
from srlm.forecast.groups import mixed, moved_to
from srlm.forecast.pace import FORECAST, RATIOS
from srlm.forecast.recommend import NEAR, preferred
from srlm.forecast.sampling import collect
from srlm.grading import EXACT, grader
from srlm.measure.agreement import answer_spread, base_answer_share
from srlm.measure.answer_level import vote_curve
from srlm.progress import Progress
from srlm.run_folder import Run, aim_of, read_run
from srlm.runner import run
from srlm.stopping import after_measuring, after_rewards, rule_of
from srlm.types import Bools, Estimate, Ints, Prompt, Round

CHOSEN = (0, 3)
"""Seeds on which constants were chosen."""
APART = (6, 7, 8)
UNSEEN = (9, 10, 11)
"""Of the vote alone: run once, after the constants were chosen anew."""
NEW = (12, 13, 14)
"""Of the vote alone: run once, after short and long responses were told apart."""
STARTS = ("good", "giveup", "hasty", "paths", "judge")
REWARDS: dict[str, dict[str, Any]] = {
    "likelihood": {"reward": "likelihood", "update.beta": 0.5},
    "consistency": {"reward": "consistency", "update.beta": 0.2},
    "judge": {
        **{k: v for k, v in OWN["judge"].items() if k.startswith("judge.")},
        "reward": "judge",
        "update.beta": 0.1,
    },
    "likelihood-per-token": {"reward": "likelihood-per-token", "update.beta": 0.04},
    "self-certainty": {"reward": "self-certainty", "update.beta": 0.04},
}
FEW = ("likelihood-per-token", "self-certainty")
"""On three starts, the first seed of each base."""
UPDATES = ("best-of-n", "square", "dpo")
"""Beside weighted, on two starts and the first of the seeds for choosing and of those apart."""
MANY = 1088
"""Other samples of the base: of the last ones the truth about votes, of the first ``MOST`` it is
told as well."""
TOLD_FROM = (16, 32)
REPEATED = 4
"""Times that it is told from as many other samples, for the coverage of its intervals."""
MOST, UNTIL = 64, "0.02"
"""Adaptive samples: per prompt at most, and the width of the interval that ends them."""
TOLD = ("sampling_accuracy", "vote_share", "kappa_vote", "confidence", "kappa")


def jobs() -> list[tuple[str, int, str, str]]:
    """(start, seed, reward, update) of every run."""
    out = []
    for seed in (*CHOSEN, *APART):
        for start in STARTS:
            for reward in REWARDS:
                few = start in ("good", "giveup", "hasty") and seed % 3 == 0
                if few if reward in FEW else reward != "judge" or start == "judge":
                    out.append((start, seed, reward, "weighted"))
    out += [
        (start, seed, "consistency", "weighted") for seed in (*UNSEEN, *NEW) for start in STARTS
    ]
    for seed in (CHOSEN[0], APART[0], UNSEEN[0]):
        for update in UPDATES:
            out += [("good", seed, r, update) for r in ("consistency", "likelihood")]
            out.append(("giveup", seed, "consistency", update))
    return out


def config_of(start: str, seed: int, reward: str, update: str) -> RunConfig:
    """Settings of a run, its base and its prompts made."""
    corpus, recipe = CORPORA[start]
    base = seed if start == "good" else 3 * (seed // 3)
    plain = settings(corpus, base, Progress(quiet=True), recipe=recipe)
    prompts = cache_folder() / f"prompts-{CORPUS_VERSION}-{PROMPTS}-{seed}.jsonl"
    write_prompts(prompts, PROMPTS, seed)
    own = {
        "seed": seed,
        "prompts.file": str(prompts),
        "samples.prompts": 1024,
        "samples.per_prompt": 8,
        "samples.max_tokens": 24,
        "rounds": 4,
        "measure.prompts": 256,
        "measure.samples": 32,
        "measure.nodes": 300,
        "device": "cpu",
    }
    changed = own | REWARDS[reward] | {"update.kind": update}
    if update == "dpo":
        changed["update.beta"] = 0.5
    return resolve(None, flatten(plain.model_dump(mode="json")) | changed)


# ---- what a run says


def row_of(key: tuple[str, int, str, str], folder: Path) -> dict[str, Any]:
    """A run in figures: measured rounds, forecasts after rounds 0 to 2, forms of a round, stop."""
    found = read_run(folder)
    start, seed, reward, update = key
    out: dict[str, Any] = {
        "start": start,
        "seed": seed,
        "reward": reward,
        "update": update,
        **followed(found, made_again(found)),
    }
    if reward == "consistency" and len(found.rounds) > 1:
        out["forms"] = forms(found)
        if update == "weighted" and seed not in (*UNSEEN, *NEW):
            out["destination"] = where_votes_lead(found, start, seed)
    return out


def followed(found: Run, made: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Measured rounds, the forecasts made after rounds 0 to 2, and where ``--stop auto`` ends."""
    rounds = [
        {
            name: r[name].value
            for name in (*FORECAST, "vote_accuracy", "vote_flips", "entropy", "mode_accuracy")
        }
        | {"progress": r.loss_progress}
        for r in found.rounds
    ]
    return {
        "rounds": rounds,
        "forecasts": [
            {
                "made": f["made"],
                "expected": f["expected"],
                "share": f["share"],
                "unequal": f["unequal"],
                "later": [x for x in f["later"] if x["round"] < len(rounds)],
            }
            for f in made[:3]
        ],
        "stop": stop_of(found),
    }


def made_again(found: Run) -> list[dict[str, Any]]:
    """The run's forecasts by the package as it is; those of rewards that the model itself must give
    as they were made, but for whether their rounds are supported."""
    reward = str(found.config["reward"])
    if after_round.asked(reward):
        reliable = method_of(found).reliable
        return [
            dict(f) | {"later": [marked(x, reliable or f["made"] == 0) for x in f["later"]]}
            for f in found.forecasts
            if "expected" in f
        ]
    read = grader(str(found.config["prompts.answer"]))
    made: list[dict[str, Any]] = []
    for t, record in enumerate(found.rounds[:3]):
        made.append(
            after_round.forecast_after(
                found.rounds[: t + 1], state_at(found, t, read), made, method_of(found), 0
            )
        )
        assert record.round == t
    return made


def marked(later: Mapping[str, Any], reliable: bool) -> dict[str, Any]:
    """A round ahead, supported only where its reward and update are forecast reliably."""
    return dict(later) | {"supported": carried(later) and reliable}


def method_of(found: Run) -> pace.Method:
    c = found.config
    return after_round.method_of(
        str(c["reward"]),
        float(c["update.beta"]),
        int(c["samples.per_prompt"]),
        str(c["update.kind"]),
    )


def state_at(found: Run, t: int, read: Any) -> pace.State:
    samples, table = found.held_out(t), found.rounds[t].table
    assert samples is not None and table is not None
    return after_round.state_of(
        samples, table, read, likelihood=aim_of(found.config) == "responses"
    )


def forms(found: Run) -> dict[str, list[float]]:
    """Errors of accuracy in rounds 2, 3, ... where a round is a mixture with its expected target, a
    power between the two, or a mixture with the exact target; each at the share of round 1."""
    read = grader(str(found.config["prompts.answer"]))
    first, method = state_at(found, 0, read), method_of(found)
    seen = [r["vote_share"].value or 0.0 for r in found.rounds]
    right = [r["sampling_accuracy"].value or 0.0 for r in found.rounds]

    def step(state: pace.State, mass: dynamics.Mass, form: str, s: float, j: int) -> dynamics.Mass:
        if form == "exact target":
            reward_R = method.score_of(state.rows)(mass)
            return mixed(mass, method.towards(mass, reward_R, method.beta), s)
        there = pace.pull(state, mass, method, j).there
        if form == "mixture":
            return mixed(mass, there, s)
        floor = 1e-3  # a power of a share of nothing is nothing
        log_R = (1 - s) * np.log(mass.mass_R + 1e-300) + s * np.log(there.mass_R + floor / 32)
        share_R = np.exp(log_R)
        total_P = np.bincount(mass.prompt_R, share_R)
        return moved_to(mass, share_R / total_P[mass.prompt_R])

    out = {}
    for form in ("mixture", "power", "exact target"):
        grid = np.linspace(0.0, 1.0, 21)
        reached = [
            pace.figures(first, step(first, first.mass, form, s, 0))["vote_share"] for s in grid
        ]
        s = float(grid[np.argmin(np.abs(np.array(reached) - seen[1]))])
        state = state_at(found, 1, read)
        mass, errors = state.mass, []
        for t in range(2, len(seen)):
            mass = step(state, mass, form, s, t)
            errors.append(pace.figures(state, mass)["sampling_accuracy"] - right[t])
        out[form] = errors
    return out


def where_votes_lead(found: Run, start: str, seed: int) -> dict[str, Any]:
    """Accuracy of the mode and of a majority of 16 as few of the base's samples tell them, beside
    what many others say."""
    read = grader(str(found.config["prompts.answer"]))
    samples, table = found.held_out(0), found.rounds[0].table
    assert samples is not None and table is not None
    P = len(table)
    prompts = [Prompt(i, i, a) for i, a in zip(table.prompt_id, table.answers, strict=True)]
    answers = read.answers(samples.text_R, samples.finished_R, samples.prompt_R)
    code_R = numbered(samples.prompt_R.tolist(), answers)
    right_R = read.grades(samples.text_R, samples.finished_R, prompts, samples.prompt_R) == 1
    out: dict[str, Any] = {}
    for n in TOLD_FROM:
        some = counted(code_R.reshape(P, -1)[:, :n], right_R.reshape(P, -1)[:, :n])
        out |= {f"{name} from {n}": e for name, e in told(some).items()}
    code_PK, many_PK = many_votes(found, start, seed)
    first = code_PK[:, :MOST], many_PK[:, :MOST]
    out |= {f"{name} from {MOST}": e for name, e in told(counted(*first)).items()}
    given = Given(*first)
    every, _ = collect(given, given.prompts, MOST, EXACT, until=UNTIL, seed=seed)
    out |= {f"{name} adaptively": e for name, e in told([t.counts() for t in every]).items()}
    vote = vote_curve(samples, answers, right_R, P, [16])[16]
    out["repeated"] = [again(code_PK, many_PK, MOST + i * n, n) for n in (*TOLD_FROM, MOST)
                       for i in range(REPEATED)]  # fmt: skip
    code_PK, many_PK = code_PK[:, MOST:], many_PK[:, MOST:]
    mode_P, top_P = ends(counted(code_PK, many_PK))
    return out | {
        "many": code_PK.shape[1],
        "samples": given.mean,
        "mode": float(mode_P.mean()),
        "kappa": float((1 / top_P).mean()),
        "vote of 16 from 32": vote.value,
        "vote of 16": majority(code_PK, many_PK, 16),
    }


def again(code_PK: Ints, right_PK: Bools, start: int, n: int) -> dict[str, Any]:
    """The same told from n of the many samples, beside the rest of them."""
    some_K = (np.arange(code_PK.shape[1]) - start) // n == 0
    mode_P, top_P = ends(counted(code_PK[:, ~some_K], right_PK[:, ~some_K]))
    own = counted(code_PK[:, some_K], right_PK[:, some_K])
    right_P, most_P = ends(own)
    return told(own) | {
        "n": n,
        "truth": {"mode": mode_P.mean(), "kappa": (1 / top_P).mean()},
        "counted": {"mode": right_P.mean(), "kappa": (1 / np.maximum(most_P, 1 / n)).mean()},
    }


def told(some: Sequence[Counts]) -> dict[str, Any]:
    """The mode's accuracy and kappa of answers, of these prompts, as their samples tell them."""
    post = posterior(some)
    drawn = [post.shares(p) for p in range(len(some))]
    mode_BP = np.column_stack([x.mode_right_B() for x in drawn])
    kappa_BP = np.column_stack([1 / x.top_B() for x in drawn])
    return {
        name: estimate(value_BP, name, these=True, inverse=name == "kappa").to_json()
        for name, value_BP in (("mode", mode_BP), ("kappa", kappa_BP))
    }


def many_votes(found: Run, start: str, seed: int) -> tuple[Ints, Bools]:
    """Answers of ``MANY`` of the base's samples of each held-out prompt, [P, K]; kept beside the
    bases."""
    table = found.rounds[0].table
    assert table is not None
    rows = zip(table.prompt_id, table.prompt, table.answers, strict=True)
    return votes(
        cache_folder() / f"votes-{CORPUS_VERSION}-{start}-{seed}-{MANY}.npz",
        str(found.config["model"]),
        [Prompt(i, text, answers) for i, text, answers in rows],
        grader(str(found.config["prompts.answer"])),
        MANY,
        777_001 + seed,
    )


def stop_of(found: Run) -> dict[str, Any]:
    """Where ``--stop auto`` would end the run and which round it would keep, beside the accuracy by
    labels of every round."""
    rule = rule_of(str(found.config["reward"]))
    records: list[Round] = []
    votes: list[Estimate] = []
    end = None
    for t, record in enumerate(measured_again(found)):
        records.append(record)
        last = t == len(found.rounds) - 1
        end = after_measuring(records, rule, last=last)
        if end is None:
            told = found.rounds[t + 1].rewards or {}
            votes.append(Estimate.from_json(told["vote_correlation"]))
            pairs = found.pairs(t)
            apart = (1, 1) if pairs is None else pairs.distinguishable
            end = after_rewards(records, apart, votes, rule)
        if end is not None:
            break
    assert end is not None
    right = [r["sampling_accuracy"].value or 0.0 for r in found.rounds]
    return {"code": end.code, "round": end.round, "kept": end.best, "accuracy": right}


def measured_again(found: Run) -> list[Round]:
    """The rounds, with what the package reads of the base's votes off their samples."""
    read = grader(str(found.config["prompts.answer"]))
    out, base = [], found.held_out(0)
    assert base is not None
    for t, record in enumerate(found.rounds):
        now, table = found.held_out(t), record.table
        assert now is not None and table is not None
        both_R = read.answers(
            base.text_R + now.text_R,
            np.concatenate([base.finished_R, now.finished_R]),
            np.concatenate([base.prompt_R, now.prompt_R]),
        )
        then_R, now_R = both_R[: len(base)], both_R[len(base) :]
        share = base_answer_share(base, then_R, now if t else None, now_R, len(table), seed=0)
        first = found.rounds[0].table
        assert first is not None
        more = {
            "base_answer_share": share,
            "answer_spread": answer_spread(table.vote, first.vote, seed=0),
        }
        out.append(replace(record, estimates={**record.estimates, **more}))
    return out


# ---- the page


def ok(flag: bool) -> str:
    return "" if flag else " ✗"


def sign(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Whether the forecast of the base, before any training, has the sign of the change right, in
    the last round that it does not mark as extrapolated; none where its interval holds both."""
    lines = [
        "| start | reward | seeds | told up to round | accuracy: base → that round | "
        "forecast before training | both signs in its interval | signs right |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for start, reward, some in grouped(rows):
        told = [(r, ends[-1]) for r in some if (ends := [x for x in later(r, 0) if carried(x)])]
        if not told:
            lines.append(f"| {start} | {reward} | {seeds(some)} | not told |" + " – |" * 4)
            continue
        first = [r["rounds"][0]["sampling_accuracy"] for r, _ in told]
        came = [r["rounds"][x["round"]]["sampling_accuracy"] for r, x in told]
        ahead = [x["sampling_accuracy"] for _, x in told]
        sure = [not e["low"] <= a <= e["high"] for a, e in zip(first, ahead, strict=True)]
        hits = sum(
            s and (b > a) == (e["value"] > a)
            for s, a, b, e in zip(sure, first, came, ahead, strict=True)
        )
        lines.append(
            f"| {start} | {reward} | {seeds(some)} | "
            f"{', '.join(map(str, sorted({x['round'] for _, x in told})))} | "
            f"{spread(first)} → {spread(came)} | {spread([e['value'] for e in ahead])} | "
            f"{len(sure) - sum(sure)} | {hits} of {sum(sure)}{ok(hits == sum(sure))} |"
        )
    return lines


def carried(ahead: Mapping[str, Any]) -> bool:
    """Whether a round ahead is one that the forecast does not mark as extrapolated."""
    return bool(ahead.get("supported", True))


def later(row: dict[str, Any], made: int) -> list[dict[str, Any]]:
    return next((f["later"] for f in row["forecasts"] if f["made"] == made), [])


def errors(
    row: dict[str, Any], made: int, name: str, only: bool | None = None
) -> list[tuple[float, bool]]:
    """Forecast - measured (relative for ``RATIOS``), and whether the band holds it; of the rounds
    that are (not) extrapolated only, if asked."""
    out = []
    for ahead in later(row, made):
        seen, e = row["rounds"][ahead["round"]].get(name), ahead.get(name) or {}
        if seen is None or e.get("value") is None or only not in (None, carried(ahead)):
            continue
        scale = seen if name in RATIOS else 1.0
        out.append(((e["value"] - seen) / scale, e["low"] <= seen <= e["high"]))
    return out


def piloted(rows: Sequence[dict[str, Any]], made: int = 1) -> list[str]:
    """Errors of the forecasts made after a round; of rounds marked as extrapolated apart."""
    lines = [
        f"| start | reward, update | seeds | share of round {made} | rounds | accuracy: worst | "
        "κ of votes: worst | in the bands |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for start, reward, every in grouped(rows):
        for only in (True, False):
            some = [r for r in every if any(carried(x) == only for x in later(r, made))]
            acc = [x for r in some for x in errors(r, made, "sampling_accuracy", only)]
            if not acc:
                continue
            votes = [x for r in some for x in errors(r, made, "kappa_vote", only)]
            worst = max((x for x, _ in acc), key=abs)
            k = max((x for x, _ in votes), key=abs, default=None)
            share = [
                f["share"]["value"]
                for r in some
                for f in r["forecasts"]
                if f["made"] == made and f["share"]
            ]
            rounds = sorted(
                {x["round"] for r in some for x in later(r, made) if carried(x) == only}
            )
            inside = sum(b for _, b in acc + votes)
            cells = (
                f"{worst:+.3f}{ok(abs(worst) <= 0.03 or not only)}",
                "not told" if k is None else f"{k:+.1%}{ok(abs(k) <= 0.1 or not only)}",
            )
            lines.append(
                f"| {start} | {reward}{'' if only else ' †'} | {seeds(some)} | "
                f"{spread([x for x in share if x is not None])} | {', '.join(map(str, rounds))} | "
                f"{' | '.join(cells)} | {inside} of {len(acc + votes)} |"
            )
    return lines


def bands(rows: Sequence[dict[str, Any]]) -> list[str]:
    """How often bands hold, by quantity and the round after which they were made."""
    lines = [
        "| quantity | after round 0 | after round 1 | after round 2 |",
        "| --- | --- | --- | --- |",
    ]
    for name in TOLD:
        cells = []
        for made in (0, 1, 2):
            found = [b for r in rows for _, b in errors(r, made, name)]
            cells.append(f"{sum(found)} of {len(found)}" if found else "–")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def shapes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Which form of a round fits which update."""
    lines = [
        "| update | runs | mixture with the expected target | power towards it | "
        "mixture with the exact target |",
        "| --- | --- | --- | --- | --- |",
    ]
    for update in ("weighted", *UPDATES):
        some = [r for r in rows if r["update"] == update and "forms" in r]
        if not some:
            continue
        cells = []
        for form in ("mixture", "power", "exact target"):
            e = np.abs([x for r in some for x in r["forms"][form]])
            cells.append(f"{e.mean():.3f}, worst {e.max():.3f}")
        lines.append(f"| {update} | {len(some)} | " + " | ".join(cells) + " |")
    return lines


def destinations(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The mode's accuracy as few samples tell it beside what many say."""
    ways = [*(f"from {n}" for n in (*TOLD_FROM, MOST)), "adaptively"]
    lines = [
        "| start | seeds | accuracy of the mode, by many votes | "
        f"{' | '.join(f'{way}: worst' for way in ways)} | samples per prompt | in their 90% "
        "intervals | vote of 16, by many | from 32 samples: worst | κ of answers, from 32: worst |",
        "|" + " --- |" * 12,
    ]
    for start, _, some in grouped([r for r in rows if "destination" in r]):
        found = [r["destination"] for r in some]

        def worst(of: Any, found: Sequence[Any] = found, aim: float = 0.02) -> str:
            x = max((of(d) for d in found), key=abs)
            return f"{x:+.3f}{ok(abs(x) <= aim)}"

        def error(way: str, found: Sequence[Any] = found) -> str:
            some = [d for d in found if f"mode {way}" in d]
            return worst(lambda x: x[f"mode {way}"]["value"] - x["mode"], some) if some else "–"

        held = [
            d[f"mode {way}"]["low"] <= d["mode"] <= d[f"mode {way}"]["high"]
            for d in found
            for way in ways
            if f"mode {way}" in d
        ]
        taken = [d["samples"] for d in found if "samples" in d]
        cells = [
            spread([d["mode"] for d in found]),
            *(error(way) for way in ways),
            f"{np.mean(taken):.1f}" if taken else "–",
            f"{sum(held)} of {len(held)}",
            spread([d["vote of 16"] for d in found]),
            worst(lambda d: d["vote of 16 from 32"] - d["vote of 16"]),
            f"{max((d['kappa from 32']['value'] / d['kappa'] - 1 for d in found), key=abs):+.1%}",
        ]
        lines.append(f"| {start} | {seeds(some)} | " + " | ".join(cells) + " |")
    return lines


def repeated(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Errors and intervals of the mode's accuracy and of kappa of answers, told repeatedly."""
    lines = ["| start | seeds | samples | times | accuracy of the mode: error | held | "
             "κ of answers: error | held |",
             "|" + " --- |" * 8]  # fmt: skip
    every = [r for r in rows if r.get("destination", {}).get("repeated")]
    for start in (*STARTS, "all"):
        some = [r for r in every if start in (r["start"], "all")]
        for n in (*TOLD_FROM, MOST) if some else ():
            found = [x for r in some for x in r["destination"]["repeated"] if x["n"] == n]
            mode, kappa = (
                [(x[name], x["counted"][name], x["truth"][name]) for x in found]
                for name in ("mode", "kappa")
            )
            off, own = size([t["value"] - e for t, _, e in mode]), size([c - e for _, c, e in mode])
            far, raw = (
                size([t["value"] / e - 1 for t, _, e in kappa]),
                size([c / e - 1 for _, c, e in kappa]),
            )
            held = [
                np.mean([t["low"] <= e <= t["high"] for t, _, e in some]) for some in (mode, kappa)
            ]
            lines.append(
                f"| {start} | {seeds(some)} | {n} | {len(found)} | {off:.3f} ({own:.3f}) | "
                f"{held[0]:.0%} | {far:.1%} ({raw:.1%}) | {held[1]:.0%} |"
            )
    return lines


def size(errors: Sequence[float]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(errors))))


def real_model() -> list[str]:
    """The runs of docs/real-model.md: what was told before training and after one round, what came,
    and what ``--stop auto`` keeps."""
    lines = [
        "| task, reward | verdict | accuracy of the base | limit | forecast before training, last "
        "round | trained rounds | sign | after one round, accuracy of later ones: worst | "
        "κ: worst | stopped | kept - best round |",
        "|" + " --- |" * 11,
    ]
    for name, d in kept("real-model").items():
        if name in ("rates", "seeds", "votes"):
            continue
        came = [x["sampling_accuracy"]["value"] for x in d["rounds"]]
        row = d.get("followed", {"forecasts": [], "rounds": [], "stop": None})
        ahead = later(row, 0)
        told = (ahead or d["forecast"]["trajectory"])[-1]["sampling_accuracy"]
        base = came[0] if ahead else d["forecast"]["trajectory"][0]["sampling_accuracy"]["value"]
        same = (told["value"] > base) == (came[-1] > came[0])
        up = "right" if same else "wrong ✗"
        up = "both in its interval" if told["low"] <= base <= told["high"] else up
        votes = "kappa_vote" if d.get("reward") == "consistency" else "kappa"
        sure = all(carried(x) for x in later(row, 1))
        cells = ["–"] * 4
        for k, (figure, aim) in enumerate((("sampling_accuracy", 0.03), (votes, 0.1))):
            if found := [x for x, _ in errors(row, 1, figure)]:
                worst = max(found, key=abs)
                told_as = f"{worst:+.1%}" if k else f"{worst:+.3f}"
                cells[k] = told_as + (ok(abs(worst) <= aim) if sure else " †")
        if (end := row["stop"]) is not None:
            lost = end["accuracy"][end["kept"]] - max(end["accuracy"])
            cells[2:] = [f"{end['code']}, round {end['round']}", f"{lost:+.3f}{ok(lost >= -0.02)}"]
        lines.append(
            f"| {name.replace('-', ', ')} | {d['forecast']['verdict']} | {came[0]:.3f} | "
            f"{limit_of(d['forecast']):.3f} | "
            f"{told['value']:.3f} [{told['low']:.3f}, {told['high']:.3f}] | "
            f"{', '.join(f'{x:.3f}' for x in came[1:])} | {up} | "
            f"{' | '.join(cells)} |"
        )
    return lines


def limit_of(told: Mapping[str, Any]) -> float:
    """Where a forecast of the real model says that accuracy ends: that of the modes, or of the
    commonest answers."""
    end = told["mode_accuracy"] if "mode_accuracy" in told else told["destination"]["accuracy"]
    return float(end["value"])


def recommended(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The reward that is recommended (``srlm.forecast.recommend``) by the accuracy forecast for
    round 4, and the one that was best."""
    lines = [
        "| start | seed | recommended | accuracy reached | best | accuracy |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for start in STARTS:
        for seed in sorted({r["seed"] for r in rows}):
            some = [
                r for r in rows
                if (r["start"], r["seed"], r["update"]) == (start, seed, "weighted") and later(r, 0)
            ]  # fmt: skip
            if len(some) < 2:
                continue
            reached = {r["reward"]: r["rounds"][-1]["sampling_accuracy"] for r in some}
            ahead = {r["reward"]: later(r, 0)[-1]["sampling_accuracy"]["value"] for r in some}
            said = preferred(ahead, ["consistency"])
            best = max(reached, key=reached.__getitem__)
            good = reached[said] >= reached[best] - 0.02
            lines.append(
                f"| {start} | {seed} | {said} | {reached[said]:.3f}{ok(good)} | {best} | "
                f"{reached[best]:.3f} |"
            )
    return lines


def stops(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The round that ``--stop auto`` keeps against the best one by labels."""
    lines = [
        "| start | reward, update | seeds | stopped | kept round - best round: worst | "
        "kept - base: worst |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for start, reward, some in grouped(rows):
        lost, gained = [], []
        for r in some:
            right, at = r["stop"]["accuracy"], r["stop"]["kept"]
            lost.append(right[at] - max(right))
            gained.append(right[at] - right[0])
        codes = ", ".join(sorted({r["stop"]["code"] for r in some}))
        lines.append(
            f"| {start} | {reward} | {seeds(some)} | {codes} | "
            f"{min(lost):+.3f}{ok(min(lost) >= -0.02)} | {min(gained):+.3f} |"
        )
    return lines


def labels(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Figures of a round without labels, means over seeds."""
    names = ("vote_flips", "vote_share", "readable", "length", "entropy", "sampling_accuracy")
    lines = [
        "| start | reward, update | " + " | ".join(names) + " |",
        "|" + " --- |" * (2 + len(names)),
    ]
    for start, reward, some in grouped([r for r in rows if r["update"] == "weighted"]):
        cells = []
        for name in names:
            path = []
            for t in range(min(len(r["rounds"]) for r in some)):
                found = [r["rounds"][t].get(name) for r in some]
                known = [x for x in found if x is not None]
                digits = 1 if name == "length" else 2
                path.append(f"{np.mean(known):.{digits}f}" if known else "–")
            cells.append(", ".join(path))
        lines.append(f"| {start} | {reward} | " + " | ".join(cells) + " |")
    return lines


def grouped(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Runs of one start, reward, update and side, in the order of the page."""
    out: dict[tuple[str, str, bool], list[dict[str, Any]]] = {}
    for r in rows:
        name = r["reward"] if r["update"] == "weighted" else f"{r['reward']}, {r['update']}"
        out.setdefault((r["start"], name, r["seed"] in CHOSEN), []).append(r)
    return [(start, name, some) for (start, name, _), some in out.items()]


def seeds(rows: Sequence[dict[str, Any]]) -> str:
    return ", ".join(str(s) for s in sorted({r["seed"] for r in rows}))


def spread(x: Sequence[float]) -> str:
    if not len(x):
        return "–"
    low, high = f"{min(x):.3f}", f"{max(x):.3f}"
    return low if low == high else f"{low}–{high}"


def page(result: dict[str, Any]) -> str:
    """The page in docs/."""
    rows = result["rows"]
    many = sorted({r["destination"]["many"] for r in rows if "destination" in r})
    chosen = [r for r in rows if r["seed"] in CHOSEN]
    apart = [r for r in rows if r["seed"] in APART]
    unseen, new = ([r for r in rows if r["seed"] in some] for some in (UNSEEN, NEW))
    votes = [r for r in rows if (r["reward"], r["update"]) == ("consistency", "weighted")]

    def both(make: Any, update: str | None = None) -> list[str]:
        some, others = (
            [r for r in side if update in (None, r["update"])] for side in (chosen, apart)
        )
        out = ["Seeds for choosing:", "", *make(some), ""]
        return out + (["Seeds apart:", "", *make(others)] if apart else ["Seeds apart: not run."])

    lines = [
        "# Forecasts beside runs",
        "",
        "Written by `python -m experiments.forecasts`; do not edit. ✗ marks what misses its aim.",
        "",
        "Small models on additions (0.1 M parameters): `good` and `giveup` are the demo's starts; "
        "in `hasty` the likeliest response is short and wrong and the likeliest answer right "
        "(`experiments.corpora`); `paths` and `judge` are those of [paths](paths.md) and "
        "[rewards](rewards.md). Four rounds of 1,024 prompts x 8 samples; likelihood β 0.5, "
        "consistency β 0.2, judge β 0.1, likelihood-per-token and self-certainty β 0.04; 256 "
        "held-out prompts x 32 samples. "
        "`good` has a base for each seed, the other starts one for seed 0, one for seed 3, one "
        "for each three seeds from 6 on, with other prompts and samples for each seed. Constants "
        "were chosen on seeds 0 and 3.",
        "",
        *result.get("notes", []),
        "## Before training: the sign of the change",
        "",
        *both(sign, "weighted"),
        "",
        "## Where votes lead",
        "",
        "Aim: within 0.02 of the vote of infinitely many. The truth is a vote of "
        f"{' to '.join(map(str, many))} other samples per prompt; it is told from 16 and 32 "
        f"samples, from {MOST} of which the truth has none, and adaptively from up to as many "
        f"(`--until {UNTIL}`). The vote of 16 is itself below the mode, so it is compared with "
        "votes of 16 among the many.",
        "",
        *both(destinations, "weighted"),
        "",
        f"Told {REPEATED} times for each seed from other samples: root mean squared errors, and in "
        "brackets those of the samples themselves (their majority, their plug-in κ); how often the "
        "90% intervals hold (aim: 87% to 93%; a start has three bases at most, so that its errors "
        "are alike).",
        "",
        *repeated([r for r in rows if r["update"] == "weighted"]),
        "",
        "## After one pilot round",
        "",
        "Aims: accuracy within 0.03, κ of votes within 10%. Worst of the rounds and of the seeds. "
        "†: the forecast itself, which sees no answers, marks these rounds as extrapolated: the "
        "length moved at another pace than the rest, short and long responses go ways of their "
        "own or much that cannot be read is given up, the pilot does not tell how fast training "
        "goes, few groups have unequal rewards, or the model scores itself, which tells one round "
        "ahead, or later rounds of the update (square, dpo) or the reward (self-certainty) are not "
        "forecast reliably; they are shown and count as flagged, not as forecast. κ of votes is "
        "not told where less than half of the responses would be parseable. Runs whose reward "
        "needs the model keep the forecasts made when they were trained.",
        "",
        *both(piloted),
        "",
        "Seeds 9 to 11, of the vote alone, run once after its constants had been chosen anew (on "
        "seeds 0 and 3; those before were too high on seeds 6 to 8):",
        "",
        *piloted(unseen),
        "",
        "Seeds 12 to 14, run once after short and long responses had been told apart "
        "([decision 47](decisions/0047-kinds-of-responses-go-ways-of-their-own.md)):",
        "",
        *piloted(new),
        "",
        "After two rounds, votes, seeds 0 to 11 and then 12 to 14; where short and long responses "
        "go ways of their own (`hasty`, `paths`), or much cannot be read (`giveup`), it takes two "
        "rounds to tell:",
        "",
        *piloted([r for r in votes if r["seed"] not in NEW], 2),
        "",
        *(piloted(new, 2) if new else []),
        "",
        "How often the 95% bands hold, seeds for choosing and then seeds apart:",
        "",
        *bands(chosen),
        "",
        *(bands(apart) if apart else []),
        "",
        "And seeds 9 to 14:",
        "",
        *bands([*unseen, *new]),
        "",
        "## Which form fits which update",
        "",
        "Consistency, seeds for choosing: |error| of accuracy in rounds 2 to 4 with the share "
        "of the way fitted to round 1, constant afterwards. The *expected target* is that of "
        "groups of k samples, the *exact* one that of infinitely many.",
        "",
        *shapes(chosen),
        "",
        "## Which reward",
        "",
        "By the forecast of round 4 before training, as `srlm forecast` recommends: votes unless "
        f"another reward is more than {NEAR} above them. ✗: more than 0.02 below the best.",
        "",
        *both(recommended, "weighted"),
        "",
        "## A real model",
        "",
        "SmolLM2-135M-Instruct, some 20 held-out prompts, so that accuracy alone has a standard "
        "error of 0.05 to 0.1, but for the row that says more prompts "
        "([a real model](real-model.md)). Verdict and limit: of `srlm forecast`; the rest: of the "
        "run's own forecasts after rounds 0 and 1 on its held-out prompts, as made when it was "
        "trained, or where it kept none (–) of the exact rounds of `srlm forecast`, on other "
        "prompts. †: rounds that the forecast marks as extrapolated.",
        "",
        *real_model(),
        "",
        "## Stopping",
        "",
        "`--stop auto` judged by the round that it keeps, against the best of all four rounds by "
        "labels. ✗: more than 0.02 below the best.",
        "",
        *both(stops),
        "",
        "## Round by round, without labels",
        "",
        "Rounds 0, 1, ..., means over the seeds for choosing; accuracy, which needs labels, last.",
        "",
        *labels(chosen),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked, write results and pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/forecasts"))
    parser.add_argument("--only", nargs="*", default=list(STARTS), help="of the starts")
    parser.add_argument("--read", action="store_true", help="read the runs in --out, run nothing")
    parser.add_argument("--page", action="store_true", help="write the pages anew, run nothing")
    asked = parser.parse_args()
    published.write_page()
    if asked.page:
        write("forecasts", kept("forecasts"), page(kept("forecasts")))
        return
    rows, notes, absent = [], [], []
    for key in jobs():
        folder = asked.out / "_".join(map(str, key))
        if key[0] not in asked.only or (asked.read and not (folder / "metrics.jsonl").exists()):
            absent.append(" ".join(map(str, key)))
            continue
        try:
            if not asked.read:
                run(config_of(*key), folder, progress=Progress(quiet=True))
        except UserError as error:
            notes += [f"{' '.join(map(str, key))}: stopped: {error}", ""]
        try:
            rows.append(row_of(key, folder))
        except UserError as error:
            notes += [f"{' '.join(map(str, key))}: not read: {error}", ""]
            continue
        print(json.dumps(rows[-1])[:200], flush=True)
    if absent:
        notes += [f"Not run: {'; '.join(absent)}.", ""]
    result = {"notes": notes, "rows": rows}
    write("forecasts", result, page(result))


if __name__ == "__main__":
    main()
