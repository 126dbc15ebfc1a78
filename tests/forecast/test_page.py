"""The page of a forecast: hostile text stays text, nothing is fetched, nothing is overclaimed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srlm.forecast.make import Forecast
from srlm.policies.tabular import Tabular, rows
from srlm.report.page import forecast_page as page
from srlm.report.page import write_forecast, write_measurement
from tests.forecast.drawn import Drawn
from tests.forecast.test_make import forecast, policy, prompts
from tests.report.test_page import HOSTILE, TAGS, Seen, own


@pytest.fixture(name="found", scope="module")
def _found() -> Forecast:
    return forecast(Drawn(policy()), samples=16)


@pytest.fixture(name="unanswered", scope="module")
def _unanswered() -> Forecast:
    return forecast(Drawn(policy()), prompts(answers=False), samples=16)


def test_sections_are_there_and_the_verdict_comes_first(found: Forecast) -> None:
    seen = Seen(page(found))
    assert any(a.get("data-verdict") == found.verdict.verdict for _, a in seen.tags)
    order = [found.verdict.reason[1:], found.verdict.advice, "Warnings", "Trajectory",
             "Every round", "The base as it is", "Without training", "The most likely responses",
             "Commonest", "Least sure", "How to read this"]  # fmt: skip
    places = [seen.text.index(words) for words in order]
    assert places == sorted(places)
    rounds = [a["data-round"] for _, a in seen.tags if "data-round" in a]
    assert rounds[:5] == ["0", "1", "2", "3", "limit"]
    assert "κ of answers" in seen.text


def test_hostile_text_stays_text() -> None:
    texts = tuple(f"{HOSTILE[m % len(HOSTILE)]}{m}" for m in range(8))
    given = Drawn(Tabular(policy().theta.reshape(-1, 8), text_M=texts))
    asked = [x if i % 2 else x.__class__(x.id, x.content, (HOSTILE[i % 8],)) for i, x in
             enumerate(rows(40))]  # fmt: skip
    found = forecast(given, asked)
    text = page(found, {"model": HOSTILE[1], HOSTILE[0]: HOSTILE[2]})
    seen = Seen(text)
    assert {tag for tag, _ in seen.tags} <= set(TAGS.split())
    for _, attributes in seen.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert not {"src", "href", "srcdoc", "action", "style"} & attributes.keys()
    assert not re.search(r"[\x00\x07\x1b\u202e\u200f\u2066\u2028\ufeff]", own(text))
    for attributes, block in seen.scripts:
        if "data-chart" in attributes:
            json.loads(block)
            assert "alert" not in block


def test_nothing_to_fetch_and_the_same_bytes(found: Forecast, tmp_path: Path) -> None:
    first = write_forecast(found, tmp_path).read_bytes()
    assert write_forecast(found, tmp_path).read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["forecast.html"]
    text = own(first.decode("utf-8"))
    assert not re.search(r"https?:|//\w|@import|url\(|<link|<iframe|<img", text)
    assert "default-src 'none'; script-src 'sha256-" in text


def test_without_answers_nothing_is_called_correct(unanswered: Forecast) -> None:
    text = own(page(unanswered)).lower()
    assert "correct" not in text
    assert "accuracy" not in text
    assert "unknown" in text


def charts(found: Forecast) -> dict[str, Any]:
    return {
        str(a["data-chart"]): json.loads(text)
        for a, text in Seen(page(found)).scripts
        if "data-chart" in a
    }


def test_every_chart_is_drawn(found: Forecast, unanswered: Forecast) -> None:
    shared = {f"chart-{key}" for key in ("sureness", "kappa", "failure", "length", "entropy")}
    assert set(charts(found)) == shared | {"chart-accuracy", "chart-votes"}
    assert set(charts(unanswered)) == shared
    ticks = charts(found)["chart-kappa"]["layout"]["xaxis"]["ticktext"]
    assert ticks == ["0", "1", "2", "3", "∞"]


def test_extrapolated_rounds_are_hollow_dashed_and_named() -> None:
    given = Tabular(np.random.default_rng(1).standard_normal((40, 400)))
    found = forecast(Drawn(given), rows(40), samples=9)
    weak = [t for t, p in enumerate(found.points) if not p.supported]
    assert weak
    data = charts(found)["chart-kappa"]["data"]
    line = next(d for d in data if d.get("name") == "β 2")
    hollow = [t for t, symbol in enumerate(line["marker"]["symbol"]) if symbol.endswith("-open")]
    assert hollow == weak
    assert line["mode"] == "markers"
    assert any(d.get("line", {}).get("dash") == "dash" and any(d["x"]) for d in data)
    text = Seen(page(found)).text
    assert "extrapolated, beyond what the samples support" in text
    codes = {a["data-code"] for _, a in Seen(page(found)).tags if "data-code" in a}
    assert "extrapolated" in codes
    assert f"{weak[0]} †" in text


def test_a_supported_forecast_has_no_dashes(found: Forecast) -> None:
    assert all(p.supported for points in found.trajectories.values() for p in points)
    assert "extrapolated" not in Seen(page(found)).text.split("How to read this")[0]


def test_a_measurement_has_no_verdict(found: Forecast, tmp_path: Path) -> None:
    text = Seen(write_measurement(found, tmp_path).read_text(encoding="utf-8")).text
    assert "Trajectory" not in text
    assert found.verdict.reason[1:] not in text
    assert "The base as it is" in text


def test_exact_policies_have_a_page_too(tmp_path: Path) -> None:
    text = Seen(page(forecast(policy()))).text
    assert "All responses, enumerated" in text
    assert "Without training" not in text


def test_astronomical_kappa_is_shown_by_its_logarithm() -> None:
    found = forecast(policy())
    flat = Tabular(1e-3 * np.random.default_rng(0).standard_normal((2, 30_001)))
    large = forecast(flat, rows(2), rounds=1)
    assert "log₁₀ κ" in Seen(page(large)).text
    assert "log₁₀ κ" not in Seen(page(found)).text
