"""The verdict: go, no-go and unclear, with and without answers."""

from __future__ import annotations

import numpy as np
import pytest

from srlm.forecast.trajectory import Point
from srlm.forecast.verdict import Verdict, commonest, decide, needed
from srlm.types import Estimate

N = 200


def estimate(value: float | None) -> Estimate:
    return Estimate(value, value, value, N, "made up")


def point(t: float, accuracy: float | None, length: float = 10.0, support: float = 1.0) -> Point:
    some = estimate(0.5)
    return Point(
        round=t, beta=2.0, exponent=1.5**t, kappa=some, log10_kappa=some, failure_fraction=some,
        confidence=estimate(0.5 + t / 20), sampling_accuracy=estimate(accuracy),
        answer_accuracy=estimate(accuracy), length=estimate(length), entropy=some,
        effective_sample_size=64.0, supported_share=support,
    )  # fmt: skip


def verdict(
    sampling: float,
    mode: float,
    *,
    path: tuple[float, ...] = (0.5, 0.7, 0.895, 0.9),
    shared: float = 0.0,
    prompts: int = N,
) -> Verdict:
    """On prompts that are all alike but for the noise of their modes."""
    right = (np.arange(prompts) < round(mode * prompts)).astype(float)
    modes = ["?" if i < shared * prompts else f"answer {i}" for i in range(prompts)]
    points = [point(t, a) for t, a in enumerate(path)]
    sampling_P = np.full(prompts, sampling)
    return decide(points, point(np.inf, mode), modes, sampling_P, right, (16, 0.88), 0, sampled={})


def test_go_says_from_where_to_where_and_the_control() -> None:
    found = verdict(0.5, 0.9)
    assert found.verdict == "go"
    for number in ("0.500", "0.900", "0.880"):
        assert number in found.reason
    assert "2 rounds" in found.advice
    assert found.gain is not None
    assert found.gain.value == pytest.approx(0.4)


def test_no_go_names_the_response_that_all_lead_to() -> None:
    found = verdict(0.52, 0.03, path=(0.52, 0.2, 0.03), shared=0.71)
    assert found.verdict == "no-go"
    for words in ("71%", "“?”", "0.520"):
        assert words in found.reason


def test_no_go_without_a_shared_mode() -> None:
    found = verdict(0.6, 0.3, path=(0.6, 0.4, 0.3))
    assert found.verdict == "no-go"
    assert "0.300" in found.reason


def test_nothing_to_gain_is_no_go() -> None:
    right = np.ones(4000)
    found = decide(
        [point(0, 0.999), point(1, 1.0)],
        point(np.inf, 1.0),
        ["a"],
        right - 0.001,
        right,
        None,
        0,
        sampled={},
    )
    assert found.verdict == "no-go"
    assert "1.000" in found.reason


def test_too_few_prompts_are_unclear() -> None:
    found = verdict(0.5, 0.6, prompts=20)
    assert found.verdict == "unclear"
    assert "more prompts" in found.advice


@pytest.mark.parametrize(
    ("modes", "length", "want", "words"),
    [
        (["a", "b", "c", "d"], 10.0, "unclear", "0.500 → 0.550"),
        (["?", "?", "c", "d"], 10.0, "no-go", "50%"),
        (["a", "b", "c", "d"], 2.0, "no-go", "10.0 → 2.0"),
        (["", "", "", "d"], 10.0, "no-go", "the empty one"),
    ],
)
def test_without_answers_only_collapse_is_judged(
    modes: list[str], length: float, want: str, words: str
) -> None:
    points = [point(0, None), point(1, None)]
    none = np.array([])
    found = decide(points, point(np.inf, None, length), modes, none, none, None, 0, sampled={})
    assert found.verdict == want
    assert words in found.reason
    assert found.gain is None
    assert "accuracy" not in found.reason


@pytest.mark.parametrize(
    ("modes", "drawn", "want"),
    [
        (["yes", "no"] * 10, {"yes": 0.5, "no": 0.5}, "unclear"),
        (["yes", "no"] * 10, {"yes": 0.25, "no": 0.75}, "unclear"),
        (["?"] * 9 + ["no"], {"?": 0.4, "no": 0.6}, "no-go"),
        (["?"] * 9 + ["no"], {"?": 0.9, "no": 0.1}, "unclear"),
    ],
)
def test_labels_that_prompts_share_are_no_collapse(
    modes: list[str], drawn: dict[str, float], want: str
) -> None:
    """Only a response that is commoner among the modes than among the draws is one."""
    points, none = [point(0, None), point(1, None)], np.array([])
    found = decide(points, point(np.inf, None), modes, none, none, None, 0, sampled=drawn)
    assert found.verdict == want


def test_the_round_that_is_reached_is_a_supported_one() -> None:
    points = [point(0, 0.5), point(1, 0.7), point(2, 0.8), point(3, 0.95, support=0.2)]
    right = (np.arange(N) < 180).astype(float)
    found = decide(
        points, point(np.inf, 0.9), [None] * N, np.full(N, 0.5), right, None, 0, sampled={}
    )
    assert "0.800" not in found.reason  # the pace of exact updates is not that of training
    assert "2 rounds" in found.advice


def test_commonest_mode() -> None:
    assert commonest(["b", "a", "a", None]).text == "a"
    assert commonest(["b", "a", "a", None]).share == 0.5
    assert commonest([None, None]).share == 0.0


def test_one_prompt_has_no_interval_and_no_verdict() -> None:
    found = verdict(0.5, 1.0, prompts=1)
    assert found.verdict == "unclear"
    assert found.gain is not None
    assert found.gain.low is None


@pytest.mark.parametrize(
    ("sampling", "mode", "want"),
    [
        (0.2, 0.8, ("unclear", "go", "go", "go")),
        (0.8, 0.2, ("unclear", "no-go", "no-go", "no-go")),
        (0.5, 0.6, ("unclear", "unclear", "unclear", "go")),
        (0.0, 0.0, ("unclear", "unclear", "unclear", "no-go")),
        (1.0, 1.0, ("unclear", "unclear", "unclear", "no-go")),
    ],
)
def test_the_same_shares_over_more_prompts(
    sampling: float, mode: float, want: tuple[str, ...]
) -> None:
    """5, 16, 64 and 256 prompts."""
    found = [verdict(sampling, mode, prompts=n) for n in (5, 16, 64, 256)]
    assert tuple(x.verdict for x in found) == want


def test_needed_prompts_tell() -> None:
    """With the number that it asks for, the same shares are told."""
    few = verdict(0.5, 0.65, prompts=20)
    assert few.verdict == "unclear" and few.gain is not None
    assert verdict(0.5, 0.65, prompts=needed(few.gain)).verdict == "go"
