"""``srlm forecast --samples``: from a file of samples to a table, JSON and a page.

No model is needed, and neither torch nor transformers, most of the seconds of a start, imported.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from srlm.config import ForecastConfig, ProbeConfig, SamplesConfig, flatten
from srlm.engines.files import open_samples
from srlm.forecast.from_samples import SamplesForecast, forecast_file
from srlm.forecast.tally import known_answers, references
from srlm.grading import grader
from srlm.report.page import write_samples_forecast
from srlm.report.samples_forecast import print_samples_forecast
from srlm.report.terminal import print_pilot
from srlm.writing import write_json


def forecast_samples(
    config: SamplesConfig, *, out: Path | None = None, json_file: Path | None = None
) -> SamplesForecast:
    """``srlm forecast --samples FILE``: no model; the file's samples say all.

    Raises:
        UserError: what is wrong with the file, the answers or the prompts.
    """
    file = open_samples(Path(config.file))
    known = known_answers(Path(config.prompts)) if config.prompts else None
    found = forecast_file(
        file,
        grader(config.answer, references(file, known)),
        known=known,
        beta=config.beta,
        rounds=config.rounds,
        seed=config.seed,
    )
    tell(found, config, out, json_file)
    return found


def tell(
    found: SamplesForecast,
    config: SamplesConfig | ForecastConfig,
    out: Path | None,
    json_file: Path | None,
    piloted: dict[str, Any] | None = None,
) -> None:
    """Print a forecast of samples; its JSON and its page where they are asked for."""
    console = Console(highlight=False)
    print_samples_forecast(found, console)
    data = found.to_json()
    if piloted is not None:
        data["pilot"] = piloted
        print_pilot(piloted, console)
    write_found(data, config, partial(write_samples_forecast, found), out, json_file, console)


def write_found(
    data: dict[str, Any],
    config: ProbeConfig | SamplesConfig,
    page: Callable[[Path, dict[str, Any]], Path],
    out: Path | None,
    json_file: Path | None,
    console: Console,
) -> None:
    """JSON and a page, where they are asked for; ``page`` writes it, from folder and settings."""
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(json_file, data)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        file = page(out, flatten(config.model_dump(mode="json")))
        write_json(file.with_suffix(".json"), data)
        console.print(f"\nPage: {file}", soft_wrap=True, markup=False)
