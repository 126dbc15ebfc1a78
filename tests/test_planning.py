"""``srlm plan --run`` on made-up run folders whose numbers are known, and both commands."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from srlm import cli
from srlm.errors import UserError
from srlm.lab import CLAIMS
from srlm.plan_terminal import print_plan, print_run_plan
from srlm.planning import plan_run, to_json
from srlm.run_numbers import complexity_of
from srlm.theory import plan, predict_rounds
from tests.report.conftest import base_policy, fake_run, sharpen

POWERS = (1.0, 1.6, 2.5, 4.0, 6.0, 9.0)
PROMPTS = 50
FLAGS = ("--kappa0", "--margin", "--confidence", "--beta", "--complexity", "--samples")
NUMBERS = [x for pair in zip(FLAGS, ("4", "1", ".1", ".05", "50"), strict=False) for x in pair]


def logs(t: int) -> tuple[np.ndarray, np.ndarray]:
    """log p* and the margin of the made-up run's prompts in a round."""
    log = np.log(sharpen(base_policy("good", PROMPTS)[0], POWERS[t], 0.02 if t else 0.0))
    ordered = np.sort(log, axis=1)
    return ordered[:, -1], ordered[:, -1] - ordered[:, -2]


def columns(folder: Path, t: int, **changed: Any) -> None:
    """Put the columns of a measurement into a round's table; ``changed`` ones as they are."""
    file = folder / "rounds" / f"{t:03d}" / "prompts.parquet"
    table = pq.read_table(file)
    logp, margin = logs(t)
    new = {"log_p_star": logp, "log_p_star_upper": logp, "margin": margin, "margin_high": margin}
    table = table.drop_columns([c for c in new if c in table.column_names])
    for name, values in (new | changed).items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five rounds, 50 prompts, 200 draws in round 0 and 120 after, a policy of 24 floats."""
    out = fake_run(tmp_path / "run", powers=POWERS, prompts=PROMPTS)
    for t in range(len(POWERS)):
        columns(out, t)
        if t < len(POWERS) - 1:
            pairs = pa.table({"group": pa.array([0, 1])})
            meta = {"draws": "120" if t else "200"}
            pq.write_table(
                pairs.replace_schema_metadata(meta), out / f"rounds/{t:03d}/pairs.parquet"
            )
    (out / "rounds/000/policy").mkdir()
    save_file({"w": np.zeros((4, 6), np.float32)}, out / "rounds/000/policy/model.safetensors")
    return out


def states(made: Any) -> dict[str, str]:
    return {found.name: found.state for found in made.assumptions}


def test_numbers_are_the_runs_own(folder: Path) -> None:
    made = plan_run(folder)
    values = {name: stated.value for name, stated in made.numbers.items()}
    rounds = [logs(t) for t in range(len(POWERS))]
    assert values["kappa0"] == pytest.approx(np.mean(np.exp(-rounds[0][0])), rel=1e-12)
    assert values["margin"] == pytest.approx(min(m.min() for _, m in rounds), rel=1e-9)
    assert values["confidence"] == pytest.approx(math.exp(min(p.min() for p, _ in rounds)))
    assert values["complexity"] == pytest.approx(24 * 32 * math.log(2))
    assert (values["samples"], values["rounds"], values["beta"]) == (60, 5, 1.0)
    assert made.plan == plan(**values)
    assert made.plan.failure.vacuous
    assert all(stated.source for stated in made.numbers.values())
    assert states(made) == {
        "unique mode": "holds",
        "margin": "holds",
        "least confidence": "holds",
        "realizability": "cannot be told",
    }


def test_what_is_given_replaces_what_is_measured(folder: Path) -> None:
    made = plan_run(folder, complexity=9.0, margin=0.9, rounds=3, samples=10**9, beta=0.01)
    assert made.plan is not None
    assert made.plan.problem.complexity == 9.0
    assert (made.plan.rounds, made.plan.samples) == (3, 10**9)
    assert made.numbers["beta"].source == "given"
    assert states(made)["margin"] == "fails"  # some prompt has less than was given
    assert "required 0.9" in made.assumptions[1].evidence[1]


def test_a_tie_leaves_no_plan(folder: Path) -> None:
    margin = logs(2)[1]
    margin[7] = 0.0
    columns(folder, 2, margin=margin, margin_high=margin)
    made = plan_run(folder)
    assert made.plan is None
    assert "--margin" in made.unplanned
    assert states(made)["unique mode"] == states(made)["margin"] == "fails"
    assert plan_run(folder, margin=0.1).plan is not None


def test_a_mode_not_certified_is_not_judged(folder: Path) -> None:
    logp, margin = logs(0)
    upper, low, high = logp.copy(), margin.copy(), margin.copy()
    upper[3], low[3], high[3] = 0.0, 0.0, np.inf
    columns(folder, 0, log_p_star_upper=upper, margin=low, margin_high=high)
    made = plan_run(folder)
    assert states(made)["unique mode"] == states(made)["margin"] == "cannot be told"
    assert made.plan is None
    assert "1 of 50" in made.numbers["kappa0"].source


def test_probabilities_too_small_for_a_number(folder: Path) -> None:
    columns(folder, 0, log_p_star=logs(0)[0] - 800.0, log_p_star_upper=logs(0)[0] - 800.0)
    made = plan_run(folder)
    assert states(made)["unique mode"] == states(made)["margin"] == "holds"
    assert states(made)["least confidence"] == "cannot be told"
    assert made.plan is None
    assert "confidence" in made.unplanned
    assert "overflows" in plan_run(folder, confidence=0.1).unplanned
    json.dumps(to_json(made), allow_nan=False)


def test_the_calibrated_planner(folder: Path) -> None:
    made = plan_run(folder, rounds=9)
    known = [float(k) for k in made.kappa_T if k is not None]
    expected = predict_rounds(known, 4, target=1.1)
    assert made.ahead is not None
    assert made.ahead.round_R.tolist() == [6, 7, 8, 9]
    assert np.array_equal(made.ahead.kappa_R, expected.kappa_R)
    assert made.score is not None and made.score.predicted == 2
    first = next(t for t, k in enumerate(known) if k <= 1.1)
    assert made.reached == first


def test_too_few_rounds_to_calibrate(folder: Path) -> None:
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(lines[:4]))
    made = plan_run(folder)
    assert made.ahead is not None and made.score is None  # four values: fitted, nothing to score
    metrics.write_text("".join(lines[:2]))
    made = plan_run(folder)
    assert made.ahead is None
    assert "two at least" in made.unforeseen


def set_round_1(folder: Path, **values: float) -> None:
    metrics = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    for name, value in values.items():
        lines[1][name] |= {"value": value, "low": value, "high": value}
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_realizability_is_the_share_left_unexplained(folder: Path) -> None:
    set_round_1(folder, exponent=2.0, exponent_r2=1.0)  # beta = 1: exact
    exact = plan_run(folder).assumptions[3]
    assert (exact.state, exact.value) == ("holds", 1.0)
    rng = np.random.default_rng(0)  # the same share, counted pair by pair
    log0_R = rng.normal(size=4000) * 2.0
    log1_R = 1.9 * log0_R + 0.3 * rng.normal(size=4000)
    x, y = log0_R - log0_R.mean(), log1_R - log1_R.mean()
    slope, r2 = (x @ y) / (x @ x), (x @ y) ** 2 / ((x @ x) * (y @ y))
    dx, dy = x[:, None] - x, y[:, None] - y
    share = np.mean(((dy - dx) - dx) ** 2) / np.mean(dx**2)
    set_round_1(folder, exponent=slope, exponent_r2=r2)
    found = plan_run(folder).assumptions[3]
    assert 1.0 - found.value == pytest.approx(share, rel=1e-9)
    assert found.state == "cannot be told"


def test_complexity_counts_bits(tmp_path: Path) -> None:
    policy = tmp_path / "rounds/000/policy"
    policy.mkdir(parents=True)
    assert complexity_of(tmp_path) is None
    save_file({"theta": np.zeros(5), "phi": np.zeros((9, 9))}, policy / "a.safetensors")
    save_file({"w": np.zeros((2, 3), np.float16)}, policy / "b.safetensors")
    stated = complexity_of(tmp_path)
    assert stated is not None
    assert stated.value == pytest.approx((5 * 64 + 6 * 16) * math.log(2))


def test_a_folder_without_tables_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "rounds/002/prompts.parquet").unlink()
    with pytest.raises(UserError, match=r"002.prompts\.parquet"):
        plan_run(folder)
    with pytest.raises(UserError, match="no such folder"):
        plan_run(tmp_path / "none")


# In the terminal


def shown(show: Callable[[Any, Console], None], made: Any) -> str:
    console = Console(width=80, record=True, highlight=False, file=io.StringIO())
    show(made, console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_a_plan_is_readable() -> None:
    text = shown(print_plan, plan(4.0, 1.0, 0.1, 0.05, 50.0))
    assert "NOTHING IS IN THE WAY" in text
    assert "vacuous" not in text
    assert "P[p* <= 1/2] after 4 rounds" in text
    assert "up to a universal constant c = 1" in text
    text = shown(print_plan, plan(4.0, 1.0, 0.1, 2.0, 50.0, rounds=3, samples=1000))
    assert "LIMITED BY BETA" in text
    assert text.count("vacuous") == 6  # failure twice, kappa, its fixed point, pace, rounds
    assert "<=" not in text.replace("p* <= 1/2", "")  # nothing else claims to bound
    text = shown(print_plan, plan(4.0, 1.0, 0.1, 0.05, 50.0, samples=10**8))
    best = plan(4.0, 1.0, 0.1, 0.05, 50.0)
    assert f"{best.rounds} rounds of {best.samples:.1e} pairs" in text
    assert "none: no number" in shown(print_plan, plan(4.0, 1.0, 0.1, 2.0, 50.0))


def test_a_plan_of_a_run_is_readable(folder: Path) -> None:
    text = shown(print_run_plan, plan_run(folder))
    for word in ("config.yaml", "unique mode: holds", "vacuous", "measured", "Back-test"):
        assert word in text
    columns(folder, 0, margin=0.0 * logs(0)[1])
    assert "None: the least margin" in shown(print_run_plan, plan_run(folder))


# The commands


@pytest.fixture
def srlm(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def command(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["srlm", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert isinstance(stop.value.code, int)
        return stop.value.code

    return command


def test_plan_writes_what_the_function_gives(srlm: Callable[..., int], tmp_path: Path) -> None:
    file = tmp_path / "new" / "plan.json"
    assert srlm("plan", *NUMBERS, "--rounds", "3", "--json", str(file)) == 0
    made = plan(4.0, 1.0, 0.1, 0.05, 50.0, rounds=3)
    data = json.loads(file.read_text())
    assert data == json.loads(json.dumps(to_json(made)))
    assert data["samples"] == made.samples
    assert data["failure"]["vacuous"] is False


def test_plan_of_a_run(
    srlm: Callable[..., int], folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    assert srlm("plan", "--run", str(folder), "--complexity", "9", "--json", str(file)) == 0
    assert "calibrated planner" in capsys.readouterr().out
    assert json.loads(file.read_text())["numbers"]["complexity"] == {
        "value": 9.0,
        "source": "given",
    }


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], ["kappa0: missing", "margin: missing", "confidence", "beta", "complexity"]),
        (
            [f"{flag}={x}" for flag, x in zip(FLAGS, (0.9, 0, 1.1, -1, 0, 0), strict=True)],
            [flag.removeprefix("--") for flag in FLAGS],
        ),
        ([*NUMBERS, "--rounds", "0", "--target", "2"], ["rounds", "target"]),
        ([*NUMBERS, "--kappa0", "11"], ["kappa0 is 11", "confidence"]),
        ([*NUMBERS, "--margin", "x"], ["margin"]),
        ([*NUMBERS, "--kappa0", "nan"], ["kappa0"]),
        (["--run", "nowhere"], ["nowhere: no such folder"]),
        (["--run", "nowhere", "--samples", "0", "--margin", "-1"], ["samples", "margin"]),
        ([*NUMBERS, "--json", "."], [".: a folder"]),
    ],
)
def test_bad_numbers_are_all_named(
    srlm: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    named: list[str],
) -> None:
    assert srlm("plan", *arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "\nRemedy: " in shown.err
    for name in named:
        assert name in shown.err


def test_unknown_claims_are_named(
    srlm: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert srlm("lab", "greedy", "bogus") == 2
    text = capsys.readouterr().err
    assert "bogus" in text
    assert all(name in text for name in CLAIMS)
    assert srlm("lab") == 2
    assert srlm("lab", "all", "--json", ".") == 2  # before the work, not after


def test_lab_gives_the_findings(
    srlm: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    from srlm import lab
    from srlm.lab.result import Finding

    asked: dict[str, Any] = {}

    def act(claims: list[str], **options: Any) -> list[Finding]:
        asked.update(options, claims=claims)
        return [Finding("rate", "s", "[SR]", "i", [{"n": 1}], {"x": 0.5}, "holds", "because so")]

    monkeypatch.setattr(lab, "run", act)
    out, file = tmp_path / "lab", tmp_path / "found.json"
    options = ("--out", str(out), "--json", str(file), "--seed", "3", "--quick")
    assert srlm("lab", "rate", *options) == 0
    assert (asked["claims"], asked["seed"], asked["quick"]) == (["rate"], 3, True)
    assert (asked["out"], asked["workers"]) == (out, 1)
    assert json.loads(file.read_text())[0]["verdict"] == "holds"
    text = capsys.readouterr().out
    assert "rate: holds" in text
    assert "lab.html" in text
    assert srlm("lab", "all") == 0
    assert asked["workers"] >= 1


def test_lab_help_lists_the_claims_without_torch() -> None:
    code = (
        "import atexit, sys; sys.argv = ['srlm', 'lab', '--help']\n"
        "heavy = {'torch', 'numpy', 'scipy', 'pyarrow', 'plotly'}\n"
        "atexit.register(lambda: print(sorted(heavy & sys.modules.keys()), file=sys.stderr))\n"
        "from srlm.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert all(name in done.stdout for name in CLAIMS)
