from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srlm.data import SHOWN, prompt_id, read_prompts, split
from srlm.errors import UserError
from srlm.types import Prompt


def write(folder: Path, *lines: Any) -> Path:
    """A file of these lines: bytes and text as they are, anything else as JSON."""
    raw = [
        line
        if isinstance(line, bytes)
        else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    path = folder / "prompts.jsonl"
    path.write_bytes(b"\n".join(raw))
    return path


def refused(path: Path, **columns: str) -> str:
    with pytest.raises(UserError) as error:
        read_prompts(path, **columns)
    assert str(path) in error.value.problem
    assert error.value.remedy
    return error.value.problem


def test_reads_text_messages_and_answers(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Wie groß?"}]
    path = write(
        tmp_path,
        {"prompt": "1+1=", "answer": "2"},
        {"prompt": chat, "answer": 3},
        "",
        {"prompt": " 2+2=", "id": 7, "answer": None},
        {"prompt": "half", "answer": 0.5},
        {"prompt": "whole", "answer": 4.0},
        {"prompt": "huge", "answer": 10**400},
    )
    prompts = read_prompts(path)
    assert [p.content for p in prompts] == ["1+1=", chat, " 2+2=", "half", "whole", "huge"]
    assert [p.answers for p in prompts] == [("2",), ("3",), (), ("0.5",), ("4",), (str(10**400),)]
    assert [p.line for p in prompts] == [1, 2, 4, 5, 6, 7]
    assert [p.id for p in prompts] == [prompt_id(p.content) for p in prompts]


def test_reads_features_as_floats(tmp_path: Path) -> None:
    prompts = read_prompts(write(tmp_path, {"prompt": [1, 0.5]}, {"prompt": [0, -2]}))
    assert [p.content for p in prompts] == [[1.0, 0.5], [0.0, -2.0]]


def test_other_column_names(tmp_path: Path) -> None:
    path = write(tmp_path, {"question": "1+1=", "solution": "2", "prompt": "no"})
    (prompt,) = read_prompts(path, prompt_column="question", answer_column="solution")
    assert (prompt.content, prompt.answers) == ("1+1=", ("2",))


def test_tolerates_mark_carriage_returns_and_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path, b'\xef\xbb\xbf{"prompt": "a\xe2\x80\xa8b"}\r', b" \t\r", b"", b"")
    (prompt,) = read_prompts(path)
    assert prompt.content == "a\u2028b"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": "a"', "not JSON (expecting ',' delimiter at column 15)"),
        ("nonsense", "not JSON"),
        ("[" * 100_000, "nesting too deep"),
        ('{"prompt": "a", "answer": ' + "1" * 5000 + "}", "number too long"),
        ("[1, 2]", "not a JSON object but a list"),
        ("3", "not a JSON object but a number"),
        (b'{"prompt": "caf\xe9"}', "not UTF-8 (byte 0xe9 at byte 16)"),
        ({"question": "a", "id": 1}, "columns: question, id; is it --prompt-column question?"),
        ({"Prompt": "a"}, "is it --prompt-column Prompt?"),
        ({"foo": "a"}, "no column 'prompt' (columns: foo)"),
        ({}, "no column 'prompt' (columns: none)"),
        ({"prompt": " \n"}, "'prompt' is empty"),
        ({"prompt": []}, "'prompt' is empty"),
        ({"prompt": None}, "'prompt' is null"),
        ({"prompt": True}, "'prompt' is true or false"),
        ({"prompt": 3}, "'prompt' is a number"),
        ({"prompt": {"role": "user"}}, "'prompt' is an object"),
        ({"prompt": [1, "a"]}, "'prompt[1]' is text"),
        ({"prompt": [1, True]}, "'prompt[1]' is true or false"),
        ('{"prompt": [1, NaN]}', "'prompt[1]' is nan"),
        ({"prompt": [10**400]}, "too large"),
        ({"prompt": [{"role": "user"}]}, "'prompt[0].content' is missing"),
        ({"prompt": [{"role": "user", "content": [1]}]}, "'prompt[0].content[0]' is a number"),
        ({"prompt": [{"role": "user", "content": " "}]}, "'prompt[0].content' is empty"),
        ({"prompt": [{"role": 1, "content": "a"}]}, "'prompt[0].role' is a number"),
        ('{"prompt": "a\\ud800"}', "half a character"),
        ({"prompt": "a", "answer": {"value": "1"}}, "its columns: answer.value"),
        ({"prompt": "a", "answer": ["2", {}]}, "'answer[1]' is an object"),
        ({"prompt": "a", "answer": " "}, "'answer' is empty"),
        ('{"prompt": "a", "answer": Infinity}', "'answer' is inf"),
        ({"prompt": [1.0]}, "the prompt is 1 numbers, where line 1 has text"),
    ],
)
def test_bad_line_is_named_with_its_reason(tmp_path: Path, line: Any, reason: str) -> None:
    problem = refused(write(tmp_path, {"prompt": "good"}, line, {"prompt": "good too"}))
    assert "1 bad line\n" in problem
    assert "line 2: " in problem
    assert reason in problem


def test_all_bad_lines_are_named_in_order_and_the_printing_is_capped(tmp_path: Path) -> None:
    lines: list[Any] = [{"prompt": ""}, "nonsense", {"prompt": "good"}, b"\xff"]
    problem = refused(write(tmp_path, *lines))
    assert problem.count("\n") == 3
    assert [text.split(":")[0].strip() for text in problem.split("\n")[1:]] == [
        "line 1",
        "line 2",
        "line 4",
    ]
    problem = refused(write(tmp_path, *["nonsense"] * 4000, {"prompt": ""}))
    assert problem.count("\n") == 2
    assert "4,001 bad lines\n  line 1 and 3,999 more: not JSON" in problem
    problem = refused(write(tmp_path, *[{"prompt": [i, "a"]} for i in range(9)], b"\xff"))
    assert problem.count("\n") == 2
    problem = refused(write(tmp_path, *[{"prompt": "a", f"{i}": 1, "answer": {f"{i}": 1}} for i in
                                        range(SHOWN + 5)]))  # fmt: skip
    assert f"line {SHOWN}:" in problem
    assert f"line {SHOWN + 1}:" not in problem
    assert problem.endswith("and 5 more")


def test_repeated_prompts(tmp_path: Path) -> None:
    a, b = {"prompt": "a"}, {"prompt": "b", "answer": "1"}
    prompts = read_prompts(write(tmp_path, a, b, b, {"prompt": "a", "answer": "2"}, a))
    assert [(p.content, p.answers, p.line) for p in prompts] == [("a", ("2",), 1), ("b", ("1",), 2)]
    problem = refused(write(tmp_path, b, a, {"prompt": "b", "answer": "2"}))
    assert "line 3: the prompt of line 1 again, with another answer ('2', there '1')" in problem


@pytest.mark.parametrize("data", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_empty_file(tmp_path: Path, data: bytes) -> None:
    assert "the file is empty" in refused(write(tmp_path, data))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.jsonl")
    assert "without files of rows" in refused(tmp_path)
    assert "UTF-16" in refused(write(tmp_path, '{"prompt": "a"}'.encode("utf-16")))


def test_an_answer_column_that_no_line_has(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "a", "label": "1"})
    assert read_prompts(path)[0].answers == ()
    assert "columns: prompt, label" in refused(path, answer_column="gold")


def test_id_is_of_the_content_alone() -> None:
    assert prompt_id("a") != prompt_id("b")
    assert prompt_id([{"role": "user", "content": "a"}]) == prompt_id(
        [{"content": "a", "role": "user"}]
    )
    assert prompt_id((1, 2)) == prompt_id([1.0, 2.0])
    assert len(prompt_id("ß")) == 16


texts = st.lists(st.text(min_size=1), unique=True, min_size=1)


@given(texts, st.data())
def test_a_side_does_not_depend_on_the_others(names: list[str], data: st.DataObject) -> None:
    prompts = [Prompt(prompt_id(name), name) for name in names]
    other = data.draw(st.permutations(prompts))[: data.draw(st.integers(1, len(prompts)))]
    share = data.draw(st.floats(0, 0.999))

    def side(prompts: list[Prompt]) -> dict[str, bool] | None:
        try:
            train, held = split(prompts, share)
        except UserError:
            return None
        assert len(train) + len(held) == len(prompts)
        return {p.id: p in held for p in prompts}

    one, two = side(prompts), side(other)
    if one is not None and two is not None:
        assert two.items() <= one.items()


def test_split_keeps_the_share_and_the_order() -> None:
    prompts = [Prompt(prompt_id(f"{i}+{i}="), i) for i in range(10_000)]
    train, held = split(prompts, 0.1)
    assert abs(len(held) - 1000) < 3 * (10_000 * 0.1 * 0.9) ** 0.5
    assert [p.content for p in train] == sorted(p.content for p in train)
    assert [p.content for p in held] == sorted(p.content for p in held)
    assert set(held) <= set(split(prompts, 0.2)[1])
    assert split(prompts, 0.0) == (prompts, [])


def test_split_refuses_an_empty_side() -> None:
    prompts = [Prompt(prompt_id(str(i)), i) for i in range(3)]
    with pytest.raises(UserError, match="none of the 3 prompts is a held-out prompt"):
        split(prompts, 1e-9)
    with pytest.raises(UserError, match="none of the 3 prompts is a training prompt"):
        split(prompts, 1 - 1e-9)
