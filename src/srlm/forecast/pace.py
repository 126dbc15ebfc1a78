"""How far trained rounds go towards their target, and where later rounds go from there.

A round of any reward and update is pulled to its *expected target*: what fitting each prompt's
group of samples would give (``srlm.forecast.groups``). A trained round goes a share s of the way,

    pi_{t+1} = (1 - s_t) pi_t + s_t target_t,

which is what maximum likelihood on few passes was seen to do, and the other updates too
(docs/forecasts.md). s is read off how sure the policy became of what its reward leads to,

    s_t = (x_{t+1} - x_t) / (x(target_t) - x_t),

x the mean vote share (the mean confidence p* for the likelihood), on the held-out samples: no
answers are needed. Prompts whose samples have equal rewards say nothing about what is better, so
s falls as they become more: s_t = s u_t^fade with u_t the share of groups with unequal rewards.
``fade`` is one constant per update (``FADES``), chosen on seeds apart from those that it was judged
on; s is the mean over the rounds seen of s_t / u_t^fade.

Accuracy may fall short of the mixture's, for training moves other prompts too (drift): the factor
by which its last round missed, 1 at most, is forecast for each later round.

``pace`` is another number: the power of the policy before that is as sure as the policy after, for
the gap between a run and exact likelihood updates (``srlm.report.gap``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq

from srlm.errors import UserError
from srlm.forecast import dynamics
from srlm.forecast.dynamics import Mass
from srlm.forecast.groups import (
    Pull,
    Rows,
    ScoreOf,
    Target,
    best,
    exact_target,
    expected_target,
    mixed,
)
from srlm.forecast.powers import Known, sharpen
from srlm.types import Bools, Estimate, Floats, undefined

FADES: Mapping[str, float] = {
    "weighted": 0.5,
    "best-of-n": 0.5,
    "square": 1.0,
    "dpo": 1.0,
    "ipo": 1.0,
}
"""How the share falls with the groups of unequal rewards. In the last three a group of equal
rewards has no gradient at all; the first two go on learning from its samples."""
BEST = ("best-of-n", "dpo", "ipo")
"""Updates that are pulled to the best response of a group, not to exp(r / beta)."""
PRIOR_SHARE = 0.6
"""s before any round is seen: the middle of the runs on which the constants were chosen."""
PRIOR_ENDS = (0.2, 1.0)
DEVIATION = 0.15
"""Standard deviation of a later round's s over the one expected, relative."""
DRIFT = 0.012
"""Standard deviation of what a later round adds to a share (accuracy, votes, confidence) or takes
from it besides; grows with the root of the rounds ahead. Of 1 / a share it is as much times its
square; of the length, relatively, ``DRIFT_LENGTH``. Before any round is seen it is ``UNSEEN`` times
as much."""
DRIFT_LENGTH = 0.03
UNSEEN = 2.0
LEAST_PULL = 0.01
"""Movement of x below which a round's share of it cannot be read off."""
PULLS = 4096
"""Groups behind an expected target, over all prompts."""
FORECAST = (
    "sampling_accuracy",
    "vote_share",
    "kappa_vote",
    "readable",
    "length",
    "confidence",
    "kappa",
)
"""What is forecast of a later round, and scored; the last two for the likelihood alone."""
SHARES = ("sampling_accuracy", "vote_share", "readable", "confidence")
RATIOS = ("kappa", "kappa_vote", "length")
"""Quantities whose errors are relative."""


@dataclass(frozen=True, slots=True)
class Method:
    """A run's rounds, as a forecast sees them."""

    score_of: ScoreOf
    beta: float
    k: int | None
    """Samples of a prompt in a round; None where all responses are listed."""
    update: str = "weighted"

    @property
    def towards(self) -> Target:
        """What a group is pulled to."""
        return best if self.update in BEST else dynamics.target


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a policy: responses with their shares."""

    rows: Rows
    mass: Mass
    right_R: Floats
    """1, 0, not-a-number."""
    mode_R: Bools | None = None
    """The row of each prompt's likeliest response, for the likelihood; else None."""

    @property
    def sure_name(self) -> str:
        """x: what a round's share is read off."""
        return "vote_share" if self.mode_R is None else "confidence"


def pull(state: State, mass: Mass, method: Method, seed: int) -> Pull:
    """Where the next round from ``mass`` is pulled to."""
    if method.k is None:
        return exact_target(state.rows, mass, method.score_of, method.beta, towards=method.towards)
    groups = max(4, -(-PULLS // max(mass.prompts, 1)))
    return expected_target(
        state.rows,
        mass,
        method.score_of,
        method.beta,
        method.k,
        towards=method.towards,
        groups=groups,
        seed=seed,
    )


def figures(state: State, mass: Mass) -> dict[str, float]:
    """The quantities of ``FORECAST`` that the rows tell, of a policy with these shares."""
    rows, P = state.rows, mass.prompts
    voting = rows.answer_R >= 0
    share_PA = np.zeros((P, int(rows.answer_R.max(initial=0)) + 1))
    at = (rows.prompt_R[voting], rows.answer_R[voting])
    np.add.at(share_PA, at, mass.mass_R[voting])
    top_P = share_PA.max(1)
    least_P = 1 / np.bincount(rows.prompt_R, minlength=P)
    out = {
        "vote_share": float(top_P.mean()),
        "kappa_vote": float(np.mean(1 / np.maximum(top_P, least_P))),
        "readable": float(share_PA.sum(1).mean()),
        "length": float(mass.expect(rows.length_R.astype(np.float64)).mean()),
    }
    known_R = ~np.isnan(state.right_R)
    if known_R.any():
        answered = np.unique(rows.prompt_R[known_R])
        right_P = mass.expect(np.nan_to_num(state.right_R))
        out["sampling_accuracy"] = float(right_P[answered].mean())
    if state.mode_R is not None:
        p_P = np.bincount(rows.prompt_R, mass.mass_R * state.mode_R, minlength=P)
        with np.errstate(divide="ignore"):
            out |= {"confidence": float(p_P.mean()), "kappa": float(np.mean(1 / p_P))}
    return {name: value for name, value in out.items() if np.isfinite(value)}


# ---- a round done


@dataclass(frozen=True, slots=True)
class Gone:
    """What one trained round did beside what pulled it."""

    share: Estimate
    """s_t in [0, 1]."""
    unequal: float
    """u_t."""
    kept: float
    """Gain or loss of accuracy over that of the mixture at s_t, as a factor, 1 at most."""


def gone(
    before: Mapping[str, Any],
    measured_before: Mapping[str, Estimate],
    measured: Mapping[str, Estimate],
    error: float,
) -> Gone:
    """How far a round went, from the forecast that was made before it.

    Args:
        before: ``forecast_json`` made before the round.
        measured_before, measured: estimates before and after it.
        error: standard error of the mean change of x over the held-out prompts.
    """
    name, unequal = before["by"], before["unequal"]
    now, there = before["now"], before["target"]
    start, end = measured_before[name].value, measured[name].value
    method = f"change of {name} over that of the round's target"
    way = there[name] - now[name]
    if start is None or end is None or abs(way) < LEAST_PULL:
        note = f"the target moves {name} by {way:+.3f} only"
        return Gone(undefined(method, note), unequal, 1.0)
    raw, wide = (end - start) / way, 2 * error / abs(way)
    s = float(np.clip(raw, 0.0, 1.0))
    low, high = (float(np.clip(raw + side * wide, 0.0, 1.0)) for side in (-1, 1))
    share = Estimate(s, low, high, measured[name].n, method)
    key = "sampling_accuracy"
    kept, was, came = 1.0, measured_before[key].value, measured[key].value
    if key in now and was and came is not None:
        factor = ((1 - s) * now[key] + s * there[key]) / now[key] if now[key] else 1.0
        kept = float(np.clip(came / (was * factor), 0.5, 1.0)) if factor else 1.0
    return Gone(share, unequal, kept)


# ---- later rounds


def expected_share(done: Sequence[Gone], fade: float) -> tuple[float, float, float]:
    """s at u = 1 as expected of later rounds, and its ends (two standard deviations).

    >>> one = Gone(Estimate(0.4, 0.3, 0.5, 9, ""), 0.64, 1.0)
    >>> [round(x, 3) for x in expected_share([one], 0.5)]
    [0.5, 0.305, 0.695]
    """
    seen = [(g.share, g.unequal) for g in done if g.share.value is not None and g.unequal > 0]
    if not seen:
        return PRIOR_SHARE, *PRIOR_ENDS
    each = [(e.value or 0.0) / u**fade for e, u in seen]
    errors = [((e.high or 0.0) - (e.low or 0.0)) / 4 / u**fade for e, u in seen]
    s = float(np.mean(each))
    own = float(np.sqrt(np.sum(np.square(errors))) / len(seen))
    wide = 2 * float(np.hypot(own, DEVIATION * s))
    return s, max(s - wide, 0.0), s + wide


def later_rounds(
    state: State,
    now: Mapping[str, Estimate],
    done: Sequence[Gone],
    method: Method,
    *,
    at: int,
    ahead: int,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rounds ``at + 1`` .. ``at + ahead``: the mixture repeated, at s and at its ends.

    Values are those of the same held-out prompts (their difference from what the samples say now is
    added to what was measured now); intervals span the paces and the drift, at about 95%, and do
    not speak of other prompts.

    Args:
        state: what is known of the policy of round ``at``.
        now: its estimates.
        done: what each round did.
        method: of the rounds.
    """
    fade = FADES[method.update] if state.mode_R is None else 0.0
    kept, drift = (done[-1].kept, 1.0) if done else (1.0, UNSEEN)
    base = figures(state, state.mass)
    paths = []
    for s in expected_share(done, fade):
        mass, path = state.mass, []
        for j in range(ahead):
            found = pull(state, mass, method, seed + j)
            part = float(np.clip(s * found.unequal**fade, 0.0, 1.0))
            mass = mixed(mass, found.there, part)
            path.append(figures(state, mass))
        paths.append(path)
    out = []
    for j, each in enumerate(zip(*paths, strict=True)):
        row: dict[str, Any] = {"round": at + j + 1, "supported": True}
        for name in FORECAST:
            wide = 2 * drift * np.sqrt(j + 1)
            row[name] = _later(name, each, base, now, kept ** (j + 1), wide).to_json()
        out.append(row)
    return out


def _later(
    name: str,
    each: Sequence[Mapping[str, float]],
    base: Mapping[str, float],
    now: Mapping[str, Estimate],
    kept: float,
    wide: float,
) -> Estimate:
    """A quantity of a later round: at s, from the lower to the upper end of s, drift added
    (``wide`` standard deviations of one round's)."""
    measured = now[name].value if name in now else None
    method = "mixture of the policy and the round's target, repeated"
    if any(name not in x for x in each) or name not in base or measured is None:
        return undefined(method, "not told by the samples")
    if name in RATIOS:
        values = [measured * x[name] / base[name] for x in each]
        top = max(values)
        wide *= DRIFT_LENGTH * top if name == "length" else DRIFT * top**2
        least, most = (0.0 if name == "length" else 1.0), np.inf
    else:
        values = [measured + x[name] - base[name] for x in each]
        wide, least, most = wide * DRIFT, 0.0, 1.0
    if name == "sampling_accuracy":
        values = [v * kept for v in values]
    value, low, high = values[0], min(values) - wide, max(values) + wide
    value, low, high = (float(np.clip(x, least, most)) for x in (value, low, high))
    return Estimate(value, low, high, now[name].n, method)


def forecast_json(
    done: int,
    state: State,
    method: Method,
    rounds: Sequence[Gone],
    later: Sequence[Mapping[str, Any]],
    seed: int,
) -> dict[str, Any]:
    """A forecast made after round ``done``, as a run folder keeps it.

    Returns:
        ``made`` (the round), ``by`` (x), ``now`` and ``target`` (figures of the policy and of what
        the next round is pulled to), ``unequal``, ``share`` and ``kept`` of the round itself,
        ``expected`` (s of the next round), ``later`` (each later round).
    """
    found = pull(state, state.mass, method, seed)
    fade = FADES[method.update] if state.mode_R is None else 0.0
    s = expected_share(rounds, fade)[0]
    return {
        "made": done,
        "by": state.sure_name,
        "now": figures(state, state.mass),
        "target": figures(state, found.there),
        "unequal": found.unequal,
        "expected": min(1.0, s * found.unequal**fade),
        "share": rounds[-1].share.to_json() if rounds else None,
        "kept": rounds[-1].kept if rounds else 1.0,
        "later": list(later),
    }


@dataclass(frozen=True, slots=True)
class Score:
    """A forecast beside the rounds measured since: one quantity."""

    name: str
    rounds: int
    mean_error: float
    """Mean of |forecast - measured|; of ``RATIOS``, relative to the measured one."""
    inside: int
    """Measured values within the forecast's interval."""


def score(
    later: Sequence[Mapping[str, Any]], measured: Mapping[int, Mapping[str, Estimate]]
) -> list[Score]:
    """How a forecast did on the rounds since, by quantity; those without a measured round left out.

    Args:
        later: ``forecast_json``'s ``later``.
        measured: the estimates of each round.
    """
    out = []
    for name in FORECAST:
        errors, inside = [], 0
        for row in later:
            told = measured.get(row["round"], {}).get(name)
            seen = None if told is None else told.value
            value, low, high = (row.get(name, {}).get(end) for end in ("value", "low", "high"))
            if seen is None or value is None:
                continue
            errors.append(abs(value - seen) / (seen if name in RATIOS and seen else 1.0))
            inside += low <= seen <= high
        if errors:
            out.append(Score(name, len(errors), float(np.mean(errors)), inside))
    return out


# ---- the power of equal confidence

SATURATED = 0.995
"""Mean confidence above which a round's exponent cannot be read off any more."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What one trained round did, as a power of the policy before it."""

    exponent: float | None
    """s; None where the policy before was certain already, or became less sure."""
    efficiency: float | None
    """log s / log(1 + 1/beta)."""
    why: str = ""
    """Why it is not known."""


def pace(before: Known, confidence_before: float, confidence_after: float, beta: float) -> Pace:
    """The exponent of a trained round, from the mean confidence p* before and after:

        E_x max_y pi_t(y|x)^s / Z_s(x) = E_x p*_{t+1}(x),    eta = log s / log(1 + 1/beta).

    (The slope p_eff on the base's samples is another number: it weighs unlikely responses, which
    training hardly moves, and so understates how sure the policy is: docs/decisions/0002.)

    Args:
        before: what is known of the policy before the round.
        confidence_before, confidence_after: mean over the held-out prompts of p*.
        beta: of the update.

    Raises:
        UserError: beta is not positive.
    """
    if beta <= 0:
        raise UserError(f"beta {beta}: not positive", "give --beta above 0")
    if confidence_before >= SATURATED:
        return Pace(None, None, f"mean confidence was {confidence_before:.3f} already")
    if confidence_after <= confidence_before:
        return Pace(None, None, "confidence did not rise")

    def excess(log_s: float) -> float:
        reached = np.exp(sharpen(before, float(np.exp(log_s))).log_top_P).mean()
        return float(reached) - confidence_after

    most = np.log(1e4)
    if excess(most) < 0:
        return Pace(None, None, "surer than any power of the policy before: ties were broken")
    log_s = float(brentq(excess, 0.0, most, xtol=1e-6)) if excess(0.0) < 0 else 0.0
    return Pace(float(np.exp(log_s)), log_s / float(np.log1p(1 / beta)))
