"""Tabular rounds by connected components against the production solver."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from srlm import pairs as pairing
from srlm import train as update
from srlm.lab import tabular
from srlm.policies.tabular import Tabular, rows
from srlm.types import Samples


@pytest.mark.parametrize("n", [1, 6, 40])
def test_components_are_min_norm_least_squares(n: int) -> None:
    rng = np.random.default_rng(n)
    X, M, beta = 5, 6, 0.7
    # The minimum-norm step depends on the parameters' gauge alone through what it leaves.
    logp_RXM = log_softmax(rng.standard_normal((3, X, M)), axis=2)
    weight_X = np.array([0.5, 0.2, 0.1, 0.1, 0.1])
    x_Rn, y_Rn, other_Rn = tabular.draw(logp_RXM, weight_X, n, seed=2, t=0, part=np.arange(3))
    fast_RXM = tabular.update(logp_RXM, x_Rn, y_Rn, other_Rn, beta)
    for r in range(3):
        order = np.argsort(x_Rn[r], kind="stable")
        prompt_R = np.repeat(x_Rn[r][order], 2)
        choice_R = np.stack([y_Rn[r][order], other_Rn[r][order]], axis=1).ravel()
        logp_R = logp_RXM[r][prompt_R, choice_R]
        samples = Samples(
            prompt_R=prompt_R,
            tokens_R=tuple((int(m),) for m in choice_R),
            logp_R=logp_R,
            weight_R=1.0 / np.bincount(prompt_R)[prompt_R],
            finished_R=np.ones(2 * n, dtype=bool),
            text_R=tuple(str(m) for m in choice_R),
        )
        policy = Tabular(logp_RXM[r])
        theta, _ = update.square_objective.solve(
            policy, rows(X), pairing.pairs(samples, logp_R), beta
        )
        slow_XM = policy.with_theta(theta).log_table(rows(X))
        assert np.abs(fast_RXM[r] - slow_XM).max() < 1e-9


def test_draws_follow_the_policy_and_the_prompts_weights() -> None:
    logp_RXM = np.log(np.array([[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]]))
    x, y, other = tabular.draw(
        logp_RXM, np.array([3.0, 1.0]), 40_000, seed=0, t=0, part=np.arange(1)
    )
    assert (x == 1).mean() == pytest.approx(0.25, abs=0.01)
    for drawn in (y, other):
        assert np.bincount(drawn[x == 0]) / (x == 0).sum() == pytest.approx(
            [0.7, 0.2, 0.1], abs=0.015
        )
    assert np.corrcoef(y[x == 0] == 0, other[x == 0] == 0)[0, 1] == pytest.approx(0, abs=0.02)
