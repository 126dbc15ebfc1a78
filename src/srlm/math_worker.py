r"""A process of its own that reads and compares mathematics with math-verify.

``srlm.grading`` talks to it in JSON, a line a question, and ends it where an answer takes too long:
sympy cannot be interrupted otherwise (``9^{9^9}`` is computed in one call of C). It imports nothing
of srlm. Questions: ``{"read": text}``, ``{"key": answer}``, ``{"gold": answer, "answer": answer}``.
"""

from __future__ import annotations

import json
import logging
import sys
from functools import lru_cache
from typing import Any

MEMORY = 2 << 30
"""Bytes that a computation may take, where the system can be told."""


@lru_cache(maxsize=4096)
def parsed(answer: str) -> Any:
    """What math-verify makes of an answer: [expression, text], [text] or []."""
    from math_verify import parse

    return parse(f"${answer}$", parsing_timeout=None)


def read(text: str) -> str | None:
    """What math-verify takes for the answer in a text."""
    from math_verify import parse

    found = parse(text, parsing_timeout=None)
    return str(found[-1]) if found else None


def verified(gold: str, answer: str) -> bool:
    """math-verify's verdict."""
    from math_verify import verify

    return bool(verify(parsed(gold), parsed(answer), timeout_seconds=None))


def key(answer: str) -> str | None:
    """One text for expressions that are equal: structure, and values at one fixed point.

    Two expressions that differ agree there with probability about 1e-12.
    """
    found = parsed(answer)
    return None if not found or isinstance(found[0], str) else _key(found[0])


def _key(x: Any) -> str:
    import sympy

    if isinstance(x, sympy.MatrixBase):
        return f"matrix {x.shape} " + " ".join(_key(e) for e in x.flat())
    if isinstance(x, sympy.Interval):
        ends = f"{_key(x.start)} {_key(x.end)}"
        return f"interval {bool(x.left_open)} {bool(x.right_open)} {ends}"
    if isinstance(x, sympy.FiniteSet | sympy.Union):
        return f"set {sorted(_key(e) for e in x.args)}"
    if isinstance(x, sympy.Eq):
        return f"equal {sorted(_key(e) for e in x.args)}"
    if isinstance(x, sympy.Expr):
        point = {s: sympy.Float(_coordinate(s.name), 30) for s in x.free_symbols}
        value = x.doit().subs(point).evalf(20)
        if value.is_number and value.is_finite:
            real, imaginary = (complex(value).real, complex(value).imag)
            return f"{real:.12g}" if abs(imaginary) < 1e-12 else f"{real:.12g} {imaginary:.12g}i"
        return f"expression {sympy.srepr(value)}"
    return f"{type(x).__name__} " + " ".join(_key(e) for e in getattr(x, "args", ()))


def _coordinate(name: str) -> str:
    """A fixed number in (0.5, 1.5) with 25 digits, from the symbol's name."""
    digits = str(int.from_bytes(name.encode() * 11, "big"))
    return str(0.5 + int(digits[:17].ljust(17, "7")) / 10**17) + digits[-9:]


def answered(question: dict[str, str]) -> Any:
    """The answer to one question; None where the mathematics is unparseable."""
    try:
        if "read" in question:
            return read(question["read"])
        if "key" in question:
            return key(question["key"])
        return verified(question["gold"], question["answer"])
    except (ArithmeticError, AttributeError, LookupError, MemoryError, NotImplementedError,
            RecursionError, TypeError, ValueError):  # fmt: skip
        return None  # sympy has no class of its own for what it cannot do


def main() -> None:
    """Answer until the input ends."""
    logging.disable(logging.CRITICAL)
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    import math_verify  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answered(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
