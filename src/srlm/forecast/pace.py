"""How far trained rounds go towards their target, and where later rounds go from there.

A round of any reward and update is pulled to its *expected target*: what fitting each prompt's
group of samples would give (``srlm.forecast.groups``). A trained round goes a share s of the way,

    pi_{t+1} = (1 - s_t) pi_t + s_t target_t,

which is what maximum likelihood on few passes was seen to do, and the other updates too
(docs/forecasts.md). s is read off how sure the policy became of what its reward leads to,

    s_t = (x_{t+1} - x_t) / (x(target_t) - x_t),

x the mean vote share (the mean confidence p* for the likelihood), on the held-out samples: no
answers are needed. Under rewards that read a response's own probability s stays the same. Others
have groups of equal rewards, which say nothing about what is better, and s falls as they become
more, and with each round besides: s_t = s u_t^fade slow^t with u_t the share of groups with unequal
rewards and the constants ``RATES``. s is the mean over the rounds seen, of which the last counts
most; what they differ by is part of its band.

What all prompts share is learned faster than what is one prompt's own: a habit, such as short
responses. Where the mean length went another share of its way than the mixture, rounds are *not
supported*: how a habit goes on is known less well than how a mixture does. Under the likelihood,
which rewards the habit itself, the round is then the mixture times exp(lambda length), at the
length that was measured, and s is fitted beside it; in later rounds the length goes the same share
of its way. (Votes do not: what a habit has to do with them ends with it.) Nor are rounds supported
after rounds that tell s to no better than ``MOST_UNSURE``, or after one that went all of its way:
it may have gone further, which no mixture does; nor under updates that are not ``RELIABLE``, nor
under self-certainty.

Where lengths are of two kinds, how often a response is short is such a habit, and goes a share of
its own, near 1 (``Gone.kind``); s is that of what each kind says. It takes two rounds to tell
both; and so where many responses cannot be read, and are given up while others are learned from.

Accuracy may fall short of this, for training moves other prompts too (drift): the root of the
factor by which the last round missed, 1 at most, counts once, and so does that of kappa of votes,
where prompts of few votes go faster. Kappa of votes is not forecast where less than
``LEAST_READABLE`` is parseable: it is then the kappa of the number of samples.

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
    chance_of_another,
    exact_target,
    expected_target,
    merged,
    mixed,
    moved_to,
    tilted,
)
from srlm.forecast.powers import Known, sharpen
from srlm.types import Bools, Estimate, Floats, undefined

RATES: Mapping[str, tuple[float, float]] = {
    "weighted": (0.4, 0.93),
    "square": (0.4, 0.9),
    "best-of-n": (0.0, 0.93),
    "dpo": (0.0, 0.9),
    "ipo": (0.0, 0.9),
}
"""fade and slow of each update: how the share falls with the groups of unequal rewards, and from
round to round. Those of weighted were judged on other seeds than they were chosen on; best-of-n,
square and dpo were chosen on one seed of two starts and judged on another; ipo takes dpo's."""
RELIABLE = ("weighted", "best-of-n")
"""Updates whose later rounds are forecast reliably. On seeds set apart, the error of accuracy after
a pilot was up to 0.034 under square and 0.046 under dpo: their rounds are not *supported*."""
BEST = ("best-of-n", "dpo", "ipo")
"""Updates that are pulled to the best response of a group, not to exp(r / beta)."""
PRIOR_SHARE = {False: 0.65, True: 0.5}
"""s before any round is seen, by ``Method.own``: the middle of the runs on which the constants were
chosen."""
PRIOR_ENDS = (0.2, 1.0)
DEVIATION = 0.15
"""Standard deviation of a later round's s over the one expected, relative."""
AGE = 0.5
"""Weight of a round's s beside that of the round after it."""
DRIFT = 0.012
"""Standard deviation of what a later round adds to a share (accuracy, votes, confidence) or takes
from it besides; grows with the root of the rounds ahead. Of 1 / a share it is as much times its
square; of the length, relatively, ``DRIFT_LENGTH``. Before any round is seen, and where a habit
goes on, it is ``UNSEEN`` times as much."""
DRIFT_LENGTH = 0.03
UNSEEN = 2.0
LEAST_PULL = 0.01
"""Movement of x below which a round's share of it cannot be read off."""
LEAST_WAY = 0.02
"""Relative way of the mean length below which no habit can be read off."""
SAME_WAY = 0.12
"""Difference of its share from that of the mixture under which there is no habit."""
MOST_WAY = 1.3
LEAST_READABLE = 0.5
LEAST_UNEQUAL = 0.25
"""Share of groups with unequal rewards under which drift outweighs what a round is pulled to."""
FEWEST = 0.01
"""The least such share that counts: held-out prompts have none where training prompts have few."""
MOST_UNSURE = 0.5
"""Half-width of the band of s, relative to s, from which it is not known how fast a run goes: few
held-out prompts, or a round that moved them by little."""
MOST_MISS = 0.02
"""Relative loss of accuracy beside the mixture from which a run drifts."""
STEPS = np.linspace(0.0, 1.0, 5)
"""Shares of the way at which a round is worked out before it is made, so that it can be fitted."""
HABITS = (0.0, 0.35, 0.7, 1.0, MOST_WAY)
"""And shares of the length's way."""
APART = 0.7
"""Share of the variance of the lengths that lies between short and long responses, from which they
are two kinds."""
LEAST_KIND = 0.05
"""Share of the responses that each kind has at least."""
MOST_REPAIR = 0.1
"""Rise of the readable share at a round's target from which giving up what cannot be read and
learning what to say are two motions."""
KINDS = (0.0, 0.65, 1.3)
"""Shares of its way that the share of short responses is worked out at."""
KIND_ERROR = 0.25
"""Standard deviation of that share around 1, before it is measured."""
PULLS = 4096
"""Groups behind an expected target, over all rows; one of each row at least."""
MOST_ROWS = 65_536
"""Samples that a forecast of later rounds follows: of the first prompts, where there are more."""
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
    own: bool = False
    """The reward reads a response's own probability alone: it tells nearly all groups apart, as
    long as their responses differ."""
    moves: bool = False
    """The reward reads more of the policy than its samples show (itself as judge, its certainty):
    scores stand for the next round; that they stay so afterwards is an assumption."""
    reliable: bool = True
    """Later rounds of this reward and update are forecast reliably (docs/forecasts.md)."""

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

    def first(self, rows: int) -> State:
        """Of the first prompts, as many as have so many rows at most; one at least."""
        prompt_R = self.rows.prompt_R
        if len(prompt_R) <= rows:
            return self
        stop = int(np.searchsorted(prompt_R, max(prompt_R[rows], 1)))
        some = slice(0, stop)
        mass = Mass(prompt_R[some], self.mass.log_mass_R[some], self.mass.logp_R[some])
        at = np.arange(stop)
        mode_R = None if self.mode_R is None else self.mode_R[some]
        return State(self.rows.at(at, prompt_R[some]), mass, self.right_R[some], mode_R)

    @property
    def sampled(self) -> bool:
        """The rows are samples, not all responses or distinct ones with their probabilities."""
        share_P = np.bincount(self.rows.prompt_R)
        return np.allclose(self.mass.mass_R * share_P[self.rows.prompt_R], 1.0)

    @property
    def sure_name(self) -> str:
        """x: what a round's share is read off."""
        return "vote_share" if self.mode_R is None else "confidence"


def pull(state: State, mass: Mass, method: Method, seed: int) -> Pull:
    """Where the next round from ``mass`` is pulled to."""
    if method.k is None:
        return exact_target(state.rows, mass, method.score_of, method.beta, towards=method.towards)
    rows, whole, of_R = merged(state.rows, mass)
    found = expected_target(
        rows,
        whole,
        method.score_of,
        method.beta,
        method.k,
        towards=method.towards,
        groups=max(1, -(-PULLS // max(len(whole.prompt_R), 1))),
        shared=state.mode_R is not None,
        other_R=chance_of_another(rows, np.bincount(of_R)) if state.sampled else None,
        seed=seed,
    )
    ratio_M = np.divide(found.there.mass_R, whole.mass_R, where=whole.mass_R > 0,
                        out=np.zeros(len(whole.mass_R)))  # fmt: skip
    return Pull(moved_to(mass, mass.mass_R * ratio_M[of_R]), found.unequal)


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
        with np.errstate(divide="ignore", over="ignore"):
            out |= {"confidence": float(p_P.mean()), "kappa": float(np.mean(1 / p_P))}
    return {name: value for name, value in out.items() if np.isfinite(value)}


# ---- short and long responses


def parted(rows: Rows, mass: Mass) -> int | None:
    """The least length of a long response, where responses are of two kinds (Otsu 1979); else None.

    The length that leaves the least variance within the two. ``APART`` of it lies between them, at
    least, and each has ``LEAST_KIND`` of the responses.
    """
    length_L, of_R = np.unique(rows.length_R, return_inverse=True)
    share_L = np.bincount(of_R, mass.mass_R) / mass.prompts
    mean = float(share_L @ length_L)
    whole = float(share_L @ (length_L - mean) ** 2)
    below_L, sum_L = np.cumsum(share_L)[:-1], np.cumsum(share_L * length_L)[:-1]
    some_L = (below_L >= LEAST_KIND) & (below_L <= 1 - LEAST_KIND)
    if whole <= 0 or not some_L.any():
        return None
    below_L, sum_L, next_L = below_L[some_L], sum_L[some_L], length_L[1:][some_L]
    between_L = (mean * below_L - sum_L) ** 2 / (below_L * (1 - below_L))
    at = int(between_L.argmax())
    return int(next_L[at]) if between_L[at] >= APART * whole else None


def short_share(state: State, mass: Mass, cut: int, *, read: bool = False) -> float:
    """Share of responses shorter than ``cut`` (of those that can be ``read``), of a policy with
    these shares."""
    some_R = state.rows.length_R < cut
    if read:
        some_R = some_R & (state.rows.answer_R >= 0)
    return min(float(mass.mass_R[some_R].sum()) / mass.prompts, 1.0)


def by_kind(mass: Mass, there: Mass, s: float, kind: float, short_R: Bools) -> Mass:
    """(1 - s) pi + s target within the short and within the long responses of each prompt; the
    short ones' share goes ``kind`` of its way.

    Where a prompt has none of either kind now, it has none afterwards; a kind that has nothing at
    the end of its way divides what is left as it did.
    """
    new_R, prompt_R = mixed(mass, there, s).mass_R, mass.prompt_R

    def of(share_R: Floats) -> tuple[Floats, Floats]:
        """Of each prompt's short ones, and of each row's kind."""
        short_P, long_P = (
            np.asarray(np.bincount(prompt_R, np.where(some_R, share_R, 0.0), mass.prompts), float)
            for some_R in (short_R, ~short_R)
        )
        return short_P, np.where(short_R, short_P[prompt_R], long_P[prompt_R])

    (was_P, was_R), (end_P, _), (_, left_R) = of(mass.mass_R), of(there.mass_R), of(new_R)
    now_P = np.clip(was_P + kind * (end_P - was_P), 0.0, 1.0)
    now_P = np.where(was_P > 0, np.where(was_P < 1 - 1e-12, now_P, 1.0), 0.0)
    own_R = np.where(left_R > 0, new_R, mass.mass_R)
    total_R = np.where(left_R > 0, left_R, was_R)
    part_R = np.divide(own_R, total_R, out=np.zeros(len(own_R)), where=total_R > 0)
    return moved_to(mass, part_R * np.where(short_R, now_P[prompt_R], 1 - now_P[prompt_R]))


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
    votes: float = 1.0
    """kappa of votes over that of the mixture."""
    habit: float | None = None
    """Share of its way that the mean length went, where it is another one than the mixture's."""
    kind: float | None = None
    """Share of its way that the share of short responses goes: that which it went, averaged with
    1; None where all responses are of a kind."""
    repair: bool = False
    """The target made ``MOST_REPAIR`` of the responses readable besides."""


def gone(
    before: Mapping[str, Any],
    measured_before: Mapping[str, Estimate],
    measured: Mapping[str, Estimate],
    error: float,
    short: float | None = None,
) -> Gone:
    """How far a round went, from the forecast that was made before it.

    Args:
        before: ``forecast_json`` made before the round.
        measured_before, measured: estimates before and after it.
        error: standard error of the mean change of x over the held-out prompts.
        short: share of short responses after it.
    """
    name, unequal = before["by"], before["unequal"]
    now, there = before["now"], before["target"]
    repair = there.get("readable", 1.0) - now.get("readable", 1.0) > MOST_REPAIR
    start, end = measured_before[name].value, measured[name].value
    method = f"change of {name} over that of the round's target"
    way = there[name] - now[name]
    if start is None or end is None or abs(way) < LEAST_PULL:
        note = f"the target moves {name} by {way:+.3f} only"
        return Gone(undefined(method, note), unequal, 1.0)

    def reached(figure: str) -> float | None:
        """Where the figure came to, on the scale of the mixture's."""
        a, b = (e[figure].value if figure in e else None for e in (measured_before, measured))
        if figure not in now or a is None or b is None:
            return None
        ratio = figure in RATIOS or figure == "sampling_accuracy"
        return now[figure] * b / a if ratio and a else now[figure] + b - a

    habit, share_S = None, np.linspace(0.0, 1.0, 401)
    plain = before["steps"][0]
    goal, length = reached(name), reached("length")
    assert goal is not None
    s = _nearest(plain[name], goal)
    kind = kind_of(before, short)
    if kind is not None:
        steps = before["short"]["steps"]
        plain = {k: _between(steps, k, kind, STEPS, KINDS) for k in steps[0]}
        s, way = _nearest(plain[name], goal), plain[name][-1] - plain[name][0]
        if abs(way) < LEAST_PULL:
            note = f"the target moves {name} by {way:+.3f} only, beside what is short"
            return Gone(undefined(method, note), unequal, 1.0, kind=kind, repair=repair)
    path = {k: np.interp(share_S, STEPS, v) for k, v in plain.items() if k != "habit"}
    long = there["length"] - now["length"]
    if length is not None and abs(long) > LEAST_WAY * now["length"]:
        went = (length - now["length"]) / long
        if abs(went - (_at(plain["length"], s) - now["length"]) / long) > SAME_WAY:
            habit = float(np.clip(went, 0.0, MOST_WAY))
    if habit is not None and len(before["steps"]) > 1:
        path = {k: _between(before["steps"][1:], k, habit, share_S) for k in path}
        s = max(s / 2, _nearest(path[name], goal))
    at = {k: _at(v, s) for k, v in path.items()}
    wide = 2 * error / abs(way)
    low, high = (float(np.clip(s + side * wide, 0.0, 1.0)) for side in (-1, 1))
    share = Estimate(s, low, high, measured[name].n, method)
    kept, votes = 1.0, 1.0
    right, kappa = reached("sampling_accuracy"), reached("kappa_vote")
    if right is not None and at["sampling_accuracy"]:
        kept = float(np.clip(right / at["sampling_accuracy"], 0.5, 1.0))
    if kappa is not None:
        votes = float(np.clip(kappa / at["kappa_vote"], 0.7, 1.3))
    return Gone(share, unequal, kept, votes, habit, kind, repair)


def kind_of(before: Mapping[str, Any], after: float | None) -> float | None:
    """Share of its way that the share of short responses went: its mean with 1, each by its
    variance. None where there are not two kinds, the short ones cannot be read (they are given up
    for want of an answer), or the target does not move their share.

    Args:
        before: ``forecast_json`` made before the round.
        after: share of short responses after it.
    """
    told = before.get("short")
    if told is None or after is None:
        return None
    now, far = told["share"], told["target"] - told["share"]
    if abs(far) < LEAST_WAY or told["read"] < LEAST_READABLE * now:
        return None
    noise = (now * (1 - now) + after * (1 - after)) / told["responses"]
    prior = KIND_ERROR**2
    kind = (noise + far * prior * (after - now)) / (noise + far**2 * prior)
    return float(np.clip(kind, KINDS[0], KINDS[-1]))


def _at(value_S: Sequence[float] | Floats, s: float) -> float:
    """A figure at s, from its values at equal steps from 0 to 1."""
    return float(np.interp(s, np.linspace(0.0, 1.0, len(value_S)), value_S))


def _nearest(value_S: Sequence[float] | Floats, goal: float) -> float:
    """The s at which a figure is nearest to its goal."""
    share_S = np.linspace(0.0, 1.0, 401)
    value = np.interp(share_S, np.linspace(0.0, 1.0, len(value_S)), value_S)
    return float(share_S[np.argmin(np.abs(value - goal))])


def _between(
    steps: Sequence[Mapping[str, Any]],
    name: str,
    x: float,
    share_S: Floats,
    at: Sequence[float] = HABITS,
) -> Floats:
    """A figure at each s, between the habits (or what else ``at`` holds) that were worked out."""
    rows = np.array([np.interp(share_S, STEPS, step[name]) for step in steps])
    return np.array([np.interp(x, at, column) for column in rows.T])


# ---- a round ahead


def stepped(state: State, mass: Mass, there: Mass, s: float, habit: float | None) -> Mass:
    """(1 - s) pi + s target, and the mean length a share ``habit`` of its way."""
    new = mixed(mass, there, s)
    if habit is None:
        return new
    length_R = state.rows.length_R.astype(np.float64)
    start, end = (float(m.expect(length_R).mean()) for m in (mass, there))
    if abs(end - start) < LEAST_WAY / 4 * start:
        return new
    return tilted(new, length_R, start + habit * (end - start))


def steps_of(state: State, there: Mass) -> list[dict[str, Any]]:
    """Figures of the next round at each of ``STEPS``: as a mixture, and for each of ``HABITS``
    where the reward is the likelihood and the length has a way to go."""
    start, end = (
        float(m.expect(state.rows.length_R.astype(np.float64)).mean()) for m in (state.mass, there)
    )
    rewarded = state.mode_R is not None and abs(end - start) > LEAST_WAY * start
    some = HABITS if rewarded else ()
    made = {
        habit: [figures(state, stepped(state, state.mass, there, s, habit)) for s in STEPS]
        for habit in (None, *some)
    }
    # kappa is infinite, and left out, where a prompt's mode has no mass.
    told = set.intersection(*(set(x) for steps in made.values() for x in steps))
    return [
        {"habit": habit} | {k: [x[k] for x in steps] for k in steps[0] if k in told}
        for habit, steps in made.items()
    ]


def short_of(state: State, there: Mass, cut: int | None) -> dict[str, Any] | None:
    """What the next round would do to short responses: their share now and at the target, and
    figures where it goes each of ``KINDS`` of its way and all else each of ``STEPS``."""
    if cut is None or state.mode_R is not None:
        return None
    mass, short_R = state.mass, state.rows.length_R < cut
    steps = [
        [figures(state, by_kind(mass, there, s, kind, short_R)) for s in STEPS] for kind in KINDS
    ]
    told = set.intersection(*(set(x) for of in steps for x in of))
    return {
        "below": cut,
        "share": short_share(state, mass, cut),
        "read": short_share(state, mass, cut, read=True),
        "target": short_share(state, there, cut),
        "responses": len(short_R),
        "steps": [{k: [x[k] for x in of] for k in of[0] if k in told} for of in steps],
    }


# ---- later rounds


def rates(method: Method) -> tuple[float, float]:
    """fade and slow. Nothing slows where all responses are listed."""
    fade, slow = (0.0, 1.0) if method.own else RATES[method.update]
    return fade, 1.0 if method.k is None else slow


def expected_share(
    done: Sequence[Gone], prior: float, fade: float, slow: float
) -> tuple[float, float, float]:
    """s at u = 1 in round 1 as expected of later rounds, and its ends (two standard deviations).

    >>> one = Gone(Estimate(0.4, 0.3, 0.5, 9, ""), 0.64, 1.0)
    >>> [round(x, 3) for x in expected_share([one], 0.6, 0.5, 0.9)]
    [0.5, 0.305, 0.695]
    """
    seen = [
        (g.share, g.unequal**fade * slow**t)
        for t, g in enumerate(done)
        if g.share.value is not None and g.unequal > 0
    ]
    if not seen:
        return prior, *PRIOR_ENDS
    each_T = np.array([(e.value or 0.0) / scale for e, scale in seen])
    error_T = np.array([((e.high or 0.0) - (e.low or 0.0)) / 4 / scale for e, scale in seen])
    weight_T = AGE ** np.arange(len(seen))[::-1]
    weight_T /= weight_T.sum()
    s = float(weight_T @ each_T)
    spread = weight_T @ (each_T - s) ** 2
    wide = 2 * float(np.sqrt(np.sum((weight_T * error_T) ** 2) + (DEVIATION * s) ** 2 + spread))
    return s, max(s - wide, 0.0), s + wide


def _told(done: Sequence[Gone], share: tuple[float, float, float], *, whole: bool) -> bool:
    """Whether the rounds done say how far later ones go. Where all responses are listed (``whole``)
    a round may well go all of its way."""
    s, _, high = share
    known = [g.share.value for g in done if g.share.value is not None]
    return bool(known) and high - s <= MOST_UNSURE * s and (whole or known[-1] < 1.0)


def later_rounds(
    state: State,
    now: Mapping[str, Estimate],
    done: Sequence[Gone],
    method: Method,
    *,
    at: int,
    ahead: int,
    seed: int = 0,
    cut: int | None = None,
) -> list[dict[str, Any]]:
    """Rounds ``at + 1`` .. ``at + ahead``: the round repeated, at s and at its ends.

    Values are those of the same held-out prompts (their difference from what the samples say now is
    added to what was measured now); intervals span the paces and the drift, at about 95%, and do
    not speak of other prompts.

    Args:
        state: what is known of the policy of round ``at``.
        now: its estimates.
        done: what each round did.
        method: of the rounds.
        cut: length under which responses are short, where they are of two kinds.
    """
    fade, slow = rates(method)
    last = done[-1] if done else Gone(undefined("", ""), 1.0, 1.0)
    drift = 1.0 if done and last.habit is None else UNSEEN
    share = expected_share(done, PRIOR_SHARE[method.own], fade, slow)
    told = not done or (method.reliable and _told(done, share, whole=method.k is None))
    if last.kind is not None or last.repair:
        told = told and len(done) > 1
    base = figures(state, state.mass)
    paths, apart = [], []
    for s in share:
        mass, path = state.mass, []
        for j in range(ahead):
            found = pull(state, mass, method, seed + j)
            part = float(np.clip(s * found.unequal**fade * slow ** (at + j), 0.0, 1.0))
            habit = last.habit if state.mode_R is not None else None
            if habit is not None:
                left = min(1.0, found.unequal / last.unequal) if last.unequal > 0 else 0.0
                habit *= left * slow ** (j + 1)
            if last.kind is not None and cut is not None:
                short_R = state.rows.length_R < cut
                mass = by_kind(mass, found.there, part, last.kind, short_R)
            else:
                mass = stepped(state, mass, found.there, part, habit)
            apart.append(found.unequal)
            path.append(figures(state, mass))
        paths.append(path)
    out = []
    for j, each in enumerate(zip(*paths, strict=True)):
        row: dict[str, Any] = {
            "round": at + j + 1,
            "unequal": apart[j],
            "supported": told
            and last.habit is None
            and not drifts(apart[j], last.kept)
            and not (method.moves and j > 0),
        }
        kept = {"sampling_accuracy": last.kept**0.5}
        if state.mode_R is None:
            kept["kappa_vote"] = last.votes**0.5
        for name in FORECAST:
            wide = 2 * drift * drifted(apart[: j + 1])
            row[name] = _later(name, each, base, now, kept.get(name, 1.0), wide).to_json()
        out.append(row)
    return out


def drifts(unequal: float, kept: float) -> bool:
    """Whether a round goes where no mixture says: so few groups have unequal rewards that what they
    teach moves all other prompts besides; or the run has left its mixture already.

    Args:
        unequal: share of groups with unequal rewards before the round.
        kept: ``Gone.kept`` of the last round done.
    """
    return unequal < LEAST_UNEQUAL or kept < 1 - MOST_MISS


def drifted(unequal: Sequence[float]) -> float:
    """Standard deviation of the drift of rounds ahead over that of one round.

    The gradient of a round is the mean over its groups of unequal rewards; where they are few it is
    that of few prompts, and its variance as much larger.

    Args:
        unequal: share of such groups before each of the rounds.

    >>> drifted([0.9, 0.5, 0.3, 0.26]), drifted([0.0625])
    (2.0, 2.0)
    """
    each = [max(1.0, LEAST_UNEQUAL / max(u, FEWEST)) for u in unequal]
    return float(np.sqrt(np.sum(each)))


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
    if name == "kappa_vote" and each[0]["readable"] < LEAST_READABLE:
        return undefined(method, f"{each[0]['readable']:.0%} parseable: no votes to speak of")
    if name in RATIOS:
        values = [measured * x[name] / base[name] for x in each]
        top = max(values)
        wide *= DRIFT_LENGTH * top if name == "length" else DRIFT * top * top
        least, most = (0.0 if name == "length" else 1.0), np.inf
    else:
        values = [measured + x[name] - base[name] for x in each]
        wide, least, most = wide * DRIFT, 0.0, 1.0
    values = [v * kept for v in values]
    value, low, high = values[0], min(values) - wide, max(values) + wide
    if not np.isfinite(high):
        return undefined(method, "a mode may be left with no mass at all")
    value, low, high = (float(np.clip(x, least, most)) for x in (value, low, high))
    return Estimate(value, low, high, now[name].n, method)


def forecast_json(
    done: int,
    state: State,
    method: Method,
    rounds: Sequence[Gone],
    later: Sequence[Mapping[str, Any]],
    seed: int,
    cut: int | None = None,
) -> dict[str, Any]:
    """A forecast made after round ``done``, as a run folder keeps it.

    Returns:
        ``made`` (the round), ``by`` (x), ``now`` and ``target`` (figures of the policy and of what
        the next round is pulled to), ``unequal``, ``steps`` (``steps_of``), ``short``
        (``short_of``), ``share``, ``kept``, ``habit`` and ``kind`` of the round itself,
        ``expected`` (s of the next round), ``later`` (each later round).
    """
    found = pull(state, state.mass, method, seed)
    by = state.sure_name
    fade, slow = rates(method)
    s = expected_share(rounds, PRIOR_SHARE[method.own], fade, slow)[0] * slow**done
    return {
        "made": done,
        "by": by,
        "now": figures(state, state.mass),
        "target": figures(state, found.there),
        "unequal": found.unequal,
        "steps": steps_of(state, found.there),
        "short": short_of(state, found.there, cut),
        "kind": rounds[-1].kind if rounds else None,
        "expected": min(1.0, s * found.unequal**fade),
        "share": rounds[-1].share.to_json() if rounds else None,
        "kept": rounds[-1].kept if rounds else 1.0,
        "habit": rounds[-1].habit if rounds else None,
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
