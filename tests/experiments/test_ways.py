"""The start with several worked paths: what its authors write, and what that makes likeliest."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from experiments import ways
from experiments.corpora import CORPORA
from experiments.ways import Paths
from srlm.demo import corpus
from srlm.grading import grader

CORPUS = CORPORA["paths"][0]
WAYS = (ways.by_columns, ways.by_parts)


def manner(response: str) -> str:
    if "," not in response:
        return "quick"
    first, *_, last = response.split("=")[0].split(",")
    if len(first) == 2:
        return "columns"
    return "counting" if last == response.split("=")[1] else "parts"


def test_every_way_ends_in_the_sum() -> None:
    rng = np.random.default_rng(0)
    read = grader("last-number").read
    for a, b in rng.integers(100, 1000, (300, 2)).tolist():
        sums = ways.digit_sums(np.array([a]), np.array([b]))[0].tolist()
        texts = [way(*sums) for way in WAYS] + [ways.by_counting_on(a, *sums)]
        assert {read(text) for text in texts} == {str(a + b)}
        assert set("".join(texts)) <= set(corpus.ALPHABET)
        carries = sums[1] >= 10 or sums[2] >= 10
        assert (ways.quickly(*sums) == str(a + b)) == (not carries)


def test_authors_divide_as_said() -> None:
    n = 20_000
    texts = CORPUS.documents(n, seed=1)
    numbers = np.array([[int(x) for x in t.prompt[:-1].split("+")] for t in texts])
    sums_RC = ways.digit_sums(numbers[:, 0], numbers[:, 1])
    easy_R = ways.looks_easy(sums_RC)
    assert easy_R.mean() == pytest.approx(0.55, abs=0.015)
    assert (easy_R & (sums_RC[:, 2] >= 10)).mean() == pytest.approx(0.55 * 0.45, abs=0.015)
    quick_R = np.array([manner(t.response) == "quick" for t in texts])
    assert not quick_R[~easy_R].any()
    assert quick_R[easy_R].mean() == pytest.approx(CORPUS.paths.quick, abs=0.02)
    works = Counter(manner(t.response) for t in texts)
    whole = n - works["quick"]
    assert works["columns"] / whole == pytest.approx(CORPUS.paths.columns, abs=0.02)
    assert works["parts"] / whole == pytest.approx(CORPUS.paths.parts, abs=0.02)
    read = grader("last-number").read
    right_R = np.array([read(t.response) == corpus.true_answer(t.prompt) for t in texts])
    assert right_R[~quick_R].mean() == pytest.approx((1 - CORPUS.slip) ** 3, abs=0.02)


def test_the_likeliest_response_is_the_habit_and_the_likeliest_answer_is_right() -> None:
    """In the authors' own distribution on a prompt whose units' carry is forgotten."""
    n = 20_000
    rng = np.random.default_rng(2)
    first_R, second_R = np.full(n, 247), np.full(n, 128)
    texts = ways.written(CORPUS.paths, CORPUS.slip, first_R, second_R, rng)
    read = grader("last-number").read
    responses, answers = Counter(texts), defaultdict(int)
    for text in texts:
        answers[read(text)] += 1
    assert responses.most_common(1)[0][0] == "365"
    assert max(answers, key=lambda a: answers[a]) == "375"
    p_quick = CORPUS.paths.quick
    p_right = (1 - p_quick) * (1 - CORPUS.slip) ** 3
    assert responses["365"] / n == pytest.approx(p_quick, abs=0.02)
    assert answers["375"] / n == pytest.approx(p_right, abs=0.03)


def test_slips_are_followed_and_quick_authors_make_none() -> None:
    one = np.array([247])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        always = Paths(quick=1.0, columns=1.0, parts=0.0)
        assert ways.written(always, 1.0, one, np.array([128]), rng) == ["365"]
        (slipped,) = ways.written(Paths(0.0, 1.0, 0.0), 1.0, one, np.array([158]), rng)
        units, tens, hundreds = (int(x) for x in slipped.split("=")[0].split(","))
        assert units != 15
        assert int(slipped.split("=")[1]) == 100 * hundreds + 10 * (tens % 10) + units % 10
        (on,) = ways.written(Paths(0.0, 0.0, 0.0), 0.5, one, np.array([158]), rng)
        assert on.split("=")[0].split(",")[-1] == on.split("=")[1]
