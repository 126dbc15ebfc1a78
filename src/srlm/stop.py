"""When to stop, by what needs no answers: pure functions of the rounds' estimates.

A run that goes on reads the same estimates and so stops at the same round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from srlm.config import reward_parts
from srlm.types import Estimate

Estimates = Mapping[str, Estimate]

FLOOR = 0.01
"""kappa this near to 1 is at its floor: 1 - E[p*] <= kappa - 1, so a draw is the mode but for one
in a hundred."""
APART = 0.05
"""Share of the prompts whose responses the reward must tell apart."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a run's stopping goes by.

    Args:
        kept: estimates that fall only where the policy leaves the base faster than it becomes
            sure (``measure.agreement``); the first one known names the best round. Empty for
            rewards that are meant to lead away from what the base favours.
    """

    kept: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run ended and which of its rounds to take."""

    round: int
    """The last one made."""
    code: str
    """rounds, floor, level, drift or indifferent."""
    reason: str
    best: int
    best_reason: str

    def to_json(self) -> dict[str, Any]:
        """The object of stop.json."""
        return asdict(self)


def rule_of(reward: str) -> Rule:
    """The rule for a reward of the command line.

    The likelihood leads to the base's modes, and consistency to its majority answers; judges
    lead elsewhere.

    >>> rule_of("likelihood").kept, rule_of("judge").kept
    (('base_mode_probability', 'base_answer_share'), ())
    """
    names = set(reward_parts(reward))
    if names <= {"likelihood"}:
        return Rule(("base_mode_probability", "base_answer_share"))
    if names <= {"likelihood", "likelihood-per-token", "self-certainty", "consistency"}:
        return Rule(("base_answer_share",))
    return Rule(())


def by_measurement(history: Sequence[Estimates], rule: Rule) -> Stop | None:
    """Whether to stop after measuring the last round of ``history`` (round 0 first).

    * floor: kappa's interval reaches down to 1 + ``FLOOR``; or, where the reward is to lead to
      the base's modes, even an exact round would leave kappa inside its interval (tied modes).
    * drift: confidence rose and one of ``rule.kept`` fell under the interval of its best round.
    * level: kappa is not under the interval of the round before (only with ``rule.kept``, and
      not in the first round).
    """
    t, now = len(history) - 1, history[-1]
    if t == 0:
        return None
    before = history[-2]
    text = f"kappa {_told(now['kappa'])} in round {t}"
    kappa, low = _known(now["kappa"].value), _known(now["kappa"].low)
    if kappa is not None and low is not None:
        if low <= 1 + FLOOR:
            return _stop(history, rule, "floor", f"{text} has reached its floor of 1")
        ahead = _known(now["kappa_next"].value)
        if rule.kept and ahead is not None and ahead >= low:
            what = f"an exact round would leave it at {ahead:.4g}, inside its interval"
            return _stop(history, rule, "floor", f"{text}: {what}")
    if (drift := _drift(history, rule)) is not None:
        return _stop(history, rule, "drift", drift)
    least = _known(before["kappa"].low)
    if rule.kept and t > 1 and kappa is not None and least is not None and kappa >= least:
        what = f"is not under the interval of round {t - 1}, {_told(before['kappa'])}"
        return _stop(history, rule, "level", f"{text} {what}")
    return None


def by_rewards(
    history: Sequence[Estimates], told_apart: tuple[int, int], rule: Rule
) -> Stop | None:
    """Whether the rewards of the last round's draws leave anything to learn.

    Args:
        told_apart: of ``Pairs``: prompts whose responses have unequal rewards, of how many.
    """
    apart, of = told_apart
    if apart >= APART * of:
        return None
    reason = f"the reward tells the responses of only {apart} of {of} prompts apart"
    return _stop(history, rule, "indifferent", reason)


def at_the_end(history: Sequence[Estimates], rule: Rule) -> Stop:
    """All rounds asked for are done."""
    return _stop(history, rule, "rounds", f"all {len(history) - 1} rounds are done")


def best_round(history: Sequence[Estimates], rule: Rule) -> tuple[int, str]:
    """The round to take, and why: most of what is to be kept; else the last.

    >>> def at(x): return {"base_mode_probability": Estimate(x, None, None, 9, "")}
    >>> best_round([at(0.5), at(0.9), at(0.8)], Rule(("base_mode_probability",)))[0]
    1
    """
    for name in rule.kept:
        value_T = [_known(e[name].value) for e in history]
        known = [(value, -t) for t, value in enumerate(value_T) if value is not None]
        if len(known) == len(history):
            value, back = max(known)
            return -back, f"highest {name.replace('_', ' ')}, {value:.4g}"
    return len(history) - 1, "the last: nothing measured without answers ranks the rounds"


def _drift(history: Sequence[Estimates], rule: Rule) -> str | None:
    now, before = history[-1], history[-2]
    sure, was = _known(now["confidence"].value), _known(before["confidence"].value)
    if sure is None or was is None or sure <= was:
        return None
    for name in rule.kept:
        value = _known(now[name].value)
        known = [e[name] for e in history[:-1] if _known(e[name].value) is not None]
        if value is None or not known:
            continue
        best = max(known, key=lambda e: e.value or 0.0)
        low = _known(best.low)
        if low is not None and value < low:
            return (
                f"confidence rose from {was:.4g} to {sure:.4g} while {name.replace('_', ' ')} "
                f"fell to {value:.4g} from {_told(best)}, and fidelity is "
                f"{_told(now['fidelity'])}"
            )
    return None


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
