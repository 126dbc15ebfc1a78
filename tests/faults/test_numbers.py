"""Numbers at their ends: a named error with the last good policy kept, or a result that is one."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srlm.config import UpdateSettings
from srlm.errors import UserError
from srlm.loop import self_reward
from srlm.policies.base import Policy
from srlm.policies.tabular import Tabular, rows
from srlm.rounds import Method
from srlm.run_folder import Memory
from srlm.runner import run
from srlm.types import Prompt, Samples
from tests import tiny


def short(tmp_path: Path, words: Any = None, network: Any = None, **changes: Any) -> Path:
    """A run of one round; its folder."""
    model = tiny.saved(tmp_path / "model", words=words, **(network or {}))
    file = tiny.write_prompts(tmp_path / "p.jsonl", tiny.texts(12), ["a"] * 12)
    run(tiny.config(model, file, rounds=1, **changes), tmp_path / "out")
    return tmp_path / "out"


def records(out: Path) -> list[dict[str, Any]]:
    """The rounds, as strict JSON."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = (out / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_no_reward_names_it_and_shows_three(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"judge gave none to \d+ responses, such as '") as error:
        short(tmp_path, reward="judge", **{"judge.max_tokens": 2})
    assert error.value.problem.count("', '") == 2
    assert (tmp_path / "out" / "rounds" / "000" / "policy").is_dir()


@pytest.mark.parametrize("beta", [1e-9, 1e-3, 1e3, 1e9])
@pytest.mark.parametrize("zero", [False, True])
def test_strengths_and_zero_probabilities(beta: float, zero: bool) -> None:
    theta = np.random.default_rng(0).standard_normal((6, 5))
    if zero:
        theta[:, 0] = -np.inf
    made = self_reward(
        Tabular(theta), rows(6)[:4], rows(6)[4:], rounds=2,
        method=Method(update=UpdateSettings(beta=beta)), folder=(memory := Memory()),
    )  # fmt: skip
    with contextlib.suppress(UserError):
        for record in made:
            value = record["confidence"].value
            assert value is not None and 0 <= value <= 1
    p = np.exp(memory.policy.log_table(rows(6)))  # type: ignore[attr-defined]
    np.testing.assert_allclose(p.sum(axis=1), 1)
    if zero:
        assert (p[:, 0] == 0).all()


@pytest.mark.parametrize("value", [0.0, 3.0, -1e300])
def test_rewards_that_are_all_equal_change_no_exact_policy(value: float) -> None:
    def constant(_: Policy, __: list[Prompt], samples: Samples) -> np.ndarray:
        return np.full(len(samples), value)

    policy = Tabular(np.zeros((6, 4)))
    method = Method(reward=constant)  # type: ignore[arg-type]
    memory = Memory()
    for _ in self_reward(policy, rows(6)[:4], rows(6)[4:], rounds=1, method=method, folder=memory):
        pass
    assert np.isfinite(memory.policy.log_table(rows(6))).all()  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "changes"),
    [
        ({"scale": 1.0}, {}),  # nearly one response alone
        ({"eos": None, "scale": 1e-6}, {}),  # no end in sight, all equal
        ({}, {"update.beta": 1e-9}),
        ({}, {"update.beta": 1e9}),
        ({}, {"samples.max_tokens": 1}),
    ],
)
def test_networks_at_their_ends(
    tmp_path: Path, network: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert len(records(short(tmp_path, network=network, **changes))) == 2


def test_a_rank_above_every_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--lora 1000000"):
        short(tmp_path, **{"update.lora": 10**6})
