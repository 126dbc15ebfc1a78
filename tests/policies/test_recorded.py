"""Recorded steps: the same bits as the model's own, or not used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from srlm.policies import recorded
from srlm.policies.hf import CausalLM
from srlm.policies.linear import WideLinear, wide
from srlm.policies.recorded import Steps
from srlm.types import Samples
from tests import tiny

PROMPTS = tiny.texts(6)
EVEN = tiny.texts(6, least=4, most=4)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "_KNOWN", {})


def drawn(policy: CausalLM, after: int, monkeypatch: pytest.MonkeyPatch, **how: Any) -> Samples:
    """Draws with steps recorded after so many; the second of two times, which replays."""
    monkeypatch.setattr(recorded, "AFTER", after)
    recorded._KNOWN.clear()
    fresh = CausalLM(policy.model, policy.tokenizer, batch_rows=policy.batch_rows)
    for _ in range(2):
        samples = fresh.sample(how.get("prompts", PROMPTS), 5, seed=3, max_tokens=20)
    policy._steps = fresh._steps
    return samples


def replays(policy: CausalLM) -> int:
    """Kinds of steps that are replayed."""
    known = policy.steps()._known
    return sum(k.replay is not None for k in known.kinds.values()) * (not known.hopeless)


def same(one: Samples, other: Samples) -> bool:
    """Bit for bit."""
    return one.tokens_R == other.tokens_R and all(
        np.array_equal(a, b)
        for a, b in zip(one.token_logp_R or (), other.token_logp_R or (), strict=True)
    )


@pytest.mark.parametrize("prompts", [PROMPTS, EVEN], ids=["padded", "even"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_recording_changes_no_bit(
    family: str, prompts: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mistral's window of 4 tokens is passed on the way."""
    policy = tiny.policy(family)
    called = drawn(policy, 10**9, monkeypatch, prompts=prompts)
    assert not replays(policy)
    for after in (0, 3):
        assert same(called, drawn(policy, after, monkeypatch, prompts=prompts))
        assert replays(policy)


def test_searching_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second tree replays what the first one recorded."""

    def scores(policy: CausalLM) -> list[torch.Tensor]:
        tree = policy.tree(PROMPTS, max_tokens=6)
        node_B, logp_BV = tree.roots()
        found = [logp_BV]
        for _ in range(4):
            node_B, logp_BV = tree.extend(node_B, logp_BV.argmax(-1).numpy())
            found.append(logp_BV)
        return found

    policy = tiny.policy()
    monkeypatch.setattr(recorded, "AFTER", 10**9)
    called = scores(policy)
    monkeypatch.setattr(recorded, "AFTER", 0)
    for _ in range(2):
        assert all(map(torch.equal, called, scores(policy)))
    assert replays(policy)


@pytest.mark.skipif(not wide(), reason="no AVX-512")
def test_wide_products_are_recorded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy(hidden_size=128, intermediate_size=256, batch_rows=64)
    assert any(isinstance(m, WideLinear) for m in policy.model.modules())
    prompts = tiny.texts(64)
    called = drawn(policy, 10**9, monkeypatch, prompts=prompts)
    assert same(called, drawn(policy, 0, monkeypatch, prompts=prompts))
    assert {any(wide_of) for _, wide_of in policy.steps()._known.kinds} == {True, False}
    assert all(kind.replay is not None for kind in policy.steps()._known.kinds.values())


def test_parameters_that_moved_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a step of an update, or by tensors put in their place."""
    policy = tiny.policy()
    monkeypatch.setattr(recorded, "AFTER", 0)
    policy.sample(PROMPTS, 5, seed=3, max_tokens=20)
    steps = policy.steps()
    weight = policy.model.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        weight.mul_(2)
    policy.model.lm_head.weight.data = 2 * policy.model.lm_head.weight.data
    moved = policy.sample(PROMPTS, 5, seed=3, max_tokens=20)
    assert policy.steps() is steps
    assert same(moved, drawn(policy, 10**9, monkeypatch))


def test_learnt_positions_are_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy("gpt2", n_positions=27)  # fewer than the next power of two
    called = drawn(policy, 10**9, monkeypatch)
    assert same(called, drawn(policy, 0, monkeypatch))
    assert replays(policy)


def test_gradients_are_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy()
    drawn(policy, 0, monkeypatch)
    assert all(type(p) is torch.nn.Parameter and p.requires_grad for p in policy.parameters())
    tokens = policy.sample(PROMPTS[:2], 1, seed=0, max_tokens=5).tokens_R
    policy.log_prob_grad(PROMPTS[:2], np.arange(2), tokens).sum().backward()
    assert all(p.grad is not None for p in policy.parameters())


def test_other_layers_are_recorded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy()
    drawn(policy, 0, monkeypatch)
    steps = policy.steps()
    mlp = policy.model.model.layers[0].mlp
    mlp.act_fn = torch.nn.Tanh()
    assert policy.steps() is not steps
    assert same(
        drawn(policy, 0, monkeypatch),
        drawn(policy, 10**9, monkeypatch),
    )


def test_other_number_formats_are_recorded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy()
    drawn(policy, 0, monkeypatch)
    steps = policy.steps()
    policy.model.double()
    assert policy.steps() is not steps
    assert same(drawn(policy, 0, monkeypatch), drawn(policy, 10**9, monkeypatch))


# ---- not recorded


@pytest.mark.parametrize("bound", [9, 12, 16, 20])
def test_a_branch_on_length_is_met(bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recording is thrown away before the bound is passed."""

    class Bounded(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> Any:
            cos, sin = self.inner(x, position_ids)
            return (cos, sin) if int(position_ids.max()) < bound else (2 * cos, sin)

    policy = tiny.policy()
    policy.model.model.rotary_emb = Bounded(policy.model.model.rotary_emb)
    called = drawn(policy, 10**9, monkeypatch)
    assert same(called, drawn(policy, 0, monkeypatch))
    assert not replays(policy)


def test_rotations_that_follow_the_length_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    scaling = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    policy = tiny.policy(rope_parameters=scaling, max_position_embeddings=12)
    called = drawn(policy, 10**9, monkeypatch)
    assert same(called, drawn(policy, 0, monkeypatch))
    assert not policy.steps()._known.kinds


def test_a_model_that_remembers_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.runs = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.runs += 1
            return torch.tanh(x) * (1 + self.runs % 3)

    counts = []
    for after in (10**9, 0):
        policy = tiny.policy()
        policy.model.model.layers[0].mlp.act_fn = Counting()
        counts.append((drawn(policy, after, monkeypatch), policy.model.model.layers[0].mlp.act_fn))
        assert not replays(policy)
    assert same(counts[0][0], counts[1][0])
    assert counts[0][1].runs == counts[1][1].runs


def test_a_branch_on_rows_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy()
    head = policy.model.lm_head

    def scaled(module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
        return out * 1.5 if out.shape[0] > 8 else out

    head.register_forward_hook(scaled)
    called = drawn(policy, 10**9, monkeypatch)
    assert same(called, drawn(policy, 0, monkeypatch))
    assert not replays(policy)


def test_experts_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy("mixtral", num_local_experts=2)
    called = drawn(policy, 10**9, monkeypatch)
    assert same(called, drawn(policy, 0, monkeypatch))
    assert not replays(policy)


def test_large_steps_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "MOST", 1 << 10)
    policy = tiny.policy()
    drawn(policy, 0, monkeypatch)
    assert not policy.steps()._known.kinds


def test_no_global_state_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy()
    before = torch.get_rng_state()
    drawn(policy, 0, monkeypatch)
    assert replays(policy)
    assert torch.equal(before, torch.get_rng_state())


def test_steps_are_of_one_model() -> None:
    policy = tiny.policy()
    assert Steps(policy.model).of(policy.model)
    assert not Steps(policy.model).of(tiny.network())
    assert policy.steps() is policy.steps()
    assert policy.copy().steps() is not policy.steps()


def test_a_copy_replays_what_was_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own parameters; a model of other settings does not."""
    first, other = tiny.policy(seed=0), tiny.policy(seed=1)
    drawn(first, 0, monkeypatch)
    assert replays(other) == replays(first) > 0
    samples = other.sample(PROMPTS, 5, seed=3, max_tokens=20)
    assert same(samples, drawn(other, 10**9, monkeypatch))
    drawn(first, 0, monkeypatch)
    assert not replays(tiny.policy(rms_norm_eps=1e-3))
    hooked = tiny.policy()
    hooked.model.lm_head.register_forward_hook(lambda module, args, out: 2 * out)
    assert not replays(hooked)


ARCHITECTURES = [
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi",
    "phi3",
    "gpt2",
    "gpt_neox",
    "opt",
    "bloom",
    "falcon",
    "mpt",
    "stablelm",
    "starcoder2",
    "olmo",
    "olmo2",
    "olmo3",
    "cohere",
    "cohere2",
    "granite",
    "glm",
    "glm4",
    "smollm3",
    "xglm",
    "biogpt",
    "gpt_bigcode",
    "nemotron",
    "exaone4",
    "ernie4_5",
    "helium",
    "seed_oss",
    "arcee",
    "apertus",
    "persimmon",
    "diffllama",
    "doge",
    "vaultgemma",
]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architectures_are_recorded(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two layers each, a window of 8 positions where there are windows."""
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tiny.WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=tiny.PAD,
        eos_token_id=tiny.EOS,
        bos_token_id=None,
        initializer_range=0.4,
    )
    for name, value in (("head_dim", 8), ("sliding_window", 8)):
        if architecture != "falcon" and getattr(config, name, None):
            setattr(config, name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).float()
    policy = CausalLM(model, tiny.tokenizer())
    called = drawn(policy, 10**9, monkeypatch)
    assert same(called, drawn(policy, 0, monkeypatch))
    assert replays(policy)
