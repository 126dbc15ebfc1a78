"""Updates by several processes: ``torchrun ... -m tests.spread OUT``; rank r writes OUT.r.

Each case is an update of a tiny model. ``gradient`` is that of a round's loss in float64, before
any step.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from srlm import train
from srlm.config import UpdateSettings
from srlm.policies.hf import CausalLM
from srlm.types import Pairs, UpdateReport
from tests import tiny

X = tiny.texts(9)


@dataclass(frozen=True)
class Case:
    """An update."""

    objective: train.Objective = train.weighted_objective
    family: str = "llama"
    settings: dict[str, Any] = field(default_factory=dict)


CASES = {
    "weighted": Case(),
    "dpo": Case(train.dpo_objective, settings={"lr": 1e-3}),
    "tied": Case(train.square_objective, "gpt2"),
    "adapters": Case(settings={"lora": 4, "lr": 1e-2}),
    "large groups": Case(settings={"pass_tokens": 30}),
    "a group a step": Case(settings={"prompts_per_step": 1}),
}


def flat(policy: CausalLM) -> torch.Tensor:
    """All parameters, one after another."""
    return torch.cat([p.detach().double().flatten() for p in policy.model.parameters()])


def paired(policy: CausalLM, objective: train.Objective) -> Pairs:
    """A round's pairs."""
    made = policy.sample(X, 8, seed=1, max_tokens=6)
    return objective.pair(made, made.logp_R)


def updated(case: Case, passes: train.Open) -> tuple[CausalLM, UpdateReport]:
    """The policy after an update, and the report."""
    policy = tiny.policy(case.family)
    settings = UpdateSettings(
        **{"beta": 1.0, "lr": 2e-3, "epochs": 2, "prompts_per_step": 4} | case.settings
    )
    found = paired(policy, case.objective)
    new, report = train.fit(policy, X, found, case.objective, settings, seed=0, passes=passes)
    assert isinstance(new, CausalLM)
    return new, report


def gradient(passes: train.Open, positions: int | None) -> torch.Tensor:
    """Of the mean loss of a round, all parameters, float64."""
    policy = tiny.policy("gpt2")
    found = paired(policy, train.weighted_objective)
    policy.model.double()
    settings = UpdateSettings(beta=1.0, pass_tokens=positions)
    with passes(policy, X, found, train.weighted_objective, settings) as work, ExitStack() as stack:
        held = train.Held(work.parameters())
        work.gradient(np.arange(found.groups), held, stack)
        grads = [p.grad for p in held.wide]
        whole = [g.full_tensor() if isinstance(g, DTensor) else g for g in grads]
        return torch.cat([g.flatten() for g in whole if g is not None])


def everything(passes: train.Open, names: Iterable[str] = CASES) -> dict[str, Any]:
    """Cases: parameters and losses; and gradients."""
    found: dict[str, Any] = {}
    for name in names:
        case = CASES[name]
        policy, report = updated(case, passes)
        made = paired(tiny.policy(case.family), case.objective)
        logp_R = policy.log_prob(X, made.prompt_R, made.tokens_R)
        start = tiny.policy(case.family).log_prob(X, made.prompt_R, made.tokens_R)
        losses = [report.loss_before, report.loss_after]
        found[name] = {"flat": flat(policy), "moved": logp_R - start, "losses": losses}
    for positions in (None, 30):
        found[f"gradient {positions}"] = gradient(passes, positions)
    return found


def main(out: str) -> None:
    """All cases."""
    from srlm.parallel import together

    dist.init_process_group("gloo")
    torch.save(everything(together), Path(f"{out}.{dist.get_rank()}"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
