"""Models whose state, padding or output layer differ: samples, scores, tree and gradient are those
of the slow twin, whatever a model keeps between tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from srlm.errors import UserError
from srlm.policies.base import uniforms
from srlm.policies.hf import CausalLM
from srlm.policies.ready import check_ready
from tests import tiny
from tests.naive import decoding

MAMBA = {
    "mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1,
    "mamba_chunk_size": 4,
}  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {
    "gemma2": {"sliding_window": 4, "final_logit_softcapping": 2.0},
    "granite": {"logits_scaling": 3.0},
    "cohere": {"logit_scale": 0.3},
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 32, "lm_head_multiplier": 0.5},
    "bloom": {"n_layer": 2, "n_head": 2},
    "mixtral": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "mamba": {"state_size": 4},
    "mamba2": {"state_size": 8, "num_heads": 4, "head_dim": 8, "n_groups": 1, "chunk_size": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_ff_dim": 24},
    "jamba": {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
        "expert_layer_offset": 1, "num_experts": 2, "num_experts_per_tok": 1, "mamba_d_state": 4,
        "mamba_dt_rank": 4, "use_mamba_kernels": False,
    },
    "qwen3_5_text": {
        "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2,
        "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    },
    "granitemoehybrid": {
        **MAMBA, "layer_types": ["mamba", "attention"], "num_local_experts": 2,
        "num_experts_per_tok": 1, "shared_intermediate_size": 16, "position_embedding_type": None,
        "logits_scaling": 2.0,
    },
    "nemotron_h": {
        "layers_block_type": ["mamba", "attention"], "mamba_num_heads": 4, "mamba_head_dim": 8,
        "n_groups": 1, "ssm_state_size": 8, "chunk_size": 4,
    },
    "recurrent_gemma": {
        "num_hidden_layers": 3, "lru_width": 16, "attention_window_size": 8,
        "block_types": ("recurrent", "recurrent", "attention"),
    },
    "rwkv": {"attention_hidden_size": 16, "context_length": 64},
}  # fmt: skip
UNTRAINABLE = {"rwkv"}
"""transformers' own backward pass fails."""
X = tiny.texts(5)
H = 5


def made(family: str) -> CausalLM:
    shape: dict[str, Any] = {
        "vocab_size": len(tiny.WORDS), "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "max_position_embeddings": 64, "initializer_range": 0.4, "bos_token_id": None,
        "eos_token_id": tiny.EOS, "pad_token_id": None, "tie_word_embeddings": False,
    }  # fmt: skip
    config = AutoConfig.for_model(family, **shape | CHANGES[family])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CausalLM(AutoModelForCausalLM.from_config(config).eval(), tiny.tokenizer())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", CHANGES)
def test_every_kind_of_model_is_its_slow_twin(family: str) -> None:
    policy = made(family)
    assert policy.network.kind.head is not None
    samples = policy.sample(X, 3, seed=0, max_tokens=H)
    for r, p in enumerate(samples.prompt_R):
        u_T = uniforms(0, X[p].id, 3, H)[r % 3]
        assert samples.tokens_R[r] == decoding.sample(policy, X[p], u_T)
    logp_R = policy.log_prob(X, samples.prompt_R, samples.tokens_R)
    np.testing.assert_allclose(logp_R, samples.logp_R, atol=2e-4)
    tree = policy.tree(X, max_tokens=4)
    node_P, _ = tree.roots()
    child_P, _ = tree.extend(node_P, np.full(5, 4))
    _, logp_PV = tree.extend(child_P, np.full(5, 6))
    with torch.no_grad():
        for p in range(5):
            slow_V = decoding.next_log_probs(policy, [*policy.encode(X[p]), 4, 6])
            torch.testing.assert_close(logp_PV[p].double(), slow_V, atol=1e-4, rtol=0)
    if family not in UNTRAINABLE:
        policy.log_prob_grad(X, samples.prompt_R, samples.tokens_R).sum().backward()
        assert all(p.grad is not None for p in policy.parameters())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", CHANGES)
def test_what_cannot_be_trained_is_refused_before_any_work(family: str) -> None:
    policy = made(family)
    check_ready(policy, trained=False)
    if family in UNTRAINABLE:
        with pytest.raises(UserError, match=r"cannot be trained.*srlm measure"):
            check_ready(policy, trained=True)
    else:
        check_ready(policy, trained=True)
        assert all(p.grad is None for p in policy.parameters())
