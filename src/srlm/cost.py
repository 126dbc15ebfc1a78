"""What sampling is about to cost, from a few seconds of it, and how it is fitted to a time.

A batch of n prompts takes about a + b n seconds: a for its steps, which read every weight, b for
the positions of its rows. Batches of one prompt and of a handful, timed and then thrown away, give
both. The whole is expected between what these say of large batches and the rate of the handful.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from srlm.config import ProbeConfig
from srlm.policies.base import Differentiable, Exact, Language, Policy
from srlm.policies.devices import beside_weights
from srlm.progress import duration
from srlm.types import Prompt

C = TypeVar("C", bound=ProbeConfig)
HANDFUL = 4
"""Prompts of the larger batch."""
LONGEST, PATIENT = 4.0, 12.0
"""Seconds that a batch is timed for, and where it does not tell then; what it would take in whole
follows from what was done."""
STEPS = 9
"""Moments that the pace of the last steps is taken from."""
TINY = 10.0
"""Seconds of work that are not worth a second batch."""
LEAST = 8
"""Prompts and samples that a time limit cuts to, before it cuts prompts further."""
SEARCH_SHARE = 0.25
"""Share of a time limit that the search for modes may take."""


class _Enough(Exception):
    """The batch was timed for long enough."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What sampling takes, for K samples per prompt."""

    steps: float
    """a: seconds of a batch, whatever its size."""
    prompt: float
    """b: seconds more for each prompt in it."""
    likely: float
    """Seconds a prompt at the larger batch that was timed; between ``seen`` and what follows from
    the responses that had ended."""
    seen: float
    """Seconds a prompt at the larger batch that was timed; where the time was up before it had
    ended, as if some responses went on to the limit."""
    tokens: float
    """Tokens a second there; of such a batch, tokens at most."""
    samples: int
    """K."""
    length: float
    """Mean tokens of a response there; the limit where the time was up before they had ended."""

    def seconds(self, prompts: int, samples: int, batches: int) -> tuple[float, float]:
        """Fewest and most seconds of so many samples per prompt and a greedy response each."""
        share = prompts * (samples + 1) / self.samples
        most = share * self.seen
        return min(most, (batches + 1) * self.steps + share * self.prompt), most


def pace(
    policy: Policy,
    prompts: Sequence[Prompt],
    samples: int,
    *,
    max_tokens: int,
    seed: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Pace:
    """Time sampling, ``LONGEST`` seconds a batch or, where many responses are long, ``PATIENT``.

    Args:
        samples: per prompt.
        clock: seconds from any fixed moment.
    """

    def timed(some: Sequence[Prompt]) -> tuple[float, float, float, float]:
        """Seconds by the share that is done, seconds at most, tokens a second, length."""
        began, done = clock(), 0.0
        at = [began]  # of every step

        def ends() -> tuple[float, float]:
            # Responses that have ended count as done; those left may go on to the limit, at the
            # pace of the last steps.
            took, last = at[-1] - began, at[-STEPS:]
            step = (last[-1] - last[0]) / (len(last) - 1)
            low = took * len(some) / done
            return low, max(low, took + step * (max_tokens - len(at) + 1))

        def advance(units: float) -> None:
            nonlocal done
            done += units
            at.append(clock())
            took = at[-1] - began
            if took > LONGEST:
                low, most = ends()
                if took > PATIENT or most < 2 * low:
                    raise _Enough

        try:
            made = policy.sample(some, samples, seed=seed, max_tokens=max_tokens, advance=advance)
        except _Enough:
            low, most = ends()
            return low, most, len(some) * samples * max_tokens / most, float(max_tokens)
        took = max(clock() - began, 1e-9)
        tokens = sum(map(len, made.tokens_R))
        return took, took, tokens / took, tokens / len(made)

    one, most, rate, length = timed(prompts[:1])
    n = min(HANDFUL, len(prompts))
    if n == 1 or most * len(prompts) < TINY:
        return Pace(0.0, one, math.sqrt(one * most), most, rate, samples, length)
    low, most, rate, length = timed(prompts[:n])
    more = max(0.0, (low - one) / (n - 1))
    likely = math.sqrt(low * most) / n
    return Pace(max(0.0, one - more), more, likely, most / n, rate, samples, length)


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``srlm measure`` and ``srlm forecast`` are about to do."""

    prompts: int
    samples: int
    max_tokens: int
    search: float
    """Seconds of search, at most; 0: there is none, and no greedy response."""
    low: float
    high: float
    """Seconds of sampling."""
    rate: float
    """Tokens a second."""
    memory: int | None
    """Peak bytes by ``policies.devices``, at most; None where it is not known."""

    def lines(self) -> list[str]:
        """What is said before the work."""
        a_prompt = self.samples + (self.search > 0)
        what = f"{self.samples} samples" + (" and a greedy response" if self.search else "")
        then = f"; search at most {duration(self.search)}" if self.search else ""
        cost = f"sampling {duration(self.low)} to {duration(self.high)}"
        if self.search:
            cost += f", with search at most {duration(self.high + self.search)}"
        if self.memory:
            cost += f"; memory at most {self.memory / 1e9:.2f} GB"
        return [
            f"Plan: {self.prompts} prompts x {what} x {self.max_tokens} tokens = "
            f"{self.prompts * a_prompt * self.max_tokens} tokens at most{then}",
            f"Cost: {self.rate:.1f} tokens/s; {cost}",
        ]


def plan(
    policy: Policy,
    prompts: Sequence[Prompt],
    config: C,
    max_tokens: int,
    budget: float | None = None,
    *,
    search: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Plan | None, C]:
    """The plan, and the settings that fit it to ``budget`` seconds, its own included.

    Prompts are cut first, to ``LEAST``; then samples, to ``LEAST``; then prompts to one. Search
    gets ``SEARCH_SHARE`` of the time at most. None for exact policies, which are enumerated.
    """
    if isinstance(policy, Exact):
        return None, config
    began, held_now = clock(), 0
    if isinstance(policy, Differentiable):
        held_now = beside_weights(policy.budget.device, policy.budget.shape)
    found = pace(
        policy, prompts, config.samples, max_tokens=max_tokens, seed=config.seed, clock=clock
    )
    P, K, seconds = len(prompts), config.samples, config.seconds if search else 0.0
    if budget is not None:
        seconds = min(seconds, SEARCH_SHARE * budget)
        room = max(0.0, budget - (clock() - began) - seconds)
        responses = int(room / (found.likely / found.samples))
        P = min(P, max(LEAST, responses // (K + 1)))
        K = min(K, max(LEAST, responses // P - 1))
        P = min(P, max(1, responses // (K + 1)))
        config = config.model_copy(update={"most_prompts": P, "samples": K})
        config = config.model_copy(update={"seconds": seconds}) if search else config
    memory, batches = None, P
    if isinstance(policy, Differentiable) and isinstance(policy, Language):
        longest = max(len(policy.encode(x)) for x in prompts)
        nodes = min(config.tokens, config.nodes * P) if search else 0
        memory = held_now + policy.budget.measuring(P, P * K, nodes, longest, max_tokens)
        batches = math.ceil(P * K / policy.budget.rows(longest + max_tokens))
    low, high = found.seconds(P, K, batches)
    return Plan(P, K, max_tokens, seconds, low, high, found.tokens, memory), config
