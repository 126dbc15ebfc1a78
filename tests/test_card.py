"""The model card in every kept policy: its numbers, its place in the hashes, the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from srlm import runner
from srlm.config import RunConfig
from srlm.run_folder import read_run
from srlm.run_folder.check import check
from srlm.runner import run
from tests import tiny

NAME = "a`b |<i>*x*"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setattr(runner, "write_page", lambda summary: summary.folder)
    tiny.linear().save(tmp_path / NAME)
    file = tiny.write_prompts(tmp_path / "p.jsonl", tiny.vectors(30), ["r0", "r1"] * 15)
    return tiny.config(tmp_path / NAME, file)


def card(out: Path, t: int) -> Path:
    return out / "rounds" / f"{t:03d}" / "policy" / "README.md"


def test_its_numbers_and_its_loss(config: RunConfig, tmp_path: Path) -> None:
    """Lost or edited, it is made again, and nothing else is."""
    out = tmp_path / "out"
    run(config, out)
    assert not card(out, 0).exists()
    found = read_run(out)
    shown = "`` a`b \\|<i>*x* ``"
    for t in (1, 2):
        text = card(out, t).read_text(encoding="utf-8")
        results = ModelCard(text, ignore_metadata_errors=False).data.eval_results
        metrics = {r.metric_type: r for r in results}
        names = {"accuracy": "sampling_accuracy", "kappa": "kappa", "fidelity": "fidelity"}
        for name, own in names.items():
            e = found.rounds[t][own]
            assert metrics[name].metric_value == e.value
            assert metrics[name].metric_args["low"] == e.low
            assert metrics[name].metric_args["n"] == e.n
        assert str(tmp_path) not in text and "<i>" not in text.split("\n---\n")[1].replace(
            shown, ""
        )
        recorded = json.loads((card(out, t).parents[1] / "files.json").read_text())["files"]
        assert "policy/README.md" in recorded
    before = {
        f: f.read_bytes()
        for f in (out / "rounds").rglob("*")
        if f.name != "files.json" and f.is_file()
    }
    times = {f: f.stat().st_mtime_ns for f in before if f.suffix != ".md"}
    card(out, 1).unlink()
    card(out, 2).write_text("mine")
    names = [damage.name for damage in check(out).damage]
    assert names == [f"rounds/00{t}/policy/README.md" for t in (1, 2)]
    run(config, out)
    assert {f: f.read_bytes() for f in before} == before
    assert {f: f.stat().st_mtime_ns for f in times} == times
    assert check(out).damage == ()


def test_it_goes_with_the_weights(config: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(config.model_copy(update={"keep": "1"}), out)
    assert not card(out, 1).exists() and card(out, 2).exists()
    run(config.model_copy(update={"keep": "1"}), out)
    assert not card(out, 1).exists() and card(out, 2).exists()
    assert check(out).damage == ()
