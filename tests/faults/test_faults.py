"""Every case: it works, or it is refused by name; nothing is run, and nothing is left behind.

One in four is fast; all of them run with the slow tests.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from srlm import cli
from tests.faults.cases import Case
from tests.faults.configs import CONFIGS
from tests.faults.models import MODELS
from tests.faults.prompts import PROMPTS


def _marked(cases: Sequence[Case], fast: int) -> list[object]:
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if i % fast else [])
        for i, case in enumerate(cases)
    ]


@pytest.mark.parametrize("case", [*_marked(MODELS, 4), *_marked(PROMPTS, 4), *_marked(CONFIGS, 1)])
def test_case(
    case: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "given").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "argv", ["srlm", *case.build(tmp_path / "given")])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main()
    shown = capsys.readouterr()
    said = (shown.err + shown.out + caplog.text).lower()
    assert stop.value.code == (2 if case.refused else 0), said
    for part in (case.refused, *case.also) if case.refused else (case.flagged,):
        assert part.lower() in said
    assert not list((tmp_path / "here").iterdir())


def test_names_are_unique() -> None:
    for cases in (MODELS, PROMPTS, CONFIGS):
        assert len({case.name for case in cases}) == len(cases)
