"""``srlm forecast --pilot N``: run N rounds, then forecast the rest at the pace seen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srlm.config import ForecastConfig, RunConfig
from srlm.errors import UserError
from srlm.forecast.after_round import evidence_of_round
from srlm.forecast.pace import Later, Pace, later_rounds
from srlm.loop import run
from srlm.progress import Progress


@dataclass(frozen=True, slots=True)
class Pilot:
    """What the pilot rounds were, and the forecast of later rounds from the last of them."""

    folder: Path
    rounds: list[dict[str, Any]]
    """The lines of the pilot's metrics.jsonl."""
    paces: list[Pace]
    later: list[Later]

    def to_json(self) -> dict[str, Any]:
        """Numbers for programs."""
        return {
            "folder": str(self.folder),
            "rounds": self.rounds,
            "efficiency": [p.efficiency for p in self.paces],
            "later": [x.to_json() for x in self.later],
        }


def pilot(config: ForecastConfig, out: Path, *, progress: Progress) -> Pilot:
    """Run ``config.pilot`` rounds of ``srlm run`` in ``out``; forecast up to ``config.rounds``.

    The pilot is a run like any other: it continues where it stopped, has its report, and
    `srlm run` with the same settings and more rounds repeats it exactly.

    Raises:
        UserError: more pilot rounds than rounds; whatever ``srlm.loop.run`` raises.
    """
    if config.pilot >= config.rounds:
        raise UserError(
            f"--pilot {config.pilot} of --rounds {config.rounds}: no later round to forecast",
            "ask about more rounds",
        )
    settings = run_settings(config)
    summary = run(settings, out, progress=progress)
    last = out / "rounds" / f"{config.pilot:03d}" / "forecast.json"
    paces = [Pace(**p) for p in json.loads(last.read_text(encoding="utf-8"))["paces"]]
    now = evidence_of_round(out, config.pilot, settings.prompts.answer, settings.seed)
    return Pilot(
        out,
        summary.rounds,
        paces,
        later_rounds(now, config.pilot, paces, beta=config.beta, rounds=config.rounds),
    )


def run_settings(config: ForecastConfig) -> RunConfig:
    """The run that a forecast with a pilot asks about."""
    return RunConfig(
        model=config.model,
        download=config.download,
        prompts=config.prompts,
        rounds=config.pilot,
        seed=config.seed,
        samples=config.train.model_copy(update={"max_tokens": config.max_tokens}),
        update=config.update.model_copy(update={"beta": config.beta}),
        device=config.device,
        dtype=config.dtype,
    )
