from __future__ import annotations

import json
from pathlib import Path

from srlm.report.followed import followed
from srlm.report.summary import summarise
from tests.report.conftest import fake_run


def test_nothing_without_forecasts(tmp_path: Path) -> None:
    assert followed(summarise(fake_run(tmp_path / "run"))) == ""


def test_foretold_beside_measured(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run")
    rounds = summarise(folder).rounds
    last = rounds[-1]
    value = {"value": 1.234, "low": 1.1, "high": 1.4}
    accuracy = {"value": 0.567, "low": 0.5, "high": 0.6}
    ahead = [
        {"round": last.round, "kappa": value, "sampling_accuracy": accuracy},
        {"round": last.round + 1, "kappa": value, "sampling_accuracy": accuracy},
    ]
    told = {"made": 0, "efficiency": 0.5, "ahead": ahead}
    (folder / "rounds/000").mkdir(parents=True, exist_ok=True)
    (folder / "rounds/000/forecast.json").write_text(json.dumps(told))
    page = followed(summarise(folder))
    assert "1.234" in page
    assert ".567" in page
    assert "to come" in page
    assert f"{last['kappa'].value:.3f}" in page
