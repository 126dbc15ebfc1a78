"""The Fisher spectrum: closed forms, brute force, and refusal to print rounding as numbers."""

from __future__ import annotations

import importlib.util
import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console

from srlm.errors import UserError
from srlm.measure.curvature import FisherSpectrum, fisher
from srlm.measure.fisher_product import FisherProduct
from srlm.measure.spectrum_ends import ends, lanczos, small_end
from srlm.policies import network
from srlm.policies.hf import CausalLM
from srlm.policies.linear_softmax import LinearSoftmax
from srlm.policies.tabular import Tabular, rows
from srlm.types import Floats, Samples
from tests import tiny
from tests.forecast.drawn import Drawn

SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}


def draws(policy: CausalLM, count: int = 6) -> Samples:
    return policy.sample(tiny.texts(count), 2, seed=0, max_tokens=5)


def brute(policy: CausalLM, samples: Samples) -> Floats:
    """sum_t E_{v ~ p_t} grad log p_t(v) grad log p_t(v)^T over the draws, gradient by gradient."""
    asked = tiny.texts(int(samples.prompt_R.max()) + 1)
    parameters = policy.parameters()
    total = np.zeros((sum(p.numel() for p in parameters),) * 2)
    for p, y in zip(samples.prompt_R, samples.tokens_R, strict=True):
        for t in range(len(y)):
            prefix = [*policy.encode(asked[p]), *y[:t]]
            logp_V = policy.model(torch.tensor([prefix])).logits[0, -1].log_softmax(-1)
            grads_V = [torch.autograd.grad(x, parameters, retain_graph=True) for x in logp_V]
            g_VD = torch.stack([torch.cat([x.reshape(-1) for x in g]) for g in grads_V]).double()
            total += (g_VD.T @ (logp_V.detach().exp()[:, None] * g_VD)).numpy()
    return total / len(samples)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_product_is_the_matrix(family: str) -> None:
    changes = SMALL if family != "gpt2" else {"n_embd": 8, "n_layer": 1, "n_inner": 8}
    policy = tiny.policy(family, **changes)
    policy.model.double()
    samples = draws(policy, 3)
    product = FisherProduct(policy, tiny.texts(3), samples)
    matrix = brute(policy, samples)
    assert product.size == len(matrix)
    for seed in range(3):
        v = np.random.default_rng(seed).standard_normal(product.size)
        want = matrix @ v  # norms and rotations of some models are float32 in any case
        assert np.abs(product.times(v) - want).max() < 1e-6 * np.abs(want).max()


def test_parts_of_responses_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of two positions at once, against all of them."""
    policy = tiny.policy(**SMALL)
    policy.model.double()
    asked, samples = tiny.texts(3), draws(policy, 3)
    assert len(set(samples.length_R.tolist())) > 1
    whole = FisherProduct(policy, asked, samples)
    monkeypatch.setitem(network.CHUNK, "cpu", 2 * policy.network.vocabulary)
    parts = FisherProduct(policy, asked, samples)
    assert len(parts.batches) > len(whole.batches)
    v = np.random.default_rng(0).standard_normal(whole.size)
    want = whole.times(v)  # norms are float32 in any case
    assert np.abs(parts.times(v) - want).max() < 1e-6 * np.abs(want).max()
    one, other = (np.sort(x.hidden_states(), axis=0) for x in (parts, whole))
    np.testing.assert_allclose(one, other, atol=1e-6 * np.abs(other).max())


def test_network_spectrum_is_that_of_the_matrix() -> None:
    policy = tiny.policy(**SMALL)
    policy.model.double()
    asked, samples = tiny.texts(6), draws(policy)
    found = fisher(policy, asked, samples, responses=6, top=4, probes=64)
    first_six = samples.take(np.arange(0, 12, 2))
    values = np.linalg.eigvalsh(brute(policy, first_six))[::-1]
    assert found.responses == 6
    assert found.largest == pytest.approx(values[:4], rel=1e-3)
    assert found.trace.low is not None
    assert found.trace.high is not None
    assert found.trace.low - 0.1 * values.sum() < values.sum() < found.trace.high * 1.1
    assert found.condition.value is None or found.condition.guarantee == "lower bound"
    if found.condition.value is not None:
        nonzero = values[values > 1e-12 * values[0]]
        assert found.condition.value <= nonzero[0] / nonzero[-1] * 1.01


@pytest.mark.skipif(
    importlib.util.find_spec("curvlinops") is None,
    reason="curvlinops is not installed: its dependencies would replace torch",
)
@pytest.mark.filterwarnings("ignore:.torch.jit.script.:DeprecationWarning")
def test_product_is_curvlinops() -> None:
    from curvlinops import GGNLinearOperator

    policy = tiny.policy(**SMALL)
    asked = [tiny.texts(1)[0]] * 4
    samples = policy.sample(asked[:1], 4, seed=1, max_tokens=1)
    product = FisherProduct(policy, asked, samples)
    inputs = torch.tensor([policy.encode(asked[0])] * 4)
    target = torch.tensor([t[0] for t in samples.tokens_R])

    class Last(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = policy.model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(x).logits[:, -1]
            return logits

    module = Last()
    v = np.random.default_rng(0).standard_normal(product.size)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        other = GGNLinearOperator(
            module, torch.nn.CrossEntropyLoss(), list(module.parameters()),
            [(inputs, target)], check_deterministic=False,
        )  # fmt: skip
        want = other @ torch.from_numpy(v).float()
    assert np.allclose(product.times(v), want.numpy(), rtol=1e-3, atol=1e-5)


def test_linear_softmax_is_exact() -> None:
    """F = E_x Cov_{y~pi}(phi), by explicit sums; shifting all classes alike changes nothing."""
    policy, asked = tiny.linear(), tiny.vectors(20)
    found = fisher(policy, asked, policy.sample(asked, 2, seed=0, max_tokens=1), top=12)
    every = policy.enumerate(asked)
    phi = policy.features(asked, every.prompt_R, every.tokens_R).reshape(20, 4, 12)
    pi = every.weight_R.reshape(20, 4)
    F = np.zeros((12, 12))
    for x in range(20):
        centred = phi[x] - pi[x] @ phi[x]
        F += (centred.T * pi[x]) @ centred / 20
    values = np.linalg.eigvalsh(F)[::-1]
    assert found.largest == pytest.approx(values, abs=1e-12)
    assert found.rank == 9  # three features, four classes: three directions change nothing
    assert found.smallest.value == pytest.approx(values[8])
    assert found.condition.value == pytest.approx(values[0] / values[8])
    assert found.condition.guarantee == "exact"
    assert found.trace.value == pytest.approx(np.trace(F))


def test_two_equal_labels_by_hand() -> None:
    """One prompt, p = (1/2, 1/2): F = [[1, -1], [-1, 1]]/4, eigenvalues 1/2 and 0."""
    found = fisher(Tabular(np.zeros((1, 2))), rows(1), Tabular(np.zeros((1, 2))).enumerate(rows(1)))
    assert found.largest[0] == pytest.approx(0.5)
    assert found.rank == 1
    assert found.condition.value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0, 1e-4, 2e-10, 9e-11], "numerically unstable"),
        ([0.0, 0.0], "does not depend on its parameters"),
    ],
)
def test_unstable_cases_are_named(values: list[float], words: str) -> None:
    smallest, condition, _ = ends(np.array(values), len(values), "by hand")
    assert smallest.value is None
    assert condition.value is None
    assert words in condition.note


def test_rounding_at_the_small_end_is_named() -> None:
    epsilon = float(np.finfo(np.float32).eps)
    smallest, condition = small_end(2.0, np.array([1e-5, 1.0, 2.0]), epsilon, 40)
    assert smallest.value is None
    assert condition.value is None
    assert condition.note.startswith("numerically unstable")
    smallest, condition = small_end(2.0, np.array([1e-3, 1.0, 2.0]), epsilon, 40)
    assert condition.value == pytest.approx(2000.0)
    assert (smallest.guarantee, condition.guarantee) == ("upper bound", "lower bound")


def test_ritz_values_lie_within_the_nonzero_spectrum() -> None:
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((30, 30)))[0]
    values = np.r_[np.zeros(10), np.geomspace(1e-3, 1, 20)]
    F = (Q * values) @ Q.T
    ritz = lanczos(lambda v: F @ v, F @ rng.standard_normal(30), 8)
    assert ritz[0] >= 1e-3 - 1e-12
    assert ritz[-1] <= 1 + 1e-12
    everything = lanczos(lambda v: F @ v, F @ rng.standard_normal(30), 30)
    assert everything[0] == pytest.approx(1e-3, rel=1e-4)


def test_half_precision_and_other_policies_are_refused() -> None:
    half = tiny.policy()
    samples = draws(half, 2)
    half.model.to(torch.bfloat16)
    with pytest.raises(UserError, match="half precision"):
        fisher(half, tiny.texts(2), samples)
    with pytest.raises(UserError, match="not for Drawn"):
        fisher(Drawn(tiny.linear()), tiny.vectors(2), samples)


def shown(found: FisherSpectrum) -> str:
    out = io.StringIO()
    found.print(Console(file=out, width=80))
    return out.getvalue()


def test_it_is_never_called_kappa() -> None:
    policy, asked = tiny.linear(), tiny.vectors(20)
    samples = policy.sample(asked, 2, seed=0, max_tokens=1)
    for found in (
        fisher(policy, asked, samples),
        fisher(tiny.policy(), tiny.texts(3), draws(tiny.policy(), 3), probes=2, steps=5),
    ):
        text = shown(found)
        data = json.dumps(found.to_json(), allow_nan=False)
        assert "Fisher condition number" in text
        assert "fisher_condition_number" in data
        assert "kappa" not in (text + data).lower()
        assert "κ" not in text + data
        assert max(map(len, text.splitlines())) <= 80


def test_effective_dimension_and_regime_of_the_features() -> None:
    """Features of known covariance: the spectrum is theirs, d_eff falls with the ridge."""
    rng = np.random.default_rng(0)
    phi = rng.standard_normal((200, 3, 12)) * 0.7 ** np.arange(12)
    policy = LinearSoftmax(np.zeros(12), ("a", "b", "c"), phi_XMD=phi)
    found = fisher(policy, rows(200), policy.enumerate(rows(200)))
    flat = phi.reshape(-1, 12)
    values = np.linalg.eigvalsh(np.cov(flat.T, bias=True))[::-1]
    assert found.spectrum == pytest.approx(values)
    assert found.decay.regime == "exponential"
    dims = list(found.dimensions.values())
    assert dims == sorted(dims)
    assert all(e["value"] <= e["bound"] for e in found.to_json()["features"]["effective_dimension"])
