"""The demo: forecast, run, compared. Everything through the public commands' functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console

from srlm.config import ForecastConfig, PromptFile, RunConfig
from srlm.demo.corpus import named_start
from srlm.demo.settings import settings
from srlm.probe import forecast
from srlm.progress import Progress
from srlm.report.terminal import (
    Column,
    note,
    print_summary,
    rounds_table,
    title,
)
from srlm.report.words import number, percent
from srlm.runner import run


@dataclass(frozen=True, slots=True)
class Shown:
    """One start of the demo."""

    start: str
    folder: str
    verdict: str
    """go, no-go or unclear: the forecast before any training."""
    forecast: float | None
    """Sampling accuracy in the limit of exact updates."""
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
        prompts=PromptFile.model_validate(config.prompts.model_dump(exclude={"held_out"})),
        max_tokens=config.samples.max_tokens,
        beta=config.update.strength,
        rounds=config.rounds,
        seed=config.seed,
        device=config.device,
        dtype=config.dtype,
    )


def show(start: str, seed: int, out: Path, *, progress: Progress, console: Console) -> Shown:
    """``srlm forecast`` and then ``srlm run`` on a model that is trained here.

    Args:
        start: one of ``srlm.demo.corpus.STARTS``.
        seed: of the base model and of the run.
        out: the run's folder; the forecast is in ``out``-forecast.
        progress: where stages are shown.
        console: where the tables go.
    """
    clock = [perf_counter()]
    config = settings(named_start(start), seed, progress)
    clock.append(perf_counter())
    title(console, f"{start}: forecast")
    found = forecast(
        forecast_settings(config),
        out=out.with_name(out.name + "-forecast"),
        progress=progress,
        console=console,
    )
    clock.append(perf_counter())
    title(console, f"{start}: run")
    done = run(config, out, progress=progress)
    print_summary(done, console)
    clock.append(perf_counter())
    names = ("base", "forecast", "run")
    return Shown(
        start=start,
        folder=str(out),
        verdict=found.verdict.verdict,
        forecast=found.end.sampling_accuracy.value,
        rounds=[record.to_json() for record in done.rounds],
        seconds={
            name: round(b - a, 1) for name, a, b in zip(names, clock, clock[1:], strict=False)
        },
    )


def print_shown(shown: Sequence[Shown], console: Console) -> None:
    """Forecast and measured, one line per start."""
    columns: list[Column] = [
        ("start", lambda s: s.start),
        ("verdict", lambda s: s.verdict),
        ("forecast", lambda s: number(s.forecast)),
        ("accuracy", lambda s: _change(s, "sampling_accuracy")),
        ("headroom", lambda s: percent(s.rounds[-1]["headroom_captured"]["value"])),
        ("κ", lambda s: _change(s, "kappa")),
        ("fidelity", lambda s: number(s.rounds[-1]["fidelity"]["value"])),
        ("s", lambda s: f"{sum(s.seconds.values()):.0f}"),
    ]
    title(console, "forecast and measured")
    console.print(rounds_table(console, columns, shown))
    note(console, "forecast: limit of sampling accuracy, before training; accuracy: sampling.")
    for s in shown:
        parts = ", ".join(f"{name} {seconds:g} s" for name, seconds in s.seconds.items())
        rounds = [sum(line["seconds"].values()) for line in s.rounds[1:]]
        slowest = f"; slowest round {max(rounds):.0f} s" if rounds else ""
        note(console, f"{s.start}: {parts}{slowest}. {s.folder}/report.html")


def _change(s: Shown, name: str) -> str:
    return f"{number(s.rounds[0][name]['value'])} → {number(s.rounds[-1][name]['value'])}"
