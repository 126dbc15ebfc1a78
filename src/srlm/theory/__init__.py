"""The theory: one function per statement, each with its source.

lower_bound    single-step lower bound in closed form
hard_family    the instances that attain it             adversary    the worst for each n
recursion      one round, the step of kappa, T rounds   compact      its contraction
dimension      covering number, effective dimension     spectrum     which decay it follows
greedy         when greedy decoding finds the mode      bounds       a bound, vacuous or not
"""

from __future__ import annotations

from srlm.theory.adversary import Envelope, envelope, log_slope
from srlm.theory.bounds import Bound, kappa_bound, probability_bound
from srlm.theory.compact import (
    Compact,
    compact_recursion,
    contraction_factor,
    fixed_point,
    geometric_bound,
    rounds_to_forget,
)
from srlm.theory.dimension import (
    effective_dimension,
    exponential_bound,
    generalised_coverage,
    log_covering_number,
    polynomial_bound,
    spiked_bound,
)
from srlm.theory.greedy import TablePolicy, greedy_is_certain, greedy_trap
from srlm.theory.hard_family import (
    HardInstance,
    failure_probability,
    hard_instance,
    simulate_failure,
)
from srlm.theory.lower_bound import (
    STATED_CEILING,
    STATED_CONSTANT,
    lower_bound_delta,
    lower_bound_samples,
)
from srlm.theory.recursion import (
    final_failure,
    final_failure_closed,
    final_kappa,
    iterate_kappa,
    kappa_step,
    one_round_bound,
    round_error,
    statistical_error,
)
from srlm.theory.spectrum import CANNOT_BE_TOLD, DecayFit, fit_decay

__all__ = [
    "CANNOT_BE_TOLD",
    "STATED_CEILING",
    "STATED_CONSTANT",
    "Bound",
    "Compact",
    "DecayFit",
    "Envelope",
    "HardInstance",
    "TablePolicy",
    "compact_recursion",
    "contraction_factor",
    "effective_dimension",
    "envelope",
    "exponential_bound",
    "failure_probability",
    "final_failure",
    "final_failure_closed",
    "final_kappa",
    "fit_decay",
    "fixed_point",
    "generalised_coverage",
    "geometric_bound",
    "greedy_is_certain",
    "greedy_trap",
    "hard_instance",
    "iterate_kappa",
    "kappa_bound",
    "kappa_step",
    "log_covering_number",
    "log_slope",
    "lower_bound_delta",
    "lower_bound_samples",
    "one_round_bound",
    "polynomial_bound",
    "probability_bound",
    "round_error",
    "rounds_to_forget",
    "simulate_failure",
    "spiked_bound",
    "statistical_error",
]
