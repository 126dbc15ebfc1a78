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

from srlm.config import ForecastConfig, RunConfig
from srlm.demo.settings import settings
from srlm.forecast.command import forecast
from srlm.loop import run
from srlm.progress import Progress
from srlm.report.summary import summarise
from srlm.report.terminal import print_summary
from srlm.report.words import number, percent


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

    def to_json(self) -> dict[str, Any]:
        """Numbers for programs."""
        return asdict(self)


def forecast_settings(config: RunConfig) -> ForecastConfig:
    """The forecast that the settings of a run ask for."""
    return ForecastConfig(
        model=config.model,
        prompts=config.prompts,
        max_tokens=config.samples.max_tokens,
        beta=config.update.beta,
        rounds=config.rounds,
        seed=config.seed,
        device=config.device,
        dtype=config.dtype,
    )


def show(start: str, seed: int, out: Path, *, progress: Progress, console: Console) -> Shown:
    """``srlm forecast`` and then ``srlm run`` on a model that is trained here.

    Args:
        start: good, diffuse or giveup.
        seed: of the base model and of the run.
        out: the run's folder; the forecast is in ``out``-forecast.
        progress: where stages are shown.
        console: where the tables go.
    """
    clock = [perf_counter()]
    config = settings(start, seed, progress)
    clock.append(perf_counter())
    _title(console, f"{start}: foretold")
    found = forecast(
        forecast_settings(config),
        out=out.with_name(out.name + "-forecast"),
        progress=progress,
        console=console,
    )
    clock.append(perf_counter())
    _title(console, f"{start}: run")
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
