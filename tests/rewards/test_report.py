"""The report of a round's rewards."""

from __future__ import annotations

import json

import numpy as np
import pytest

from srlm.grading import Grader
from srlm.rewards.base import Mean, Scored
from srlm.rewards.report import joined, report, seen, summary
from tests.rewards.scripted import responses

LAST = Grader("last", lambda text: text[-1], str)
NONE = Grader("none", lambda text: None, str)


def made(prompts: int = 40, seed: int = 0, slope: float = 0.0) -> tuple[object, np.ndarray]:
    rng = np.random.default_rng(seed)
    texts = ["x" * n for n in rng.integers(0, 30, prompts * 5)]
    samples = responses(np.repeat(np.arange(prompts), 5), texts)
    reward = slope * samples.length_R + rng.standard_normal(prompts * 5)
    return samples, reward


def test_correlation_with_length_is_within_prompts() -> None:
    samples, reward = made(slope=0.1)
    reward = reward + 100.0 * samples.prompt_R  # type: ignore[attr-defined]
    found = report(samples, Scored(reward))  # type: ignore[arg-type]
    r, n = reward.reshape(-1, 5), samples.length_R.reshape(-1, 5)  # type: ignore[attr-defined]
    r, n = r - r.mean(1, keepdims=True), n - n.mean(1, keepdims=True)
    expected = np.corrcoef(r.ravel(), n.ravel())[0, 1]
    assert found.length_correlation.value == pytest.approx(expected)
    assert found.length_correlation.low < expected < found.length_correlation.high  # type: ignore[operator]
    assert found.spread.value == pytest.approx(r.std(1).mean())
    assert any("longer" in note for note in found.notes)


def test_correlation_is_undefined_where_nothing_differs() -> None:
    samples = responses([0, 0, 1, 1], ["aa", "bb", "cc", "dd"])
    found = report(samples, Scored(np.array([1.0, 2.0, 3.0, 4.0])))
    assert found.length_correlation.value is None
    assert "lengths" in found.length_correlation.note
    found = report(responses([0, 0], ["a", "bb"]), Scored(np.ones(2)))
    assert "rewards" in found.length_correlation.note


def test_rewards_alike_are_said_to_be_saturated() -> None:
    samples, reward = made()
    found = report(samples, Scored(np.full(len(reward), 5.0)))  # type: ignore[arg-type]
    assert found.alike.value == 1.0
    assert found.spread.value == 0.0
    assert any("saturated" in note for note in found.notes)
    assert report(samples, Scored(reward)).alike.value == 0.0  # type: ignore[arg-type]


def test_prompts_with_one_response_are_no_sign_of_saturation() -> None:
    found = report(responses([0, 0, 1, 1], ["a", "a", "b", "c"]), Scored(np.array([1, 1, 1, 2.0])))
    assert found.alike.value == 0.0
    assert found.alike.n == 1


def test_missing_rewards_are_counted_and_left_out() -> None:
    samples, reward = made()
    reward[::5] = np.nan
    found = report(samples, Scored(reward))  # type: ignore[arg-type]
    assert (found.rows, found.missing) == (200, 40)
    assert found.mean.value == pytest.approx(np.nanmean(reward))
    assert found.notes[0].startswith("40 of 200 responses have no reward")


@pytest.mark.parametrize("value", [np.nan, 1.0])
def test_the_report_is_json_whatever_the_rewards(value: float) -> None:
    found = report(responses([0, 0], ["a", "b"]), Scored(np.full(2, value), {"x": np.nan}))
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["facts"] == {"x": None}


def test_agreement_with_the_votes_by_hand() -> None:
    """Prompt 0: votes 2/3, 2/3, 1/3; prompt 1 has one response and says nothing."""
    samples = responses([0, 0, 0, 1], ["a 7", "b 7", "c 8", "d 1"])
    found = report(samples, Scored(np.array([0.9, 0.5, 0.1, 0.3])), grader=LAST)
    expected = np.corrcoef([0.9, 0.5, 0.1], [2, 2, 1])[0, 1]
    assert found.vote_correlation.value == pytest.approx(expected)
    mixed = Scored(np.array([0.0, 5.0, 9.0, 0.3]), judged_R=np.array([0.9, 0.5, 0.1, 0.3]))
    found = report(samples, mixed, grader=LAST)
    assert found.vote_correlation.value == pytest.approx(expected)
    none = report(samples, Scored(np.array([0.9, 0.5, 0.1, 0.3])), grader=NONE)
    assert none.vote_correlation.value is None


def test_numbers_of_judgements_add_up_over_parts_and_shares_are_averaged() -> None:
    facts = [
        {"judge: judgements": 6.0, "judge: unreadable": Mean(3, 6)},
        {"judge: judgements": 2.0, "judge: unreadable": Mean(0, 2)},
        {"judge: judgements": 0.0, "judge: unreadable": Mean(0, 0)},
    ]
    say = lambda found: [f"{v}" for v in found.values()]  # noqa: E731
    parts = [seen(responses([0], ["a"]), Scored(np.ones(1), told, say)) for told in facts]
    whole = joined(parts)
    assert whole.facts == {"judge: judgements": 8.0, "judge: unreadable": 3 / 8}
    assert summary(whole).notes[:2] == ("8.0", "0.375")
