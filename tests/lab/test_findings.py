"""Findings, sweeps that go on, the page and the terminal."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from srlm import lab
from srlm.cli import app
from srlm.engines.cluster import mapped
from srlm.errors import UserError
from srlm.lab.fits import bootstrap_slope, log_slope
from srlm.lab.result import VERDICTS, Finding
from srlm.lab.setting import Setting
from srlm.lab.words import print_findings
from srlm.lab.work import run
from srlm.report.plots import panels, series
from srlm.types import Estimate
from tests.engines.played import Played, play

HOSTILE = "</script><script>alert(1)</script>\x00"


def finding(claim: str = "rate", text: str = "x") -> Finding:
    return Finding(
        claim=claim,
        instance=text,
        figures=[{"n": 1, text: 0.5}, {"n": 2, text: None}],
        numbers={text: Estimate(-0.5, -0.6, -0.4, 9, "fit"), "plain": 2.0},
        verdict="holds",
        because=text,
        says=text,
        seen=text,
        plot=panels([series([1, 2], [0.5, 0.25], text)], "n", text),
    )


def test_the_catalogue_needs_no_torch() -> None:
    code = "import sys, srlm.lab; print(len(srlm.lab.CLAIMS), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["13", "False"]


def test_every_claim_has_one_file_and_one_lot() -> None:
    folder = Path(lab.__file__).parent / "claims"
    files = {p.stem.replace("_", "-") for p in folder.glob("*.py")} - {"--init--"}
    assert files == set(lab.CLAIMS)
    assert sorted(name for lot in lab.TASKS for name in lot) == sorted(lab.CLAIMS)


def test_unknown_claims_are_named() -> None:
    with pytest.raises(UserError, match="kapa"):
        run(["rate", "kapa"])
    with pytest.raises(UserError, match="none"):
        run([])


def test_json_there_and_back() -> None:
    one = finding()
    assert Finding.from_json(one.to_json()) == one


def test_impossible_findings_are_refused() -> None:
    with pytest.raises(ValueError, match="verdict"):
        Finding("rate", "", [], {}, "fine", "")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="columns"):
        Finding("rate", "", [{"n": 1}, {"m": 1}], {}, "holds", "")


def test_a_sweep_goes_on_where_it_stopped(tmp_path: Path) -> None:
    calls: list[int] = []

    def make(n: int, stop: int) -> dict[str, Any]:
        if n == stop:
            raise KeyboardInterrupt
        calls.append(n)
        return {"square": n * n}

    setting = Setting(cells=tmp_path)
    cells = [{"n": n} for n in range(5)]
    with pytest.raises(KeyboardInterrupt):
        setting.sweep("squares", cells, lambda n: make(n, 3))
    got = setting.sweep("squares", cells, lambda n: make(n, -1))
    assert [r["square"] for r in got] == [0, 1, 4, 9, 16]
    assert calls == [0, 1, 2, 3, 4]
    assert not list(tmp_path.glob(".*"))  # nothing half-written


def test_cells_of_another_seed_or_size_are_not_taken(tmp_path: Path) -> None:
    def make(n: int) -> dict[str, Any]:
        return {"value": len(list(tmp_path.iterdir()))}

    one = Setting(seed=0, cells=tmp_path).sweep("a", [{"n": 1}], make)
    other = Setting(seed=1, cells=tmp_path).sweep("a", [{"n": 1}], make)
    third = Setting(seed=0, cells=tmp_path).sweep("a", [{"n": 2}], make)
    again = Setting(seed=0, cells=tmp_path).sweep("a", [{"n": 1}], make)
    assert [r[0]["value"] for r in (one, other, third, again)] == [0, 1, 2, 0]


def test_cells_made_elsewhere_are_the_same(tmp_path: Path) -> None:
    """In any order; those that are kept are not made again; a setting travels as seed and size."""

    def backwards(do: Any, cells: Any) -> Any:
        yield from [(cell, do(cell)) for cell in cells][::-1]

    made: list[int] = []

    def make(n: int) -> dict[str, Any]:
        made.append(n)
        return {"third": np.float64(n / 3)}

    cells = [{"n": n} for n in range(4)]
    Setting(cells=tmp_path).sweep("a", cells[1:2], make)
    here = Setting().sweep("a", cells, make)
    there = Setting(cells=tmp_path, map=backwards).sweep("a", cells, make)
    assert here == there
    assert made == [1, 0, 1, 2, 3, 0, 2, 3]
    sent = pickle.loads(pickle.dumps(Setting(3, True, tmp_path, map=backwards)))
    assert (sent.seed, sent.quick, sent.cells) == (3, True, None)


def test_claims_over_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To the byte, but for their times; and with one worker lost again and again."""
    names = ["greedy", "contraction"]
    alone = run(names, quick=True)
    ray = Played(2, loses=lambda n: n % 4 == 0)
    play(monkeypatch, ray)
    found = run(names, quick=True, out=tmp_path, over=mapped(None))
    assert ray.killed
    for one, other in zip(alone, found, strict=True):
        assert replace(one, seconds=0.0).to_json() == replace(other, seconds=0.0).to_json()


def test_the_command_over_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ray = Played(1)
    play(monkeypatch, ray)
    words = ["lab", "greedy", "--quick", "-q", "--out", str(tmp_path)]
    assert (
        CliRunner().invoke(app, [*words, "--engine", "ray"], catch_exceptions=False).exit_code == 0
    )
    assert ray.calls == len(list((tmp_path / "cells").iterdir())) > 1
    with pytest.raises(UserError, match="ray-address"):
        CliRunner().invoke(app, [*words, "--ray-address", "127.0.0.1:9"], catch_exceptions=False)


def test_the_page_is_inert_and_the_same_every_time() -> None:
    from srlm.lab.page import page

    html = page([finding("rate", HOSTILE)])
    assert html == page([finding("rate", HOSTILE)])
    assert "<script>alert" not in html
    assert "\x00" not in html
    assert "default-src 'none'" in html
    assert html.count("<script>") == 2  # plotly and the lines that draw
    assert "http-equiv" in html.split("<style>")[0]


def test_the_page_without_plots_carries_no_script() -> None:
    from srlm.lab.page import page

    bare = Finding("greedy", "i", [], {}, "not testable here", "b")
    html = page([bare])
    assert len(html) < 30_000
    assert "<script>" not in html


@pytest.mark.parametrize("count", [1, 3])
def test_the_terminal_fits_80_columns(count: int) -> None:
    text = "a long sentence about kappa and the pairs of a round, " * 4
    findings = [finding(name, text) for name in list(lab.CLAIMS)[:count]]
    buffer = io.StringIO()
    print_findings(findings, Console(file=buffer, width=120))
    lines = buffer.getvalue().splitlines()
    assert max(len(x) for x in lines) <= 80
    assert any(VERDICTS[0] in x for x in lines)


def test_slopes() -> None:
    import numpy as np

    x = np.geomspace(1, 1e4, 9)
    exact = log_slope(x, 3 * x**-0.5)
    assert exact.value == pytest.approx(-0.5)
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(60):
        values = [n**-0.5 * rng.exponential(size=40) for n in x]
        e = bootstrap_slope(x, values, trial, "test", count=300)
        assert e.low is not None
        assert e.high is not None
        hits += e.low <= -0.5 <= e.high
    assert hits >= 50  # 95 % nominal, 83 % asked
    assert log_slope([1, 2], [1, 2]).value is None


def test_run_writes_findings_page_and_cells(tmp_path: Path) -> None:
    from dataclasses import replace

    one = run(["greedy"], quick=True, out=tmp_path)
    cells = sorted(tmp_path.glob("cells/*.json"))
    assert (tmp_path / "lab.html").stat().st_size > 1_000_000
    assert json.loads((tmp_path / "greedy.json").read_text())["verdict"] == "holds"
    assert len(cells) == 13
    again = run(["greedy"], quick=True, out=tmp_path)
    assert [replace(f, seconds=0.0) for f in one] == [replace(f, seconds=0.0) for f in again]


def test_stages_at_a_terminal_do_not_nest() -> None:
    from srlm.progress import Progress

    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    (found,) = run(["contraction"], quick=True, progress=Progress(console=console))
    assert found.verdict == "holds"


@pytest.mark.slow
def test_workers_give_what_one_process_gives(tmp_path: Path) -> None:
    from dataclasses import replace

    names = ["greedy", "spectrum"]
    apart = run(names, quick=True, out=tmp_path, workers=2)
    here = run(names, quick=True)
    assert [f.claim for f in apart] == names
    for one, other in zip(apart, here, strict=True):
        a, b = (json.loads(replace(f, seconds=0.0).to_json()) for f in (one, other))
        assert a["figures"] == b["figures"]
        assert (a["verdict"], a["because"]) == (b["verdict"], b["because"])


@pytest.mark.slow
def test_a_worker_that_fails_says_so(tmp_path: Path) -> None:
    (tmp_path / "cells").write_text("in the way")
    with pytest.raises(UserError, match="greedy"):
        run(["greedy"], quick=True, out=tmp_path, workers=2)
