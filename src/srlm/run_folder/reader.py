"""Reading a run folder: settings, manifest, the record of each round, forecasts, samples.

Everything beyond the records of the rounds may be missing (a run in progress): what is absent is
None or empty here, and a report leaves it out. So it does with what is not as it was written, which
``Run.damaged`` names. A round's record is in two places, round.json and a line of metrics.jsonl.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from srlm.config import flatten, reward_parts
from srlm.errors import UserError
from srlm.run_folder import record as recording
from srlm.run_folder import tables
from srlm.run_folder.inputs import read_inputs
from srlm.run_folder.record import CHANGED, MISSING, Record, round_folder
from srlm.types import Pairs, Round, Samples
from srlm.writing import json_text

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
    damaged: Mapping[str, str] = field(default_factory=dict)
    """Files that are missing or not as they were written, and so left out, by name."""
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
        names = {"responses": self.kappa_name, "answers": "kappa_vote"}
        return names.get(self.aim)

    @property
    def has_answers(self) -> bool:
        """Whether sampling accuracy is known at both ends."""
        ends = (self.rounds[0], self.rounds[-1])
        return all(r["sampling_accuracy"].value is not None for r in ends)

    def held_out(self, t: int) -> Samples | None:
        """The held-out samples of round t, read once; None where they are not there."""
        if t not in self._held_out:
            file = self._whole(t, "held_out.parquet")
            self._held_out[t] = None if file is None else tables.read_samples(file)
        return self._held_out[t]

    def samples(self, t: int) -> tables.SamplesFile | None:
        """The training samples of round t, part by part; None where they are not there."""
        file = self._whole(t, "samples.parquet")
        return None if file is None else tables.SamplesFile(file)

    def pairs(self, t: int) -> Pairs | None:
        """The groups from which pi_{t+1} was trained; None where they are not there."""
        file = self._whole(t, "pairs.parquet")
        return None if file is None else tables.read_pairs(file)

    def by_prompt(self, t: int, name: str, first: int = 0) -> Iterator[list[dict[str, Any]]]:
        """The rows of each prompt of a round's ``samples.parquet``, ``held_out.parquet`` or
        ``pairs.parquet``, streamed; none where the file is not there."""
        file = self._whole(t, name)
        return iter(()) if file is None else tables.by_prompt(file, first)

    def inputs(self) -> list[tuple[str, bytes]]:
        """Name and bytes of each file of prompts that the run was made from; none where one of
        them is not as it was read."""
        return read_inputs(self.folder)

    def _whole(self, t: int, name: str) -> Path | None:
        """A file of a round, if it is there and as it was written."""
        file = round_folder(self.folder, t) / name
        damaged = f"rounds/{t:03d}/{name}" in self.damaged
        return file if file.is_file() and not damaged else None

    def policy(self, t: int) -> Path:
        """The folder of pi_t, for ``srlm.load``."""
        return round_folder(self.folder, t) / "policy"


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

    Exact rounds never raise kappa of what they lead to: that of responses, or that of votes.

    >>> [aim_of({"reward": x}) for x in ("likelihood", "consistency", "consistency:1,judge:1")]
    ['responses', 'answers', 'elsewhere']
    """
    names = set(reward_parts(str(config.get("reward", "likelihood"))))
    if names == {"likelihood"}:
        return "responses"
    return "answers" if names == {"consistency"} else "elsewhere"


def read_run(folder: str | Path, *, hash_of: Callable[[Path], str] | None = None) -> Run:
    """Read a run folder, checking what is read. O(rounds x prompts).

    A round whose record is lost, and those after it, are left out.

    Args:
        folder: of the run.
        hash_of: SHA-256 of a file; for one who reads again and again and knows some already.

    Raises:
        UserError: no folder, or no record of round 0.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder", "give the folder of a run (its --out)")
    damaged: dict[str, str] = {}
    lines = lines_of(folder / "metrics.jsonl")
    rounds: list[Round] = []
    forecasts = []
    lost = None
    before: Record | None = None
    for t in recording.round_numbers(folder):
        place, name = round_folder(folder, t), f"rounds/{t:03d}/"
        record = recording.read_record(folder, t)
        told = trusted_record(place, record, lines.get(t), before)
        here = _wrong(place, record, hash_of)
        damaged |= {name + file: what for file, what in here.items()}
        before = record
        if told is None and record is not None and not record.of("round.json"):
            break  # it is being made
        if told is None or t != len(rounds):
            lost = t if lost is None else lost
            continue
        if lost is None:
            at = {} if record is None else record.files
            table = place / "prompts.parquet"
            whole = "prompts.parquet" in at and "prompts.parquet" not in here
            rounds.append(Round.from_json(told, tables.read_prompts(table) if whole else None))
            if "forecast.json" in at and "forecast.json" not in here:
                forecasts.append(json.loads((place / "forecast.json").read_text("utf-8")))
    if lost is not None and rounds:
        damaged[f"rounds/{lost:03d}"] = "no record of it is whole; later rounds are left out"
    if not rounds:
        found = "; ".join(f"{name}: {what}" for name, what in damaged.items())
        if lost is None and not found:
            raise UserError(
                f"{folder}: nothing has been measured yet",
                "give the folder of a run whose round 0 is done",
            )
        raise UserError(
            f"{folder}: no record of round 0 is whole ({found or 'files.json: missing'})",
            "give the command of the run again, so that it is made",
        )
    config = flatten(_settings(folder, damaged))
    ended = has_stop(config, rounds[-1].round)
    return Run(
        folder=folder,
        config=config,
        manifest=flatten(_sealed(folder, "manifest.json", damaged, wanted=True)),
        rounds=tuple(rounds),
        stop=_sealed(folder, "stop.json", damaged, wanted=ended),
        forecasts=tuple(forecasts),
        damaged=damaged,
    )


def trusted_record(
    place: Path, record: Record | None, line: Mapping[str, Any] | None, before: Record | None
) -> dict[str, Any] | None:
    """A round's record as metrics.jsonl has it, with its times; None where it cannot be trusted.

    One of the two copies that has the hash in files.json; where that is lost, two that agree.
    """
    try:
        first = (place / "round.json").read_bytes()
    except OSError:
        first = b""
    second = b""
    if line is not None:
        second = json_text({k: v for k, v in line.items() if k != "seconds"}).encode()
    if record is None:
        trusted = [first] if first and first == second else []
    else:
        sha256 = record.files.get("round.json")
        trusted = [x for x in (first, second) if hashlib.sha256(x).hexdigest() == sha256]
    if not trusted:
        return None
    return json.loads(recording.metrics_line(json.loads(trusted[0]), before, record))


def _wrong(
    place: Path, record: Record | None, hash_of: Callable[[Path], str] | None
) -> dict[str, str]:
    """Of the files that a report reads those that are not as they were written."""
    if record is None:
        some = [p for p in place.iterdir() if not p.name.endswith(".partial")]
        state = CHANGED if (place / recording.NAME).exists() else MISSING
        return {recording.NAME: state} if some else {}
    read = (
        "round.json", "prompts.parquet", "held_out.parquet", "forecast.json", "samples.parquet",
        "pairs.parquet",
    )  # fmt: skip
    files = {name: record.files[name] for name in read if name in record.files}
    return recording.wrong(place, files, hash_of)


def lines_of(file: Path) -> dict[int, dict[str, Any]]:
    """The lines of metrics.jsonl that can be read, by round."""
    out: dict[int, dict[str, Any]] = {}
    for line in file.read_bytes().splitlines() if file.is_file() else ():
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(data, dict) and isinstance(data.get("round"), int):
            out[data["round"]] = data
    return out


def has_stop(config: Mapping[str, Any], last: int) -> bool:
    """Whether a run that came to this round has ended and said why; it may have ended before."""
    return config.get("stop") == "auto" and config.get("rounds") == last


def _sealed(
    folder: Path, name: str, damaged: dict[str, str], *, wanted: bool = False
) -> dict[str, Any]:
    """A sealed object; empty where there is none."""
    found = recording.unsealed(folder / name)
    if found is None and (wanted or (folder / name).exists()):
        damaged[name] = CHANGED if (folder / name).exists() else MISSING
    return found or {}


def _settings(folder: Path, damaged: dict[str, str]) -> dict[str, Any]:
    """config.yaml; where it is not whole, the settings in the first record that has them."""
    file = folder / "config.yaml"
    text = recording.unsealed_lines(file)
    if text is not None:
        return dict(yaml.safe_load(text))
    damaged["config.yaml"] = CHANGED if file.exists() else MISSING
    records = (recording.read_record(folder, t) for t in recording.round_numbers(folder))
    return next((dict(r.settings) for r in records if r is not None), {})
