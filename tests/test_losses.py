"""The losses against sums over draws spelled out, and their closed forms."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srlm import losses, pairs
from srlm.types import Pairs, Samples
from tests.naive import comparing

pytestmark = pytest.mark.smoke

finite = st.floats(-30, 0)
betas = st.floats(0.05, 20)
draws_of_a_prompt = st.lists(
    st.tuples(st.integers(0, 2), finite, finite, finite), min_size=1, max_size=6
)


def merged(prompts: list[list[tuple[int, float, float, float]]]) -> tuple[Pairs, torch.Tensor]:
    """Draws (response, log pi, log pi_t, reward) of each prompt as groups; log pi of the rows.

    Equal responses get the numbers of the first of them.
    """
    table = {(p, y[0]): y for p, draws in enumerate(prompts) for y in reversed(draws)}
    rows = [(p, table[p, y[0]]) for p, draws in enumerate(prompts) for y in draws]
    count = np.bincount([p for p, _ in rows])
    samples = Samples(
        prompt_R=np.array([p for p, _ in rows]),
        tokens_R=tuple((y[0],) for _, y in rows),
        logp_R=np.array([y[2] for _, y in rows]),
        weight_R=np.array([1 / count[p] for p, _ in rows]),
        finished_R=np.ones(len(rows), dtype=bool),
        text_R=tuple("" for _ in rows),
    )
    made = pairs.groups(samples, np.array([y[3] for _, y in rows]))
    keys = zip(made.prompt_R, made.tokens_R, strict=True)
    return made, torch.tensor([table[int(p), t[0]][1] for p, t in keys], dtype=torch.float64)


def of(loss: object, made: Pairs, logp_R: torch.Tensor, beta: float) -> torch.Tensor:
    assert callable(loss)
    out = loss(logp_R, losses.Groups.of(made, beta))
    assert isinstance(out, torch.Tensor)
    return out


def numbers(draws: list[tuple[int, float, float, float]]) -> list[comparing.Draw]:
    first = {y[0]: y[1:] for y in reversed(draws)}
    return [first[y[0]] for y in draws]


@given(st.lists(draws_of_a_prompt, min_size=1, max_size=3), betas)
def test_square_is_the_mean_over_all_ordered_pairs(
    prompts: list[list[tuple[int, float, float, float]]], beta: float
) -> None:
    made, logp_R = merged(prompts)
    expected = [comparing.square(numbers(draws), beta) for draws in prompts]
    found = of(losses.square, made, logp_R, beta).tolist()
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert len(made) == sum(len({y[0] for y in draws}) for draws in prompts)


@given(st.lists(draws_of_a_prompt, min_size=1, max_size=3), st.floats(0.3, 20))
def test_weighted_is_the_sum_over_draws(
    prompts: list[list[tuple[int, float, float, float]]], beta: float
) -> None:
    made, logp_R = merged(prompts)
    expected = [comparing.weighted(numbers(draws), beta) for draws in prompts]
    found = of(losses.weighted, made, logp_R, beta).tolist()
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("loss", [losses.square, losses.weighted])
def test_merging_duplicates_changes_neither_loss_nor_gradient(loss: object) -> None:
    """Two draws of y_0 and one of y_1, as two rows and as three."""
    theta = torch.tensor([-1.0, -2.5], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-1.2, -2.0], dtype=torch.float64)
    reward = torch.tensor([-1.2, -3.0], dtype=torch.float64)
    assert callable(loss)
    out = []
    for rows, weight in (([0, 1], [2 / 3, 1 / 3]), ([0, 1, 0], [1 / 3, 1 / 3, 1 / 3])):
        group = torch.zeros(len(rows), dtype=torch.long)
        weights = torch.tensor(weight, dtype=torch.float64)
        g = losses.Groups(reference[rows], reward[rows], weights, group, 1, 0.7)
        value = loss(theta[rows], g)
        (gradient,) = torch.autograd.grad(value.sum(), theta)
        out.append((value.item(), gradient.tolist()))
    assert out[0][0] == pytest.approx(out[1][0], abs=1e-12)
    assert out[0][1] == pytest.approx(out[1][1], abs=1e-12)
    assert max(map(abs, out[0][1])) > 0.1


def test_a_pair_is_half_of_the_papers_square() -> None:
    draws = [(0, -1.0, -2.0, -0.3), (1, -3.0, -1.0, -1.5)]
    made, logp_R = merged([draws])
    paper = comparing.paper(draws[0][1:], draws[1][1:], 2.0)
    assert paper == pytest.approx((2 * (1 + 2) - 1.2) ** 2)
    assert of(losses.square, made, logp_R, 2.0).item() == pytest.approx(paper / 2)


@given(draws_of_a_prompt, betas, st.floats(-50, 50))
def test_a_constant_added_to_rewards_changes_nothing(
    draws: list[tuple[int, float, float, float]], beta: float, constant: float
) -> None:
    made, logp_R = merged([draws])
    more, _ = merged([[(y, a, b, r + constant) for y, a, b, r in draws]])
    for loss in (losses.square, losses.weighted):
        one, other = (of(loss, x, logp_R, beta).item() for x in (made, more))
        assert other == pytest.approx(one, rel=1e-6, abs=1e-6 * (1 + beta**2))


@given(draws_of_a_prompt, betas)
def test_square_is_zero_at_its_minimiser(
    draws: list[tuple[int, float, float, float]], beta: float
) -> None:
    made, _ = merged([draws])
    target = torch.from_numpy(made.reference_R + made.reward_R / beta) - 3.0
    assert of(losses.square, made, target, beta).item() == pytest.approx(0, abs=1e-18 + 1e-20)
    assert losses.zero_floor(losses.Groups.of(made, beta)).item() == 0


@given(draws_of_a_prompt, betas)
def test_weighted_is_least_at_its_target(
    draws: list[tuple[int, float, float, float]], beta: float
) -> None:
    made, _ = merged([draws])
    g = losses.Groups.of(made, beta)
    v_R = losses.target_weights(g)
    assert v_R.sum().item() == pytest.approx(1)
    floor = losses.weighted_floor(g).item()
    assert floor == pytest.approx(comparing.entropy(v_R.tolist()), abs=1e-12)
    if bool((v_R > 1e-300).all()):
        at_target = of(losses.weighted, made, v_R.log(), beta).item()
        assert at_target == pytest.approx(floor, abs=1e-9)
    elsewhere = torch.log_softmax(torch.linspace(0, 1, len(v_R), dtype=torch.float64), 0)
    assert of(losses.weighted, made, elsewhere, beta).item() >= floor - 1e-12


@pytest.mark.parametrize("size", [1e-300, 1.0, 1e3, 1e8, 1e300])
def test_target_weights_at_rewards_of_any_size(size: float) -> None:
    reward = torch.tensor([-1.0, -2.0, -2.0], dtype=torch.float64) * size
    weight = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    group = torch.zeros(3, dtype=torch.long)
    v = losses.target_weights(losses.Groups(reward, reward, weight, group, 1, 1.0))
    assert bool(torch.isfinite(v).all())
    ratio = 2 * np.exp(min(size, 700.0))
    assert v[0].item() == pytest.approx(ratio / (ratio + 2))
    assert v[1] == v[2]


def test_target_weights_by_hand() -> None:
    reward = torch.tensor([log(0.5), log(0.25), 0.0], dtype=torch.float64)
    weight = torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64)
    g = losses.Groups(reward, reward, weight, torch.tensor([0, 0, 1]), 2, 0.5)
    v = losses.target_weights(g)
    assert v.tolist() == pytest.approx([0.8, 0.2, 1.0])


def test_groups_do_not_meet() -> None:
    """The loss of a group is the same alone and beside others."""
    rng = np.random.default_rng(0)
    prompts = [
        [(int(y), *map(float, -rng.exponential(2, 3))) for y in rng.integers(0, 3, 4)]
        for _ in range(5)
    ]
    made, logp_R = merged(prompts)
    for loss in (losses.square, losses.weighted):
        together = of(loss, made, logp_R, 0.5).tolist()
        alone = [of(loss, *merged([draws]), 0.5).item() for draws in prompts]
        assert together == pytest.approx(alone)


two_draws = st.lists(
    st.tuples(st.integers(0, 2), finite, finite, st.sampled_from([-2.0, -1.0, -0.5])),
    min_size=1,
    max_size=2,
)


@given(st.lists(two_draws, min_size=1, max_size=4), st.floats(0.05, 5))
def test_preferences_are_the_papers_formulas(
    prompts: list[list[tuple[int, float, float, float]]], beta: float
) -> None:
    made, logp_R = merged(prompts)
    for name in ("dpo", "ipo"):
        expected = []
        for draws in prompts:
            one = numbers(draws) if len({y[0] for y in draws}) > 1 else numbers(draws)[:1]
            expected.append(getattr(comparing, name)(one, beta))
        found = of(getattr(losses, name), made, logp_R, beta).tolist()
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_tie_moves_nothing() -> None:
    logp = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-1.5, -1.0], dtype=torch.float64)
    reward, weight = torch.full((2,), -3.0), torch.full((2,), 0.5)
    for loss, value in ((losses.dpo, log(2)), (losses.ipo, 0.0)):
        group = torch.zeros(2, dtype=torch.long)
        out = loss(logp, losses.Groups(reference, reward, weight, group, 1, 0.3))
        (gradient,) = torch.autograd.grad(out.sum(), logp)
        assert out.item() == pytest.approx(value)
        assert gradient.tolist() == [0, 0]


@pytest.mark.parametrize("loss", [losses.dpo, losses.ipo])
def test_preferences_refuse_groups_of_three(loss: object) -> None:
    draws = [(y, -1.0, -1.0, -float(y)) for y in range(3)]
    with pytest.raises(ValueError, match="between two responses"):
        of(loss, *merged([draws]), 1.0)


@given(draws_of_a_prompt)
def test_chosen_is_weighted_in_the_limit(draws: list[tuple[int, float, float, float]]) -> None:
    draws = [(y, a, b, float(round(r))) for y, a, b, r in draws]
    made, logp_R = merged([draws])
    limit = of(losses.weighted, made, logp_R, 1e-3).item()
    assert of(losses.chosen, made, logp_R, 1.0).item() == pytest.approx(limit, abs=1e-9)
