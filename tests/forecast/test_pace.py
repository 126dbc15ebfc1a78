from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from srlm.errors import UserError
from srlm.forecast import dynamics
from srlm.forecast.after_round import asked, below, method_of, score_of
from srlm.forecast.groups import (
    Rows,
    best,
    chance_of_another,
    expected_target,
    merged,
    mixed,
    sampled,
    tilted,
)
from srlm.forecast.pace import (
    DEVIATION,
    FEWEST,
    FORECAST,
    KIND_ERROR,
    RATES,
    STEPS,
    Gone,
    Method,
    State,
    by_kind,
    drifted,
    drifts,
    expected_share,
    figures,
    forecast_json,
    gone,
    kind_of,
    later_rounds,
    pace,
    parted,
    pull,
    score,
    short_share,
    stepped,
    steps_of,
)
from srlm.forecast.powers import known, sharpen
from srlm.forecast.trajectory import gather
from srlm.grading import Grader
from srlm.policies.tabular import Tabular, rows
from srlm.rewards.base import Reward
from srlm.rewards.consistency import consistency
from srlm.rewards.likelihood import likelihood
from srlm.types import Estimate, undefined
from tests.forecast.looped import tables

PROMPTS, RESPONSES = 40, 30


Reader = Callable[[str], str | None]


def whole(text: str) -> str | None:
    """Answer: the number modulo 4."""
    return str(int(text) % 4)


def read(text: str) -> str | None:
    """The same, but multiples of seven cannot be read."""
    return None if int(text) % 7 == 0 else whole(text)


def table(prompts: int = PROMPTS, responses: int = RESPONSES) -> Tabular:
    return Tabular(np.random.default_rng(3).normal(size=(prompts, responses)) * 1.5)


def state(policy: Tabular, *, modes: bool = False, reader: Reader = read) -> State:
    """All responses of a table."""
    prompts = rows(len(policy.theta) // len(policy.responses_M))
    every = policy.enumerate(prompts)
    answer_R = [reader(t) for t in every.text_R]
    number_R = np.array([-1 if a is None else int(a) for a in answer_R])
    right_R = (number_R == every.prompt_R % 4).astype(float)
    mode_R = None
    if modes:
        top = policy.log_table(prompts).argmax(1)
        mode_R = np.array([t[0] for t in every.tokens_R]) == top[every.prompt_R]
    none = np.full(len(every), np.nan)
    listed = Rows(every.prompt_R, number_R, every.length_R, none)
    return State(listed, dynamics.of_samples(every), right_R, mode_R)


def estimates(value: dict[str, float]) -> dict[str, Estimate]:
    return {name: Estimate(x, x, x, PROMPTS, "exact") for name, x in value.items()}


# ---- expected targets


def test_groups_are_sampled_by_their_shares() -> None:
    mass = dynamics.of_shares([np.array([0.7, 0.3]), np.array([0.2, 0.5, 0.3])])
    row_GK = sampled(mass, np.repeat([0, 1], 4000), 5, seed=0)
    count_R = np.bincount(row_GK.ravel(), minlength=5) / (4000 * 5)
    np.testing.assert_allclose(count_R, mass.mass_R, atol=5 * np.sqrt(0.25 / 20_000))
    assert (row_GK[:4000] < 2).all()
    assert (row_GK[4000:] >= 2).all()


@pytest.mark.parametrize("towards", [dynamics.target, best])
@pytest.mark.parametrize(("reward", "shared"), [("consistency", False), ("likelihood", True)])
def test_expected_target_is_the_mean_over_all_groups(towards, reward: str, shared: bool) -> None:  # type: ignore[no-untyped-def]
    """The slow twin: every group of k with its probability."""
    share_A, answer_A, k, beta = np.array([0.55, 0.3, 0.15]), np.array([0, 1, -1]), 3, 0.4
    want, weight, differ = np.zeros(3), 0.0, 0.0
    for group in product(range(3), repeat=k):
        votes = [sum(answer_A[i] == answer_A[j] for i in group) / k for j in group]
        if reward == "likelihood":
            r = np.log(share_A[list(group)])
        else:
            r = np.array(
                [v if answer_A[j] >= 0 else -np.inf for v, j in zip(votes, group, strict=True)]
            )
        p, known = float(np.prod(share_A[list(group)])), r[r > -np.inf]
        if not len(known):
            continue
        v = np.exp(r / beta) if towards is dynamics.target else (r == r.max()).astype(float)
        weight += p
        differ += p * bool(np.ptp(known) > 1e-9)
        for j, x in zip(group, v / v.sum(), strict=True):
            want[j] += p * x
    mass = dynamics.of_shares([share_A])
    listed = Rows(mass.prompt_R, answer_A, np.ones(3, dtype=np.int64), np.full(3, np.nan))
    groups = 8000
    found = expected_target(
        listed, mass, score_of(reward), beta, k, towards=towards, groups=groups, shared=shared
    )
    wide = 5 * 0.5 / np.sqrt(groups)
    np.testing.assert_allclose(found.there.mass_R, want / weight, atol=k * wide)
    assert found.unequal == pytest.approx(differ, abs=wide)


def test_a_target_has_mass_wherever_it_should() -> None:
    """A mode of 0.02 is in no group of a few samples, and yet the round is pulled towards it."""
    share_A = np.array([0.02, *[0.98 / 70] * 70])
    mass = dynamics.of_shares([share_A] * 50)
    R = len(mass.prompt_R)
    listed = Rows(mass.prompt_R, np.tile(np.arange(71), 50), np.ones(R, int), np.full(R, np.nan))
    for seed in range(3):
        found = expected_target(
            listed, mass, score_of("likelihood"), 0.5, 8, groups=1, shared=True, seed=seed
        )
        mode_P = found.there.mass_R[::71]
        # w / (w + those of seven others), w = pi^2: as if all others were the same.
        w, other = 0.02**2, (0.98 / 70) ** 2
        alone = 0.02 * w / (w + 7 * other)
        rest = 0.98 * other / (other + 7 * other)
        assert mode_P.min() > 0
        assert mode_P.mean() == pytest.approx(alone / (alone + rest), rel=0.05)


def test_groups_of_samples_agree_as_often_as_the_policy() -> None:
    """Means over many sets of 32 samples against the policy's own groups: the chance of another
    answer halves the error that samples drawn twice make."""
    share_A, P, n, k = np.array([0.4, *[0.02] * 30]), 600, 32, 8
    answer_R = np.random.default_rng(2).choice(31, P * n, p=share_A)
    prompt_R = np.repeat(np.arange(P), n)
    drawn = Rows(prompt_R, answer_R, np.ones(P * n, int), np.full(P * n, np.nan))
    even = dynamics.Mass(prompt_R, np.full(P * n, -np.log(n)), np.zeros(P * n))
    rows, mass, of_R = merged(drawn, even)
    policy = dynamics.of_shares([share_A])
    whole = Rows(policy.prompt_R, np.arange(31), np.ones(31, int), np.full(31, np.nan))

    def drawn_again(other_R):  # type: ignore[no-untyped-def]
        found = expected_target(
            rows, mass, score_of("consistency"), 0.2, k, groups=2, other_R=other_R
        )
        return float(found.there.mass_R[rows.answer_R == 0].sum() / P), found.unequal

    truth = expected_target(whole, policy, score_of("consistency"), 0.2, k, groups=2000)
    want, unequal = float(truth.there.mass_R[0]), truth.unequal  # 0.633, 0.952
    mended, plain = drawn_again(chance_of_another(rows, np.bincount(of_R))), drawn_again(None)
    assert abs(mended[0] - want) < 0.02 < abs(plain[0] - want)
    assert abs(mended[1] - unequal) < 0.05


def test_rows_that_are_alike_may_be_one() -> None:
    rng = np.random.default_rng(5)
    prompt_R = np.repeat(np.arange(6), 20)
    answer_R, length_R = rng.integers(-1, 3, 120), rng.integers(1, 3, 120)
    score_R = np.where(rng.random(120) < 0.3, np.nan, 1.0)
    listed = Rows(prompt_R, answer_R, length_R, score_R)
    share_R = rng.random(120)
    share_R /= np.bincount(prompt_R, share_R)[prompt_R]
    mass = dynamics.Mass(prompt_R, np.log(share_R), -length_R.astype(float))
    few, whole, of_R = merged(listed, mass)
    assert len(few.prompt_R) < 110
    for name in ("prompt_R", "answer_R", "length_R", "score_R"):
        np.testing.assert_array_equal(getattr(few, name)[of_R], getattr(listed, name))
    np.testing.assert_array_equal(whole.logp_R[of_R], mass.logp_R)
    np.testing.assert_allclose(whole.mass_R, np.bincount(of_R, share_R), atol=1e-12)
    assert (np.diff(few.prompt_R) >= 0).all()
    for name in ("likelihood", "consistency", "likelihood-per-token"):
        a = score_of(name)(listed)(mass)
        b = score_of(name)(few)(whole)[of_R]
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_many_samples_are_all_responses() -> None:
    listed = state(table(4, 8))
    method = Method(score_of("consistency"), 0.3, None)
    exact = pull(listed, listed.mass, method, 0).there.mass_R
    k = 4000
    many = expected_target(
        listed.rows, listed.mass, method.score_of, 0.3, k, groups=16, seed=1
    ).there.mass_R
    # A share's error over 16 k samples, through exp(v / beta) with v's error over k.
    error = 6 * (0.5 / np.sqrt(16 * k) + 0.5 / np.sqrt(k) / 0.3 / np.sqrt(16))
    np.testing.assert_allclose(many, exact, atol=error)


# ---- rounds as they are trained


@pytest.mark.parametrize(
    ("reward", "update", "reader"),
    [
        ("likelihood", "square", read),
        ("likelihood", "weighted", read),
        ("consistency", "square", whole),  # it leaves responses without a reward as they are
        ("consistency", "weighted", read),
    ],
)
def test_exact_rounds_are_forecast_exactly(reward: str, update: str, reader: Reader) -> None:
    """Where all responses are listed and a round went all the way, so do the later ones: the
    loop's own rounds to 1e-9."""
    policy, beta = table(5, 8), 0.8
    own: Reward = likelihood if reward == "likelihood" else consistency(Grader("last", reader, str))
    made = tables(policy, rows(5), own, update, beta, 3)
    first = state(policy, modes=reward == "likelihood", reader=reader)
    now = estimates(figures(first, first.mass))
    done = [Gone(Estimate(1.0, 1.0, 1.0, PROMPTS, ""), 1.0, 1.0)]
    method = Method(score_of(reward), beta, None, update)
    for row in later_rounds(first, now, done, method, at=0, ahead=3):
        with np.errstate(divide="ignore"):
            log_R = np.log(made[row["round"]].ravel())
        mass = dynamics.Mass(first.mass.prompt_R, log_R, log_R)
        for name, value in figures(first, mass).items():
            assert row[name]["value"] == pytest.approx(value, rel=1e-9, abs=1e-9), name
            assert row[name]["low"] - 1e-9 <= value <= row[name]["high"] + 1e-9


@pytest.mark.parametrize("s", [0.2, 0.7])
def test_share_of_a_mixture_is_its_share(s: float) -> None:
    policy = table()
    first = state(policy, modes=True)
    method = Method(score_of("likelihood"), 1.0, None)
    found = pull(first, first.mass, method, 0)
    after = figures(first, mixed(first.mass, found.there, s))
    made = {
        "by": "confidence",
        "unequal": found.unequal,
        "now": figures(first, first.mass),
        "target": figures(first, found.there),
        "steps": steps_of(first, found.there),
    }
    went = gone(made, estimates(made["now"]), estimates(after), 0.01)
    assert went.share.value == pytest.approx(s, abs=1e-12)  # the mode's share moves in line
    assert went.kept == pytest.approx(1.0, abs=1e-12)
    assert went.share.low is not None
    assert went.share.high is not None
    assert went.share.low <= s <= went.share.high
    less = after | {"sampling_accuracy": 0.9 * after["sampling_accuracy"]}
    assert gone(made, estimates(made["now"]), estimates(less), 0.0).kept == pytest.approx(0.9)


def habits(*, modes: bool = False) -> State:
    """A table whose modes are among its longer responses."""
    first = state(table(), modes=modes)
    top_R = state(table(), modes=True).mode_R
    assert top_R is not None
    length_R = np.random.default_rng(0).integers(2, 9, len(top_R)) + 4 * top_R
    return replace(first, rows=replace(first.rows, length_R=length_R))


@pytest.mark.parametrize("mean", [5.5, 7.5])
def test_a_tilt_has_the_mean_asked_for(mean: float) -> None:
    first = habits()
    length_R = first.rows.length_R.astype(float)
    made = tilted(first.mass, length_R, mean)
    assert made.expect(length_R).mean() == pytest.approx(mean, abs=1e-3)
    np.testing.assert_allclose(made.expect(np.ones(len(length_R))), 1.0)
    ratio_R = made.log_mass_R - first.mass.log_mass_R  # linear in the length, prompt by prompt
    for p in range(3):
        of = first.mass.prompt_R == p
        line = np.polyfit(length_R[of], ratio_R[of], 1)
        np.testing.assert_allclose(np.polyval(line, length_R[of]), ratio_R[of], atol=1e-9)


def test_a_habit_of_the_likelihood_is_found_and_goes_on() -> None:
    """A round whose length went all its way and whose mixture went 0.4: both are read off."""
    first, s, habit = habits(modes=True), 0.4, 1.0
    method = method_of("likelihood", 0.3, 8)
    made = forecast_json(0, first, method, [], [], seed=0)
    there = pull(first, first.mass, method, 0).there
    after = stepped(first, first.mass, there, s, habit)
    second = estimates(figures(first, after))
    went = gone(made, estimates(made["now"]), second, 0.01)
    assert went.habit == pytest.approx(habit, abs=0.02)
    assert went.share.value == pytest.approx(s, abs=0.06)  # between steps of a quarter
    assert went.votes == pytest.approx(1.0, abs=0.02)
    plain = replace(went, habit=None)
    told, without = (
        later_rounds(first, second, [x], method, at=1, ahead=1)[0] for x in (went, plain)
    )
    assert not told["supported"]
    assert without["supported"]
    assert told["length"]["value"] > without["length"]["value"]


def test_a_habit_beside_votes_is_marked_and_does_not_go_on() -> None:
    first, s = habits(), 0.4
    method = method_of("consistency", 0.3, 8)
    made = forecast_json(0, first, method, [], [], seed=0)
    assert len(made["steps"]) == 1
    after = figures(first, mixed(first.mass, pull(first, first.mass, method, 0).there, s))
    for longer, marked in ((0.0, False), (0.5, True)):
        more = longer * (made["target"]["length"] - made["now"]["length"])
        second = estimates(after | {"length": after["length"] + more})
        went = gone(made, estimates(made["now"]), second, 0.001)
        assert went.share.value == pytest.approx(s, abs=0.01)
        assert (went.habit is not None) is marked
        later = later_rounds(first, second, [replace(went, repair=False)], method, at=1, ahead=2)
        assert [row["supported"] for row in later] == [not marked] * 2
        plain = later_rounds(
            first, second, [replace(went, habit=None, repair=False)], method, at=1, ahead=2
        )
        assert [x["vote_share"]["value"] for x in later] == [
            x["vote_share"]["value"] for x in plain
        ]


# ---- short and long responses


def two_kinds(prompts: int = 120, samples: int = 64) -> State:
    """Three in ten responses are short, and rarely give the majority's answer; of the long ones six
    in ten do."""
    random = np.random.default_rng(5)
    prompt_R = np.repeat(np.arange(prompts), samples)
    short_R = random.random(len(prompt_R)) < 0.3
    length_R = np.where(short_R, random.integers(4, 7, len(prompt_R)), 20)
    right_R = random.random(len(prompt_R)) < np.where(short_R, 0.2, 0.6)
    answer_R = np.where(right_R, 0, random.integers(1, 4, len(prompt_R)))
    listed = Rows(prompt_R, answer_R, length_R, np.full(len(prompt_R), np.nan))
    log_R = np.full(len(prompt_R), -np.log(samples))
    return State(listed, dynamics.Mass(prompt_R, log_R, np.zeros(len(prompt_R))), right_R * 1.0)


@pytest.mark.parametrize(
    ("lengths", "cut"),
    [
        ([3, 3, 4, 20, 21, 20, 22, 20], 20),
        ([3, 3, 3, 9, 9, 9], 9),
        (list(range(10, 30)), 20),  # a uniform spread: three quarters lie between its halves
        ([10, 12, 13, 13, 14, 14, 14, 15, 15, 16, 18], None),  # one kind
        ([3, *[20] * 30], None),  # one of 31 is no kind
        ([7] * 5, None),
    ],
)
def test_lengths_are_parted_where_they_are_of_two_kinds(
    lengths: list[int], cut: int | None
) -> None:
    none = np.zeros(len(lengths), dtype=np.int64)
    mass = dynamics.of_shares([np.full(len(lengths), 1 / len(lengths))])
    assert parted(Rows(none, none, np.array(lengths), none.astype(float)), mass) == cut


def test_lengths_are_parted_by_their_shares() -> None:
    """Listed responses count by their probability."""
    length = np.array([3, 4, 20, 21, 22, 23])
    rows = Rows(length * 0, length * 0, length, length * 0.0)
    shares = np.array([0.6, 0.3, 0.05, 0.03, 0.01, 0.01])
    assert parted(rows, dynamics.of_shares([shares])) == 20
    few = np.array([0.02, 0.02, 0.24, 0.24, 0.24, 0.24])
    assert parted(rows, dynamics.of_shares([few])) is None


def test_kinds_go_ways_of_their_own() -> None:
    first = two_kinds()
    there = pull(first, first.mass, method_of("consistency", 0.2, 8), 0).there
    mass, short_R = first.mass, first.rows.length_R < 20

    def share(m: dynamics.Mass) -> np.ndarray:
        return np.bincount(m.prompt_R[short_R], m.mass_R[short_R])

    for kind, s in ((0.0, 0.4), (0.5, 0.4), (1.0, 0.0), (1.3, 1.0)):
        new = by_kind(mass, there, s, kind, short_R)
        np.testing.assert_allclose(np.bincount(new.prompt_R, new.mass_R), 1.0)
        expected = np.clip(share(mass) + kind * (share(there) - share(mass)), 0, 1)
        np.testing.assert_allclose(share(new), expected, atol=1e-12)
        ratio_R = new.mass_R / mixed(mass, there, s).mass_R  # one number a prompt and kind
        for of_R in (short_R, ~short_R):
            spread_P = [np.ptp(ratio_R[of_R & (mass.prompt_R == p)]) for p in range(5)]
            np.testing.assert_allclose(spread_P, 0.0, atol=1e-12)
    for none in (np.zeros(len(short_R), dtype=bool), np.ones(len(short_R), dtype=bool)):
        same = by_kind(mass, there, 0.3, 1.0, none)
        np.testing.assert_allclose(same.mass_R, mixed(mass, there, 0.3).mass_R)
    mixture = by_kind(mass, there, 0.3, 0.3, short_R)
    np.testing.assert_allclose(mixture.mass_R, mixed(mass, there, 0.3).mass_R, atol=1e-12)


def test_prompts_of_one_kind_keep_it() -> None:
    mass = dynamics.of_shares([np.array([0.6, 0.4]), np.array([0.5, 0.5])])
    there = dynamics.of_shares([np.array([0.9, 0.1]), np.array([0.7, 0.3])])
    new = by_kind(mass, there, 0.5, 1.0, np.array([True, True, False, False]))
    np.testing.assert_allclose(new.mass_R, [0.75, 0.25, 0.6, 0.4])


def test_what_is_left_almost_no_mass_is_divided_all_the_same() -> None:
    """Long responses 720 nats below the short ones, and none at all at s = 1."""
    prompt_R = np.zeros(4, dtype=np.int64)
    short_R = np.array([True, True, False, False])
    now = dynamics.Mass(prompt_R, np.log([0.3, 0.3, 0.3, 0.1]), np.zeros(4))
    for depth in (-720.0, -743.0, -np.inf):
        there = replace(now, log_mass_R=np.array([np.log(0.9), np.log(0.1), depth, depth]))
        for s in (0.0, 0.5, 1.0):
            new = by_kind(now, there, s, 0.5, short_R)
            assert new.mass_R[short_R].sum() == pytest.approx(0.8)
            if depth == -np.inf:
                np.testing.assert_allclose(new.mass_R[~short_R], [0.15, 0.05])


@pytest.mark.parametrize("kind", [0.6, 1.0])
def test_a_way_of_the_short_ones_is_seen_and_followed(kind: float) -> None:
    first, s = two_kinds(), 0.5
    method = method_of("consistency", 0.2, 8)
    cut = parted(first.rows, first.mass)
    assert cut == 20
    made = forecast_json(0, first, method, [], [], 0, cut)
    there = pull(first, first.mass, method, 0).there
    mass = by_kind(first.mass, there, s, kind, first.rows.length_R < cut)
    second = estimates(figures(first, mass))
    went = gone(made, estimates(made["now"]), second, 0.001, short_share(first, mass, cut))
    far = short_share(first, there, cut) - short_share(first, first.mass, cut)
    noise = sum(q * (1 - q) for m in (first.mass, mass) for q in [short_share(first, m, cut)])
    with_1 = noise / len(first.rows.prompt_R) / (KIND_ERROR * far) ** 2
    assert went.kind == pytest.approx((kind + with_1) / (1 + with_1), abs=1e-9)
    assert went.share.value == pytest.approx(s, abs=0.08)
    plain = replace(went, kind=None)
    once, twice, mixture = (
        later_rounds(first, second, done, method, at=len(done), ahead=2, cut=cut)
        for done in ([went], [went, went], [plain])
    )
    assert [row["supported"] for row in (*once, *twice)] == [False, False, True, True]
    assert mixture[1]["length"]["value"] < once[1]["length"]["value"]  # less short is given up


def test_the_share_of_short_responses_is_averaged_with_its_prior() -> None:
    def kind(now: float, target: float, after: float, n: int, read: float = 1.0) -> float | None:
        told = {"share": now, "target": target, "read": read * now, "responses": n}
        return kind_of({"short": told}, after)

    assert kind(0.4, 0.1, 0.25, 10**9) == pytest.approx(0.5, abs=1e-3)  # known exactly
    between = kind(0.4, 0.35, 0.375, 500)
    assert between is not None
    assert 0.5 < between < 1.0
    assert kind(0.4, 0.1, 0.9, 10**9) == 0.0  # away from it
    assert kind(0.4, 0.1, 0.0, 10**9) == pytest.approx(1.3)  # further than it
    assert kind(1.0, 0.9, 1.0, 500) == 0.0
    assert kind(0.4, 0.39, 0.4, 500) is None  # no way to go
    assert kind(0.4, 0.1, 0.25, 500, read=0.4) is None  # given up for want of an answer


@pytest.mark.parametrize("reader", [whole, read])
def test_what_cannot_be_read_takes_two_rounds(reader: Reader) -> None:
    """One in seven responses cannot be read, or none."""
    first = state(table(), reader=reader)
    method = method_of("consistency", 0.3, 8)
    made = forecast_json(0, first, method, [], [], 0)
    mass = mixed(first.mass, pull(first, first.mass, method, 0).there, 0.5)
    second = estimates(figures(first, mass))
    went = gone(made, estimates(made["now"]), second, 0.001)
    rise = made["target"]["readable"] - made["now"]["readable"]
    assert went.repair is (rise > 0.1) is (reader is read)
    once, twice = (
        later_rounds(first, second, done, method, at=len(done), ahead=1)[0]["supported"]
        for done in ([went], [went, went])
    )
    assert (once, twice) == (not went.repair, True)


def test_a_target_that_moves_the_kinds_alone_tells_no_share() -> None:
    """All there is to learn is to be long."""
    prompt_R = np.repeat(np.arange(300), 10)
    short_R = np.tile(np.arange(10) < 4, 300)
    rows = Rows(prompt_R, np.where(short_R, 1, 0), np.where(short_R, 3, 30), prompt_R * np.nan)
    mass = dynamics.of_shares([np.full(10, 0.1)] * 300)
    first = State(rows, mass, 1.0 - short_R)
    made = forecast_json(0, first, method_of("consistency", 0.2, 8), [], [], 0, 30)
    there = pull(first, mass, method_of("consistency", 0.2, 8), 0).there
    after = by_kind(mass, there, 0.5, 0.9, short_R)
    second = estimates(figures(first, after))
    went = gone(made, estimates(made["now"]), second, 0.01, short_share(first, after, 30))
    assert went.kind == pytest.approx(0.9, abs=0.05)
    assert went.share.value is None


def test_forecasts_without_short_responses_are_read() -> None:
    """Those of earlier versions, and of responses of one kind."""
    first = state(table())
    method = method_of("consistency", 0.3, 8)
    for cut in (None, 1):  # none is shorter than 1
        made = forecast_json(0, first, method, [], [], 0, cut)
        assert below({k: v for k, v in made.items() if k != "short"}) is None
        assert below(made) == cut
        short = None if cut is None else short_share(first, first.mass, cut)
        went = gone(made, estimates(made["now"]), estimates(made["target"]), 0.01, short)
        assert went.kind is None


@pytest.mark.parametrize(
    ("low", "value", "high", "k", "supported"),
    [
        (0.4, 0.5, 0.6, 8, True),
        (0.1, 0.5, 0.9, 8, False),  # few held-out prompts: known to 0.4
        (0.9, 1.0, 1.0, 8, False),  # it may have gone further than its mixture
        (1.0, 1.0, 1.0, None, True),  # an exact round goes all of its way
    ],
)
def test_a_share_that_is_not_known_supports_no_later_rounds(
    low: float, value: float, high: float, k: int | None, supported: bool
) -> None:
    first = state(table())
    now = estimates(figures(first, first.mass))
    done = [Gone(Estimate(value, low, high, PROMPTS, ""), 0.9, 1.0)]
    method = method_of("consistency", 0.3, k)
    later = later_rounds(first, now, done, method, at=1, ahead=1)
    assert later[0]["supported"] is supported


def test_rewards_of_a_response_itself_go_on_at_their_share() -> None:
    done = [Gone(Estimate(0.4, 0.35, 0.45, PROMPTS, ""), 0.9, 1.0)]
    for reward, same in (
        ("likelihood", True),
        ("likelihood-per-token", True),
        ("consistency", False),
        ("likelihood:1,consistency:1", False),
    ):
        first = state(table(), modes=reward == "likelihood")
        made = forecast_json(1, first, method_of(reward, 0.5, 8), done, [], seed=0)
        assert (made["expected"] == pytest.approx(0.4)) is same, reward


def test_votes_that_nobody_gives_are_not_forecast() -> None:
    first = state(table(), reader=lambda text: whole(text) if int(text) < 4 else None)
    now = estimates(figures(first, first.mass))
    away = Method(lambda rows: lambda mass: np.where(rows.answer_R < 0, 1.0, 0.0), 0.1, 8)
    done = [Gone(Estimate(0.9, 0.9, 0.9, PROMPTS, ""), 1.0, 1.0)]
    row = later_rounds(first, now, done, away, at=1, ahead=1)[0]
    assert row["readable"]["value"] < 0.5
    assert row["kappa_vote"]["value"] is None


@pytest.mark.parametrize("tilt", [1.0, 400.0, 720.0])
def test_kappa_of_modes_that_are_left_almost_no_mass_is_not_told(tilt: float) -> None:
    """exp(-400) is a number and its inverse squared is none; the band would have no end."""
    first = state(table(), modes=True)
    assert first.mode_R is not None
    now = estimates(figures(first, first.mass))
    away = Method(lambda rows: lambda mass: np.where(first.mode_R, -tilt, 0.0), 1.0, None)
    done = [Gone(Estimate(0.9, 0.8, 1.0, PROMPTS, ""), 1.0, 1.0)]
    kappa = later_rounds(first, now, done, away, at=1, ahead=1)[0]["kappa"]
    assert (kappa["value"] is None) is (tilt > 1)
    if tilt == 1:
        assert kappa["low"] <= kappa["value"] <= kappa["high"] < np.inf


def test_a_target_that_moves_nothing_tells_no_share() -> None:
    made = {"by": "vote_share", "unequal": 0.0, "now": {"vote_share": 0.99},
            "target": {"vote_share": 0.991}, "steps": []}  # fmt: skip
    e = estimates({"vote_share": 0.99})
    went = gone(made, e, e, 0.0)
    assert went.share.value is None
    assert expected_share([went], 0.6, 0.5, 0.9) == expected_share([], 0.6, 0.5, 0.9)


def test_a_share_that_changes_widens_its_band_and_the_last_round_counts_twice() -> None:
    def done(*shares: float) -> list[Gone]:
        return [Gone(Estimate(s, s, s, PROMPTS, ""), 1.0, 1.0) for s in shares]

    steady = expected_share(done(0.4, 0.4), 0.6, 0.5, 1.0)
    assert steady == pytest.approx((0.4, 0.4 * (1 - 2 * DEVIATION), 0.4 * (1 + 2 * DEVIATION)))
    s, low, high = expected_share(done(0.2, 0.5), 0.6, 0.5, 1.0)
    assert s == pytest.approx((0.2 + 2 * 0.5) / 3)
    spread = (0.2 - s) ** 2 / 3 + 2 * (0.5 - s) ** 2 / 3
    wide = 2 * np.sqrt((DEVIATION * s) ** 2 + spread)
    assert (low, high) == pytest.approx((max(s - wide, 0.0), s + wide))


@pytest.mark.parametrize("update", list(RATES))
def test_every_update_has_later_rounds_with_bands(update: str) -> None:
    first = state(table())
    now = estimates(figures(first, first.mass))
    method = Method(score_of("consistency"), 0.3, 8, update)
    done = [Gone(Estimate(0.5, 0.4, 0.6, PROMPTS, ""), 0.9, 0.98)]
    later = later_rounds(first, now, done, method, at=1, ahead=3)
    assert [row["round"] for row in later] == [2, 3, 4]
    for row in later:
        for name in FORECAST[:5]:
            e = row[name]
            assert e["low"] <= e["value"] <= e["high"], name
    wide = [row["vote_share"]["high"] - row["vote_share"]["low"] for row in later]
    assert wide == sorted(wide)
    votes = [row["vote_share"]["value"] for row in later]
    assert votes == sorted(votes)


def test_scores_that_move_with_the_policy_are_told_one_round() -> None:
    first = state(table())
    now = estimates(figures(first, first.mass))
    done = [Gone(Estimate(0.5, 0.4, 0.6, PROMPTS, ""), 0.9, 1.0)]
    for moves in (False, True):
        method = Method(score_of("consistency"), 0.3, 8, moves=moves)
        later = later_rounds(first, now, done, method, at=1, ahead=3)
        assert [row["supported"] for row in later] == [True, not moves, not moves]


def test_rounds_that_tell_no_share_support_no_later_ones() -> None:
    first = state(table())
    now = estimates(figures(first, first.mass))
    method = Method(score_of("consistency"), 0.3, 8)
    untold = Gone(undefined("", ""), 0.9, 1.0)
    known = Gone(Estimate(0.5, 0.4, 0.6, PROMPTS, ""), 0.9, 1.0)
    for done, supported in (([], True), ([untold], False), ([known, untold], True)):
        later = later_rounds(first, now, done, method, at=len(done), ahead=1)
        assert later[0]["supported"] is supported


def test_updates_and_rewards_that_are_not_forecast_reliably() -> None:
    """Their later rounds are marked; before any round, and where all responses are listed, not."""
    first = state(table())
    now = estimates(figures(first, first.mass))
    done = [Gone(Estimate(0.5, 0.4, 0.6, PROMPTS, ""), 0.9, 1.0)]
    for reward, update, k, reliable in (
        ("consistency", "weighted", 8, True),
        ("consistency", "best-of-n", 8, True),
        ("consistency", "square", 8, False),
        ("likelihood", "dpo", 8, False),
        ("likelihood", "dpo", None, True),
        ("self-certainty:1,consistency:1", "weighted", 8, False),
    ):
        assert method_of(reward, 0.3, k, update).reliable is reliable
    for update, reliable in (("best-of-n", True), ("dpo", False)):
        method = method_of("consistency", 0.3, 8, update)
        for rounds, supported in (([], True), (done, reliable)):
            later = later_rounds(first, now, rounds, method, at=len(rounds), ahead=1)
            assert later[0]["supported"] is supported


def test_a_forecast_follows_so_many_samples_at_most() -> None:
    whole = state(table(), modes=True)
    assert whole.first(PROMPTS * RESPONSES) is whole
    few = whole.first(5 * RESPONSES + 3)
    assert few.mass.prompts == 5
    own = state(table(5), modes=True)
    for name in ("prompt_R", "answer_R", "length_R"):
        np.testing.assert_array_equal(
            getattr(few.rows, name), getattr(whole.rows, name)[: 5 * RESPONSES]
        )
    assert len(own.right_R) == len(few.right_R)
    assert whole.first(1).mass.prompts == 1


def test_scores_of_a_forecast() -> None:
    row = {"round": 1, "kappa": {"value": 2.2, "low": 2.0, "high": 2.3},
           "sampling_accuracy": {"value": 0.5, "low": 0.4, "high": 0.45}}  # fmt: skip
    seen = estimates({"kappa": 2.0, "sampling_accuracy": 0.55})
    by = {s.name: s for s in score([row], {1: seen})}
    assert by["kappa"].mean_error == pytest.approx(0.1)
    assert by["kappa"].inside == 1
    assert by["sampling_accuracy"].mean_error == pytest.approx(0.05)
    assert by["sampling_accuracy"].inside == 0


def test_what_the_model_must_be_asked_for() -> None:
    assert asked("judge:2,likelihood:0.1") == {"judge": 2.0}
    listed = Rows(
        np.zeros(2, dtype=np.int64), np.array([0, 0]), np.array([3, 4]), np.array([1.0, 5.0])
    )
    mass = dynamics.of_shares([np.array([0.5, 0.5])])
    got = score_of("judge:2,likelihood:0.1")(listed)(mass)
    np.testing.assert_allclose(got, np.array([1.0, 5.0]) + 0.1 * np.log(0.5))


# ---- the power of equal confidence


def evidence(policy: Tabular):  # type: ignore[no-untyped-def]
    prompts = rows(PROMPTS)
    every = policy.enumerate(prompts)
    logp = policy.log_table(prompts)
    modes = [(int(m),) for m in logp.argmax(1)]
    right = (np.array([t[0] for t in every.tokens_R]) % 2 == 0).astype(float)
    texts = [str(t[0]) for t in every.tokens_R]
    return gather(
        every,
        modes,
        logp.max(1),
        texts,
        [str(m[0]) for m in modes],
        right,
        np.array([float(m[0] % 2 == 0) for m in modes]),
        exact=True,
        seed=0,
    )


def confidence(policy: Tabular) -> float:
    return float(np.exp(policy.log_table(rows(PROMPTS))).max(1).mean())


@pytest.mark.parametrize("power", [1.1, 1.5, 3.0])
def test_pace_of_a_pure_power_is_that_power(power: float) -> None:
    base = table()
    after = Tabular(power * base.theta.reshape(PROMPTS, -1))
    found = pace(evidence(base).known, confidence(base), confidence(after), beta=2.0)
    assert found.exponent == pytest.approx(power, rel=1e-4)
    assert found.efficiency == pytest.approx(np.log(power) / np.log(1.5), rel=1e-4)


def test_what_is_not_known_is_said() -> None:
    listed = evidence(table()).known
    assert "already" in pace(listed, 0.999, 1.0, beta=1.0).why
    assert "did not rise" in pace(listed, 0.5, 0.4, beta=1.0).why
    with pytest.raises(UserError, match="beta"):
        pace(listed, 0.5, 0.6, beta=0.0)


def test_sharpening_by_steps_is_sharpening_at_once() -> None:
    base, prompts = table(), rows(PROMPTS)
    half = Tabular(2.0 * base.theta.reshape(PROMPTS, -1))
    modes = [(int(m),) for m in base.log_table(prompts).argmax(1)]
    once = sharpen(evidence(base).known, 6.0).log_top_P
    every = half.enumerate(prompts)
    twice = sharpen(known(every, modes, half.log_table(prompts).max(1), exact=True), 3.0).log_top_P
    np.testing.assert_allclose(once, twice, atol=1e-12)


def test_rounds_that_few_groups_drive_drift() -> None:
    assert drifts(0.24, 1.0) and drifts(0.9, 0.97)
    assert not drifts(0.25, 0.98)
    assert drifted([0.9, 0.5, 0.3, 0.25]) == 2.0  # the root of the rounds, as before
    assert drifted([0.25 / 9, 1.0]) == pytest.approx(10**0.5)
    assert drifted([0.0]) == drifted([FEWEST]) == 5.0


def test_a_target_without_mass_on_a_mode_has_no_kappa() -> None:
    """Nothing of a round's way is told of a figure that is infinite at its end."""
    listed = Rows(np.zeros(2, int), np.array([0, 1]), np.array([4, 4]), np.full(2, np.nan))

    def mass(*share: float) -> dynamics.Mass:
        with np.errstate(divide="ignore"):
            log_R = np.log(share)
        return dynamics.Mass(listed.prompt_R, log_R, log_R)

    state = State(listed, mass(0.7, 0.3), np.array([1.0, 0.0]), listed.answer_R == 0)
    (step,) = steps_of(state, mass(0.0, 1.0))
    assert "kappa" not in step
    np.testing.assert_allclose(step["confidence"], 0.7 * (1 - np.array(STEPS)), atol=1e-12)
