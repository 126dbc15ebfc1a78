"""The posterior of answers' shares: sums to one, agrees with closed forms, covers."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from srlm.forecast import answers, components
from srlm.forecast.answers import Counts, estimate
from tests.forecast.coverage import coverage

N = 4


def patterns(labelled: bool) -> list[Counts]:
    """Every sequence of N answers, the others numbered as they first appear."""
    out = []
    for row in product(range(N + 1), repeat=N):  # 0 is the right answer
        others = [a for a in row if a > 0 or not labelled]
        order = list(dict.fromkeys(others))
        first = range(1 if labelled else 0, N + 1)
        if order != list(first)[: len(order)]:
            continue
        count = [row.count(a) for a in order]
        hits = row.count(0)
        if not labelled:
            out.append(Counts(np.array(count), None))
        elif hits:
            out.append(Counts(np.array([hits, *count]), 0))
        else:
            out.append(Counts(np.array(count), -1))
    return out


@pytest.mark.parametrize("labelled", [True, False])
def test_the_likelihood_is_a_probability(labelled: bool) -> None:
    """Summed over all that N samples can show it is 1, in every component."""
    total_X = np.zeros(len(components.wrong_grid(N).others_X))
    for c in patterns(labelled):
        given = np.array([n for a, n in enumerate(c.count_A) if a != c.right], dtype=np.int64)
        right = components.log_share(c.hits, int(given.sum()))[1000] if labelled else 0.0
        total_X += np.exp(right + components.log_wrong(given, N))
    np.testing.assert_allclose(total_X, 1.0, rtol=1e-9)


def test_components_are_found() -> None:
    """Half of the prompts have one share of right answers, half another: their means and the share
    of prompts of each are found."""
    rng = np.random.default_rng(3)
    right_P = rng.binomial(16, np.repeat([0.2, 0.8], 60))
    found = components.draw(right_P.tolist(), [np.array([16 - r]) for r in right_P], None, rng)
    assert found.right_GK is not None
    a_X, b_X = components._share_grid()
    rho_GK = (a_X / (a_X + b_X))[found.right_GK]
    share_GK = np.exp(found.log_share_GK[:, :-1])  # the last are outliers
    for low, high, mean in ((0.0, 0.5, 0.2), (0.5, 1.0, 0.8)):
        weight_GK = np.where((rho_GK > low) & (rho_GK <= high), share_GK, 0.0)
        assert weight_GK.sum(1).mean() == pytest.approx(0.5, abs=0.07)
        assert (weight_GK * rho_GK).sum() / weight_GK.sum() == pytest.approx(mean, abs=0.04)


def test_a_prompt_of_no_component_has_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more prompts than are fitted, one gives 60 answers, all others one: it has 60 shares."""
    monkeypatch.setattr(components, "FITTED", 20)
    plain = [Counts(np.array([60]), 0)] * 80
    odd = Counts(np.ones(60, dtype=np.int64), -1)
    for place in (0, 40, 80):
        post = answers.posterior([*plain[:place], odd, *plain[place:]], draws=20)
        shares = post.shares(place)
        assert (shares.share_BA[:, 1:61] > 0).all() and np.isfinite(shares.share_BA).all()


def some(right: list[int], wrong: list[list[int]], silent: int = 0) -> list[Counts]:
    made = []
    for r, w in zip(right, wrong, strict=True):
        count = np.array(([r] if r else []) + w, dtype=np.int64)
        made.append(Counts(count, 0 if r else -1, silent))
    return made


def test_shares_are_shares() -> None:
    counts = some([5, 0, 3], [[2, 1], [4, 4], [3]], silent=2)
    post = answers.posterior(counts, seed=1, draws=50)
    for p in range(3):
        shares = post.shares(p)
        assert (shares.share_BA >= 0).all() and (shares.silent_B >= 0).all()
        np.testing.assert_allclose(shares.share_BA.sum(1) + shares.silent_B, 1.0, rtol=1e-12)
        np.testing.assert_array_equal(shares.share_BA, post.shares(p).share_BA)


def test_many_samples_say_the_shares() -> None:
    counts = some([6000, 1000], [[3000, 1000], [8000, 1000]])
    post = answers.posterior(counts, draws=200)
    for p, right in ((0, 0.6), (1, 0.1)):
        accuracy_B = post.shares(p).accuracy_B()
        assert accuracy_B.mean() == pytest.approx(right, abs=0.005)
        assert accuracy_B.std() == pytest.approx((right * (1 - right) / 10_000) ** 0.5, rel=0.3)
    where = answers.estimate(answers.values(post, answers.destination), "", these=True)
    assert where.value == 0.5 and where.low is not None and where.high is not None
    assert 0.25 <= where.low < 0.5 < where.high <= 0.75  # half a step of one prompt in two


def test_a_tie_is_a_tie() -> None:
    """Four votes each, on prompts where right and wrong answers do equally well."""
    counts = some([4, 6, 2] * 20, [[4], [2], [6]] * 20)
    post = answers.posterior(counts, draws=400)
    tied = np.mean([post.shares(p).mode_right_B().mean() for p in range(0, 60, 3)])
    assert tied == pytest.approx(0.5, abs=0.12)


def test_wrong_answers_that_many_share_are_found() -> None:
    """On 15 of 100 prompts one wrong answer has twice the share of the right one, the others are
    scattered: where all wrong answers count as alike, the right one is the mode nearly anywhere."""
    rng = np.random.default_rng(2)
    scattered = np.full(40, 0.64 / 40)
    plain = np.array([0.36, *scattered])
    rivalled = np.array([0.12, 0.24 + scattered[0], *scattered[1:]])
    right, wrong = [], []
    for p in range(100):
        count = rng.multinomial(32, rivalled if p < 15 else plain)
        right.append(int(count[0]))
        wrong.append([int(n) for n in count[1:] if n])
    post = answers.posterior(some(right, wrong), draws=200)
    where = answers.estimate(answers.values(post, answers.destination), "", these=True)
    assert where.low is not None and where.high is not None
    assert where.low <= 0.85 <= where.high
    assert where.value == pytest.approx(0.85, abs=0.04)


@pytest.mark.slow
def test_a_slip_that_takes_a_part_of_the_wrong_responses() -> None:
    """On every prompt one slip makes .4 of the wrong responses, three others .2 each: the vote ends
    right where p > .4 (1 - p), and near that it is told without leaning to the right answer."""
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(6):
        right_P = rng.beta(2, 2, size=100)
        shares_P4 = (1 - right_P)[:, None] * [0.4, 0.2, 0.2, 0.2]
        counts = [rng.multinomial(64, [p, *w]) for p, w in zip(right_P, shares_P4, strict=True)]
        made = some([int(c[0]) for c in counts], [[int(n) for n in c[1:] if n] for c in counts])
        post = answers.posterior(made, draws=200)
        where = answers.estimate(answers.values(post, answers.destination), "", these=True)
        assert where.value is not None
        errors.append(where.value - float((right_P > shares_P4[:, 0]).mean()))
    assert abs(np.mean(errors)) < 0.02


def test_answers_not_given_count() -> None:
    """All samples different: the largest share is not 1/N of what was seen."""
    counts = [Counts(np.ones(16, dtype=np.int64), None) for _ in range(20)]
    post = answers.posterior(counts, draws=100)
    kappa = answers.estimate(answers.values(post, answers.kappa), "", these=True, inverse=True)
    assert kappa.low is not None and kappa.low > 16


def test_prompts_with_and_without_right_answers() -> None:
    counts = [*some([5, 6], [[3], [2]]), Counts(np.array([4, 4]), None)]
    post = answers.posterior(counts, draws=50)
    assert post.shares(2).right is None and post.shares(0).right == 0


@pytest.mark.slow
def test_intervals_cover() -> None:
    """On seeds that chose nothing; within three standard errors of 90%."""
    n = 100
    for held, _, _ in coverage(20_000, n).values():
        assert abs(held - 0.9) < 3 * (0.09 / n) ** 0.5


def test_shares_of_few_prompts_stay_between_0_and_1() -> None:
    both_B = np.random.default_rng(0).integers(0, 2, size=400)
    value_BP = np.column_stack([both_B, both_B, 0 * both_B, 0 * both_B]).astype(np.float64)
    made = answers.estimate(value_BP, "")
    assert 0 <= float(made.low or 0) < float(made.high or 0) <= 1


def test_kappa_of_sure_prompts_is_no_share() -> None:
    one_BP = np.ones((400, 4))
    kappa = answers.estimate(one_BP, "", inverse=True)
    assert (kappa.low, kappa.value, kappa.high) == (1.0, 1.0, 1.0)
    share = answers.estimate(one_BP, "")
    assert float(share.low or 0) < 0.7 and share.high == 1.0


@pytest.mark.parametrize("p", [0.01, 0.99])
@pytest.mark.parametrize(("level", "least"), [(0.9, 0.87), (0.95, 0.93)])
def test_shares_near_0_and_1_are_covered(p: float, level: float, least: float) -> None:
    """256 prompts, each right or wrong for sure: 300 problems; a miss in 2.5 standard errors."""
    held = []
    for seed in range(300):
        value_P = (np.random.default_rng([seed, 7]).random(256) < p) * 1.0
        e = estimate(np.broadcast_to(value_P, (400, 256)), "", seed=seed, level=level)
        assert e.low is not None and e.high is not None
        held.append(e.low <= p <= e.high)
    assert np.mean(held) >= least - 2.5 * (least * (1 - least) / 300) ** 0.5
    nothing = estimate(np.zeros((400, 256)), "", level=level)
    assert nothing.high == pytest.approx(1 - ((1 - level) / 2) ** (1 / 256), rel=0.3)
