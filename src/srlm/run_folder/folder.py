"""Keeping the stages of a run: in a folder that survives being killed, or in memory."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import yaml

from srlm import writing
from srlm.config import AUTO, RunConfig, differences, flatten
from srlm.engines.base import MemoryShelf, Shelf
from srlm.errors import UserError
from srlm.policies.base import Policy
from srlm.policies.places import DROPPED, REFERENCE, located
from srlm.run_folder import record as recording
from srlm.run_folder import shelf, tables
from srlm.run_folder.beside import BESIDE
from srlm.run_folder.inputs import PLACE, keep_inputs
from srlm.run_folder.lock import Lock
from srlm.run_folder.manifest import decisive, manifest, versions, with_decisive
from srlm.run_folder.record import MISSING, Record, round_folder
from srlm.run_folder.shelf import FolderShelf
from srlm.stopping import OUT_OF_TIME, Stop
from srlm.types import Floats, Ints, Prompt, PromptTable, Round, Tokens, UpdateReport


class Folder(Protocol):
    """Where the loop keeps the stages of a round t, and looks which are done.

    The stages: ``policy`` (pi_t, and the report of the update that made it), ``held_out`` and
    ``table`` (what pi_t was measured on), ``round`` (its record), ``samples``, ``rewards`` (a
    report) and ``pairs`` of pi_t, from which pi_{t+1} is trained.
    """

    def begin(self, policy: Policy) -> None:
        """Take the policy in memory: the base, or the last one that is there."""
        ...

    def has(self, t: int, stage: str) -> bool:
        """Whether a stage is done; where it is not, its clock starts."""
        ...

    def keep(self, t: int, stage: str, value: Any, prompts: Sequence[Prompt] = ()) -> None:
        """Keep a stage, atomically; ``prompts`` are those that its rows count."""
        ...

    def get(self, t: int, stage: str) -> Any:
        """A stage that is done."""
        ...

    def shelf(self, t: int, kind: str) -> Shelf:
        """Where the pieces of a kind of round t's work are put aside until all are there."""
        ...

    def base_log_prob(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> Floats:
        """log pi_0(y|x), [R], nats."""
        ...

    def end(self, stop: Stop) -> None:
        """Keep why the run ended."""
        ...


class Memory:
    """A run in memory: all records, the base, and of everything else the last.

    >>> memory = Memory()
    >>> memory.has(0, "round")
    False
    """

    def __init__(self) -> None:
        self.rounds: list[Round] = []
        self.stop: Stop | None = None
        self._base: dict[str, Any] = {}
        self._last: dict[str, tuple[int, Any]] = {}

    @property
    def policy(self) -> Policy:
        """The last policy."""
        made: Policy = self._last["policy"][1]
        return made

    def begin(self, policy: Policy) -> None:
        """The base is the caller's own policy; a copy is trained."""
        if not self._base:
            self._base["policy"] = policy
            self._last["policy"] = (0, policy.copy())

    def has(self, t: int, stage: str) -> bool:
        """Whether a stage is there."""
        if stage == "round":
            return t < len(self.rounds)
        return (t == 0 and stage in self._base) or self._last.get(stage, (-1,))[0] == t

    def keep(self, t: int, stage: str, value: Any, prompts: Sequence[Prompt] = ()) -> None:
        """Keep a stage in the place of the round before's."""
        if stage == "round":
            self.rounds.append(replace(value, table=self.get(t, "table")))
        elif stage == "policy":
            self._last |= {"policy": (t, value[0]), "update": (t, value[1])}
        else:
            if stage == "samples":
                value = tuple(value)
            elif stage == "table":
                value = PromptTable.of(value)
            self._last[stage] = (t, value)
            if t == 0 and stage in ("held_out", "table"):
                self._base[stage] = value

    def get(self, t: int, stage: str) -> Any:
        """A stage that is there."""
        if stage == "round":
            return self.rounds[t]
        at, value = self._last[stage]
        return self._base[stage] if at != t else value

    def shelf(self, t: int, kind: str) -> Shelf:
        """In memory."""
        return MemoryShelf()

    def base_log_prob(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> Floats:
        """By the caller's policy."""
        base: Policy = self._base["policy"]
        return base.log_prob(prompts, prompt_R, tokens_R)

    def end(self, stop: Stop) -> None:
        """Why the run ended."""
        self.stop = stop


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage in a folder."""

    file: str
    write: Callable[[Sequence[Prompt], Any, Path], None]
    read: Callable[[Path], Any]
    clock: str = ""
    """Name of its time in files.json."""


class RunFolder:
    """An open run folder, locked against other processes; a context manager.

    Files are read only where they have the hash that ``files.json`` gives. What the run needs and
    does not find so is made again; the stages that rest on it stay where that gives the same bytes.

    Args:
        folder: made if missing.
        config: the run's settings.
        open_policy: reads a policy from a folder.
        inputs: SHA-256 of the ``model`` and the ``prompts``.

    Raises:
        UserError: rounds were made with other settings or inputs than these, the number of rounds
            left aside (the differences are listed); it is no run folder; or it is in use. Later: a
            stage that others rest on, made again, is not the same; the folder was deleted.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        open_policy: Callable[[Path], Policy],
        inputs: Mapping[str, str],
    ) -> None:
        self.folder = folder
        self._asked = self._config = config
        self._open, self._inputs = open_policy, dict(inputs)
        self.settled: RunConfig | None = None
        """The settings that the run was begun with; None in a new folder."""
        self._policy: tuple[int, Policy] | None = None
        """The one in memory, and its round; others are opened only to make a stage again."""
        self._clock = time.perf_counter()
        self.notes: list[str] = []
        """What was found damaged."""
        self._lines: list[str] = []
        self._bad: set[tuple[int, str]] = set()
        self._unread: set[tuple[int, str]] = set()
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: not a folder", "give another --out")
        if folder.is_dir() and any(folder.iterdir()) and not _ours(folder):
            raise UserError(
                f"{folder}: holds files that are no run's", "give an empty --out folder"
            )
        self._lock = Lock(folder)
        try:
            self._begin()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        there = self._lock.there()
        self._lock.release()
        if isinstance(error, Exception) and not there:
            raise self._gone() from error

    def _begin(self) -> None:
        """Check the settings, find what can be used, clear what a killed run left half made."""
        self._records = {
            t: recording.read_record(self.folder, t)
            for t in recording.round_numbers(self.folder)
            if any(not _half_made(p.name) for p in round_folder(self.folder, t).iterdir())
        }
        settings = self._asked.model_dump(mode="json")
        file = self.folder / "config.yaml"
        text = recording.unsealed_lines(file)
        old = None if text is None else yaml.safe_load(text)
        if self._records:
            chosen = self._same_settings(settings, old)
            if chosen is not None:
                settings = chosen
                self._config = self.settled = RunConfig.model_validate(settings)
            if old is None:
                self.notes.append("config.yaml was damaged or missing, and is written again")
        for leftover in _leftovers(self.folder):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        for t in self._records:
            for stage, kinds in PIECES.items():
                if self._path(t, stage).is_file():
                    shelf.clear(round_folder(self.folder, t), kinds)
        stop = self.folder / "stop.json"
        if (recording.unsealed(stop) or {}).get("code") == OUT_OF_TIME:
            stop.unlink()
        if old != settings:  # until there is a round settings may be mended
            (self.folder / "stop.json").unlink(missing_ok=True)
            self._write_settings(settings)
        self._find_damage()
        self._write_metrics()

    def _same_settings(
        self, asked: dict[str, Any], old: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """The settings that the rounds were made with; others, and other inputs, are refused.

        What was left open may be left open again, or asked for as it was chosen.

        Args:
            asked: for now.
            old: config.yaml; None where that is not whole, and the rounds' records speak.
        """
        rounds = [r for r in self._records.values() if r is not None]
        if old is None and rounds:
            old = with_decisive(asked, rounds[0].settings)
        if old is None:
            return None
        given, then = flatten(decisive(asked)), flatten(decisive(old))
        told = recording.unsealed(self.folder / "manifest.json")
        before = then if told is None else flatten(decisive(told["asked"]))
        open_now = (None, AUTO) if told is None else ()
        same = {k: v for k, v in given.items() if before.get(k) == v or v in open_now}
        changed = differences(then | same, given)
        for r in rounds:
            changed = changed or differences(dict(r.settings), decisive(old))
        if changed:
            raise UserError(
                f"{self.folder}: made with other settings: " + "; ".join(changed),
                "use the same settings to go on, or another --out",
            )
        for r in rounds:
            if changed := differences(dict(r.inputs), self._inputs):
                raise UserError(
                    f"{self.folder}: round {r.round} was made from other files (SHA-256): "
                    + "; ".join(changed),
                    "put the old files back, or give another --out",
                )
        return with_decisive(asked, decisive(old)) | {"keep": asked["keep"] or old.get("keep")}

    def _write_settings(self, settings: dict[str, Any]) -> None:
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        writing.write_text(self.folder / "config.yaml", recording.sealed_lines(text))

    def describe(
        self, config: RunConfig, files: Sequence[tuple[str, bytes]], train: int, held_out: int
    ) -> None:
        """Write settings, manifest and a copy of the prompts, once.

        Args:
            config: the settings with nothing left open; ``settled`` where there is one.
            files: name and bytes of each file of prompts, as they were read.
            train, held_out: how many prompts.
        """
        if self.settled != config:
            self._config = self.settled = config
            self._write_settings(config.model_dump(mode="json"))
        keep_inputs(self.folder, files)
        file = self.folder / "manifest.json"
        if self._records and recording.unsealed(file) is not None:
            return
        if self._records:
            self.notes.append("manifest.json was damaged or missing, and is written again")
        made = manifest(self._asked, self._inputs, train, held_out)
        recording.write_sealed(file, made)

    def last(self) -> int:
        """The number of the last policy that can be used."""
        return max((t for t in self._records if self.has(t, "policy")), default=0)

    def latest(self) -> Path | None:
        """The last policy that was made: where the run goes on. None if there is no base."""
        if not self.has(0, "policy"):
            return None
        return self._place(self.last())

    def _place(self, t: int) -> Path:
        return self._path(t, "policy") if t else Path(self._config.model)

    # ---- stages

    def begin(self, policy: Policy) -> None:
        """The base is the one that is trained; as round 0's policy is kept where it is."""
        if self.has(0, "policy"):
            self._policy = (self.last(), policy)
            return
        self._policy = (0, policy)
        place = located(self._config.model, download=False)
        hub = not Path(self._config.model).is_dir()
        base = {
            "model": str(place.resolve()),
            "name": self._config.model,
            "revision": place.name if hub else None,
            "sha256": self._inputs["model"],
        }
        self.keep(0, "policy", (base, None))

    def drop(self, t: int) -> None:
        """Keep the weights of pi_t no longer; adapters stay, since later rounds rest on them.

        What goes is named in dropped.json first: a kill in between is made good the next time.
        Only files that this class wrote go.
        """
        place, record = round_folder(self.folder, t), self._records.get(t)
        if t == 0 or record is None:
            return
        marker = place / DROPPED
        names = [name for name in record.of("policy") if name.startswith("policy/model")]
        names += record.of(recording.CARD) if names else ()
        if not marker.is_file():
            if not names:
                return
            writing.write_json(marker, {"files": names})
        if names:
            record.files = {k: v for k, v in record.files.items() if k not in names}
            recording.write_record(self.folder, record)
        for name in writing.read_json(marker)["files"]:
            (place / name).unlink(missing_ok=True)

    def dropped(self, t: int) -> bool:
        """Whether the weights of pi_t are kept no longer."""
        return (round_folder(self.folder, t) / DROPPED).is_file()

    def has(self, t: int, stage: str) -> bool:
        """Whether a stage is there and can be used; if not, the stage's clock starts."""
        self._clock = time.perf_counter()
        record = self._records.get(t)
        known = record is not None and bool(record.of(STAGES[stage].file))
        return known and (t, stage) not in self._bad

    def seconds(self, t: int) -> float:
        """What a round took when it was made; 0 where it is not there."""
        if not self.has(t, "round"):
            return 0.0
        return sum(recording.seconds(self._records.get(t - 1), self._records.get(t)).values())

    def keep(self, t: int, stage: str, value: Any, prompts: Sequence[Prompt] = ()) -> None:
        """Write a stage, and before it is there its hash and time."""
        if not self._lock.there():
            raise self._gone()
        path, how = self._path(t, stage), STAGES[stage]
        path.parent.mkdir(parents=True, exist_ok=True)
        if stage == "round":
            value = {name: x for name, x in value.to_json().items() if name != "seconds"}

        def write(partial: Path) -> None:
            how.write(prompts, value, partial)
            self._record(t, stage, recording.hashes(partial, how.file))

        writing.commit(path, write)
        self._bad.discard((t, stage))
        self._unread.discard((t, stage))
        if stage == "round":
            self._write_metrics(value)
        elif stage == "policy" and t:
            self._policy = (t, value[0])
        shelf.clear(path.parent, PIECES.get(stage, ()))

    def get(self, t: int, stage: str) -> Any:
        """Read a stage.

        Raises:
            UserError: it is damaged, and was not needed when the folder was opened.
        """
        whole = "policy" if stage == "update" else stage
        if (t, whole) in self._unread:
            record = self._records[t]
            assert record is not None  # what is unread is recorded
            files = record.of(STAGES[whole].file)
            if wrong := recording.wrong(round_folder(self.folder, t), files):
                raise UserError(
                    f"{self.folder}: {_told(t, wrong)}",
                    f"delete rounds/{t:03d} and those after it, and give the same command",
                )
            self._unread.discard((t, whole))
        if stage == "policy":
            if self._policy is None or self._policy[0] != t:
                self._policy = (t, self._open(self._place(t)))
            return self._policy[1]
        found = STAGES[stage].read(self._path(t, stage))
        return replace(found, table=self.get(t, "table")) if stage == "round" else found

    def shelf(self, t: int, kind: str) -> FolderShelf:
        """In the round's folder; gone when the stage is there (``PIECES``)."""
        whole = self._path(t, "policy") if t else located(self._config.model, download=False)
        return shelf.shelf(round_folder(self.folder, t) / shelf.NAME, whole, kind)

    def base_log_prob(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> Floats:
        """The base is read anew, so that it takes memory only while it scores."""
        return self._open(self._place(0)).log_prob(prompts, prompt_R, tokens_R)

    def end(self, stop: Stop) -> None:
        """Write stop.json."""
        recording.write_sealed(self.folder / "stop.json", stop.to_json())

    def _record(self, t: int, stage: str, new: dict[str, str]) -> None:
        """Note a stage's hashes, and its time, before it is there."""
        name, clock = STAGES[stage].file, STAGES[stage].clock
        record = self._records.get(t)
        if record is None:
            before = self._records.get(t - 1)
            used = {} if before is None else before.of("policy") | before.of("pairs.parquet")
            settings = decisive(self._config.model_dump(mode="json"))
            record = Record(t, settings, self._inputs, {}, used)
        after = self._records.get(t + 1)
        old = record.of(name) or recording.within({} if after is None else after.made_from, name)
        rests = stage != "card" and self._others_rest_on(t, stage)
        if old and old != new and rests:
            raise UserError(
                f"{self.folder}: rounds/{t:03d}/{name} was damaged or missing, and made again it is"
                f" not the same as before{_since(record.versions)}; what came after rests on it",
                f"delete rounds/{t:03d} and those after it: the same command makes them again",
            )
        record.files = {k: v for k, v in record.files.items() if k not in old} | new
        for library, version in versions().items():
            known = [v for v in record.versions.get(library, "").split(", ") if v]
            record.versions[library] = ", ".join(dict.fromkeys([*known, version]))
        if clock and (t, stage) != (0, "policy"):
            record.seconds[clock] = round(time.perf_counter() - self._clock, 3)
        recording.write_record(self.folder, record)
        self._records[t] = record

    def _others_rest_on(self, t: int, stage: str) -> bool:
        """Whether a later stage is there that is not to be made again itself."""
        return any(
            (s, ORDER[other]) > (t, ORDER[stage]) and (s, other) not in self._bad
            for s, other, _ in self._recorded()
        )

    def _find_damage(self) -> None:
        """What is not as recorded, of what a run reads; of everything, where that is some of it."""
        last = max((t for t, r in self._records.items() if r and r.of("policy")), default=0)
        found: dict[tuple[int, str], dict[str, str]] = {}
        for everything in (False, True):
            for t, stage, files in self._recorded():
                record = self._records[t]
                assert record is not None  # it has files
                unread = stage == "policy" and 0 < t < last
                unread |= stage == "samples" and bool(record.of("pairs.parquet"))
                if unread and not everything:
                    self._unread.add((t, stage))
                elif wrong := recording.wrong(round_folder(self.folder, t), files):
                    found[t, stage] = wrong
            if not found:
                break
            self._unread.clear()
        *_, begun = [(0, ""), *((t, stage) for t, stage, _ in self._recorded())]
        for at, files in found.items():
            if at != begun or set(files.values()) != {MISSING}:  # else a kill
                self.notes.append(f"{_told(at[0], files)}; made again")
        for t, record in self._records.items():
            if record is None:
                self.notes.append(
                    f"rounds/{t:03d}/files.json: damaged or missing; the round is made again"
                )
        self._bad = {
            (t, other) for t, stage in found for other in ORDER if ORDER[other] == ORDER[stage]
        }

    def _recorded(self) -> Iterator[tuple[int, str, dict[str, str]]]:
        """Every stage that was kept, in order, with its hashes."""
        for t, record in sorted(self._records.items()):
            for stage in ORDER:
                if record is not None and (files := record.of(STAGES[stage].file)):
                    yield t, stage, files

    def _path(self, t: int, stage: str) -> Path:
        return round_folder(self.folder, t) / STAGES[stage].file

    def _gone(self) -> UserError:
        return UserError(
            f"{self.folder}: deleted or moved while the run went on",
            "give the same command again; it begins anew where the folder is not there",
        )

    def _write_metrics(self, last: dict[str, Any] | None = None) -> None:
        """metrics.jsonl: the records of the rounds, with the time that each took."""
        while self.has(t := len(self._lines), "round"):
            new = last if last is not None and last["round"] == t else None
            told = new or writing.read_json(self._path(t, "round"))
            before, own = self._records.get(t - 1), self._records.get(t)
            self._lines.append(recording.metrics_line(told, before, own))
        file, text = self.folder / "metrics.jsonl", "".join(self._lines)
        if not file.exists() or file.read_bytes() != text.encode():
            writing.write_text(file, text)


def _told(t: int, found: Mapping[str, str]) -> str:
    return ", ".join(f"rounds/{t:03d}/{name}: {what}" for name, what in found.items())


def _since(then: Mapping[str, str]) -> str:
    changed = [f"{k} {v} -> {w}" for k, w in versions().items() if (v := then.get(k, w)) != w]
    return f" ({', '.join(changed)})" if changed else ""


TOP = ("config.yaml", "manifest.json", "metrics.jsonl", "stop.json", *BESIDE)
"""What a run writes beside its rounds; the page is the report's."""


def _leftovers(folder: Path) -> list[Path]:
    """Half-made files and folders of a run that was killed."""
    within = {*(how.file for how in STAGES.values()), recording.NAME, DROPPED}
    places = [(folder, {*TOP})]
    rounds = [round_folder(folder, t) for t in recording.round_numbers(folder)]
    places += [(place, within) for place in rounds]
    card = Path(recording.CARD)
    places += [(place / card.parent, {card.name}) for place in rounds]
    there = [(place, names) for place, names in places if place.is_dir()]
    half = [p for place, names in there for p in place.iterdir() if _half_made(p.name) in names]
    return half + [p for p in (folder / PLACE).glob("*.partial") if _half_made(p.name)]


def _half_made(name: str) -> str:
    """The name of what a half-made file was to be; empty for others.

    >>> _half_made("config.yaml.host.12.partial"), _half_made("thesis.partial")
    ('config.yaml', '')
    """
    found = re.fullmatch(r"(.+?)\.[^.]+\.\d+\.partial", name)
    return found[1] if found else ""


def _ours(folder: Path) -> bool:
    """Whether a folder holds a run, or the beginning of one that was killed."""
    names = {p.name for p in folder.iterdir()} - {".lock"}
    if all(_half_made(name) == "config.yaml" for name in names):
        return True
    numbers = recording.round_numbers(folder)
    return (
        recording.unsealed_lines(folder / "config.yaml") is not None
        or recording.unsealed(folder / "manifest.json") is not None
        or any(recording.read_record(folder, t) is not None for t in numbers)
    )


# ---- the stages as files


def _write_policy(
    _: Sequence[Prompt], value: tuple[Policy | dict[str, Any], UpdateReport | None], path: Path
) -> None:
    """A folder of weights; of adapters, on the policy before; or where the base is."""
    policy, update = value
    adapters = getattr(policy, "adapters", None)
    if isinstance(policy, dict):
        path.mkdir(parents=True)
        (path / REFERENCE).write_text(writing.json_text(policy), encoding="utf-8")
    elif adapters is not None:
        adapters.save(path, f"../../{int(path.parent.name) - 1:03d}/policy")
    else:
        policy.save(path)
    if update is not None:
        text = writing.json_text(asdict(update))
        (path / "srlm.json").write_text(text, encoding="utf-8")


def _read_update(path: Path) -> UpdateReport:
    facts = writing.read_json(path)
    return UpdateReport(**facts | {"notes": tuple(facts["notes"])})


def _not_written(_: Sequence[Prompt], value: Any, path: Path) -> None:
    raise AssertionError("the report of an update is kept with its policy")


def _write_json(_: Sequence[Prompt], value: Any, path: Path) -> None:
    path.write_text(writing.json_text(value), encoding="utf-8")


def _write_text(_: Sequence[Prompt], value: str, path: Path) -> None:
    path.write_text(value, encoding="utf-8", newline="\n")


STAGES = {
    "policy": Stage("policy", _write_policy, Path, clock="update"),
    "update": Stage("policy/srlm.json", _not_written, _read_update),
    "held_out": Stage(
        "held_out.parquet",
        lambda prompts, samples, path: tables.write_samples(prompts, [samples], path),
        tables.read_samples,
    ),
    "table": Stage(
        "prompts.parquet",
        lambda _, columns, path: tables.write_prompts(columns, path),
        tables.read_prompts,
    ),
    "round": Stage(
        "round.json",
        _write_json,
        lambda path: Round.from_json(writing.read_json(path)),
        clock="measure",
    ),
    "samples": Stage("samples.parquet", tables.write_samples, tables.SamplesFile, clock="samples"),
    "rewards": Stage("rewards.json", _write_json, writing.read_json),
    "pairs": Stage("pairs.parquet", tables.write_pairs, tables.read_pairs, clock="pairs"),
    "forecast": Stage("forecast.json", _write_json, writing.read_json),
    "card": Stage(
        recording.CARD,
        _write_text,
        lambda path: path.read_text(encoding="utf-8"),
    ),
}
"""What a round's folder holds, by the stage's name."""

PIECES = {
    "round": ("greedy", "held_out", "modes"),
    "forecast": ("scores",),
    "samples": ("samples",),
    "pairs": ("rewards",),
}
"""Kinds of work whose pieces are kept until a stage is there."""

ORDER = {
    "policy": 0, "held_out": 1, "table": 1, "round": 1, "forecast": 2, "card": 3, "samples": 4,
    "rewards": 5, "pairs": 5,
}  # fmt: skip
"""When a round makes its stages; those of a number are made together."""
