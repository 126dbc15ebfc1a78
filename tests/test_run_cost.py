"""What a run will cost, how it is cut to a time, and that it ends there and goes on."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srlm import runner
from srlm.config import resolve
from srlm.cost import Pace
from srlm.defaults import settle
from srlm.grading import EXACT
from srlm.policies import devices
from srlm.progress import Progress
from srlm.run_cost import LEAST_PROMPTS, LEAST_SAMPLES, Paces, RunPlan, fitted, plan_run
from srlm.runner import dry_run, run
from srlm.writing import read_json
from tests import tiny
from tests.test_run_folder import causal_job, contents

S, G, N = 0.5, 0.25, 6.0
"""Seconds a position scored and trained on; tokens of a prompt."""


def made(**changes: Any) -> RunPlan:
    """Of 40 + 20 prompts, K samples a prompt taking K seconds in any batch; 3 tokens long."""
    config = tiny.config(
        Path("m"),
        Path("p"),
        **{"reward": "likelihood", "measure.samples": 16, "measure.seconds": 120.0} | changes,
    )
    paces = Paces(Pace(0.0, 4.0, 4.0, 4.0, 9.0, 4, 3.0), S, G, N)
    return RunPlan(config, 40, 20, paces, None, None)


def test_the_time_of_a_round() -> None:
    """Against sums done by hand: 4 samples of 4 tokens, one epoch, 40 prompts; 16 samples on 20."""
    plan = made()
    low, update = (40 * 5 + 40 * (N + 4 * length) * (G + S / 8) for length in (3, 4))
    least, measure = (20 * 17 + 20 * (N + 16 * length) * S for length in (3, 4))
    assert plan.update() == pytest.approx((low, update))
    assert plan.measure() == pytest.approx((least, measure + 120))
    assert plan.seconds() == pytest.approx((3 * least + 2 * low, 3 * (measure + 120) + 2 * update))
    scored = made(reward="self-certainty").update()[1]
    assert scored - update == pytest.approx(40 * (N + 4 * 4) * S)
    judged = made(reward="judge", **{"judge.judgements": 2, "judge.max_tokens": 8}).update()[1]
    assert judged - update == pytest.approx(2 * 40 * 4.0 * 8 / 4)


@pytest.mark.parametrize("room", [1.0, 500.0, 2000.0, 4000.0, 1e9])
def test_a_run_is_cut_in_the_stated_order(room: float) -> None:
    plan, cut = fitted(made(), room)
    config = plan.config
    now = (plan.a_round, config.samples.per_prompt, plan.measuring, config.measure.samples)
    whole, least = (40, 4, 20, 16), (LEAST_PROMPTS, LEAST_SAMPLES, LEAST_PROMPTS, LEAST_SAMPLES)
    assert all(a <= b <= c for a, b, c in zip(least, now, whole, strict=True))
    assert plan.seconds()[1] <= room or now == least
    at = [i for i, (a, b) in enumerate(zip(now, whole, strict=True)) if a < b]
    assert all(now[i] == least[i] for i in at[:-1])  # one is cut in part, those before it whole
    if room == 1e9:
        assert (now, cut) == (whole, [])
        assert config == made().config
    if at and room > 1 and now != least:  # and no further than needed
        name = ("samples.prompts", "samples.per_prompt", "measure.prompts", "measure.samples")[
            at[-1]
        ]
        section, _, field = name.partition(".")
        part = getattr(config, section).model_copy(update={field: now[at[-1]] + 1})
        more = replace(plan, config=config.model_copy(update={section: part}))
        assert more.seconds()[1] > room


def test_policies_on_disk() -> None:
    for keep, count in (("all", 2), ("best-and-last", 2), ("1", 2)):
        assert made(keep=keep).policies == count
    for keep, count in (("all", 9), ("best-and-last", 3), ("1", 2), ("20", 9)):
        assert made(keep=keep, rounds=9).policies == count
    assert made(keep="1", rounds=9, **{"update.lora": 2}).policies == 9  # adapters on adapters


def test_timing_changes_nothing() -> None:
    policy, x = tiny.policy(), tiny.texts(20)
    before = [p.detach().clone() for p in policy.parameters()]
    asked = tiny.config(Path("m"), Path("p"))
    for lora in (0, 2):
        update = asked.update.model_copy(update={"lora": lora})
        config = settle(asked.model_copy(update={"update": update}), policy, 14, EXACT, 4).config
        plan = plan_run(policy, x[:14], x[14:], config)
        assert plan is not None
        assert plan.paces.score > 0
        assert plan.paces.train > 0
        whole = sum(4 * p.numel() for p in before)
        assert plan.policy_bytes is not None
        assert lora or plan.policy_bytes == whole
        assert plan.memory is not None
        assert plan.memory > whole
    after = policy.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is None for p in after)
    assert plan_run(tiny.tabular(), x[:14], x[14:], asked) is None


@pytest.mark.skipif(not devices.STATUS.is_file(), reason="the system does not say")
def test_memory_counts_what_the_process_holds_beside_the_weights() -> None:
    policy, cpu = tiny.policy(), torch.device("cpu")
    shape = policy.budget.shape
    before = devices.beside_weights(cpu, shape)
    more = torch.ones(1 << 24)  # 64 MB
    after = devices.beside_weights(cpu, shape)
    assert after - before > 0.9 * more.nbytes
    weights = shape.width * shape.parameters
    assert devices.beside_weights(torch.device("meta"), shape) == 0
    x = tiny.texts(20)
    config = settle(tiny.config(Path("m"), Path("p")), policy, 14, EXACT, 4).config
    plan = plan_run(policy, x[:14], x[14:], config)
    assert plan is not None and plan.memory is not None
    assert plan.memory > before + 0.9 * more.nbytes + weights


def test_a_run_ends_when_its_time_is_up_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that is read once before, once as the loop begins, and once a round."""
    monkeypatch.setattr(runner, "write_page", lambda summary: summary.folder / "report.html")
    config = causal_job(tmp_path / "in", rounds=3)
    out = tmp_path / "out"
    ticks = itertools.count()
    first = run(config, out, budget=5.5, clock=lambda: float(next(ticks)))
    # read at 0, 1 and 2; rounds end at 3, 4 and 5, and another would end at 6
    assert [r.round for r in first.rounds] == [0, 1, 2]
    stop = read_json(out / "stop.json")
    assert (stop["code"], stop["round"]) == ("time", 2)
    kept = dict(first.config)
    again = run(config, out, budget=1e-3)  # by what rounds took before
    assert [r.round for r in again.rounds] == [0, 1, 2]
    assert not (out / "rounds/003/policy").exists()
    more = run(config, out)
    assert len(more.rounds) == 4
    assert not (out / "stop.json").exists()
    assert dict(more.config) == kept
    run(resolve(out / "config.yaml", {}), tmp_path / "whole")
    one, other = contents(out), contents(tmp_path / "whole")
    assert sorted(one) == sorted(other)
    assert [n for n in one if one[n] != other[n]] == ["manifest.json"]  # what was asked for


def test_a_plan_writes_nothing(tmp_path: Path) -> None:
    config = causal_job(tmp_path / "in")
    before = sorted(tmp_path.rglob("*"))
    planned = dry_run(config, progress=Progress.silent())
    assert planned.update.lora == 0
    assert planned.update.lr == config.update.lr
    assert sorted(tmp_path.rglob("*")) == before
    assert np.isfinite(planned.measure.seconds)
