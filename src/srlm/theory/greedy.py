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

from srlm.errors import UserError
from srlm.theory.checks import check_probability

TRAP, FIRST = 0, 1  # token numbers: the trap, and the first token of the mode


def greedy_trap(p_star: float) -> tuple[tuple[tuple[int, ...], ...], tuple[float, ...]]:
    """Responses and probabilities of a policy with this confidence p* <= 1/2.

    Its mode, the first response, is unique, and greedy decoding misses it. The mode starts with
    token 1, of probability p*, and continues for sure. Token 0 has the other 1 - p*, spread evenly
    over ceil(2(1-p*)/p*) continuations, so that each has at most p*/2: a margin of log 2 nats at
    least.

    p_star: in (0, 1/2].  Source: [SR] Prop. 4.3.  Raises UserError by name.
    Cost: about 2/p* responses.

    >>> responses, probabilities = greedy_trap(0.4)
    >>> responses, [round(p, 3) for p in probabilities]
    (((1, 0), (0, 0), (0, 1), (0, 2)), [0.4, 0.2, 0.2, 0.2])
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
    return ((FIRST, 0), *traps), (p_star, *[thin] * spread)
