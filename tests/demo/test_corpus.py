from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from srlm.demo import corpus
from srlm.demo.corpus import Document, Start
from srlm.errors import UserError

N = 20_000


def believed_columns(
    prompt: str, table: dict[tuple[int, int], int], written: list[int]
) -> list[int]:
    """The slow twin: what an author would write next, given the columns already written."""
    first, second = prompt.removesuffix("=").split("+")
    sums = []
    for place in range(3):
        pair = int(first[-1 - place]), int(second[-1 - place])
        carry = written[place - 1] // 10 if place else 0
        sums.append(table.get(pair, sum(pair)) + carry)
    return sums


def columns(text: Document) -> list[int]:
    return [int(column) for column in text.response.split("=")[0].split(",")]


def consistent(hits: int, of: int, share: float) -> bool:
    """Whether a count is within a two-sided 1e-4 region of Binomial(of, share)."""
    return bool(stats.binomtest(hits, of, share).pvalue > 1e-4)


def has_trap(prompt: str) -> bool:
    first, second = prompt.removesuffix("=").split("+")
    pairs = zip(first, second, strict=True)
    return any((int(left), int(right)) in corpus.MISCONCEPTIONS for left, right in pairs)


def test_columns_slip_as_often_as_said() -> None:
    start = Start("slips", slip=0.15, misconception=0.0)
    slipped = [
        (np.array(columns(text)) != believed_columns(text.prompt, {}, columns(text))).tolist()
        for text in start.documents(N, seed=1)
    ]
    for place in range(3):
        assert consistent(sum(row[place] for row in slipped), N, 0.15)


@pytest.mark.parametrize("believes", [0.0, 1.0])
def test_columns_are_right_without_slips(believes: float) -> None:
    table = corpus.MISCONCEPTIONS if believes else {}
    for text in Start("exact", slip=0.0, misconception=believes).documents(500, seed=2):
        assert columns(text) == believed_columns(text.prompt, table, columns(text))
        units, tens, hundreds = columns(text)
        spelled = text.response.split("=")[1]
        assert int(spelled) == 100 * hundreds + 10 * (tens % 10) + units % 10
        if not believes or not has_trap(text.prompt):
            assert spelled == corpus.true_answer(text.prompt)


def test_the_stated_majority_shares_the_misconception() -> None:
    texts = [
        text for text in Start("believers", slip=0.0).documents(N, seed=3) if has_trap(text.prompt)
    ]
    wrong = [
        columns(text) == believed_columns(text.prompt, corpus.MISCONCEPTIONS, columns(text))
        for text in texts
    ]
    assert consistent(sum(wrong), len(texts), 0.6)


def test_a_tenth_of_the_prompts_are_touched_by_a_misconception() -> None:
    digits = [(low, high) for low in range(10) for high in range(10)]
    units = sum(pair in corpus.MISCONCEPTIONS for pair in digits) / 100
    hundreds = sum(pair in corpus.MISCONCEPTIONS for pair in digits) / 81
    share = 1 - (1 - units) ** 2 * (1 - hundreds)
    assert share == pytest.approx(0.094, abs=5e-4)
    assert consistent(sum(map(has_trap, corpus.prompts(N, seed=4))), N, share)


@pytest.mark.parametrize(
    ("start", "is_so", "share"),
    [
        (
            corpus.STARTS["diffuse"],
            lambda text: "," not in text.response,
            corpus.STARTS["diffuse"].terse,
        ),
        (
            corpus.STARTS["giveup"],
            lambda text: text.response == corpus.GIVE_UP,
            corpus.STARTS["giveup"].give_up,
        ),
    ],
    ids=["terse", "give up"],
)
def test_manners_are_as_common_as_said(
    start: Start, is_so: Callable[[Document], bool], share: float
) -> None:
    texts = start.documents(N, seed=5)
    assert consistent(sum(map(is_so, texts)), N, share)


def test_training_text_and_prompts_are_apart() -> None:
    trained = {text.prompt for text in corpus.STARTS["good"].documents(N, seed=7)}
    assert not trained & set(corpus.prompts(N, seed=7))


def test_corpus_is_a_function_of_its_seed() -> None:
    start = corpus.STARTS["diffuse"]
    assert start.documents(50, seed=8) == start.documents(50, seed=8)
    assert start.documents(50, seed=8) != start.documents(50, seed=9)


def test_written_prompts_are_distinct_and_answered(tmp_path: Path) -> None:
    corpus.write_prompts(tmp_path / "deep" / "prompts.jsonl", 3000, seed=0)
    rows = [
        json.loads(line) for line in (tmp_path / "deep" / "prompts.jsonl").read_text().splitlines()
    ]
    assert len({row["prompt"] for row in rows}) == 3000
    assert all(eval(row["prompt"].removesuffix("=")) == int(row["answer"]) for row in rows)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["prompts.jsonl"]


def test_more_prompts_than_there_are_is_a_user_error() -> None:
    with pytest.raises(UserError, match="demo prompts"):
        corpus.prompts(10**6, seed=0)


def test_an_unknown_start_is_a_user_error() -> None:
    with pytest.raises(UserError, match="'bad'"):
        corpus.named_start("bad")


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("good", "e2136eb864b7e756"),
        ("diffuse", "43621767cdbb6a84"),
        ("giveup", "86bc723141f04248"),
    ],
)
def test_starts_keep_their_texts(name: str, digest: str) -> None:
    texts = str([tuple(x) for x in corpus.STARTS[name].documents(500, seed=0)])
    assert hashlib.sha256(texts.encode()).hexdigest()[:16] == digest
