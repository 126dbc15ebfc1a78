"""A random autoregressive policy whose every outcome can be listed: the truth for search."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from srlm.types import Floats, Ints, Tokens


class ToyTree:
    """P prompts, V tokens of which 0 ends, at most H tokens; logits are hashed from the prefix.

    ``scale`` sets how sure the policy is; ``zeros`` is the share of impossible tokens; ``end``
    is added to the logit of the end token.
    """

    def __init__(
        self,
        seed: int,
        P: int,
        V: int,
        H: int,
        scale: float = 2.0,
        zeros: float = 0.0,
        end: float = 0.0,
    ) -> None:
        self.seed, self.P, self.V, self.max_tokens = seed, P, V, H
        self.scale, self.zeros, self.end = scale, zeros, end
        self.ends = frozenset({0})
        self.prefixes: list[tuple[int, Tokens]] = []
        self.rows: dict[tuple[int, Tokens], Floats] = {}
        self.calls: list[int] = []

    def row(self, prompt: int, prefix: Tokens) -> Floats:
        """log pi(.|x, prefix), [V]."""
        key = (prompt, prefix)
        if key not in self.rows:
            rng = np.random.default_rng([self.seed, prompt, *prefix])
            logit = self.scale * rng.standard_normal(self.V)
            logit[0] += self.end
            gone = rng.random(self.V) < self.zeros
            gone[rng.integers(self.V)] = False
            logit[gone] = -np.inf
            self.rows[key] = logit - np.logaddexp.reduce(logit)
        return self.rows[key]

    def add(self, prompt: int, prefix: Tokens) -> int:
        self.prefixes.append((prompt, prefix))
        return len(self.prefixes) - 1

    def roots(self) -> tuple[Ints, torch.Tensor]:
        node_P = np.array([self.add(p, ()) for p in range(self.P)])
        return node_P, torch.tensor(np.array([self.row(p, ()) for p in range(self.P)]))

    def extend(self, node_B: Ints, token_B: Ints) -> tuple[Ints, torch.Tensor]:
        self.calls.append(len(node_B))
        new, rows = [], []
        for node, token in zip(node_B, token_B, strict=True):
            prompt, prefix = self.prefixes[node]
            assert int(token) not in self.ends
            assert len(prefix) + 1 < self.max_tokens
            longer = (*prefix, int(token))
            new.append(self.add(prompt, longer))
            rows.append(self.row(prompt, longer))
        return np.array(new), torch.tensor(np.array(rows))

    def outcomes(self, prompt: int) -> dict[Tokens, float]:
        """Every outcome with its log-probability, summed from the left as search does."""
        out: dict[Tokens, float] = {}
        for length in range(1, self.max_tokens + 1):
            for body in itertools.product(range(1, self.V), repeat=length - 1):
                for last in range(self.V):
                    if last == 0 or length == self.max_tokens:
                        tokens = (*body, last)
                        logp = 0.0
                        for t, token in enumerate(tokens):
                            logp += self.row(prompt, tokens[:t])[token]
                        out[tokens] = logp
        return out
