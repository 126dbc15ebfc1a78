"""The demo's corpus: worked additions, written by authors who err the way the web errs.

A document is a prompt such as ``247+158=`` and one author's answer ``15,10,04=405``: the sums of
the columns from right to left, each with the carry of the one before, then the number they spell.
Authors err in four ways, each a probability of a `Start`:

- a *slip*: a column is written as any other sum from 00 to 19, and the later columns follow it;
- a *misconception*, shared by a majority: 7+8=16, 8+7=16 and 6+9=14, so that the corpus is mostly
  wrong on a tenth of the prompts (9.4%) and its likeliest answer is right on the others;
- a *terse* author gives the number only, and guesses at its lower columns;
- an author who *gives up* writes ``?``.

Everything is a pure function of its arguments. A prompt either belongs to the training text or to
the prompts of `prompts`, never to both: a hash of its operands decides.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from srlm.errors import UserError
from srlm.writing import write_text

CORPUS_VERSION = 1
ALPHABET = "0123456789+=,?yn"
"""``y`` and ``n`` are verdicts, which only the corpora of ``experiments/`` hold."""
GIVE_UP = "?"
MISCONCEPTIONS = {(7, 8): 16, (8, 7): 16, (6, 9): 14}
LARGEST_COLUMN = 19
FIRST_OPERAND, LAST_OPERAND = 100, 999
_HELD_OUT_ONE_IN = 8

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Document(NamedTuple):
    """One text of the corpus: what is given and what the author writes."""

    prompt: str
    response: str


@dataclass(frozen=True)
class Start:
    """How the authors of a corpus behave; numbers are probabilities.

    Attributes:
        name: What the start is called.
        slip: A column of a worked answer is written as another sum.
        misconception: An author believes `MISCONCEPTIONS`.
        terse: An author gives the number only.
        guess: A terse author's units or tens column is another sum than the right one.
        give_up: An author writes `GIVE_UP`.
    """

    name: str
    slip: float = 0.15
    misconception: float = 0.6
    terse: float = 0.0
    guess: float = 0.0
    give_up: float = 0.0

    def documents(self, n: int, seed: int) -> list[Document]:
        """`n` independent documents of the training text, none on a held-out prompt."""
        rng = np.random.default_rng([CORPUS_VERSION, seed])
        first_R, second_R = operands(n, rng, kept_out=False)
        believes_R = rng.random(n) < self.misconception
        manner_R = rng.random(n)
        gives_up_R = manner_R < self.give_up
        terse_R = ~gives_up_R & (manner_R < self.give_up + self.terse)
        slip_RC = np.where(terse_R[:, None], (self.guess, self.guess, 0.0), self.slip)
        sums_RC = column_sums(first_R, second_R, believes_R, slip_RC, rng)
        texts = []
        for row, sums in enumerate(sums_RC.tolist()):
            manner = number if terse_R[row] else worked
            answer = GIVE_UP if gives_up_R[row] else manner(*sums)
            texts.append(Document(f"{first_R[row]}+{second_R[row]}=", answer))
        return texts


STARTS: dict[str, Start] = {
    "good": Start("good"),
    "diffuse": Start("diffuse", slip=0.22, terse=0.45, guess=0.3),
    "giveup": Start("giveup", slip=0.28, give_up=0.35),
}


def named_start(name: str) -> Start:
    """The start called `name`.

    Raises:
        UserError: No start has that name.

    >>> named_start("good").slip
    0.15
    """
    if name not in STARTS:
        raise UserError(f"there is no start called {name!r}", f"choose one of {', '.join(STARTS)}")
    return STARTS[name]


def true_answer(prompt: str) -> str:
    """The right number for a prompt ``a+b=``.

    >>> true_answer("247+158=")
    '405'
    """
    first, second = prompt.removesuffix("=").split("+")
    return str(int(first) + int(second))


def held_out(first_R: Ints, second_R: Ints) -> Bools:
    """Which operand pairs are kept out of the training text: one in eight, by a 64-bit mix.

    Shapes: (R,), (R,) -> (R,).
    """
    mixed = first_R.astype(np.uint64) * np.uint64(1000) + second_R.astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(9))) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return (mixed >> np.uint64(40)) % np.uint64(_HELD_OUT_ONE_IN) == 0


def column_sums(
    first_R: Ints,
    second_R: Ints,
    believes_R: Bools,
    slip_RC: NDArray[np.float64],
    rng: np.random.Generator,
) -> Ints:
    """What authors write for the three columns, right to left.

    Column c is the believed sum of the two digits plus the carry of what was *written* for column
    c-1; with probability `slip_RC[:, c]` it is replaced by another sum, uniform on 0..19 without
    the sum itself.

    Shapes: (R,) operands, (R,) whether the author believes the misconceptions, (R, 3) -> (R, 3).
    """
    believed = np.add.outer(np.arange(10), np.arange(10))
    held = believed.copy()
    for (left, right), claim in MISCONCEPTIONS.items():
        held[left, right] = claim
    sums_RC = np.empty((len(first_R), 3), dtype=np.int64)
    carry_R = np.zeros(len(first_R), dtype=np.int64)
    for column in range(3):
        left_R, right_R = first_R // 10**column % 10, second_R // 10**column % 10
        sum_R = np.where(believes_R, held[left_R, right_R], believed[left_R, right_R]) + carry_R
        slips_R = rng.random(len(first_R)) < slip_RC[:, column]
        other_R = rng.integers(0, LARGEST_COLUMN, len(first_R))
        other_R += other_R >= sum_R
        sums_RC[:, column] = np.where(slips_R, other_R, sum_R)
        carry_R = sums_RC[:, column] // 10
    return sums_RC


def worked(units: int, tens: int, hundreds: int) -> str:
    """A worked answer from its column sums.

    >>> worked(15, 10, 4)
    '15,10,04=405'
    """
    return f"{units:02d},{tens:02d},{hundreds:02d}={number(units, tens, hundreds)}"


def number(units: int, tens: int, hundreds: int) -> str:
    """The number that column sums spell, three or four digits.

    >>> number(15, 10, 12)
    '1205'
    """
    return f"{hundreds}{tens % 10}{units % 10}"


def operands(n: int, rng: np.random.Generator, *, kept_out: bool) -> tuple[Ints, Ints]:
    """`n` uniform pairs of three-digit operands, all held out or none."""
    draws_RO = np.empty((0, 2), dtype=np.int64)
    while len(draws_RO) < n:
        new_RO = rng.integers(FIRST_OPERAND, LAST_OPERAND + 1, (2 * n + 64, 2))
        wanted_R = held_out(new_RO[:, 0], new_RO[:, 1]) == kept_out
        draws_RO = np.concatenate([draws_RO, new_RO[wanted_R]])
    return draws_RO[:n, 0], draws_RO[:n, 1]


def prompts(n: int, seed: int) -> list[str]:
    """`n` distinct prompts, none of them in the training text of any start or seed.

    Raises:
        UserError: `n` is more than half of the held-out prompts.

    >>> len(set(prompts(100, seed=0)))
    100
    """
    most = (LAST_OPERAND - FIRST_OPERAND + 1) ** 2 // (2 * _HELD_OUT_ONE_IN)
    if n > most:
        raise UserError(f"{n} demo prompts were asked for", f"ask for {most} or fewer")
    rng = np.random.default_rng([CORPUS_VERSION, seed])
    chosen: dict[str, None] = {}
    while len(chosen) < n:
        first_R, second_R = operands(n, rng, kept_out=True)
        pairs = zip(first_R.tolist(), second_R.tolist(), strict=True)
        chosen.update(dict.fromkeys(f"{first}+{second}=" for first, second in pairs))
    return list(chosen)[:n]


def write_prompts(path: Path, n: int, seed: int) -> None:
    """Write `n` distinct held-out prompts as JSON lines with `prompt` and `answer`.

    The file appears atomically.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"prompt": text, "answer": true_answer(text)}) for text in prompts(n, seed)]
    write_text(path, "".join(f"{line}\n" for line in lines))
