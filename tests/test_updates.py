"""--update: each choice reaches the policy that mathematics says, and refuses what it cannot."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.special import log_softmax

from srlm import exact_updates as minimisers
from srlm import losses, pairs, runner
from srlm import samples as sampling
from srlm import train as update
from srlm.config import RunConfig, SampleSettings, UpdateSettings, resolve
from srlm.errors import UserError
from srlm.policies.linear_softmax import LinearSoftmax
from srlm.policies.listed import Listed
from srlm.policies.tabular import Tabular, rows
from srlm.run_folder import tables
from srlm.runner import UPDATES, method_of, run
from srlm.types import Floats, Pairs, Prompt
from tests import tiny


def config(**changes: Any) -> RunConfig:
    return resolve(None, {"model": "m", "prompts.file": "p"} | changes)


def fitted(policy: Listed, x: list[Prompt], made: Pairs, kind: str, **changes: Any) -> Any:
    settings = UpdateSettings(kind=kind, **changes)  # type: ignore[arg-type]
    objective = UPDATES[kind][0](settings.nll)
    return update.fit(policy, x, made, objective, settings, seed=0)


def table(policy: Listed, x: list[Prompt]) -> Floats:
    return np.exp(policy.log_table(x))


# ---- the same minimiser: square, weighted; best of n in the limit


@given(st.integers(0, 10**6), st.floats(0.5, 5), st.booleans())
@settings(max_examples=15)
def test_any_reward_gives_the_tilted_policy(seed: int, beta: float, D: bool) -> None:
    """pi_t exp(r / beta), for a reward that has nothing to do with the likelihood."""
    policy: Listed = tiny.linear(seed=seed, scale=0.7) if D else tiny.tabular(seed=seed)
    x = tiny.vectors(6) if D else rows(5)
    if isinstance(policy, LinearSoftmax):  # a reward in the span of the features
        other = policy.with_theta(np.random.default_rng(seed).standard_normal(len(policy.theta)))
        reward_PM = other.log_table(x)
    else:
        reward_PM = np.random.default_rng(seed).standard_normal((5, 4))
    made = pairs.groups(policy.enumerate(x), reward_PM.ravel())
    target = np.exp(log_softmax(policy.log_table(x) + reward_PM / beta, axis=1))
    for kind in ("square", "weighted"):
        new, _ = fitted(policy, x, made, kind, beta=beta)
        np.testing.assert_allclose(table(new, x), target, atol=1e-8, rtol=0)


@pytest.mark.parametrize("D", [False, True])
def test_best_of_n_with_all_responses_is_the_limit_of_no_regularisation(D: bool) -> None:
    """All mass on the mode: where beta -> 0 takes the other updates."""
    policy: Listed = tiny.linear(scale=1.0) if D else tiny.tabular()
    x = tiny.vectors(5) if D else rows(5)
    samples = policy.enumerate(x)
    before = table(policy, x)
    new, report = fitted(policy, x, pairs.best(samples, samples.logp_R), "best-of-n")
    p = table(new, x)
    assert (p.argmax(1) == before.argmax(1)).all()
    assert p.max(1).min() > 1 - 1e-6
    assert report.loss_floor == pytest.approx(0)
    assert report.loss_after < 1e-6
    limit, _ = fitted(policy, x, pairs.groups(samples, samples.logp_R), "square", beta=1e-2)
    np.testing.assert_allclose(p, table(limit, x), atol=1e-5)


def test_best_of_n_keeps_ties_at_their_odds() -> None:
    policy = Tabular(np.log([[0.5, 0.3, 0.2]]))
    made = pairs.best(policy.enumerate(rows(1)), np.array([1.0, 1.0, 0.0]))
    new, report = fitted(policy, rows(1), made, "best-of-n")
    np.testing.assert_allclose(table(new, rows(1)), [[0.625, 0.375, 0]], atol=1e-9)
    assert report.loss_after == pytest.approx(report.loss_floor)


def test_best_of_more_draws_nears_the_mode() -> None:
    policy, x = tiny.tabular(40, 6, scale=1.0), rows(40)
    mode = table(policy, x).argmax(1)
    kept = []
    for n in (1, 4, 64):
        samples = policy.sample(x, n, seed=0, max_tokens=1)
        new, _ = fitted(policy, x, pairs.best(samples, samples.logp_R), "best-of-n")
        kept.append(np.mean(table(new, x).argmax(1) == mode))
    assert kept[0] < kept[1] < kept[2]
    assert kept[2] > 0.95


# ---- preferences


def counted(wins: int, losses_: int, reference: tuple[float, float]) -> Pairs:
    """Pairs of labels 0 and 1 of prompt 0, of which 0 is preferred in ``wins``."""
    n = wins + losses_
    reward = np.array([[1.0, 0.0]] * wins + [[0.0, 1.0]] * losses_).ravel()
    return Pairs(
        group_R=np.repeat(np.arange(n), 2),
        prompt_R=np.zeros(2 * n, dtype=np.int64),
        tokens_R=((0,), (1,)) * n,
        reference_R=np.tile(np.array(reference), n),
        reward_R=reward,
        weight_R=np.full(2 * n, 0.5),
        samples=2 * n,
    )


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_dpo_fits_bradley_terry(beta: float) -> None:
    """Three of four preferences: the odds rise by 3^(1/beta), the third response keeps its odds."""
    policy = Tabular(np.log([[0.5, 0.3, 0.2]]))
    new, report = fitted(policy, rows(1), counted(3, 1, (log(0.5), log(0.3))), "dpo", beta=beta)
    p = table(new, rows(1))[0]
    assert log(p[0] / p[1]) - log(0.5 / 0.3) == pytest.approx(log(3) / beta, rel=1e-6)
    assert report.notes == ()
    assert report.loss_before == pytest.approx(log(2))
    assert report.loss_after == pytest.approx(-(0.75 * log(0.75) + 0.25 * log(0.25)))


def test_dpo_in_the_population_is_the_tilted_policy() -> None:
    """Preferences drawn with probability sigmoid(r - r'): pi_t exp(r / beta)."""
    policy = Tabular(np.log([[0.5, 0.3, 0.2]]))
    reward, beta, n = np.array([0.7, 0.0, -0.4]), 0.6, 20_000
    tokens, prefers = [], []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        wins = round(n / (1 + np.exp(reward[b] - reward[a])))
        tokens += [(a,), (b,)] * n
        prefers += [1.0, 0.0] * wins + [0.0, 1.0] * (n - wins)
    made = Pairs(
        group_R=np.repeat(np.arange(3 * n), 2),
        prompt_R=np.zeros(6 * n, dtype=np.int64),
        tokens_R=tuple(tokens),
        reference_R=policy.log_table(rows(1))[0][[t[0] for t in tokens]],
        reward_R=np.array(prefers),
        weight_R=np.full(6 * n, 0.5),
        samples=6 * n,
    )
    new, _ = fitted(policy, rows(1), made, "dpo", beta=beta)
    target = np.exp(log_softmax(policy.log_table(rows(1))[0] + reward / beta))
    np.testing.assert_allclose(table(new, rows(1))[0], target, atol=2e-4)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_certain_preferences_go_to_infinity_under_dpo_and_to_a_margin_under_ipo(
    beta: float,
) -> None:
    policy, x = tiny.tabular(3, 4), rows(3)
    samples = policy.enumerate(x)
    made = pairs.best_worst(samples, samples.logp_R)
    before = policy.log_table(x)
    best, worst = before.argmax(1), before.argmin(1)
    new, report = fitted(policy, x, made, "ipo", beta=beta)
    after = new.log_table(x)
    change = after - before
    each = np.arange(3)
    np.testing.assert_allclose(change[each, best] - change[each, worst], 1 / (2 * beta), rtol=1e-9)
    assert report.notes == ()
    assert report.loss_after < 1e-18
    middle = np.ones_like(before, dtype=bool)
    middle[each, best] = middle[each, worst] = False
    odds = change[middle].reshape(3, 2)
    np.testing.assert_allclose(odds[:, 0], odds[:, 1], atol=1e-12)  # no pair compares these
    gone, report = fitted(policy, x, made, "dpo", beta=beta)
    change = gone.log_table(x) - before
    assert (change[each, best] - change[each, worst] > 20 / beta * 0.9).all()
    assert "no finite minimum" in report.notes[0]


@pytest.mark.parametrize(("kind", "nll"), [("dpo", 0.0), ("dpo", 0.3), ("ipo", 0.0), ("ipo", 0.3)])
def test_preferences_on_shared_features_reach_the_slow_twins_minimum(kind: str, nll: float) -> None:
    """Two features for 20 prompts, so that no theta suits all pairs; against scipy's BFGS."""
    rng = np.random.default_rng(1)
    policy = LinearSoftmax(
        rng.standard_normal(2), ("a", "b", "c"), phi_XMD=rng.standard_normal((20, 3, 2))
    )
    x = rows(20)
    samples = policy.sample(x, 4, seed=0, max_tokens=1)
    made = pairs.best_worst(samples, rng.standard_normal(len(samples)))
    new, report = fitted(policy, x, made, kind, beta=0.7, nll=nll)

    def slow(theta: Floats) -> float:
        logp = policy.with_theta(theta).log_table(x)
        total = 0.0
        for g in range(made.groups):
            i, j = np.flatnonzero(made.group_R == g)
            if made.reward_R[i] < made.reward_R[j]:
                i, j = j, i
            now = [logp[made.prompt_R[r], made.tokens_R[r][0]] for r in (i, j)]
            margin = (now[0] - made.reference_R[i]) - (now[1] - made.reference_R[j])
            total += (
                np.logaddexp(0, -0.7 * margin) if kind == "dpo" else (margin - 1 / 1.4) ** 2
            ) - nll * now[0]
        return total / made.groups

    least = optimize.minimize(slow, policy.theta, tol=1e-10)
    assert report.loss_after == pytest.approx(slow(new.theta), rel=1e-9)
    assert report.loss_after <= least.fun + 1e-9
    np.testing.assert_allclose(new.theta, least.x, atol=1e-4)
    assert report.notes == ()


def test_the_likelihood_term_keeps_the_preferred_response_likely() -> None:
    """IPO alone lets the mass go where no pair looks; with the term it goes to the best."""
    policy, x = tiny.tabular(3, 5, scale=0.5), rows(3)
    samples = policy.enumerate(x)
    made = pairs.best_worst(samples, samples.logp_R)
    best = policy.log_table(x).argmax(1)
    likely = [
        table(fitted(policy, x, made, "ipo", beta=0.5, nll=nll)[0], x)[np.arange(3), best].mean()
        for nll in (0.0, 0.1, 1.0)
    ]
    assert likely[0] < likely[1] < likely[2]


@given(st.integers(0, 10**6))
@settings(max_examples=10)
def test_newton_by_autograd_is_the_weighted_solver(seed: int) -> None:
    """Two ways to one maximum: written-out derivatives and those of autograd."""
    policy, x = tiny.linear(2, 3, seed=seed, scale=0.8), tiny.vectors(8, 2)
    samples = policy.enumerate(x)
    made = pairs.groups(samples, samples.logp_R)
    one, _ = minimisers.weighted(policy, x, made, 1.3)
    other, notes = minimisers.convex(losses.weighted, True, policy, x, made, 1.3)
    np.testing.assert_allclose(
        table(policy.with_theta(one), x), table(policy.with_theta(other), x), atol=1e-7
    )
    assert notes == ()


# ---- networks


@pytest.mark.parametrize("kind", UPDATES)
def test_every_update_trains_a_network(kind: str) -> None:
    x, policy = tiny.texts(12), tiny.policy("llama")
    samples = policy.sample(x, 6, seed=0, max_tokens=4)
    flags = {"update.kind": kind} | ({"update.nll": 0.1} if kind in ("dpo", "ipo") else {})
    chosen = config(**flags)
    made = method_of(chosen).pair(samples, samples.logp_R)
    settings = UpdateSettings(prompts_per_step=4, epochs=5, lr=3e-3, beta=0.2, nll=0.1)
    objective = method_of(chosen).objective
    _, report = update.fit(policy, x, made, objective, settings, seed=0)
    fallen = (report.loss_before - report.loss_after) / (report.loss_before - report.loss_floor)
    assert fallen > 0.3


def test_nothing_to_prefer_is_named() -> None:
    policy, x = tiny.tabular(2, 3), rows(2)
    made = pairs.best_worst(policy.enumerate(x), np.zeros(6))
    with pytest.raises(UserError, match="nothing to prefer"):
        fitted(policy, x, made, "dpo")


# ---- as many draws as it takes


def test_adapting_draws_are_a_rule_on_blocks() -> None:
    policy, x = tiny.tabular(30, 8, scale=1.5), rows(30)
    samples = sampling.gathered(sampling.blocks(policy, x, 3.0, 4, seed=5, max_tokens=1))
    p_star = table(policy, x).max(1)
    for p in range(30):
        mine = np.flatnonzero(samples.prompt_R == p)
        k = len(mine)
        assert k % 4 == 0
        np.testing.assert_allclose(samples.weight_R[mine], 1 / k)
        assert k * np.exp(samples.logp_R[mine].max()) >= 3.0
        assert k == 4 or (k - 4) * np.exp(samples.logp_R[mine[:-4]].max()) < 3.0
        assert k >= 3.0 / p_star[p]
    assert (np.diff(samples.prompt_R) >= 0).all()
    again = sampling.gathered(sampling.blocks(policy, x, 3.0, 4, seed=5, max_tokens=1))
    assert again.tokens_R == samples.tokens_R
    assert (
        sampling.gathered(sampling.blocks(policy, x, 3.0, 4, seed=6, max_tokens=1)).tokens_R
        != samples.tokens_R
    )


def test_adapting_draws_find_the_mode_as_often_as_promised() -> None:
    policy, x = tiny.tabular(400, 12, scale=0.7), rows(400)
    for mu in (0.5, 2.0):
        samples = sampling.gathered(sampling.blocks(policy, x, mu, 1, seed=1, max_tokens=1))
        made = pairs.best(samples, samples.logp_R)
        mode = table(policy, x).argmax(1)
        missed = sum(mode[p] != t[0] for p, t in zip(made.prompt_R, made.tokens_R, strict=True))
        assert stats.binomtest(missed, 400, np.exp(-mu), alternative="greater").pvalue > 1e-3
        each = np.bincount(samples.prompt_R)
        assert each.mean() <= np.mean((1 + mu) / table(policy, x).max(1)) * 1.1


def test_adapting_draws_stop_at_the_most() -> None:
    policy, x = tiny.tabular(2, 50, scale=0.0), rows(2)
    samples = sampling.gathered(sampling.blocks(policy, x, 5.0, 4, seed=0, max_tokens=1, most=10))
    assert np.bincount(samples.prompt_R).tolist() == [12, 12]


def test_draws_of_a_network_can_adapt() -> None:
    policy, x = tiny.policy("llama"), tiny.texts(6)
    settings = SampleSettings(per_prompt=2, mu=1.0, max_tokens=3)
    samples = sampling.sample(policy, x, settings, seed=0)
    again = policy.log_prob(x, samples.prompt_R, samples.tokens_R)
    np.testing.assert_allclose(samples.logp_R, again, atol=1e-4)
    assert len(samples.token_logp_R) == len(samples)
    assert len(set(np.bincount(samples.prompt_R))) > 1


# ---- groups of unequal weight


@pytest.mark.parametrize("kind", ["square", "weighted", "ipo", "dpo"])
@pytest.mark.parametrize("D", [False, True])
def test_a_weight_is_a_number_of_copies(kind: str, D: bool) -> None:
    """Slow twin: groups of weights 1, 2, 3 (their mean taken out) are the group once, twice, ..."""
    policy: Listed = tiny.linear(scale=0.7) if D else tiny.tabular(3, 4)
    x = tiny.vectors(3) if D else rows(3)
    reward = np.random.default_rng(1).standard_normal(3 * len(policy.responses_M))
    made = pairs.best_worst(policy.enumerate(x), reward)
    copies = np.array([1, 2, 3])
    if kind == "dpo":  # certain preferences have no minimum: each pair the other way too
        flipped = np.concatenate([made.reward_R, made.reward_R.reshape(-1, 2)[:, ::-1].ravel()])
        made = repeated(made, np.tile(np.arange(3), 2), reward_R=flipped)
        copies = np.array([1, 2, 3, 3, 1, 2])
    weighed = replace(made, scale_G=copies / copies.mean())
    twin = repeated(made, np.repeat(np.arange(made.groups), copies))
    new, report = fitted(policy, x, weighed, kind, beta=0.7)
    slow, slow_report = fitted(policy, x, twin, kind, beta=0.7)
    np.testing.assert_allclose(table(new, x), table(slow, x), atol=1e-8)
    for name in ("loss_before", "loss_after", "loss_floor"):
        assert getattr(report, name) == pytest.approx(getattr(slow_report, name), abs=1e-9)


def repeated(made: Pairs, groups: np.ndarray, reward_R: Floats | None = None) -> Pairs:
    """Groups of two rows, those of ``groups`` in that order."""
    row_R = np.stack([2 * groups, 2 * groups + 1], axis=1).ravel()
    return replace(
        made,
        group_R=np.repeat(np.arange(len(groups)), 2),
        prompt_R=made.prompt_R[row_R],
        tokens_R=tuple(made.tokens_R[r] for r in row_R),
        reference_R=made.reference_R[row_R],
        reward_R=made.reward_R[row_R] if reward_R is None else reward_R,
        weight_R=made.weight_R[row_R],
    )


def test_dpo_fits_bradley_terry_with_weights() -> None:
    """One preference of weight 3 against one of weight 1 are three of four."""
    policy = Tabular(np.log([[0.5, 0.3, 0.2]]))
    made = replace(counted(1, 1, (log(0.5), log(0.3))), scale_G=np.array([1.5, 0.5]))
    new, report = fitted(policy, rows(1), made, "dpo", beta=0.5)
    p = table(new, rows(1))[0]
    assert log(p[0] / p[1]) - log(0.5 / 0.3) == pytest.approx(log(3) / 0.5, rel=1e-6)
    assert report.loss_before == pytest.approx(log(2))
    assert report.loss_after == pytest.approx(-(0.75 * log(0.75) + 0.25 * log(0.25)))


def test_conflicting_margins_under_ipo_meet_at_their_weighted_mean() -> None:
    """(m - a)^2 and (m + a)^2 with weights w and 2 - w, a = 1 / (2 beta): m = (w - 1) a."""
    policy = Tabular(np.log([[0.5, 0.3, 0.2]]))
    made = replace(counted(1, 1, (log(0.5), log(0.3))), scale_G=np.array([1.8, 0.2]))
    new, _ = fitted(policy, rows(1), made, "ipo", beta=0.25)
    p = table(new, rows(1))[0]
    assert log(p[0] / p[1]) - log(0.5 / 0.3) == pytest.approx(0.8 * 2, rel=1e-9)


@pytest.mark.parametrize("kind", ["square", "weighted", "dpo"])
def test_weights_of_one_change_no_bit_of_a_network(kind: str) -> None:
    x = tiny.texts(9)
    samples = tiny.policy("llama").sample(x, 4, seed=0, max_tokens=4)
    made = pairs.best_worst(samples, samples.logp_R)
    kept = []
    for scale_G in (None, np.ones(made.groups)):
        settings = {"beta": 1.0, "lr": 1e-2, "prompts_per_step": 3, "pass_tokens": 30}
        new, report = fitted(
            tiny.policy("llama"), x, replace(made, scale_G=scale_G), kind, **settings
        )
        kept.append((new.log_prob(x, samples.prompt_R, samples.tokens_R).tolist(), report))
    assert kept[0] == kept[1]


def test_a_network_learns_by_the_weights() -> None:
    """All the weight on some groups: what is left is a step on those alone."""
    x = tiny.texts(8)
    samples = tiny.policy("llama").sample(x, 4, seed=0, max_tokens=4)
    made = pairs.best_worst(samples, samples.logp_R)
    G = made.groups
    heavy = np.arange(G) % 2 == 0
    alone = repeated(made, np.flatnonzero(heavy))
    weighed = replace(made, scale_G=np.where(heavy, G / heavy.sum(), 0.0))
    steps = {"beta": 1.0, "lr": 1e-3, "epochs": 1, "prompts_per_step": 64, "pass_tokens": 30}
    logp = []
    for groups in (alone, weighed):
        new, _ = fitted(tiny.policy("llama"), x, groups, "ipo", clip=1e9, **steps)
        logp.append(new.log_prob(x, samples.prompt_R, samples.tokens_R))
    np.testing.assert_allclose(logp[0], logp[1], atol=2e-3)
    assert np.abs(logp[0] - samples.logp_R).max() > 0.02


# ---- names


def test_names_are_functions() -> None:
    for kind in UPDATES:
        method_of(config(**{"update.kind": kind}))
        assert callable(method_of(config(**{"update.kind": kind})).pair)
    samples = tiny.tabular(4, 3).sample(rows(4), 8, seed=0, max_tokens=1)
    sizes = {}
    for kind in UPDATES:
        made = method_of(config(**{"update.kind": kind})).pair(samples, samples.logp_R)
        sizes[kind] = int(np.bincount(made.group_R).max())
    assert sizes == {"weighted": 3, "square": 3, "best-of-n": 1, "dpo": 2, "ipo": 2}


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"update.kind": "dpo", "pairs.kind": "groups"}, "dpo cannot be trained on --pairs groups"),
        (
            {"update.kind": "best-of-n", "pairs.kind": "pairs"},
            "best-of-n cannot be trained on --pairs pairs",
        ),
        ({"pairs.kind": "best-worst"}, "weighted cannot be trained on --pairs best-worst"),
        ({"update.nll": 0.5}, "--nll 0.5 with --update weighted"),
        ({"samples.mu": 2.0}, "--mu with --update weighted"),
        (
            {"update.kind": "best-of-n", "samples.mu": 2.0, "samples.source": "enumerate"},
            "--source enumerate",
        ),
    ],
)
def test_what_does_not_go_together(flags: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        method_of(config(**flags))


def test_the_losses_agree_on_who_is_preferred() -> None:
    """The gradient of each loss at pi_t raises the better response."""
    reward = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    reference = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    weight, group = torch.full((2,), 0.5, dtype=torch.float64), torch.zeros(2, dtype=torch.long)
    for loss in (losses.square, losses.dpo, losses.ipo):
        at = reference.clone().requires_grad_()
        g = losses.Groups(reference, reward, weight, group, 1, 0.5)
        (gradient,) = torch.autograd.grad(loss(at, g).sum(), at)
        assert gradient[0] < 0 < gradient[1]


@pytest.mark.parametrize("kind", UPDATES)
def test_every_update_runs_from_its_settings(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "write_page", lambda summary: summary.folder / "report.html")
    tiny.saved(tmp_path / "lm")
    file = tiny.write_prompts(tmp_path / "texts.jsonl", tiny.texts(20), ["a"] * 20)
    more = {
        "best-of-n": {"samples.mu": 1.0},
        "dpo": {"update.nll": 0.1},
        "ipo": {"update.lr": 3e-4},
    }.get(kind, {})
    changes = {"update.kind": kind, "rounds": 2, "stop": "auto"} | more
    done = run(tiny.config(tmp_path / "lm", file, **changes), tmp_path / "run")
    assert len(done.rounds) == 3
    assert json.loads((tmp_path / "run" / "stop.json").read_text())["code"] == "rounds"


def test_voted_pairs_go_on_from_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of the groups are in the file: a run that goes on ends with the same bytes."""
    monkeypatch.setattr(runner, "write_page", lambda summary: summary.folder / "report.html")
    tiny.saved(tmp_path / "lm")
    file = tiny.write_prompts(tmp_path / "texts.jsonl", tiny.texts(20), ["a"] * 20)
    changes = {"update.kind": "dpo", "pairs.kind": "voted", "rounds": 1, "update.lr": 1e-2}
    config = tiny.config(tmp_path / "lm", file, **changes)
    run(config, tmp_path / "run")
    made = tables.read_pairs(tmp_path / "run/rounds/000/pairs.parquet")
    assert made.scale_G is not None
    assert made.scale_G.mean() == pytest.approx(1)
    assert made.scale_G.std() > 0.01
    weights = tmp_path / "run/rounds/001/policy/model.safetensors"
    whole = weights.read_bytes()
    shutil.rmtree(tmp_path / "run/rounds/001")
    run(config, tmp_path / "run")
    assert weights.read_bytes() == whole
