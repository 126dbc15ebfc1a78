"""Samples at another temperature or of the likeliest tokens: whose they are, and where refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srlm import runner
from srlm.config import SampleSettings
from srlm.errors import UserError
from srlm.policies.base import uniforms
from srlm.policies.sampling import tempered
from srlm.progress import Progress
from srlm.runner import method_of, run
from srlm.samples import sample
from tests import tiny
from tests.test_run_folder import causal_job

X = tiny.texts(6)


@pytest.mark.parametrize(("temperature", "top_p"), [(0.5, 1.0), (2.0, 1.0), (1.0, 0.7), (0.7, 0.5)])
def test_a_token_is_that_of_the_slow_twin(temperature: float, top_p: float) -> None:
    """One token a response: q by hand, and its distribution function searched by hand."""
    policy, K = tiny.policy(), 32
    settings = SampleSettings(per_prompt=K, max_tokens=1, temperature=temperature, top_p=top_p)
    made = sample(policy, X, settings, seed=3)
    _, one = policy.tree(X, max_tokens=1).roots()
    for p, x in enumerate(X):
        logp_V = one[p].double().numpy()
        q_V = np.exp(logp_V / temperature)
        q_V /= q_V.sum()
        order = np.argsort(-q_V, kind="stable")
        count = int((np.cumsum(q_V[order]) - q_V[order] < top_p).sum())
        kept = np.isin(np.arange(len(q_V)), order[:count])
        assert q_V[kept].sum() >= top_p - 1e-6
        cut_V = np.where(kept, q_V, 0) / q_V[kept].sum()
        edge_V = np.cumsum(cut_V)
        u_K = uniforms(3, x.id, K, 1)[:, 0]
        far = np.abs(u_K[:, None] - edge_V).min(1) > 1e-5  # float32 may put the others elsewhere
        token_K = np.array([made.tokens_R[r][0] for r in np.flatnonzero(made.prompt_R == p)])
        assert (token_K[far] == np.searchsorted(edge_V, u_K[far], side="right")).all()
        assert kept[token_K].all()
    own_R = policy.log_prob(X, made.prompt_R, made.tokens_R)  # under the policy itself
    np.testing.assert_allclose(made.logp_R, own_R, atol=1e-4)


def test_temperature_one_is_the_policy_itself() -> None:
    policy = tiny.policy()
    plain = policy.sample(X, 4, seed=1, max_tokens=6)
    same = policy.tempered(X, 4, temperature=1.0, top_p=1.0, seed=1, max_tokens=6)
    assert plain.tokens_R == same.tokens_R
    cold = policy.tempered(X, 4, temperature=1e-3, top_p=1.0, seed=1, max_tokens=6)
    greedy = policy.greedy(X, max_tokens=6)
    assert cold.tokens_R == tuple(y for y in greedy.tokens_R for _ in range(4))


def test_the_nucleus_holds_the_likeliest_tokens() -> None:
    logp_BV = torch.log_softmax(torch.randn(5, 11, generator=torch.Generator().manual_seed(0)), -1)
    for top_p in (0.1, 0.5, 0.9):
        q_BV = tempered(logp_BV, 1.0, top_p).exp()
        kept_BV = q_BV > 0
        assert (q_BV.sum(-1) >= top_p - 1e-6).all()
        least_B = torch.where(kept_BV, q_BV, torch.inf).min(-1).values
        assert (q_BV.sum(-1) - least_B < top_p).all()  # none too many
        assert (torch.where(kept_BV, 0, logp_BV.exp()).max(-1).values <= least_B).all()


REFUSED: list[dict[str, Any]] = [
    {"reward": "likelihood"},
    {"reward": "likelihood-per-token"},
    {"reward": "judge:1,self-certainty:0.1"},
    {"reward": "consistency", "update.kind": "best-of-n", "samples.mu": 1.0},
    {"reward": "consistency", "samples.source": "enumerate"},
]


@pytest.mark.parametrize("changes", REFUSED)
@pytest.mark.parametrize("how", [{"samples.temperature": 0.7}, {"samples.top_p": 0.9}])
def test_rewards_that_are_probabilities_refuse_it(
    changes: dict[str, Any], how: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match="--temperature"):
        method_of(tiny.config(Path("m"), Path("p"), **changes | how))


def test_a_plan_refuses_what_the_run_refuses(tmp_path: Path) -> None:
    """The reward that is left open is likelihood here, known once the model is."""
    config = causal_job(tmp_path / "in", reward="auto")
    config = config.model_copy(
        update={"samples": config.samples.model_copy(update={"temperature": 0.5})}
    )
    with pytest.raises(UserError, match=r"--temperature 0\.5"):
        runner.dry_run(config, progress=Progress.silent())


def test_exact_policies_refuse_it() -> None:
    settings = SampleSettings(temperature=0.5)
    with pytest.raises(UserError, match="Tabular: sampled at temperature 1 only"):
        sample(tiny.tabular(), X[:5], settings, seed=0)


def test_all_is_measured_at_temperature_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Round 0 is the same, whatever the training samples are; the samples are not."""
    monkeypatch.setattr(runner, "write_page", lambda summary: summary.folder / "report.html")
    asked = {"reward": "consistency", "rounds": 1, "prompts.answer": "regex:[a-h]"}
    how = {"plain": {}, "cold": {"samples.temperature": 0.5}}
    found = {}
    for name, changes in how.items():
        config = causal_job(tmp_path / "in", **asked | changes)
        found[name] = run(config, tmp_path / name).rounds[0].estimates
    assert found["plain"] == found["cold"]
    drawn = [(tmp_path / name / "rounds/000/samples.parquet").read_bytes() for name in how]
    assert drawn[0] != drawn[1]
    likely = causal_job(tmp_path / "in", **{"samples.temperature": 0.5, "rounds": 1})
    with pytest.raises(UserError, match="--reward likelihood"):  # what auto is for short responses
        run(likely, tmp_path / "auto")
