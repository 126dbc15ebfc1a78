"""The charts: what they draw, in which colours, and labels that do not lie on each other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from srlm.report.charts import of_run as charts
from srlm.report.page import script_json
from srlm.report.plots import DARK, keep_apart
from srlm.report.summary import summarise

Make = Callable[..., Path]


def test_charts_of_a_run(fake_run: Make) -> None:
    made = {c.key: c for c in charts(summarise(fake_run()))}
    assert list(made) == [
        "confidence", "kappa", "failure", "fidelity", "pace", "loss", "entropy", "length", "kl",
    ]  # fmt: skip
    kappa = {t["name"]: t for t in made["kappa"].figure["data"] if "name" in t}
    assert kappa["κ"]["y"][0] == pytest.approx(1.6546, abs=1e-3)
    assert kappa["exact update"]["y"][0] is None
    assert [t["name"] for t in made["confidence"].figure["data"] if "name" in t] == [
        "mode", "greedy", "sampling", "confidence",
    ]  # fmt: skip
    assert len(made["confidence"].figure["layout"]["annotations"]) == 4


def test_without_answers_no_accuracy_is_drawn(fake_run: Make) -> None:
    made = charts(summarise(fake_run(answers=False)))
    names = {t["name"] for c in made for t in c.figure["data"] if "name" in t}
    assert not {"sampling", "greedy", "mode"} & names
    assert {"confidence", "fidelity"} <= names


def test_every_colour_has_its_stand_in_on_a_dark_page(fake_run: Make) -> None:
    for chart in charts(summarise(fake_run())):
        text = script_json(chart.figure)
        used = {text[i : i + 7] for i in range(len(text)) if text[i] == "#"}
        assert used <= set(DARK)
    assert not set(DARK) & set(DARK.values())


def test_large_kappa_has_a_logarithmic_axis(fake_run: Make) -> None:
    def large(record: dict[str, Any]) -> dict[str, Any]:
        return record | {"kappa": record["kappa"] | {"value": 1e3, "low": 1e2, "high": 9e3}}

    kappa = charts(summarise(fake_run(change=large)))[1]
    assert kappa.figure["layout"]["yaxis"]["type"] == "log"
    low, high = kappa.figure["layout"]["yaxis"]["range"]
    assert low < 0.1
    assert high > 3.9


def test_astronomical_kappa_is_read_as_its_logarithm(fake_run: Make) -> None:
    """Long responses: 1/p* overflows, and every place shows log10 kappa instead."""

    def long(record: dict[str, Any]) -> dict[str, Any]:
        value = 400.0 - 60 * record["round"]
        log = {"value": value, "low": value - 9, "high": value + 9, "n": 400, "method": "search"}
        return record | {"kappa": record["kappa"] | {"value": None}, "log10_kappa": log}

    s = summarise(fake_run(change=long, answers=False))
    assert [c.name for c in s.changes if "kappa" in c.name] == ["log10_kappa"]
    kappa = charts(s)[1].figure
    assert kappa["layout"]["yaxis"]["type"] == "linear"
    assert kappa["data"][-1]["y"][0] == 400.0


def test_labels_moves_only_what_collides() -> None:
    assert keep_apart([5.0, 40.0, 80.0], 15, 0, 100) == [5.0, 40.0, 80.0]


@given(st.lists(st.floats(-20, 230), min_size=1, max_size=8))
def test_labels_keeps_labels_apart_and_inside(wanted: list[float]) -> None:
    got = keep_apart(sorted(wanted), 15, 0, 200)
    assert all(b - a >= 15 - 1e-9 for a, b in pairwise(got))
    assert got[0] >= 0
    assert got[-1] <= 200 + 1e-9
