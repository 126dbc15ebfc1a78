"""Reading a run folder: settings, manifest, the record of each round, forecasts, samples.

Everything beyond settings and metrics may be missing (a run in progress): what is absent is None
or empty here, and a report leaves it out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from srlm.config import flatten, read_yaml, reward_parts
from srlm.errors import UserError
from srlm.run_folder import tables
from srlm.types import Pairs, Round, Samples

LARGE = 1e4
"""kappa above which its logarithm is the number to read."""


@dataclass(frozen=True)
class Run:
    """What a folder holds."""

    folder: Path
    config: Mapping[str, Any]
    """Dotted keys."""
    manifest: Mapping[str, Any]
    """Dotted keys."""
    rounds: tuple[Round, ...]
    stop: Mapping[str, Any] = field(default_factory=dict)
    """``srlm.stopping.Stop`` of a run that was to stop by itself; empty for others."""
    forecasts: tuple[Mapping[str, Any], ...] = ()
    """forecast.json of each round that has one."""
    _held_out: dict[int, Samples | None] = field(default_factory=dict, repr=False, compare=False)

    @property
    def kappa_name(self) -> str:
        """``kappa``, or ``log10_kappa`` where kappa is undefined or astronomically large."""
        values = [r["kappa"].value for r in (self.rounds[0], self.rounds[-1])]
        large = any(v is None or v > LARGE for v in values)
        known = all(r["log10_kappa"].value is not None for r in self.rounds)
        return "log10_kappa" if large and known else "kappa"

    @property
    def aim(self) -> Aim:
        """``aim_of`` its reward."""
        return aim_of(self.config)

    @property
    def sure_name(self) -> str:
        """The estimate that says how sure the policy is of what its reward leads to."""
        voted = self.aim == "answers" and self.rounds[-1]["vote_share"].value is not None
        return "vote_share" if voted else "confidence"

    @property
    def spread_name(self) -> str | None:
        """The kappa that exact rounds of its reward never raise; None where there is none."""
        names = {"responses": self.kappa_name, "answers": "kappa_answer"}
        return names.get(self.aim)

    @property
    def has_answers(self) -> bool:
        """Whether sampling accuracy is known at both ends."""
        ends = (self.rounds[0], self.rounds[-1])
        return all(r["sampling_accuracy"].value is not None for r in ends)

    def held_out(self, t: int) -> Samples | None:
        """The held-out samples of round t, read once; None where they are not there."""
        if t not in self._held_out:
            file = _round_folder(self.folder, t) / "held_out.parquet"
            self._held_out[t] = tables.read_samples(file) if file.is_file() else None
        return self._held_out[t]

    def samples(self, t: int) -> tables.SamplesFile | None:
        """The training samples of round t, part by part; None where they are not there."""
        file = _round_folder(self.folder, t) / "samples.parquet"
        return tables.SamplesFile(file) if file.is_file() else None

    def pairs(self, t: int) -> Pairs | None:
        """The groups from which pi_{t+1} was trained; None where they are not there."""
        file = _round_folder(self.folder, t) / "pairs.parquet"
        return tables.read_pairs(file) if file.is_file() else None

    def policy(self, t: int) -> Path:
        """The folder of pi_t, for ``srlm.load``."""
        return _round_folder(self.folder, t) / "policy"


def sharpens(config: Mapping[str, Any]) -> bool:
    """Whether a run's reward leads to the base's own modes: the likelihood, and nothing beside.

    >>> sharpens({"reward": "likelihood"}), sharpens({"reward": "judge:1,likelihood:0.01"})
    (True, False)
    """
    return str(config.get("reward", "likelihood")) == "likelihood"


Aim = Literal["responses", "answers", "elsewhere"]


def aim_of(config: Mapping[str, Any]) -> Aim:
    """Where exact rounds of a run's reward lead: to the base's likeliest responses (the likelihood
    alone), to its likeliest answers (votes alone), or to what neither tells.

    Exact rounds never raise kappa of what they lead to: that of responses, or that of answers.

    >>> [aim_of({"reward": x}) for x in ("likelihood", "consistency", "consistency:1,judge:1")]
    ['responses', 'answers', 'elsewhere']
    """
    names = set(reward_parts(str(config.get("reward", "likelihood"))))
    if names == {"likelihood"}:
        return "responses"
    return "answers" if names == {"consistency"} else "elsewhere"


def read_run(folder: str | Path) -> Run:
    """Read a run folder. O(rounds x prompts).

    Raises:
        UserError: no folder, no metrics, a line that is no JSON object, or no round 0.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder", "give the folder of a run (its --out)")
    metrics = folder / "metrics.jsonl"
    if not metrics.is_file():
        raise UserError(
            f"{folder}: no metrics.jsonl, so nothing has been measured yet",
            "give the folder of a run whose round 0 is done",
        )
    rounds = tuple(
        sorted((_round(folder, line, at) for line, at in _lines(metrics)), key=lambda r: r.round)
    )
    if [r.round for r in rounds] != list(range(len(rounds))) or not rounds:
        found = ", ".join(str(r.round) for r in rounds) or "none"
        raise UserError(
            f"{metrics}: rounds must be 0, 1, 2, ...; found {found}",
            "run the same command again, so that the missing rounds are made",
        )
    config = folder / "config.yaml"
    forecasts = (_round_folder(folder, r.round) / "forecast.json" for r in rounds)
    return Run(
        folder=folder,
        config=flatten(read_yaml(config)) if config.is_file() else {},
        manifest=flatten(_object(folder / "manifest.json")),
        rounds=rounds,
        stop=_object(folder / "stop.json"),
        forecasts=tuple(filter(None, map(_object, forecasts))),
    )


def _round_folder(folder: Path, t: int) -> Path:
    return folder / "rounds" / f"{t:03d}"


def _lines(file: Path) -> list[tuple[dict[str, Any], str]]:
    text = file.read_text(encoding="utf-8")
    places = [(line, f"{file}: line {i}") for i, line in enumerate(text.split("\n"), 1)]
    return [(_parsed(line, at), at) for line, at in places if line.strip()]


def _object(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file."""
    return _parsed(file.read_text("utf-8"), str(file)) if file.is_file() else {}


def _parsed(text: str, place: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not JSON: {error}", "run the same command again") from None
    if not isinstance(data, dict):
        raise UserError(f"{place}: not a JSON object", "run the same command again")
    return data


def _round(folder: Path, data: dict[str, Any], place: str) -> Round:
    number = data.get("round")
    if not isinstance(number, int):
        raise UserError(f"{place}: no round number", "run the same command again")
    file = _round_folder(folder, number) / "prompts.parquet"
    return Round.from_json(data, tables.read_prompts(file) if file.is_file() else None)
