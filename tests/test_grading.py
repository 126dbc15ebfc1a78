from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srlm.errors import UserError
from srlm.grading import EXACT, grader
from srlm.types import Prompt


def prompt(*answers: str, line: int = 1) -> Prompt:
    return Prompt(id="ab", content="?", answers=answers, line=line)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It is 1,000.", "1000"),
        ("1000.0", "1000"),
        ("+1e3", "1000"),
        ("12e-3", "0.012"),
        ("1500e-2", "15"),
        ("1e5.", "100000"),
        ("-.5", "-0.5"),
        ("\u22123", "-3"),
        ("\u20133", "-3"),
        ("5\u20133", "3"),
        ("-0.0", "0"),
        ("007", "7"),
        ("-$1,234.50", "-1234.5"),
        ("50%", "50%"),
        ("7-3", "3"),
        ("7 - 3", "3"),
        ("x=-5", "-5"),
        ("2020-01-05", "5"),
        ("x2.5", "2.5"),
        ("No.5", "5"),
        ("so...5", "5"),
        ("version 1.2.3", "1.2"),
        ("1234,567", "567"),
        ("1,234,5678", "5678"),
        ("15,10,04=405", "405"),
        ("is 2/4.", "0.5"),
        ("2/6", "1/3"),
        ("10 / 2 = 5", "5"),
        ("4/2", "2"),
        ("-3/6", "-0.5"),
        ("3 1/2 hours", "3.5"),
        (r"-2\frac{1}{3}", "-7/3"),
        ("12 30/60", "12.5"),
        ("3/4/2020", "2020"),
        (r"$9{,}500$", "9500"),
        (r"9\,500", "9500"),
        (r"1\,234\,567", "1234567"),
        (r"\frac{1}{2}", "0.5"),
        (r"\dfrac12", "0.5"),
        (r"-\frac{7}{3}", "-7/3"),
        ("29 km^2", "29"),
        ("29 km^{2}", "29"),
        ("x_1 = 4 m^-2", "4"),
        ("1/0", None),
        ("none", None),
        ("", None),
        ("½", None),
    ],
)
def test_last_number(text: str, answer: str | None) -> None:
    assert grader("last-number").read(text) == answer


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6))
def test_numbers_keep_their_value(number: object) -> None:
    for text in (f"{number}", f"{number:+,}", f"so {number:,}."):
        read = grader("last-number").read(text)
        assert read is not None
        assert Fraction(read) == Fraction(str(number))


@given(st.text("0123456789+-.,/eE $x)=^_{}\\", max_size=40))
def test_equal_readings_are_equal_values(text: str) -> None:
    read = grader("last-number").read(text)
    if read is not None:
        assert grader("last-number").read(read) == read
        Fraction(read.removesuffix("%"))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}", "5"),
        (r"\boxed{ x  + 1 }", "x + 1"),
        (r"\boxed{\frac{1}{2^{3}}} and so on}", r"\frac{1}{2^{3}}"),
        (r"\boxed{1} or \boxed{2}", "2"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{a\}b}", r"a\}b"),
        (r"\boxed{1} or \boxed{2", None),
        (r"\boxed{}", None),
        (r"\boxed{\text{no", None),
        (r"5", None),
    ],
)
def test_boxed(text: str, answer: str | None) -> None:
    assert grader("boxed").read(text) == answer


def test_exact_is_exact() -> None:
    assert grader("exact").read(" 1,000\n") == "1,000"
    assert grader("exact").read(" \n") is None
    assert not grader("exact").same("1,000", "1000")


def test_regex() -> None:
    assert grader("regex:[a-d]").read("a, no: c") == "c"
    assert grader("regex:Answer: (.*)|=(.*)").read("=1\n=1,000") == "1,000"
    assert grader("regex:a:b").read("a:b") == "a:b"
    assert grader("regex:(x)?y").read("y") is None
    assert grader("regex:z").read("y") is None


@pytest.mark.parametrize("spec", ["", "best", "regex", "regex:", "regex:(", "exact:1", "Boxed"])
def test_bad_spec(spec: str) -> None:
    with pytest.raises(UserError):
        grader(spec)


@pytest.mark.parametrize(
    ("spec", "answer", "response", "right"),
    [
        ("exact", "405", " 405 ", True),
        ("exact", "405", "405.0", False),
        ("text", "the Eiffel Tower", "Eiffel tower.", True),
        ("text", "Paris", "London", False),
        ("last-number", "1000", "It is 1,000.00!", True),
        ("last-number", "5 * 200 = 1000\n#### 1,000", "1000", True),
        ("last-number", "In 2 days: 72\n#### 72", "so 72", True),
        ("last-number", "1000", "It is 999", False),
        ("last-number", "1000", "no idea", False),
        ("last-number", "no idea", "no idea", False),
        ("last-number", "2", "1/2", False),
        ("last-number", "0.5", "1/2", True),
        ("boxed", r"\frac{1}{2}", r"\boxed{\frac{1}{2}}", True),
        ("boxed", r"thus \boxed{7}", r"\boxed{7.0}", True),
        ("boxed", "7", "7", False),
        ("boxed", "7", r"\boxed{7", False),
        ("regex:=(.*)", "1000", "20*50=1,000", True),
        ("regex:=(.*)", "1000", "1,000", False),
    ],
)
def test_right(spec: str, answer: str, response: str, right: bool) -> None:
    g = grader(spec)
    assert g.right(g.read(response), (answer,)) is right
    assert g.right(g.read(response), ("another", answer)) is right
    assert not g.right(g.read(response, finished=False), (answer,))


@pytest.mark.parametrize("spec", ["exact", "last-number", "boxed", "regex:(.*)"])
def test_an_empty_response_is_never_right(spec: str) -> None:
    g = grader(spec)
    for answer in ("0", "None", "x"):
        assert not g.right(g.read(""), (answer,))


def test_grades_and_votes_of_rows() -> None:
    """Cut-off responses are wrong and have no vote; a prompt without answer has no grade."""
    prompts = [prompt("0.5", "7"), prompt()]
    texts = ["1/2", "so 0.50", "7", "0.5", None, "0.5"]
    finished = np.array([True, True, True, False, True, True])
    prompt_R = np.array([0, 0, 0, 0, 0, 1])
    g = grader("last-number")
    right_R = g.grades(texts, finished, prompts, prompt_R)
    np.testing.assert_array_equal(right_R, [1, 1, 1, 0, np.nan, np.nan])
    assert g.answers(texts, finished, prompt_R) == ["0.5", "0.5", "7", None, None, "0.5"]
    text = grader("text")
    assert text.answers(["A cat", "cat.", "dog"], [True] * 3, np.zeros(3, int)) == [
        "A cat", "A cat", "dog",
    ]  # fmt: skip


def test_answers_that_no_response_can_give() -> None:
    prompts = [prompt("7", line=1), prompt(line=2), prompt("seven", line=3)]
    EXACT.check(prompts)
    with pytest.raises(UserError, match=r"1 of .* \(line 3: 'seven'\)"):
        grader("last-number").check(prompts)
    grader("last-number").check([prompt("seven", "7")])
    with pytest.raises(UserError, match="and 4 more"):
        grader("last-number").check([prompt("seven")] * 9)


@pytest.mark.parametrize("spec", ["exact", "text", "last-number", "boxed"])
@pytest.mark.parametrize(
    "unit",
    ["1", "1,", "111,", "111,1", "-", "1/", "1e", ".", "1.", "\\boxed{", "{", "}", "\\", " ", "$-",
     "\\frac", "\\frac{", "^", "1^", "\\frac{1", "a "],
)  # fmt: skip
def test_hostile_text_takes_linear_time(spec: str, unit: str) -> None:
    text = (unit * 10_000)[:10_000]
    start = time.process_time()  # of this process: other jobs on the machine count for nothing
    for hostile in (text, text + "1", text + "x", "\\boxed{" + text):
        found = grader(spec).read(hostile)
        if found is not None:
            grader(spec).same(found, "1")
    assert time.process_time() - start < 1  # a quadratic reading takes tens of seconds
