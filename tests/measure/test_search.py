"""Search: certificates against enumerated truth, its slow twin, its budgets and its refusals."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srlm.errors import UserError
from srlm.measure.modes import Modes
from srlm.measure.search import find_modes, hopeless, nodes_needed
from srlm.types import Ints, Samples, Tokens
from tests.measure.toy import ToyTree
from tests.naive.search import naive_modes

ALL = 10**6


def toys(count: int) -> list[ToyTree]:
    """Random policies of every kind: sure and spread, with and without impossible tokens."""
    out = []
    for seed in range(count):
        rng = np.random.default_rng([7, seed])
        V, H = int(rng.integers(2, 6)), int(rng.integers(1, 5))
        scale, zeros = float(rng.choice([0.0, 0.5, 1.5, 4.0])), float(rng.choice([0.0, 0.4]))
        out.append(ToyTree(seed, 2, V, H, scale, zeros))
    return out


def check(modes: Modes, toy: ToyTree) -> None:
    """Nothing that the search says is wrong."""
    for p in range(toy.P):
        truth = toy.outcomes(p)
        best, second = [*sorted(truth.values(), reverse=True), -np.inf][:2]
        assert modes.logp_P[p] <= best <= modes.upper_P[p] + 1e-12
        if modes.tokens_P[p]:
            assert truth[modes.tokens_P[p]] == modes.logp_P[p]
            assert modes.finished_P[p] == (modes.tokens_P[p][-1] in toy.ends)
        if modes.certified_P[p]:
            assert modes.logp_P[p] == best
            assert modes.second_P[p] <= second <= modes.second_upper_P[p] + 1e-12
        if modes.second_certified_P[p]:
            assert modes.second_P[p] == second
        if modes.unique_P[p]:
            assert second < best


def test_certificates_hold_on_four_hundred_policies() -> None:
    """200 trees of two prompts each, under three budgets and two ways to look for the second."""
    for toy in toys(200):
        for nodes, batch, second in itertools.product((1, 3, ALL), (16,), ("least", "every")):
            modes = find_modes(toy, toy.P, nodes=nodes, second=second, batch=batch)
            check(modes, toy)
            assert (modes.nodes_P <= nodes).all()
            if nodes == ALL:
                assert modes.certified_P.all()
                assert modes.second_certified_P.all() or second == "least"


def test_token_budget_holds() -> None:
    for toy in toys(60):
        for tokens in (0, 1, 2, 5):
            modes = find_modes(toy, toy.P, nodes=ALL, tokens=tokens, batch=4)
            check(modes, toy)
            assert modes.tokens <= tokens


def test_no_time_leaves_the_roots() -> None:
    toy = ToyTree(1, 3, 4, 4)
    modes = find_modes(toy, 3, nodes=ALL, seconds=1e-9)
    check(modes, toy)
    assert (modes.nodes_P == 1).all()


@pytest.mark.smoke
@pytest.mark.parametrize("batch", [1, 8, 512])
def test_equals_its_slow_twin(batch: int) -> None:
    for toy in toys(120):
        if toy.scale == 0.0:
            continue  # all ties: the order of equals is nobody's
        modes = find_modes(toy, toy.P, nodes=ALL, second="every", batch=batch)
        first = find_modes(toy, toy.P, nodes=ALL, second="none", batch=batch)
        for p in range(toy.P):
            found, _ = naive_modes(toy, p, 2)
            _, opened = naive_modes(toy, p, 1)
            assert modes.tokens_P[p] == first.tokens_P[p] == found[0]
            if batch == 1:
                # Its own greedy path is all that it may open beyond the least there is.
                assert opened <= first.nodes_P[p] <= opened + toy.max_tokens - 1


@given(
    seed=st.integers(0, 10**6),
    V=st.integers(2, 90),
    H=st.integers(1, 4),
    scale=st.sampled_from([0.5, 1.5, 4.0]),
    nodes=st.sampled_from([1, 2, 7, 40]),
    batch=st.sampled_from([1, 5, 64]),
    second=st.sampled_from(["none", "least", "every"]),
)
@settings(max_examples=60, deadline=None)
def test_any_budget_brackets_the_slow_twins_mode(
    seed: int, V: int, H: int, scale: float, nodes: int, batch: int, second: Any
) -> None:
    """Whatever is left unopened, remainders of more than 64 children too: p* is in the interval."""
    toy = ToyTree(seed, 1, V, H, scale)
    modes = find_modes(toy, 1, nodes=nodes, batch=batch, second=second)
    (best, *others), opened = naive_modes(toy, 0, 2)[0], naive_modes(toy, 0, 1)[1]

    def logp(outcome: Tokens) -> float:
        return float(sum(toy.row(0, outcome[:t])[token] for t, token in enumerate(outcome)))

    assert modes.logp_P[0] <= logp(best) <= modes.upper_P[0]
    assert modes.nodes_P[0] <= nodes
    if modes.certified_P[0]:
        assert modes.logp_P[0] == logp(best)
        if others:
            assert modes.second_P[0] <= logp(others[0]) <= modes.second_upper_P[0]
    if batch == 1 and V <= 60 and nodes >= opened + H - 1:
        assert modes.certified_P[0]


def sampled(toy: ToyTree, draws: int) -> Samples:
    """``draws`` outcomes a prompt."""
    rng = np.random.default_rng(toy.seed)
    tokens, logp = [], []
    for p in np.repeat(np.arange(toy.P), draws):
        y: Tokens = ()
        steps = []
        while len(y) < toy.max_tokens and (not y or y[-1] not in toy.ends):
            row_V = toy.row(int(p), y)
            token = int(rng.choice(toy.V, p=np.exp(row_V)))
            steps.append(row_V[token])
            y = (*y, token)
        tokens.append(y)
        logp.append(np.array(steps))
    R = len(tokens)
    return Samples(
        prompt_R=np.repeat(np.arange(toy.P), draws),
        tokens_R=tuple(tokens),
        logp_R=np.array([x.sum() for x in logp]),
        weight_R=np.full(R, 1 / draws),
        finished_R=np.array([y[-1] in toy.ends for y in tokens]),
        text_R=("",) * R,
        token_logp_R=tuple(logp),
    )


def test_samples_tell_what_a_search_costs() -> None:
    """Unbiased: within four standard errors of the slow twin's count, over forty policies."""
    toy = ToyTree(3, 40, 5, 5, scale=1.5)
    truth_P = np.array([naive_modes(toy, p, 1)[1] for p in range(toy.P)])
    best_P = find_modes(toy, toy.P, nodes=ALL, second="none").logp_P
    drawn = sampled(toy, 50)
    needed_JP = np.stack(
        [nodes_needed(drawn.take(np.arange(j, len(drawn), 50)), best_P) for j in range(50)]
    )
    assert needed_JP.mean(0) == pytest.approx(nodes_needed(drawn, best_P))
    error = needed_JP.mean(1).std(ddof=1) / 50**0.5
    assert abs(needed_JP.mean() - truth_P.mean()) < 4 * error


def test_search_is_left_off_where_samples_show_that_it_is_in_vain() -> None:
    sure, spread = ToyTree(1, 10, 4, 3, scale=4.0), ToyTree(1, 10, 60, 20, scale=0.2, end=-5.0)
    for toy, vain in ((sure, False), (spread, True)):
        drawn = sampled(toy, 8)
        assert bool(hopeless(drawn, drawn.take(np.arange(0, len(drawn), 8)), 500)) == vain


def test_opens_at_most_H_over_p_star_prefixes() -> None:
    for toy in toys(200):
        modes = find_modes(toy, toy.P, nodes=ALL, second="none", batch=1)
        limit_P = toy.max_tokens * np.ceil(np.exp(-modes.logp_P) - 1e-9)
        assert (modes.nodes_P <= limit_P).all()


def test_batch_changes_no_certified_result() -> None:
    toy = ToyTree(3, 20, 5, 5, scale=1.0)
    runs = [find_modes(toy, 20, nodes=ALL, batch=b) for b in (1, 7, 64, 4096)]
    for run in runs[1:]:
        assert run.tokens_P == runs[0].tokens_P
        assert (run.logp_P == runs[0].logp_P).all()
        assert (run.second_P == runs[0].second_P).all()


def test_a_hard_prompt_takes_few_passes() -> None:
    """All responses about equally likely: wide waves, not a forward pass a prefix."""
    toy = ToyTree(5, 1, 4, 6, scale=0.3, end=-8.0)
    narrow = find_modes(toy, 1, nodes=ALL, second="none", batch=1)
    passes_narrow, toy.calls = len(toy.calls), []
    wide = find_modes(toy, 1, nodes=ALL, second="none", batch=64)
    assert narrow.nodes_P[0] > 100
    assert wide.nodes_P[0] <= 2 * narrow.nodes_P[0]
    assert len(toy.calls) < passes_narrow / 8


def test_least_margin_is_exact_at_little_cost() -> None:
    toy = ToyTree(11, 40, 5, 5, scale=1.5)
    every = find_modes(toy, 40, nodes=ALL, second="every")
    least = find_modes(toy, 40, nodes=ALL, second="least")
    none = find_modes(toy, 40, nodes=ALL, second="none")
    assert least.nodes_P.sum() < every.nodes_P.sum()
    gamma = (every.logp_P - every.second_P).min()
    assert (least.logp_P - least.second_P).min() == gamma
    assert (least.logp_P - least.second_upper_P).min() == gamma
    assert (none.logp_P - none.second_upper_P).min() <= gamma


def test_ties_are_told() -> None:
    even = find_modes(ToyTree(0, 2, 3, 1, scale=0.0), 2, nodes=ALL)
    assert even.certified_P.all()
    assert (even.certified_P & ~even.unique_P).sum() == 2
    # The tie lies below a prefix that was never opened: 0, or 1 and then surely 0.
    tree = Wide(np.log([[0.5, 0.5]]), np.array([[0.0, 0.0], [0.0, -np.inf]]))
    hidden = find_modes(tree, 1, nodes=1)
    assert hidden.certified_P.all()
    assert (hidden.certified_P & ~hidden.unique_P).sum() == 1


class Wide:
    """One-step responses over a large vocabulary, then an end: the rest entry must be reopened."""

    def __init__(self, logp_PV: np.ndarray, second_V: np.ndarray) -> None:
        self.logp_PV, self.second_V = torch.tensor(logp_PV), torch.tensor(second_V)
        self.ends, self.max_tokens = frozenset({0}), 2
        self.opened = 0

    def roots(self) -> tuple[Ints, torch.Tensor]:
        return np.arange(len(self.logp_PV)), self.logp_PV

    def extend(self, node_B: Ints, token_B: Ints) -> tuple[Ints, torch.Tensor]:
        self.opened += len(node_B)
        rows = torch.log_softmax(self.second_V[torch.as_tensor(token_B)], dim=-1)
        return np.arange(len(node_B)) + 1000, rows


def test_large_vocabulary_opens_the_rest_when_it_must() -> None:
    """Token 700 is the 700th likeliest first step, but leads to the mode; the others fan out."""
    V = 1000
    logit_V = -0.0005 * np.arange(V)
    logit_V[0] = -20.0
    logp_V = logit_V - np.logaddexp.reduce(logit_V)
    second_VV = np.zeros((V, V))
    second_VV[700, 0] = 50.0
    tree = Wide(np.stack([logp_V, logp_V]), second_VV)
    modes = find_modes(tree, 2, nodes=ALL, second="none")
    assert modes.certified_P.all()
    assert modes.tokens_P == ((700, 0), (700, 0))
    assert modes.logp_P == pytest.approx([logp_V[700]] * 2)
    # A budget that stops before keeps the truth inside.
    early = find_modes(tree, 2, nodes=20, second="none")
    assert not early.certified_P.any()
    assert (early.logp_P < logp_V[700]).all()
    assert (early.upper_P >= logp_V[700]).all()


def test_rest_of_a_sure_vocabulary_is_never_opened() -> None:
    V = 1500
    logp_V = np.full(V, np.log(0.1 / (V - 1)))
    logp_V[3] = np.log(0.9)
    second_VV = np.zeros((V, V))
    second_VV[:, 0] = 30.0
    tree = Wide(logp_V[None], second_VV)
    modes = find_modes(tree, 1, nodes=ALL, second="none")
    assert modes.tokens_P == ((3, 0),)
    assert modes.nodes_P[0] == 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([0.0, np.nan, -1.0], "nan"),
        ([-np.inf, -np.inf, -np.inf], "no token is possible"),
        ([3.0, 1.0, 0.0], "log-probability is 3"),
    ],
)
def test_a_broken_policy_is_named_by_prompt(row: list[float], words: str) -> None:
    good = np.log([0.5, 0.25, 0.25])
    tree = Wide(np.stack([good, np.array(row)]), np.zeros((3, 3)))
    with pytest.raises(UserError, match=f"prompt 1 .*{words}"):
        find_modes(tree, 2, nodes=ALL)


def test_zero_probability_is_never_opened() -> None:
    toy = ToyTree(2, 30, 5, 4, scale=1.0, zeros=0.7)
    find_modes(toy, 30, nodes=ALL, second="every")
    for prompt, prefix in toy.prefixes:
        logp = sum(toy.row(prompt, prefix[:t])[token] for t, token in enumerate(prefix))
        assert logp > -np.inf


def test_cut_off_mode_is_marked() -> None:
    """The end token is unlikely everywhere: the likeliest outcomes are cut off at H."""
    V = 3
    logp = np.log([0.01, 0.98, 0.01])
    tree = Wide(logp[None], np.tile(logp, (V, 1)))
    modes = find_modes(tree, 1, nodes=ALL)
    assert modes.tokens_P == ((1, 1),)
    assert not modes.finished_P[0]
