"""The schedule and settings with which a side gets to 90 % of the headroom soonest.

The same rule and number of trials for every side, on a seed that is not reported. From a first
plan, one number after the other is moved to the next greater or smaller of its values, and further
in that direction while it helps; sweeps over all numbers are repeated while one helps. Trials that
are left move two or three numbers of the best plan at once to a next value, drawn at random, and
further where all those are tried. Then come what the searches of the other sides found, as far as
the numbers are the side's too, and the best plan with numbers of prompts between those that it lies
among.

Times are processor seconds, which other work on the machine changes less than wall time. A trial
is given up when it has taken a fourth longer than the best so far. The search compares ``pace``,
which sees near misses, and plans that overshoot in a long round and may be cut.
Then the best by pace and the best by the seconds themselves, ``KEPT`` of each, are run with more
seeds of training, and the one with the least median of the seconds is taken.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from itertools import count
from math import inf, log
from typing import Any

from srlm.loop import derived

from .schedule import Plan, Run, Scene, scene

SEED, SHARE, TRIALS, KEPT, AGAIN = 10, 0.9, 54, 3, 2
FIRST_CAP, PATIENCE, DRAWS = 20.0, 1.25, 8
Values = dict[str, tuple[Any, ...]]
Tell = Callable[[dict[str, Any]], None]


def search(
    name: str,
    first: Plan,
    values: Values,
    tell: Tell,
    trials: int = TRIALS,
    known: dict[str, Any] | None = None,
    others: Sequence[dict[str, Any]] = (),
) -> None:
    """Search a side's plans; ``tell`` is called with all that is known after every trial.

    Args:
        known: what an earlier search told, to go on from.
        others: numbers that other sides' searches found.
    """
    found = _Search(name, first, values, tell, trials)
    if known:
        found.restore(known)
    found.sweep()
    found.wander()
    for numbers in others:
        found.attempt(first.changed(**{k: v for k, v in numbers.items() if k in values}))
    found.between()
    found.confirm()


def pace(rounds: list[dict[str, Any]], share: float) -> float:
    """Processor seconds to the share if the headroom left fell exponentially from the start at the
    rate that it had at some round: the least over the rounds, infinite where none captured any.

    So near misses and plans that overshoot in one long round, and may be cut, are seen for what
    they are. A fall to less than a hundredth counts as one to a hundredth.
    """
    fallen = [(r["cpu_so_far"], -log(max(0.01, 1 - r["headroom"]))) for r in rounds]
    return min((s * -log(1 - share) / f for s, f in fallen if f > 0), default=inf)


class _Search:
    def __init__(self, name: str, first: Plan, values: Values, tell: Tell, trials: int) -> None:
        self.name, self.values, self.tell, self.trials = name, values, tell, trials
        self.on: Scene = scene(SEED, DRAWS)
        self.tried: dict[Plan, list[float | None]] = {}
        self.pace: dict[Plan, float] = {}
        self.curves: dict[Plan, list[dict[str, float]]] = {}
        self.best = first
        warmed = Run(name, first, self.on, 0)
        warmed.go_on()

    def restore(self, known: dict[str, Any]) -> None:
        """Take up an earlier search's trials."""
        for trial in known["tried"]:
            plan = self.best.changed(**{k: trial[k] for k in self.values})
            self.tried[plan], self.curves[plan] = trial["cpu_seconds"], trial["rounds"]
            self.pace[plan] = pace(trial["rounds"], SHARE)
        on_grid = [p for p in self.tried if p.prompts in self.values["prompts"]]
        self.best = min(on_grid, key=self.pace.__getitem__)

    def attempt(self, plan: Plan) -> None:
        """Run a plan if it is new; it is the best where none has a better pace."""
        if plan not in self.tried:
            self._run(plan)
            if self.pace[plan] < self.pace[self.best]:
                self.best = plan
            self._report()

    def _of(self, plan: Plan) -> float:
        """Median of the plan's seconds."""
        return statistics.median(inf if x is None else x for x in self.tried.get(plan) or [None])

    def _run(self, plan: Plan, patience: float = PATIENCE) -> None:
        fastest = min(map(self._of, self.tried), default=inf)
        made = self.tried.setdefault(plan, [])
        run = Run(self.name, plan, self.on, derived(SEED, "trial", len(made)), DRAWS)
        made.append(run.until(SHARE, min(FIRST_CAP, patience * fastest)))
        if len(made) == 1:
            kept = ("headroom", "cpu_so_far")
            self.pace[plan] = pace(run.rounds, SHARE)
            self.curves[plan] = [{k: round(r[k], 4) for k in kept} for r in run.rounds]

    def sweep(self) -> None:
        """Line searches along every number until none helps."""
        self.attempt(self.best)
        helped = self._left
        while helped:
            before = self.best
            for axis in self.values:
                for direction in (1, -1):
                    if self._along(axis, direction):
                        break
            helped = self.best != before and self._left

    def _along(self, axis: str, direction: int) -> bool:
        moved = False
        while self._left and (plan := self._next(axis, direction)) is not None:
            before = self.best
            self.attempt(plan)
            if self.best == before:
                break
            moved = True
        return moved

    def _next(self, axis: str, direction: int) -> Plan | None:
        values = self.values[axis]
        at = values.index(self.best.numbers()[axis]) + direction
        return self.best.changed(**{axis: values[at]}) if 0 <= at < len(values) else None

    def wander(self) -> None:
        """Moves of two or three numbers of the best plan."""
        chance = random.Random(SEED)
        while self._left:
            mutants = (self._mutant(chance, 1 + i // 100) for i in count())
            self.attempt(next(p for p in mutants if p not in self.tried))

    def _mutant(self, chance: random.Random, furthest: int) -> Plan:
        now, changes = self.best.numbers(), {}
        for axis in chance.sample(list(self.values), chance.choice((2, 3))):
            values = self.values[axis]
            at = values.index(now[axis]) + chance.choice((-1, 1)) * chance.randint(1, furthest)
            changes[axis] = values[min(max(at, 0), len(values) - 1)]
        return self.best.changed(**changes)

    @property
    def _left(self) -> bool:
        return len(self.tried) < self.trials

    def between(self) -> None:
        """Numbers of prompts half-way to the next smaller and greater of the best plan's."""
        values, best = self.values["prompts"], min(self.tried, key=self._of)
        if best.prompts in values:
            at = values.index(best.prompts)
            for other in (values[max(at - 1, 0)], values[min(at + 1, len(values) - 1)]):
                self.attempt(best.changed(prompts=(best.prompts + other) // 2))

    def confirm(self) -> None:
        """The best plans with more seeds of training."""
        best = [sorted(self.tried, key=key)[:KEPT] for key in (self._of, self.pace.__getitem__)]
        kept = list(dict.fromkeys(best[0] + best[1]))
        for plan in kept:
            while len(self.tried[plan]) < 1 + AGAIN:
                self._run(plan, patience=2 * PATIENCE)
        self._report(min(kept, key=self._of))

    def _report(self, chosen: Plan | None = None) -> None:
        soonest = chosen or min(self.tried, key=self._of)
        best = soonest.numbers()
        self.tell(
            {
                "best": {"prompts": best["prompts"]} | {k: best[k] for k in self.values},
                "cpu_seconds": self._of(soonest),
                "trials": len(self.tried),
                "tried": [
                    {k: plan.numbers()[k] for k in self.values}
                    | {"cpu_seconds": seconds, "rounds": self.curves[plan]}
                    for plan, seconds in self.tried.items()
                ],
            }
        )
        print(f"{self.name} {len(self.tried)}: {self._of(soonest):.2f} s {best}", flush=True)
