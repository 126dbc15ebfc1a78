"""Documents that judge: comparisons of two worked answers, and judgements of judgements.

A corpus with verdicts holds texts such as ``247+158=15,10,04=405?`` and the author's ``y`` or
``n``. With `Verdicts` some of these go further:

- a *comparison*, ``247+158=15,10,04=405?247+158=15,11,04=415?``: ``y`` says that the first answer
  is the better, ``n`` that the second is; of two answers that are alike either is said as often;
- a *judgement of a judgement*, ``y?247+158=15,10,04=405?``: ``y`` says that the verdict that stands
  first is right.

So a model of the corpus can be asked to judge, to compare and to judge its own judgements. All
three are answered with the letters of the verdicts, and each ends as a verdict's question does: so
small a model learns the three together, and learnt neither of the others where the prompt stood
once and the verdict last.
"""

from __future__ import annotations

from dataclasses import dataclass

YES, NO = "y", "n"


@dataclass(frozen=True)
class Verdicts:
    """How the documents that judge divide; every field is a probability.

    Attributes:
        compare: A document that judges compares two answers.
        compare_error: A comparison of a right and a wrong answer prefers the wrong one.
        meta: A document that judges judges a verdict.
        meta_error: A judgement of a verdict is the wrong one.
    """

    compare: float
    compare_error: float
    meta: float
    meta_error: float


def compare_prompt(prompt: str, first: str, second: str) -> str:
    """The prompt that asks which of two responses is better; ``y`` is the first.

    >>> compare_prompt("247+158=", "15,10,04=405", "15,11,04=415")
    '247+158=15,10,04=405?247+158=15,11,04=415?'
    """
    return f"{prompt}{first}?{prompt}{second}?"


def meta_prompt(question: str, verdict: str) -> str:
    """The prompt that asks whether a verdict on a response is right; ``y`` or ``n``.

    >>> meta_prompt("247+158=15,10,04=405?", "n")
    'n?247+158=15,10,04=405?'
    """
    return f"{verdict}?{question}"


def preference(first_right: bool, second_right: bool, *, errs: bool, coin: bool) -> str:
    """What an author says of two answers; the coin decides where both are alike.

    >>> preference(True, False, errs=False, coin=False), preference(True, True, errs=False, coin=0)
    ('y', 'n')
    """
    return _said(coin if first_right == second_right else first_right != errs)


def confirmation(verdict: str, right: bool, *, errs: bool) -> str:
    """What an author says of a verdict on an answer that is right or not.

    >>> confirmation("n", right=False, errs=False), confirmation("n", right=True, errs=False)
    ('y', 'n')
    """
    return _said(((verdict == YES) == right) != errs)


def further(
    kinds: Verdicts,
    prompt: str,
    answers: tuple[str, str],
    rights: tuple[bool, bool],
    chances: tuple[float, float, float],
) -> tuple[str, str] | None:
    """The prompt and response of a document that compares or judges a verdict; else None.

    The verdict that is judged is ``y`` or ``n`` with even chances: it says nothing by itself.

    Args:
        kinds: How often.
        prompt: What was asked.
        answers: Two worked answers; a judgement of a verdict is about the first.
        rights: Which of them are right.
        chances: Uniform on [0, 1): the kind, the error, the coin.
    """
    kind, error, toss = chances
    coin = toss < 0.5
    if kind < kinds.compare:
        errs = error < kinds.compare_error
        return compare_prompt(prompt, *answers), preference(*rights, errs=errs, coin=coin)
    if kind < kinds.compare + kinds.meta:
        verdict = _said(coin)
        errs = error < kinds.meta_error
        question = f"{prompt}{answers[0]}?"
        return meta_prompt(question, verdict), confirmation(verdict, rights[0], errs=errs)
    return None


def _said(yes: bool) -> str:
    return YES if yes else NO
