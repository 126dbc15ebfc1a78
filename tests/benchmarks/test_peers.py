"""The sides that ours is compared with compute what they are said to compute."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.peers import drawing, ours, plain
from benchmarks.peers.side import Setting
from srlm import losses
from srlm.policies.hf import CausalLM
from tests import tiny

SETTING = Setting(draws=4, max_tokens=6, batch_rows=16, prompts_per_step=4, lr=1e-3)


def moved(model: Any) -> Any:
    """A copy with other weights, as after some steps."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for i, p in enumerate(twin.parameters()):
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return twin


def drawn(policy: CausalLM, *, logp: bool = True) -> tuple[list[Any], drawing.Drawn]:
    prompts = tiny.texts(6)
    texts = [x.content for x in prompts]
    return prompts, drawing.generated(policy.model, policy.tokenizer, texts, SETTING, 3, logp=logp)


def test_scores_of_generate_and_of_a_pass_are_the_policys_log_probabilities() -> None:
    policy = tiny.policy()
    prompts, made = drawn(policy)
    right = policy.log_prob(prompts, np.array(made.prompt_R), [tuple(y) for y in made.tokens_R])
    texts = [x.content for x in prompts]
    passed = drawing.scored(policy.model, policy.tokenizer, texts, made, 7)
    np.testing.assert_allclose(made.logp_R, right, atol=1e-4)
    np.testing.assert_allclose(passed, right, atol=1e-4)


def test_the_plain_scripts_loss_is_ours() -> None:
    policy = tiny.policy()
    prompts, made = drawn(policy)
    data = plain.PairsOfDraws([policy.encode(x) for x in prompts], made, made.logp_R)
    batch = plain.collate([data[i] for i in range(len(data))], tiny.PAD)
    model = moved(policy.model)
    theirs = float(plain.square(model, policy.model, batch, 2.0).detach())
    prompt_R, tokens_R = np.array(made.prompt_R), [tuple(y) for y in made.tokens_R]
    logp_R = CausalLM(model, policy.tokenizer).log_prob(prompts, prompt_R, tokens_R)
    reward_R = torch.tensor(made.logp_R)
    loss_G = losses.square(
        torch.from_numpy(logp_R),
        reward_R,
        reward_R,
        torch.full((len(data) * 2,), 0.5, dtype=torch.float64),
        torch.arange(len(data)).repeat_interleave(2),
        len(data),
        2.0,
    )
    # Half of a pair's ordered pairs are a draw with itself and cost nothing.
    assert theirs == pytest.approx(2 * float(loss_G.mean()), rel=1e-4)


def test_sides_take_as_many_steps_and_train_the_model_that_they_are_given() -> None:
    for side, count in ((plain.one, 2), (ours.side("weighted"), 1), (ours.side("dpo"), 1)):
        policy = tiny.policy()
        before = policy.model.get_input_embeddings().weight.detach().clone()
        done = side(policy.model, policy.tokenizer, tiny.texts(12), SETTING, 1)
        assert done.steps == SETTING.steps(12) == 6
        assert done.pairs <= 12 * count
        assert set(done.seconds) == {"draw", "score", "update"}
        assert not torch.equal(before, policy.model.get_input_embeddings().weight)


def test_trls_dpo_loss_is_ours() -> None:
    pytest.importorskip("trl")
    from benchmarks.peers import trl_dpo

    policy = tiny.policy()
    policy.model.config.pad_token_id = tiny.PAD
    rows = [
        {"prompt": "abc", "chosen": "ab", "rejected": "hgfe"},
        {"prompt": "h", "chosen": "cde", "rejected": "a"},
        {"prompt": "gg", "chosen": "d", "rejected": "bb"},
    ]
    made = trl_dpo.trainer(
        policy.model, policy.tokenizer, rows, Setting(beta=0.7, precompute=False), 3, 0
    )
    (batch,) = made.get_train_dataloader()
    moving, reference = moved(tiny.network()), tiny.network()
    policy.model.load_state_dict(moving.state_dict())  # the trainer's reference is a copy
    theirs = float(made.compute_loss(policy.model, batch).detach())
    parts = batch["input_ids"], batch["attention_mask"], batch["completion_mask"]
    with torch.no_grad():
        logp_R = drawing.log_prob(moving, *parts)
        reference_R = drawing.log_prob(reference, *parts)
    pairs = len(rows)
    loss_G = losses.dpo(
        logp_R,
        reference_R,
        torch.tensor([1.0] * pairs + [0.0] * pairs),
        torch.full((2 * pairs,), 0.5),
        torch.arange(pairs).repeat(2),
        pairs,
        0.7,
    )
    assert theirs == pytest.approx(float(loss_G.mean()), rel=1e-4)
