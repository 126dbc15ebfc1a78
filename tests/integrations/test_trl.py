"""Some steps of TRL's GRPO and DPO with srlm's rewards and callback, on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srlm.config import MeasureSettings
from srlm.integrations.trl import ForecastCallback, likelihood_reward, vote_reward
from srlm.policies.hf import CausalLM
from srlm.types import Prompt
from tests import tiny

trl = pytest.importorskip("trl")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def test_grpo_with_a_vote_and_a_likelihood(tmp_path: Path) -> None:
    from datasets import Dataset

    policy = tiny.policy()
    model, tokenizer = policy.model, policy.tokenizer
    texts = ["ab", "cd", "ef", "gh"]
    data = Dataset.from_dict({"prompt": texts})
    args = trl.GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=6,
        max_steps=4,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        learning_rate=1e-3,
    )
    read = "regex:[a-h]"
    trainer = trl.GRPOTrainer(
        model,
        reward_funcs=[vote_reward(read, max_tokens=6), likelihood_reward(model, tokenizer)],
        args=args,
        train_dataset=data,
        processing_class=tokenizer,
    )
    watch = ForecastCallback(
        trainer,
        [replace(x, answers=("a",)) for x in tiny.prompts(texts)],
        grader=read,
        every=2,
        settings=MeasureSettings(prompts=4, samples=16, nodes=50),
        max_tokens=6,
    )
    trainer.add_callback(watch)
    trainer.train()
    log = trainer.state.log_history
    shares = [row["srlm/vote_share"] for row in log if "srlm/vote_share" in row]
    assert len(shares) == 4 and all(0 <= x <= 1 for x in shares)
    assert all(row["srlm/log_likelihood"] < 0 for row in log if "srlm/log_likelihood" in row)
    assert len(watch.rounds) == 3
    assert sum("srlm/log10_kappa" in row for row in log) == 3
    assert model.training


@pytest.mark.parametrize("lr", [1e-5, 0.5])
def test_dpo(tmp_path: Path, lr: float) -> None:
    """Measured at the start and after steps 2 and 4; a rate that wrecks the model is warned of and,
    by the rule that looks at no answers, ends the training."""
    from datasets import Dataset

    policy = tiny.policy()
    texts = [x.content for x in tiny.texts(16)]
    pair = {"chosen": "aa", "rejected": "bc"}
    args = trl.DPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        max_steps=12,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        learning_rate=lr,
        lr_scheduler_type="constant",
        max_length=24,
    )
    trainer = trl.DPOTrainer(
        policy.model,
        tiny.network(),
        args=args,
        train_dataset=Dataset.from_list([{"prompt": x, **pair} for x in texts]),
        processing_class=policy.tokenizer,
    )
    watch = ForecastCallback(
        trainer,
        [replace(x, answers=("a",)) for x in tiny.prompts(texts)],
        grader="regex:[a-h]",
        every=2,
        reward="consistency",
        beta=0.5,
        stop=True,
        settings=MeasureSettings(prompts=16, samples=16, nodes=50),
        max_tokens=6,
    )
    trainer.add_callback(watch)
    trainer.train()
    log = [row for row in trainer.state.log_history if "srlm/log10_kappa" in row]
    assert len(log) == len(watch.rounds)
    assert [row["step"] for row in log] == [2 * i for i in range(len(log))]
    assert watch.forecast is not None and watch.forecast["made"] == 0
    ahead = watch.forecast["later"][-1]["sampling_accuracy"]["value"]
    assert log[0]["srlm/forecast/sampling_accuracy"] == ahead
    assert not any("srlm/forecast/sampling_accuracy" in row for row in log[1:])
    for row, measured in zip(log, watch.rounds, strict=True):
        assert row["srlm/confidence"] == measured["confidence"].value
        assert measured.table is not None
    assert log[0]["srlm/fidelity"] == 1.0
    assert log[-1]["srlm/warnings"] == len(watch.warnings)
    assert trainer.model.training
    if lr == 0.5:
        assert watch.ended is not None and trainer.state.global_step < 12
        assert log[-1]["srlm/fidelity"] < 0.9
    else:
        assert log[-1]["srlm/fidelity"] == 1.0


def test_likelihood_is_the_policys() -> None:
    policy = tiny.policy()
    prompts = [Prompt("0", "ab"), Prompt("1", "cd")]
    samples = policy.sample(prompts, 3, max_tokens=6, seed=0)
    texts = [prompts[p].content for p in samples.prompt_R]
    reward = likelihood_reward(policy.model, policy.tokenizer)
    rows = zip(samples.tokens_R, samples.finished_R, strict=True)
    padded = [[*tokens, 0, 0] if done else list(tokens) for tokens, done in rows]
    found = reward(texts, [""] * len(texts), padded)
    assert isinstance(policy, CausalLM)
    np.testing.assert_allclose(found, samples.logp_R, atol=1e-4)
