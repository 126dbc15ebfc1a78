"""rate: how the final failure falls with the pairs of a round; worst case and benign apart."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from srlm.lab import instances, tabular
from srlm.lab.bulk import bulk
from srlm.lab.fits import bootstrap_slope, slope
from srlm.lab.result import Finding
from srlm.lab.setting import Setting
from srlm.report.plots import BLUE, GREEN, PURPLE, VERMILION, panels, series
from srlm.theory.adversary import envelope
from srlm.theory.hard_family import HardInstance, hard_instance
from srlm.theory.recursion import final_failure, final_failure_closed, statistical_error
from srlm.types import Floats

PROMPTS, KAPPA, ROUNDS, BETA = 32, 4.0, 3, 0.25
SIZES = (300, 1000, 3000, 10_000, 30_000)
FIXED = (300, 600, 1000, 1500, 2000, 3000)
D, NOISE = 16, 1.0


def experiment(setting: Setting) -> Finding:
    """The hard family through the loop, its adversary awake or asleep; linear softmax with and
    without noise on the reward."""
    replicates = setting.pick(100, 24)

    def worst(n: int, replicates: int) -> dict[str, Any]:
        # The adversary of one round, tried a little to both sides for T rounds.
        guess = envelope(n * ROUNDS, KAPPA, prompts=PROMPTS).instance.responses
        tried = [
            (hard_loop(hard_instance(KAPPA, PROMPTS, m), n, replicates, setting.seed), m)
            for m in sorted({max(8, round(guess * f)) for f in (0.6, 0.8, 1.0, 1.25)})
        ]
        failure_R, m = max(tried, key=lambda pair: pair[0].mean())
        return {"failures": failure_R.tolist(), "responses": m}

    def asleep(n: int, replicates: int) -> dict[str, Any]:
        m = envelope(SIZES[0] * ROUNDS, KAPPA, prompts=PROMPTS).instance.responses
        instance = hard_instance(KAPPA, PROMPTS, m)
        failure_R = hard_loop(instance, n, replicates, setting.seed)
        return {"failures": failure_R.tolist(), "responses": m}

    def linear(n: int, noise: float, replicates: int) -> dict[str, Any]:
        start = instances.linear(
            instances.exponential(D, 0.1), KAPPA, prompts=32, responses=16, seed=setting.seed
        )
        paths = bulk(
            start,
            rounds=ROUNDS,
            pairs=n,
            beta=2.0,
            replicates=replicates,
            seed=setting.seed,
            noise=noise,
        )
        exact_D = start.theta_D * 1.5**ROUNDS
        gap_R = np.linalg.norm(paths.theta_RD - exact_D, axis=1) / np.linalg.norm(exact_D)
        exact = bulk(
            start, rounds=ROUNDS, pairs=64 * D, beta=2.0, replicates=1, seed=setting.seed
        ).failure_RT[0, -1]
        return {
            "failure": float(paths.failure_RT[:, -1].mean()),
            "failure, exact updates": float(exact),
            "gaps": gap_R.tolist(),
        }

    hard = setting.sweep("rate-hard", [{"n": n, "replicates": replicates} for n in SIZES], worst)
    calm = setting.sweep("rate-fixed", [{"n": n, "replicates": replicates} for n in FIXED], asleep)
    sizes = (8, 12, 16, 24, 32, 64, 256, 1024)
    smooth, noisy = (
        setting.sweep(
            "rate-linear", [{"n": n, "noise": s, "replicates": replicates} for n in ns], linear
        )
        for s, ns in ((0.0, sizes), (NOISE, (64, 256, 1024, 4096)))
    )
    in_n = bootstrap_slope(
        SIZES, [np.array(r["failures"]) for r in hard], setting.seed, "worst case, log-log"
    )
    means = [float(np.mean(r["failures"])) for r in calm]
    shape = [(n, f) for n, f in zip(FIXED, means, strict=True) if f > 0]
    decay = slope([n for n, _ in shape], [np.log(f) for _, f in shape], "log failure on n")
    local = [float(np.log(b[1] / a[1]) / np.log(b[0] / a[0])) for a, b in pairwise(shape)]
    scatter = bootstrap_slope(
        [r["n"] for r in noisy], [np.array(r["gaps"]) for r in noisy], setting.seed, "log-log"
    )
    spanned = max(float(np.max(r["gaps"])) for r in smooth if r["n"] >= 4 * D)
    table = (
        [_row("hard family, adversary awake", r) for r in hard]
        + [_row("hard family, one instance", r) for r in calm]
        + [_row("linear softmax", r) for r in smooth]
        + [_row(f"linear softmax, noise {NOISE:g} nat", r) for r in noisy]
    )
    bound = told(hard[-1]["responses"], SIZES[-1])
    low, high = in_n.low or 0.0, in_n.high or 0.0
    return Finding(
        claim="rate",
        instance=(
            f"{ROUNDS} rounds. Worst case: hard family through tabular rounds, d = {PROMPTS}, "
            f"kappa_0 = {KAPPA:g}, beta = {BETA:g}, Delta picked for each n. Benign: one member of "
            f"it; linear softmax, D = {D}, beta 2, without and with noise of {NOISE:g} nat on the "
            f"rewards. {replicates} replicates a row"
        ),
        figures=table,
        numbers={
            "worst case, exponent of n": in_n,
            f"bound at n = {SIZES[-1]}, c = 1, vacuous from 1 on": bound,
            "the same in closed form": told(hard[-1]["responses"], SIZES[-1], final_failure_closed),
            "one instance, slope of log failure on n": decay,
            "one instance, steepest local exponent": float(min(local)) if local else float("nan"),
            "linear, largest relative error of theta for n >= 4 D": spanned,
            "linear with noise, exponent of the error of theta": scatter,
        },
        verdict="holds" if high < -0.4 else "violated",
        because=(
            f"worst-case exponent {in_n.value:.3f} [{low:.3f}, {high:.3f}]; benign cases fall "
            "faster than any power"
        ),
        says="P[pi_T(y*|x) <= 1/2] <= (2/gamma) eps(...) with eps ~ n^(-1/2): an upper bound.",
        seen=(
            f"The worst case of each n falls as n^{in_n.value:.2f}, near the exponent of the bound "
            f"(whose value is vacuous here: {bound:.2g} at n = {SIZES[-1]:,} with c = 1). No "
            "one instance does so: with Delta fixed, log failure falls "
            f"in a straight line in n (local exponent down to {min(local):.1f}), and linear "
            f"softmax without noise is exact to {spanned:.0e} once the pairs span. Only with noise "
            f"on the rewards does the parameters' error follow n^{scatter.value:.2f}."
        ),
        plot=draw(hard, calm, smooth, noisy),
    )


def hard_loop(instance: HardInstance, n: int, replicates: int, seed: int) -> Floats:
    """Lost mass P_x[pi_T(y*|x) <= 1/2] after T tabular rounds of n pairs, [R].

    x_0 is sure and cannot be lost, so only the pairs at the hard prompts are sampled: their number
    is binomial(n, Delta) each round.
    """
    d, m = instance.prompts, instance.responses
    logp_XM = np.full((d, m), np.log((1 - 2 / m) / (m - 1)))
    logp_XM[:, 0] = np.log(2 / m)
    rng = np.random.default_rng([seed, n, m])
    lost = []
    step = max(1, (1 << 21) // (d * m))
    for first in range(0, replicates, step):
        count = min(step, replicates - first)
        table_RXM = np.tile(logp_XM, (count, 1, 1))
        for t in range(ROUNDS):
            hits_R = rng.binomial(n, instance.hard_mass, size=count)
            most, part = int(hits_R.max()) or 1, first + np.arange(count)
            x, y, other = tabular.draw(table_RXM, np.ones(d), most, seed=seed + n, t=t, part=part)
            beyond = np.arange(x.shape[1]) >= hits_R[:, None]
            table_RXM = tabular.update(table_RXM, x, y, np.where(beyond, y, other), BETA)
        lost.append(instance.hard_mass * (table_RXM[:, :, 0] <= np.log(0.5)).mean(1))
    return np.concatenate(lost)


def told(responses: int, n: int, form: Callable[..., float] = final_failure) -> float:
    """The bound over T rounds with c = 1 on a member of the hard family, its margin log 2."""
    log_responses = float(np.log(responses))
    eps = statistical_error(n, PROMPTS * log_responses, log_responses)
    mu = 2.0 / responses
    return form(KAPPA, ROUNDS, eps=eps, beta=BETA, margin=float(np.log(2)), mu=mu)


def _row(case: str, r: dict[str, Any]) -> dict[str, Any]:
    return {
        "case": case,
        "n": r["n"],
        "failure": float(np.mean(r["failures"])) if "failures" in r else r["failure"],
        "failure, exact updates": r.get("failure, exact updates"),
        "relative error of theta": float(np.mean(r["gaps"])) if "gaps" in r else None,
        "responses": r.get("responses"),
    }


def draw(hard: Any, calm: Any, smooth: Any, noisy: Any) -> dict[str, Any]:
    """Failures on the left, errors of the parameters on the right."""

    def means(part: Any, key: str) -> list[float | None]:
        values = [float(np.mean(r[key])) for r in part]
        return [v if v > 1e-15 else None for v in values]

    def xs(part: Any) -> list[int]:
        return [r["n"] for r in part]

    return panels(
        [
            series(xs(hard), means(hard, "failures"), "worst case of each n", VERMILION),
            series(xs(calm), means(calm, "failures"), "one instance", BLUE),
            series(xs(smooth), means(smooth, "gaps"), "linear softmax", GREEN, axis="2"),
            series(xs(noisy), means(noisy, "gaps"), "linear, noisy rewards", PURPLE, axis="2"),
        ],
        "pairs of a round, n",
        ["failure after 3 rounds", "relative error of theta"],
        log_x=True,
        log_y=True,
    )
