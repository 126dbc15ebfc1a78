"""Benchmarks: seconds to a share of the headroom, and the search for the plan with the least."""

from __future__ import annotations

from math import exp, inf, log2
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.peers import plans, schedule, searching
from benchmarks.peers.schedule import Plan, Run
from benchmarks.peers.side import Setting


def made(*rounds: tuple[float, float]) -> Run:
    """Rounds with these headrooms at these seconds."""
    place: Any = SimpleNamespace(fresh=lambda: None)
    run = Run("ours", Plan(4, Setting()), schedule.Scene(place, 0.0, 1.0), 0)
    counts = dict.fromkeys(("draw", "score", "update", "tokens", "steps", "pairs"), 1)
    run.rounds = [{"headroom": h, "seconds_so_far": s, "cpu_so_far": s} | counts for h, s in rounds]
    return run


def test_the_first_round_with_the_share_counts_and_all_of_it() -> None:
    run = made((0.5, 1.0), (0.92, 2.0), (0.85, 3.0), (0.97, 4.0))
    assert [run.to(share) for share in (0.4, 0.9, 0.95, 0.99)] == [1.0, 2.0, 4.0, None]
    assert run.stages(0.9)["rounds"] == run.stages(0.9)["draw"] == 2
    assert run.stages(0.99)["rounds"] == 4


def test_rounds_take_the_next_prompts_and_begin_anew() -> None:
    taken = [schedule.window("abcde", t, 2) for t in range(4)]
    assert taken == [["a", "b"], ["c", "d"], ["e", "a"], ["b", "c"]]
    assert schedule.window("ab", 1, 4) == ["a", "b", "a", "b"]


def test_pace_is_the_time_to_the_share_of_an_exponential_fall() -> None:
    slow, fast = made((1 - exp(-2.5), 2.5)), made((1 - exp(-4.0), 4.0))
    share = 1 - exp(-2.0)
    assert searching.pace(slow.rounds, share) == pytest.approx(2.0)
    assert searching.pace(fast.rounds, share) == pytest.approx(2.0)
    uneven = made((1 - exp(-1.0), 1.0), (1 - exp(-3.0), 2.0))
    assert searching.pace(uneven.rounds, share) == pytest.approx(4 / 3)
    assert searching.pace(made((-0.1, 1.0)).rounds, share) == inf


def test_the_search_finds_the_fastest_plan_in_its_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"prompts": (1, 2, 4, 8), "lr": (0.1, 0.2, 0.4), "epochs": (1, 2, 3)}

    class Fake(Run):
        """A bowl: seconds grow with the distance from 2 prompts, lr 0.4, 3 passes."""

        def go_on(self) -> None:
            setting = self.plan.setting
            at = log2(self.plan.prompts), values["lr"].index(setting.lr), setting.epochs
            seconds = 1.0 + sum(abs(a - b) for a, b in zip(at, (1, 2, 3), strict=True)) / 10
            self.rounds.append({"headroom": 0.95, "seconds_so_far": seconds, "cpu_so_far": seconds})

    place: Any = SimpleNamespace(fresh=lambda: None)
    monkeypatch.setattr(searching, "Run", Fake)
    monkeypatch.setattr(searching, "scene", lambda *_: schedule.Scene(place, 0.0, 1.0))
    known: list[dict[str, Any]] = []
    first = Plan(8, Setting(lr=0.1, epochs=1))
    slow = Plan(1, Setting(lr=0.1, epochs=30))  # cut short at first, run in full at the end
    searching.search("ours", first, values, known.append, trials=20, also=(slow,))
    assert known[-1]["best"] == {"prompts": 2, "lr": 0.4, "epochs": 3}
    bases = len(searching.SEEDS)
    best = next(
        t for t in known[-1]["tried"] if (t["prompts"], t["lr"], t["epochs"]) == (2, 0.4, 3)
    )
    assert [r["seconds"] for r in best["runs"]] == [1.0] * (3 * bases)
    assert 20 <= known[-1]["trials"] == len(known[-1]["tried"]) <= 22
    runs = {len(t["runs"]) for t in known[-1]["tried"]}
    assert runs <= {*range(1, bases + 1), 3 * bases}
    given = [t for t in known[-1]["tried"] if t["prompts"] == 8 or t["epochs"] == 30]
    assert {len(t["runs"]) for t in given if t["lr"] == 0.1 and t["epochs"] in (1, 30)} == {9}
    cut = next(k for k in known if any(t["epochs"] == 30 for t in k["tried"]))
    assert [len(t["runs"]) for t in cut["tried"] if t["epochs"] == 30] == [1]


def test_every_side_starts_inside_its_values() -> None:
    for name, first in plans.FIRST.items():
        for plan in (first, *plans.ALSO.get(name, ())):
            numbers = plan.numbers()
            assert all(numbers[k] in values for k, values in plans.VALUES[name].items())


def test_a_sooner_plan_may_miss_a_third_of_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    first = plans.FIRST["trl sft"]

    def tried(prompts: int, *seconds: float | None) -> dict[str, Any]:
        numbers = {k: first.numbers()[k] for k in plans.VALUES["trl sft"]}
        return numbers | {"prompts": prompts, "runs": [{"seconds": s} for s in seconds]}

    found = {
        "best": {"prompts": 512},
        "tried": [
            tried(512, 3.0, 3.0, 3.0),
            tried(384, 2.0, None, 2.0),
            tried(256, 1.0, None, None),
            tried(192, 1.0),
        ],
    }
    monkeypatch.setattr(plans, "written", lambda: {"sides": {"trl sft": found}})
    assert plans.plan_of("trl sft").prompts == 512
    assert plans.sooner_of("trl sft").prompts == 384
    assert plans.sooner_of("ours") == plans.plan_of("ours")
    shown = plans.compared()
    assert {side for side, _ in shown.values()} == set(plans.VALUES)
    assert shown["trl sft, sooner"] == ("trl sft", first.changed(prompts=384))


def test_no_plan_of_ours_that_may_miss_is_set_against_a_sure_one() -> None:
    names = ("trl", "trl, sooner", "ours", "ours, sooner")
    pairs = [("trl", "ours"), ("trl, sooner", "ours"), ("trl, sooner", "ours, sooner")]
    assert plans.set_against(names) == pairs
