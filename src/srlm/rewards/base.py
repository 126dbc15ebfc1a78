"""What a self-reward is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from srlm.policies.base import Policy
from srlm.types import Floats, Prompt, Samples


@dataclass(frozen=True, slots=True)
class JudgeTraining:
    """What a judge is trained on: the stages pairs and update take it as they take responses."""

    prompts: list[Prompt]
    """The questions that the judge was asked."""
    samples: Samples
    """Its judgements."""
    reward_J: Floats
    """Mean probability of being preferred to the question's other judgements, [J]; missing for
    unreadable judgements."""


class Mean(float):
    """A fact that is a mean: ``total`` over ``of`` terms, 0 where there are none.

    >>> Mean(3, 4), Mean(3, 4).of
    (0.75, 4.0)
    """

    total: float
    of: float

    def __new__(cls, total: float, of: float) -> Mean:
        made = super().__new__(cls, total / of if of else 0.0)
        made.total, made.of = float(total), float(of)
        return made

    def __reduce__(self) -> tuple[type[Mean], tuple[float, float]]:
        """It is sent to other processes."""
        return Mean, (self.total, self.of)


Say = Callable[[Mapping[str, float]], Sequence[str]]
"""Sentences for the user, from the facts of a whole round."""


def nothing(facts: Mapping[str, float]) -> Sequence[str]:
    """Nothing is worth a sentence."""
    return ()


@dataclass(frozen=True, slots=True)
class Scored:
    """Rewards, with what their maker knows about how they came about."""

    reward_R: Floats
    """r_t(x, y) of each row, [R]; not-a-number where it is missing."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """Figures by name, as ``judge: unreadable``. Over the parts of a round a ``Mean`` is averaged
    by its terms; any other number is a count and is added."""
    say: Say = nothing
    judged_R: Floats | None = None
    """The judge's own scores, [R], where a judge had a part in the rewards: by them it is seen
    whether it degrades."""
    training: JudgeTraining | None = None
    """Judgements that are trained on beside the responses, where the settings ask for it."""

    @property
    def notes(self) -> Sequence[str]:
        """What is to be said if these rows are the whole round."""
        return self.say(self.facts)


Reward = Callable[[Policy, Sequence[Prompt], Samples], Floats | Scored]
"""r_t(x, y) of each row, [R]: (the policy that sampled, prompts, its samples) -> rewards, or
rewards with facts. It sees all the samples of its prompts at once; a large round comes in several
calls, of some prompts each (``srlm.engines.base.drawn``). Not-a-number marks a reward that is
missing; such rows are left out of the pairs and counted."""


def scored(value: Floats | Scored, samples: Samples) -> Scored:
    """A reward's result as ``Scored``.

    Raises:
        ValueError: there is not one number a row.
    """
    out = value if isinstance(value, Scored) else Scored(value)
    if out.reward_R.shape != (len(samples),):
        raise ValueError(f"a reward gave {out.reward_R.shape}, not ({len(samples)},)")
    return out
