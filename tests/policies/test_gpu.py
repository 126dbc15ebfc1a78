"""The same on an accelerator: sampling, scoring, search and an update, in float32 and bfloat16."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srlm import pairs, train
from srlm.config import UpdateSettings
from srlm.measure.search import find_modes
from srlm.policies.devices import logp_error
from srlm.policies.hf import CausalLM
from tests import tiny

DEVICES = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
X = tiny.texts(8)

pytestmark = pytest.mark.gpu


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if not DEVICES[name]():
        pytest.skip(f"no {name}")
    return name


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


def policy_on(device: str, dtype: torch.dtype) -> CausalLM:
    return CausalLM(tiny.network().to(device, dtype), tiny.tokenizer())


def test_samples_are_scored_as_they_were_sampled(device: str, dtype: torch.dtype) -> None:
    policy = policy_on(device, dtype)
    samples = policy.sample(X, 4, seed=0, max_tokens=6)
    again_R = policy.log_prob(X, samples.prompt_R, samples.tokens_R)
    allowed_R = np.array([logp_error(dtype, len(y)) for y in samples.tokens_R])
    assert (np.abs(samples.logp_R - again_R) <= allowed_R).all()


def test_log_probabilities_are_those_of_the_cpu(device: str, dtype: torch.dtype) -> None:
    policy, other = policy_on(device, dtype), policy_on("cpu", torch.float32)
    samples = other.sample(X, 4, seed=0, max_tokens=6)
    there_R = policy.log_prob(X, samples.prompt_R, samples.tokens_R)
    allowed_R = np.array([2 * logp_error(dtype, len(y)) for y in samples.tokens_R])
    assert (np.abs(samples.logp_R - there_R) <= allowed_R).all()


def test_search_finds_the_modes_of_the_cpu(device: str) -> None:
    found, there = (
        find_modes(policy_on(d, torch.float32).tree(X, max_tokens=4), len(X), nodes=500)
        for d in ("cpu", device)
    )
    sure_P = found.certified_P & there.certified_P
    np.testing.assert_allclose(
        there.logp_P[sure_P], found.logp_P[sure_P], atol=2 * logp_error(torch.float32, 4)
    )


def test_an_update_lowers_its_loss(device: str, dtype: torch.dtype) -> None:
    policy = policy_on(device, dtype)
    samples = policy.sample(X, 4, seed=0, max_tokens=6)
    made = pairs.groups(samples, samples.logp_R)
    settings = UpdateSettings(lr=1e-3, epochs=4, prompts_per_step=4)
    _, report = train.fit(policy, X, made, train.weighted_objective, settings, seed=0)
    assert report.loss_after < report.loss_before
    assert all(p.device.type == device and p.dtype == dtype for p in policy.parameters())
