"""The slow twin of ``srlm.lab.bulk``: one replicate at a time through ``srlm.loop.self_reward``.

``Counted`` is a linear softmax policy that samples what ``bulk`` samples: the same uniform numbers,
the same random prompts. All else is the production loop: its sampling table, pairs, least
squares, projection and measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import ndtri

from srlm import pairs as pairing
from srlm import train as update
from srlm.config import MeasureSettings, SampleSettings, UpdateSettings
from srlm.lab.bulk import Linear
from srlm.lab.tabular import uniforms
from srlm.loop import self_reward
from srlm.policies.linear_softmax import LinearSoftmax
from srlm.policies.listed import Listed
from srlm.policies.tabular import rows
from srlm.rounds import Method
from srlm.run_folder import Memory
from srlm.types import Floats, Ints, Pairs, Prompt, Samples, Tokens


class Counted(Listed):
    """A ``LinearSoftmax`` whose round t samples by counter (seed, replicate, t)."""

    def __init__(
        self, policy: LinearSoftmax, seed: int, replicate: int, pairs: int, t: int = 0
    ) -> None:
        self.policy, self.seed, self.replicate, self.pairs, self.t = (
            policy,
            seed,
            replicate,
            pairs,
            t,
        )
        self.responses_M, self.text_M = policy.responses_M, policy.text_M
        self.theta = policy.theta

    def log_table(self, prompts: Sequence[Prompt]) -> Floats:
        """As the policy's."""
        return self.policy.log_table(prompts)

    def features(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> Floats:
        """As the policy's."""
        return self.policy.features(prompts, prompt_R, tokens_R)

    def with_theta(self, theta: Floats) -> Counted:
        """The policy of the next round."""
        updated = self.policy.with_theta(theta)
        return Counted(updated, self.seed, self.replicate, self.pairs, self.t + 1)

    def copy(self) -> Counted:
        """An independent copy."""
        return Counted(self.policy.copy(), self.seed, self.replicate, self.pairs, self.t)

    def numbers(self, noise: bool = False) -> Floats:
        """The round's uniform numbers, [3 or 5, pairs]: prompt, two responses, two noises."""
        count = 5 if noise else 3
        return uniforms(self.seed, np.array([self.replicate]), self.t, count * self.pairs).reshape(
            count, self.pairs
        )

    def order(self, X: int) -> Ints:
        """The pairs in the order of their prompts, as samples must lie."""
        return np.argsort((self.numbers()[0] * X).astype(np.int64), kind="stable")

    def sample(
        self,
        prompts: Sequence[Prompt],
        samples: int,
        *,
        seed: int,
        max_tokens: int,
        advance: Callable[[float], None] = lambda prompts: None,
    ) -> Samples:
        """``pairs`` pairs at prompts sampled with replacement; ``samples`` and ``seed`` are
        unused."""
        advance(len(prompts))
        u_3n = self.numbers()[:, self.order(len(prompts))]
        x_n = (u_3n[0] * len(prompts)).astype(np.int64)
        logp_PM = self.log_table(prompts)
        sums_PM = np.cumsum(np.exp(logp_PM), axis=1)
        choice = [
            np.searchsorted(sums_PM[x], u * sums_PM[x, -1], side="right")
            for x, pair in zip(x_n, u_3n[1:].T, strict=True)
            for u in pair
        ]
        prompt_R = np.repeat(x_n, 2)
        drawn = self._samples(prompt_R, np.array(choice), logp_PM, 1.0)
        return replace(drawn, weight_R=1.0 / np.bincount(prompt_R)[prompt_R])

    def save(self, folder: object) -> None:
        """Never asked for: the twin runs in memory."""
        raise NotImplementedError


def twin(
    instance: Linear,
    *,
    rounds: int,
    pairs: int,
    beta: float,
    replicate: int,
    seed: int,
    noise: float = 0.0,
) -> tuple[dict[str, Floats], Floats]:
    """What ``bulk`` gives for one replicate: kappa, failure_fraction and least_confidence by round,
    each [T+1], and the last theta, [D]."""
    X, M, _ = instance.phi_XMD.shape
    policy = LinearSoftmax(
        instance.theta_D,
        tuple(map(str, range(M))),
        phi_XMD=instance.phi_XMD,
        radius=instance.radius,
    )

    def reward(now: object, prompts: Sequence[Prompt], samples: Samples) -> Floats:
        if not noise:
            return samples.logp_R
        assert isinstance(now, Counted)
        e_2n = ndtri(now.numbers(noise=True)[3:])[:, now.order(X)]
        return samples.logp_R + noise * e_2n.T.ravel()

    recipe = Method(
        SampleSettings(),
        reward,
        pairing.pairs if not noise else unmerged,
        update.square_objective,
        UpdateSettings(beta=beta),
        MeasureSettings(prompts=X),
    )
    memory = Memory()
    names = ("kappa", "failure_fraction", "least_confidence")
    out: dict[str, list[float]] = {name: [] for name in names}
    start = Counted(policy, seed, replicate, pairs)
    for done in self_reward(start, rows(X), rows(X), method=recipe, rounds=rounds, folder=memory):
        for name in names:
            value = done.estimates[name].value
            out[name].append(np.nan if value is None else value)
    last = memory.policy if rounds else start
    assert isinstance(last, Counted)
    return {name: np.array(values) for name, values in out.items()}, last.theta


def unmerged(samples: Samples, reward_R: Floats) -> Pairs:
    """``pairs.pairs`` without its merging of equal samples, whose noises differ."""
    group_R = np.arange(len(samples)) // 2
    return Pairs(
        group_R=group_R,
        prompt_R=samples.prompt_R,
        tokens_R=samples.tokens_R,
        reference_R=samples.logp_R,
        reward_R=reward_R,
        weight_R=np.full(len(samples), 0.5),
        samples=len(samples),
    )
