"""Which draws are compared: groups, pairs, duplicates, missing rewards, the floor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srlm import losses, pairs
from srlm.errors import UserError
from srlm.policies.tabular import Tabular, rows
from srlm.rewards.asking import as_prompt
from srlm.run_folder import tables as runs
from srlm.types import Pairs, Samples
from tests import tiny

pytestmark = pytest.mark.smoke


def drawn(labels: list[list[int]]) -> Samples:
    """Draws (labels) of each prompt; a label's log-probability is -(label + 1)."""
    rows = [(p, y) for p, ys in enumerate(labels) for y in ys]
    return Samples(
        prompt_R=np.array([p for p, _ in rows], dtype=np.int64),
        tokens_R=tuple((y,) for _, y in rows),
        logp_R=np.array([-(y + 1.0) for _, y in rows]),
        weight_R=np.array([1 / len(labels[p]) for p, _ in rows]),
        finished_R=np.ones(len(rows), dtype=bool),
        text_R=tuple(str(y) for _, y in rows),
    )


def seen(made: Pairs) -> list[tuple[int, int, int, float]]:
    return [
        (int(g), int(p), t[0], round(float(w), 9))
        for g, p, t, w in zip(
            made.group_R, made.prompt_R, made.tokens_R, made.weight_R, strict=True
        )
    ]


def test_groups_merge_equal_draws() -> None:
    samples = drawn([[2, 0, 2, 2], [1, 1, 1, 1]])
    made = pairs.groups(samples, samples.logp_R)
    assert seen(made) == [(0, 0, 2, 0.75), (0, 0, 0, 0.25), (1, 1, 1, 1.0)]
    assert made.reference_R.tolist() == made.reward_R.tolist() == [-3.0, -1.0, -2.0]
    assert (made.groups, made.samples, len(made)) == (2, 8, 3)


def test_pairs_are_two_by_two_in_the_order_drawn() -> None:
    samples = drawn([[2, 0, 1, 1, 5], [4, 3]])
    made = pairs.pairs(samples, samples.logp_R)
    half = 0.5
    assert seen(made) == [
        (0, 0, 2, half),
        (0, 0, 0, half),
        (1, 0, 1, 1.0),
        (2, 1, 4, half),
        (2, 1, 3, half),
    ]
    assert made.samples == 6  # the fifth draw of the first prompt has no partner


def test_a_pair_of_equal_responses_counts_as_a_zero_in_the_mean() -> None:
    samples = drawn([[0, 1, 1, 1]])
    made = pairs.pairs(samples, samples.logp_R)
    g = losses.Groups.of(made, 1.0)
    loss = losses.square(g.reference_R, g)
    assert loss.tolist() == [0.5, 0.0]


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=7), min_size=1, max_size=4))
def test_pairs_and_groups_hold_the_draws(labels: list[list[int]]) -> None:
    samples = drawn(labels)
    for kind in (pairs.groups, pairs.pairs):
        made = kind(samples, samples.logp_R)
        assert (np.diff(made.group_R) >= 0).all()
        assert set(made.group_R) == set(range(made.groups))
        np.testing.assert_allclose(np.bincount(made.group_R, made.weight_R), 1)
        for g in range(made.groups):
            tokens = [made.tokens_R[r] for r in np.flatnonzero(made.group_R == g)]
            assert len(set(tokens)) == len(tokens)
            assert len(set(made.prompt_R[made.group_R == g])) == 1
    assert made.groups == sum(len(ys) // 2 for ys in labels)
    grouped = pairs.groups(samples, samples.logp_R)
    for p, ys in enumerate(labels):
        of_p = np.flatnonzero(grouped.prompt_R == p)
        share = {grouped.tokens_R[r][0]: grouped.weight_R[r] for r in of_p}
        assert share == pytest.approx({y: ys.count(y) / len(ys) for y in ys})


def test_rows_without_a_reward_are_left_out() -> None:
    samples = drawn([[0, 1, 2, 2], [3, 3], [4, 5]])
    reward = np.array([1.0, np.nan, 3.0, np.nan, np.nan, np.nan, 6.0, 7.0])
    made = pairs.groups(samples, reward)
    assert seen(made) == [(0, 0, 0, 0.5), (0, 0, 2, 0.5), (1, 2, 4, 0.5), (1, 2, 5, 0.5)]
    assert made.reward_R.tolist() == [1, 3, 6, 7]
    two = pairs.pairs(samples, reward)
    assert [x[:3] for x in seen(two)] == [(0, 0, 0), (1, 0, 2), (2, 2, 4), (2, 2, 5)]
    with pytest.raises(UserError, match="no response of this round has a reward"):
        pairs.groups(samples, np.full(8, np.nan))


def test_the_reward_floor_is_under_the_best_of_the_prompt() -> None:
    samples = drawn([[0, 3, 9], [8, 9]])
    made = pairs.groups(samples, samples.logp_R, reward_floor=4.0)
    assert made.reward_R.tolist() == [-1.0, -4.0, -5.0, -9.0, -10.0]
    assert made.reference_R.tolist() == [-1.0, -4.0, -10.0, -9.0, -10.0]
    two = pairs.pairs(samples, samples.logp_R, reward_floor=0.5)
    assert two.reward_R.tolist() == [-1.0, -1.5, -9.0, -9.5]


def test_enumerated_responses_have_their_probabilities_as_weights() -> None:
    samples = tiny.tabular(3, 4).enumerate(rows(3))
    made = pairs.groups(samples, samples.logp_R)
    np.testing.assert_allclose(made.weight_R, np.exp(samples.logp_R))
    with pytest.raises(UserError, match="enumerat"):
        pairs.pairs(samples, samples.logp_R)


def test_responses_of_zero_probability_are_left_out() -> None:
    policy = Tabular(np.array([[0.0, -np.inf, 0.0]]))
    samples = policy.enumerate(rows(1))
    made = pairs.groups(samples, samples.logp_R)
    assert [x[2:] for x in seen(made)] == [(0, 0.5), (2, 0.5)]


def test_the_best_of_the_draws_share_by_how_often_they_were_drawn() -> None:
    samples = drawn([[2, 0, 2, 0, 0, 1], [4, 4], [3, 5]])
    made = pairs.best(samples, np.array([1.0, 1, 1, 1, 1, 0, 7, 7, np.nan, 2]))
    assert [(p, y, round(w, 6)) for _, p, y, w in seen(made)] == [
        (0, 2, 0.4),
        (0, 0, 0.6),
        (1, 4, 1.0),
        (2, 5, 1.0),
    ]
    assert made.samples == 10
    assert made.groups == 3


def test_best_and_worst_leave_out_prompts_without_a_difference() -> None:
    samples = drawn([[2, 0, 1, 3], [4, 4], [6, 5, 7]])
    made = pairs.best_worst(samples, np.array([1.0, 0, 1, 0, 7, 7, 2, 2, 3]))
    assert seen(made) == [(0, 0, 2, 0.5), (0, 0, 0, 0.5), (1, 2, 6, 0.5), (1, 2, 7, 0.5)]
    assert made.distinguishable == (2, 3)
    none = pairs.best_worst(samples, np.zeros(9))
    assert (len(none), none.groups, none.distinguishable) == (0, 0, (0, 3))


def test_voted_pairs_weigh_by_their_margin() -> None:
    samples = drawn([[2, 0, 1, 3], [4, 4], [6, 5, 7]])
    reward = np.array([0.75, 0.5, 0.5, 0.25, 1, 1, 1.0, 0.0, 0.5])
    made, plain = pairs.voted(samples, reward), pairs.best_worst(samples, reward)
    assert seen(made) == seen(plain)
    assert plain.scale_G is None
    assert made.scale_G is not None
    assert made.scale_G.tolist() == [0.5 / 0.75, 1 / 0.75]
    floored = pairs.voted(samples, reward, reward_floor=0.25)
    assert floored.scale_G is not None
    assert floored.scale_G.tolist() == [1, 1]
    assert pairs.voted(samples, np.zeros(9)).groups == 0


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=4))
def test_best_and_worst_are_the_ends_of_the_groups(labels: list[list[int]]) -> None:
    samples = drawn(labels)
    ends = {p: (min(ys), max(ys)) for p, ys in enumerate(labels) if min(ys) < max(ys)}
    made = pairs.best_worst(samples, samples.logp_R)
    found: dict[int, list[int]] = {}
    for _, p, y, _ in seen(made):
        found.setdefault(p, []).append(y)
    assert {p: tuple(sorted(ys)) for p, ys in found.items()} == ends
    best = pairs.best(samples, samples.logp_R)
    assert [(p, y, w) for _, p, y, w in seen(best)] == [
        (p, min(ys), 1.0) for p, ys in enumerate(labels)
    ]


def test_how_many_prompts_the_reward_tells_apart() -> None:
    samples = drawn([[0, 1], [2, 2], [3, 4], [5, 6]])
    reward = np.array([0.0, 1.0, 2.0, 2.0, 3.0, 3.0 + pairs.RESOLUTION / 2, np.nan, np.nan])
    for kind in (pairs.groups, pairs.pairs, pairs.best):
        assert kind(samples, reward).distinguishable == (1, 3)


def test_no_pairs_are_written_and_read(tmp_path: Path) -> None:
    prompts = rows(3)
    for labels in ([[2, 0], [4, 4], [5, 6]], [[2, 2], [4, 4], [5, 5]]):
        samples = drawn(labels)
        made = pairs.best_worst(samples, samples.logp_R)
        runs.write_pairs(prompts, made, tmp_path / "pairs.parquet")
        again = runs.read_pairs(tmp_path / "pairs.parquet")
        assert (seen(again), again.samples, again.distinguishable) == (
            seen(made),
            made.samples,
            made.distinguishable,
        )


def test_judgements_stand_after_the_responses(tmp_path: Path) -> None:
    prompts, questions = rows(2), [as_prompt(text) for text in ("u?", "v?", "w?")]
    made = pairs.groups(drawn([[0, 1], [2, 2]]), np.array([0.0, 1.0, 2.0, 2.0]))
    answers = drawn([[4, 4], [5, 6], [7, 8]])
    reward = np.array([np.nan, np.nan, 0.2, 0.8, 0.5, 0.5])
    judged = pairs.groups(answers, reward)
    both = pairs.with_judge(made, judged, len(prompts), questions)
    assert both.groups == made.groups + judged.groups == 4
    assert both.asked == tuple(questions[1:])  # nothing is known of the first question
    asked = [*prompts, *both.asked]
    about = [asked[p].id for p in both.prompt_R]
    assert about[: len(made)] == [prompts[p].id for p in made.prompt_R]
    assert about[len(made) :] == [questions[p].id for p in judged.prompt_R]
    assert (both.samples, both.distinguishable) == (made.samples, made.distinguishable)
    np.testing.assert_array_equal(both.reward_R, [0.0, 1.0, 2.0, 0.2, 0.8, 0.5, 0.5])
    np.testing.assert_allclose(np.bincount(both.group_R, both.weight_R), 1.0)
    runs.write_pairs(prompts, both, tmp_path / "pairs.parquet")
    again = runs.read_pairs(tmp_path / "pairs.parquet")
    assert again.asked == both.asked
    assert seen(again) == seen(both)


@given(
    st.lists(
        st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=6).map(lambda xs: np.array(xs)),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([0.0, 1e-3, 0.01, 0.3, 0.9]),
)
def test_tails_are_the_rows_of_least_share(groups: list[np.ndarray], tail: float) -> None:
    share_R = np.concatenate([x / x.sum() for x in groups])
    labels = [list(range(len(x))) for x in groups]
    made = pairs.groups(drawn(labels), drawn(labels).logp_R)
    left = pairs.without_tails(made, share_R, tail)
    assert left.groups == len(groups)
    kept = set(zip(left.group_R.tolist(), left.tokens_R, strict=True))
    for g, x in enumerate(groups):
        mine = np.array([(g, (y,)) in kept for y in range(len(x))])
        out = np.sort((x / x.sum())[~mine])
        assert mine.any()
        assert out.sum() <= tail
        least_kept = (x / x.sum())[mine].min()
        assert not len(out) or out[-1] <= least_kept
        assert mine.sum() == 1 or out.sum() + least_kept > tail - 1e-12
    np.testing.assert_allclose(np.bincount(left.group_R, left.weight_R), 1.0)


def test_the_target_hardly_changes_without_its_tails() -> None:
    rng = np.random.default_rng(0)
    labels = [sorted(set(rng.integers(0, 9, 6).tolist())) for _ in range(50)]
    made = pairs.groups(drawn(labels), drawn(labels).logp_R)

    def target(x: Pairs) -> np.ndarray:
        out_GM = np.zeros((x.groups, 9))
        share_R = losses.target_weights(losses.Groups.of(x, 1.0)).numpy()
        out_GM[x.group_R, [t[0] for t in x.tokens_R]] = share_R
        return out_GM

    whole_GM = target(made)
    share_R = whole_GM[made.group_R, [t[0] for t in made.tokens_R]]
    left = pairs.without_tails(made, share_R, 0.02)
    assert len(left) < len(made)
    assert (0.5 * np.abs(target(left) - whole_GM).sum(1) <= 0.02 + 1e-12).all()
