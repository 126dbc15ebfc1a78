"""Pairwise and meta-judge against brute force on scripted judges; position bias."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from srlm import pairs
from srlm.config import JudgeSettings
from srlm.errors import UserError
from srlm.rewards.base import JudgeTraining, Scored
from srlm.rewards.judge_pairwise import judge_pairwise
from srlm.rewards.meta_judge import meta_judge
from srlm.types import Samples
from tests import tiny
from tests.rewards.scripted import Scripted, responses
from tests.rewards.test_judge import HOSTILE

X = tiny.prompts(["p", "q"])
SETTINGS = JudgeSettings(
    compare_template="{prompt}|{first}|{second}",
    template="{prompt}/{response}",
    meta_template="{prompt}|{first}|{second}",
    judgements=3,
)


def likes(strength: Mapping[str, float], bias: float = 0.0) -> Scripted:
    """P(A) = 1/2 + (strength A - strength B) / 2 + bias; the letters have 80 % together."""

    def odds(question: str) -> dict[str, float]:
        _, first, second = question.rsplit("|", 2)
        a = 0.5 + (strength[first] - strength[second]) / 2 + bias
        return {"A": 0.8 * a, "B": 0.8 * (1 - a)}

    return Scripted(odds=odds)


STRENGTH = {"a": 0.1, "b": 0.3, "c": 0.6}


@pytest.mark.parametrize("bias", [0.0, 0.15, -0.2])
def test_wins_are_means_over_opponents_and_free_of_position_bias(bias: float) -> None:
    texts = ["a", "b", "c", "c", "b"]
    samples = responses([0, 0, 0, 0, 1], texts)
    found = judge_pairwise(SETTINGS)(likes(STRENGTH, bias), X, samples)
    assert isinstance(found, Scored)
    group = texts[:4]
    for r, me in enumerate(group):
        wins = [0.5 + (STRENGTH[me] - STRENGTH[you]) / 2 for you in group if you != me]
        assert found.reward_R[r] == pytest.approx(np.mean(wins))
    assert found.reward_R[4] == 0.5  # nobody to compare with
    assert found.facts["judge-pairwise: position bias"] == pytest.approx(bias)
    flips = [
        (0.5 + d / 2 + bias > 0.5) == (0.5 - d / 2 + bias > 0.5)
        for d in (STRENGTH[i] - STRENGTH[j] for i, j in combinations("abc", 2))
    ]
    assert found.facts["judge-pairwise: contradictory"] == pytest.approx(np.mean(flips))
    assert any("stands" in note for note in found.notes) == (abs(bias) > 0.1)


def test_unreadable_comparisons_are_missing() -> None:
    found = judge_pairwise(SETTINGS)(Scripted(), X, responses([0, 0, 1], ["a", "b", "c"]))
    assert isinstance(found, Scored)
    np.testing.assert_array_equal(found.reward_R, [np.nan, np.nan, 0.5])
    assert found.facts["judge-pairwise: unreadable"] == 1
    assert any("unparseable" in note for note in found.notes)


def test_comparisons_too_long_are_missing_alone() -> None:
    strong = dict.fromkeys(["a", "b", "c" * 99], 0.5)
    policy = likes(strong)
    policy.context = 20
    found = judge_pairwise(SETTINGS)(policy, X, responses([0, 0, 0], list(strong)))
    assert isinstance(found, Scored)
    np.testing.assert_array_equal(found.reward_R, [0.5, 0.5, np.nan])


def test_hostile_candidates_win_nothing_by_themselves() -> None:
    texts = list(HOSTILE.values())
    policy = Scripted(odds=lambda question: {"A": 0.3, "B": 0.3})
    found = judge_pairwise(JudgeSettings())(policy, X, responses([0] * len(texts), texts))
    assert isinstance(found, Scored)
    np.testing.assert_allclose(found.reward_R, 0.5)


def test_templates_of_comparisons_are_checked() -> None:
    for made in (
        lambda: judge_pairwise(JudgeSettings(compare_template="{prompt}{first}")),
        lambda: meta_judge(JudgeSettings(meta_template="{first}{second}")),
    ):
        with pytest.raises(UserError, match="template"):
            made()


# ---- judgements judged

SAID = ["Score: 5", "Score: 2", "?"]
WORTH = {"Score: 5": 0.1, "Score: 2": 0.9}


def meta(says: list[str] = SAID) -> Scripted:
    made = likes(WORTH)
    made.says = lambda question, draw: says[draw]
    return made


def test_meta_judge_weighs_judgements() -> None:
    found = meta_judge(SETTINGS)(meta(), X, responses([0, 0, 1], ["u", "u", "v"]))
    assert isinstance(found, Scored)
    better = 0.5 + (0.9 - 0.1) / 2
    np.testing.assert_allclose(found.reward_R, 2 * better + 5 * (1 - better))
    assert found.facts["judge: unreadable"] == pytest.approx(1 / 3)
    assert found.facts["meta-judge: duels"] == 2


def test_equal_judgements_are_one_contestant() -> None:
    policy = meta(["Score: 2", "Score: 2", "Score: 2"])
    found = meta_judge(SETTINGS)(policy, X, responses([0], ["u"]))
    assert isinstance(found, Scored)
    np.testing.assert_allclose(found.reward_R, 2)
    assert found.facts["meta-judge: duels"] == 0


def test_verdicts_asked_about_one_by_one() -> None:
    """Judge and meta-judge of one letter; P(sound) of y and n by themselves, against Bayes' way."""
    sound = {"p/u|y": 0.7, "p/u|n": 0.2}
    policy = Scripted(
        says=lambda question, draw: "yyn"[draw],
        odds=lambda question: {"y": 0.9 * sound[question], "n": 0.9 * (1 - sound[question])},
    )
    changes = {"scores": "y=1,n=0", "pattern": "^[yn]$", "choices": "y,n", "train": True}
    settings = SETTINGS.model_copy(update=changes | {"meta_template": "{prompt}|{first}"})
    found = meta_judge(settings)(policy, X, responses([0], ["u"]))
    assert isinstance(found, Scored)
    better = (0.7 + 1 - 0.2) / 2
    np.testing.assert_allclose(found.reward_R, 2 * better / (2 * better + 1 - better))
    assert found.facts["meta-judge: approval"] == pytest.approx((0.7 + 0.2) / 2 - 0.5)
    assert found.facts["meta-judge: undecided"] == 0
    assert "meta-judge: position bias" not in found.facts
    assert found.training is not None
    np.testing.assert_allclose(found.training.reward_J, [better, better, 1 - better])


def judge_training(policy: Any, samples: Samples) -> JudgeTraining:
    found = meta_judge(SETTINGS.model_copy(update={"train": True}))(policy, X, samples)
    assert isinstance(found, Scored)
    assert found.training is not None
    return found.training


def test_the_judge_trains_where_it_is_least_sure() -> None:
    """Of each prompt the response whose scores vary most; none where all are judged alike."""
    said = {
        "p/u": ["Score: 5", "Score: 5", "Score: 2"],
        "p/v": ["Score: 5", "Score: 2", "?"],
        "p/w": ["Score: 2", "Score: 2", "Score: 2"],
        "q/u": ["Score: 5", "Score: 5", "?"],
    }
    policy = likes(WORTH)
    policy.says = lambda question, draw: said[question][draw]
    samples = responses([0, 0, 0, 1], ["u", "v", "w", "u"])
    made = judge_training(policy, samples)
    assert [x.content for x in made.prompts] == ["p/v"]
    assert list(made.samples.text_R) == said["p/v"]
    np.testing.assert_allclose(made.reward_J, [0.1, 0.9, np.nan])
    settings = SETTINGS.model_copy(update={"train": True})
    found = meta_judge(settings)(policy, X, responses([1], ["u"]))
    assert isinstance(found, Scored)
    assert found.training is None
    assert found.facts["meta-judge: judgements to train on"] == 0


def test_a_run_takes_its_choices_from_the_settings() -> None:
    policy = Scripted(odds=lambda question: {"y": 0.6, "n": 0.2})
    settings = SETTINGS.model_copy(update={"choices": "n,y"})
    found = judge_pairwise(settings)(policy, X, responses([0, 0], ["a", "b"]))
    assert isinstance(found, Scored)
    assert found.facts["judge-pairwise: position bias"] == pytest.approx(-0.25)


@pytest.mark.parametrize("choices", ["A", "A,", ",B", "A,A", "A,B,C"])
def test_choices_are_two(choices: str) -> None:
    with pytest.raises(ValueError, match="FIRST,SECOND"):
        JudgeSettings(choices=choices)


def test_judge_training_goes_through_the_stages() -> None:
    made = judge_training(meta(), responses([0, 1], ["u", "v"]))
    assert [x.content for x in made.prompts] == ["p/u", "q/v"]
    assert made.samples.text_R == (*SAID, *SAID)
    np.testing.assert_allclose(made.reward_J, [0.1, 0.9, np.nan] * 2, atol=1e-12)
    grouped = pairs.groups(made.samples, made.reward_J)
    assert grouped.groups == 2
    np.testing.assert_allclose(grouped.weight_R, 0.5)
    assert all(re.fullmatch(r"[pq]/[uv]", x.content) for x in made.prompts)
