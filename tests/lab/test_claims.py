"""The experiments themselves: verdicts, figures asked for, and verdicts that can fall."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest

from srlm import lab
from srlm.lab.result import Finding
from srlm.lab.setting import Setting
from srlm.types import Estimate

QUICK = Setting(seed=0, quick=True)


def module(claim: str) -> ModuleType:
    return importlib.import_module(f"srlm.lab.claims.{claim.replace('-', '_')}")


def value(found: Finding, name: str) -> float:
    x = found.numbers[name]
    got = x.value if isinstance(x, Estimate) else x
    assert got is not None
    return got


def test_minimiser() -> None:
    found = module("minimiser").experiment(QUICK)
    assert found.verdict == "holds"
    assert value(found, "largest distance where the pairs span") < 1e-8
    assert found.figures[0]["spanning"] == 0
    assert found.figures[-1]["spanning"] == 1


def test_minimiser_can_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = module("minimiser")
    monkeypatch.setattr(claim, "closed_form", lambda start: start.phi_XMD @ start.theta_D)
    assert claim.experiment(QUICK).verdict == "violated"


def test_lower_bound() -> None:
    found = module("lower-bound").experiment(QUICK)
    assert found.verdict == "holds"
    assert value(found, "least failure / formula") >= 1
    for k in (2, 16, 256):
        assert value(found, f"slope in n, kappa_0 = {k}") == pytest.approx(-0.5, abs=0.02)
    assert value(found, "slope in kappa_0, log|Pi| fixed") == pytest.approx(0.5, abs=0.03)
    assert value(found, "slope in kappa_0 - 1, d fixed") == pytest.approx(0.5, abs=0.01)


def test_lower_bound_can_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = module("lower-bound")
    monkeypatch.setattr(claim, "STATED_CONSTANT", 0.3)
    assert claim.experiment(QUICK).verdict == "violated"


def test_greedy() -> None:
    found = module("greedy").experiment(QUICK)
    assert found.verdict == "holds"
    assert all(r["trap missed"] for r in found.figures if r["p_star"] <= 0.5)
    assert all(r["random missed"] == 0 for r in found.figures if r["p_star"] > 0.5)
    # A table with this p* is what was asked for.
    table = module("greedy")._with_mode(np.ones((5, 12)), 0.3, np.random.default_rng(0))
    assert np.exp(table).sum(1) == pytest.approx(1)
    assert np.exp(table).max(1) == pytest.approx(0.3)


def test_recursion() -> None:
    found = module("recursion").experiment(QUICK)
    assert found.verdict == "holds, loose by a factor"
    assert value(found, "instances") == 3_000
    assert value(found, "largest gap to quadrature") < 1e-9
    assert value(found, "largest kappa / bound, eps of the theorem (c = 1)") <= 1


def test_recursion_can_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = module("recursion")
    step = claim.kappa_step
    monkeypatch.setattr(claim, "kappa_step", lambda a, mu: 1 + 0.3 * (step(a, mu) - 1))
    assert claim.experiment(QUICK).verdict == "violated"


def test_contraction() -> None:
    found = module("contraction").experiment(QUICK)
    assert found.verdict == "holds"
    assert all(r["lambda (eps = 0)"] < 0.5 for r in found.figures)


def test_rate() -> None:
    found = module("rate").experiment(QUICK)
    assert found.verdict == "holds"
    worst = found.numbers["worst case, exponent of n"]
    assert isinstance(worst, Estimate)
    assert worst.value == pytest.approx(-0.5, abs=0.08)
    assert value(found, "one instance, steepest local exponent") < -1.5
    noisy = value(found, "linear with noise, exponent of the error of theta")
    assert noisy == pytest.approx(-0.5, abs=0.1)


def test_the_hard_loop_can_only_lose_the_hard_mass() -> None:
    claim = module("rate")
    instance = claim.hard_instance(4.0, 8, 20)
    few = claim.hard_loop(instance, 1, 20, 0)
    many = claim.hard_loop(instance, 20_000, 4, 0)
    assert few == pytest.approx(instance.hard_mass, rel=0.2)
    assert many == pytest.approx(0.0)


def test_families_are_not_trained_in_quick_mode() -> None:
    assert module("families").experiment(QUICK).verdict == "not testable here"


def test_forecast_row_is_exact_on_an_enumeration() -> None:
    from srlm.forecast.powers import known, sharpen
    from srlm.policies.tabular import Tabular, rows

    policy = Tabular(np.log([[0.5, 0.3, 0.2]]))
    listed = known(policy.enumerate(rows(1)), [(0,)], np.log([0.5]), exact=True)
    row = module("forecast")._row("x", 1, 2.0, sharpen(listed, 2.0), 1.0)
    assert row["kappa told"] == pytest.approx((0.25 + 0.09 + 0.04) / 0.25)


@pytest.mark.slow
@pytest.mark.parametrize("claim", [c for c in lab.CLAIMS if c != "families"])
def test_every_claim_holds_in_quick_mode(claim: str) -> None:
    found = module(claim).experiment(QUICK)
    assert found.verdict.startswith("holds")
    assert found.claim == claim
    assert found.figures
    assert found.plot["data"]
    assert Finding.from_json(found.to_json()).to_json() == found.to_json()
