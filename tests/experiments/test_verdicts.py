"""Comparisons and judged verdicts of the corpus against a reader of the texts."""

from __future__ import annotations

from collections import Counter

from scipy import stats

from experiments import verdicts
from experiments.corpora import CORPORA, Judging, check_prompt
from experiments.verdicts import Verdicts
from srlm.demo import corpus
from srlm.demo.corpus import Document
from srlm.demo.network import CONTEXT

N = 20_000
CORPUS = Judging("x", 0.7, 0.2, Verdicts(0.4, 0.1, 0.3, 0.15))


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
    found = [read(text) for text in CORPUS.documents(N, seed=1)]
    count = Counter(kind for kind, _ in found)
    shares = {"verdict": 0.7 * 0.3, "comparison": 0.7 * 0.4, "meta": 0.7 * 0.3, "answer": 0.3}
    for kind, share in shares.items():
        assert consistent(count[kind], N, share), kind
    for kind, error in (("verdict", 0.2), ("comparison", 0.1), ("meta", 0.15)):
        told = [truth for name, truth in found if name == kind and truth is not None]
        assert consistent(told.count(False), len(told), error), kind


def test_a_judged_verdict_and_two_alike_answers_say_nothing_by_themselves() -> None:
    texts = CORPUS.documents(N, seed=2)
    judged = [text.prompt[0] for text in texts if read(text)[0] == "meta"]
    assert consistent(judged.count("y"), len(judged), 0.5)
    alike = [text.response for text in texts if read(text) == ("comparison", None)]
    assert consistent(alike.count("y"), len(alike), 0.5)


def test_rewards_ask_as_the_corpus_does() -> None:
    texts = CORPORA["compare"][0].documents(2000, seed=3)
    assert {read(text)[0] for text in texts} == {"answer", "verdict", "comparison", "meta"}
    assert max(len(text.prompt + text.response) for text in texts) < CONTEXT
    question = check_prompt("247+158=", "15,10,04=405")
    assert verdicts.meta_prompt(question, "y") == "y?247+158=15,10,04=405?"
