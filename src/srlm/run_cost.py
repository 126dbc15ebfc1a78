"""What ``srlm run`` is about to cost, from seconds of each kind of its work, and how it is cut to a
time.

Sampling is timed by ``srlm.cost``. Scoring and an update take time in proportion to the positions
that pass through the network, and are timed on ``PROBED`` of them, twice for scoring, because the
first pass allocates; the policy is left as it was. The most is of responses of full length; the
least of responses as long as those that were timed, has no search in it, and samples in large
batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from srlm.config import RunConfig, kept, reward_parts
from srlm.cost import SEARCH_SHARE, Pace, pace
from srlm.policies.base import Differentiable, Exact, Language, Policy
from srlm.policies.devices import beside_weights
from srlm.policies.network import CHUNK
from srlm.policies.scoring import CALL
from srlm.progress import duration
from srlm.train import CHECKED_SHARE
from srlm.types import Ints, Prompt, Tokens

PROBED = 256
"""Positions that scoring and an update are timed on."""
LEAST_PROMPTS, LEAST_SAMPLES = 8, 4
"""What a time limit cuts to: prompts per round, or measured on; samples of each."""
SCORED = ("likelihood-per-token", "self-certainty")
"""Rewards that take a pass over the samples; the likelihood comes with them."""
JUDGES = ("judge", "judge-pairwise", "meta-judge")


@dataclass(frozen=True, slots=True)
class Paces:
    """What each kind of work takes."""

    sampling: Pace
    score: float
    """Seconds a position scored."""
    train: float
    """Seconds a position trained on."""
    prompt: float
    """Tokens of a prompt, on average."""


def paces(
    policy: Policy,
    prompts: Sequence[Prompt],
    config: RunConfig,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Paces:
    """Time sampling, scoring and a gradient.

    Args:
        prompts: to train on.
        config: with nothing left open (``srlm.defaults``).
        clock: seconds from any fixed moment.
    """
    limit = config.samples.max_tokens
    sampling = pace(
        policy, prompts, config.samples.per_prompt, max_tokens=limit, seed=config.seed, clock=clock
    )
    if not (isinstance(policy, Differentiable) and isinstance(policy, Language)):
        return Paces(sampling, 0.0, 0.0, 0.0)
    size = float(np.mean([len(policy.encode(x)) for x in prompts[:64]]))
    room = min(PROBED, policy.budget.trained())
    length = max(1, min(limit, room - len(policy.encode(prompts[0]))))
    rows = max(1, min(config.samples.per_prompt, room // length))
    random = np.random.default_rng(config.seed)
    token_RT = random.integers(0, policy.budget.shape.vocabulary, (rows, length))
    tokens: list[Tokens] = [tuple(row) for row in token_RT.tolist()]
    given: tuple[Sequence[Prompt], Ints, list[Tokens]]
    given = (prompts[:1], np.zeros(rows, dtype=np.int64), tokens)
    positions = len(policy.encode(prompts[0])) + rows * (length - 1)

    def timed(work: Callable[[], object]) -> float:
        began = clock()
        work()
        return max(clock() - began, 1e-9) / positions

    def gradient() -> None:
        total = policy.log_prob_grad(*given).sum()
        some = policy.parameters()
        if config.update.lora:  # no gradient of the weights themselves
            least = min(some, key=torch.numel)
            torch.autograd.grad(total, least, allow_unused=True)
            return
        total.backward()
        for parameter in some:
            parameter.grad = None

    policy.log_prob(*given)
    return Paces(sampling, timed(lambda: policy.log_prob(*given)), timed(gradient), size)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What ``srlm run`` is about to do."""

    config: RunConfig
    """With nothing left open, and cut to the time."""
    prompts: int
    """To train on, in all; a round takes ``config.samples.prompts`` of them."""
    held_out: int
    """Measured on."""
    paces: Paces
    memory: int | None
    """Peak bytes by ``policies.devices``, at most; None where it is not known."""
    policy_bytes: int | None
    """Of what a round keeps on disk: weights, or adapters."""

    @property
    def policies(self) -> int:
        """On disk at once, at most; the base is not copied."""
        last, rounds = kept(self.config.keep or "all"), self.config.rounds
        if last is None or self.config.update.lora:
            return rounds
        return min(rounds, 3 if last == 0 else last + 1)

    @property
    def a_round(self) -> int:
        """Prompts of a round."""
        return min(self.prompts, self.config.samples.prompts or self.prompts)

    @property
    def measuring(self) -> int:
        """Prompts measured on."""
        return min(self.held_out, self.config.measure.prompts)

    def measure(self) -> tuple[float, float]:
        """Fewest and most seconds of measuring a policy."""
        asked, limit = self.config.measure, self.config.samples.max_tokens
        low, high = self.paces.sampling.seconds(self.measuring, asked.samples, 1)
        short, long = (
            self.measuring * (self.paces.prompt + asked.samples * length) * self.paces.score
            for length in (self.paces.sampling.length, limit)
        )
        return low + short, high + long + asked.seconds

    def update(self) -> tuple[float, float]:
        """Fewest and most seconds of samples, rewards and training."""
        asked, update = self.config.samples, self.config.update
        P, K, T = self.a_round, asked.per_prompt, asked.max_tokens
        low, high = self.paces.sampling.seconds(P, K, 1)
        names = reward_parts(self.config.reward)
        passes = sum(name in SCORED for name in names) + 1 / CHECKED_SHARE
        judged = sum(name in JUDGES for name in names) * self.config.judge.judgements
        judge = judged * P * self.paces.sampling.seen * self.config.judge.max_tokens / T
        position = passes * self.paces.score + (update.epochs or 1) * self.paces.train
        short, long = (
            P * (self.paces.prompt + K * length) * position
            for length in (self.paces.sampling.length, T)
        )
        return low + judge + short, high + judge + long

    def seconds(self) -> tuple[float, float]:
        """Fewest and most seconds of the run."""
        T, measure, update = self.config.rounds, self.measure(), self.update()
        low, high = ((T + 1) * m + T * u for m, u in zip(measure, update, strict=True))
        return low, high

    def lines(self) -> list[str]:
        """What is said before the work."""
        config, K, T = self.config, self.config.samples.per_prompt, self.config.samples.max_tokens
        P, (low, high) = self.a_round, self.seconds()
        (m_low, m_high), (u_low, u_high) = self.measure(), self.update()
        rates = [f"samples {self.paces.sampling.tokens:.3g} tokens/s"]
        if self.paces.train:
            rates.append(
                f"scores {1 / self.paces.score:.3g}/s, trains on {1 / self.paces.train:.3g}/s"
            )
        needs = [] if self.memory is None else [f"memory at most {self.memory / 1e9:.2f} GB"]
        if self.policy_bytes is not None:
            size = self.policies * self.policy_bytes / 1e9
            needs.append(f"disk at most {size:.2f} GB for {self.policies} policies")
        return [
            f"Plan: {config.rounds} rounds x {P} prompts x {K} samples x {T} tokens = "
            f"{config.rounds * P * K * T} tokens at most; each policy measured on "
            f"{self.measuring} prompts x {config.measure.samples} samples",
            f"Speed: {', '.join(rates)}",
            f"Cost: per round {duration(m_low + u_low)} to {duration(m_high + u_high)} (search of "
            f"at most {duration(config.measure.seconds)} in it); in all {duration(low)} to "
            f"{duration(high)}",
            *([f"Needs: {', '.join(needs)}"] if needs else []),
        ]


def plan_run(
    policy: Policy,
    training: Sequence[Prompt],
    held_out: Sequence[Prompt],
    config: RunConfig,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> RunPlan | None:
    """The plan of a run; None for exact policies, which take no time that matters.

    Args:
        training, held_out: prompts.
        config: with nothing left open.
        clock: seconds from any fixed moment.
    """
    if isinstance(policy, Exact):
        return None
    held_now = 0
    if isinstance(policy, Differentiable):
        held_now = beside_weights(policy.budget.device, policy.budget.shape)
    found = paces(policy, training, config, clock=clock)
    made = RunPlan(config, len(training), len(held_out), found, None, None)
    if not (isinstance(policy, Differentiable) and isinstance(policy, Language)):
        return made
    budget, shape = policy.budget, policy.budget.shape
    longest = max(len(policy.encode(x)) for x in (*training, *held_out))
    sampled = max(made.a_round * config.samples.per_prompt, made.measuring * config.measure.samples)
    nodes = min(config.measure.tokens, config.measure.nodes * made.measuring)
    chunk = CHUNK.get(budget.device.type, 1 << 27)
    trained, policy_bytes = shape, shape.width * shape.parameters
    if rank := config.update.lora:
        adapters = rank * shape.layers * (11 * shape.hidden + 3 * shape.inner)
        trained, policy_bytes = replace(shape, trained=adapters), 4 * adapters
    K, T = config.samples.per_prompt, config.samples.max_tokens
    one = max((*training, *held_out), key=lambda x: len(policy.encode(x)))
    none = np.zeros(K, dtype=np.int64)
    work = made.a_round * int(policy.positions([one], none, [(0,) * T] * K, none)[0])
    # one row at least; and rows that save a call do not share their prompt
    passed = max(min(budget.trained(), work), longest + T) + CALL
    peak = max(
        budget.measuring(made.measuring, sampled, nodes, longest, config.samples.max_tokens),
        budget.with_holes(trained.update(passed, chunk)),
    )
    return replace(made, memory=held_now + peak, policy_bytes=policy_bytes)


def fitted(made: RunPlan, room: float) -> tuple[RunPlan, list[str]]:
    """The plan cut to so many seconds, and what was cut.

    In this order, each as far as needed: search to ``cost.SEARCH_SHARE`` of the time; prompts a
    round to ``LEAST_PROMPTS``; samples to ``LEAST_SAMPLES``; prompts measured on to
    ``LEAST_PROMPTS``; their samples to ``LEAST_SAMPLES``. Rounds are not cut here: those that the
    time does not reach are not begun.
    """
    was = made.config
    most = max(1.0, SEARCH_SHARE * room / (was.rounds + 1))
    made = _with(made, "measure", "seconds", min(was.measure.seconds, round(most, 1)))
    knobs = (
        ("samples", "prompts", made.a_round, LEAST_PROMPTS),
        ("samples", "per_prompt", was.samples.per_prompt, LEAST_SAMPLES),
        ("measure", "prompts", made.measuring, LEAST_PROMPTS),
        ("measure", "samples", was.measure.samples, LEAST_SAMPLES),
    )
    for section, name, now, least in knobs:
        if made.seconds()[1] <= room or now <= least:
            continue
        low, high = least, now  # the largest that fits, or the least
        while low < high:
            middle = (low + high + 1) // 2
            fits = _with(made, section, name, middle).seconds()[1] <= room
            low, high = (middle, high) if fits else (low, middle - 1)
        made = _with(made, section, name, low)
    cut = made.config
    changes = (
        ("prompts per round", min(made.prompts, was.samples.prompts or made.prompts), made.a_round),
        ("samples", was.samples.per_prompt, cut.samples.per_prompt),
        ("prompts measured on", min(made.held_out, was.measure.prompts), made.measuring),
        ("samples there", was.measure.samples, cut.measure.samples),
        ("seconds of search", was.measure.seconds, cut.measure.seconds),
    )
    return made, [f"{name} {old:g} -> {new:g}" for name, old, new in changes if old != new]


def _with(made: RunPlan, section: str, name: str, value: float) -> RunPlan:
    part = getattr(made.config, section).model_copy(update={name: value})
    return replace(made, config=made.config.model_copy(update={section: part}))
