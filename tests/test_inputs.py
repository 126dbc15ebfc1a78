"""Every case of ``inputs_cases``, and readers and graders on arbitrary input."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srlm.config import JudgeSettings, score_values
from srlm.data import answers_note, prompts_of, read_prompts
from srlm.errors import UserError
from srlm.grading import NAMED, grader, picked
from srlm.rewards.judge import score_reader
from srlm.rows import open_source
from srlm.types import Prompt
from tests import inputs_page
from tests.inputs_cases import (
    ANSWERS,
    CHATS,
    FILES,
    GRADERS,
    JUDGED,
    PAIRS,
    ROWS,
    Answer,
    Chat,
    File,
    response,
)  # fmt: skip

_PLACE = tempfile.TemporaryDirectory()


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.what)
def test_files(case: File, tmp_path: Path) -> None:
    path = case.write(tmp_path)
    if case.refused:
        with pytest.raises(UserError) as error:
            read_prompts(path, **dict(case.columns))
        assert case.refused in error.value.problem
        assert str(path) in error.value.problem
        assert error.value.problem.count("\n") <= 6
        return
    prompts = read_prompts(path, **dict(case.columns))
    assert len(prompts) == len(ROWS)
    assert [p.line for p in prompts] == sorted({p.line for p in prompts})
    text = [x.content if isinstance(x.content, str) else x.content[0]["content"] for x in prompts]
    assert text == ["1+1=", "2+2="]
    assert prompts[1].answers == ("4",)


def test_standard_input_and_pipes_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join(json.dumps(x).encode() + b"\n" for x in ROWS)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    source = open_source("-")
    assert len(prompts_of(source)) == len(prompts_of(source)) == 2
    assert source.files[0][1] == data


def test_a_place_in_a_folder_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "1"}\n\n')
    (tmp_path / "b.jsonl").write_text('\n{"prompt": ""}\n')
    with pytest.raises(UserError, match=r"b\.jsonl line 2"):
        read_prompts(tmp_path)


@pytest.mark.parametrize("case", CHATS, ids=lambda case: case.what)
def test_chats(case: Chat, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": case.given}) + "\n")
    if case.refused:
        with pytest.raises(UserError) as error:
            read_prompts(path, answer_column=case.answer_column)
        assert case.refused in error.value.problem
        return
    (prompt,) = read_prompts(path, answer_column=case.answer_column)
    assert prompt.content == case.content
    assert prompt.answers == case.answers


@pytest.mark.parametrize("case", ANSWERS, ids=lambda case: f"{case.grader}: {case.response}")
def test_answers(case: Answer) -> None:
    assert grader(case.grader).read(case.response) == case.answer
    assert grader(case.grader).read(case.response, finished=False) is None


@pytest.mark.parametrize(("said", "score", "_"), JUDGED)
def test_judgements(said: str, score: float | None, _: str) -> None:
    settings = JudgeSettings()
    read = score_reader(settings.pattern, score_values(settings.scores))(said)
    assert read == score if score is not None else np.isnan(read)


@pytest.mark.parametrize(("form", "reference", "answer", "verdict"), PAIRS)
def test_pairs(form: str, reference: str, answer: str, verdict: str) -> None:
    g = grader(GRADERS[form])
    assert g.right(g.read(response(form, answer)), (reference,)) is (verdict == "same")


def test_votes_count_what_is_equal() -> None:
    texts = [rf"\boxed{{{x}}}" for x in (r"\frac{1}{2}", "0.5", r"(x+1)^2", r"x^2+2x+1", "1/3")]
    found = grader("boxed").answers(texts, [True] * 5, [0] * 5)  # type: ignore[arg-type]
    assert [found.index(x) for x in found] == [0, 0, 2, 2, 4]


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        (["A", "(B)", "C."], "choice"),
        (["yes", "No"], "yes-no"),
        (["true", "false"], "yes-no"),
        (["72", "1,000", "#### 5", "1/2", "12 cm"], "last-number"),
        (["72", r"\frac{1}{2}", "x^2"], "math-verify"),
        (["(1, 2)", "3"], "math-verify"),
        (["Paris", "the Nile"], "text"),
        ([], "exact"),
    ],
)
def test_auto_goes_by_all_the_answers(answers: list[str], name: str) -> None:
    prompts = [Prompt("a", "?", (x,)) for x in answers] or [Prompt("a", "?")]
    assert picked(prompts) == name
    assert grader("auto", prompts).name == name


def test_a_grader_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_grader.py").write_text(
        "from srlm.grading import Grader\n"
        "def ends(response, answer):\n    return response.endswith(answer)\n"
        "LAST = Grader('last', lambda text: text[-1:], str)\nNOTHING = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    own = grader("my_grader:ends")
    assert own.right(own.read("it is 7"), ("8", "7"))
    assert not own.right(own.read("it is 7"), ("8",))
    assert grader("my_grader:LAST").read("it is 7") == "7"
    for spec in ("my_grader:none", "my_grader:NOTHING", "no_such_module_here:f"):
        with pytest.raises(UserError):
            grader(spec)


@pytest.mark.parametrize("answer", ["{" * 10_000 + "1" + "}" * 10_000, "(" * 3000, "x+" * 5000])
def test_long_answers_are_compared_as_text(answer: str) -> None:
    start = time.process_time()
    assert not grader("boxed").right(answer, ("7",))
    assert time.process_time() - start < 1


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["9^9^9^9", r"10^{10^{10}}", "100000!!!", r"(x+1)^{100000}"])
def test_answers_that_take_too_long_are_given_up(answer: str) -> None:
    start = time.perf_counter()
    assert not grader("boxed").right(answer, ("7",))
    assert time.perf_counter() - start < 20  # 2 s a question; most is starting the process anew
    assert grader("boxed").right(r"\sqrt{8}", (r"2\sqrt{2}",))


def test_that_answers_are_missing_is_said() -> None:
    some = [Prompt("a", "?", ("1",)), Prompt("b", "?")]
    assert answers_note(some[:1]) == ""
    assert answers_note(some).startswith("1 of 2 prompts")
    assert answers_note(some[1:]).startswith("no prompt")


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_readers_raise_nothing_but_user_errors(data: bytes) -> None:
    path = Path(_PLACE.name) / "a"
    for given_ in (data, gzip.compress(data), b"PAR1" + data, b"ARROW1" + data,
                   b"\xff\xff\xff\xff" + data):  # fmt: skip
        path.write_bytes(given_)
        for name in ("prompt", "a"):
            with contextlib.suppress(UserError):
                read_prompts(path, prompt_column=name)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(
        st.sampled_from(["role", "content", "from", "value", "type", "text", "tool_calls"]), x,
        max_size=3,
    ),
    max_leaves=8,
)  # fmt: skip


@given(json_values, json_values)
def test_any_json_is_a_prompt_or_refused(prompt: object, answer: object) -> None:
    path = Path(_PLACE.name) / "a.jsonl"
    path.write_text(json.dumps({"prompt": prompt, "answer": answer}))
    for column in ("answer", "prompt"):
        with contextlib.suppress(UserError):
            read_prompts(path, answer_column=column)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60) | st.text("0123456789.,-/\\{}()[]^_$% abfrcx=", max_size=30))
def test_graders_raise_nothing(text: str) -> None:
    for g in NAMED.values():
        found = g.read(text)
        g.right(found, (text, rf"\boxed{{{text}}}"))
        assert found is None or g.right(found, (found,)) or g.reference
        g.answers([text, text], [True, False], [0, 0])  # type: ignore[arg-type]


def test_the_page_is_up_to_date() -> None:
    """Where it fails: ``python -m tests.inputs_page``."""
    assert inputs_page.PAGE.read_text(encoding="utf-8") == inputs_page.page()
