"""Headlines and alarms know how many prompts carry them: the same shares over 5, 16, 64 and 256."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from srlm.measure.intervals import FEWEST, mean
from srlm.report.best import best_round
from srlm.report.changes import SAME, change
from srlm.report.verdict import judge
from srlm.report.warnings import warnings
from srlm.run_folder import Run
from srlm.types import Estimate, Floats, PromptTable, Round

SIZES = (5, 16, 64, 256)


@dataclass(frozen=True)
class Path3:
    """Shares of three rounds."""

    accuracy: tuple[float, float, float]
    confidence: tuple[float, float, float]
    length: tuple[float, float, float] = (10.0, 10.0, 10.0)
    answers: bool = True


def spread(share: float, n: int, seed: int) -> Floats:
    """Numbers of n prompts with this mean to 1/16 of a prompt: some sure, some not, in an order
    of their own."""
    if share in (0.0, 1.0):
        return np.full(n, share)
    value_P = np.random.default_rng(seed).beta(2 * share, 2 * (1 - share), n)
    for _ in range(50):
        value_P = np.clip(value_P + share - value_P.mean(), 0, 1)
    return value_P


def run_of(path: Path3, n: int) -> Run:
    rounds = []
    for t in range(3):
        right_P = spread(path.accuracy[t], n, 1) if path.answers else np.full(n, np.nan)
        sure_P = spread(path.confidence[t], n, 2)
        length_P = path.length[t] * np.exp(np.random.default_rng(3).normal(0, 0.2, n))
        columns = {
            "prompt_id": [str(i) for i in range(n)],
            "p_star": sure_P,
            "certified": np.ones(n, dtype=bool),
            "sampling_accuracy": right_P,
        }
        shares = {"confidence": sure_P, "kappa": 1 / np.maximum(sure_P, 0.01)}
        estimates = {
            name: mean(value_P, 0, "", least=0.0, most=1.0 if name == "confidence" else np.inf)
            for name, value_P in shares.items()
        }
        estimates |= {
            "length": mean(length_P, 0, "", least=0.0),
            "fidelity": mean(np.ones(n), 0, "", least=0.0, most=1.0),
            "entropy": mean(1 - sure_P, 0, "", least=0.0),
            "base_answer_share": mean(sure_P, 0, "", least=0.0, most=1.0),
        }
        if path.answers:
            estimates["sampling_accuracy"] = mean(right_P, 0, "", least=0.0, most=1.0)
        rounds.append(Round(t, estimates, table=PromptTable.of(columns)))
    config = {"reward": "likelihood", "measure.samples": 16}
    return Run(Path("run"), config, {}, tuple(rounds))


def told(path: Path3, n: int) -> tuple[str, str, set[str]]:
    run = run_of(path, n)
    best = best_round(run)
    found = warnings(run, best)
    verdict = judge(run, best, found)
    return verdict.status, verdict.reason, {notice.code for notice in found}


SURER = (0.3, 0.5, 0.7)
CASES: list[tuple[str, Path3, Sequence[str]]] = [
    ("still wrong", Path3((0.05, 0.05, 0.05), SURER), ("unclear", "unclear", "failed", "failed")),
    ("much better", Path3((0.2, 0.5, 0.8), SURER), ("unclear",) + ("improved",) * 3),
    ("much worse", Path3((0.8, 0.5, 0.2), SURER), ("unclear",) + ("failed",) * 3),
    ("as before", Path3((0.6, 0.6, 0.6), SURER), ("unclear",) * 2 + ("unchanged",) * 2),
    ("all right", Path3((1.0, 1.0, 1.0), SURER), ("unclear",) * 2 + ("unchanged",) * 2),
    (
        "no answers",
        Path3((0.5, 0.5, 0.5), SURER, answers=False),
        ("unclear",) + ("sharpened",) * 3,
    ),
    (
        "shorter",
        Path3((0.6, 0.6, 0.6), SURER, (10.0, 6.0, 3.0)),
        ("unclear",) + ("failing",) * 3,
    ),
]


@pytest.mark.parametrize(("path", "want"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_headline_is_claimed_by_enough_prompts_alone(path: Path3, want: Sequence[str]) -> None:
    assert [told(path, n)[0] for n in SIZES] == list(want)


def test_a_handful_of_prompts_sets_off_no_alarm() -> None:
    serious = {"confident-and-wrong", "diverged", "kappa-rising", "length-collapse", "saturated"}
    for _, path, _ in CASES:
        assert not told(path, 5)[2] & serious
    worse = Path3((0.8, 0.5, 0.2), SURER)
    assert ["confident-and-wrong" in told(worse, n)[2] for n in SIZES] == [False] + [True] * 3


@pytest.mark.parametrize("n", SIZES)
def test_needed_prompts_are_those_that_tell(n: int) -> None:
    """With as many as it says the same spread gives an interval of ``SAME`` to either side."""
    path = Path3((0.55, 0.55, 0.55), SURER)
    run = run_of(path, n)
    a, b = run.rounds[0], run.rounds[2]
    assert b.table is not None and a.table is not None
    other_P = np.random.default_rng(9).permutation(b.table.sampling_accuracy)
    columns = {"prompt_id": list(b.table.prompt_id), "p_star": b.table.p_star}
    b = Round(2, b.estimates, table=PromptTable.of({**columns, "sampling_accuracy": other_P}))
    c = change("sampling_accuracy", a, b)
    assert c.low is not None and c.high is not None
    half = (c.high - c.low) / 2 + 1 / n
    assert half * np.sqrt(n / c.needed) <= SAME * 1.001
    assert c.direction == ("level" if c.needed <= n else "unclear")


@pytest.mark.parametrize(("moved", "want"), [(FEWEST - 1, "unclear"), (FEWEST, "rose")])
def test_a_direction_takes_six_prompts(moved: int, want: str) -> None:
    """All of one sign: by the sign test 2 / 2^5 > 0.05 and 2 / 2^6 < 0.05."""
    before_P = np.full(moved, 0.2)
    after_P = before_P + np.linspace(0.3, 0.31, moved)

    def at(t: int, value_P: Floats) -> Round:
        e = {"confidence": Estimate(float(value_P.mean()), None, None, moved, "")}
        ids = [str(i) for i in range(moved)]
        return Round(t, e, table=PromptTable.of({"prompt_id": ids, "p_star": value_P}))

    assert change("confidence", at(0, before_P), at(1, after_P)).direction == want


def test_intervals_of_the_most_striking_of_several_are_wider() -> None:
    run = run_of(Path3((0.3, 0.4, 0.5), SURER), 64)
    for name in ("sampling_accuracy", "length"):
        one, many = (change(name, *run.rounds[::2], among=k) for k in (1, 8))
        assert one.low is not None and many.low is not None
        assert many.low < one.low
