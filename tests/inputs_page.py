"""docs/inputs.md from the tables that the tests run: ``python -m tests.inputs_page``."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path

from srlm.data import read_prompts
from srlm.errors import UserError
from srlm.grading import grader
from tests.inputs_cases import ANSWERS, CHATS, FILES, GRADERS, JUDGED, PAIRS, response

PAGE = Path(__file__).parents[1] / "docs" / "inputs.md"
BEFORE = r"""# Inputs

Made by `python -m tests.inputs_page` from the cases that the tests run; do not edit.

## Files

What a file is, its content says. It is read once, so that a pipe (`<(zcat a.gz)`) and `-`, the
standard input, will do. `--prompt-column` and `--answer-column` name the columns, nested ones with
a dot. The answer may be missing; of a list any is right.
"""
CHATTING = """
## Chats

Messages are handed to the tokenizer's chat template as below; `--chat never` leaves it out.
"""
ANSWERING = r"""
## Answers

`--answer` says how an answer is read out of a response. `auto` takes all letters for `choice`, all
yes or no for `yes-no`, all numbers for `last-number`, answers with signs of mathematics for
`math-verify`, others for `text`. `MODULE:FUNCTION` is your own: a function of a response and an
answer, or a `srlm.grading.Grader`. A response that the length limit cut off has no answer: it is
wrong, and it has no vote.
"""
JUDGING = """
## Judgements

What `--judge-pattern` finds by default; numbers are taken whole or not at all.
"""
PAIRED = """
## The same answer or not

{n} pairs in the formats of MATH (under `boxed`), GSM8K (`last-number`), AIME (`boxed`) and MMLU
(`choice`) whose verdict is known. srlm gives it on {ours}, math-verify 0.9 by itself (both sides as
`$...$`) on {theirs}; they agree on {agree}. Votes count an answer once however it is written; what
only math-verify's comparison with a reference finds equal (a percentage and its value, 0.333333 and
a third, one equation in two forms) is right or wrong alike but votes apart.

math-verify runs in a process of its own and has 2 seconds for a question; an answer that takes
longer, has over 400 characters or brackets over 50 deep is compared as text.

Where they differ:
"""


def page() -> str:
    """The page's text."""
    out = [BEFORE, "| file | |\n| --- | --- |"]
    for case in FILES:
        with tempfile.TemporaryDirectory() as name:
            path = case.write(Path(name))
            out.append(f"| {case.what} | {_outcome(path, dict(case.columns))} |")
    out += [CHATTING, "| prompt | |\n| --- | --- |"]
    for chat in CHATS:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "a.jsonl"
            path.write_text(json.dumps({"prompt": chat.given}))
            said = _outcome(path, {"answer_column": chat.answer_column})
            out.append(f"| {chat.what} | {said} |")
    out += [ANSWERING, "| `--answer` | response | answer | |\n| --- | --- | --- | --- |"]
    for a in ANSWERS:
        read = grader(a.grader).read(a.response)
        answer = "none" if read is None else _code(read)
        out.append(f"| `{a.grader}` | {_code(a.response)} | {answer} | {a.note} |")
    out += [JUDGING, "| judgement | score | |\n| --- | --- | --- |"]
    for said, score, note in JUDGED:
        out.append(f"| {_code(said)} | {'none' if score is None else f'{score:g}'} | {note} |")
    return "\n".join([*out, *_pairs()]) + "\n"


def _outcome(path: Path, columns: dict[str, str]) -> str:
    try:
        prompts = read_prompts(path, **columns)
    except UserError as error:
        said = error.problem.replace(str(path.parent) + "/", "").split("\n")
        return f"refused: {_plain(said[-1].strip() if len(said) > 1 else said[0])}"
    if isinstance(prompts[0].content, str) and len(prompts) > 1:
        return "accepted"
    answer = f", answer `{prompts[0].answers[0]}`" if prompts[0].answers else ""
    if isinstance(prompts[0].content, str):
        return "accepted, and no template is put around it again" + answer
    turns = ", ".join(m["role"] for m in prompts[0].content)
    return f"accepted: {turns}{answer}"


def _pairs() -> list[str]:
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)

    def theirs(reference: str, answer: str) -> bool:
        gold, said = (
            parse(f"${x.replace('####', '').strip()}$", parsing_timeout=None)
            for x in (reference, answer)
        )
        return bool(verify(gold, said, timeout_seconds=None))

    rows, right, they_right, agree = [], 0, 0, 0
    for form, reference, answer, verdict in PAIRS:
        g = grader(GRADERS[form])
        ours = g.right(g.read(response(form, answer)), (reference,))
        other, truth = theirs(reference, answer), verdict == "same"
        right, they_right, agree = right + (ours == truth), they_right + (other == truth), agree + (
            ours == other
        )  # fmt: skip
        if ours != other:
            word = {True: "same", False: "not"}
            rows.append(
                f"| {form} | {_code(reference)} | {_code(answer)} | {word[ours]} | {word[other]} |"
            )
    head = PAIRED.format(n=len(PAIRS), ours=right, theirs=they_right, agree=agree)
    table = "| format | reference | answer | srlm | math-verify |\n| --- | --- | --- | --- | --- |"
    return [head, table, *rows]


def _code(text: str) -> str:
    return "`" + text.replace("\n", "\\n").replace("|", "\\|") + "`"


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
