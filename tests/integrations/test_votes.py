"""The vote of a batch, by itself and as each trainer calls it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srlm.errors import UserError
from srlm.grading import grader
from srlm.integrations import verifiers, verl
from srlm.integrations.trl import vote_reward
from srlm.integrations.votes import Votes


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["1", "2", "3", "-"])), min_size=1))
def test_votes_are_counts(rows: list[tuple[int, str]]) -> None:
    vote = Votes(grader("last-number"))([k for k, _ in rows], [a for _, a in rows])
    for r, (key, answer) in enumerate(rows):
        group = [a for k, a in rows if k == key]
        counts = {a: group.count(a) for a in group if a != "-"}
        if answer == "-":
            assert np.isnan(vote.share_R[r]) and np.isnan(vote.majority_R[r])
            continue
        assert vote.share_R[r] == pytest.approx(counts[answer] / len(group))
        best = [a for a, n in counts.items() if n == max(counts.values())]
        assert vote.majority_R[r] == pytest.approx((answer in best) / len(best))
    share = sum(a != "-" for _, a in rows) / len(rows)
    assert vote.metrics["readable_share"] == pytest.approx(share)


def test_a_tie_is_no_flip_and_spellings_are_one_answer() -> None:
    count = Votes(grader("last-number"))
    assert "flip_rate" not in count(["x"] * 3, ["7", "7.0", "8"]).metrics
    assert count(["x"] * 4, ["8", "8", "7", "7"]).metrics["flip_rate"] == 0.0
    assert count(["x"] * 3, ["8", "8", "7"]).metrics["flip_rate"] == 1.0
    assert count(["x", "y"], ["8", "1"]).metrics["flip_rate"] == 0.0


def test_kappa_of_a_batch_holds_the_truth() -> None:
    rng = np.random.default_rng(0)
    share_PA = rng.dirichlet(np.full(5, 0.5), 64)
    key_R = np.repeat(np.arange(64), 32)
    text_R = [str(rng.choice(5, p=share_PA[k])) for k in key_R]
    found = Votes(grader("last-number"))(key_R.tolist(), text_R).metrics
    truth = float((1 / share_PA.max(1)).mean())
    assert found["kappa_answer_low"] <= truth <= found["kappa_answer_high"]


def test_trl_reward() -> None:
    logged: dict[str, float] = {}
    reward = vote_reward("last-number", max_tokens=3)
    prompts = [[{"role": "user", "content": "1+1="}]] * 4
    completions = [[{"role": "assistant", "content": x}] for x in ("2", "2", "3", "2")]
    ids = [[5], [5], [6], [5, 5, 5]]
    found = reward(prompts, completions, ids, log_metric=logged.__setitem__, trainer_state=None)
    assert found == [0.5, 0.5, 0.25, 0.0]
    assert logged["srlm/readable_share"] == 0.75
    hard = vote_reward("last-number", kind="majority")
    assert hard(["a"] * 3, ["2", "2", "x"]) == [1.0, 1.0, 0.0]
    with pytest.raises(UserError):
        hard(["a", "b", "b"], ["1", "1", "1"])


def test_verl_scores() -> None:
    one = verl.compute_score("gsm8k", "so 7", "7.0", {}, answer="last-number")
    assert one == {"score": 1.0, "acc": 1.0, "pred": "7"}
    rows = verl.compute_votes(
        ["a"] * 4,
        ["7", "7", "8", "?"],
        ["8"] * 4,
        [{"index": 0}] * 4,
        answer="last-number",
        kind="majority",
    )
    assert [row["score"] for row in rows] == [1.0, 1.0, 0.0, 0.0]
    assert [row["acc"] for row in rows] == [0.0, 0.0, 1.0, 0.0]
    assert [row["pred"] for row in rows] == ["7", "7", "8", ""]
    with pytest.raises(UserError):
        verl.compute_votes(["a"], ["7"], ["8"], [{}])


def test_verifiers_traces() -> None:
    def trace(text: str, cut: bool = False) -> SimpleNamespace:
        kept: dict[str, float] = {}
        return SimpleNamespace(
            last_reply=text,
            is_truncated=cut,
            kept=kept,
            record_reward=lambda name, value, weight: kept.__setitem__(name, value * weight),
            record_metric=kept.__setitem__,
        )

    traces = [trace("2"), trace("so 2"), trace("3"), trace("2", cut=True)]
    verifiers.record_votes(traces, answer="last-number", weight=2.0)
    assert [t.kept["vote"] for t in traces] == [1.0, 1.0, 0.5, 0.0]
    assert traces[0].kept["srlm/vote_share"] == 0.5
