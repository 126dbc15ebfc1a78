"""What the theory says of a run before it is made: bounds, rounds and pairs needed, what limits it.

Everything follows from the T-round bound of [SR] Theorem 5.3, iterated numerically, and holds up to
its universal constant. Such bounds are pessimistic by orders of magnitude: they rank choices and
name what limits a run; `srlm.theory.calibrate` predicts one from its own first rounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from srlm.theory.bounds import (
    Bound,
    check_count,
    check_not_negative,
    check_positive,
    check_probability,
)
from srlm.theory.compact import compact_recursion, rounds_to_forget
from srlm.theory.lower_bound import STATED_CEILING, lower_bound_delta
from srlm.theory.problem import Problem
from srlm.theory.recursion import (
    check_start,
    final_failure_closed,
    iterate_kappa,
)

Limit = Literal["nothing", "beta", "rounds", "pairs"]
MOST_ROUNDS_TRIED = 32


@dataclass(frozen=True)
class Plan:
    """The bounds for one run, and what would meet the target.

    problem:          what was given
    rounds, samples:  T and pairs a round that the bounds below are for: given, or chosen; None
                      where no number meets the target
    eps:              statistical error of a round, nats (inf where samples is None)
    kappa_path:       bound on kappa_0..kappa_T, iterated
    failure:          P[pi_T(y*|x) <= 1/2], iterated;  failure_closed: in closed form
    lower_bound:      failure that no learner avoids after one round's samples on the worst
                      instance (0 where kappa0 < 2: no claim)
    fixed_point, contraction, rounds_to_forget: u*, lambda and Cor. 5.7 of the compact recursion
                      (at eps = 0 where samples is None)
    rounds_needed:    least T that meets the target with these samples; None: no T does
    samples_needed:   least pairs a round that meet it in these rounds; None: no number does
    pairs_needed:     samples_needed * rounds, in all
    beta_needed:      largest beta with which the target can be met at all (beta itself if it can)
    limited_by:       "nothing", "beta", "rounds" or "pairs";  why: in words, with numbers
    """

    problem: Problem
    rounds: int | None
    samples: int | None
    eps: float
    kappa_path: tuple[float, ...]
    failure: Bound | None
    failure_closed: Bound | None
    lower_bound: float
    fixed_point: float
    contraction: float
    rounds_to_forget: int
    rounds_needed: int | None
    samples_needed: int | None
    pairs_needed: int | None
    beta_needed: float
    limited_by: Limit
    why: str


def plan(
    kappa0: float,
    margin: float,
    confidence: float,
    beta: float,
    complexity: float,
    rounds: int | None = None,
    samples: int | None = None,
    *,
    target: float = 0.1,
    log_responses: float | None = None,
    rho: float = 0.05,
    constant: float = 1.0,
) -> Plan:
    """Bounds, rounds and pairs for a run with these numbers, and what limits it.

    kappa0: condition number of the start, >= 1.  margin: gamma > 0, nats.
    confidence: mu in (0, 1], with kappa0 <= 1/mu.  beta: > 0.  complexity: log|Pi| > 0, nats (or a
    log covering number).  rounds: T >= 1.  samples: pairs a round, >= 1.
    target: tolerated failure in (0, 1].  log_responses: log C_loss, nats; left out, it is taken as
    log|Pi| (a class that can make any response the mode has |Pi| >= |Y|).
    rho: in (0, 1].  constant: c > 0.

    What is left out is chosen: rounds and samples with the least product, among up to 32 rounds;
    given rounds alone, the least samples that meet the target; given samples alone, the least
    rounds that do, or, where none do, those with the least bound.
    What limits, in this order: *beta*, where data without end and any rounds do not meet the
    target; *rounds*, where data without end do not in these rounds; *pairs*; else nothing.

    Source: [SR] Theorem 5.3, Cor. 5.7, Thm 4.1.  Raises UserError by name.
    Cost: under a second.

    >>> made = plan(4.0, 1.0, 0.1, 0.05, 50.0)
    >>> made.limited_by, made.rounds, made.failure.vacuous
    ('nothing', 4, False)
    >>> plan(4.0, 1.0, 0.1, 0.05, 50.0, rounds=4, samples=1000).limited_by
    'pairs'
    >>> plan(4.0, 1.0, 0.1, 2.0, 50.0).limited_by
    'beta'
    """
    complexity = check_positive("complexity", complexity)
    problem = Problem(
        kappa0=check_start(kappa0, check_probability("confidence", confidence)),
        margin=check_positive("margin", margin),
        confidence=confidence,
        beta=check_positive("beta", beta),
        complexity=complexity,
        log_responses=check_not_negative(
            "log_responses", complexity if log_responses is None else log_responses
        ),
        target=check_probability("target", target),
        rho=check_probability("rho", rho),
        constant=check_positive("constant", constant),
    )
    rounds = None if rounds is None else check_count("rounds", rounds)
    samples = None if samples is None else check_count("samples", samples)
    limited_by, why = _limit(problem, rounds, samples)
    chosen_rounds, chosen_samples = _choose(problem, rounds, samples)
    eps = math.inf if chosen_samples is None else problem.eps(chosen_samples)
    compact = compact_recursion(0.0 if chosen_samples is None else eps, beta, margin, confidence)
    numbers = {"eps": eps, "beta": beta, "margin": margin, "mu": confidence}
    failure = failure_closed = None
    path: tuple[float, ...] = (problem.kappa0,)
    if chosen_rounds is not None and chosen_samples is not None:
        failure = problem.failure(chosen_rounds, eps)
        failure_closed = final_failure_closed(problem.kappa0, chosen_rounds, **numbers)
        path = tuple(iterate_kappa(problem.kappa0, chosen_rounds, **numbers).tolist())
    samples_needed = None if chosen_rounds is None else problem.samples_for(chosen_rounds)
    return Plan(
        problem=problem,
        rounds=chosen_rounds,
        samples=chosen_samples,
        eps=eps,
        kappa_path=path,
        failure=failure,
        failure_closed=failure_closed,
        lower_bound=0.0
        if chosen_samples is None or kappa0 < 2.0
        else min(STATED_CEILING, lower_bound_delta(chosen_samples, kappa0, complexity)),
        fixed_point=compact.fixed_point,
        contraction=compact.contraction,
        rounds_to_forget=rounds_to_forget(problem.kappa0, compact.a, compact.slope),
        rounds_needed=None if chosen_samples is None else problem.rounds_for(eps),
        samples_needed=samples_needed,
        pairs_needed=None
        if samples_needed is None or chosen_rounds is None
        else samples_needed * chosen_rounds,
        beta_needed=problem.beta_for() if limited_by == "beta" else problem.beta,
        limited_by=limited_by,
        why=why,
    )


def _limit(problem: Problem, rounds: int | None, samples: int | None) -> tuple[Limit, str]:
    target = problem.target
    enough = problem.rounds_for(0.0)
    if enough is None:
        return "beta", (
            f"beta {problem.beta:g} is too large for the margin {problem.margin:g}: "
            f"2 beta log(kappa)/gamma stays above {target:g} with data without end"
        )
    if rounds is not None and problem.failure(rounds, 0.0).raw > target:
        return "rounds", f"data without end need {enough} rounds to reach {target:g}"
    if samples is None:
        return "nothing", f"the target {target:g} can be met"
    eps = problem.eps(samples)
    needed = problem.rounds_for(eps)
    if needed is None:
        return "pairs", f"{samples} pairs a round do not reach {target:g} in any number of rounds"
    if rounds is not None and problem.failure(rounds, eps).raw > target:
        return "rounds", f"{samples} pairs a round need {needed} rounds to reach {target:g}"
    return "nothing", f"{samples} pairs a round reach {target:g} in {needed} rounds"


def _choose(
    problem: Problem, rounds: int | None, samples: int | None
) -> tuple[int | None, int | None]:
    if rounds is not None and samples is not None:
        return rounds, samples
    if rounds is not None:
        return rounds, problem.samples_for(rounds)
    if samples is not None:
        eps = problem.eps(samples)
        return problem.rounds_for(eps) or problem.best_rounds(eps), samples
    offers = [
        (found, tried)
        for tried in range(1, MOST_ROUNDS_TRIED + 1)
        if (found := problem.samples_for(tried)) is not None
    ]
    if not offers:
        return None, None
    found, tried = min(offers, key=lambda offer: offer[0] * offer[1])
    return tried, found
