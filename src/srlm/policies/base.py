"""Policy: the small protocol that the loop needs, and what search needs of it.

Three kinds satisfy it, and the same ``srlm.loop.self_reward`` runs on each of them:
``CausalLM`` (a Hugging Face causal model), ``LinearSoftmax`` and ``Tabular`` (exact, float64).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from srlm.types import Floats, Ints, Prompt, Samples, Tokens

if TYPE_CHECKING:
    import torch

    from srlm.policies.devices import Budget


class PrefixTree(Protocol):
    """Prefixes of responses to P prompts, grown node by node, for best-first search.

    A node is a prefix (a prompt's root is the empty one) and carries log pi(token|x, prefix)
    for every token. Growing a node reuses the work done for its ancestors. The outcomes of a
    policy with length limit H are the responses that end with an end token within H tokens, and
    the prefixes of exactly H tokens that the limit cuts off; their probabilities sum to 1.
    """

    ends: frozenset[int]
    """End tokens: a child reached by one of them is a finished response. Every token is one for
    policies whose responses are single labels."""
    max_tokens: int
    """H: a prefix of this length is an outcome, finished or cut off."""

    def roots(self) -> tuple[Ints, torch.Tensor]:
        """Node of each prompt's empty prefix, [P], and its log-probabilities, [P, V] (float32
        or float64, natural log, rows sum to 1 in probability)."""
        ...

    def extend(self, node_B: Ints, token_B: Ints) -> tuple[Ints, torch.Tensor]:
        """Children of nodes by tokens that are no end tokens: their node numbers, [B], and
        next-token log-probabilities, [B, V]. B may mix prompts and depths. One batched forward
        pass over B tokens for a network."""
        ...


@runtime_checkable
class Policy(Protocol):
    """pi(y|x): samples, exact log-probabilities, and prefixes.

    ``prompts`` are ``Prompt`` objects whose content the policy understands. ``max_tokens`` is
    the length limit H of a response.
    """

    def sample(
        self,
        prompts: Sequence[Prompt],
        samples: int,
        *,
        seed: int,
        max_tokens: int,
        advance: Callable[[float], None] = lambda prompts: None,
    ) -> Samples:
        """``samples`` independent responses per prompt at temperature 1, rows in prompt order.

        Sample j of a prompt depends on (seed, prompt id, j) and the policy alone: not on the
        batch size, on the order of the prompts or on how many samples are asked for.

        Args:
            advance: called, as often as the policy can, with what share of how many prompts was
                done since; adds up to their number.
        """
        ...

    def greedy(self, prompts: Sequence[Prompt], *, max_tokens: int) -> Samples:
        """The response of greedy decoding, one row per prompt."""
        ...

    def log_prob(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> Floats:
        """log pi(y_r | x_{prompt_R[r]}), [R], float64, nats. No gradient."""
        ...

    def tree(self, prompts: Sequence[Prompt], *, max_tokens: int) -> PrefixTree:
        """The prefix tree of the prompts, for search."""
        ...

    def text(self, tokens: Tokens) -> str:
        """A response as a person reads it."""
        ...

    def copy(self) -> Policy:
        """An independent copy; updating it leaves this one as it is."""
        ...

    def save(self, folder: Path) -> None:
        """Write the policy to a new folder that ``srlm.policies.load`` reads."""
        ...


@runtime_checkable
class Temperable(Protocol):
    """A policy that can be sampled at another temperature, or from its likeliest tokens alone."""

    def tempered(
        self,
        prompts: Sequence[Prompt],
        samples: int,
        *,
        temperature: float,
        top_p: float,
        seed: int,
        max_tokens: int,
        advance: Callable[[float], None] = lambda prompts: None,
    ) -> Samples:
        """As ``Policy.sample``, of q(token) ~ pi(token)^(1 / temperature) on the fewest tokens
        whose q adds up to ``top_p``; log-probabilities are those under pi itself."""
        ...


@runtime_checkable
class Exact(Protocol):
    """A policy whose responses can all be listed."""

    def enumerate(self, prompts: Sequence[Prompt]) -> Samples:
        """Every response of every prompt once, with weight pi(y|x)."""
        ...


@runtime_checkable
class Distributions(Protocol):
    """A policy whose next-token distributions along given responses can be read."""

    def along(
        self,
        prompts: Sequence[Prompt],
        prompt_R: Ints,
        tokens_R: Sequence[Tokens],
        read: Callable[[torch.Tensor], torch.Tensor],
    ) -> list[Floats]:
        """``read`` of log pi(.|x, y_<t), [..., V] -> [..., ...], over the last axis and for some
        positions at a time: one array [T_r, ...] a row. One forward pass; no gradient."""
        ...


@runtime_checkable
class Language(Distributions, Protocol):
    """A policy over text, which can be asked about text: what a judge needs."""

    @property
    def context(self) -> int | None:
        """Longest input in tokens; None where there is no limit."""
        ...

    def encode(self, prompt: Prompt) -> list[int]:
        """The prompt as the policy reads it."""
        ...

    def single(self, text: str) -> int | None:
        """The one token that the text is; None where it is several, or is not known."""
        ...

    def plain(self, text: str) -> str:
        """The text with nothing in it that would be read as a control token."""
        ...


@runtime_checkable
class Differentiable(Protocol):
    """A policy that gradient descent trains (``srlm.train.fit``)."""

    budget: Budget
    """How many positions fit in a pass."""

    def parameters(self) -> list[torch.nn.Parameter]:
        """The parameters that an update may change."""
        ...

    def log_prob_grad(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> torch.Tensor:
        """As ``log_prob``, [R], float64, on the CPU, with gradient, in one batch."""
        ...

    def recomputing(self) -> AbstractContextManager[None]:
        """Inside, the layers are computed again in the backward pass instead of being kept."""
        ...

    def positions(
        self,
        prompts: Sequence[Prompt],
        prompt_R: Ints,
        tokens_R: Sequence[Tokens],
        group_R: Ints,
    ) -> Ints:
        """How large each group of responses is in ``log_prob_grad``, [G], in tokens: what decides
        how many groups are run at once. Groups 0..G-1 never decrease."""
        ...

    def passes(
        self,
        prompts: Sequence[Prompt],
        prompt_R: Ints,
        tokens_R: Sequence[Tokens],
        positions: int,
    ) -> Iterator[Ints]:
        """The rows in parts of so many positions, one row at least."""
        ...


@runtime_checkable
class LogLinear(Protocol):
    """A policy with log pi(y|x) = <theta, phi(x,y)> - log Z(x), updated by its exact minimiser
    (``srlm.train.solve``)."""

    theta: Floats

    def features(
        self, prompts: Sequence[Prompt], prompt_R: Ints, tokens_R: Sequence[Tokens]
    ) -> Floats:
        """phi(x, y), [R, D]."""
        ...

    def with_theta(self, theta: Floats) -> LogLinear:
        """The same policy at other parameters, projected onto its ball of radius R if any."""
        ...


def uniforms(seed: int, prompt_id: str, samples: int, max_tokens: int) -> Floats:
    """Uniform numbers that decide the samples of one prompt, [samples, max_tokens].

    A counter-based generator (Philox) keyed by seed and prompt id: row j is the same whatever
    the number of samples.

    >>> bool((uniforms(1, "ab", 2, 3) == uniforms(1, "ab", 5, 3)[:2]).all())
    True
    """
    key = np.random.SeedSequence([seed, int(prompt_id, 16)]).generate_state(2, np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random((samples, max_tokens))
