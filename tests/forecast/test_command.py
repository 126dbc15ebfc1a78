"""``srlm measure`` and ``srlm forecast --pilot`` on tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srlm.cli import app
from tests import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    tiny.saved(folder)
    return folder


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "p.jsonl"
    lines = [json.dumps({"prompt": x.content, "answer": "a"}) for x in tiny.texts(24)]
    file.write_text("\n".join(lines) + "\n")
    return file


def given(*args: object) -> None:
    done = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_measure_names_every_estimator(model: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.json"
    given(
        "measure", "--model", model, "--prompts", prompts, "--max-tokens", 4, "--samples", 8,
        "--most-prompts", 6, "--mu", 3, "--json", out, "-q",
    )  # fmt: skip
    found = json.loads(out.read_text())
    assert found["kappa"]["method"] == "search"
    assert found["kappa_fixed_n"]["method"] == "fixed N = 8"
    assert found["kappa_adaptive"]["method"] == "adaptive sampling"
    # the best draw is never likelier than the mode
    assert found["kappa_fixed_n"]["value"] >= found["kappa"]["value"] - 1e-4
    assert found["kappa_adaptive"]["value"] >= found["kappa"]["value"] - 1e-4


def test_draws_step_in_where_the_budget_ends(model: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.json"
    given(
        "measure", "--model", model, "--prompts", prompts, "--max-tokens", 4, "--samples", 64,
        "--most-prompts", 6, "--nodes", 1, "--json", out, "-q",
    )  # fmt: skip
    found = json.loads(out.read_text())
    assert "certified within" in found["kappa"]["guarantee"]
    assert "kappa_adaptive" in found


def test_pilot_forecasts_the_rounds_after_it(model: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.json"
    given(
        "forecast", "--model", model, "--prompts", prompts, "--max-tokens", 4, "--samples", 8,
        "--rounds", 3, "--pilot", 1, "--held-out", 0.3, "--out", tmp_path / "f", "--json", out,
        "-q",
    )  # fmt: skip
    found = json.loads(out.read_text())
    assert [a["round"] for a in found["pilot"]["later"]] == [2, 3]
    assert len(found["pilot"]["rounds"]) == 2
    assert found["verdict"] in ("go", "no-go", "unclear")
    assert [p["round"] for p in found["trajectory"]] == [0, 1, 2, 3]


def test_a_pilot_of_votes_forecasts_votes(model: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "f"
    given(
        "forecast", "--model", model, "--prompts", prompts, "--max-tokens", 4, "--samples", 8,
        "--rounds", 3, "--pilot", 1, "--held-out", 0.3, "--out", out, "--reward", "consistency",
        "--answer", "text", "-q",
    )  # fmt: skip
    found = json.loads((out / "forecast.json").read_text())
    assert [a["round"] for a in found["pilot"]["later"]] == [2, 3]
    assert len(found["pilot"]["rounds"]) == 2
    assert found["paths"][0]["reward"] == "vote share"
    run = (out / "pilot" / "config.yaml").read_text()
    assert "reward: consistency" in run
