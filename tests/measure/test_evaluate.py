"""The round's measurement: against exact values, on exact and neural policies."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from srlm.config import MeasureSettings
from srlm.errors import UserError
from srlm.grading import EXACT
from srlm.measure import quantities
from srlm.measure.evaluate import Measurement, evaluate, log_probs, reference
from srlm.policies.tabular import Tabular, rows
from srlm.types import Prompt
from tests import tiny

P, M = 80, 6
SETTINGS = MeasureSettings(samples=8)
NAMES = {
    "kappa", "log10_kappa", "failure_fraction", "confidence", "least_confidence", "margin",
    "greedy_is_mode", "fidelity", "sampling_accuracy", "greedy_accuracy",
    "mode_accuracy", "headroom_captured", "entropy", "length", "truncated",
    "distinct_responses", "kl_to_base", "exponent", "exponent_r2",
}  # fmt: skip


class Drawn:
    """An exact policy that may only be drawn from and searched."""

    def __init__(self, policy: Tabular) -> None:
        self.policy = policy

    def __getattr__(self, name: str) -> Any:
        if name in ("enumerate", "policy"):
            raise AttributeError(name)
        return getattr(self.policy, name)


def table(sharp: float = 1.0) -> Tabular:
    return Tabular(sharp * np.random.default_rng(0).standard_normal((P, M)) * 1.5)


def prompts() -> list[Prompt]:
    """The answer is the mode on nine prompts in ten, else response 0."""
    logits = table().theta.reshape(P, M)
    return [
        replace(x, answers=(str(int(logits[i].argmax()) if i % 10 else 0),))
        for i, x in enumerate(rows(P))
    ]


def measure(policy: Any, base: Any = None, **change: Any) -> Measurement:
    given: dict[str, Any] = {"prompts": prompts(), "grader": EXACT, "settings": SETTINGS} | change
    return evaluate(policy, **given, seed=3, max_tokens=1, base=base)


def test_exact_policy_gives_the_definitions() -> None:
    start, now = table(), table(2.0)
    before = measure(start)
    after = measure(now, reference(before, start.log_prob))
    e, e0 = after.estimates, before.estimates
    assert set(e) == set(e0) == NAMES
    log_PM, log0_PM = now.log_table(rows(P)), start.log_table(rows(P))
    p_PM, p0_PM = np.exp(log_PM), np.exp(log0_PM)
    star = p_PM.max(1)
    answer = np.array([int(x.answers[0]) for x in prompts()])
    acc, acc0 = p_PM[np.arange(P), answer], p0_PM[np.arange(P), answer]
    mode_right = p_PM.argmax(1) == answer
    top = np.sort(log_PM, 1)
    expected = {
        "kappa": (1 / star).mean(),
        "log10_kappa": np.log10((1 / star).mean()),
        "failure_fraction": (star <= 0.5).mean(),
        "confidence": star.mean(),
        "least_confidence": star.min(),
        "margin": (top[:, -1] - top[:, -2]).min(),
        "greedy_is_mode": 1.0,
        "fidelity": 1.0,
        "sampling_accuracy": acc.mean(),
        "greedy_accuracy": mode_right.mean(),
        "mode_accuracy": mode_right.mean(),
        "headroom_captured": (acc - acc0).mean() / (mode_right - acc0).mean(),
        "entropy": -(p_PM * log_PM).sum(1).mean(),
        "length": 1.0,
        "truncated": 0.0,
        "distinct_responses": (1 - (1 - p_PM) ** 8).sum(1).mean() / 8,
        "kl_to_base": (p_PM * (log_PM - log0_PM)).sum(1).mean(),
        "exponent": 2.0,
        "exponent_r2": 1.0,
    }
    for name, value in expected.items():
        assert e[name].value == pytest.approx(value), name
        low, high = e[name].low, e[name].high
        if low is not None and high is not None:
            assert low <= value * (1 + 1e-9) + 1e-12, name
            assert high >= value * (1 - 1e-9) - 1e-12, name
        json.dumps(e[name].to_json(), allow_nan=False)
    for name, value in [
        ("fidelity", 1),
        ("kl_to_base", 0),
        ("exponent", 1),
        ("headroom_captured", 0),
    ]:
        assert e0[name].value == value
    assert e["kappa"].method == "enumeration"
    assert e["headroom_captured"].low is not None


def test_drawn_and_searched_agree_with_enumerated() -> None:
    start, now = table(), table(1.5)
    exact = measure(now, reference(measure(start), start.log_prob)).estimates
    settings = MeasureSettings(samples=200)
    before = measure(Drawn(start), settings=settings)
    base = reference(before, start.log_prob)
    drawn = measure(Drawn(now), base, settings=settings).estimates
    for name in NAMES - {"distinct_responses"}:
        a, b = exact[name].value, drawn[name].value
        assert a is not None
        assert b == pytest.approx(a, abs=0.03), name
    assert drawn["kappa"].value == pytest.approx(exact["kappa"].value)
    assert drawn["kappa"].guarantee == "exact"
    assert drawn["sampling_accuracy"].guarantee == "estimate"


def test_intervals_of_drawn_quantities_hold_the_truth() -> None:
    """Not the prompts but the draws vary here, so intervals over prompts hold with room."""
    start = table()
    exact = measure(start).estimates
    for seed in range(5):
        drawn = evaluate(
            Drawn(start), prompts(), EXACT, SETTINGS, seed=seed, max_tokens=1, base=None
        ).estimates
        for name in ("sampling_accuracy", "entropy"):
            low, value, high = drawn[name].low, exact[name].value, drawn[name].high
            assert low is not None
            assert high is not None
            assert low <= value <= high  # type: ignore[operator]


def test_same_policy_same_measurement() -> None:
    one, two = measure(Drawn(table())), measure(Drawn(table()))
    assert one.estimates == two.estimates
    assert one.table == two.table
    assert one.samples.tokens_R == two.samples.tokens_R


def test_without_answers_all_else_is_measured() -> None:
    unanswered = [replace(x, answers=()) for x in prompts()]
    before = measure(table(), prompts=unanswered)
    after = measure(table(2.0), reference(before), prompts=unanswered)
    for m in (before, after):
        for name in ("sampling_accuracy", "greedy_accuracy", "mode_accuracy"):
            assert m.estimates[name].value is None
            assert m.estimates[name].note == "no answers"
        assert m.estimates["headroom_captured"].value is None
        assert m.estimates["kappa"].value is not None
        assert m.table["mode_correct"] == [None] * P
    assert after.estimates["kl_to_base"].note == "the base policy cannot be asked"


def test_prompts_without_answer_stay_out_of_accuracy_alone() -> None:
    some = [replace(x, answers=()) if i < 30 else x for i, x in enumerate(prompts())]
    m = measure(table(), prompts=some)
    assert m.estimates["sampling_accuracy"].n == m.estimates["mode_accuracy"].n == P - 30
    assert m.estimates["kappa"].n == P
    rest = measure(table(), prompts=prompts()[30:])
    assert m.estimates["mode_accuracy"].value == rest.estimates["mode_accuracy"].value
    assert m.table["sampling_accuracy"][:30] == [None] * 30


def test_headroom_is_undefined_where_the_mode_is_no_better() -> None:
    wrong = [replace(x, answers=("none",)) for x in prompts()]
    m = measure(table(2.0), reference(measure(table(), prompts=wrong)), prompts=wrong)
    headroom = m.estimates["headroom_captured"]
    assert headroom.value is None
    assert "no better than its samples" in headroom.note
    assert m.estimates["mode_accuracy"].value == 0.0


def test_fidelity_counts_kept_modes_and_leaves_ties_out() -> None:
    start = table().theta.reshape(P, M).copy()
    tied = np.sort(start[0])
    start[0, :2] = tied[-1] + 1  # two modes on the first prompt
    moved = start.copy()
    moved[1:11] = -moved[1:11]  # ten modes lost
    base = reference(measure(Tabular(start)))
    fidelity = measure(Tabular(moved), base).estimates["fidelity"]
    assert fidelity.n == P - 1
    assert fidelity.value == pytest.approx(1 - 10 / (P - 1))
    assert fidelity.note == f"1 of {P} prompts left out: a tie or no certificate"


def test_only_the_first_prompts_are_measured_and_the_same_ones_compared() -> None:
    few = measure(table(), settings=MeasureSettings(prompts=10, samples=4))
    assert [x.id for x in few.prompts] == [x.id for x in prompts()[:10]]
    with pytest.raises(UserError, match="not those that the base was measured on"):
        measure(table(), reference(few))
    with pytest.raises(UserError, match="no held-out prompts"):
        measure(table(), prompts=[])


def test_zero_probabilities_are_no_trouble() -> None:
    theta = table().theta.reshape(P, M).copy()
    theta[:, 3] = -np.inf
    start = Tabular(theta)
    gone = theta.copy()
    gone[:, 4] = -np.inf
    for wrap in (lambda p: p, Drawn):
        base = reference(measure(wrap(start)), start.log_prob)
        e = measure(wrap(Tabular(gone)), base).estimates
        assert e["kl_to_base"].value is not None
        assert e["kl_to_base"].value > 0
        assert "probability 0 now" in e["exponent"].note
    only = np.full((P, M), -np.inf)
    only[:, 2] = 0.0
    e = measure(Tabular(only), reference(measure(Tabular(only)))).estimates
    assert e["kappa"].value == 1.0
    assert e["margin"].value == np.inf
    assert e["exponent"].value is None


def test_table_becomes_parquet() -> None:
    made = pa.table(measure(Drawn(table(2.0)), reference(measure(Drawn(table())))).table)
    assert made.num_rows == P
    assert {"prompt_id", "p_star", "certified", "mode_text", "greedy_text", "margin"} <= set(
        made.column_names
    )


def test_language_model_end_to_end() -> None:
    """Every certificate against the listing of a tiny model's responses, and itself as base."""
    policy = tiny.policy()
    settings = MeasureSettings(samples=16)
    some = [replace(x, answers=("a",)) for x in tiny.texts(6)]
    m = evaluate(policy, some, EXACT, settings, seed=0, max_tokens=3, base=None)
    assert set(m.estimates) == NAMES
    assert m.modes.certified_P.all()
    assert m.estimates["kappa"].guarantee == "exact"
    again = evaluate(
        policy, some, EXACT, settings, seed=0, max_tokens=3, base=reference(m, policy.log_prob)
    )
    assert again.estimates["fidelity"].value == 1.0
    assert again.estimates["kl_to_base"].value == pytest.approx(0.0, abs=1e-4)
    assert again.estimates["exponent"].value == pytest.approx(1.0, abs=1e-4)
    assert again.estimates["exponent_r2"].value == pytest.approx(1.0, abs=1e-4)
    # No draw is likelier than the mode, and the mode's score is what a second pass gives.
    best_R = m.modes.logp_P[m.samples.prompt_R]
    assert (m.samples.logp_R <= best_R + 1e-4).all()
    second = policy.log_prob(some, np.arange(6), m.modes.tokens_P)
    assert second == pytest.approx(m.modes.logp_P, abs=1e-4)
    # All that can be said in three tokens: it sums to one, and nothing is likelier.
    (end,) = policy.ends
    go_on = [t for t in range(len(tiny.WORDS)) if t != end]
    every = [(*b, end) for n in range(3) for b in itertools.product(go_on, repeat=n)]
    every += list(itertools.product(go_on, repeat=3))
    for p in range(2):
        logp = np.sort(policy.log_prob(some, np.full(len(every), p), every))
        assert np.exp(logp).sum() == pytest.approx(1.0, abs=1e-4)
        assert logp[-1] == pytest.approx(m.modes.logp_P[p], abs=1e-4)
        assert m.modes.second_P[p] - 1e-4 <= logp[-2] <= m.modes.second_upper_P[p] + 1e-4


def test_tiny_budget_is_said_and_uses_the_draws() -> None:
    policy = tiny.policy(scale=0.05)
    m = evaluate(
        policy,
        tiny.texts(6),
        EXACT,
        MeasureSettings(samples=8, nodes=1),
        seed=0,
        max_tokens=4,
        base=None,
    )
    assert not m.modes.certified_P.all()
    assert m.estimates["kappa"].guarantee.startswith("certified within")
    assert np.isfinite(m.modes.logp_P).all()
    assert m.estimates["truncated"].value > 0.5  # type: ignore[operator]
    if m.table["truncated"].count(1.0):
        assert "cut off by the length limit" in m.estimates["truncated"].note


def test_equal_draws_are_scored_once() -> None:
    start, asked = table(), []

    def log_prob(some: Any, prompt_R: Any, tokens_R: Any) -> Any:
        asked.extend(zip(prompt_R, tokens_R, strict=True))
        return start.log_prob(some, prompt_R, tokens_R)

    m = measure(Drawn(table(2.0)), reference(measure(Drawn(start)), log_prob))
    assert len(asked) == len(set(asked)) < P * 8
    slow = start.log_prob(prompts(), m.samples.prompt_R, m.samples.tokens_R)
    gap = (m.samples.logp_R - slow).mean()
    assert m.estimates["kl_to_base"].value == pytest.approx(gap)


def test_own_draws_are_not_scored_again() -> None:
    """What drawing said stands for what a pass over the response says, on a network."""
    policy, other, some = tiny.policy(), tiny.policy(scale=0.5), tuple(tiny.texts(6))
    drawn = policy.sample(some, 4, seed=1, max_tokens=3)
    rows = other.sample(some, 16, seed=2, max_tokens=3)
    asked: list[Any] = []

    def log_prob(some: Any, prompt_R: Any, tokens_R: Any) -> Any:
        asked.extend(zip(prompt_R.tolist(), tokens_R, strict=True))
        return policy.log_prob(some, prompt_R, tokens_R)

    found_R = log_probs(log_prob, some, rows.prompt_R, rows.tokens_R, drawn)
    slow_R = policy.log_prob(some, rows.prompt_R, rows.tokens_R)
    assert found_R == pytest.approx(slow_R, abs=1e-5)
    own = set(zip(drawn.prompt_R.tolist(), drawn.tokens_R, strict=True))
    every = set(zip(rows.prompt_R.tolist(), rows.tokens_R, strict=True))
    assert every & own
    assert set(asked) == every - own and len(asked) == len(set(asked))
    asked.clear()
    same_R = log_probs(log_prob, some, drawn.prompt_R, drawn.tokens_R, drawn)
    assert (same_R == drawn.logp_R).all() and not asked


def test_a_model_of_nan_is_refused_by_name() -> None:
    policy = tiny.policy()
    with torch.no_grad():
        policy.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(UserError):
        evaluate(policy, tiny.texts(3), EXACT, SETTINGS, seed=0, max_tokens=3, base=None)


def test_pace_of_a_power_with_noise() -> None:
    rng = np.random.default_rng(0)
    samples = table().sample(rows(P), 32, seed=0, max_tokens=1)
    noise = 0.5 * rng.standard_normal(len(samples))
    shift = rng.standard_normal(P)[samples.prompt_R]  # log Z drops out
    p_eff, r2 = quantities.pace(1.7 * samples.logp_R + shift + noise, samples, P, 0)
    assert p_eff.low is not None
    assert p_eff.high is not None
    assert p_eff.low < 1.7 < p_eff.high
    assert p_eff.high - p_eff.low < 0.2
    assert r2.value is not None
    assert 0.8 < r2.value < 1.0
    flat, none = quantities.pace(np.zeros(len(samples)), samples, P, 0)
    assert flat.value == 0.0
    assert none.value == 0.0
