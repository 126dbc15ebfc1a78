from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srlm.errors import UserError
from srlm.grading import checker, extractor, require_answers
from srlm.types import Prompt


def prompt(answer: str | None, line: int = 1) -> Prompt:
    return Prompt(id="ab", content="?", answer=answer, line=line)


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
        ("-0.0", "0"),
        ("007", "7"),
        ("-$1,234.50", "-1234.5"),
        ("50%", "50"),
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
        ("is 2/4.", "1/2"),
        ("10 / 2 = 5", "5"),
        ("4/2", "2"),
        ("-3/6", "-1/2"),
        ("3/4/2020", "2020"),
        ("1/0", None),
        ("none", None),
        ("", None),
        ("½", None),
    ],
)
def test_last_number(text: str, answer: str | None) -> None:
    assert extractor("last-number")(text) == answer


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6))
def test_numbers_keep_their_value(number: object) -> None:
    for text in (f"{number}", f"{number:+,}", f"so {number:,}."):
        read = extractor("last-number")(text)
        assert read is not None
        assert Fraction(read) == Fraction(str(number))


@given(st.text("0123456789+-.,/eE $x)=", max_size=40))
def test_equal_readings_are_equal_values(text: str) -> None:
    read = extractor("last-number")(text)
    if read is not None:
        assert extractor("last-number")(read) == read
        Fraction(read)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}", "5"),
        (r"\boxed{1,000.0}", "1000"),
        (r"\boxed{ x  + 1 }", "x + 1"),
        (r"\boxed{\$5}", "5"),
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
    assert extractor("boxed")(text) == answer


def test_exact_is_exact() -> None:
    assert extractor("exact")(" 1,000\n") == "1,000"
    assert extractor("exact")(" \n") is None


def test_regex() -> None:
    assert extractor("regex:[a-d]")("a, no: c") == "c"
    assert extractor("regex:Answer: (.*)|=(.*)")("=1\n=1,000") == "1000"
    assert extractor("regex:a:b")("a:b") == "a:b"
    assert extractor("regex:(x)?y")("y") is None
    assert extractor("regex:z")("y") is None


@pytest.mark.parametrize("spec", ["", "best", "regex", "regex:", "regex:(", "exact:1", "Boxed"])
def test_bad_spec(spec: str) -> None:
    with pytest.raises(UserError, match=r"answer: .*Remedy"):
        extractor(spec)


@pytest.mark.parametrize(
    ("spec", "answer", "response", "right"),
    [
        ("exact", "405", " 405 ", True),
        ("exact", "405", "405.0", False),
        ("last-number", "1000", "It is 1,000.00!", True),
        ("last-number", "5 * 200 = 1000\n#### 1,000", "1000", True),
        ("last-number", "1000", "It is 999", False),
        ("last-number", "1000", "no idea", False),
        ("last-number", "no idea", "no idea", False),
        ("last-number", "2", "1/2", False),
        ("boxed", r"\frac{1}{2}", r"\boxed{\frac{1}{2}}", True),
        ("boxed", r"thus \boxed{7}", r"\boxed{7.0}", True),
        ("boxed", "7", "7", False),
        ("boxed", "7", r"\boxed{7", False),
        ("regex:=(.*)", "1000", "20*50=1,000", True),
        ("regex:=(.*)", "1000", "1,000", False),
    ],
)
def test_checker(spec: str, answer: str, response: str, right: bool) -> None:
    assert checker(spec)(response, prompt(answer)) is right


@pytest.mark.parametrize("spec", ["exact", "last-number", "boxed", "regex:(.*)"])
def test_an_empty_response_is_never_right(spec: str) -> None:
    for answer in ("0", "None", "x"):
        assert not checker(spec)("", prompt(answer))


def test_a_prompt_without_answer_is_neither_right_nor_wrong() -> None:
    with pytest.raises(ValueError, match="has no answer"):
        checker("exact")("a", prompt(None))


def test_answers_that_no_response_can_give() -> None:
    prompts = [prompt("7", 1), prompt(None, 2), prompt("seven", 3)]
    require_answers("exact", prompts)
    with pytest.raises(UserError, match=r"no number in 1 of .* \(line 3: 'seven'\)"):
        require_answers("last-number", prompts)
    with pytest.raises(UserError, match="and 4 more"):
        require_answers("last-number", [prompt("seven")] * 9)


@pytest.mark.parametrize("spec", ["exact", "last-number", "boxed"])
@pytest.mark.parametrize(
    "unit",
    ["1", "1,", "111,", "111,1", "-", "1/", "1e", ".", "1.", "\\boxed{", "{", "}", "\\", " ", "$-"],
)
def test_hostile_text_takes_linear_time(spec: str, unit: str) -> None:
    text = (unit * 10_000)[:10_000]
    start = time.perf_counter()
    for hostile in (text, text + "1", text + "x", "\\boxed{" + text):
        extractor(spec)(hostile)
    assert time.perf_counter() - start < 0.5
