"""Forecasts made after each round, beside what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from srlm.report.page import run_page
from srlm.report.summary import summarise
from tests.report.conftest import fake_run, seal
from tests.report.test_page import Seen


def test_nothing_without_forecasts(tmp_path: Path) -> None:
    assert summarise(fake_run(tmp_path / "run")).forecasts == ()


def test_forecast_beside_measured(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    last = summarise(folder).rounds[-1]
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"rounds": last.round + 1}))
    kappa = {"value": 1.234, "low": 1.0, "high": 1.4}
    accuracy = {"value": 0.567, "low": 0.5, "high": 0.6}
    none = {"value": None, "low": None, "high": None}
    later = [
        {"round": t, "kappa": kappa, "sampling_accuracy": accuracy, "confidence": none,
         "length": none}
        for t in range(last.round, last.round + 3)
    ]  # fmt: skip
    (folder / "rounds/000/forecast.json").write_text(
        json.dumps({"made": 0, "expected": 0.5, "share": None, "later": later})
    )
    seal(folder)
    s = summarise(folder)
    assert s.later_rounds == [last.round, last.round + 1]
    assert s.forecast_names == {"kappa", "sampling_accuracy"}
    (made,) = s.forecasts
    assert made.later[last.round]["kappa"].value == 1.234
    scores = {score.name: score for score in made.scores}
    assert set(scores) == {"kappa", "sampling_accuracy"}
    seen = last["kappa"].value
    assert seen is not None
    assert scores["kappa"].mean_error == pytest.approx(abs(1.234 / seen - 1))
    assert (scores["kappa"].rounds, scores["kappa"].inside) == (1, 1)
    assert scores["sampling_accuracy"].inside == 0
    text = Seen(run_page(s)).text
    for shown in ("1.234", "0.567", "to come", f"{seen:.3f}"):
        assert shown in text


def test_extrapolated_rounds_are_marked_and_kinds_named(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run")
    t = summarise(folder).rounds[-1].round
    accuracy = {"value": 0.567, "low": 0.5, "high": 0.6}
    for supported, kind in ((True, None), (False, 0.9)):
        later = [{"round": t, "sampling_accuracy": accuracy, "supported": supported}]
        made = {"made": 0, "expected": 0.5, "share": None, "later": later, "kind": kind}
        (folder / "rounds/000/forecast.json").write_text(
            json.dumps(made | {"short": {"below": 17}})
        )
        seal(folder)
        s = summarise(folder)
        assert s.forecasts[0].extrapolated == (frozenset() if supported else {t})
        assert s.forecasts[0].below == (None if kind is None else 17)
        text = Seen(run_page(s)).text
        assert ("†" in text) is not supported
        assert ("longer than 17 tokens" in text) is not supported
