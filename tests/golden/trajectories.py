"""Two small runs whose figures are committed, so that a change of meaning does not go unseen.

``python -m tests.golden.trajectories`` writes the files anew; say in the commit why they changed.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from srlm.config import MeasureSettings, PairSettings, SampleSettings, UpdateSettings, resolve
from srlm.grading import Grader
from srlm.loop import self_reward
from srlm.policies.base import Policy
from srlm.rounds import Method
from srlm.runner import method_of
from srlm.types import Prompt
from tests import tiny

FOLDER = Path(__file__).parent
NAMES = (
    "kappa",
    "failure_fraction",
    "confidence",
    "fidelity",
    "entropy",
    "length",
    "kl_to_base",
    "sampling_accuracy",
    "mode_accuracy",
    "margin",
    "exponent",
)

PARITY = Grader("parity", lambda text: str(len(text) % 2), str)
"""Of the response's length: an answer that has nothing to do with the policy."""
Trajectory = list[dict[str, float | None]]


def recipe(
    loss: str, samples: SampleSettings, update: UpdateSettings, pairs: PairSettings
) -> Method:
    """The functions that settings name."""
    config = resolve(None, {"model": "none", "prompts.file": "none"})
    parts = {"samples": samples, "update": update, "pairs": pairs}
    measure = MeasureSettings(samples=16)
    update = update.model_copy(update={"kind": loss, "tail": 0.0})  # the whole target
    settings = config.model_copy(update=parts | {"measure": measure, "update": update})
    return replace(method_of(settings), grader=PARITY)


def answered(x: list[Prompt]) -> list[Prompt]:
    """The prompts with answers, so that accuracies are measured."""
    return [Prompt(p.id, p.content, ("a" * (2 - int(p.id, 16) % 2),), p.line) for p in x]


def trajectory(policy: Policy, x: list[Prompt], held_out: list[Prompt], how: Method) -> Trajectory:
    """Figures of rounds 0 to 3."""
    out: Trajectory = []
    x, held_out = answered(x), answered(held_out)
    for done in self_reward(policy, x, held_out, method=how, rounds=3, seed=11):
        line: dict[str, float | None] = {n: done.estimates[n].value for n in NAMES}
        if done.update is not None:
            line |= {n: getattr(done.update, n) for n in ("loss_before", "loss_after", "steps")}
        out.append(line)
    return out


def linear() -> Trajectory:
    """Square loss on pairs, classes on vectors."""
    x = tiny.vectors(40, 4)
    policy = tiny.linear(4, 5, scale=0.8)
    policy.text_M = ("a", "bb", "ccc", "dddd", "eeeee")
    samples = SampleSettings(per_prompt=6, prompts=20)
    how = recipe("square", samples, UpdateSettings(beta=2.0), PairSettings(kind="pairs"))
    return trajectory(policy, x[:30], x[30:], how)


def causal_lm() -> Trajectory:
    """Weighted loss on groups, a tiny network."""
    x = tiny.texts(24)
    samples = SampleSettings(per_prompt=6, max_tokens=4)
    update = UpdateSettings(beta=1.0, lr=3e-3, prompts_per_step=4, epochs=2)
    how = recipe("weighted", samples, update, PairSettings(reward_floor=6.0))
    return trajectory(tiny.policy("llama"), x[:16], x[16:], how)


MADE = {"linear": linear, "causal_lm": causal_lm}

if __name__ == "__main__":
    for name, make in MADE.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(make(), indent=1) + "\n")
