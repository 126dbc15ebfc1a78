"""Seconds to a share of the headroom: rounds on slices of the prompts until it is captured."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from srlm.errors import UserError
from srlm.loop import derived
from srlm.types import Prompt

from . import ground, table
from .side import STAGES, Round, Setting


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule of rounds, all alike."""

    prompts: int
    """A round takes so many, the next round the next ones; used up, they begin anew."""
    setting: Setting

    def changed(self, **changes: Any) -> Plan:
        """With some numbers replaced, by their names here or in ``Setting``."""
        prompts = changes.pop("prompts", self.prompts)
        return Plan(prompts, replace(self.setting, **changes))

    def numbers(self) -> dict[str, Any]:
        """All numbers by name."""
        return {"prompts": self.prompts} | asdict(self.setting)


@dataclass(frozen=True)
class Scene:
    """A base and the two accuracies between which the headroom lies."""

    place: ground.Ground
    start: float
    mode: float

    def headroom(self, model: Any, draws: int = ground.DRAWS) -> float:
        """Share of the headroom that the model has captured; not timed."""
        return (self.place.accuracy(model, draws) - self.start) / (self.mode - self.start)


def scene(seed: int, draws: int = ground.DRAWS) -> Scene:
    """The demo's good start on a seed, with all its training prompts."""
    place = ground.demo(seed, 4096)
    return Scene(place, place.accuracy(place.model, draws), place.mode_accuracy())


@dataclass
class Run:
    """A side's rounds from the base so far."""

    name: str
    plan: Plan
    on: Scene
    seed: int
    draws: int = ground.DRAWS
    """Of a held-out prompt, to measure with."""
    model: Any = None
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = self.on.place.fresh()

    def go_on(self) -> None:
        """One round more and its headroom.

        A search through unreachable objects goes through a side's own alone: the libraries of all
        sides are in this process, and TRL's trainer makes such a search in every round.
        """
        t = len(self.rounds)
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        done = table.SIDES[self.name](
            self.model,
            self.on.place.tokenizer,
            window(self.on.place.train, t, self.plan.prompts),
            self.plan.setting,
            derived(self.seed, "round", t),
        )
        self.rounds.append(
            {
                "headroom": self.on.headroom(self.model, self.draws),
                "seconds_so_far": self._so_far("seconds_so_far") + done.total,
                "cpu_so_far": self._so_far("cpu_so_far") + done.cpu,
            }
            | {stage: done.seconds.get(stage, 0.0) for stage in STAGES}
            | _counts(done)
        )

    def _so_far(self, clock: str) -> float:
        return float(self.rounds[-1][clock]) if self.rounds else 0.0

    def to(self, share: float, clock: str = "seconds_so_far") -> float | None:
        """Seconds to the end of the first round with the share captured, None where there is
        none; nothing is drawn between rounds, which would flatter long ones."""
        reached = (r[clock] for r in self.rounds if r["headroom"] >= share)
        return next(reached, None)

    @property
    def apart(self) -> bool:
        """Whether less than half of the headroom once captured is left: more rounds will not mend
        it."""
        rooms = [r["headroom"] for r in self.rounds]
        return bool(rooms) and rooms[-1] < max(rooms) / 2

    def until(self, share: float, cap: float) -> float | None:
        """Go on to a share or past a cap of processor seconds, or until a round fails; processor
        seconds to the share."""
        while (found := self.to(share, "cpu_so_far")) is None and self._so_far("cpu_so_far") < cap:
            if self.apart:
                break
            try:
                self.go_on()
            except UserError:  # ours says so where the model has come apart or no pair is left
                break
        return found

    def stages(self, share: float) -> dict[str, float]:
        """Seconds, tokens and steps up to a share, or in all rounds."""
        last = next((i for i, r in enumerate(self.rounds) if r["headroom"] >= share), None)
        used = self.rounds[: None if last is None else last + 1]
        names = (*STAGES, "tokens", "steps", "pairs")
        return {"rounds": len(used)} | {k: sum(r[k] for r in used) for k in names}


def _counts(done: Round) -> dict[str, int]:
    return {"tokens": done.tokens, "steps": done.steps, "pairs": done.pairs}


def window(prompts: Sequence[Prompt], t: int, size: int) -> list[Prompt]:
    """Prompts of round t: ``size`` after those of the round before, around the end if need be.

    >>> window("abcde", 1, 3)
    ['d', 'e', 'a']
    """
    return [prompts[(t * size + i) % len(prompts)] for i in range(size)]
