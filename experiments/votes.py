"""Many votes: answers of many samples per prompt, kept beside the bases, and what they say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from srlm.data import prompt_id
from srlm.engines.files import Sampled
from srlm.forecast.answers import Counts
from srlm.grading import Grader
from srlm.policies.load import load
from srlm.samples import in_parts
from srlm.types import Bools, Floats, Ints, Prompt

VOTES = 40


def votes(
    path: Path, model: str | Path, prompts: Sequence[Prompt], read: Grader, samples: int, seed: int,
    max_tokens: int = 24, rows: int = 4096,
) -> tuple[Ints, Bools]:  # fmt: skip
    """A number for each sample's answer (-1: none) and whether it is right, [P, K]; from ``path``
    where that exists."""
    if not path.exists():
        policy = load(str(model), device="cpu")
        drawn = in_parts(
            policy, prompts, samples, seed=seed, max_tokens=max_tokens, rows=rows,
            advance=lambda prompts: None,
        )  # fmt: skip
        answers_R = read.answers(drawn.text_R, drawn.finished_R, drawn.prompt_R)
        right_R = read.grades(drawn.text_R, drawn.finished_R, prompts, drawn.prompt_R) == 1
        np.savez_compressed(path, code=numbered(drawn.prompt_R.tolist(), answers_R), right=right_R)
    with np.load(path) as kept:
        return kept["code"].reshape(-1, samples), kept["right"].reshape(-1, samples)


def numbered(prompt_R: Sequence[int], answers: Sequence[str | None]) -> Ints:
    """A number for each answer of each prompt; -1 where there is none."""
    index: dict[tuple[int, str], int] = {}
    rows = zip(prompt_R, answers, strict=True)
    return np.array(
        [-1 if a is None else index.setdefault((p, a), len(index)) for p, a in rows], dtype=np.int64
    )


def counted(code_PK: Ints, right_PK: Bools) -> list[Counts]:
    """How often each answer was given; spellings that are all right count as one."""
    out = []
    for code_K, right_K in zip(code_PK, right_PK, strict=True):
        read_K = code_K >= 0
        wrong_A = np.unique(code_K[read_K & ~right_K], return_counts=True)[1]
        hits = int(right_K.sum())
        count_A = np.array(([hits] if hits else []) + wrong_A.tolist(), dtype=np.int64)
        out.append(Counts(count_A, 0 if hits else -1, int((~read_K).sum())))
    return out


def ends(counts: Sequence[Counts]) -> tuple[Floats, Floats]:
    """Of each prompt: 1 where the right answer is the commonest (a tie: 1/2), and the share of the
    commonest answer, [P]."""
    hits_P = np.array([c.hits for c in counts])
    rival_P = np.array(
        [max((n for a, n in enumerate(c.count_A) if a != c.right), default=0) for c in counts]
    )
    samples_P = np.array([c.samples for c in counts])
    right_P = (hits_P > rival_P) + 0.5 * (hits_P == rival_P)
    return right_P, np.maximum(hits_P, rival_P) / samples_P


class Given:
    """A source of samples for ``srlm.forecast.sampling.collect``: of each prompt the next ones of
    those that are there, whenever it is asked."""

    def __init__(self, code_PK: Ints, right_PK: Bools) -> None:
        names = (f"q{p}" for p in range(len(code_PK)))
        self.prompts = [Prompt(prompt_id(x), x, ("right",)) for x in names]
        self.said_PK = np.where(right_PK, -2, code_PK)
        self.asked = dict.fromkeys((x.id for x in self.prompts), 0)

    def __call__(self, some: Sequence[Prompt], count: int, look: int) -> Iterable[Sampled]:
        for x in some:
            first = self.asked[x.id]
            self.asked[x.id] += count
            for n, a in enumerate(self.said_PK[int(x.content[1:]), first : first + count]):
                text = f"unread {look} {n}" if a == -1 else "right" if a == -2 else f"wrong {a}"
                yield Sampled(x.id, None, None, text, finished=bool(a != -1))

    @property
    def mean(self) -> float:
        """Samples per prompt so far."""
        return sum(self.asked.values()) / len(self.asked)


def majority(code_PK: Ints, right_PK: Bools, k: int) -> float:
    """Accuracy of a majority of k of many samples, ties by lot: ``VOTES`` votes a prompt."""
    rng = np.random.default_rng(0)
    won = []
    for code_K, right_K in zip(code_PK, right_PK, strict=True):
        names, of_K = np.unique(np.where(right_K, -2, code_K), return_inverse=True)
        row_VK = rng.permuted(np.tile(np.arange(len(of_K)), (VOTES, 1)), axis=1)[:, :k]
        count_VA = np.array([np.bincount(of_K[row], minlength=len(names)) for row in row_VK])
        count_VA = count_VA[:, names != -1]
        top_VA = (count_VA == count_VA.max(1, keepdims=True)) & (count_VA > 0)
        hit_V = top_VA[:, names[names != -1] == -2].any(1)
        won.append(float((hit_V / np.maximum(top_VA.sum(1), 1)).mean()))
    return float(np.mean(won))
