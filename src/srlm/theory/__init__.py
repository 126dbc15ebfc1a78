"""The theory: one function a statement, each with its source, and the plans that follow.

lower_bound    single-step lower bound in closed form
hard_family    the instances that attain it             adversary    the worst for each n
recursion      one round, the step of kappa, T rounds   compact      its contraction
greedy         when greedy decoding finds the mode      assumptions  what holds here
dimension      covering number, effective dimension     spectrum     which decay it follows
planner        rounds and pairs by the bounds           problem      what is given to it
calibrate      the recursion fitted to rounds seen      backtesting  how well that predicts
"""

from __future__ import annotations

from srlm.theory.adversary import Envelope, envelope, log_slope
from srlm.theory.assumptions import (
    Assumption,
    Range,
    least_confidence,
    least_margin,
    probability_range,
    realizability,
    realizability_linear,
    unique_mode,
)
from srlm.theory.backtesting import Backtest, backtest
from srlm.theory.bounds import Bound, kappa_bound, probability_bound
from srlm.theory.calibrate import Calibration, RoundForecast, fit_rounds, predict_rounds
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
from srlm.theory.planner import Plan, plan
from srlm.theory.problem import Problem
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
    "Assumption",
    "Backtest",
    "Bound",
    "Calibration",
    "Compact",
    "DecayFit",
    "Envelope",
    "HardInstance",
    "Plan",
    "Problem",
    "Range",
    "RoundForecast",
    "TablePolicy",
    "backtest",
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
    "fit_rounds",
    "fixed_point",
    "generalised_coverage",
    "geometric_bound",
    "greedy_is_certain",
    "greedy_trap",
    "hard_instance",
    "iterate_kappa",
    "kappa_bound",
    "kappa_step",
    "least_confidence",
    "least_margin",
    "log_covering_number",
    "log_slope",
    "lower_bound_delta",
    "lower_bound_samples",
    "one_round_bound",
    "plan",
    "polynomial_bound",
    "predict_rounds",
    "probability_bound",
    "probability_range",
    "realizability",
    "realizability_linear",
    "round_error",
    "rounds_to_forget",
    "simulate_failure",
    "spiked_bound",
    "statistical_error",
    "unique_mode",
]
