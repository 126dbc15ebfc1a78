"""Measured beside exact updates: closed forms on sharpened tables, and runs that lack the files."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from srlm.policies.tabular import Tabular
from srlm.report.gap import gap
from srlm.report.page import run_page
from srlm.report.summary import summarise
from srlm.report.terminal import print_summary
from srlm.run_folder import read_run
from srlm.runner import run
from tests import tiny
from tests.report.conftest import seal

Make = Callable[..., Path]
X, M = 60, 5


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two exact rounds of a table: every response enumerated, square loss, beta 1."""
    place = tmp_path_factory.mktemp("tabular")
    theta = np.random.default_rng(0).standard_normal((X, M))
    Tabular(theta).save(place / "model")
    best = [str(m) for m in theta.argmax(1)]
    asked = tiny.prompts([str(x) for x in range(X)])
    file = tiny.write_prompts(place / "prompts.jsonl", asked, best)
    changes: dict[str, Any] = {
        "samples.source": "enumerate", "update.kind": "square", "update.beta": 1.0,
        "prompts.held_out": 0.5, "samples.max_tokens": 1,
    }  # fmt: skip
    run(tiny.config(place / "model", file, **changes), place / "run")
    return place / "run"


def test_held_out_rows_of_a_table_do_not_move(folder: Path) -> None:
    """A table generalises to no other row: the exponent stays 1, all the gap is pace."""
    found = gap(read_run(folder))
    assert found is not None
    assert [s.round for s in found.rounds] == [0, 1, 2]
    assert [s.exact_exponent for s in found.rounds] == [1.0, 2.0, 4.0]
    theta = np.random.default_rng(0).standard_normal((X, M))
    table = read_run(folder).rounds[0].table
    assert table is not None
    rows = theta[[int(x) for x in table.prompt]]
    for r in found.rounds:
        assert r.exponent.value == pytest.approx(1.0)
        for part in r.parts.values():
            assert part.drift.value == pytest.approx(0.0, abs=1e-9)
            assert part.measured.value == pytest.approx(part.at_exponent.value)
        pi = np.exp(r.exact_exponent * rows)
        top = (pi / pi.sum(1, keepdims=True)).max(1)
        assert r.parts["kappa"].exact.value == pytest.approx((1 / top).mean())
        assert r.parts["sampling_accuracy"].exact.value == pytest.approx(top.mean())
    behind = found.rounds[2].parts["kappa"].pace.value
    assert behind is not None
    assert behind < 0


def test_parts_sum_to_the_gap(folder: Path) -> None:
    found = gap(read_run(folder))
    assert found is not None
    for r in found.rounds:
        for part in r.parts.values():
            values = [getattr(part, k).value for k in ("exact", "measured", "pace", "drift")]
            exact, measured, pace, drift = (v or 0.0 for v in values)
            assert exact - measured == pytest.approx(pace + drift)
            assert part.pace.low is not None
            assert part.pace.high is not None
            assert part.pace.low <= pace <= part.pace.high


def test_page_and_terminal_show_it(folder: Path) -> None:
    summary = summarise(folder)
    assert summary.gap is not None
    text = run_page(summary)
    assert 'data-section="gap"' in text
    assert 'data-chart="chart-gap-kappa"' in text
    last = summary.gap.rounds[-1].parts["sampling_accuracy"]
    for e in (last.measured, last.exact):
        assert f"{e.value:.3f}" in summary.gap.sentence
    out = io.StringIO()
    print_summary(summary, Console(file=out, width=80))
    assert summary.gap.sentence[1:] in " ".join(out.getvalue().split())
    assert max(map(len, out.getvalue().splitlines())) <= 80 + len(str(folder))


def test_another_reward_leads_elsewhere(folder: Path, tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "run"
    shutil.copytree(folder, other)
    config = yaml.safe_load((other / "config.yaml").read_text())
    (other / "config.yaml").write_text(yaml.safe_dump(config | {"reward": "judge"}))
    seal(other)
    assert gap(read_run(other)) is None


@pytest.mark.parametrize("missing", ["held_out.parquet", "prompts.parquet"])
def test_a_folder_without_the_files_has_no_section(
    folder: Path, tmp_path: Path, missing: str
) -> None:
    import shutil

    other = tmp_path / "run"
    shutil.copytree(folder, other)
    (other / "rounds" / "000" / missing).unlink()
    summary = summarise(other)
    assert summary.gap is None
    assert 'data-section="gap"' not in run_page(summary)


def test_older_folders_have_no_section(fake_run: Make) -> None:
    assert summarise(fake_run()).gap is None
