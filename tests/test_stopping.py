"""--stop auto: the rules on made-up rounds, no use of answers, the same end when a run goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srlm import loop, pairs
from srlm import stopping as stop
from srlm import train as update
from srlm.config import MeasureSettings, SampleSettings, UpdateSettings
from srlm.grading import EXACT, Grader
from srlm.measure import agreement
from srlm.measure.evaluate import evaluate, reference
from srlm.policies.tabular import Tabular, rows
from srlm.report import page
from srlm.rewards.likelihood import likelihood
from srlm.rounds import Method
from srlm.run_folder import Memory
from srlm.runner import run
from srlm.types import Estimate, Floats, Prompt, undefined
from tests import tiny

RULE = stop.rule_of("likelihood")
FREE = stop.Rule((), judged=True)


def near(value: float | None, width: float = 0.01) -> Estimate:
    if value is None:
        return undefined("test", "unknown")
    return Estimate(value, value - width, value + width, 100, "test")


def rounds(
    kappa: Sequence[float],
    kept: Sequence[float | None] | None = None,
    ahead: Sequence[float] | None = None,
    width: float = 0.01,
) -> list[dict[str, Estimate]]:
    """Rounds of a policy that becomes surer as kappa, of responses and of votes, falls."""
    kept_T = kept or [1 / k for k in kappa]
    ahead_T = ahead or [1.0] * len(kappa)
    return [
        {
            "kappa": near(k, width),
            "log10_kappa": Estimate(
                np.log10(k), np.log10(max(k - width, 1e-9)), np.log10(k + width), 100, "test"
            ),
            "kappa_next": near(a),
            "kappa_vote": near(k, width),
            "confidence": near(1 / k),
            "fidelity": near(0.99),
            "base_mode_probability": near(x, width),
            "base_answer_share": near(x, width),
        }
        for k, x, a in zip(kappa, kept_T, ahead_T, strict=True)
    ]


def ends(history: list[dict[str, Estimate]], rule: stop.Rule = RULE) -> stop.Stop | None:
    """The first stop that the rounds give."""
    for t in range(1, len(history) + 1):
        if (end := stop.by_measurement(history[:t], rule)) is not None:
            return end
    return None


def test_it_goes_on_while_kappa_falls() -> None:
    assert ends(rounds([3.0, 2.0, 1.5, 1.2, 1.1])) is None
    assert ends(rounds([1.0])) is None  # the base alone


def test_floor() -> None:
    end = ends(rounds([2.0, 1.3, 1.1, 1.015, 1.01]))
    assert end is not None
    assert (end.round, end.code, end.best) == (3, "floor", 3)
    assert "1.015 [1.005, 1.025] in round 3 has reached its floor of 1" in end.reason
    for rule in (RULE, FREE):  # any reward: no draws are left that differ
        assert ends(rounds([2.0, 1.005]), rule) is not None


def test_floor_of_tied_modes() -> None:
    """Two modes everywhere: kappa tends to 2, and an exact round changes nothing."""
    end = ends(rounds([3.0, 2.2, 2.01], ahead=[2.5, 2.1, 2.005]))
    assert end is not None
    assert (end.round, end.code) == (2, "floor")
    assert "reached its floor: an exact round would leave it at 2.005" in end.reason
    assert ends(rounds([3.0, 2.2, 2.01], ahead=[2.5, 2.1, 2.005]), FREE) is None


def test_level() -> None:
    end = ends(rounds([3.0, 2.0, 1.995, 1.99, 1.5]))
    assert end is not None
    assert (end.round, end.code) == (3, "level")
    assert "round 1" in end.reason and "2 [1.99, 2.01]" in end.reason
    assert ends(rounds([3.0, 2.0, 1.995, 1.99, 1.5]), FREE) is None
    assert ends(rounds([3.0, 3.0, 3.0, 2.0])) is None  # one round says little: it may warm up
    assert ends(rounds([3.0, 2.0, 1.995, 1.5, 1.3])) is None  # nor a level one among others


def test_few_prompts_and_wide_intervals_stop_nothing_that_moves() -> None:
    assert ends(rounds([5.0, 3.9, 3.1, 2.5], ahead=[2.0] * 4, width=4.0)) is None
    end = ends(rounds([5.0, 3.9, 3.8, 3.7], ahead=[2.0] * 4, width=4.0))
    assert end is not None
    assert (end.round, end.code) == (3, "level")


def test_drift_and_the_best_round() -> None:
    end = ends(rounds([3.0, 2.0, 1.5, 1.3], kept=[0.33, 0.5, 0.52, 0.45]))
    assert end is not None
    assert (end.round, end.code, end.best) == (3, "drift", 2)
    assert "base answer share fell to 0.45 from 0.52 [0.51, 0.53] in round 2" in end.reason
    assert end.best_reason == "highest base answer share, 0.52"
    assert ends(rounds([3.0, 2.0, 1.5, 1.3], kept=[0.33, 0.5, 0.52, 0.515])) is None
    assert ends(rounds([3.0, 2.0, 1.5, 1.3], kept=[0.33, 0.5, 0.52, 0.45]), FREE) is None


def test_drift_by_modes_where_answers_are_unknown() -> None:
    history = rounds([3.0, 2.0, 1.5, 1.3], kept=[0.33, 0.5, 0.52, 0.45])
    for e in history:
        e["base_answer_share"] = near(None)
    end = ends(history)
    assert end is not None
    assert (end.code, end.best) == ("drift", 2)
    assert "base mode probability fell" in end.reason


def test_a_policy_surer_of_what_nobody_voted_for_drifts() -> None:
    """Its modes are kept and kappa falls; the answers of most samples are lost, at once."""
    history = rounds([3.0, 1.6, 1.1], kept=[0.35, 0.6, 0.9])
    for e, share in zip(history, (0.23, 0.19, 0.05), strict=True):
        e["base_answer_share"] = near(share)
    for rule in (RULE, stop.rule_of("self-certainty"), stop.rule_of("judge")):
        end = ends(history, rule)
        assert end is not None
        assert (end.code, end.round, end.best) == ("drift", 1, 0)
    assert ends(history, FREE) is None


def test_votes_are_level_by_their_own_kappa() -> None:
    """kappa of responses may stay where it is, or rise, in rounds of votes."""
    history = rounds([3.0, 3.1, 3.1, 3.1, 3.1], kept=[0.3, 0.5, 0.7, 0.8, 0.8])
    for e, kappa in zip(history, (4.0, 3.0, 2.0, 1.99, 1.98), strict=True):
        e["kappa_vote"] = near(kappa, 0.1)
    rule = stop.rule_of("consistency")
    assert ends(history[:4], rule) is None
    end = ends(history, rule)
    assert end is not None
    assert (end.code, end.round, end.best) == ("level", 4, 3)
    assert ends(history, RULE) is not None


def test_rounds_are_level_where_kappa_overflows() -> None:
    history = rounds([3.0] * 5)
    for t, e in enumerate(history):
        e["kappa"] = e["kappa_next"] = Estimate(np.inf, None, None, 9, "search")
        at = [990.0, 700.0, 400.0, 400.01, 400.0][t]
        e["log10_kappa"] = Estimate(at, at - 0.1, at + 0.1, 9, "search")
    end = ends(history)
    assert end is not None
    assert (end.code, end.round) == ("level", 4)


def test_nothing_known_stops_nothing() -> None:
    history = rounds([3.0, 2.0, 1.5])
    for e in history:
        e |= dict.fromkeys(e, near(None))
        e["kappa"] = Estimate(np.inf, None, None, 9, "search")
    assert ends(history) is None
    assert stop.at_the_end(history, RULE).best == 2


def test_a_reward_that_tells_nothing_apart() -> None:
    history = rounds([3.0, 2.0])
    for rule in (RULE, FREE):
        assert stop.by_rewards(history, (50, 1000), rule) is None
        end = stop.by_rewards(history, (49, 1000), rule)
        assert end is not None
        assert (end.code, end.round) == ("indifferent", 1)
        assert "only 49 of 1000 prompts" in end.reason


def test_a_judge_that_degrades() -> None:
    history = rounds([3.0, 2.0, 1.8])
    votes = [near(0.60), near(0.41), near(0.38)]
    assert stop.by_judge(history[:1], votes[:1], FREE) is None
    assert stop.by_judge(history[:2], votes[:2], FREE) is None  # its interval reaches .40
    end = stop.by_judge(history, votes, FREE)
    assert end is not None
    assert (end.code, end.round, end.best) == ("degraded", 2, 2)
    assert "0.38 [0.37, 0.39], and was 0.6" in end.reason
    assert stop.by_judge(history, votes, RULE) is None
    for odd in (near(None), near(-0.2)):  # a judge that never went along with the votes
        assert stop.by_judge(history, [odd, near(0.1)], FREE) is None
    assert stop.by_judge(history, [near(0.6), near(None)], FREE) is None


def test_rules_by_reward() -> None:
    assert stop.rule_of("likelihood:2").kept[0] == "base_answer_share"
    assert stop.rule_of("consistency,likelihood:0.1").kept == ("base_answer_share",)
    assert stop.rule_of("judge,likelihood:0.1").judged


# ---- what is kept of the base


def measured(policy: Any, x: list[Prompt], base: Any = None) -> Any:
    return evaluate(policy, x, EXACT, MeasureSettings(samples=16), seed=0, max_tokens=4, base=base)


def test_kept_by_enumeration() -> None:
    """Two responses have the answer 'a'; the mode is another."""
    base = Tabular(
        np.log([[0.4, 0.3, 0.3], [0.1, 0.8, 0.1], [0.4, 0.3, 0.3]]), None, ("b", "a ", "a")
    )
    later = Tabular(np.log([[0.9, 0.1, 1e-9], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3]]), None, base.text_M)
    x = rows(3)
    first = measured(base, x)
    out = agreement.kept(base, first, None, EXACT, seed=0)
    assert out["base_mode_probability"].value == pytest.approx((0.4 + 0.8 + 0.4) / 3)
    assert out["base_answer_share"].value == pytest.approx((0.6 + 0.9 + 0.6) / 3)
    assert out["answer_agreement"].value == 1.0
    then = reference(first)
    out = agreement.kept(later, measured(later, x, then), then, EXACT, seed=0)
    assert out["base_mode_probability"].value == pytest.approx((0.9 + 0.8 + 0.2) / 3)
    assert out["base_answer_share"].value == pytest.approx((0.1 + 0.9 + 0.8) / 3, abs=1e-6)
    assert out["answer_agreement"].value == pytest.approx(2 / 3)
    # 'a' is the majority answer of all three; of the second it was 'a ', read alike; now of two
    assert out["answer_spread"].value == pytest.approx(-1 / 3)


def test_kept_leaves_out_what_is_not_clear() -> None:
    base = Tabular(np.log([[0.5, 0.5, 1e-9], [0.4, 0.3, 0.3]]), None, ("a", "b", "?"))
    out = agreement.kept(base, measured(base, rows(2)), None, EXACT, seed=0)
    assert out["base_mode_probability"].value == pytest.approx(0.4)
    assert "1 prompts left out" in out["base_mode_probability"].note
    assert out["answer_agreement"].guarantee == "undefined"
    assert out["base_answer_share"].value == pytest.approx((0.5 + 0.4) / 2)
    none = Grader("none", lambda text: None, str)
    nothing = agreement.kept(base, measured(base, rows(2)), None, none, seed=0)
    assert nothing["base_answer_share"].value is None


def shares(answers: Sequence[str | None]) -> dict[str, float]:
    found = [a for a in answers if a is not None]
    return {a: found.count(a) / len(answers) for a in dict.fromkeys(found)}


def test_votes_of_all_samples_but_one_by_hand() -> None:
    base = shares(["a", "a", "b", None])
    # without a: (a, b), one each, no majority; without b or the silent one: a.
    assert agreement.voted(base, base, 4, same=True) == pytest.approx((0 + 0 + 0 + 0) / 4)
    assert agreement.voted(base, {"a": 0.8, "b": 0.1}, 4) == pytest.approx((0.8 + 0.8) / 4)
    tied = shares(["a", "a", "b", "b"])  # without a: b is missed; without b: a
    assert agreement.voted(tied, tied, 4, same=True) == 0.0
    assert agreement.voted(tied, {"a": 0.6, "b": 0.2}, 4) == pytest.approx(0.4)
    one = shares(["a", "a", "a"])
    assert agreement.voted(one, one, 3, same=True) == 1.0
    assert np.isnan(agreement.voted(shares(["a", "b", "c"]), one, 3))


@pytest.mark.parametrize("draws", [3, 4, 5])
def test_the_base_is_not_flattered_by_its_own_vote(draws: int) -> None:
    """Over all samples of the base, its own value is on average that of another policy with the
    same probabilities: an enumeration of every set of samples."""
    pi = {"a": 0.5, "b": 0.3, None: 0.2}
    named = {a: p for a, p in pi.items() if a is not None}
    own = other = 0.0
    for said in product(pi, repeat=draws):
        chance = float(np.prod([pi[a] for a in said]))
        base = shares(said)
        own += chance * float(np.nan_to_num(agreement.voted(base, base, draws, same=True)))
        other += chance * float(np.nan_to_num(agreement.voted(base, named, draws)))
    assert own == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize(("hits", "clear"), [(12, True), (11, False)])
def test_a_majority_among_draws_must_be_more_than_chance(hits: int, clear: bool) -> None:
    found_P = agreement._clear(np.array([hits / 16]), np.full(16, 1 / 16), np.zeros(16, dtype=int))
    assert found_P.tolist() == [clear]


def test_kept_on_a_network_is_confidence_at_the_base() -> None:
    policy, x = tiny.policy("llama"), tiny.texts(10)
    first = measured(policy, x)
    out = agreement.kept(policy, first, None, EXACT, seed=0)
    unique = first.modes.unique_P
    mean = np.exp(first.modes.logp_P[unique]).mean()
    assert out["base_mode_probability"].value == pytest.approx(mean, rel=1e-5)


# ---- in the loop


def recipe(**changes: Any) -> Method:
    every: dict[str, Any] = {
        "samples": SampleSettings(source="enumerate"),
        "reward": likelihood,
        "pair": pairs.groups,
        "objective": update.square_objective,
        "update": UpdateSettings(beta=0.5),
        "measure": MeasureSettings(),
        "stop": RULE,
    }
    return Method(**every | changes)


def aligned(base: Any, x: list[Prompt], how: Method, most: int = 30) -> tuple[int, stop.Stop]:
    memory = Memory()
    done = [r.round for r in loop.self_reward(base, x, x, method=how, rounds=most, folder=memory)]
    return done[-1], memory.stop


def test_exact_rounds_end_at_the_floor() -> None:
    last, end = aligned(tiny.tabular(40, 5, scale=1.0), rows(40), recipe())
    assert (end.code, end.round, end.best) == ("floor", last, last)
    assert 1 < last < 12


def test_a_reward_without_differences_ends_the_run() -> None:
    def alike(policy: Any, prompts: Any, samples: Any) -> Floats:
        return np.zeros(len(samples))

    last, end = aligned(tiny.tabular(), rows(5), recipe(reward=alike, stop=FREE))
    assert (last, end.code) == (0, "indifferent")
    how = recipe(reward=alike, pair=pairs.best_worst, objective=update.dpo_objective, stop=FREE)
    assert aligned(tiny.tabular(), rows(5), how)[1].code == "indifferent"


def test_a_reward_that_leads_elsewhere_drifts() -> None:
    """The least likely response is rewarded under the likelihood's rule."""

    def rare(policy: Any, prompts: Any, samples: Any) -> Floats:
        return -3.0 * samples.logp_R * (samples.logp_R < np.log(0.3))

    base = Tabular(np.log(np.tile([0.6, 0.39, 0.01], (30, 1))))
    last, end = aligned(base, rows(30), recipe(reward=rare, update=UpdateSettings(beta=3.0)))
    assert end.code in ("drift", "level")
    assert end.best < last


def test_all_rounds_done_names_the_best_too() -> None:
    last, end = aligned(tiny.tabular(40, 5), rows(40), recipe(), most=1)
    assert (last, end.code, end.best) == (1, "rounds", 1)


def job(folder: Path, answers: Sequence[str], **changes: Any) -> Any:
    folder.mkdir(exist_ok=True)
    tiny.linear(scale=1.5).save(folder / "model")
    file = tiny.write_prompts(folder / "vectors.jsonl", tiny.vectors(60), answers)
    keys = {"rounds": 9, "stop": "auto", "update.beta": 0.4, "samples.per_prompt": 16}
    return tiny.config(folder / "model", file, **keys | changes)


def test_answers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "write_page", lambda summary: summary.folder / "report.html")
    answers = [f"r{i % 4}" for i in range(60)]
    run(job(tmp_path / "one", answers), tmp_path / "run-one")
    one = (tmp_path / "run-one" / "stop.json").read_bytes()
    shuffled = list(np.random.default_rng(0).permutation(answers))
    for name, other in (("permuted", shuffled), ("none", [])):
        run(job(tmp_path / name, other), tmp_path / f"run-{name}")
        assert (tmp_path / f"run-{name}" / "stop.json").read_bytes() == one
    end = json.loads(one)
    assert end["code"] != "rounds"
    assert (
        len((tmp_path / "run-one" / "metrics.jsonl").read_text().splitlines()) == end["round"] + 1
    )
    for name in ("base_mode_probability", "base_answer_share", "answer_agreement"):
        line = json.loads((tmp_path / "run-one" / "metrics.jsonl").read_text().splitlines()[-1])
        assert 0 <= line[name]["value"] <= 1


def test_a_run_that_goes_on_ends_in_the_same_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "write_page", lambda summary: summary.folder / "report.html")
    config = job(tmp_path / "in", [])
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(config, whole)
    end = json.loads((whole / "stop.json").read_text())
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "rounds" / f"{end['round']:03d}")
    (cut / "stop.json").unlink()
    run(config, cut)
    assert (cut / "stop.json").read_bytes() == (whole / "stop.json").read_bytes()
    assert sorted(p.name for p in (cut / "rounds").iterdir()) == sorted(
        p.name for p in (whole / "rounds").iterdir()
    )
    run(config, whole)
    assert (cut / "stop.json").read_bytes() == (whole / "stop.json").read_bytes()
