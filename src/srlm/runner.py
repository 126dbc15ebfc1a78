"""``srlm run``: settings -> objects -> loop -> report; names become functions here alone.

The loop knows functions alone. What ``--reward``, ``--update`` and ``--pairs`` name is looked up
here, once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from srlm import data, losses, pairs, stopping, train
from srlm.config import AUTO, REWARDS, RunConfig, kept, reward_parts
from srlm.defaults import keep_of, settle
from srlm.engines import opened as engines
from srlm.engines.base import Executor, local
from srlm.errors import UserError
from srlm.forecast import after_round
from srlm.grading import Grader, grader
from srlm.loop import self_reward
from srlm.policies.base import Policy
from srlm.policies.load import fitting, load_for
from srlm.policies.lora import require_peft
from srlm.policies.places import located
from srlm.progress import Progress
from srlm.report.card import model_card
from srlm.report.page import write_page
from srlm.report.summary import Summary, summarise
from srlm.rewards.base import Reward
from srlm.rewards.combined import combined
from srlm.rewards.consistency import consistency
from srlm.rewards.judge import judge
from srlm.rewards.judge_pairwise import judge_pairwise
from srlm.rewards.length import length_controlled
from srlm.rewards.likelihood import likelihood
from srlm.rewards.likelihood_per_token import likelihood_per_token
from srlm.rewards.meta_judge import meta_judge
from srlm.rewards.self_certainty import self_certainty
from srlm.rounds import Method, rewards_in_pieces
from srlm.rows import Source
from srlm.run_cost import fitted, plan_run
from srlm.run_folder import RunFolder, aim_of, hash_model
from srlm.run_folder.beside import telling
from srlm.trackers import Tracking, nothing
from srlm.types import Prompt, Round

if TYPE_CHECKING:
    from srlm.parallel import Team


def run(
    config: RunConfig,
    out: str | Path,
    *,
    budget: float | None = None,
    progress: Progress | None = None,
    team: Team | None = None,
    clock: Callable[[], float] = time.monotonic,
    track: Tracking = nothing,
) -> Summary:
    """Self-reward a model in a run folder, to its report. Continues where it stopped.

    Args:
        config: all settings; ``srlm.config.resolve`` makes them of a file and flags.
        out: the folder; made if missing.
        budget: seconds, from now: a new run is cut to them (``run_cost.fitted``), and in any run no
            round is begun that would end after them, by what the longest one took, but the first.
            The run ends with what it has, and the same call continues. No setting: what was cut is.
        progress: where the plan and the stages are shown; silent if left out.
        team: processes that samples and updates are spread over; the others ``follow``.
        clock: seconds from any fixed moment.
        track: where each round is reported (``srlm.trackers``).

    Raises:
        UserError: anything in the settings, the prompts, the model or the folder that the user
            can put right; found before the first sample where it can be.
    """
    began = clock()
    progress = progress or Progress.silent()
    given = _given(config)
    inputs = {
        "model": hash_model(str(located(config.model, config.download))),
        "prompts": given.source.sha256,
    }
    with ExitStack() as stack:
        opened = RunFolder(Path(out), config, partial(load_for, config, trained=True), inputs)
        folder = stack.enter_context(opened)
        policy = load_for(config, folder.latest() or config.model, trained=True)
        if folder.settled is None:
            left = None if budget is None else budget - (clock() - began)
            config = _planned(config, policy, given, left, progress)
        else:
            keep = keep_of(folder.settled, policy)  # no round's record has it
            config = folder.settled.model_copy(update={"keep": keep})
            progress.note(f"Going on with the run in {out}")
        training, held_out = given.training, given.held_out
        folder.describe(config, given.source.files, len(training), len(held_out))
        for note in folder.notes:
            progress.note(note)
        tell = stack.enter_context(telling(folder.folder, config.rounds))
        progress = progress.also(tell)
        report = stack.enter_context(track(folder.folder, config))
        del given  # with the bytes of the prompts' file
        place = located(config.model, download=False)
        engine = stack.enter_context(engines.opened(config, place))
        method = replace(method_of(config), engine=engine)
        if team is not None:
            if engine.sampler is local:
                engine = replace(engine, sampler=team.sampler)
            method = replace(method, engine=engine, fit=team.fit)
        records: list[Round] = []
        forecasts: list[dict[str, Any]] = []
        longest = max(map(folder.seconds, range(1, config.rounds + 1)), default=0.0)
        last = clock()
        for record in self_reward(
            policy,
            training,
            held_out,
            rounds=config.rounds,
            method=method,
            seed=config.seed,
            folder=folder,
            progress=progress,
        ):
            records.append(record)
            if not folder.has(record.round, "forecast"):
                _forecast(folder, records, forecasts, method, config, held_out)
            if folder.has(record.round, "forecast"):
                forecasts.append(folder.get(record.round, "forecast"))
            if record.round and not (
                folder.has(record.round, "card") or folder.dropped(record.round)
            ):
                folder.keep(record.round, "card", model_card(config, policy, records, forecasts))
            report(records, forecasts)
            _drop(folder, records, config)
            now = clock()
            longest, last = max(longest, now - last if record.round else 0.0), now
            over = budget is not None and now - began + longest > budget
            if over and record.round < config.rounds:
                folder.end(stopping.out_of_time(records, stopping.rule_of(config.reward)))
                progress.note(
                    f"Time is up after round {record.round} of {config.rounds}: the same command "
                    "continues"
                )
                break
        with progress.stage("report"):
            summary = summarise(folder.folder)
            write_page(summary)
        return summary


def follow(config: RunConfig, team: Team) -> None:
    """Be one of the processes of a run that is not its first."""
    policy = load_for(config, trained=True)
    team.follow(policy, lambda update: UPDATES[update.kind][0](update.nll))


def _drop(folder: RunFolder, records: list[Round], config: RunConfig) -> None:
    """Drop the weights that ``--keep`` does not ask for, of rounds before the last measured one."""
    last, most = len(records) - 1, kept(config.keep or "all")
    if most is None:
        return
    best, _ = stopping.best_round([r.estimates for r in records], stopping.rule_of(config.reward))
    for t in range(1, last):
        if t <= last - most if most else t != best:
            folder.drop(t)


def dry_run(config: RunConfig, *, budget: float | None = None, progress: Progress) -> RunConfig:
    """Say what a new run would do and cost; nothing is written.

    Returns:
        The settings that it would have, cut to ``budget`` seconds.

    Raises:
        UserError: as ``run``.
    """
    given = _given(config)
    policy = load_for(config, trained=True)
    return _planned(config, policy, given, budget, progress, asked=True)


class _Given(NamedTuple):
    """What the settings name, without the model."""

    prompts: list[Prompt]
    training: list[Prompt]
    held_out: list[Prompt]
    source: Source
    grader: Grader
    notes: tuple[str, ...]


def _given(config: RunConfig) -> _Given:
    prompts, source, read, notes = data.prompts_for(config.prompts)
    method_of(config)  # whether the settings go together, before anything is loaded
    engines.check(config.engine, config.samples)
    training, held_out = data.split(prompts, config.prompts.held_out)
    return _Given(prompts, training, held_out, source, read, notes)


def _planned(
    config: RunConfig,
    policy: Policy,
    given: _Given,
    budget: float | None,
    progress: Progress,
    *,
    asked: bool = False,
) -> RunConfig:
    """Choose what is left open, say what the run will cost, and cut it to ``budget`` seconds.

    Nothing is timed where nobody would see it and nothing is to be cut.
    """
    began = time.monotonic()
    most, lowered = fitting(policy, given.prompts, config.samples.max_tokens)
    for note in filter(None, (*given.notes, lowered)):
        progress.note(note)
    made = settle(config, policy, len(given.training), given.grader, most)
    _check_tempered(made.config)
    plan, cut = None, [""]
    if budget is not None or asked or not progress.quiet:
        plan = plan_run(policy, given.training, given.held_out, made.config)
    if plan is not None and budget is not None:
        plan, cut = fitted(plan, max(1.0, budget - (time.monotonic() - began)))
        sections = plan.config.model_copy(update={"update": config.update})
        made = settle(sections, policy, len(given.training), given.grader, most)
        plan = replace(plan, config=made.config)
    for line in (*made.lines, *(plan.lines() if plan is not None else ())):
        progress.note(line)
    if plan is not None and budget is not None:
        progress.note(f"Cut to {budget:.0f} s: {', '.join(cut) or 'nothing'}")
        if plan.seconds()[1] > budget:
            progress.note("That may still not do: rounds that the time does not reach are left out")
    return made.config


def _forecast(
    folder: RunFolder,
    records: list[Round],
    before: list[dict[str, Any]],
    method: Method,
    config: RunConfig,
    held_out: list[Prompt],
) -> None:
    """Forecast the later rounds from the last one; where the model must be asked for the rewards
    of the held-out samples, while it is still that round's."""
    t = records[-1].round
    parts = after_round.asked(config.reward)
    if parts and folder.has(t + 1, "policy"):
        return
    samples, table = folder.get(t, "held_out"), folder.get(t, "table")
    score_R = None
    if parts:
        reward = combined([(MAKERS[name](config), weight) for name, weight in parts.items()])
        asking, asked = replace(method, reward=reward), held_out[: method.measure.prompts]
        executor = Executor(method.engine, partial(folder.shelf, t))
        policy = folder.get(t, "policy")
        found = rewards_in_pieces(policy, asked, [samples], asking, executor, "scores")
        score_R = np.concatenate([x.reward_R for _, _, x in found])
    likelihood = aim_of({"reward": config.reward}) == "responses"
    state = after_round.state_of(
        samples, table, method.grader, likelihood=likelihood, score_R=score_R
    )
    listed = method.samples.source == "enumerate"
    rounds = after_round.method_of(
        config.reward,
        method.update.strength,
        None if listed else method.samples.per_prompt,
        config.update.kind,
        config.length_tolerance,
    )
    made = after_round.forecast_after(records, state, before, rounds, config.seed)
    folder.keep(t, "forecast", made)


# ---- names


Update = tuple[Callable[[float], train.Objective], tuple[str, ...]]
"""An objective, made of the weight of its likelihood term, and the pairings that it can take; the
first of them is what ``--pairs auto`` takes."""

UPDATES: dict[str, Update] = {
    "weighted": (lambda _: train.weighted_objective, ("groups", "pairs")),
    "square": (lambda _: train.square_objective, ("groups", "pairs", "best-worst", "voted")),
    "best-of-n": (lambda _: train.best_of_n_objective, ("best",)),
    "dpo": (
        lambda nll: train.preference(losses.dpo, nll, attained=False),
        ("best-worst", "voted", "pairs"),
    ),
    "ipo": (
        lambda nll: train.preference(losses.ipo, nll, attained=True),
        ("best-worst", "voted", "pairs"),
    ),
}
PREFERENCES = ("dpo", "ipo")
"""Updates that may have a likelihood term beside."""
PAIRINGS: dict[str, Callable[..., pairs.Pairs]] = {
    "groups": pairs.groups,
    "pairs": pairs.pairs,
    "best": pairs.best,
    "best-worst": pairs.best_worst,
    "voted": pairs.voted,
}
MAKERS: dict[str, Callable[[RunConfig], Reward]] = {
    "likelihood": lambda _: likelihood,
    "likelihood-per-token": lambda _: likelihood_per_token,
    "self-certainty": lambda _: self_certainty,
    "consistency": lambda config: consistency(grader(config.prompts.answer)),
    "judge": lambda config: judge(config.judge, config.seed),
    "judge-pairwise": lambda config: judge_pairwise(config.judge),
    "meta-judge": lambda config: meta_judge(config.judge, config.seed),
}
assert tuple(MAKERS) == REWARDS


def method_of(config: RunConfig) -> Method:
    """Settings to functions.

    Raises:
        UserError: settings that do not go together; adapters without peft.
    """
    if config.update.lora:
        require_peft()
    kind = config.update.kind
    objective, pairings = UPDATES[kind]
    if config.update.nll and kind not in PREFERENCES:
        raise UserError(
            f"--nll {config.update.nll:g} with --update {kind}: it has no likelihood term beside",
            "leave --nll out, or use --update dpo or ipo",
        )
    if config.samples.mu is not None and (
        kind != "best-of-n" or config.samples.source == "enumerate"
    ):
        raise UserError(
            f"--mu with --update {kind}, --source {config.samples.source}: only best-of-n can "
            "sample adaptively",
            "leave --mu out, or use --update best-of-n and --source sampling",
        )
    _check_tempered(config)
    name = pairings[0] if config.pairs.kind == "auto" else config.pairs.kind
    if name not in pairings:
        raise UserError(
            f"--update {kind} cannot be trained on --pairs {name}",
            f"use --pairs {' or '.join(x for x in (*pairings, 'auto') if x != 'best')}",
        )
    return Method(
        reward=reward_of(config),
        asks=bool(after_round.asked(config.reward)),
        objective=objective(config.update.nll),
        pair=partial(PAIRINGS[name], reward_floor=config.pairs.reward_floor),
        samples=config.samples,
        update=config.update,
        measure=config.measure,
        grader=grader(config.prompts.answer),
        stop=stopping.rule_of(config.reward) if config.stop == "auto" else None,
    )


PROBABILITIES = ("likelihood", "likelihood-per-token", "self-certainty")
"""Rewards that are read off the policy's probabilities: of its own samples, at temperature 1."""


def _check_tempered(config: RunConfig) -> None:
    """Refuse tempered samples where theory or reward is about the policy's own."""
    asked = config.samples
    if asked.plain:
        return
    flags = f"--temperature {asked.temperature:g} --top-p {asked.top_p:g}"
    if asked.mu is not None or asked.source == "enumerate":
        raise UserError(
            f"{flags} with --mu or --source enumerate: both go by the policy's own probabilities",
            "leave --temperature and --top-p out",
        )
    named = [] if config.reward == AUTO else list(reward_parts(config.reward))
    if wrong := [name for name in named if name in PROBABILITIES]:
        raise UserError(
            f"{flags} with --reward {config.reward}: {', '.join(wrong)} is a probability, whose "
            "theory is of the policy's own samples",
            "leave --temperature and --top-p out, or use --reward consistency or judge",
        )


def reward_of(config: RunConfig) -> Reward:
    """The reward that the settings name, with its weights and its length control.

    Raises:
        UserError: a template or pattern that cannot be used; judge training without the reward
            that makes its pairs.
    """
    weights = reward_parts(config.reward)
    if config.judge.train and "meta-judge" not in weights:
        raise UserError(
            f"--judge-train with --reward {config.reward}: nothing judges the judgements",
            "leave --judge-train out, or use --reward meta-judge",
        )
    parts = [(MAKERS[name](config), weight) for name, weight in weights.items()]
    alone = len(parts) == 1 and parts[0][1] == 1.0
    reward = parts[0][0] if alone else combined(parts)
    if config.length_tolerance is None:
        return reward
    return length_controlled(reward, config.length_tolerance)
