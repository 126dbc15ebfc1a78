"""The verdict of each kind of run, every warning, the best round, the examples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from srlm.errors import UserError
from srlm.report.summary import Summary, summarise
from srlm.run_folder import read_run
from tests.report.conftest import seal

Make = Callable[..., Path]
Record = dict[str, Any]
QUIET = (1.0, 1.6, 2.5)


def codes(summary: Summary) -> set[str]:
    return {warning.code for warning in summary.warnings}


def test_good_run_improved(fake_run: Make) -> None:
    s = summarise(fake_run())
    assert s.verdict.status == "improved"
    for name in ("sampling_accuracy", "confidence"):
        for r in (s.rounds[0], s.last):
            assert f"{r[name].value:.3f}" in s.verdict.sentence
    assert s.best.round == 5
    assert "rounds/005" in s.verdict.advice
    assert s.ideal_exponent(3) == 8.0


def test_giveup_run_failed(fake_run: Make) -> None:
    s = summarise(fake_run("giveup"))
    assert s.verdict.status == "failed"
    assert s.verdict.reason == "surer and wrong"
    assert s.verdict.advice.startswith("Keep the base")
    assert s.best.round == 0
    assert codes(s) == {"confident-and-wrong", "length-collapse", "saturated"}
    assert "mode accuracy 0.022" in s.warnings[0].evidence


def test_divergence_failed(fake_run: Make) -> None:
    s = summarise(fake_run("blowup"))
    assert (s.verdict.status, s.verdict.reason) == ("failed", "diverged")
    assert codes(s) == {"diverged", "kappa-rising"}


def test_run_without_answers_is_sharpened_and_claims_no_more(fake_run: Make) -> None:
    s = summarise(fake_run(answers=False))
    assert s.verdict.status == "sharpened"
    assert "unknown" in s.verdict.sentence
    assert "accuracy" not in s.verdict.sentence
    assert s.best.round == 5
    assert not any("accuracy" in c.name for c in s.changes)


def test_without_answers_divergence_and_drift_are_still_seen(fake_run: Make) -> None:
    blown = summarise(fake_run("blowup", "a", answers=False)).verdict
    assert (blown.status, blown.reason) == ("failed", "diverged")
    drifted = summarise(fake_run(name="b", answers=False, drift=0.3)).verdict
    assert drifted.badge == "failing: mode drift"
    short = summarise(fake_run("giveup", "c", answers=False)).verdict
    assert short.badge == "failing: length collapse"


def test_only_the_base(fake_run: Make) -> None:
    s = summarise(fake_run(powers=(1.0,)))
    assert s.verdict.status == "base only"
    assert s.warnings == ()
    assert s.examples == ()


def test_peak_and_fall_is_failing(fake_run: Make) -> None:
    s = summarise(fake_run(powers=(1.0, 2.0, 6.0, 2.0)))
    assert s.verdict.badge == "failing: accuracy falling since round 2"
    assert s.best.round == 2


def test_fall_below_the_base_names_the_peak(fake_run: Make) -> None:
    v = summarise(fake_run(powers=(1.0, 2.0, 4.0, 0.8))).verdict
    assert v.status == "failed"
    assert "round 2: 0.85" in v.sentence
    assert "rounds/002" in v.advice


def test_nothing_happened(fake_run: Make) -> None:
    s = summarise(fake_run(powers=(1.0, 1.0, 1.0), drift=0.0))
    assert s.verdict.status == "unchanged"
    assert s.best.round == 0
    assert s.best.reason.endswith("rounds 1, 2")


def test_surer_of_mostly_wrong_answers_is_failed_even_if_accuracy_is_level(fake_run: Make) -> None:
    def poor(record: Record) -> Record:
        values = {"value": 0.1, "low": 0.08, "high": 0.12, "n": 400, "method": "draws"}
        return record | {"sampling_accuracy": values, "mode_accuracy": values}

    v = summarise(fake_run(change=poor)).verdict
    assert (v.status, v.reason) == ("failed", "surer and wrong")
    assert "0.100 → 0.100" in v.sentence


def test_one_prompt_says_nothing(fake_run: Make) -> None:
    v = summarise(fake_run(prompts=1, drift=0.0)).verdict
    assert v.status == "unclear"
    assert "too few" in v.sentence.lower()


def test_mode_drift_without_gain_is_failing(fake_run: Make) -> None:
    s = summarise(fake_run(powers=(1.0, 1.4), drift=0.17))
    assert s.verdict.badge == "failing: mode drift"
    assert {a.code: a.severity for a in s.warnings} == {"mode-drift": "serious"}


def test_other_rewards_may_change_the_modes(fake_run: Make) -> None:
    """Fidelity falls: said against the likelihood, and against others only with an accuracy."""
    for reward, expected in (("likelihood", True), ("consistency", False)):
        folder = fake_run(powers=QUIET, drift=0.0, change=edit(fidelity=0.8))
        config = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump(config | {"reward": reward}))
        seal(folder)
        assert ("mode-drift" in codes(summarise(folder))) == expected


def edit(**values: Any) -> Callable[[Record], Record]:
    """Overwrites keys of every round but the base; a number replaces an estimate's value."""

    def change(record: Record) -> Record:
        if record["round"] == 0:
            return record
        out = dict(record)
        for key, value in values.items():
            old = out[key]
            if isinstance(old, dict):
                value = {**old, "value": value, "low": value * 0.99, "high": value * 1.01}
            out[key] = value
        return out

    return change


CASES: list[tuple[str, dict[str, Any]]] = [
    ("kappa-rising", {"powers": (1.0, 2.0, 1.6)}),
    ("kappa-level", {"powers": (1.0, 1.5, 1.5)}),
    ("mode-drift", {"powers": QUIET, "drift": 0.12}),
    ("length-growth", {"powers": QUIET, "change": edit(length=16.0)}),
    ("length-collapse", {"powers": QUIET, "change": edit(length=6.0)}),
    ("under-trained", {"powers": QUIET, "change": edit(loss_before=1.0, loss_after=0.95)}),
    ("under-trained", {"powers": QUIET, "change": edit(efficiency=0.1)}),
    ("diverged", {"powers": QUIET, "change": edit(loss_before=1.0, loss_after=1.6)}),
    ("truncation", {"powers": QUIET, "change": edit(truncated=0.05)}),
    ("uncertified", {"powers": QUIET, "certified": lambda t, p: (t, p) != (2, 5)}),
    ("saturated", {"powers": QUIET, "change": edit(distinct_responses=1.1 / 16)}),
    ("few-prompts", {"powers": QUIET, "prompts": 20, "drift": 0.0}),
]


@pytest.mark.parametrize(("code", "options"), CASES)
def test_each_warning_fires_alone(fake_run: Make, code: str, options: dict[str, Any]) -> None:
    s = summarise(fake_run(**options))
    assert codes(s) == {code}
    warning = s.warnings[0]
    assert any(c.isdigit() for c in warning.evidence)
    assert warning.advice


def test_no_warning_fires_on_a_quiet_run(fake_run: Make) -> None:
    assert codes(summarise(fake_run(powers=QUIET))) == set()


def test_movements_inside_the_interval_set_nothing_off(fake_run: Make) -> None:
    """Tables gone and intervals wide: the same numbers are no evidence."""

    def widen(record: Record) -> Record:
        return {
            k: {**v, "low": v["value"] - 9, "high": v["value"] + 9}
            if isinstance(v, dict) and v.get("value") is not None
            else v
            for k, v in record.items()
        }

    folder = fake_run("giveup", change=widen)
    for file in folder.glob("rounds/*/prompts.parquet"):
        file.unlink()
    s = summarise(seal(folder))
    assert s.verdict.status == "unclear"
    assert codes(s) <= {"saturated"}


def test_heavy_tail(fake_run: Make) -> None:
    folder = fake_run(powers=QUIET)
    file = folder / "rounds" / "001" / "prompts.parquet"
    data = pq.read_table(file)
    p = np.array(data["p_star"].to_pylist())
    p[:4] = 1e-3
    place = data.column_names.index("p_star")
    pq.write_table(data.set_column(place, "p_star", pa.array(p)), file)
    seal(folder)
    warning = next(a for a in summarise(folder).warnings if a.code == "heavy-tail")
    assert "Round 1: 4 of 400 prompts" in warning.evidence


def test_examples_are_what_their_titles_say(fake_run: Make) -> None:
    improved, broken, unchanged = summarise(fake_run(drift=0.05)).examples
    for group, sign in ((improved, 1), (broken, -1)):
        gains = [
            sign * ((e.after.sampling_accuracy or 0) - (e.before.sampling_accuracy or 0))
            for e in group.examples
        ]
        assert len(gains) == 3
        assert gains == sorted(gains, reverse=True)
        assert min(gains) > 0.05
    assert all(e.before.mode == e.after.mode for e in unchanged.examples)


def test_examples_without_answers_show_changed_modes(fake_run: Make) -> None:
    groups = summarise(fake_run(answers=False)).examples
    changed = groups[1]
    assert changed.of == 8  # 2 % of 400
    assert all(e.before.mode != e.after.mode for e in changed.examples)
    assert all(e.after.right is None for g in groups for e in g.examples)


def test_same_folder_same_summary(fake_run: Make) -> None:
    assert repr(summarise(fake_run("giveup", "a"))).replace("/a'", "/b'") == repr(
        summarise(fake_run("giveup", "b"))
    )


def test_a_record_is_kept_twice(fake_run: Make) -> None:
    """round.json or its line of metrics.jsonl may be lost, not both; later rounds are left out."""
    folder = fake_run()
    cut = (folder / "metrics.jsonl").read_bytes()[:-40]
    (folder / "metrics.jsonl").write_bytes(cut)
    for t in (0, 2):
        (folder / f"rounds/00{t}/round.json").write_text("{}")
    (folder / "rounds/003/files.json").unlink()
    found = read_run(folder)
    assert repr(found.rounds[:3]) == repr(read_run(fake_run(name="other")).rounds[:3])
    assert [r.round for r in found.rounds] == list(range(6))
    assert found.rounds[3].estimates == read_run(fake_run(name="third")).rounds[3].estimates
    assert found.rounds[3].table is None
    names = {"rounds/000/round.json", "rounds/002/round.json", "rounds/003/files.json"}
    assert set(found.damaged) == names
    (folder / "rounds/005/round.json").unlink()
    assert [r.round for r in summarise(folder).rounds] == list(range(5))
    assert "rounds/005" in read_run(folder).damaged


@pytest.mark.parametrize("name", ["files.json", "round.json"])
def test_without_a_record_of_round_0_there_is_nothing_to_show(fake_run: Make, name: str) -> None:
    folder = fake_run()
    (folder / "metrics.jsonl").unlink()
    (folder / "rounds/000" / name).write_text("{}")
    with pytest.raises(UserError, match=rf"round 0.*{name}: damaged"):
        summarise(folder)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        summarise(tmp_path / "nothing")
