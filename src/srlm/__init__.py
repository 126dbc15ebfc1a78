"""srlm: self-rewarding language models, known before they are trained.

::

    import srlm

    policy = srlm.load("PATH")
    prompts = srlm.read_prompts("prompts.jsonl")
    print(srlm.make_forecast(policy, prompts).verdict)
    for r in srlm.self_reward(policy, prompts, rounds=3):
        print(r.round, r["kappa"])

Names are imported when they are first used, so that ``import srlm`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srlm.config import (
        JudgeSettings,
        MeasureSettings,
        RunConfig,
        SampleSettings,
        UpdateSettings,
        resolve,
    )
    from srlm.data import make_prompts, read_prompts, split
    from srlm.errors import UserError
    from srlm.forecast.make import make_forecast
    from srlm.forecast.sampling import forecast_rewards
    from srlm.grading import grader
    from srlm.loop import self_reward
    from srlm.measure.evaluate import evaluate
    from srlm.pairs import best_worst, groups, voted
    from srlm.policies.base import Policy
    from srlm.policies.hf import CausalLM
    from srlm.policies.linear_softmax import LinearSoftmax
    from srlm.policies.load import load
    from srlm.policies.tabular import Tabular
    from srlm.rewards.base import Mean, Scored
    from srlm.rewards.combined import combined
    from srlm.rewards.consistency import consistency
    from srlm.rewards.judge import judge
    from srlm.rewards.likelihood import likelihood
    from srlm.rewards.self_certainty import self_certainty
    from srlm.rounds import Method
    from srlm.run_folder import Memory, read_run
    from srlm.runner import run
    from srlm.train import best_of_n_objective as best_of_n
    from srlm.train import dpo_objective as dpo
    from srlm.train import ipo_objective as ipo
    from srlm.train import square_objective as square
    from srlm.train import weighted_objective as weighted
    from srlm.types import Estimate, Pairs, Prompt, Round, Samples

__version__ = "0.1.0"

__all__ = [
    "CausalLM",
    "Estimate",
    "JudgeSettings",
    "LinearSoftmax",
    "Mean",
    "MeasureSettings",
    "Memory",
    "Method",
    "Pairs",
    "Policy",
    "Prompt",
    "Round",
    "RunConfig",
    "SampleSettings",
    "Samples",
    "Scored",
    "Tabular",
    "UpdateSettings",
    "UserError",
    "best_of_n",
    "best_worst",
    "combined",
    "consistency",
    "dpo",
    "evaluate",
    "forecast_rewards",
    "grader",
    "groups",
    "ipo",
    "judge",
    "likelihood",
    "load",
    "make_forecast",
    "make_prompts",
    "read_prompts",
    "read_run",
    "resolve",
    "run",
    "self_certainty",
    "self_reward",
    "split",
    "square",
    "voted",
    "weighted",
]

_MODULES = {
    "config": "JudgeSettings MeasureSettings RunConfig SampleSettings UpdateSettings resolve",
    "data": "make_prompts read_prompts split",
    "errors": "UserError",
    "forecast.make": "make_forecast",
    "forecast.sampling": "forecast_rewards",
    "grading": "grader",
    "loop": "self_reward",
    "measure.evaluate": "evaluate",
    "pairs": "best_worst groups voted",
    "policies.base": "Policy",
    "policies.hf": "CausalLM",
    "policies.linear_softmax": "LinearSoftmax",
    "policies.load": "load",
    "policies.tabular": "Tabular",
    "rewards.base": "Mean Scored",
    "rewards.combined": "combined",
    "rewards.consistency": "consistency",
    "rewards.judge": "judge",
    "rewards.likelihood": "likelihood",
    "rewards.self_certainty": "self_certainty",
    "rounds": "Method",
    "run_folder": "Memory read_run",
    "runner": "run",
    "types": "Estimate Pairs Prompt Round Samples",
}
_PLACES = {name: (module, name) for module, names in _MODULES.items() for name in names.split()}
_PLACES |= {
    name: ("train", f"{name}_objective")
    for name in ("best_of_n", "dpo", "ipo", "square", "weighted")
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'srlm' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(f"srlm.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
