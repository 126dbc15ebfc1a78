"""When to stop, without looking at answers: pure functions of the rounds' estimates.

A run that is continued reads the same estimates and so stops at the same round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import expm1, isfinite, log, log10
from typing import Any

from srlm.config import reward_parts
from srlm.types import Estimate, Round

Estimates = Mapping[str, Estimate]

FLOOR = 0.01
"""kappa this near to 1 is at its floor: 1 - E[p*] <= kappa - 1, so a sample is the mode but for one
in a hundred."""
WIDE = 0.05
"""kappa's interval must end below 1 plus this before its lower end says anything of the floor."""
LITTLE = 0.1
"""A round that takes less than this share off kappa - 1, and stays in its interval, is level."""
PATIENCE = 2
"""Level rounds in a row that end a run: on 20 prompts one alone may be chance (docs/real-model.md).
"""
APART = 0.05
"""Share of the prompts whose responses the reward must distinguish."""
DEGRADED = 2 / 3
"""Share of its first correlation with the votes under which a judge is degraded. On the demo a
round made above it still gains, one made below it gains little or loses (docs/rewards.md)."""


OUT_OF_TIME = "time"
"""The code of an end that the next command withdraws."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a run's stopping goes by.

    Args:
        kept: estimates that fall where the policy leaves what the base favours
            (``measure.agreement``); the first one known names the best round. The first is accuracy
            by the base's votes: as long as these are right more often than not, it ranks rounds as
            accuracy does, whatever the reward (docs/forecasts.md).
        spread: the kappa that a round must lower, of what the reward leads to; empty: none.
    """

    kept: tuple[str, ...]
    spread: str = ""
    judged: bool = False
    """Whether a judge rewards, which may degrade."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run ended and which of its rounds to take."""

    round: int
    """The last one made."""
    code: str
    """rounds, floor, level, drift, indifferent, degraded or time."""
    reason: str
    best: int
    best_reason: str

    def to_json(self) -> dict[str, Any]:
        """The object of stop.json."""
        return asdict(self)


def rule_of(reward: str) -> Rule:
    """The rule for a reward of the command line.

    >>> rule_of("likelihood").kept, rule_of("judge").kept
    (('base_answer_share', 'base_mode_probability'), ('base_answer_share',))
    >>> rule_of("likelihood").spread, rule_of("consistency").spread
    ('log10_kappa', 'kappa_vote')
    """
    names = set(reward_parts(reward))
    if names <= {"likelihood"}:
        return Rule(("base_answer_share", "base_mode_probability"), "log10_kappa")
    if names <= {"likelihood", "likelihood-per-token", "self-certainty", "consistency"}:
        return Rule(("base_answer_share",), "kappa_vote")
    return Rule(("base_answer_share",), judged=True)


def after_measuring(records: Sequence[Round], rule: Rule | None, *, last: bool) -> Stop | None:
    """Whether a run ends with the round just measured; None: it does not, and never without a rule.

    Args:
        records: of rounds 0 to t.
        rule: what stopping goes by.
        last: all rounds that were asked for are done.
    """
    if rule is None:
        return None
    history = [r.estimates for r in records]
    return by_measurement(history, rule) or (at_the_end(history, rule) if last else None)


def after_rewards(
    records: Sequence[Round],
    distinguishable: tuple[int, int],
    votes: Sequence[Estimate],
    rule: Rule | None,
) -> Stop | None:
    """Whether a run ends before another update; arguments as ``by_rewards`` and ``by_judge``."""
    if rule is None:
        return None
    history = [r.estimates for r in records]
    return by_rewards(history, distinguishable, rule) or by_judge(history, votes, rule)


def by_measurement(history: Sequence[Estimates], rule: Rule) -> Stop | None:
    """Whether to stop after measuring the last round of ``history`` (round 0 first).

    * floor: kappa's interval reaches down to 1 + ``FLOOR`` and ends below 1 + ``WIDE``; or, where
      the reward leads to the base's modes, an exact round would be level (tied modes).
    * drift: one of ``rule.kept`` fell under the interval of its best round.
    * level: in each of the last ``PATIENCE`` rounds, the first one not counted, ``rule.spread``
      was inside the interval of the round before (or above) and the round took less than
      ``LITTLE`` off what it is above 1. Read off its logarithm, since kappa of long responses
      overflows.
    """
    t, now = len(history) - 1, history[-1]
    if t == 0:
        return None
    text = f"{_kappa(now)} in round {t}"
    low, high = _known(now["kappa"].low), _known(now["kappa"].high)
    if low is not None and high is not None and low <= 1 + FLOOR and high <= 1 + WIDE:
        return _stop(history, rule, "floor", f"{text} has reached its floor of 1")
    ahead = _known(now["kappa_next"].value)
    exact = log10(ahead) if rule.spread == "log10_kappa" and ahead is not None else None
    if _level(now["log10_kappa"], exact):
        what = f"an exact round would leave it at {_told(now['kappa_next'])}"
        return _stop(history, rule, "floor", f"{text} has reached its floor: {what}")
    if (drift := _drift(history, rule)) is not None:
        return _stop(history, rule, "drift", drift)
    if rule.spread and t > PATIENCE:
        last = history[-PATIENCE - 1 :]
        logs = [_log10(e, rule.spread) for e in last]
        if all(_level(a, _known(b.value)) for a, b in pairwise(logs)):
            one, two = (_spread(e, rule.spread) for e in (now, last[0]))
            what = f"is little or nothing below that of round {t - PATIENCE}, {two}"
            return _stop(history, rule, "level", f"{one} in round {t} {what}")
    return None


def by_rewards(
    history: Sequence[Estimates], distinguishable: tuple[int, int], rule: Rule
) -> Stop | None:
    """Whether the rewards of the last round's samples leave anything to learn.

    Args:
        distinguishable: of ``Pairs``: prompts whose responses have unequal rewards, of how many.
    """
    apart, of = distinguishable
    if apart >= APART * of:
        return None
    reason = f"the reward tells the responses of only {apart} of {of} prompts apart"
    return _stop(history, rule, "indifferent", reason)


def by_judge(history: Sequence[Estimates], votes: Sequence[Estimate], rule: Rule) -> Stop | None:
    """Whether the judge has degraded; where ``rule.judged`` alone.

    A judge that tells right from wrong goes along with the votes among a prompt's samples as far as
    right answers are the commoner. Training on its scores selects the responses that it is wrong
    about, so that on the policy's own samples it tells ever less while on the base's it tells as
    much as ever. Stops where the interval of its correlation with the votes lies under ``DEGRADED``
    of the first round's.

    Args:
        history: of the rounds so far.
        votes: ``RewardReport.vote_correlation`` of rounds 0 to the last.
        rule: what stopping goes by.
    """
    first, now = votes[0], votes[-1]
    high = _known(now.high)
    if not rule.judged or first.value is None or first.value <= 0 or high is None:
        return None
    if len(votes) == 1 or high >= DEGRADED * first.value:
        return None
    reason = (
        f"the judge degrades: its correlation with the votes among the samples is {_told(now)}, "
        f"and was {_told(first)} in the base"
    )
    return _stop(history, rule, "degraded", reason)


def at_the_end(history: Sequence[Estimates], rule: Rule) -> Stop:
    """All rounds asked for are done."""
    return _stop(history, rule, "rounds", f"all {len(history) - 1} rounds are done")


def out_of_time(records: Sequence[Round], rule: Rule) -> Stop:
    """The time that was given does not do for another round."""
    done = len(records) - 1
    reason = f"the time given is up after round {done}; the same command continues"
    return _stop([r.estimates for r in records], rule, OUT_OF_TIME, reason)


def ranked_by(history: Sequence[Estimates], rule: Rule) -> str | None:
    """The estimate whose highest value names the round to take: the first of ``rule.kept`` that is
    known of all rounds; None: nothing measured without answers ranks them."""
    for name in rule.kept:
        if all(name in e and _known(e[name].value) is not None for e in history):
            return name
    return None


def best_round(history: Sequence[Estimates], rule: Rule) -> tuple[int, str]:
    """The round to take, and why: most of what is to be kept; else the last.

    >>> def at(x): return {"base_mode_probability": Estimate(x, None, None, 9, "")}
    >>> best_round([at(0.5), at(0.9), at(0.8)], Rule(("base_mode_probability",)))[0]
    1
    """
    name = ranked_by(history, rule)
    if name is None:
        return len(history) - 1, "the last: nothing measured without answers ranks the rounds"
    value, back = max((e[name].value or 0.0, -t) for t, e in enumerate(history))
    return -back, f"highest {name.replace('_', ' ')}, {value:.4g}"


def _drift(history: Sequence[Estimates], rule: Rule) -> str | None:
    now = history[-1]
    for name in rule.kept:
        value = _known(now[name].value)
        before = [(_known(e[name].value), t) for t, e in enumerate(history[:-1])]
        known = [(x, -t) for x, t in before if x is not None]
        if value is None or not known:
            continue
        back = max(known)[1]
        best = history[-back][name]
        low = _known(best.low)
        if low is not None and value < low:
            return (
                f"{name.replace('_', ' ')} fell to {value:.4g} from {_told(best)} in round {-back}"
            )
    return None


def _level(before: Estimate, after: float | None) -> bool:
    """Whether kappa stays in its interval and loses less than ``LITTLE`` of what is above 1.

    Args:
        before, after: log10 kappa.
    """
    value, low = _known(before.value), _known(before.low)
    if value is None or low is None or after is None:
        return False
    # kappa - 1 over kappa, which never overflows: after - 1 >= (1 - LITTLE) (before - 1).
    excess, was = -expm1(-after * log(10)), -expm1(-value * log(10))
    return after >= low and excess >= (1 - LITTLE) * was * 10 ** min(value - after, 300.0)


def _log10(estimates: Estimates, name: str) -> Estimate:
    """log10 of a kappa."""
    e = estimates[name]
    if name == "log10_kappa":
        return e
    value, low, high = (
        None if x is None or not isfinite(x) or x <= 0 else log10(x)
        for x in (e.value, e.low, e.high)
    )
    return Estimate(value, low, high, e.n, e.method)


def _spread(estimates: Estimates, name: str) -> str:
    return (
        _kappa(estimates) if name == "log10_kappa" else f"kappa of votes {_told(estimates[name])}"
    )


def _kappa(estimates: Estimates) -> str:
    """kappa, or its logarithm where it overflows."""
    if _known(estimates["kappa"].value) is not None:
        return f"kappa {_told(estimates['kappa'])}"
    return f"log10 kappa {_told(estimates['log10_kappa'])}"


def _stop(history: Sequence[Estimates], rule: Rule, code: str, reason: str) -> Stop:
    return Stop(len(history) - 1, code, reason, *best_round(history, rule))


def _known(x: float | None) -> float | None:
    """Infinite numbers are not kept in files, so they count as unknown."""
    return None if x is None or not isfinite(x) else x


def _told(e: Estimate) -> str:
    value, low, high = _known(e.value), _known(e.low), _known(e.high)
    if value is None:
        return "unknown"
    return f"{value:.4g}" + ("" if low is None or high is None else f" [{low:.4g}, {high:.4g}]")
