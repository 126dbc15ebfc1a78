from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srlm.data import read_prompts, split
from srlm.demo import settings as demo
from srlm.demo import verdicts
from srlm.demo.corpus import check_prompt
from srlm.demo.show import forecast_settings
from srlm.errors import UserError
from srlm.loop import recipe_of
from srlm.progress import Progress


def test_model_by_start_and_seed_and_prompts_are_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def build(start: Any, seed: int, progress: Any) -> Path:
        made.append(tmp_path / f"{start.name}-{seed}")
        return made[-1]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(demo, "cached_base", build)
    one = demo.settings("good", 0, Progress.silent())
    assert demo.settings("good", 0, Progress.silent()) == one
    assert made == [Path(one.model)] * 2
    assert demo.settings("good", 1, Progress.silent()).model != one.model
    assert demo.settings("giveup", 0, Progress.silent()).model != one.model
    train, held_out = split(read_prompts(one.prompts.file), one.prompts.held_out)
    assert len(train) + len(held_out) == demo.PROMPTS
    assert 440 < len(held_out) < 584


def test_unknown_start() -> None:
    with pytest.raises(UserError, match="no start called 'best'"):
        demo.settings("best", 0, Progress.silent())


def test_starts_whose_reward_goes_past_the_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(demo, "cached_base", lambda start, *_: tmp_path / start.name)
    for start in ("good", "diffuse", "giveup"):
        plain = demo.settings(start, 0, Progress.silent())
        assert demo.shown_settings(start, 0, Progress.silent()) == plain
    judged = demo.shown_settings("judge", 0, Progress.silent())
    assert (judged.reward, judged.stop, judged.judge.read) == ("judge", "auto", "expected")
    agreed = demo.shown_settings("paths", 0, Progress.silent())
    assert (agreed.reward, agreed.stop, agreed.samples.per_prompt) == ("consistency", "auto", 8)
    twice = demo.shown_settings("compare", 0, Progress.silent())
    assert (twice.reward, twice.stop, twice.judge.choices) == ("meta-judge", "auto", "y,n")
    prompt, first, second = "247+158=", "15,10,04=405", "15,11,04=415"
    question = check_prompt(prompt, first)
    compare, meta = twice.judge.compare_template, twice.judge.meta_template
    assert compare is not None and meta is not None
    asked = compare.format(prompt=prompt, first=first, second=second)
    assert asked == verdicts.compare_prompt(prompt, first, second)
    assert meta.format(prompt=question, first="y") == verdicts.meta_prompt(question, "y")
    for config in (judged, agreed, twice):
        recipe_of(config)
        foretold = forecast_settings(config)
        assert foretold.beta == 0.5  # of likelihood self-reward, not of this reward's units
        assert foretold.max_tokens == config.samples.max_tokens
