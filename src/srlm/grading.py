"""Answers: what a response says, read out of its text, and whether it is right.

How to read is a spec, the ``--answer`` of the command line:

- ``exact``: the whole response, space around it left out, character for character.
- ``last-number``: the last number of the response.
- ``boxed``: what stands in the last ``\\boxed{...}``, braces nested.
- ``regex:PATTERN``: the last match of a Python pattern; its first group, if it has groups.

A response that cannot be read has no answer (None) and is never right. Except under ``exact``,
numbers are compared by value: ``1,000`` = ``1000`` = ``+1000.0`` = ``1e3``, ``2/4`` = ``1/2``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

from srlm.errors import UserError
from srlm.types import Prompt

Extractor = Callable[[str], str | None]

# Each repetition is bounded or is never tried anew after what follows it fails, so matching takes
# time linear in the text.
_NUMBER = re.compile(
    r"""
    (?: (?<![\w)\]}]) (?P<sign>[-+\u2212]) \\?\$? )?      # the minus of 7-3 is no sign
    (?<![0-9]) (?<![0-9]\.)                              # at the start of a run of digits
    (?: (?<![/,]) (?P<over>[0-9]{1,18}) [ ]?/[ ]? (?P<under>[0-9]{1,18}) (?![0-9/]|\.[0-9])
      | (?P<whole> [0-9]{1,3} (?:,[0-9]{3})+ (?![0-9]) | [0-9]+ | (?<![\w.]) (?=\.[0-9]) )
        (?P<part>\.[0-9]+)?
        (?:[eE] (?P<power>[-+]?[0-9]{1,3}) (?![0-9]))?
    )
    """,
    re.VERBOSE,
)
_PRICE = re.compile(r"\\?\$")


def extractor(spec: str) -> Extractor:
    """The function from a response's text to its answer, or to None where it cannot be read.

    >>> extractor("last-number")("so 7 - 3 = 4, and 4 * 250 = 1,000.")
    '1000'
    >>> extractor("boxed")(r"Thus \\boxed{\\frac{1}{2}}.")
    '\\\\frac{1}{2}'
    >>> extractor("regex:answer: (\\\\w+)")("answer: b, no, answer: c")
    'c'

    Raises:
        UserError: there is no such spec, or the pattern is no pattern.
    """
    builtin: dict[str, Extractor] = {"exact": _exact, "last-number": _last_number, "boxed": _boxed}
    if spec in builtin:
        return builtin[spec]
    kind, colon, pattern = spec.partition(":")
    if kind != "regex" or not colon or not pattern:
        raise UserError(
            f"answer: {spec!r} is no way to read answers",
            "give exact, last-number, boxed or regex:PATTERN",
        )
    try:
        return partial(_regex, re.compile(pattern))
    except re.error as error:
        raise UserError(
            f"answer: {pattern!r} is no regular expression: {error}", "correct the pattern"
        ) from None


def checker(spec: str) -> Callable[[str, Prompt], bool]:
    """The function that says whether a response's answer is the prompt's.

    The prompt's answer is read in the same way, so that it may be a worked solution; where that
    finds nothing (the answer to a boxed one is given bare), it is taken as it stands.

    The function raises ValueError for a prompt without an answer: it is neither right nor wrong.
    Raises UserError as ``extractor``.

    >>> right = checker("last-number")
    >>> right("It is 1,000.0!", Prompt(id="a", content="10 * 100?", answer="1000"))
    True
    """
    read = extractor(spec)
    key = lru_cache(maxsize=None)(partial(_key, spec))

    def right(response: str, prompt: Prompt) -> bool:
        if prompt.answer is None:
            raise ValueError(f"prompt {prompt.id} has no answer")
        answer = read(response)
        return answer is not None and answer == key(prompt.answer)

    return right


def require_answers(spec: str, prompts: Sequence[Prompt]) -> None:
    """See that each prompt's answer, where there is one, could be given under ``spec``.

    Raises:
        UserError: ``last-number``, and an answer has no number: no response could be right.
            Or as ``extractor``.
    """
    read = extractor(spec)
    if spec != "last-number":
        return
    bad = [p for p in prompts if p.answer is not None and read(p.answer) is None]
    if bad:
        some = "; ".join(f"line {p.line}: {p.answer!r}" for p in bad[:5])
        more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise UserError(
            f"answer {spec}: no number in {len(bad)} of the prompts' answers ({some}{more})",
            "give another way to read answers with --answer, or correct the answers",
        )


def _key(spec: str, answer: str) -> str | None:
    found = extractor(spec)(answer)
    return found if found is not None else _normal(answer)


def _exact(text: str) -> str | None:
    return text.strip() or None


def _last_number(text: str) -> str | None:
    last = None
    for last in _NUMBER.finditer(text):  # noqa: B007
        pass
    return None if last is None else _value(last)


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
                return _normal(text[start:place])
        place += 1
    return None


def _regex(pattern: re.Pattern[str], text: str) -> str | None:
    last = None
    for last in pattern.finditer(text):  # noqa: B007
        pass
    if last is None:
        return None
    found = next((group for group in last.groups() if group is not None), None)
    return _normal(last.group() if not last.groups() else found or "")


def _normal(text: str) -> str | None:
    """Space trimmed and collapsed; a number, also a price, as its value."""
    text = " ".join(text.split())
    number = _NUMBER.fullmatch(_PRICE.sub("", text).strip())
    return (_value(number) if number else None) or text or None


def _value(number: re.Match[str]) -> str | None:
    """One text for each value: no separators, no leading or trailing zeros, no plus, no -0.

    Works on the digits, so numbers of any length are exact.
    """
    sign = "-" if number["sign"] in ("-", "\u2212") else ""
    if number["under"]:
        over, under = int(number["over"]), int(number["under"])
        if under == 0:
            return None
        divisor = math.gcd(over, under)
        over, under = over // divisor, under // divisor
        digits = str(over) if under == 1 else f"{over}/{under}"
    else:
        whole = number["whole"].replace(",", "")
        part = (number["part"] or ".")[1:]
        power = int(number["power"] or 0)
        point = len(whole) + power
        run = (whole + part).ljust(point, "0").rjust(len(whole + part) - min(point, 0), "0")
        point = max(point, 0)
        whole, part = run[:point].lstrip("0") or "0", run[point:].rstrip("0")
        digits = f"{whole}.{part}" if part else whole
    return digits if digits == "0" else sign + digits
