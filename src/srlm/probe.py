"""``srlm measure`` and ``srlm forecast``: from settings to a table, JSON and a page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console

from srlm import data as reading
from srlm.config import (
    ALL,
    BETA,
    ForecastConfig,
    ProbeConfig,
    RunConfig,
    SampleSettings,
    reward_parts,
    score_values,
)
from srlm.cost import plan
from srlm.engines import opened as engines
from srlm.engines.base import Advance, Executor, drawn
from srlm.engines.server import Server
from srlm.engines.server import check as check_server
from srlm.errors import UserError
from srlm.forecast.from_samples import SamplesForecast, Source, forecast_tallies
from srlm.forecast.make import Forecast, make_forecast, to_json
from srlm.forecast.reward_paths import FROM_FILE, Parts
from srlm.forecast.sampling import More, check, collect, of_policy, of_server, others_of
from srlm.grading import Grader
from srlm.measure.condition import LIMIT, adaptive_sampling, fixed_n
from srlm.policies.base import Distributions, Exact, Language, Policy
from srlm.policies.load import fitting, load_for
from srlm.policies.places import located
from srlm.progress import Progress
from srlm.report.page import write_forecast, write_measurement
from srlm.report.terminal import print_forecast, print_measurement, print_pilot
from srlm.rewards.asking import score_tokens
from srlm.rewards.base import Reward, Scored
from srlm.rounds import with_gap
from srlm.run_folder import read_run, write_prompt_table
from srlm.run_folder.kept import cut_before, digest, keeping
from srlm.run_folder.manifest import hash_model
from srlm.runner import MAKERS, run
from srlm.samples_file import tell, write_found
from srlm.types import Estimate, Prompt, Samples

C = TypeVar("C", bound=ProbeConfig)
DEFAULT_MU = 5.0
"""Adaptive sampling misses a mode with probability exp(-5) = .0067 at most."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A policy and its prompts, checked."""

    policy: Policy
    prompts: list[Prompt]
    grader: Grader
    max_tokens: int
    """Length limit of a response that the context has room for."""
    notes: tuple[str, ...]
    """What a user should know."""


def measure(
    config: ProbeConfig,
    *,
    out: Path | None = None,
    json_file: Path | None = None,
    fisher: bool = False,
    budget: float | None = None,
    progress: Progress,
) -> Forecast:
    """``srlm measure``: the base as it is. The forecast's first round, without the rest.

    Args:
        budget: seconds that the work is cut to.
    """
    opened, config = planned(config, budget, progress, out)
    with _executor(opened, config, out) as executor:
        found = _look(opened, config, beta=1.0, rounds=1, executor=executor, progress=progress)
    by_samples = _by_samples(opened, found, config, progress, unasked=budget is None)
    print_measurement(found, Console(highlight=False), by_samples)
    data = to_json(found) | {name: e.to_json() for name, e in by_samples.items()}
    for name in ("verdict", "reason", "gain", "trajectory", "trajectories", "limit", "advice"):
        del data[name]
    if fisher:
        from srlm.measure.curvature import fisher as measure_fisher

        with progress.stage("Fisher spectrum"):
            spectrum = measure_fisher(opened.policy, opened.prompts, found.measurement.samples)
        spectrum.print(Console(highlight=False))
        data["fisher"] = spectrum.to_json()
    page = partial(_with_table, write_measurement, found)
    write_found(data, config, page, out, json_file, Console(highlight=False))
    return found


def _by_samples(
    opened: Opened, found: Forecast, config: ProbeConfig, progress: Progress, *, unasked: bool
) -> dict[str, Estimate]:
    """kappa as samples alone tell it: fixed N always, adaptive where asked for, or needed and
    allowed ``unasked``."""
    if isinstance(opened.policy, Exact):
        return {}
    samples, modes = found.measurement.samples, found.measurement.modes
    mu = config.mu or DEFAULT_MU
    out = {"kappa_fixed_n": fixed_n(samples, len(opened.prompts), seed=config.seed)}
    # (1 + mu)/p* samples per prompt on average: unasked, no more than were taken already.
    expected_P = np.minimum((1 + mu) * np.exp(np.minimum(-modes.logp_P, np.log(LIMIT))), LIMIT)
    dear = bool(expected_P.mean() > config.samples)
    if config.mu is None and (not unasked or dear or modes.certified_P.all()):
        return out
    with progress.stage("adaptive sampling"):
        out["kappa_adaptive"] = adaptive_sampling(
            opened.policy,
            opened.prompts,
            mu=mu,
            seed=config.seed,
            max_tokens=opened.max_tokens,
        )
    return out


def forecast_any(
    config: ForecastConfig,
    *,
    out: Path | None = None,
    json_file: Path | None = None,
    budget: float | None = None,
    dry: bool = False,
    progress: Progress,
) -> None:
    """``srlm forecast`` of a model, here or on a server, by the kind of its reward.

    Args:
        budget: seconds that the work is cut to, a pilot not counted.
        dry: say what it would cost, and stop.

    Raises:
        UserError: settings that do not go together.
    """
    check(config.samples, config.until, config.reward)
    if config.engine.url is not None and config.engine.kind == "local":
        if budget is not None:
            raise UserError(
                "--budget with --server: its time is not known",
                "leave --budget out; --until takes as few samples as needed",
            )
        forecast_server(config, out=out, json_file=json_file, dry=dry, progress=progress)
    elif dry:
        planned(config, budget, progress)
    else:
        how = forecast if config.reward == "likelihood" else forecast_rewards
        how(config, out=out, json_file=json_file, budget=budget, progress=progress)


def forecast(
    config: ForecastConfig,
    *,
    out: Path | None = None,
    json_file: Path | None = None,
    budget: float | None = None,
    progress: Progress,
    console: Console | None = None,
) -> Forecast:
    """``srlm forecast``: the trajectory, the verdict and the evidence; a pilot's too, if asked.

    Args:
        budget: seconds that the work is cut to, a pilot not counted.
    """
    piloted = pilot(config, out, progress) if config.pilot.rounds else None
    opened, config = planned(config, budget, progress, out)
    asked: dict[str, Any] = {"beta": config.beta or BETA, "rounds": config.rounds}
    with _executor(opened, config, out) as executor:
        found = _look(opened, config, **asked, executor=executor, progress=progress)
    console = console or Console(highlight=False)
    if piloted is not None:
        said = f"{found.verdict.reason}{at_pace(piloted['later'][-1])}"
        found = replace(found, verdict=replace(found.verdict, reason=said))
    print_forecast(found, console)
    data = to_json(found)
    if piloted is not None:
        data["pilot"] = piloted
        print_pilot(data["pilot"], console)
    page = partial(_with_table, write_forecast, found)
    write_found(data, config, page, out, json_file, console)
    return found


def pilot(config: ForecastConfig, out: Path | None, progress: Progress) -> dict[str, Any]:
    """Run the pilot rounds in ``out``/pilot; forecast the rest at the pace seen.

    The pilot is a run like any other: it continues where it stopped, has its report, and can be
    given more rounds by ``srlm run``.

    Returns:
        Numbers for programs: ``rounds`` done, the ``share`` of the way to its target that each
        went, ``later`` rounds, eight at most.

    Raises:
        UserError: nowhere to keep it, or as many pilot rounds as rounds; whatever ``run`` raises.
    """
    done = config.pilot.rounds
    if out is None:
        raise UserError("--pilot: no --out", "name a folder to keep the pilot in")
    if done >= config.rounds:
        raise UserError(
            f"--pilot {done} of --rounds {config.rounds}: no later round to forecast",
            "ask about more rounds",
        )
    run(pilot_settings(config), out / "pilot", progress=progress)
    kept = read_run(out / "pilot")
    made = kept.forecasts[done]
    return {
        "folder": str(kept.folder),
        "rounds": [record.to_json() for record in kept.rounds[: done + 1]],
        "share": [at["share"]["value"] for at in kept.forecasts[1 : done + 1]],
        "later": [x for x in made["later"] if x["round"] <= config.rounds],
    }


def at_pace(last: Mapping[str, Any]) -> str:
    """Where training is at the pilot's pace, for a headline; ``last``: the last round forecast."""
    for name in ("sampling_accuracy", "vote_share", "confidence"):
        value = (last.get(name) or {}).get("value")
        if value is not None:
            said = f"{name.replace('_', ' ')} {value:.3f} by round {last['round']}"
            return f"; {said} at the pilot's pace"
    return ""


def pilot_settings(config: ForecastConfig) -> RunConfig:
    """The run that a forecast with a pilot asks about."""
    asked = config.model_dump(include={"model", "download", "seed", "device", "dtype"})
    prompts = config.prompts.model_dump() | {"held_out": config.pilot.held_out}
    train = config.pilot.model_dump(include={"prompts", "per_prompt"})
    update = config.pilot.model_dump(include={"epochs", "lr"})
    if config.beta is not None:
        update["beta"] = config.beta
    return RunConfig.model_validate(
        asked
        | {"rounds": config.pilot.rounds, "prompts": prompts, "update": update}
        | {"reward": config.reward, "judge": config.judge.model_dump()}
        | {"engine": config.engine.model_dump()}
        | {"samples": train | {"max_tokens": config.max_tokens}}
    )


def open_probe(config: ProbeConfig) -> Opened:
    """Policy and prompts of a probe, with everything that can be wrong found first.

    Raises:
        UserError: prompts, answers, model: whatever is wrong with them.
    """
    engines.check(config.engine)
    everything, _, read, notes = reading.prompts_for(config.prompts)
    chosen = by_hash(everything, config.most_prompts)
    policy = load_for(config)
    most, lowered = fitting(policy, chosen, config.max_tokens)
    return Opened(policy, chosen, read, most, tuple(filter(None, (*notes, lowered))))


def planned(
    config: C, budget: float | None, progress: Progress, out: Path | None = None
) -> tuple[Opened, C]:
    """Open a probe and say what it will cost; cut to ``budget`` seconds, with what was cut.

    Nothing is timed where nobody would see it and nothing is to be cut. Samples that ``out`` holds
    stay as they were cut when they were begun.
    """
    opened = open_probe(config)
    for note in opened.notes:
        progress.note(note)
    before = cut_before(out)
    if before is not None:
        progress.note(f"Going on with the samples in {out}")
        if budget is not None:
            config = config.model_copy(update=before)
            prompts = by_hash(opened.prompts, config.most_prompts)
            return replace(opened, prompts=prompts), config
        return opened, config
    if budget is None and progress.quiet:
        return opened, config
    if config.engine.kind != "local":
        progress.note(f"Times are those of this process, not of --engine {config.engine.kind}")
    search = not isinstance(config, ForecastConfig) or config.reward == "likelihood"
    made, fitted = plan(
        opened.policy, opened.prompts, config, opened.max_tokens, budget, search=search
    )
    if made is None:
        progress.note(f"Plan: {len(opened.prompts)} prompts, all responses enumerated")
        return opened, config
    for line in made.lines():
        progress.note(line)
    cut = {
        "prompts": (len(opened.prompts), made.prompts),
        "samples": (config.samples, made.samples),
        "seconds of search": (config.seconds if search else 0.0, made.search),
    }
    said = [f"{name} {old:g} -> {new:g}" for name, (old, new) in cut.items() if old != new]
    if budget is not None:
        progress.note(f"Cut to {budget:g} s: {', '.join(said) or 'nothing'}")
    return replace(opened, prompts=by_hash(opened.prompts, made.prompts)), fitted


def by_hash(prompts: Sequence[Prompt], most: int) -> list[Prompt]:
    """``most`` prompts, chosen by hash and given in file order: adding prompts changes few."""
    chosen = sorted(prompts, key=lambda x: x.id)[:most]
    return sorted(chosen, key=lambda x: x.line)


def _look(
    opened: Opened,
    config: ProbeConfig,
    *,
    beta: float,
    rounds: int,
    executor: Executor,
    progress: Progress,
) -> Forecast:
    def draw(
        policy: Policy,
        prompts: Sequence[Prompt],
        asked: SampleSettings,
        seed: int,
        advance: Advance,
    ) -> Samples:
        shelf = executor.shelf("samples")
        parts = drawn(executor.engine, policy, prompts, asked, seed, shelf, advance)
        return Samples.joined(list(parts))

    with progress.stage("samples and search", total=len(opened.prompts)) as bar:
        found = make_forecast(
            opened.policy,
            opened.prompts,
            grader=opened.grader,
            beta=beta,
            rounds=rounds,
            samples=config.samples,
            max_tokens=opened.max_tokens,
            nodes=config.nodes,
            tokens=config.tokens,
            seconds=config.seconds,
            executor=executor,
            draw=draw,
            advance=bar.advance,
            seed=config.seed,
        )
    samples = found.measurement.samples
    for note in with_gap(Scored(samples.logp_R), samples).notes:
        progress.note(note)
    return found


@contextmanager
def _executor(
    opened: Opened, config: ProbeConfig, out: Path | None, until: str | None = None
) -> Iterator[Executor]:
    """The engine of the settings; what it makes is kept in ``out``: all that decides it is
    remembered, and compared."""
    base = located(config.model, download=False)
    settings: dict[str, Any] = {}
    if out is not None:
        settings = {
            "model": config.model,
            "model_sha256": hash_model(config.model),
            "prompts_sha256": digest([x.id for x in opened.prompts]),
            "prompts": len(opened.prompts),
            "samples": config.samples,
            "until": until,
            "max_tokens": opened.max_tokens,
            **config.model_dump(include={"seed", "device", "dtype"}),
            **config.prompts.model_dump(include={"chat", "system", "chat_args"}),
        }
    cut = {"most_prompts": len(opened.prompts), "samples": config.samples}
    with engines.opened(config, base) as engine:
        if out is not None:
            settings["engine"] = engine.name
        with keeping(out, settings, base, cut | {"seconds": config.seconds}) as kept:
            yield Executor(engine, kept.shelf)


def _with_table(
    write: Callable[[Forecast, Path, dict[str, Any]], Path],
    found: Forecast,
    out: Path,
    settings: dict[str, Any],
) -> Path:
    """A page, and what it says of each prompt as a table beside it."""
    write_prompt_table(out / "prompts.parquet", found.measurement.table)
    return write(found, out, settings)


def forecast_rewards(
    config: ForecastConfig,
    *,
    out: Path | None = None,
    json_file: Path | None = None,
    budget: float | None = None,
    progress: Progress,
) -> SamplesForecast:
    """``srlm forecast --reward``, any but the likelihood alone: from samples of the model.

    Args:
        budget: seconds that sampling is cut to.
    """
    if config.pilot.rounds and config.reward == ALL:
        raise UserError(
            "--pilot with --reward all: a pilot trains with one reward", "name the reward"
        )
    piloted = pilot(config, out, progress) if config.pilot.rounds else None
    opened, config = planned(config, budget, progress, out)
    parts = {} if config.reward == ALL else reward_parts(config.reward)
    scorers, doubts = _scorers(opened, config, parts)
    total, name = len(opened.prompts) * config.samples, "samples"
    if scorers:
        names = [of.partition("/")[0] for of in scorers]
        progress.note(f"Then scores by {', '.join(names)}: their time is not in the cost")
        total, name = total * (1 + len(scorers)), "samples and scores"
    with (
        _executor(opened, config, out, config.until) as executor,
        progress.stage(name, total=total) as bar,
    ):
        more = of_policy(
            opened.policy,
            executor,
            scorers,
            seed=config.seed,
            max_tokens=opened.max_tokens,
            advance=bar.advance,
        )
        source = Source(config.model, "own samples", opened.grader.name, doubts)
        names = [of.partition("/")[0] for of in scorers]
        others = others_of(config.reward, parts, names)
        found = _collected(more, opened.prompts, opened.grader, config, source, others)
    if piloted is not None:
        found = replace(found, reason=f"{found.reason}{at_pace(piloted['later'][-1])}")
    tell(found, config, out, json_file, piloted)
    return found


def forecast_server(
    config: ForecastConfig,
    *,
    out: Path | None = None,
    json_file: Path | None = None,
    dry: bool = False,
    progress: Progress,
) -> SamplesForecast | None:
    """``srlm forecast --server``: the samples come from a server.

    Args:
        dry: say what would be asked of it, and stop; nothing is sent.

    Raises:
        UserError: rewards that need the model here; whatever the server does wrong.
    """
    assert config.engine.url is not None
    if "," in config.engine.url:
        raise UserError(
            f"--server {config.engine.url} without --engine server: it asks one",
            "name one, or give --engine server and the model here",
        )
    parts = dict.fromkeys(FROM_FILE, 1.0) if config.reward == ALL else reward_parts(config.reward)
    beyond = [name for name in parts if name not in (*FROM_FILE, "consistency")]
    if beyond:
        raise UserError(
            f"--reward {config.reward} with --server: {', '.join(beyond)} needs the model here",
            f"use consistency, {' or '.join(FROM_FILE)}, or --model without --server",
        )
    if config.pilot.rounds:
        raise UserError("--pilot with --server: nothing to train", "give --model without --server")
    everything, _, read, notes = reading.prompts_for(config.prompts)
    prompts = by_hash(everything, config.most_prompts)
    server = Server(
        url=config.engine.url,
        model=config.model,
        chat=config.prompts.chat == "auto",
        system=config.prompts.system,
        logprobs=any(name in FROM_FILE for name in parts),
        max_tokens=config.max_tokens,
        concurrency=config.engine.concurrency,
        timeout=config.engine.timeout,
        retries=config.engine.retries,
        key=os.environ.get("OPENAI_API_KEY"),
    )
    check_server(server, prompts)
    for note in notes:
        progress.note(note)
    progress.note(
        f"Plan: {len(prompts)} prompts x {config.samples} samples x {config.max_tokens} tokens at "
        f"most, from {server.url}, {server.concurrency} requests at once"
    )
    if dry:
        return None
    settings = {
        "server_model": config.model,
        "prompts_sha256": digest([x.id for x in prompts]),
        "prompts": len(prompts),
        "logprobs": server.logprobs,
        **config.model_dump(include={"samples", "until", "max_tokens", "seed"}),
        **config.prompts.model_dump(include={"chat", "system"}),
    }
    with (
        keeping(out, settings) as kept,
        progress.stage("samples", total=len(prompts) * config.samples) as bar,
    ):
        more = of_server(server, kept, seed=config.seed, advance=bar.advance)
        source = Source(f"{config.model} at {server.url}", "server", read.name)
        others = others_of(config.reward, parts, ())
        found = _collected(more, prompts, read, config, source, others)
    tell(found, config, out, json_file)
    return found


def _collected(
    more: More,
    prompts: Sequence[Prompt],
    grader: Grader,
    config: ForecastConfig,
    source: Source,
    others: Mapping[str, Parts],
) -> SamplesForecast:
    """The forecast of as many samples as are asked for."""
    every, looks = collect(
        more, prompts, config.samples, grader, until=config.until, seed=config.seed
    )
    return forecast_tallies(
        every,
        replace(source, looks=looks),
        reward=config.reward,
        others=others,
        beta=config.beta,
        rounds=config.rounds,
        seed=config.seed,
    )


def _scorers(
    opened: Opened, config: ForecastConfig, parts: Mapping[str, float]
) -> tuple[dict[str, Reward], tuple[str, ...]]:
    """What scores the samples beside votes and log-probabilities, and what cannot.

    ``all``: what one pass can, so that a judge is read off its score tokens.
    """
    judging, doubts = config.judge, []
    if config.reward == ALL:
        judging = judging.model_copy(update={"read": "expected"})
        parts = {"self-certainty": 1.0} if isinstance(opened.policy, Distributions) else {}
        if isinstance(opened.policy, Language):
            try:
                score_tokens(opened.policy, score_values(judging.scores), "--judge-scores")
                parts |= {"judge": 1.0}
            except UserError as error:
                doubts.append(f"judge left out: {error.problem}")
    asked = RunConfig.model_validate(
        config.model_dump(include={"model", "seed"})
        | {"judge": judging.model_dump()}
        | {"prompts": config.prompts.model_dump() | {"answer": opened.grader.name}}
    )
    own = digest([judging.model_dump(), config.seed])
    scorers = {
        f"{name}/{own}" if "judge" in name else name: MAKERS[name](asked)
        for name in parts
        if name not in (*FROM_FILE, "consistency")
    }
    return scorers, tuple(doubts)
