"""Every study says what it costs and runs from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from experiments import corpora, real_model, updates
from experiments.tasks import MORE_TASKS, TASKS

ROOT = Path(__file__).parents[2]
STUDIES = ("paths", "rewards", "starts", "updates")
ALL = (*STUDIES, "real_model")


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_study_says_what_it_costs_and_has_a_quick_way(name: str) -> None:
    text = (ROOT / f"experiments/{name}.py").read_text(encoding="utf-8")
    assert "\nCost: " in text
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--quick" in done.stdout


@pytest.mark.parametrize("name", STUDIES)
def test_pages_are_made_of_the_results_that_are_kept(name: str) -> None:
    """What a study's results say stands on its page, which nobody edits."""
    from importlib import import_module

    from experiments.common import kept

    study = import_module(f"experiments.{name}")
    page = study.table if name == "starts" else study.page
    extra = (study.ASKED["compare"],) if name == "rewards" else ()
    made = page(kept(name), *extra)
    assert made == (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")


def test_the_real_models_page_is_made_of_its_results() -> None:
    from experiments.common import kept

    page = (ROOT / "docs/real-model.md").read_text(encoding="utf-8")
    assert real_model.page(kept("real-model")) == page


@pytest.mark.slow
def test_a_quick_study_runs_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRLM_CACHE", str(tmp_path))
    config = updates.config_of("good", 0, {}, quick=True)
    found = updates.one("weighted", config)
    assert len(found["rounds"]) == 2
    assert set(corpora.OWN) < set(corpora.CORPORA)


@pytest.mark.parametrize("name", ["sums", "greater", "minus", "products", "largest"])
def test_the_real_models_tasks_are_distinct_and_can_be_answered(name: str) -> None:
    from srlm.data import prompt_id
    from srlm.grading import grader
    from srlm.types import Prompt

    task = (TASKS | MORE_TASKS)[name]
    lines = task.made(100, 0)
    asked = [Prompt(prompt_id(x["prompt"]), x["prompt"], (x["answer"],)) for x in lines]
    assert len({x.id for x in asked}) == 100
    read = grader(task.answer)
    read.check(asked)
    assert all(read.right(x["answer"], (x["answer"],)) for x in lines)
