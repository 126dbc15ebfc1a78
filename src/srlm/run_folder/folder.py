"""Keeping the stages of a run: in a folder that survives being killed, or in memory."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import yaml
from filelock import FileLock, Timeout

from srlm import writing
from srlm.config import RunConfig, differences, flatten
from srlm.errors import UserError
from srlm.policies.base import Policy
from srlm.run_folder import tables
from srlm.run_folder.manifest import (
    check_same,
    hash_file,
    hash_settings,
    manifest,
    versions,
)
from srlm.stopping import OUT_OF_TIME, Stop
from srlm.types import Floats, Ints, Prompt, PromptTable, Round, Tokens, UpdateReport


class Folder(Protocol):
    """Where the loop keeps the stages of a round t, and looks which are done.

    The stages: ``policy`` (pi_t, and the report of the update that made it), ``held_out`` and
    ``table`` (what pi_t was measured on), ``round`` (its record), ``samples``, ``rewards`` (a
    report) and ``pairs`` of pi_t, from which pi_{t+1} is trained.
    """

    def begin(self, policy: Policy) -> Policy:
        """Keep the base; the policy to train."""
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

    def begin(self, policy: Policy) -> Policy:
        """The base is the caller's own policy; a copy is trained."""
        self._base["policy"] = policy
        self._last["policy"] = (0, policy.copy())
        return self.policy

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
        return self._base[stage] if t == 0 and stage in self._base else self._last[stage][1]

    def base_log_prob(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> Floats:
        """By the caller's policy."""
        base: Policy = self._base["policy"]
        return base.log_prob(prompts, prompt_R, tokens_R)

    def end(self, stop: Stop) -> None:
        """Why the run ended."""
        self.stop = stop


RESTS_ON = "rests_on"
"""The part of round.json that is not in metrics.jsonl: hashes and versions."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage in a folder."""

    file: str
    write: Callable[[Any, Sequence[Prompt], Path], None]
    read: Callable[[Path], Any]
    clock: str = ""
    """Name of its time in seconds.json."""


class RunFolder:
    """An open run folder, locked against other processes; a context manager.

    Args:
        folder: made if missing.
        config: the run's settings.
        open_policy: reads a policy from a folder.

    Raises:
        UserError: the folder was made with other settings than these, the number of rounds left
            aside (the differences are listed); it is no run folder; or it is in use.
    """

    def __init__(
        self, folder: Path, config: RunConfig, open_policy: Callable[[Path], Policy]
    ) -> None:
        self.folder = folder
        self._asked = self._config = config
        self._open = open_policy
        self.settled: RunConfig | None = None
        """The settings that the run was begun with; None in a new folder."""
        self._clock = time.perf_counter()
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: not a folder", "give another --out")
        if folder.is_dir() and any(folder.iterdir()) and not _ours(folder):
            raise UserError(
                f"{folder}: holds files that are no run's", "give an empty --out folder"
            )
        self._lock = FileLock(folder / ".lock", timeout=0)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise UserError(f"{folder}: in use by another process", "wait for it to end") from None
        except (NotADirectoryError, PermissionError) as error:
            raise UserError(
                f"{folder}: cannot be made or written to: {error.strerror}", "give another --out"
            ) from None
        try:
            self._begin()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _begin(self) -> None:
        """Check the settings and clear what a killed run left half made."""
        settings = self._asked.model_dump(mode="json")
        file = self.folder / "config.yaml"
        old = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else None
        if old is not None and (self.folder / "manifest.json").exists():
            asked = flatten(writing.read_json(self.folder / "manifest.json").get("asked", old))
            given = flatten(settings) | {"rounds": None}
            same = {k: v for k, v in given.items() if asked.get(k) == v}  # as before, or as chosen
            changed = differences(flatten(old) | same | {"rounds": None}, given)
            if changed:
                raise UserError(
                    f"{self.folder}: made with other settings: " + "; ".join(changed),
                    "use the same settings to go on, or another --out",
                )
            settings = old | {"rounds": self._asked.rounds}
            self._config = self.settled = RunConfig.model_validate(settings)
        for leftover in sorted(self.folder.rglob("*.partial"), reverse=True):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        stop = self.folder / "stop.json"
        if stop.exists() and writing.read_json(stop)["code"] == OUT_OF_TIME:
            stop.unlink()
        if old != settings:  # until the manifest is there settings may be mended
            (self.folder / "stop.json").unlink(missing_ok=True)
            self._write_settings(settings)
        self._write_metrics()

    def _write_settings(self, settings: dict[str, Any]) -> None:
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        writing.write_text(self.folder / "config.yaml", text)

    def describe(self, config: RunConfig, prompts: str, train: int, held_out: int) -> None:
        """Write settings and manifest, once; refuse a folder begun with another model or prompts.

        Args:
            config: the settings with nothing left open; ``settled`` where there is one.
            prompts: SHA-256 of the prompts' source.
            train, held_out: how many prompts.
        """
        if self.settled is None:
            self._config = self.settled = config
            self._write_settings(config.model_dump(mode="json"))
        now = manifest(self._asked, prompts, train, held_out)
        if (self.folder / "manifest.json").exists():
            check_same(self.folder, writing.read_json(self.folder / "manifest.json"), now)
        else:
            writing.write_json(self.folder / "manifest.json", now)

    def latest(self) -> Path | None:
        """The last policy that was made: where the run goes on. None in a new folder."""
        made = sorted((self.folder / "rounds").glob("*/policy"))
        return made[-1] if made else None

    # ---- stages

    def begin(self, policy: Policy) -> Policy:
        """The base is kept as round 0's policy, and is the one that is trained."""
        self.keep(0, "policy", (policy, None))
        return policy

    def has(self, t: int, stage: str) -> bool:
        """Whether the file of a stage is there; if not, the stage's clock starts."""
        self._clock = time.perf_counter()
        return self._path(t, stage).exists()

    def keep(self, t: int, stage: str, value: Any, prompts: Sequence[Prompt] = ()) -> None:
        """Write a stage, and its time."""
        path, how = self._path(t, stage), STAGES[stage]
        path.parent.mkdir(parents=True, exist_ok=True)
        if stage == "round":
            value = self._record(value)
        writing.commit(path, lambda partial: how.write(value, prompts, partial))
        if how.clock and (t, stage) != (0, "policy"):
            seconds = round(time.perf_counter() - self._clock, 3)
            writing.write_json(
                path.with_name("seconds.json"), self._seconds(t) | {how.clock: seconds}
            )
        if stage == "round":
            self._write_metrics()

    def get(self, t: int, stage: str) -> Any:
        """Read a stage."""
        if stage == "policy":
            return self._open(self._path(t, stage))
        found = STAGES[stage].read(self._path(t, stage))
        return replace(found, table=self.get(t, "table")) if stage == "round" else found

    def base_log_prob(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> Floats:
        """The base is read anew, so that it takes memory only while it scores."""
        base: Policy = self.get(0, "policy")
        return base.log_prob(prompts, prompt_R, tokens_R)

    def end(self, stop: Stop) -> None:
        """Write stop.json."""
        writing.write_json(self.folder / "stop.json", stop.to_json())

    def _record(self, record: Round) -> dict[str, Any]:
        """The object of round.json: a record, and what it rests on."""
        t = record.round
        stages = [(t, stage) for stage in ("policy", "held_out", "table")]
        stages += [(t - 1, stage) for stage in ("samples", "rewards", "pairs") if t]
        places = [self._path(*stage) for stage in stages]
        files = [f for p in places for f in (sorted(p.rglob("*")) if p.is_dir() else [p])]
        rests_on = {
            "settings": hash_settings(self._config),
            "versions": versions(),
            "files": {f.relative_to(self.folder).as_posix(): hash_file(f) for f in files},
        }
        told = {name: value for name, value in record.to_json().items() if name != "seconds"}
        return told | {RESTS_ON: rests_on}

    def _path(self, t: int, stage: str) -> Path:
        return self.folder / "rounds" / f"{t:03d}" / STAGES[stage].file

    def _seconds(self, t: int) -> dict[str, float]:
        file = self.folder / "rounds" / f"{t:03d}" / "seconds.json"
        return dict(writing.read_json(file)) if file.exists() else {}

    def _write_metrics(self) -> None:
        """metrics.jsonl: the records of the rounds, with the time that each took."""
        records = sorted((self.folder / "rounds").glob("*/round.json"))
        file = self.folder / "metrics.jsonl"
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        if text.count("\n") == len(records):
            return
        lines = []
        for t, record in enumerate(records):
            before, own = self._seconds(t - 1), self._seconds(t)
            made = {name: before.get(name) for name in ("samples", "pairs")}
            made |= {name: own.get(name) for name in ("update", "measure")}
            seconds = {name: x for name, x in made.items() if x is not None}
            told = writing.read_json(record)
            line = {k: v for k, v in told.items() if k != RESTS_ON} | {"seconds": seconds}
            lines.append(json.dumps(line, allow_nan=False) + "\n")
        writing.write_text(file, "".join(lines))


def _ours(folder: Path) -> bool:
    """Whether a folder holds a run, or the beginning of one that was killed."""
    names = {p.name for p in folder.iterdir()} - {".lock"}
    if "config.yaml" not in names:
        return all(n.startswith("config.yaml.") and n.endswith(".partial") for n in names)
    try:
        settings = yaml.safe_load((folder / "config.yaml").read_bytes())
    except yaml.YAMLError:
        return False
    return isinstance(settings, dict) and {"model", "prompts", "rounds"} <= settings.keys()


# ---- the stages as files


def _write_policy(
    value: tuple[Policy, UpdateReport | None], prompts: Sequence[Prompt], path: Path
) -> None:
    policy, update = value
    policy.save(path)
    if update is not None:
        text = writing.json_text(asdict(update))
        (path / "srlm.json").write_text(text, encoding="utf-8")


def _read_update(path: Path) -> UpdateReport:
    facts = writing.read_json(path)
    return UpdateReport(**facts | {"notes": tuple(facts["notes"])})


def _not_written(value: Any, prompts: Sequence[Prompt], path: Path) -> None:
    raise AssertionError("the report of an update is kept with its policy")


def _write_json(value: Any, prompts: Sequence[Prompt], path: Path) -> None:
    path.write_text(writing.json_text(value), encoding="utf-8")


STAGES = {
    "policy": Stage("policy", _write_policy, Path, clock="update"),
    "update": Stage("policy/srlm.json", _not_written, _read_update),
    "held_out": Stage(
        "held_out.parquet",
        lambda samples, prompts, path: tables.write_samples(prompts, [samples], path),
        tables.read_samples,
    ),
    "table": Stage(
        "prompts.parquet",
        lambda columns, _, path: tables.write_prompts(columns, path),
        tables.read_prompts,
    ),
    "round": Stage(
        "round.json",
        _write_json,
        lambda path: Round.from_json(writing.read_json(path)),
        clock="measure",
    ),
    "samples": Stage(
        "samples.parquet",
        lambda parts, prompts, path: tables.write_samples(prompts, parts, path),
        tables.SamplesFile,
        clock="samples",
    ),
    "rewards": Stage("rewards.json", _write_json, writing.read_json),
    "pairs": Stage(
        "pairs.parquet",
        lambda pairs, prompts, path: tables.write_pairs(prompts, pairs, path),
        tables.read_pairs,
        clock="pairs",
    ),
    "forecast": Stage("forecast.json", _write_json, writing.read_json),
}
"""What a round's folder holds, by the stage's name."""
