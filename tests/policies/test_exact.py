"""Tabular and LinearSoftmax: closed forms, draws, prefixes, files, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import chisquare

from srlm.errors import UserError
from srlm.policies.base import Exact, LogLinear, Policy
from srlm.policies.hf import CausalLM
from srlm.policies.linear_softmax import LinearSoftmax
from srlm.policies.listed import Listed
from srlm.policies.load import load
from srlm.policies.tabular import Tabular, rows
from srlm.types import Prompt
from tests import tiny

pytestmark = pytest.mark.smoke

WORDS = ((0,), (1, 0), (1, 1, 0), (1, 1, 2), (2, 0))
"""Responses of several tokens, none a prefix of another."""


def feature_table(rng: np.random.Generator) -> LinearSoftmax:
    return LinearSoftmax(rng.standard_normal(3), ("a", "b"), phi_XMD=rng.standard_normal((4, 2, 3)))


KINDS: dict[str, tuple[Listed, list[Prompt]]] = {
    "tabular": (tiny.tabular(4, 5), rows(4)),
    "of words": (Tabular(tiny.tabular(4, 5, seed=3).theta, WORDS), rows(4)),
    "classes": (tiny.linear(), tiny.vectors(4)),
    "features": (feature_table(np.random.default_rng(0)), rows(4)),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[Listed, list[Prompt]]:
    return KINDS[request.param]


def test_protocols(kind: tuple[Listed, list[Prompt]]) -> None:
    assert isinstance(kind[0], Policy)
    assert isinstance(kind[0], Exact)
    assert isinstance(kind[0], LogLinear)
    assert isinstance(tiny.policy(), Policy)
    assert not isinstance(tiny.policy(), Exact)
    assert not isinstance(tiny.policy(), LogLinear)


def test_probabilities_follow_from_features(kind: tuple[Listed, list[Prompt]]) -> None:
    policy, x = kind
    assert isinstance(policy, LogLinear)
    M = len(policy.responses_M)
    each = np.repeat(np.arange(4), M)
    phi_RD = policy.features(x, each, list(policy.responses_M) * 4)
    expected = softmax((phi_RD @ policy.theta).reshape(4, M), axis=1)
    np.testing.assert_allclose(np.exp(policy.log_table(x)), expected, atol=1e-14)
    listed = policy.enumerate(x)
    np.testing.assert_allclose(listed.weight_R.reshape(4, M), expected, atol=1e-14)
    again = policy.log_prob(x, listed.prompt_R, listed.tokens_R)
    assert again.tolist() == listed.logp_R.tolist()


def test_draws_follow_the_distribution(kind: tuple[Listed, list[Prompt]]) -> None:
    policy, x = kind
    N = 3000
    samples = policy.sample(x, N, seed=0, max_tokens=3)
    p_PM = np.exp(policy.log_table(x))
    for p in range(len(x)):
        mine = [samples.tokens_R[r] for r in np.flatnonzero(samples.prompt_R == p)]
        seen = [mine.count(y) for y in policy.responses_M]
        assert sum(seen) == N
        assert chisquare(seen, N * p_PM[p]).pvalue > 1e-4
    assert policy.sample(x, 3, seed=0, max_tokens=3).tokens_R[:3] == samples.tokens_R[:3]
    turned = policy.sample(x[::-1], N, seed=0, max_tokens=3)
    assert turned.tokens_R[:N] == samples.tokens_R[-N:]


def test_prefixes_multiply_to_the_probabilities(kind: tuple[Listed, list[Prompt]]) -> None:
    policy, x = kind
    table = policy.log_table(x)
    tree = policy.tree(x, max_tokens=9)
    node_P, logp_PV = tree.roots()
    for p in range(len(x)):
        for m, y in enumerate(policy.responses_M):
            node, logp_V, total = node_P[p], logp_PV[p], 0.0
            for token in y[:-1]:
                total += float(logp_V[token])
                child, logp = tree.extend(np.array([node]), np.array([token]))
                node, logp_V = child[0], logp[0]
            total += float(logp_V[y[-1]])
            assert total == pytest.approx(table[p, m], abs=1e-12)


def test_greedy_goes_token_by_token() -> None:
    """The first token of the mode is not the likeliest first token ([SR] Prop. 4.3)."""
    trap = Tabular(np.log([[0.35, 0.3, 0.2, 0.15]]), ((0,), (1, 0), (1, 1), (1, 2)))
    greedy = trap.greedy(rows(1), max_tokens=2)
    assert greedy.tokens_R == ((1, 0),)
    assert greedy.logp_R[0] == pytest.approx(np.log(0.3))


def test_saved_and_loaded_is_the_same(kind: tuple[Listed, list[Prompt]], tmp_path: Path) -> None:
    policy, x = kind
    assert isinstance(policy, Policy)
    policy.save(tmp_path / "kept")
    back = load(tmp_path / "kept")
    assert type(back) is type(policy)
    assert isinstance(back, Listed)
    assert back.log_table(x).tolist() == policy.log_table(x).tolist()
    assert back.responses_M == policy.responses_M
    assert back.text_M == policy.text_M
    copy = back.copy()
    assert isinstance(copy, LogLinear)
    copy.theta += np.arange(len(copy.theta))
    assert back.log_table(x).tolist() == policy.log_table(x).tolist()


def test_impossible_responses_are_never_drawn() -> None:
    policy = Tabular(np.array([[-np.inf, 0.0, -np.inf, 1.0, -np.inf]]))
    drawn = policy.sample(rows(1), 500, seed=0, max_tokens=1)
    assert set(drawn.tokens_R) == {(1,), (3,)}


def test_updates_are_projected_onto_the_ball() -> None:
    policy = LinearSoftmax(np.array([0.3, 0.4]), ("a", "b"), radius=1.0)
    assert policy.with_theta(np.array([3.0, 4.0])).theta.tolist() == pytest.approx([0.6, 0.8])
    assert policy.with_theta(np.array([0.3, 0.1])).theta.tolist() == [0.3, 0.1]


@pytest.mark.parametrize("content", ["ab", "4", "-1", "1.5", [1.0, 2.0], None])
def test_prompts_that_are_no_rows_are_refused(content: object) -> None:
    bad = Prompt("00", content, line=7)
    for name in ("tabular", "features"):
        policy, good = KINDS[name]
        with pytest.raises(UserError, match=r"1 prompts are no rows.*lines 7.*from 0 to 3"):
            policy.log_table([*good, bad])
    assert KINDS["tabular"][0].log_table([Prompt("00", "3")]).shape == (1, 5)


@pytest.mark.parametrize("content", ["abc", [1.0, 2.0], [{"role": "user"}] * 3, 3])
def test_prompts_that_are_no_vectors_are_refused(content: object) -> None:
    policy, good = KINDS["classes"]
    with pytest.raises(UserError, match=r"1 prompts are not vectors of 3 numbers \(lines 7\)"):
        policy.log_table([*good, Prompt("00", content, line=7)])


@pytest.mark.parametrize("name", ["tabular", "classes"])
def test_broken_folders_are_named(name: str, tmp_path: Path) -> None:
    policy = KINDS[name][0]
    assert isinstance(policy, Policy)
    folder = tmp_path / "kept"
    policy.save(folder)
    config = json.loads((folder / "config.json").read_text())
    weights = (folder / "model.safetensors").read_bytes()
    breakages = [
        ("config.json", json.dumps({"model_type": config["model_type"]}).encode()),
        ("config.json", b"[]"),
        ("model.safetensors", weights[:-8]),
        ("model.safetensors", b""),
    ]
    for file, data in breakages:
        before = (folder / file).read_bytes()
        (folder / file).write_bytes(data)
        with pytest.raises(UserError, match=r"config\.json|safetensors") as caught:
            load(folder)
        assert str(folder) in caught.value.problem
        (folder / file).write_bytes(before)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        load(folder)


def test_one_device_and_dtype_for_all_kinds(tmp_path: Path) -> None:
    tiny.saved(tmp_path / "lm")
    policy = load(tmp_path / "lm", device="auto", dtype="float64")
    assert isinstance(policy, CausalLM)
    assert str(policy.parameters()[0].dtype) == "torch.float64"
