r"""Answers: what a response says, read out of its text, and whether two answers are the same.

The one place where responses are read, compared, voted on and graded. A ``Grader`` is made by
name, the ``--answer`` of the command line:

- ``auto``: one of those below, by what the prompts' answers look like.
- ``exact``: the whole response, space around it left out, character for character.
- ``text``: the whole response; case, articles and punctuation at its ends left out.
- ``last-number``: the last number, by value; that of the last ``\boxed{...}`` if it has one.
- ``boxed``: what stands in the last ``\boxed{...}``, braces nested; compared as mathematics.
- ``math-verify``: the same where there is a box; otherwise what math-verify takes for the answer.
- ``choice``: a letter A to J. A reference may be an index, from 0.
- ``yes-no``: yes or no, true or false.
- ``regex:PATTERN``: the last match of a Python pattern; its first group, if it has groups.
- ``MODULE:FUNCTION``: your own: a function of a response and an answer that says whether it is
  right, or a ``Grader``.

A response that was cut off by the length limit has no answer, and neither has one that cannot be
read: it is never right and has no vote. Except under ``exact``, numbers are compared by value:
``1,000`` = ``1000`` = ``+1000.0`` = ``1e3``, ``2/4`` = ``1/2`` = ``0.5``; units, degrees, and
``x =`` in front make no difference. A percent sign is a unit too: 50% is 50, and it is also right
where the reference is 0.5.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

import numpy as np

from srlm import math_answers
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
    """Whether a reference in which nothing is found can never be given."""
    reference: Find | None = None
    """The answer in a reference; None: as ``find``."""
    also: Callable[[str, str], bool] | None = None
    """Whether an answer is right for a reference with another normal form."""

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
        known = [self._known(x) for x in references]
        return any(self.same(answer, x) for x in known) or (
            self.also is not None and any(self.also(answer, x) for x in known)
        )

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
            x
            for x in prompts
            if x.answers and all(self._find_reference(a) is None for a in x.answers)
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
        return self._find_reference(reference) or _end(reference).strip()

    def _find_reference(self, reference: str) -> str | None:
        return (self.reference or self.find)(_end(reference))


def grader(spec: str, prompts: Sequence[Prompt] = ()) -> Grader:
    """The grader of a name; see the module.

    Args:
        spec: the name.
        prompts: with the answers that ``auto`` looks at.

    Raises:
        UserError: there is no such grader, the pattern is no pattern, or the module or function
            cannot be imported.
    """
    spec = picked(prompts) if spec == "auto" else spec
    if spec in NAMED:
        return NAMED[spec]
    kind, colon, rest = spec.partition(":")
    if not colon or not kind or not rest:
        raise UserError(
            f"--answer {spec!r}: there is no such way to read answers",
            f"give auto, {', '.join(NAMED)}, regex:PATTERN or MODULE:FUNCTION",
        )
    if kind != "regex":
        return _imported(spec, kind, rest)
    try:
        return Grader(spec, partial(_matched, re.compile(rest)), _plain, also=_also_percent)
    except re.error as error:
        raise UserError(
            f"--answer: {rest!r} is no regular expression: {error}", "correct the pattern"
        ) from None


def is_imported(spec: str) -> bool:
    """Whether a grader's name is that of a function in a module, which is run when it is used.

    >>> is_imported("os:system"), is_imported("regex:a"), is_imported("boxed")
    (True, False, False)
    """
    return spec not in NAMED and not spec.startswith("regex:")


def picked(prompts: Sequence[Prompt]) -> str:
    """The name that ``auto`` stands for: by all the answers, read as references are.

    All letters: choice; all yes or no: yes-no; all numbers: last-number; any of the signs of
    mathematics (a backslash, a power, an equation, a tuple): math-verify; else text; without any
    answers, exact.
    """
    answers = [_end(a).strip() for x in prompts for a in x.answers]
    if not answers:
        return "exact"
    for name, like in _LIKE.items():
        if all(like(a) for a in answers):
            return name
    return "math-verify" if any(map(_MATHEMATICS.search, answers)) else "text"


def _imported(spec: str, module: str, name: str) -> Grader:
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"--answer {spec}: cannot be imported: {error}",
            "give MODULE:FUNCTION of a module in this folder or on PYTHONPATH",
        ) from None
    finally:
        sys.path.pop(0)
    if isinstance(found, Grader):
        return replace(found, name=spec)
    if not callable(found):
        raise UserError(f"--answer {spec}: not a function", "name a function or a srlm Grader")
    return Grader(
        spec, _whole, str.strip, reference=_whole, also=lambda a, known: bool(found(a, known))
    )


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
_THOUSANDS = re.compile(r"(?<=[0-9])(?:,?\\[,!;:] ?|\{,\}|[\u2009\u202f])(?=[0-9]{3}(?![0-9]))")
_MINUS = str.maketrans({"\u2212": "-", "\u2013": "-", "\ufe63": "-", "\uff0d": "-"})
_FRACTION = re.compile(
    r"\\[dtc]?frac *(?:\{ *([-+]?[0-9]{1,18}) *\} *\{ *([0-9]{1,18}) *\}|([0-9]) *([0-9]))"
)
_AND_A_HALF = re.compile(r"(?<![0-9/.,^_])([0-9]{1,9}) ([0-9]{1,3})/([0-9]{1,3})(?![0-9/]|\.[0-9])")


def _digits(text: str) -> str:
    """LaTeX's separators of thousands, minuses and fractions of numbers as plain text has them."""
    text = _THOUSANDS.sub(",", text.translate(_MINUS))
    text = _FRACTION.sub(lambda f: f" {f[1] or f[3]}/{f[2] or f[4]}".removeprefix(_gap(f)), text)
    return _AND_A_HALF.sub(_improper, text)


def _gap(fraction: re.Match[str]) -> str:
    """The space that is not needed: a fraction after a digit is the rest of a mixed number."""
    before = fraction.string[max(0, fraction.start() - 1) : fraction.start()]
    return "" if before.isdigit() else " "


def _improper(mixed: re.Match[str]) -> str:
    whole, over, under = int(mixed[1]), int(mixed[2]), int(mixed[3])
    return f"{whole * under + over}/{under}" if over < under else mixed[0]


def _last_number(text: str) -> str | None:
    box = _boxed(text)
    return (_last(box) if box else None) or _last(text)


def _last(text: str) -> str | None:
    plain, last = _digits(text), None
    for last in _NUMBER.finditer(plain):  # noqa: B007
        pass
    if last is None or (value := _value(last)) is None:
        return None
    return f"{value}%" if re.compile(r" ?\\?%").match(plain, last.end()) else value


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


# ---- mathematics

_UNIT = (
    r"(?:\\(?:text|textrm|mathrm|mbox|operatorname|textbf)\{[^{}]{0,40}\}|[A-Za-z][A-Za-z/]{0,20})"
    r"(?:\^\{?-?[0-9]{1,2}\}?)?"
)
_WITH_UNIT = re.compile(
    rf"(?P<value>[-+]?[0-9.,/]{{1,60}}|[-+]?\\frac\{{[^{{}}]{{1,40}}\}}\{{[^{{}}]{{1,40}}\}})"
    rf"(?:[ ~]?{_UNIT}){{1,4}}"
)
_NOTATION = (
    (re.compile(r"\\(?:left|right|displaystyle|bigl?|bigr|Bigl?|Bigr)(?![A-Za-z])"), ""),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac *([0-9]) *([0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\^ *(?:\\circ|\{ *\\circ *\})|\\degree(?![A-Za-z])|°"), ""),
    (re.compile(r"(?<!\\)\\[,;:! ]|~"), " "),
    (re.compile(r"\\(?:cdot|times)(?![A-Za-z]) *10 *\^ *\{?(-?[0-9]{1,3})\}?"), r"e\1"),
    (re.compile(r"\\\$|\\?%|\\(?:euro|pounds)(?![A-Za-z])|[£€]|\$(?=[0-9.])"), ""),
)
_WORDS = re.compile(r"\\(?:text|textrm|textbf|mathrm|mbox|textit)\{([^{}]{0,200})\}")
_NAMED = re.compile(r"[A-Za-z](?:_\{?[A-Za-z0-9]{1,5}\}?)? ?(?:=|\\in(?![A-Za-z])) ?(?=\S)")
_MIXED = re.compile(r"([-+]?)([0-9]{1,18}) ?(?: |\\frac\{)([0-9]{1,18})(?:/|\}\{)([0-9]{1,18})\}?")
_PERCENT = re.compile(r"\\?%|\b[Pp]er ?cent\b")


def _tidied(answer: str) -> str:
    """An answer in one notation: delimiters, units, degrees, percent and ``x =`` left out."""
    text = " ".join(answer.split()).strip()
    for opened, closed in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        if text.startswith(opened) and text.endswith(closed) and len(text) > len(opened + closed):
            text = text[len(opened) : -len(closed)]
    text = _THOUSANDS.sub(",", text.translate(_MINUS).strip().removesuffix(".").rstrip())
    for pattern, put in _NOTATION:
        text = pattern.sub(put, text)
    text = " ".join(text.split())
    if text.count("=") <= 1 and not _RELATION.search(text):
        text = _NAMED.sub("", text, count=1) if _NAMED.match(text) else text
    if with_unit := _WITH_UNIT.fullmatch(text):
        text = with_unit["value"]
    text = re.sub(r"(?<=[0-9]) e(?=-?[0-9])", "e", text)
    return " ".join(_WORDS.sub(r"\1", text).split())


_RELATION = re.compile(r"[<>,]|\\[lg]eq?(?![A-Za-z])|\\(?:or|and)|\bor\b|\band\b")


def _number(text: str) -> str | None:
    """A tidied answer that is a number: one text for its value."""
    if mixed := _MIXED.fullmatch(text):
        whole, over, under = (int(mixed[i]) for i in (2, 3, 4))
        value = Fraction(whole * under + over, under) if under else None
        return None if value is None else _spelled(-value if mixed[1] == "-" else value)
    found = _NUMBER.fullmatch(_digits(text).replace("{", "").replace("}", ""))
    return _value(found) if found else None


def _plain(answer: str) -> str:
    """The normal form of what may be a number: its value, else the tidied text."""
    text = _tidied(answer)
    return _number(text) or text or answer


def _mathematics(answer: str) -> str:
    """The normal form of mathematics: numbers by value, words by letters, else ``math_answers``."""
    text = _tidied(answer)
    if number := _number(text):
        return number
    if _is_words(text):
        return _folded(text)
    return math_answers.key(text) or text or answer


def _is_words(text: str) -> bool:
    return bool(re.fullmatch(r"[^\W\d_](?:[^\W\d_]|[ .'-]){3,}", text))


def _also_mathematics(answer: str, known: str) -> bool:
    one, other = _tidied(answer), _tidied(known)
    if _number(one) is not None and _number(other) is not None:
        return _also_percent(answer, known) or _rounded(_number(one), _number(other))
    if _is_words(one) or _is_words(other):
        return False
    return math_answers.verified(other, one)


def _rounded(one: str | None, other: str | None) -> bool:
    """Whether two numbers agree to six decimals and one of them, no whole number, has as many."""
    if one is None or other is None or "/" not in one + other:
        return False
    places = max(len(x.partition(".")[2]) for x in (one, other))
    return places >= 6 and abs(Fraction(one) - Fraction(other)) <= Fraction(1, 2 * 10**6)


def _also_percent(answer: str, known: str) -> bool:
    """Whether one of two numbers is a percentage and the other its value: 50% and 0.5."""
    marked = [bool(_PERCENT.search(x)) for x in (answer, known)]
    one, other = _number(_tidied(answer)), _number(_tidied(known))
    if marked[0] == marked[1] or one is None or other is None:
        return False
    percent, value = (one, other) if marked[0] else (other, one)
    return Fraction(percent) == 100 * Fraction(value)


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
    r"""What stands in the last \boxed{...} or \fbox{...}, or after \boxed; None if not closed."""
    last = None
    for last in _BOX.finditer(text):  # noqa: B007
        pass
    if last is None:
        return None
    if last[1] is not None:
        return last[1]
    depth, start = 1, last.end()
    place = start
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


_BOX = re.compile(r"\\f?boxed?(?:\s?\{|\s([0-9]{1,30}(?:\.[0-9]{1,30})?))")


def _math(text: str) -> str | None:
    return _boxed(text) if _BOX.search(text) else math_answers.read(text)


def _matched(pattern: re.Pattern[str], text: str) -> str | None:
    last = None
    for last in pattern.finditer(text):  # noqa: B007
        pass
    if last is None:
        return None
    found = next((group for group in last.groups() if group is not None), None)
    said = last.group() if not last.groups() else found or ""
    return " ".join(said.split()) or None


_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def _folded(answer: str) -> str:
    words = _ARTICLE.sub(" ", answer.casefold()).split()
    return _plain(" ".join(words).strip(" .,;:!?\"'*")) or answer


_SAID = re.compile(
    r"(?i:\banswer|\bchoice|\boption)(?i:\s+is|\s+would\s+be)?\s?[:=]?[\s*_($\\{]{0,12}"
    r"(?i:text(?:bf)?\{[\s(]?)?(?P<letter>[A-Ja-j])(?![A-Za-z'’])(?! [a-z]{2})"
)
_BRACKETED = re.compile(r"\(([A-Ja-j])\)")
_ALONE = re.compile(r"(?<![A-Za-z0-9'’\\^_])([B-HJ]|[AI](?! [a-z]))(?![A-Za-z0-9'’^_])")
_LETTER = re.compile(r"\W*(?:(?:text|textbf|mathrm)\{\W*)?([A-Ja-j])(?:[).:}\s].*|\W*)", re.DOTALL)


def _choice(text: str) -> str | None:
    """The letter in the last box; else after "answer is"; else the last in brackets or alone."""
    if (box := _boxed(text)) is not None:
        inside = _LETTER.fullmatch(box)
        return inside[1].upper() if inside else None
    for pattern in (_SAID, _BRACKETED, _ALONE):
        if found := pattern.findall(text):
            return str(found[-1]).upper()
    lone = re.fullmatch(r"\W{0,9}([a-j])\W{0,9}", text)
    return lone[1].upper() if lone else None


def _choice_reference(answer: str) -> str | None:
    """A letter, with the option's text or without, or its index from 0."""
    answer = answer.strip()
    if re.fullmatch(r"[0-9]", answer):
        return chr(ord("A") + int(answer))
    found = _LETTER.fullmatch(answer)
    return found[1].upper() if found else None


_YES = re.compile(r"\b(yes|no|true|false)\b", re.IGNORECASE)
_SAID_YES = re.compile(
    r"\banswer(?:\s+is)?\s?[:=]?[\s*_($\\{]{0,12}(?:text\{)?(yes|no|true|false)\b", re.IGNORECASE
)


def _yes_no(text: str) -> str | None:
    """The word in the last box; else after "answer is"; else the first word; else the last one."""
    text = _boxed(text) or text
    if said := _SAID_YES.findall(text):
        word = said[-1]
    elif first := re.match(r"\W*(yes|no|true|false)\b", text, re.IGNORECASE):
        word = first[1]
    elif found := _YES.findall(text):
        word = found[-1]
    else:
        return None
    return "yes" if word.casefold() in ("yes", "true") else "no"


_MATHEMATICS = re.compile(r"[\\^=|]|[0-9a-z]\s?[-+*/]\s?[0-9a-z]|[\[(].*,.*[\])]")
_LIKE: dict[str, Callable[[str], object]] = {
    "choice": re.compile(r"\(?[A-J]\)?[.:]?").fullmatch,
    "yes-no": re.compile(r"(?:yes|no|true|false)\.?", re.IGNORECASE).fullmatch,
    "last-number": lambda a: _number(_tidied(a)) is not None,
}

NAMED = {
    g.name: g
    for g in (
        Grader("exact", _whole, str.strip),
        Grader("text", _whole, _folded),
        Grader("last-number", _last_number, _plain, must_find=True, also=_also_percent),
        Grader("boxed", _boxed, _mathematics, also=_also_mathematics),
        Grader("math-verify", _math, _mathematics, also=_also_mathematics),
        Grader("choice", _choice, str.upper, must_find=True, reference=_choice_reference),
        Grader("yes-no", _yes_no, str.casefold, must_find=True),
    )
}
EXACT = NAMED["exact"]
