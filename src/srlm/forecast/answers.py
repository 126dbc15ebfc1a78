"""What N samples per prompt say about its answers: shares, the mode, kappa, the vote.

The plug-in share of the commonest answer is biased up (it was chosen for being large), so kappa
from it is biased down, and the accuracy of the majority of N is not that of the mode. So each
prompt's shares get a posterior: those among its parseable responses from a mixture over prompts
(``srlm.forecast.components``), and the share that cannot be parsed from the same mixture.

* Answers that no sample gave are part of it: M counts them.
* A draw of the posterior is a set of shares for each prompt; intervals of anything computed from
  shares (the accuracy of the mode, kappa, later rounds) are quantiles over draws.
* Two questions, two intervals: about **these prompts** (the draws alone), and about **prompts
  like these** (each draw also weighs the prompts: the Bayesian bootstrap).

Certain bounds that need no such model stand beside: the split sample
(``srlm.measure.answer_level``). Coverage by simulation: ``tests/forecast/coverage.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from srlm.forecast import components
from srlm.forecast.components import Components, Drawn
from srlm.types import Estimate, Floats, Ints

DRAWS = 400
LEVEL = 0.9
FEW = 5.0
NEAR = 0.05
"""Prompts, and share of them, on one side under which a count is near 0 or P."""
MOST = 1 - 1e-9
"""The largest unreadable share, so that shares stay numbers."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each answer of a prompt was given."""

    count_A: Ints
    """Of the answers that were given."""
    right: int | None
    """Which of them is right; -1: none of them; None: not known."""
    silent: int = 0
    """Samples without an answer that can be read, cut-off ones included."""
    cut: int = 0
    """Of these, samples that a length limit cut off."""
    alike: int = 0
    """Of these, samples with the commonest text: a response of its own, that does not vote."""

    @property
    def hits(self) -> int:
        """Samples that are right."""
        return int(self.count_A[self.right]) if self.right is not None and self.right >= 0 else 0

    @property
    def readable(self) -> int:
        return int(self.count_A.sum())

    @property
    def samples(self) -> int:
        return self.readable + self.silent


# ---- the posterior


@dataclass(frozen=True, slots=True)
class Shares:
    """Draws of a prompt's shares. Columns: the answers given, then answers not given."""

    share_BA: Floats
    """[B, A]; with the unreadable share they sum to 1."""
    right: int | None
    """Column of the right answer; None: not known."""
    alike_B: Floats | None = None
    """Share of the commonest unreadable response, [B]; None: there is none."""

    @property
    def silent_B(self) -> Floats:
        return np.maximum(1.0 - self.share_BA.sum(1), 0.0)

    def top_B(self) -> Floats:
        """max_a v(a), [B], over answers and over responses without one, which say but themselves.

        So 1 / max is at most that of whole responses.
        """
        top_B = self.share_BA.max(1)
        return top_B if self.alike_B is None else np.maximum(top_B, self.alike_B)

    def mode_right_B(self) -> Floats:
        """1 where the right answer is the mode, [B]."""
        assert self.right is not None
        return (self.share_BA.argmax(1) == self.right).astype(np.float64)

    def accuracy_B(self) -> Floats:
        """v(right), [B]."""
        assert self.right is not None
        return self.share_BA[:, self.right]


@dataclass(frozen=True, slots=True)
class Posterior:
    """What is known of the shares of P prompts; ``shares`` draws them."""

    counts: Sequence[Counts]
    mixture_P: tuple[Components, ...]
    """One for the prompts with a known right answer, one for the others."""
    seed: int
    draws: int

    def shares(self, p: int) -> Shares:
        """Draws of prompt p's shares; the same for the same seed. O(draws x answers)."""
        rng = np.random.default_rng([self.seed, p])
        counts, B = self.counts[p], self.draws
        labelled = counts.right is not None
        given = _others(counts)
        drawn = self.mixture_P[p].of(counts.hits, given, counts.silent, B, rng)
        share_BA = _others_shares(drawn, given, rng)
        if labelled:
            assert drawn.right_B is not None and drawn.wrong_B is not None
            n = counts.readable - counts.hits
            right_B = rng.beta(drawn.right_B + counts.hits, drawn.wrong_B + n)
            share_BA = np.column_stack([right_B, share_BA * (1 - right_B)[:, None]])
        silent_B = np.zeros(B)
        if drawn.silent_B is not None and drawn.parsed_B is not None:
            a_B, b_B = drawn.silent_B + counts.silent, drawn.parsed_B + counts.readable
            silent_B = np.minimum(rng.beta(a_B, b_B), MOST)
        alike_B = None
        if counts.alike:
            alike_B = silent_B * rng.beta(counts.alike, counts.silent - counts.alike + 1, B)
        return Shares(share_BA * (1 - silent_B)[:, None], 0 if labelled else None, alike_B)


def _others(counts: Counts) -> Ints:
    """Counts of the answers given, but for the right one."""
    return np.array([n for a, n in enumerate(counts.count_A) if a != counts.right], dtype=np.int64)


def _others_shares(drawn: Drawn, given: Ints, rng: np.random.Generator) -> Floats:
    """Shares of the wrong answers among the wrong, [B, A]: those given, then those not given."""
    B, K = len(drawn.others_B), len(given)
    unseen_B = drawn.others_B - K
    U = int(unseen_B.max())
    shape_BA = np.zeros((B, K + U))
    shape_BA[:, :K] = drawn.each_B[:, None] + given
    rest = np.arange(U)[None] < unseen_B[:, None]
    shape_BA[:, K:] = np.where(rest, drawn.each_B[:, None], 0.0)
    has = np.flatnonzero(drawn.rival_B >= 0)
    rival = drawn.rival_B[has]
    shape_BA[has, rival] = 0.0
    share_BA = _dirichlet(rng, shape_BA)
    got = np.append(given, 0)[np.minimum(rival, K)]
    part = rng.beta(drawn.part_B[has] + got, drawn.rest_B[has] + given.sum() - got)
    share_BA[has] *= (1 - part)[:, None]
    share_BA[has, rival] = part
    return share_BA


def posterior(counts: Sequence[Counts], *, seed: int = 0, draws: int = DRAWS) -> Posterior:
    """Condition the prior on all prompts' counts, then each prompt's shares on its own.

    Prompts with a known right answer and prompts without are fitted apart. Cost: that of
    ``components.draw``.
    """
    rng = np.random.default_rng([seed, len(counts)])
    found, all_parsed = {}, not any(c.silent for c in counts)
    for known in (False, True):
        some = [c for c in counts if (c.right is not None) == known]
        if some:
            hits = [c.hits for c in some] if known else None
            silent = None if all_parsed else [c.silent for c in some]
            found[known] = components.draw(hits, [_others(c) for c in some], silent, rng)
    return Posterior(tuple(counts), tuple(found[c.right is not None] for c in counts), seed, draws)


def _dirichlet(rng: np.random.Generator, shape_BA: Floats) -> Floats:
    """Rows of Dirichlet variates; a shape of 0 is a share of 0.

    A gamma variate of a small shape is one of shape + 1 times U^(1/shape), taken in logarithms so
    that it does not vanish.
    """
    with np.errstate(divide="ignore"):
        log_BA = np.log(rng.standard_gamma(shape_BA + 1.0))
        log_BA += np.log(rng.random(shape_BA.shape)) / np.where(shape_BA > 0, shape_BA, 1.0)
    log_BA = np.where(shape_BA > 0, log_BA, -np.inf)
    out_BA = np.exp(log_BA - log_BA.max(1, keepdims=True))
    return np.asarray(out_BA / out_BA.sum(1, keepdims=True))


# ---- what is asked of it


Values = Callable[[Shares, Counts], Floats]
"""A prompt's quantity under each draw of its shares, [B]."""


def values(post: Posterior, of: Values) -> Floats:
    """``of`` on every prompt, [B, P]."""
    return np.column_stack([of(post.shares(p), counts) for p, counts in enumerate(post.counts)])


def estimate(
    value_BP: Floats,
    method: str,
    *,
    seed: int = 0,
    level: float = LEVEL,
    these: bool = False,
    inverse: bool = False,
) -> Estimate:
    """Mean over the prompts with its interval from the posterior's draws.

    A count of these prompts moves in steps of one: its draws are spread over the step (mid-p), or
    intervals would hold more often than they say. Of prompts like these, a count near 0 or P
    gets one prompt more on the far side at each end, which for zeros and ones is Clopper and
    Pearson's interval; the Bayesian bootstrap alone knows none but the values seen.

    Args:
        value_BP: draws of each prompt's quantity.
        level: of the interval.
        these: about these prompts; else about prompts like these, by the Bayesian bootstrap.
        inverse: the quantity is 1 / a share, and no share itself.
    """
    B, P = value_BP.shape
    rng = np.random.default_rng([seed, B, P])
    counted = not inverse and bool(np.isin(value_BP, (0.0, 1.0)).all())
    if these:
        mean_B = value_BP.mean(1)
        step = 1 / P if counted else 0.0
        low_B = high_B = mean_B + step * (rng.random(B) - 0.5)
    else:
        weight_BP = rng.standard_exponential((B, P))
        all_B = weight_BP.sum(1)
        mean_P = value_BP.mean(0)
        sum_B = weight_BP @ mean_P + (value_BP - mean_P).mean(1) * all_B
        low_B = high_B = mean_B = sum_B / all_B
        if counted and _few(value_BP):
            one_B = rng.standard_exponential(B)
            low_B, high_B = sum_B / (all_B + one_B), (sum_B + one_B) / (all_B + one_B)
    tail = (1 - level) / 2
    low, high = np.quantile(low_B, tail), np.quantile(high_B, 1 - tail)
    least, most = (value_BP.min(), value_BP.max()) if these or not counted else (0.0, 1.0)
    low, high = max(low, least), min(high, most)
    value = min(max(np.median(mean_B), value_BP.min()), value_BP.max())  # rounding of weights
    about = "these prompts" if these else "prompts like these"
    name = f"{method}; {level:.0%} for {about} (posterior of the shares)"
    return Estimate(float(value), float(low), float(high), P, name)


def _few(value_BP: Floats) -> bool:
    """Whether fewer than ``FEW`` prompts, and less than ``NEAR`` of them, lie on one side."""
    share = float(value_BP.mean())
    share = min(share, 1 - share)
    return share < NEAR and share * value_BP.shape[1] < FEW


def destination(shares: Shares, counts: Counts) -> Floats:
    """1[the right answer is the mode]: where votes lead, [B]."""
    return shares.mode_right_B()


def kappa(shares: Shares, counts: Counts) -> Floats:
    """1 / max_a v(a), [B]."""
    return 1.0 / shares.top_B()
