"""Samples and scores of ``srlm measure`` and ``srlm forecast``, kept as they are made.

``OUT/samples/`` has one parquet file a part (some prompts with all their samples, in the format of
``samples.parquet`` of a run's round) and ``settings.json``; ``OUT/scores/`` the rewards of each
part. A part is written whole or not at all, so what is there is valid at any moment, and the same
command continues with the next one. The parts do not depend on where a command was interrupted, so
neither do the results.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from srlm import writing
from srlm.config import SampleSettings
from srlm.engines.base import Advance
from srlm.engines.files import Sampled, open_samples
from srlm.errors import UserError
from srlm.policies.base import Differentiable, Policy
from srlm.run_folder.tables import read_samples, write_samples
from srlm.types import Floats, Prompt, Samples

WORK = {"cpu": 2e11, "gpu": 1e15}
"""Multiply-adds of a part, about: half a minute, or less."""
SETTINGS = "settings.json"
ROWS = 2048
"""Responses of a part, at most."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Where samples and scores are kept; nowhere without a folder."""

    folder: Path | None
    step: int
    """Prompts of a part."""

    @property
    def samples(self) -> Path:
        """Where the parts are."""
        assert self.folder is not None
        return self.folder / "samples"

    def parts(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        count: int,
        *,
        seed: int,
        max_tokens: int,
        look: int = 0,
        advance: Callable[[float], None] = lambda prompts: None,
    ) -> Iterator[tuple[str, Samples]]:
        """Name and samples of each part, made or read; rows count ``prompts``.

        Args:
            count: samples per prompt.
            look: which samples of these prompts, where there are more later.
            advance: called with the number of prompts done.
        """
        for first in range(0, len(prompts), self.step):
            some = prompts[first : first + self.step]
            name = f"{look:02d}-{first // self.step:05d}"
            path = None if self.folder is None else self.samples / f"{name}.parquet"
            if path is not None and path.is_file():
                advance(len(some))
            else:
                made = policy.sample(some, count, seed=seed, max_tokens=max_tokens, advance=advance)
                if path is None:
                    yield name, replace(made, prompt_R=made.prompt_R + first)
                    continue
                writing.commit(path, partial(write_samples, some, [made]))
            part = read_samples(path)
            yield name, replace(part, prompt_R=part.prompt_R + first)

    def rows(self, name: str) -> list[Sampled] | None:
        """The responses that ``keep_rows`` kept; None where there are none."""
        path = None if self.folder is None else self.samples / f"{name}.parquet"
        return None if path is None or not path.is_file() else list(open_samples(path))

    def keep_rows(self, name: str, rows: Sequence[Sampled]) -> list[Sampled]:
        """Responses of a server to one prompt, as they are read again."""
        if self.folder is None:
            return list(rows)
        columns = {
            "prompt_id": pa.array([row.key for row in rows], pa.string()),
            "text": pa.array([row.text for row in rows], pa.string()),
            "logp": pa.array([row.logp for row in rows], pa.float64()),
            "length": pa.array([row.tokens for row in rows], pa.int64()),
            "finished": pa.array([row.finished for row in rows], pa.bool_()),
        }
        path = self.samples / f"{name}.parquet"
        writing.commit(path, partial(pq.write_table, pa.table(columns)))
        return list(open_samples(path))

    def draw(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        settings: SampleSettings,
        seed: int,
        advance: Advance,
    ) -> Samples:
        """All of ``parts``."""
        asked: dict[str, Any] = {"seed": seed, "max_tokens": settings.max_tokens}
        parts = self.parts(policy, prompts, settings.per_prompt, **asked, advance=advance)
        return Samples.joined([part for _, part in parts])

    def scores(self, reward: str, part: str, make: Callable[[], Floats]) -> Floats:
        """Rewards of a part, made or read.

        Args:
            reward: its name, with whatever else decides it.
            part: of ``parts``.
        """
        if self.folder is None:
            return make()
        path = self.folder / "scores" / reward / f"{part}.parquet"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            table = pa.table({"score": pa.array(make(), pa.float64())})
            writing.commit(path, lambda p: pq.write_table(table, p))
        return np.array(pq.read_table(path)["score"].to_numpy())


def cut_before(out: Path | None) -> dict[str, Any] | None:
    """How the samples of ``out`` were cut to a time when they were begun; None: not begun."""
    file = None if out is None else out / "samples" / SETTINGS
    if file is None or not file.is_file():
        return None
    cut: dict[str, Any] = writing.read_json(file)["cut"]
    return cut


@contextmanager
def keeping(
    out: Path | None, settings: dict[str, Any], step: int, cut: dict[str, Any] | None = None
) -> Iterator[Kept]:
    """The kept samples of ``out``, locked against other processes; begun if there are none.

    Args:
        settings: everything that decides the samples.
        step: prompts of a part, where they are begun.
        cut: settings that were fitted to a time, for ``cut_before``.

    Raises:
        UserError: the samples there were made with other settings, or another process is at work.
    """
    if out is None:
        yield Kept(None, step)
        return
    folder = out / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{out}: another process is writing there", "wait for it, or give another --out"
        ) from None
    try:
        file = folder / SETTINGS
        if not file.is_file():
            begun = {"settings": settings, "prompts_per_part": step, "cut": cut or {}}
            writing.write_json(file, begun)
        begun = writing.read_json(file)
        changed = [
            f"{name}: {begun['settings'].get(name)!r} -> {settings.get(name)!r}"
            for name in sorted(begun["settings"].keys() | settings.keys())
            if begun["settings"].get(name) != settings.get(name)
        ]
        if changed:
            raise UserError(
                f"{folder}: samples of other settings: " + "; ".join(changed),
                f"give another --out, or delete {folder} to begin anew",
            )
        yield Kept(out, int(begun["prompts_per_part"]))
    finally:
        lock.release()


def prompts_per_part(policy: Policy, samples: int, max_tokens: int) -> int:
    """Prompts of a part: what takes half a minute or less, by the model's size."""
    most = max(1, ROWS // samples)
    if not isinstance(policy, Differentiable):
        return most
    weights = policy.parameters()
    kind = "cpu" if not weights or weights[0].device.type == "cpu" else "gpu"
    size = max(1, sum(p.numel() for p in weights))
    return max(1, min(most, int(WORK[kind] / (size * samples * max_tokens))))


def digest(value: Any) -> str:
    """A short hash of anything that JSON can hold."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
