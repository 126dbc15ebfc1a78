"""The demo: foretold, run, compared. Everything through the public commands' functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from srlm.config import ForecastConfig, RunConfig, UpdateSettings
from srlm.demo.settings import shown_settings
from srlm.forecast.command import forecast
from srlm.loop import run
from srlm.progress import Progress
from srlm.report.summary import summarise
from srlm.report.terminal import print_summary
from srlm.report.words import number, percent
from srlm.run_folder import read_json


@dataclass(frozen=True, slots=True)
class Shown:
    """One start of the demo."""

    start: str
    folder: str
    verdict: str
    """go, no-go or unclear: said before any training."""
    foretold: float | None
    """Sampling accuracy where exact rounds lead."""
    rounds: list[dict[str, Any]]
    """The lines of metrics.jsonl."""
    seconds: dict[str, float]
    """Time of the base model (0 where it was in the cache), the forecast and the run."""
    reward: str = "likelihood"
    best: int | None = None
    """The round to take; None without ``--stop auto``."""
    ended: str | None = None
    """Why the run ended; None without ``--stop auto``."""

    def to_json(self) -> dict[str, Any]:
        """Numbers for programs."""
        return asdict(self)


def forecast_settings(config: RunConfig) -> ForecastConfig:
    """The forecast that the settings of a run ask for.

    It is about likelihood self-reward; where another reward is run, at the default beta, as beta is
    in units of the reward.
    """
    own = config.update if config.reward == "likelihood" else UpdateSettings()
    return ForecastConfig(
        model=config.model,
        prompts=config.prompts,
        max_tokens=config.samples.max_tokens,
        beta=own.beta,
        rounds=config.rounds,
        seed=config.seed,
        device=config.device,
        dtype=config.dtype,
    )


def show(start: str, seed: int, out: Path, *, progress: Progress, console: Console) -> Shown:
    """``srlm forecast`` and then ``srlm run`` on a model that is trained here.

    Args:
        start: good, diffuse, giveup, judge, compare or paths.
        seed: of the base model and of the run.
        out: the run's folder; the forecast is in ``out``-forecast.
        progress: where stages are shown.
        console: where the tables go.
    """
    clock = [perf_counter()]
    config = shown_settings(start, seed, progress)
    clock.append(perf_counter())
    sharpens = config.reward == "likelihood"
    _title(console, f"{start}: foretold" + ("" if sharpens else " of likelihood self-reward"))
    found = forecast(
        forecast_settings(config),
        out=out.with_name(out.name + "-forecast"),
        progress=progress,
        console=console,
    )
    clock.append(perf_counter())
    _title(console, f"{start}: run" + ("" if sharpens else f", reward: {config.reward}"))
    summary = run(config, out, progress=progress)
    print_summary(summarise(out), console)
    clock.append(perf_counter())
    names = ("base", "forecast", "run")
    return Shown(
        start=start,
        folder=str(out),
        verdict=found.verdict.verdict,
        foretold=found.end.sampling_accuracy.value,
        rounds=summary.rounds,
        seconds={
            name: round(b - a, 1) for name, a, b in zip(names, clock, clock[1:], strict=False)
        },
        reward=config.reward,
        **_ending(out),
    )


def _ending(folder: Path) -> dict[str, Any]:
    """Best round and reason of stop.json, if the run has one."""
    path = folder / "stop.json"
    if not path.exists():
        return {}
    stop = read_json(path)
    return {"best": stop["best"], "ended": stop["reason"]}


def past_the_mode(shown: Shown) -> str:
    """What was foretold of likelihood self-reward, and where another reward led, in words.

    Past: the 95 % interval of the best round's greedy accuracy lies above the mode accuracy of the
    base, which likelihood self-reward leads to, on the same held-out prompts.
    """
    best = shown.rounds[-1 if shown.best is None else shown.best]
    mode, first = (shown.rounds[0][n]["value"] for n in ("mode_accuracy", "greedy_accuracy"))
    greedy = best["greedy_accuracy"]
    if greedy["low"] > mode:
        verdict = f"past the base's modes by {number(greedy['value'] - mode)}"
    elif greedy["high"] < mode:
        verdict = f"below the base's modes by {number(mode - greedy['value'])}"
    else:
        verdict = "no further than the base's modes, as far as the prompts can tell"
    return (
        f"{shown.start}: likelihood self-reward was foretold to end at {number(shown.foretold)}, "
        f"the accuracy of the base's modes ({number(mode)} on the held-out prompts). With the "
        f"{shown.reward} reward greedy accuracy went from {number(first)} to "
        f"{number(greedy['value'])} in round {best['round']}: {verdict}."
    )


def print_shown(shown: Sequence[Shown], console: Console) -> None:
    """Foretold and seen, one line a start."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    titles = ("start", "verdict", "end", "accuracy", "κ", "headroom", "fidelity", "s")
    for title in titles:
        table.add_column(title, justify="left" if title == "start" else "right", no_wrap=True)
    for s in shown:
        first, last = s.rounds[0], s.rounds[-1]
        table.add_row(
            s.start,
            s.verdict,
            number(s.foretold),
            _change(first, last, "sampling_accuracy"),
            _change(first, last, "kappa"),
            percent(last["headroom_captured"]["value"]),
            number(last["fidelity"]["value"]),
            f"{sum(s.seconds.values()):.0f}",
        )
    _title(console, "foretold and seen")
    console.print(table)
    for s in shown:
        if s.reward != "likelihood":
            console.print()
            console.print(Text(past_the_mode(s)))
        if s.ended is not None:
            console.print(Text(f"Round {s.best} is the best; it stopped because {s.ended}."))
    for s in shown:
        parts = ", ".join(f"{name} {seconds:g} s" for name, seconds in s.seconds.items())
        rounds = [sum(line["seconds"].values()) for line in s.rounds[1:]]
        slowest = f"; slowest round {max(rounds):.0f} s" if rounds else ""
        console.print(Text(f"{s.start}: {parts}{slowest}. {s.folder}/report.html", "dim"))


def _change(first: dict[str, Any], last: dict[str, Any], name: str) -> str:
    return f"{number(first[name]['value'])} → {number(last[name]['value'])}"


def _title(console: Console, text: str) -> None:
    console.print()
    console.rule(Text(text, "bold"), align="left")
    console.print()
