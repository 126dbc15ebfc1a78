"""New prompts: what is shown, what is taken, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srlm.config import ProbeConfig, resolve_as
from srlm.errors import UserError
from srlm.grading import Grader
from srlm.instruct import command, distinct, instruct, likeness
from srlm.types import Prompt, Samples
from tests import tiny
from tests.rewards.scripted import Scripted, responses

GIVEN = tiny.prompts(["Add 2 and 3.", "Name a river.", "Spell accommodate.", "Who wrote Emma?"])


class Writer(Scripted):
    """Writes the texts of a list in turn when it is asked for a request, and answers requests."""

    def __init__(self, texts: list[str], answers: dict[str, list[str]], finished: bool = True):
        super().__init__()
        self.texts, self.answers, self.finished = texts, answers, finished
        self.shown: list[str] = []
        self.next = 0

    def sample(self, prompts: Any, samples: int, *, seed: int, max_tokens: int) -> Samples:
        at = np.repeat(np.arange(len(prompts)), samples)
        if "Here are some requests" not in prompts[0].content:
            said = [self.answers.get(x.content, ["a", "b"]) for x in prompts]
            return responses(at, [x[k % len(x)] for x in said for k in range(samples)])
        self.shown += [x.content for x in prompts]
        out = [self.texts[(self.next + i) % len(self.texts)] for i in range(len(at))]
        self.next += len(at)
        return responses(at, out, finished=self.finished)


def ask(policy: Any, count: int = 3, given: list[Prompt] = GIVEN, **more: Any) -> Any:
    return instruct(policy, given, count, **more)


def test_new_prompts_are_taken_once_and_the_others_named() -> None:
    texts = [
        "Name a mountain range of Europe.",
        "  add 2 AND 3  ",
        "",
        "Name a mountain range of Europe",
        "Name a mountain range in Europe!",
        "Which metal is liquid?",
        "Settled?",
    ]
    policy = Writer(texts, {"Settled?": ["yes"]})
    made = ask(policy)
    assert [x.content for x in made.prompts] == [texts[0], texts[5]]
    assert set(made.refused) == {"known", "empty", "alike", "settled"}
    asked = sum(made.refused.values()) + len(made.prompts)
    assert asked == 60  # gave up after 20 questions a wanted prompt


def test_questions_show_distinct_given_prompts_only() -> None:
    policy = Writer([f"What is {'abcdefghij'[i] * 9}?" for i in range(10)], {})
    made = ask(policy, 5, shown=2)
    assert len(made.prompts) == 5
    for question in policy.shown:
        seen = [x.content for x in GIVEN if x.content in question]
        assert len(seen) == 2
        assert not any(x.content in question for x in made.prompts)


def test_settled_answers_are_refused() -> None:
    policy = Writer(["What is the answer?"], {"What is the answer?": list("abcdefgh")})
    assert len(ask(policy, 1).prompts) == 1
    assert ask(policy, 1, grader=Grader("one", lambda text: "one", str)).refused["settled"] == 1


def test_cut_off_prompts_are_refused() -> None:
    assert ask(Writer(["Name a"], {}, finished=False)).refused == {"unfinished": 60}


def test_distinct_by_counting() -> None:
    policy = Writer([], {"x": ["a", "b", "c"], "y": ["a"]})
    x = tiny.prompts(["x", "y"])
    assert distinct(policy, x, 6, 0, 9) == [3, 1]  # type: ignore[arg-type]


def test_a_language_model_writes_for_itself() -> None:
    policy, given = tiny.policy(), tiny.texts(3, most=2)
    made = [
        instruct(policy, given, 2, seed=seed, template="a{prompt}b", shown=2, max_tokens=6,
                 samples=4)
        for seed in (0, 0, 1)
    ]  # fmt: skip
    assert made[0].prompts == made[1].prompts
    assert made[0].prompts
    assert made[0].prompts != made[2].prompts
    for found in made:
        assert all(x.content not in {g.content for g in given} for x in found.prompts)


def test_the_command_writes_a_file_of_prompts(tmp_path: Path) -> None:
    model = tiny.saved(tmp_path / "model", max_position_embeddings=512)
    file = tiny.write_prompts(tmp_path / "given.jsonl", tiny.texts(3, most=2))
    out = tmp_path / "new.jsonl"
    settings = {
        "model": str(model),
        "prompts.file": str(file),
        "samples": 4,
        "max_tokens": 6,
        "device": "cpu",
    }
    told = command(resolve_as(ProbeConfig, None, settings), 2, out)
    assert "new prompts in" in told
    assert all(set(json.loads(x)) == {"prompt"} for x in out.read_text().splitlines())
    with pytest.raises(UserError, match="exists already"):
        command(resolve_as(ProbeConfig, None, settings), 2, out)


@pytest.mark.parametrize(
    ("policy", "given", "more", "named"),
    [
        (tiny.tabular(), GIVEN, {}, "no language model"),
        (Scripted(), tiny.vectors(2), {}, "no text prompts"),
        (Scripted(), GIVEN, {"template": "more?"}, "{prompt}"),
        (Scripted(context=300), GIVEN, {}, "context of 300"),
    ],
)
def test_refusals(policy: Any, given: list[Prompt], more: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError) as error:
        ask(policy, given=given, **more)
    assert named in error.value.problem


def test_likeness_of_nothing() -> None:
    assert likeness(frozenset(), frozenset()) == 1.0
