r"""Answers: what a response says, read out of its text, and whether two answers are the same.

The one place where responses are read, compared, voted on and graded. A ``Grader`` is made by
name, the ``--answer`` of the command line:

- ``exact``: the whole response, space around it left out, character for character.
- ``text``: the whole response; case, articles and punctuation at its ends left out.
- ``last-number``: the last number of the response, by value.
- ``boxed``: what stands in the last ``\boxed{...}``, braces nested.
- ``regex:PATTERN``: the last match of a Python pattern; its first group, if it has groups.

A response that was cut off by the length limit has no answer, and neither has one that cannot be
read: it is never right and has no vote. Except under ``exact``, numbers are compared by value:
``1,000`` = ``1000`` = ``+1000.0`` = ``1e3``, ``2/4`` = ``1/2`` = ``0.5``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np

from srlm.errors import UserError
from srlm.types import Bools, Floats, Ints, Prompt

Find = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Grader:
    """How answers are read, compared and judged.

    >>> g = grader("last-number")
    >>> g.read("so 7 - 3 = 4, and 4 * 250 = 1,000."), g.read("so 4 * 250 = 1,0", finished=False)
    ('1000', None)
    >>> g.same("1/2", "0.50"), g.right("1000", ("#### 1,000",))
    (True, True)
    """

    name: str
    """What ``grader`` makes it of."""
    find: Find
    """The answer in a response's text, None where there is none."""
    normal: Callable[[str], str]
    """The normal form of an answer: answers with one normal form are the same."""
    must_find: bool = False
    """Whether a reference in which ``find`` finds nothing can never be given."""

    def read(self, text: str | None, finished: bool = True) -> str | None:
        """The answer of a response; None where it cannot be read, was cut off, or is missing."""
        return self.find(text) if finished and text is not None else None

    def same(self, one: str, other: str) -> bool:
        """Whether two answers are the same."""
        return self.normal(one) == self.normal(other)

    def right(self, answer: str | None, references: Sequence[str]) -> bool:
        """Whether an answer is the same as any of the references.

        A reference is read as a response is, so that it may be a worked solution, also one that
        ends in GSM8K's ``#### 72``; where nothing is found it is taken as it stands.
        """
        if answer is None:
            return False
        return any(self.same(answer, known) for known in map(self._known, references))

    def classes(self, answers: Sequence[str | None]) -> list[str | None]:
        """Each answer in the first spelling of its class: equal strings are the same answer.

        O(n) for n answers.
        """
        first: dict[str, str] = {}
        return [x if x is None else first.setdefault(self.normal(x), x) for x in answers]

    def answers(
        self, text_R: Sequence[str | None], finished_R: Bools | Sequence[bool], prompt_R: Ints
    ) -> list[str | None]:
        """The answer of each row, [R]; two rows of a prompt are equal where they are the same.

        A text is read once.
        """
        table: dict[str, str | None] = {}
        found_R: list[str | None] = []
        for text, finished in zip(text_R, finished_R, strict=True):
            if text is None or not finished:
                found_R.append(None)
                continue
            if text not in table:
                table[text] = self.find(text)
            found_R.append(table[text])
        out_R: list[str | None] = [None] * len(found_R)
        rows_P: dict[int, list[int]] = {}
        for r, p in enumerate(np.asarray(prompt_R).tolist()):
            if found_R[r] is not None:
                rows_P.setdefault(p, []).append(r)
        for rows in rows_P.values():
            for r, answer in zip(rows, self.classes([found_R[r] for r in rows]), strict=True):
                out_R[r] = answer
        return out_R

    def grades(
        self,
        text_R: Sequence[str | None],
        finished_R: Bools | Sequence[bool],
        prompts: Sequence[Prompt],
        prompt_R: Ints | None = None,
    ) -> Floats:
        """1 right, 0 wrong, [R]; not-a-number where the prompt has no answer, or no response.

        Args:
            text_R: responses; None where there is none.
            finished_R: False where the length limit cut one off: it is wrong.
            prompts: with their answers.
            prompt_R: the prompt of each row; left out: row r is of prompt r.
        """
        out_R = np.full(len(text_R), np.nan)
        table: dict[tuple[int, str], float] = {}
        place_R = range(len(text_R)) if prompt_R is None else np.asarray(prompt_R).tolist()
        for r, (text, finished, p) in enumerate(zip(text_R, finished_R, place_R, strict=True)):
            if not prompts[p].answers or text is None:
                continue
            if not finished:
                out_R[r] = 0.0
                continue
            if (p, text) not in table:
                table[p, text] = float(self.right(self.find(text), prompts[p].answers))
            out_R[r] = table[p, text]
        return out_R

    def check(self, prompts: Sequence[Prompt]) -> None:
        """See that each prompt's answers could be given.

        Raises:
            UserError: prompts without one that could be.
        """
        if not self.must_find:
            return
        bad = [
            x for x in prompts if x.answers and all(self.find(_end(a)) is None for a in x.answers)
        ]
        if bad:
            some = "; ".join(f"line {x.line}: {' or '.join(map(repr, x.answers))}" for x in bad[:5])
            more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
            raise UserError(
                f"--answer {self.name}: {len(bad)} of the prompts' answers cannot be read so "
                f"({some}{more})",
                "give another way to read answers with --answer, or correct the answers",
            )

    def _known(self, reference: str) -> str:
        return self.find(_end(reference)) or _end(reference).strip()


def grader(spec: str) -> Grader:
    """The grader of a name; see the module.

    Raises:
        UserError: there is no such grader, or the pattern is no pattern.
    """
    if spec in NAMED:
        return NAMED[spec]
    kind, colon, pattern = spec.partition(":")
    if kind != "regex" or not colon or not pattern:
        raise UserError(
            f"--answer {spec!r}: there is no such way to read answers",
            f"give {', '.join(NAMED)} or regex:PATTERN",
        )
    try:
        return Grader(spec, partial(_matched, re.compile(pattern)), _plain)
    except re.error as error:
        raise UserError(
            f"--answer: {pattern!r} is no regular expression: {error}", "correct the pattern"
        ) from None


# ---- numbers

# Each repetition is bounded or is never tried anew after what follows it fails, so matching takes
# time linear in the text.
_NUMBER = re.compile(
    r"""
    (?: (?<![\w)\]}]) (?P<sign>[-+]) \\?\$? )?           # the minus of 7-3 is no sign
    (?<![0-9^_]) (?<![0-9]\.) (?<!\^[{-])                # at the start of a run of digits
    (?: (?<![/,]) (?P<over>[0-9]{1,18}) [ ]?/[ ]? (?P<under>[0-9]{1,18}) (?![0-9/]|\.[0-9])
      | (?P<whole> [0-9]{1,3} (?:,[0-9]{3})+ (?![0-9]) | [0-9]+ | (?<![\w.]) (?=\.[0-9]) )
        (?P<part>\.[0-9]+)?
        (?:[eE] (?P<power>[-+]?[0-9]{1,3}) (?![0-9]))?
    )
    """,
    re.VERBOSE,
)
_PRICE = re.compile(r"\\?\$")
_THOUSANDS = re.compile(r"(?<=[0-9])(?:\\[,!;:]|\{,\}|[\u2009\u202f])(?=[0-9]{3}(?![0-9]))")
_MINUS = str.maketrans({"\u2212": "-", "\u2013": "-", "\ufe63": "-", "\uff0d": "-"})
_FRACTION = re.compile(
    r"\\[dtc]?frac *(?:\{ *([-+]?[0-9]{1,18}) *\} *\{ *([0-9]{1,18}) *\}|([0-9]) *([0-9]))"
)


def _digits(text: str) -> str:
    """LaTeX's separators of thousands, minuses and fractions of numbers as plain text has them."""
    text = _THOUSANDS.sub(",", text.translate(_MINUS))
    return _FRACTION.sub(lambda f: f"{f[1] or f[3]}/{f[2] or f[4]}", text)


def _last_number(text: str) -> str | None:
    last = None
    for last in _NUMBER.finditer(_digits(text)):  # noqa: B007
        pass
    return None if last is None else _value(last)


def _value(number: re.Match[str]) -> str | None:
    """One text for each value: a decimal where it ends, else a fraction in lowest terms."""
    sign = -1 if number["sign"] == "-" else 1
    if number["under"]:
        over, under = int(number["over"]), int(number["under"])
        return None if under == 0 else _spelled(Fraction(sign * over, under))
    whole = (number["whole"] or "").replace(",", "")
    part = (number["part"] or ".")[1:]
    power = int(number["power"] or 0)
    # Works on the digits, so numbers of any length are exact.
    point = len(whole) + power
    run = (whole + part).ljust(point, "0").rjust(len(whole + part) - min(point, 0), "0")
    point = max(point, 0)
    whole, part = run[:point].lstrip("0") or "0", run[point:].rstrip("0")
    digits = f"{whole}.{part}" if part else whole
    return digits if digits == "0" or sign > 0 else f"-{digits}"


def _spelled(value: Fraction) -> str:
    under, twos, fives = value.denominator, 0, 0
    while under % 2 == 0:
        under, twos = under // 2, twos + 1
    while under % 5 == 0:
        under, fives = under // 5, fives + 1
    if under > 1:
        return str(value)
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return f"-{text}" if value < 0 else text


def same_value(one: str, other: str) -> bool:
    """Whether two answers are one text or one number: ``1,000`` is ``1000.0``."""
    return _plain(one) == _plain(other)


# ---- text


def _end(reference: str) -> str:
    """What comes after the last ``####`` of a worked solution, if there is one."""
    return reference.rpartition("####")[2] if "####" in reference else reference


def _whole(text: str) -> str | None:
    return text.strip() or None


def _boxed(text: str) -> str | None:
    r"""What stands in the last \boxed{...}; None if it is not closed."""
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    start += len(r"\boxed{")
    depth, place = 1, start
    while place < len(text):
        character = text[place]
        if character == "\\":
            place += 1
        elif character in "{}":
            depth += 1 if character == "{" else -1
            if depth == 0:
                return " ".join(text[start:place].split()) or None
        place += 1
    return None


def _matched(pattern: re.Pattern[str], text: str) -> str | None:
    last = None
    for last in pattern.finditer(text):  # noqa: B007
        pass
    if last is None:
        return None
    found = next((group for group in last.groups() if group is not None), None)
    said = last.group() if not last.groups() else found or ""
    return " ".join(said.split()) or None


def _plain(answer: str) -> str:
    """Space trimmed and collapsed; a number, also a price, as its value."""
    text = " ".join(_digits(answer).split())
    number = _NUMBER.fullmatch(_PRICE.sub("", text).strip())
    return (_value(number) if number else None) or text


_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def _folded(answer: str) -> str:
    words = _ARTICLE.sub(" ", answer.casefold()).split()
    return _plain(" ".join(words).strip(" .,;:!?\"'")) or answer


NAMED = {
    g.name: g
    for g in (
        Grader("exact", _whole, str.strip),
        Grader("text", _whole, _folded),
        Grader("last-number", _last_number, _plain, must_find=True),
        Grader("boxed", _boxed, _plain),
    )
}
EXACT = NAMED["exact"]
