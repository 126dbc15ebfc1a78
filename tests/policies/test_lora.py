"""Adapters: they change nothing until trained, stay of low rank, and leave an ordinary model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from srlm import pairs
from srlm import train as update
from srlm.config import UpdateSettings, resolve
from srlm.errors import UserError
from srlm.policies import lora
from srlm.policies.hf import CausalLM
from srlm.policies.load import load
from srlm.policies.tabular import rows
from srlm.report import page
from srlm.runner import UPDATES, method_of, run
from tests import tiny

X = tiny.texts(12)
RANK = 2


def weights(policy: CausalLM) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


def fitted(policy: CausalLM, seed: int = 0, kind: str = "weighted") -> Any:
    config = resolve(None, {"model": "m", "prompts.file": "p", "update.kind": kind})
    samples = policy.sample(X, 6, seed=0, max_tokens=4)
    made = method_of(config).pair(samples, samples.logp_R)
    settings = UpdateSettings(prompts_per_step=4, epochs=4, lr=2e-2, beta=1.0, lora=RANK)
    objective = method_of(config).objective
    return update.fit(policy, X, made, objective, settings, seed=seed)[1]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_untrained_adapters_change_nothing(family: str) -> None:
    policy = tiny.policy(family)
    before, logp = weights(policy), policy.greedy(X, max_tokens=4).logp_R
    with lora.adapted(policy, RANK, None, seed=0):
        inside = policy.parameters()
        assert 0 < sum(p.numel() for p in inside) < sum(p.numel() for p in before.values())
        assert policy.greedy(X, max_tokens=4).logp_R == pytest.approx(logp, abs=1e-5)
    after = weights(policy)
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert len(policy.parameters()) == len(before)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_round_changes_linear_layers_by_low_rank(family: str, tmp_path: Path) -> None:
    policy = tiny.policy(family)
    before = weights(policy)
    report = fitted(policy)
    assert report.loss_after < report.loss_before - 0.1 * (report.loss_before - report.loss_floor)
    change = {name: p - before[name] for name, p in weights(policy).items()}
    moved = {name for name, delta in change.items() if bool((delta != 0).any())}
    assert {name.split(".")[-1] for name in moved} == {"weight"}
    assert not any("embed" in n or "norm" in n or "ln_" in n or "lm_head" in n for n in moved)
    for name in moved:
        assert torch.linalg.matrix_rank(change[name], rtol=1e-4) <= RANK
    policy.save(tmp_path / "kept")
    assert not [f for f in (tmp_path / "kept").iterdir() if "adapter" in f.name]
    again = load(tmp_path / "kept")
    samples = policy.sample(X, 3, seed=1, max_tokens=4)
    other = again.log_prob(X, samples.prompt_R, samples.tokens_R)
    assert (other == policy.log_prob(X, samples.prompt_R, samples.tokens_R)).all()
    copied = policy.copy()
    fitted(policy, seed=5)
    assert (copied.log_prob(X, samples.prompt_R, samples.tokens_R) == other).all()


@pytest.mark.parametrize("kind", UPDATES)
def test_every_update_trains_adapters(kind: str) -> None:
    report = fitted(tiny.policy("llama"), kind=kind)
    assert report.loss_after < report.loss_before


def test_the_seed_decides() -> None:
    one, same, other = (tiny.policy("llama") for _ in range(3))
    state = torch.get_rng_state()
    for policy, seed in ((one, 0), (same, 0), (other, 1)):
        fitted(policy, seed)
    assert torch.equal(torch.get_rng_state(), state)
    a, b, c = weights(one), weights(same), weights(other)
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert not all(torch.equal(a[n], c[n]) for n in a)


def test_alpha_scales() -> None:
    for alpha, scale in ((None, 2.0), (RANK, 1.0)):
        policy = tiny.policy("llama")
        before = weights(policy)
        with lora.adapted(policy, RANK, alpha, seed=0):
            pairs_AB = [m for m in policy.model.modules() if hasattr(m, "lora_A")]
            a, b = (getattr(pairs_AB[0], x)["default"].weight for x in ("lora_A", "lora_B"))
            with torch.no_grad():
                b.fill_(0.5)
            expected = scale * (b @ a).detach()
        name = "model.layers.0.self_attn.q_proj.weight"
        torch.testing.assert_close(weights(policy)[name] - before[name], expected)


def test_a_run_that_is_cut_off_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "write_page", lambda found: found.folder / "report.html")
    tiny.saved(tmp_path / "lm")
    file = tiny.write_prompts(tmp_path / "texts.jsonl", tiny.texts(20))
    config = tiny.config(tmp_path / "lm", file, **{"update.lora": RANK})
    whole = tmp_path / "whole"
    run(config, whole)
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "rounds" / "002")
    (cut / "rounds" / "001" / "pairs.parquet").unlink()
    run(config, cut)
    for name in ("policy/adapter_model.safetensors", "round.json", "held_out.parquet"):
        one, other = (folder / "rounds" / "002" / name for folder in (whole, cut))
        assert one.read_bytes() == other.read_bytes()
    assert not list(whole.rglob("model*.safetensors"))  # adapters on adapters on the base


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    table = tiny.tabular()
    samples = table.enumerate(rows(5))
    made = pairs.groups(samples, samples.logp_R)
    settings = UpdateSettings(lora=2)
    with pytest.raises(UserError, match="Tabular has no layers to adapt"):
        update.fit(table, rows(5), made, update.weighted_objective, settings, seed=0)
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--lora needs peft"):
        method_of(resolve(None, {"model": "m", "prompts.file": "p", "update.lora": 4}))
