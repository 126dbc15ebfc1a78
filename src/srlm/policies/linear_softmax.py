"""Linear softmax policies ([SR] Def. 6.1): exact probabilities, float64, exact updates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax

from srlm.errors import UserError
from srlm.policies.listed import Listed, load_exact, save_exact, table_rows
from srlm.types import Floats, Ints, Prompt, Tokens


class LinearSoftmax(Listed):
    """pi_theta(y|x) proportional to exp <theta, phi(x, y)> ([SR] Def. 6.1, section 6).

    Two feature maps:

    * classes (``phi_XMD`` left out): the prompt is a vector v of d numbers and
      phi(x, y) = e_y (x) v / scale, D = M d, so theta is a weight matrix [M, d] laid flat;
    * a table (``phi_XMD`` given): the prompt is a row of it, phi(x, y_m) = phi_XMD[x, m].

    Args:
        theta: parameters, [D].
        text_M: names of the M responses.
        phi_XMD: feature table, or None for classes.
        scale: divides the vectors of the class features, so that |phi| <= 1.
        radius: R, the ball |theta| <= R that updates are projected onto; None for no ball.

    >>> policy = LinearSoftmax(np.array([0.0, np.log(3.0)]), ("no", "yes"))
    >>> policy.log_table([Prompt(id="0", content=[1.0])]).round(3)
    array([[-1.386, -0.288]])
    """

    def __init__(
        self,
        theta: Floats,
        text_M: tuple[str, ...],
        *,
        phi_XMD: Floats | None = None,
        scale: float = 1.0,
        radius: float | None = None,
    ) -> None:
        self.theta: Floats = np.asarray(theta, dtype=np.float64)
        self.text_M = text_M
        self.responses_M = tuple((m,) for m in range(len(text_M)))
        self.phi_XMD = phi_XMD
        self.scale = scale
        self.radius = radius

    def log_table(self, prompts: Sequence[Prompt]) -> Floats:
        """log pi(y_m|x_p), [P, M]. O(P M D) for a table, O(P M d) for classes."""
        if self.phi_XMD is not None:
            logits_PM = self.phi_XMD[table_rows(prompts, len(self.phi_XMD))] @ self.theta
        else:
            logits_PM = self._vectors(prompts) @ self.theta.reshape(len(self.text_M), -1).T
        return np.asarray(log_softmax(logits_PM, axis=1))

    def features(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> Floats:
        """phi(x, y), [R, D]."""
        m_R = np.array([t[0] for t in tokens_R])
        if self.phi_XMD is not None:
            row_P = np.array(table_rows(prompts, len(self.phi_XMD)))
            return np.asarray(self.phi_XMD[row_P[prompt_R], m_R])
        vector_RD = self._vectors(prompts)[prompt_R]
        R, d = vector_RD.shape
        phi_RMD = np.zeros((R, len(self.text_M), d))
        phi_RMD[np.arange(R), m_R] = vector_RD
        return phi_RMD.reshape(R, -1)

    def with_theta(self, theta: Floats) -> LinearSoftmax:
        """The same features at other parameters, projected onto the ball of radius R."""
        norm = float(np.linalg.norm(theta))
        if self.radius is not None and norm > self.radius:
            theta = theta * (self.radius / norm)
        return LinearSoftmax(
            theta, self.text_M, phi_XMD=self.phi_XMD, scale=self.scale, radius=self.radius
        )

    def copy(self) -> LinearSoftmax:
        """An independent copy."""
        return self.with_theta(self.theta.copy())

    def save(self, folder: Path) -> None:
        """``config.json`` and ``model.safetensors``."""
        config = {"texts": self.text_M, "scale": self.scale, "radius": self.radius}
        tensors = {"theta": self.theta}
        if self.phi_XMD is not None:
            tensors["phi"] = np.ascontiguousarray(self.phi_XMD)
        save_exact(folder, {"model_type": "srlm-linear-softmax"} | config, tensors)

    def _vectors(self, prompts: Sequence[Prompt]) -> Floats:
        d = len(self.theta) // len(self.text_M)
        bad = [x for x in prompts if not _is_vector(x.content, d)]
        if bad:
            lines = ", ".join(str(x.line or x.id) for x in bad[:5])
            raise UserError(
                f"{len(bad)} prompts are not vectors of {d} numbers (lines {lines})",
                "give a linear-softmax policy prompts that are lists of its number of features",
            )
        return np.array([x.content for x in prompts], dtype=np.float64) / self.scale


def _is_vector(content: Any, d: int) -> bool:
    return (
        isinstance(content, (list, tuple))
        and len(content) == d
        and all(isinstance(number, (int, float)) for number in content)
    )


def load(folder: Path) -> LinearSoftmax:
    """Read what ``LinearSoftmax.save`` wrote."""
    config, tensors = load_exact(folder)
    return LinearSoftmax(
        tensors["theta"],
        tuple(config["texts"]),
        phi_XMD=tensors.get("phi"),
        scale=config["scale"],
        radius=config["radius"],
    )
