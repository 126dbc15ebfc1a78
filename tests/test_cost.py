"""What is said before the work: numbers of a clock that is set by hand."""

from __future__ import annotations

import re
from typing import Any

import pytest

from srlm.config import ProbeConfig, seconds_of
from srlm.cost import LEAST, LONGEST, SEARCH_SHARE, pace, plan
from srlm.errors import UserError
from tests import tiny
from tests.rewards.scripted import responses

PROMPTS = tiny.texts(40)
T = 10


class Timed:
    """A policy whose batches of n prompts take a + b n seconds of its own clock, in T steps."""

    def __init__(self, a: float, b: float) -> None:
        self.a, self.b, self.now = a, b, 0.0

    def clock(self) -> float:
        return self.now

    def sample(self, prompts: Any, samples: int, *, advance: Any, **_: Any) -> Any:
        for _ in range(T):
            self.now += (self.a + self.b * len(prompts)) / T
            advance(len(prompts) / T)
        at = [p for p in range(len(prompts)) for _ in range(samples)]
        return responses(at, ["x" * (T - 1)] * len(at))


def settings(**changes: Any) -> ProbeConfig:
    base = {"model": "m", "prompts": {"file": "p"}, "samples": 16}
    return ProbeConfig.model_validate(base | changes)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.25), (8.0, 0.5), (30.0, 3.0)])
def test_batches_of_two_sizes_give_steps_and_prompts(a: float, b: float) -> None:
    policy: Any = Timed(a, b)
    found = pace(policy, PROMPTS, 16, max_tokens=T, seed=0, clock=policy.clock)
    assert (found.steps, found.prompt) == pytest.approx((a, b))
    assert found.tokens == pytest.approx(4 * 16 * T / (a + 4 * b))
    assert policy.now <= 2 * LONGEST + (2 * a + 5 * b) / T
    low, high = found.seconds(40, 16, 5)
    assert low == pytest.approx(6 * a + b * 40 * 17 / 16)
    assert high == pytest.approx((a + 4 * b) / 4 * 40 * 17 / 16)


class Tailed(Timed):
    """Every 16th response goes on to the limit, the others end at a tenth of it; a step takes 0.1 s
    and a millisecond a response."""

    def sample(self, prompts: Any, samples: int, *, advance: Any, **_: Any) -> Any:
        limit, R = 10 * T, len(prompts) * samples
        for t in range(limit):
            alive = R if t <= T else R // 16
            self.now += 0.1 + 1e-3 * alive
            ended = R - R // 16 if t == T else 0
            advance((alive + ended * (limit - t - 1)) / (limit * samples))
        at = [p for p in range(len(prompts)) for _ in range(samples)]
        return responses(at, ["x" * (T - 1)] * len(at))


def test_few_long_responses_are_in_the_time_said() -> None:
    policy: Any = Tailed(0.0, 0.0)
    found = pace(policy, PROMPTS[:4], 16, max_tokens=10 * T, seed=0, clock=policy.clock)
    began = policy.now
    policy.sample(PROMPTS[:4], 16, advance=lambda units: None)
    took = policy.now - began
    assert 4 * found.seen >= 0.95 * took
    assert found.steps + 4 * found.prompt < 4 * found.likely < 4 * found.seen


@pytest.mark.parametrize("budget", [20.0, 60.0, 200.0, 1e6])
def test_the_work_is_fitted_to_the_time(budget: float) -> None:
    policy: Any = Timed(8.0, 0.5)
    made, fitted = plan(policy, PROMPTS, settings(), T, budget, clock=policy.clock)
    assert made is not None
    assert (fitted.most_prompts, fitted.samples) == (made.prompts, made.samples)
    assert fitted.seconds == made.search == min(120.0, SEARCH_SHARE * budget)
    assert policy.now + made.high + made.search <= budget
    if made.samples < 16:  # prompts were cut before
        assert made.prompts <= LEAST <= made.samples
    if budget == 1e6:
        assert (made.prompts, made.samples) == (40, 16)


def test_without_a_limit_nothing_is_cut() -> None:
    policy: Any = Timed(8.0, 0.5)
    made, fitted = plan(policy, PROMPTS, settings(), T, clock=policy.clock)
    assert made is not None
    assert fitted == settings()
    numbers = [float(x) for x in re.findall(r"[\d.]+", made.lines()[0])]
    assert numbers[:4] == [40, 16, T, 40 * 17 * T]


def test_exact_policies_are_not_timed() -> None:
    made, fitted = plan(tiny.tabular(), PROMPTS, settings(), T, 1.0)
    assert made is None
    assert fitted == settings()


def test_a_network_has_a_memory() -> None:
    policy = tiny.policy()
    made, _ = plan(policy, PROMPTS, settings(), T)
    assert made is not None
    assert made.memory is not None
    assert made.memory > policy.budget.shape.width * policy.budget.shape.parameters


@pytest.mark.parametrize("text", ["", "m", "10", "-3s", "0s", "nanh", "infs", "1d"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UserError, match="--budget"):
        seconds_of(text)
