from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srlm.data import read_prompts, split
from srlm.demo import settings as demo
from srlm.demo.corpus import STARTS
from srlm.demo.show import forecast_settings
from srlm.progress import Progress


def test_model_by_start_and_seed_and_prompts_are_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def build(start: Any, seed: int, progress: Any, **_: Any) -> Path:
        made.append(tmp_path / f"{start.name}-{seed}")
        return made[-1]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(demo, "cached_base", build)
    good, giveup = STARTS["good"], STARTS["giveup"]
    one = demo.settings(good, 0, Progress.silent())
    assert demo.settings(good, 0, Progress.silent()) == one
    assert made == [Path(one.model)] * 2
    assert demo.settings(good, 1, Progress.silent()).model != one.model
    assert demo.settings(giveup, 0, Progress.silent()).model != one.model
    train, held_out = split(read_prompts(one.prompts.file), one.prompts.held_out)
    assert len(train) + len(held_out) == demo.PROMPTS
    assert 440 < len(held_out) < 584
    asked = forecast_settings(one)
    assert asked.beta == one.update.strength
    assert asked.max_tokens == one.samples.max_tokens
