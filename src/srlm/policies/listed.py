"""What the exact policies share: a list of responses and a table of log-probabilities.

Abstract: ``Tabular`` and ``LinearSoftmax`` give ``log_table`` and the list of responses; all
that follows from those two is here, once, in float64.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from scipy.special import log_softmax, logsumexp

from srlm.errors import UserError
from srlm.policies.base import uniforms
from srlm.types import Floats, Ints, Prompt, Samples, Tokens


class Listed(ABC):
    """A policy over M responses that can be listed, the same list for every prompt.

    Args:
        responses_M: the responses as tokens, none a prefix of another.
        text_M: the same as a person reads them.
    """

    responses_M: tuple[Tokens, ...]
    text_M: tuple[str, ...]

    @abstractmethod
    def log_table(self, prompts: Sequence[Prompt]) -> Floats:
        """log pi(y_m|x_p), [P, M], float64, normalised."""

    def enumerate(self, prompts: Sequence[Prompt]) -> Samples:
        """Every response of every prompt once, with weight pi(y|x). O(P M)."""
        logp_PM = self.log_table(prompts)
        P, M = logp_PM.shape
        return self._samples(np.repeat(np.arange(P), M), np.tile(np.arange(M), P), logp_PM, None)

    def sample(
        self,
        prompts: Sequence[Prompt],
        samples: int,
        *,
        seed: int,
        max_tokens: int,
        advance: Callable[[float], None] = lambda prompts: None,
    ) -> Samples:
        """Independent samples by the inverse of the cumulative distribution. O(P (M + K log M))."""
        logp_PM = self.log_table(prompts)
        cumulative_PM = np.cumsum(np.exp(logp_PM), axis=1)
        choice_PK = np.stack(
            [
                np.searchsorted(c, uniforms(seed, x.id, samples, 1)[:, 0] * c[-1], side="right")
                for x, c in zip(prompts, cumulative_PM, strict=True)
            ]
        )
        advance(len(prompts))
        rows = np.repeat(np.arange(len(prompts)), samples)
        return self._samples(rows, choice_PK.ravel(), logp_PM, 1.0 / samples)

    def greedy(self, prompts: Sequence[Prompt], *, max_tokens: int) -> Samples:
        """Token by token, the likeliest; for single labels this is the mode."""
        logp_PM = self.log_table(prompts)
        choice_P = np.array([_greedy_path(self.responses_M, row) for row in logp_PM])
        return self._samples(np.arange(len(prompts)), choice_P, logp_PM, 1.0)

    def log_prob(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> Floats:
        """log pi(y_r|x_r), [R]."""
        column = self._column()
        return self.log_table(prompts)[prompt_R, [column[t] for t in tokens_R]]

    def along(
        self,
        prompts: Sequence[Prompt],
        prompt_R: Ints,
        tokens_R: Sequence[Tokens],
        read: Callable[[torch.Tensor], torch.Tensor],
    ) -> list[Floats]:
        """``read`` of the next-token log-probabilities at each position, [T_r, ...] a row.

        A token that continues no response has probability 0. O(M T) a row.
        """
        tree = self.tree(prompts, max_tokens=1)
        return [
            read(torch.from_numpy(tree.path(int(p), tokens))[None])[0].numpy()
            for p, tokens in zip(prompt_R, tokens_R, strict=True)
        ]

    def tree(self, prompts: Sequence[Prompt], *, max_tokens: int) -> ListedTree:
        """Next-token distributions by summing over the responses that share a prefix."""
        return ListedTree(self.responses_M, self.log_table(prompts))

    def text(self, tokens: Tokens) -> str:
        """The response's text."""
        return self.text_M[self._column()[tokens]]

    def _column(self) -> dict[Tokens, int]:
        return {tokens: m for m, tokens in enumerate(self.responses_M)}

    def _samples(
        self, prompt_R: Ints, choice_R: Ints, logp_PM: Floats, weight: float | None
    ) -> Samples:
        logp_R = logp_PM[prompt_R, choice_R]
        return Samples(
            prompt_R=prompt_R.astype(np.int64),
            tokens_R=tuple(self.responses_M[m] for m in choice_R),
            logp_R=logp_R,
            weight_R=np.exp(logp_R) if weight is None else np.full(len(logp_R), weight),
            finished_R=np.ones(len(logp_R), dtype=bool),
            text_R=tuple(self.text_M[m] for m in choice_R),
        )


def save_exact(folder: Path, config: dict[str, Any], tensors: dict[str, Floats]) -> None:
    """``config.json`` and ``model.safetensors`` in a new folder."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors")


def load_exact(folder: Path) -> tuple[dict[str, Any], dict[str, Floats]]:
    """What ``save_exact`` wrote."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config, load_file(folder / "model.safetensors")


class ListedTree:
    """The prefix tree of listed responses; satisfies ``srlm.policies.base.PrefixTree``."""

    def __init__(self, responses_M: tuple[Tokens, ...], logp_PM: Floats) -> None:
        self.ends = frozenset(t[-1] for t in responses_M)
        self.max_tokens = max(len(t) for t in responses_M)
        self._responses_M = responses_M
        self._logp_PM = logp_PM
        self._vocabulary = 1 + max(max(t) for t in responses_M)
        self._nodes: list[tuple[int, Tokens]] = []

    def roots(self) -> tuple[Ints, torch.Tensor]:
        """Nodes of the empty prefixes, [P], and log pi(first token|x), [P, V]."""
        return self._add([(p, ()) for p in range(len(self._logp_PM))])

    def extend(self, node_B: Ints, token_B: Ints) -> tuple[Ints, torch.Tensor]:
        """Children of nodes, [B], and their next-token log-probabilities, [B, V]."""
        parents = [self._nodes[n] for n in node_B]
        return self._add(
            [(p, (*prefix, int(t))) for (p, prefix), t in zip(parents, token_B, strict=True)]
        )

    def path(self, p: int, tokens: Tokens) -> Floats:
        """Next-token log-probabilities after each proper prefix of a response, [T, V]."""
        return np.stack([self._next(p, tokens[:t]) for t in range(len(tokens))])

    def _add(self, nodes: list[tuple[int, Tokens]]) -> tuple[Ints, torch.Tensor]:
        first = len(self._nodes)
        self._nodes += nodes
        logp_BV = np.stack([self._next(p, prefix) for p, prefix in nodes])
        return np.arange(first, len(self._nodes)), torch.from_numpy(logp_BV)

    def _next(self, p: int, prefix: Tokens) -> Floats:
        depth = len(prefix)
        below: dict[int, list[float]] = {}
        for tokens, logp in zip(self._responses_M, self._logp_PM[p], strict=True):
            if tokens[:depth] == prefix:
                below.setdefault(tokens[depth], []).append(logp)
        logp_V = np.full(self._vocabulary, -np.inf)
        for token, logps in below.items():
            logp_V[token] = logsumexp(logps)
        return np.asarray(log_softmax(logp_V))


def table_rows(prompts: Sequence[Prompt], X: int) -> list[int]:
    """Row of each prompt in a table of X rows: its content, a whole number (or text of one).

    Raises:
        UserError: the content is none, or lies outside the table.
    """
    bad = [x for x in prompts if not str(x.content).isdecimal() or int(x.content) >= X]
    if bad:
        lines = ", ".join(str(x.line or x.id) for x in bad[:5])
        raise UserError(
            f"{len(bad)} prompts are no rows of the policy's table (lines {lines})",
            f'write each as a whole number from 0 to {X - 1}, as in {{"prompt": "0"}}',
        )
    return [int(x.content) for x in prompts]


def _greedy_path(responses_M: tuple[Tokens, ...], logp_M: Floats) -> int:
    """Column of the response that greedy decoding returns."""
    alive = np.arange(len(responses_M))
    depth = 0
    while len(alive) > 1:
        mass: dict[int, float] = {}
        for m in alive:
            token = responses_M[m][depth]
            mass[token] = mass.get(token, 0.0) + float(np.exp(logp_M[m]))
        best = max(mass, key=lambda token: (mass[token], -token))
        alive = np.array([m for m in alive if responses_M[m][depth] == best])
        depth += 1
    return int(alive[0])
