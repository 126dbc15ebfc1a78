"""When greedy decoding finds the mode, and the policies on which it does not.

[SR] Proposition 4.3 ([SM] Proposition 3.1): if p*(x) = max_y pi(y|x) > 1/2, greedy decoding
returns the mode (which is then unique); for every p* <= 1/2 some autoregressive policy makes it
return something else.

Where the threshold is sharp: for p* < 1/2 the trap token is strictly the likelier one. At
p* = 1/2 exactly every token off the mode's path has probability at most 1/2 at every step, so
greedy can miss only by a tie; the trap token has the lower number, and argmax takes the first.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from srlm.errors import UserError
from srlm.theory.bounds import check_probability

TRAP, FIRST = 0, 1  # token numbers: the trap, and the first token of the mode


@dataclass(frozen=True)
class TablePolicy:
    """An autoregressive policy written out: every response with its probability.

    responses:     tuples of token numbers; none is the beginning of another, so each ends itself
    probabilities: one a response, summing to 1
    """

    responses: tuple[tuple[int, ...], ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.responses) != len(self.probabilities) or not self.responses:
            raise UserError("responses and probabilities differ in number", "give one for each")
        if min(self.probabilities) < 0.0 or not math.isclose(math.fsum(self.probabilities), 1.0):
            raise UserError("the probabilities are not a distribution", "make them sum to 1")
        beginnings = {y[:length] for y in self.responses for length in range(len(y))}
        if len(set(self.responses)) < len(self.responses) or beginnings & set(self.responses):
            raise UserError(
                "a response is repeated, or is the beginning of another", "end each with its own"
            )

    def next_token(self, prefix: tuple[int, ...]) -> dict[int, float]:
        """Token -> pi(token | prefix), by summing the table; empty once the response is over."""
        mass: defaultdict[int, list[float]] = defaultdict(list)
        for response, probability in zip(self.responses, self.probabilities, strict=True):
            if len(response) > len(prefix) and response[: len(prefix)] == prefix:
                mass[response[len(prefix)]].append(probability)
        sums = {token: math.fsum(parts) for token, parts in mass.items()}
        total = math.fsum(sums.values())
        return {token: sums[token] / total for token in sorted(sums)} if total > 0.0 else {}

    def greedy(self) -> tuple[int, ...]:
        """The likeliest token at each step, the lowest number at a tie (as argmax does)."""
        prefix: tuple[int, ...] = ()
        while step := self.next_token(prefix):
            prefix = (*prefix, max(step, key=lambda token: (step[token], -token)))
        return prefix

    def mode(self) -> tuple[int, ...]:
        """The likeliest response, by looking at all of them."""
        best = max(range(len(self.responses)), key=self.probabilities.__getitem__)
        return self.responses[best]


def greedy_is_certain(p_star: float) -> bool:
    """Whether p* alone guarantees that greedy decoding returns the mode: p* > 1/2.

    If greedy left the mode's path, the token it took there would be at least as likely as the
    mode's, whose conditional probability is at least p* > 1/2: two disjoint events above 1/2.

    p_star: confidence in (0, 1].  Source: [SR] Prop. 4.3.  Raises UserError by name.

    >>> greedy_is_certain(0.51), greedy_is_certain(0.5)
    (True, False)
    """
    return check_probability("p_star", p_star) > 0.5


def greedy_trap(p_star: float) -> TablePolicy:
    """A policy with this confidence p* <= 1/2, a unique mode, and greedy decoding that misses it.

    The mode starts with token 1, of probability p*, and continues for sure. Token 0 has the other
    1 - p*, spread evenly over ceil(2(1-p*)/p*) continuations, so that each has at most p*/2: a
    margin of log 2 nats at least.

    p_star: in (0, 1/2].  Source: [SR] Prop. 4.3.  Raises UserError by name.
    Cost: about 2/p* responses.

    >>> policy = greedy_trap(0.4)
    >>> policy.responses, [round(p, 3) for p in policy.probabilities]
    (((1, 0), (0, 0), (0, 1), (0, 2)), [0.4, 0.2, 0.2, 0.2])
    >>> policy.mode(), policy.greedy()
    ((1, 0), (0, 0))
    """
    p_star = check_probability("p_star", p_star)
    if p_star > 0.5:
        raise UserError(
            f"p_star is {p_star}, above 1/2, where greedy decoding always finds the mode",
            "give p_star in (0, 1/2]",
        )
    spread = math.ceil(2.0 * (1.0 - p_star) / p_star - 1e-9)
    traps = tuple((TRAP, token) for token in range(spread))
    thin = (1.0 - p_star) / spread
    return TablePolicy(((FIRST, 0), *traps), (p_star, *[thin] * spread))
