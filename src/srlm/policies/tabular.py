"""A policy that is a table: one logit per prompt and response. Exact; any policy is one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import log_softmax

from srlm.policies.listed import Listed, load_exact, save_exact, table_rows
from srlm.types import Floats, Ints, Prompt, Tokens


class Tabular(Listed):
    """pi(y_m|x) = softmax(theta[x])_m: log-linear with one indicator per prompt and response.

    A prompt's content is its row in the table.

    Args:
        theta: logits, [X, M] (or flat, [X*M]); minus infinity is a probability of zero.
        responses_M: responses as tokens; single labels 0..M-1 if left out.
        text_M: their texts; the labels' numbers if left out.

    >>> from srlm.policies.tabular import rows
    >>> Tabular(np.log([[0.5, 0.25, 0.25]])).log_table(rows(1)).round(3)
    array([[-0.693, -1.386, -1.386]])
    """

    def __init__(
        self,
        theta: Floats,
        responses_M: tuple[Tokens, ...] | None = None,
        text_M: tuple[str, ...] | None = None,
    ) -> None:
        M = len(responses_M) if responses_M is not None else np.asarray(theta).shape[-1]
        self.theta: Floats = np.asarray(theta, dtype=np.float64).reshape(-1)
        self.responses_M = responses_M or tuple((m,) for m in range(M))
        self.text_M = text_M or tuple(" ".join(map(str, t)) for t in self.responses_M)

    def log_table(self, prompts: Sequence[Prompt]) -> Floats:
        """log pi(y_m|x_p), [P, M]."""
        table_XM = self.theta.reshape(-1, len(self.responses_M))
        return np.asarray(log_softmax(table_XM[table_rows(prompts, len(table_XM))], axis=1))

    def features(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> Floats:
        """Indicators of the cells, [R, X*M]."""
        M = len(self.responses_M)
        column = self._column()
        phi_RD = np.zeros((len(tokens_R), len(self.theta)))
        row_P = table_rows(prompts, len(self.theta) // M)
        for r, (p, tokens) in enumerate(zip(prompt_R, tokens_R, strict=True)):
            phi_RD[r, row_P[p] * M + column[tokens]] = 1.0
        return phi_RD

    def with_theta(self, theta: Floats) -> Tabular:
        """The same responses at other logits."""
        return Tabular(theta, self.responses_M, self.text_M)

    def copy(self) -> Tabular:
        """An independent copy."""
        return self.with_theta(self.theta.copy())

    def save(self, folder: Path) -> None:
        """``config.json`` and ``model.safetensors``."""
        config = {"responses": self.responses_M, "texts": self.text_M}
        save_exact(folder, {"model_type": "srlm-tabular"} | config, {"theta": self.theta})


def load(folder: Path) -> Tabular:
    """Read what ``Tabular.save`` wrote."""
    config, tensors = load_exact(folder)
    responses_M = tuple(tuple(t) for t in config["responses"])
    return Tabular(tensors["theta"], responses_M, tuple(config["texts"]))


def rows(count: int) -> list[Prompt]:
    """Prompts 0..count-1 of a table."""
    return [Prompt(id=f"{x:016x}", content=x) for x in range(count)]
