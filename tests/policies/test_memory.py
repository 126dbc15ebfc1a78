"""What is never in memory at once, and what happens when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from srlm.errors import UserError
from srlm.measure.fisher_product import FisherProduct
from srlm.policies import devices, network
from srlm.policies.hf import CausalLM
from srlm.rewards.self_certainty import divergence
from srlm.types import Prompt, Samples, Tokens
from tests import tiny
from tests.naive import decoding

VOCABULARY = 151_936
TOKENS = 1_000
X = [Prompt("0", "abc")]
ROWS = (np.zeros(1, dtype=np.int64), [(4,) * TOKENS])


class Largest(TorchFunctionMode):
    """Elements of the largest tensor that any function of torch returned."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.numel())
        return out


@pytest.fixture(scope="module")
def wide() -> CausalLM:
    """A hidden size of 4 under a vocabulary of today's models."""
    model = tiny.network(
        "llama", vocab_size=VOCABULARY, hidden_size=4, intermediate_size=4, num_hidden_layers=1,
        num_attention_heads=1, head_dim=4, max_position_embeddings=2 * TOKENS,
    )  # fmt: skip
    return CausalLM(model, tiny.tokenizer())


def scored(policy: CausalLM) -> None:
    policy.log_prob(X, *ROWS)


def certain(policy: CausalLM) -> None:
    policy.along(X, *ROWS, divergence)


def trained(policy: CausalLM) -> None:
    policy.log_prob_grad(X, *ROWS).sum().backward()


def curved(policy: CausalLM) -> None:
    tokens_R: tuple[Tokens, ...] = ((4,) * 250,)
    one = np.ones(1)
    finished_R = np.ones(1, dtype=bool)
    rows = Samples(np.zeros(1, dtype=np.int64), tokens_R, -one, one, finished_R, ("",))
    product = FisherProduct(policy, X, rows)
    product.times(np.ones(product.size))


@pytest.mark.parametrize("run", [scored, certain, trained, curved])
def test_the_vocabularys_scores_are_never_there_at_once(
    wide: CausalLM, run: Callable[[CausalLM], None]
) -> None:
    """Not of all positions of one response, let alone of the batch: neither made nor kept."""
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in wide.parameters()}

    def keep(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage().data_ptr()] = x.numel()
        return x

    assert wide.network.kind.head is not None
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), Largest() as largest:
        run(wide)
    assert VOCABULARY < largest.elements <= network.CHUNK["cpu"] < TOKENS * VOCABULARY / 8
    assert max(kept.values(), default=0) < TOKENS * VOCABULARY / 8
    for p in wide.parameters():
        p.grad = None


@pytest.mark.parametrize("headless", [False, True])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_chunks_change_neither_values_nor_gradient(
    family: str, headless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the slow twin, with scores of two positions at once, from hidden states or from the
    model's own pass."""
    policy = tiny.policy(family)
    kind = policy.network.kind
    assert kind.head is not None
    if headless:
        policy.network.kind = network.Kind(None, kind.cached, kind.keyed, kind.padded)
    monkeypatch.setitem(network.CHUNK, "cpu", 2 * len(tiny.WORDS))
    asked, rng = tiny.texts(3), np.random.default_rng(0)
    prompt_R = np.array([2, 0, 0, 1])
    tokens_R: list[Tokens] = [tuple(rng.integers(3, 8, n).tolist()) for n in (5, 1, 4, 3)]
    fast = policy.log_prob_grad(asked, prompt_R, tokens_R)
    pairs = list(zip(prompt_R, tokens_R, strict=True))
    slow = torch.stack([decoding.token_log_probs(policy, asked[p], y).sum() for p, y in pairs])
    np.testing.assert_allclose(fast.detach(), slow.detach(), atol=1e-4)
    for a, b in zip(
        torch.autograd.grad(fast.sum(), policy.parameters()),
        torch.autograd.grad(slow.sum(), policy.parameters()),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)
    found = policy.along(asked, prompt_R, tokens_R, lambda logp: logp.exp())
    for p_TV, (p, y) in zip(found, pairs, strict=True):
        x = policy.encode(asked[p])
        for t in range(len(y)):
            with torch.no_grad():
                expected = decoding.next_log_probs(policy, [*x, *y[:t]]).exp()
            np.testing.assert_allclose(p_TV[t], expected, atol=1e-5)


# ---- out of memory


def short_of(limit: int, run: Callable[..., Any], size: Callable[..., int]) -> Callable[..., Any]:
    def limited(*args: Any, **more: Any) -> Any:
        if size(*args) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(*args, **more)

    return limited


def rows(token_BL: Iterable[Any], *_: Any) -> int:
    return len(list(token_BL))


def test_less_is_run_at_once_where_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Samples, probabilities and the tree are the same, and it is said once."""
    asked = tiny.texts(6)
    whole = tiny.policy().sample(asked, 4, seed=0, max_tokens=4)
    policy = tiny.policy()
    assert policy.network.kind.keyed
    for name in ("scores", "states"):
        run = getattr(policy.network, name)
        monkeypatch.setattr(policy.network, name, short_of(3, run, rows))
    samples = policy.sample(asked, 4, seed=0, max_tokens=4)
    assert samples.tokens_R == whole.tokens_R
    again = policy.log_prob(asked, samples.prompt_R, samples.tokens_R)
    np.testing.assert_allclose(again, whole.logp_R, atol=1e-4)
    tree, other = (x.tree(asked, max_tokens=4) for x in (policy, tiny.policy()))
    torch.testing.assert_close(tree.roots()[1], other.roots()[1], atol=1e-5, rtol=0)
    assert len(caplog.records) == 1


def test_one_response_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy()
    assert policy.network.kind.keyed
    run = policy.network.scores
    monkeypatch.setattr(policy.network, "scores", short_of(0, run, rows))
    with pytest.raises(UserError, match="one response at a time"):
        policy.sample(tiny.texts(3), 2, seed=0, max_tokens=4)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert devices.out_of_memory(MemoryError())
    assert not devices.out_of_memory(RuntimeError("shapes do not match"))
    assert not devices.out_of_memory(ValueError("can't allocate memory"))


# ---- budgets


def test_mps_has_no_float64() -> None:
    devices.check_has(torch.device("mps"), torch.float32)
    devices.check_has(torch.device("cpu"), torch.float64)
    with pytest.raises(UserError, match="float64"):
        devices.check_has(torch.device("mps"), torch.float64)


def test_budgets_follow_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than fits by the formula, one row at least."""
    policy = tiny.policy()
    budget, shape = policy.budget, policy.budget.shape
    for size in (10**5, 10**6, 10**7, 10**9):
        monkeypatch.setattr(devices, "memory", lambda _, size=size: size)
        rows = budget.rows(100)
        assert rows == 1 or shape.sampling(rows, 100) <= size
        assert budget.scored() == 1 or shape.scoring(budget.scored(), 0) <= size
        trained = budget.trained()
        assert trained == 1 or shape.update(trained, 0) <= size
        again = budget.trained(recomputed=True)
        assert again >= trained


def kept_for_the_gradient(
    policy: CausalLM, asked: list[Prompt], prompt_R: np.ndarray, tokens_R: list[Tokens]
) -> int:
    """Bytes beside the parameters."""
    own = {p.untyped_storage().data_ptr() for p in policy.parameters()}
    kept: dict[int, int] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        store = x.untyped_storage()
        if store.data_ptr() not in own:
            kept[store.data_ptr()] = store.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        policy.log_prob_grad(asked, prompt_R, tokens_R)
    return sum(kept.values())


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize(
    ("letters", "rows"),
    [([24], [40]), ([24], [100]), ([8], [40]), ([24, 2], [20, 400])],  # unlike: one is not padded
)
def test_what_rows_copy_of_their_prompts_is_counted(
    kind: str, letters: list[int], rows: list[int]
) -> None:
    """What is kept for the backward pass of short responses."""
    policy = tiny.policy(kind)
    asked = [Prompt(str(i), "a" * n) for i, n in enumerate(letters)]
    prompt_R = np.repeat(np.arange(len(rows)), rows)
    tokens_R: list[Tokens] = [(4 + r % 6, 5, 6) for r in range(len(prompt_R))]
    positions = int(policy.positions(asked, prompt_R, tokens_R, prompt_R).sum())
    counted = positions * policy.budget.shape.trained_on()
    assert counted / 3 < kept_for_the_gradient(policy, asked, prompt_R, tokens_R) < counted
    rows_R = [np.array([r]) for r in range(0, len(prompt_R), 7)]
    alone = [policy.log_prob(asked, prompt_R[r], [tokens_R[r[0]]])[0] for r in rows_R]
    together = policy.log_prob_grad(asked, prompt_R, tokens_R).detach().numpy()
    np.testing.assert_allclose(together[::7], alone, atol=1e-4)


def test_rows_that_do_not_share_their_prompt_each_count_it() -> None:
    policy, asked = tiny.policy(), [Prompt("0", "abcdefgh")]
    prompt_R, tokens_R = np.zeros(5, dtype=np.int64), [(4, 5, 6)] * 5
    length = len(policy.encode(asked[0]))
    shared = policy.positions(asked, prompt_R, tokens_R, prompt_R)
    copied = policy.budget.shape.copied
    np.testing.assert_array_equal(shared, np.ceil(length * (1 + 5 * copied)) + 5 * 2)
    with policy.recomputing():
        apart = policy.positions(asked, prompt_R, tokens_R, prompt_R)
    np.testing.assert_array_equal(apart, [5 * length + 5 * 2])


def test_sizes_are_read_off_the_configuration() -> None:
    shape = tiny.policy("llama").budget.shape
    assert (shape.layers, shape.hidden, shape.inner, shape.keys) == (2, 16, 24, 2 * 8)
    assert shape.kept == 4 * 2 * 16
    half = tiny.policy("gpt2")
    half.model.to(torch.bfloat16)
    assert half.budget.shape.width == 2
    assert half.budget.shape.inner == 64


def test_rounding_of_log_probabilities_by_format() -> None:
    """What a format gives against float64, in the allowance for it."""
    asked, policy = tiny.texts(12), tiny.policy()
    samples = policy.sample(asked, 4, seed=0, max_tokens=8)
    exact = policy.copy()
    exact.model.double()
    rest = (asked, samples.prompt_R, samples.tokens_R)
    true_R = exact.log_prob(*rest)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        other = policy.copy()
        other.model.to(dtype)
        error_R = np.abs(other.log_prob(*rest) - true_R)
        allowed_R = [devices.logp_error(dtype, len(y)) for y in samples.tokens_R]
        assert (error_R <= allowed_R).all()
        assert error_R.max() > np.max(allowed_R) / 3000
