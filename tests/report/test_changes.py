"""What counts as a change: against SciPy's paired tests, and where no interval can be given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from srlm.report.changes import change
from srlm.run_folder import read_run
from srlm.types import Estimate, PromptTable, Round, undefined


def table(p_star: np.ndarray) -> PromptTable:
    columns: dict[str, Any] = {"prompt_id": [str(p) for p in range(len(p_star))], "p_star": p_star}
    return PromptTable.of(columns)


def at(number: int, estimates: dict[str, Estimate], prompts: PromptTable | None) -> Round:
    return Round(number, estimates, table=prompts)


def mean(values: np.ndarray, half: float = 0.1) -> Estimate:
    m = float(values.mean())
    return Estimate(m, m - half, m + half, len(values), "mean")


def test_paired_interval_is_students() -> None:
    rng = np.random.default_rng(0)
    a = rng.uniform(0.2, 0.6, 80)
    b = np.clip(a + rng.normal(0.05, 0.1, 80), 0.05, 1)
    got = change(
        "confidence",
        at(0, {"confidence": mean(a)}, table(a)),
        at(1, {"confidence": mean(b)}, table(b)),
    )
    want = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert got.method == "paired over 80 prompts"
    assert (got.low, got.high) == pytest.approx((want.low, want.high))


@pytest.mark.parametrize("of", ["mode", "greedy", "vote"])
@pytest.mark.parametrize("lost", range(1, 12))
def test_paired_share_agrees_with_the_exact_sign_test(lost: int, of: str) -> None:
    """``lost`` of 512 answers turn wrong and none turns right: McNemar's exact test decides."""
    a, b = np.ones(512), np.ones(512)
    b[:lost] = 0
    ids, name = [str(p) for p in range(512)], f"{of}_accuracy"
    ends = [
        at(i, {name: mean(x)}, PromptTable.of({"prompt_id": ids, f"{of}_correct": x}))
        for i, x in enumerate((a, b))
    ]
    sure = stats.binomtest(lost, lost).pvalue < 0.05
    assert (change(name, *ends).direction == "fell") == sure


def test_unchanged_table_is_level() -> None:
    p = np.full(50, 0.7)
    ends = [at(i, {"confidence": mean(p)}, table(p)) for i in (0, 1)]
    assert change("confidence", *ends).direction == "level"


@pytest.mark.parametrize(("gap", "direction"), [(0.1, "unclear"), (0.2, "rose"), (-0.2, "fell")])
def test_without_tables_the_intervals_combine(gap: float, direction: str) -> None:
    """Two half-widths of .1 combine to .141."""
    values = np.full(9, 0.5)
    ends = [at(i, {"entropy": mean(values + i * gap)}, None) for i in (0, 1)]
    got = change("entropy", *ends)
    assert got.direction == direction
    assert got.high == pytest.approx(gap + np.hypot(0.1, 0.1))


def test_table_that_does_not_carry_the_estimate_is_not_used() -> None:
    """An answer-level kappa, say, is not the mean of the table's 1/p*."""
    p = np.full(50, 0.7)
    a, b = Estimate(3.0, 2.9, 3.1, 50, "other"), Estimate(2.0, 1.9, 2.1, 50, "other")
    got = change("kappa", at(0, {"kappa": a}, table(p)), at(1, {"kappa": b}, table(p)))
    assert got.method == "two intervals combined as independent"


@pytest.mark.parametrize(
    "end", [undefined("none", "not measured"), Estimate(0.9, None, None, 1, "one")]
)
def test_no_interval_no_claim(end: Estimate) -> None:
    start = Estimate(0.1, None, None, 1, "one")
    ends = [at(i, {"entropy": e}, None) for i, e in enumerate((start, end))]
    assert change("entropy", *ends).direction == "unknown"


def test_tiny_change_is_none_however_sure() -> None:
    p = np.random.default_rng(1).uniform(0.3, 0.9, 400)
    ends = [at(i, {"confidence": mean(p + i * 0.004)}, table(p + i * 0.004)) for i in (0, 1)]
    got = change("confidence", *ends)
    assert got.low is not None
    assert got.low > 0
    assert got.direction == "level"


def test_paired_interval_covers() -> None:
    """95 % intervals of a true difference cover it in about 95 % of 1,000 draws of prompts."""
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(1000):
        a = rng.beta(2, 2, 60)
        b = a + rng.uniform(0, 0.2, 60)
        got = change(
            "confidence",
            at(0, {"confidence": mean(a)}, table(a)),
            at(1, {"confidence": mean(b)}, table(b)),
        )
        assert got.low is not None
        assert got.high is not None
        hits += got.low <= 0.1 <= got.high
    assert stats.binomtest(hits, 1000, 0.95).pvalue > 1e-3


def test_numbers_that_are_not_finite_are_undefined(fake_run: Any) -> None:
    def spoil(record: dict[str, Any]) -> dict[str, Any]:
        return record | {"entropy": {"value": float("nan"), "n": True}, "loss_after": float("inf")}

    told = json.loads((fake_run() / "rounds/001/round.json").read_text())
    made = Round.from_json(spoil(told))
    assert made["entropy"].value is None
    assert made.loss_after is None
    json.dumps(made["entropy"].to_json(), allow_nan=False)


def test_rounds_come_in_order(fake_run: Any) -> None:
    folder: Path = fake_run()
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(reversed(lines)))
    assert [r.round for r in read_run(folder).rounds] == list(range(6))
