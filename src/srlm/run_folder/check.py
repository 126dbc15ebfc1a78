"""Whether a run folder is as it was written: every file of it, by its hash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from srlm.errors import UserError
from srlm.run_folder import record as recording
from srlm.run_folder.inputs import wrong_inputs
from srlm.run_folder.reader import has_stop, lines_of, trusted_record
from srlm.run_folder.record import CHANGED, MISSING, Record, round_folder

AGAIN = "give the command of the run again: it is made again"
PAGE = "report.html"


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not as it was written."""

    name: str
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What ``check`` found."""

    files: int
    rounds: int
    damage: tuple[Damage, ...]


def check(folder: Path) -> Checked:
    """Check every file of a run folder. Reads all of it; changes nothing.

    Raises:
        UserError: it is no run folder.
    """
    numbers = recording.round_numbers(folder) if folder.is_dir() else []
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder", "give the folder of a run (its --out)")
    if not numbers:
        raise UserError(f"{folder}: holds no rounds", "give the folder of a run (its --out)")
    records = {t: recording.read_record(folder, t) for t in numbers}
    damage = [*_top(folder, records)]
    last = max((t for t, r in records.items() if r and r.of("policy")), default=0)
    files = 0
    for t, record in records.items():
        files += 1 + (0 if record is None else len(record.files))
        damage += _round(folder, t, record, records, last)
    rounds = sum(r is not None and "round.json" in r.files for r in records.values())
    return Checked(files, rounds, tuple(damage))


def _top(folder: Path, records: dict[int, Record | None]) -> Iterator[Damage]:
    for name, whole in (
        ("config.yaml", recording.unsealed_lines(folder / "config.yaml") is not None),
        ("manifest.json", recording.unsealed(folder / "manifest.json") is not None),
    ):
        if not whole:
            yield Damage(name, _state(folder / name), AGAIN)
    stop, text = folder / "stop.json", recording.unsealed_lines(folder / "config.yaml")
    last = max((t for t, r in records.items() if r and r.of("round.json")), default=0)
    wanted = text is not None and has_stop(yaml.safe_load(text), last)
    if recording.unsealed(stop) is None and (wanted or stop.exists()):
        yield Damage("stop.json", _state(stop), AGAIN)
    page = folder / PAGE
    if page.exists() and not recording.whole_page(page):
        yield Damage(PAGE, CHANGED, f"srlm report {folder} writes it again")
    yield from (Damage(n, what, AGAIN) for n, what in wrong_inputs(folder).items())
    metrics, lines = folder / "metrics.jsonl", lines_of(folder / "metrics.jsonl")
    made, before = "", None
    for t, record in records.items():
        told = trusted_record(round_folder(folder, t), record, lines.get(t), before)
        before = record
        if told is None:
            break
        made += recording.json_line(told)
    if not metrics.exists() or metrics.read_bytes() != made.encode():
        yield Damage("metrics.jsonl", _state(metrics), AGAIN)


def _round(
    folder: Path, t: int, record: Record | None, records: dict[int, Record | None], last: int
) -> Iterator[Damage]:
    """What is wrong in the folder of a round."""
    place, name = round_folder(folder, t), f"rounds/{t:03d}"
    begin = f"delete {name} and those after it, and give the command of the run again"
    if record is None:
        file = place / recording.NAME
        yield Damage(f"{name}/{recording.NAME}", _state(file), AGAIN)
        return
    first = next((r for r in records.values() if r is not None), record)
    if (record.settings, record.inputs) != (first.settings, first.inputs):
        yield Damage(name, "made with other settings or inputs than the first round", begin)
    before = records.get(t - 1)
    there = {} if before is None else before.files
    if any(there.get(file, sha256) != sha256 for file, sha256 in record.made_from.items()):
        yield Damage(name, "made from other files than those of the round before", begin)
    for lost, what in recording.wrong(place, record.files).items():
        unread = lost.startswith("policy/") and lost != recording.CARD and 0 < t < last
        unread |= lost == "samples.parquet" and "pairs.parquet" in record.files
        remedy = f"no later step reads it; to have it again, {begin}" if unread else AGAIN
        yield Damage(f"{name}/{lost}", what, remedy)


def _state(file: Path) -> str:
    return CHANGED if file.exists() else MISSING
