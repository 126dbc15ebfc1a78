"""Errors that a user can mend: what is wrong, where, and the remedy."""

from __future__ import annotations


class UserError(Exception):
    """Something outside the program is wrong and the user can put it right.

    Args:
        problem: what is wrong, naming the thing and the place.
        remedy: what to do about it.

    The command line prints both and exits with code 2, without a traceback.

    >>> str(UserError("prompts.jsonl: line 3 has no 'prompt'", "add it"))
    "prompts.jsonl: line 3 has no 'prompt'. Remedy: add it"
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem.rstrip('.')}. Remedy: {self.remedy}"


def first_line(error: BaseException) -> str:
    """What an error of a library says, in a line; one that ends in a colon goes on in the next.

    >>> first_line(ValueError("not loaded:\\n  no weights\\nat 0x12")), first_line(KeyError())
    ('not loaded: no weights', 'KeyError')
    """
    lines = [x.strip() for x in str(error).splitlines() if x.strip()] or [type(error).__name__]
    return (" ".join(lines[:2]) if lines[0].endswith(":") else lines[0])[:300]


def quoted(text: str, most: int = 40) -> str:
    """A text of the user's or a model's within a sentence: in quotes, cut to ``most`` characters.

    >>> quoted("no"), quoted("a long answer", 6)
    ("'no'", "'a long...'")
    """
    return repr(text if len(text) <= most else f"{text[:most]}...")
