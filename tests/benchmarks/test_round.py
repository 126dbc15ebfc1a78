"""The sides of a round compute what they are said to compute."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import ours, trl_dpo
from benchmarks.side import STAGES, Setting
from srlm import losses
from tests import tiny

SETTING = Setting(per_prompt=4, max_tokens=6, prompts_per_step=4, lr=1e-3)


def moved(model: Any) -> Any:
    """A copy with other weights, as after some steps."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for i, p in enumerate(twin.parameters()):
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return twin


def test_scores_of_generate_are_the_policys_log_probabilities() -> None:
    policy, prompts = tiny.policy(), tiny.texts(6)
    texts = [x.content for x in prompts]
    made = trl_dpo.generated(policy.model, policy.tokenizer, texts, SETTING, 3)
    prompt_R = np.repeat(np.arange(6), SETTING.per_prompt)
    right = policy.log_prob(prompts, prompt_R, [tuple(y) for y in made.tokens_R])
    np.testing.assert_allclose(made.logp_R, right, atol=1e-4)


@pytest.mark.parametrize("update", ["weighted", "dpo"])
def test_ours_takes_as_many_steps_and_trains_the_model_that_it_is_given(update: str) -> None:
    policy = tiny.policy()
    before = policy.model.get_input_embeddings().weight.detach().clone()
    done = ours.side(update)(policy.model, policy.tokenizer, tiny.texts(12), SETTING, 1)
    assert done.steps == SETTING.epochs * 3
    assert done.pairs <= 12
    assert set(done.seconds) == set(STAGES)
    assert not torch.equal(before, policy.model.get_input_embeddings().weight)


def test_trls_dpo_loss_is_ours() -> None:
    pytest.importorskip("trl")
    policy = tiny.policy()
    policy.model.config.pad_token_id = tiny.PAD
    rows = [
        {"prompt": "abc", "chosen": "ab", "rejected": "hgfe"},
        {"prompt": "h", "chosen": "cde", "rejected": "a"},
        {"prompt": "gg", "chosen": "d", "rejected": "bb"},
    ]
    reference = copy.deepcopy(policy.model)
    made = trl_dpo.trainer(policy.model, policy.tokenizer, rows, Setting(beta=0.7), 3, 0)
    (batch,) = made.get_train_dataloader()
    moving = moved(policy.model)
    policy.model.load_state_dict(moving.state_dict())
    theirs = float(made.compute_loss(policy.model, batch).detach())
    parts = batch["input_ids"], batch["attention_mask"], batch["completion_mask"]
    pairs = len(rows)
    g = losses.Groups(
        log_prob(reference, *parts),
        torch.tensor([1.0] * pairs + [0.0] * pairs),
        torch.full((2 * pairs,), 0.5),
        torch.arange(pairs).repeat(2),
        pairs,
        0.7,
    )
    loss_G = losses.dpo(log_prob(moving, *parts), g)
    assert theirs == pytest.approx(float(loss_G.mean()), rel=1e-4)


@torch.no_grad()
def log_prob(
    model: Any, token_RL: torch.Tensor, mask_RL: torch.Tensor, response_RL: torch.Tensor
) -> torch.Tensor:
    """log pi(y|x) of padded rows, [R], by one forward pass."""
    logits_RLV = model(input_ids=token_RL, attention_mask=mask_RL).logits[:, :-1]
    logp_RL = logits_RLV.float().log_softmax(-1).gather(-1, token_RL[:, 1:, None])[..., 0]
    return (logp_RL * response_RL[:, 1:]).sum(1)
