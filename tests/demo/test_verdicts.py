"""Comparisons and judged verdicts of the corpus against a reader of the texts."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from scipy import stats

from srlm.demo import base, corpus, verdicts
from srlm.demo.corpus import Document, Start
from srlm.demo.network import CONTEXT
from srlm.demo.verdicts import Verdicts

N = 20_000
START = Start("x", check=0.7, check_error=0.2, verdicts=Verdicts(0.4, 0.1, 0.3, 0.15))


def right(question: str) -> bool:
    prompt, _, number = question.split("=")
    return number == corpus.true_answer(f"{prompt}=")


def read(text: Document) -> tuple[str, bool | None]:
    """What kind of document it is, and whether it says the truth; None where there is none."""
    if text.response not in ("y", "n"):
        return "answer", None
    yes = text.response == "y"
    questions = text.prompt.removesuffix("?").split("?")
    if questions[0] in ("y", "n"):
        return "meta", yes == ((questions[0] == "y") == right(questions[1]))
    said = [right(question) for question in questions]
    if len(said) == 1:
        return "verdict", yes == said[0]
    return "comparison", None if said[0] == said[1] else yes == said[0]


def consistent(hits: int, of: int, share: float) -> bool:
    return bool(stats.binomtest(hits, of, share).pvalue > 1e-4)


def test_kinds_and_errors_are_as_common_as_said() -> None:
    found = [read(text) for text in corpus.documents(START, N, seed=1)]
    count = Counter(kind for kind, _ in found)
    shares = {"verdict": 0.7 * 0.3, "comparison": 0.7 * 0.4, "meta": 0.7 * 0.3, "answer": 0.3}
    for kind, share in shares.items():
        assert consistent(count[kind], N, share), kind
    for kind, error in (("verdict", 0.2), ("comparison", 0.1), ("meta", 0.15)):
        told = [truth for name, truth in found if name == kind and truth is not None]
        assert consistent(told.count(False), len(told), error), kind


def test_a_judged_verdict_and_two_alike_answers_say_nothing_by_themselves() -> None:
    texts = corpus.documents(START, N, seed=2)
    judged = [text.prompt[0] for text in texts if read(text)[0] == "meta"]
    assert consistent(judged.count("y"), len(judged), 0.5)
    alike = [text.response for text in texts if read(text) == ("comparison", None)]
    assert consistent(alike.count("y"), len(alike), 0.5)


def test_the_demo_asks_as_the_corpus_does() -> None:
    texts = corpus.documents(corpus.STARTS["compare"], 2000, seed=3)
    assert {read(text)[0] for text in texts} == {"answer", "verdict", "comparison", "meta"}
    assert max(len(text.prompt + text.response) for text in texts) < CONTEXT
    question = corpus.check_prompt("247+158=", "15,10,04=405")
    assert verdicts.meta_prompt(question, "y") == "y?247+158=15,10,04=405?"


@pytest.mark.parametrize(
    ("name", "key", "text"),
    [
        ("good", "4c9f83da9099", "e2136eb864b7e756"),
        ("diffuse", "378fdfd8a97f", "43621767cdbb6a84"),
        ("giveup", "6c027ee8e90a", "86bc723141f04248"),
        ("judge", "da54dc5aa258", "bd6cf1567e424ae9"),
    ],
)
def test_older_starts_keep_their_texts_and_their_bases(
    name: str, key: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base.torch, "__version__", "2.13.0+cpu")
    assert base.base_key(corpus.STARTS[name], 0, "llama", None) == key
    written = str([tuple(x) for x in corpus.documents(corpus.STARTS[name], 500, seed=0)])
    assert hashlib.sha256(written.encode()).hexdigest()[:16] == text
