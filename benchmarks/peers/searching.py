"""The schedule and settings with which a side gets to most of the headroom soonest.

The same rule and number of trials for every side, on bases that are not reported: a plan that was
searched on one base alone did not carry over to others, nor did plans that barely got to 90 %, so
93 % is asked of them here. A trial runs a plan on each of them; one
that is much slower on the first than the best so far is not run on the others.

From a first plan, one number after the other is moved to the next greater or smaller of its
values, and further in that direction while it helps; sweeps over all numbers are repeated while
one helps. Trials that are left move two or three numbers of the best plan at once to a next value,
drawn at random, and further where all those are tried. Then come what the searches of the other
sides found, as far as the numbers are the side's too, and the best plan with numbers of prompts
between those that it lies among.

Times are processor seconds, which other work on the machine changes less than wall time. A run
is given up when it has taken half as long again as the best plan's slowest. The search compares
``pace``, summed over the bases, which sees near misses, and plans that overshoot in a long round
and may be cut; a run that ended short of the share counts half as much again. Then the best by
pace and by how often they got there, ``KEPT`` of each, and the plans that the search began with are
run ``AGAIN`` times on every base with other seeds of training, and the one that got there most
often is taken, among those the one with the least sum of seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import count
from math import inf, log
from typing import Any

from srlm.loop import derived

from .schedule import Plan, Run, Scene, scene

SEEDS, SHARE, TRIALS, KEPT, AGAIN = (10, 11, 12), 0.93, 48, 3, 3
FIRST_CAP, PATIENCE, SHORT, DRAWS = 12.0, 1.5, 1.5, 8
LESS = {"trl dpo sigmoid": 0.8}
"""The share that is asked of sides which hardly get to ``SHARE``: in a search for that this one
missed it in every run."""
Values = dict[str, tuple[Any, ...]]
Tell = Callable[[dict[str, Any]], None]


def search(
    name: str,
    first: Plan,
    values: Values,
    tell: Tell,
    trials: int = TRIALS,
    also: Sequence[Plan] = (),
    others: Sequence[dict[str, Any]] = (),
) -> None:
    """Search a side's plans; ``tell`` is called with all that is known after every trial.

    Args:
        also: plans that earlier searches found sooner and less sure.
        others: numbers that other sides' searches found.
    """
    found = _Search(name, first, also, values, tell, trials)
    for plan in found.given:
        found.attempt(plan)
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
    def __init__(
        self,
        name: str,
        first: Plan,
        also: Sequence[Plan],
        values: Values,
        tell: Tell,
        trials: int,
    ) -> None:
        self.name, self.values, self.tell, self.trials = name, values, tell, trials
        self.given = [first, *also]
        self.share = LESS.get(name, SHARE)
        self.on: list[Scene] = [scene(seed, DRAWS) for seed in SEEDS]
        self.tried: dict[Plan, list[Run]] = {}
        self.best = first
        warmed = Run(name, first, self.on[0], 0)
        warmed.go_on()

    def attempt(self, plan: Plan) -> None:
        """Run a plan if it is new; it is the best where none has a better pace."""
        if plan not in self.tried:
            self._run(plan)
            if self._pace(plan) < self._pace(self.best):
                self.best = plan
            self._report()

    def _pace(self, plan: Plan) -> float:
        """Sum of the paces on all bases, more where a run ended short of the share; infinite where
        a base is missing."""
        runs = self.tried.get(plan, [])[: len(self.on)]
        if len(runs) < len(self.on):
            return inf
        short = [SHORT if r.to(self.share) is None else 1.0 for r in runs]
        return sum(x * y for x, y in zip(short, self._paces(plan), strict=True))

    def _run(self, plan: Plan) -> None:
        """The plan on every base, cut short where it is much slower than the best."""
        known = self._paces(self.best)
        for i in range(len(self.on)):
            self._once(plan)
            if i < len(known) and self._paces(plan)[i] > PATIENCE * known[i]:
                break

    def _once(self, plan: Plan) -> None:
        """One run more, on the next base."""
        made = self.tried.setdefault(plan, [])
        again, i = divmod(len(made), len(self.on))
        run = Run(self.name, plan, self.on[i], derived(SEEDS[i], "trial", again), DRAWS)
        known = self._paces(self.best) if self._pace(self.best) < inf else [inf]
        run.until(self.share, min(FIRST_CAP, PATIENCE * max(known)))
        run.model = None
        made.append(run)

    def _paces(self, plan: Plan) -> list[float]:
        """Of the first run on each base."""
        runs = self.tried.get(plan, [])[: len(self.on)]
        return [pace(r.rounds, self.share) for r in runs]

    def _got_there(self, plan: Plan) -> tuple[int, float]:
        """How often a plan missed the share, and the sum of its seconds where it did not."""
        seconds = [r.to(self.share, "cpu_so_far") for r in self.tried[plan]]
        return seconds.count(None), sum(x for x in seconds if x is not None)

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
        chance = random.Random(SEEDS[0])
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
        values, best = self.values["prompts"], self.best
        if best.prompts in values:
            at = values.index(best.prompts)
            for other in (values[max(at - 1, 0)], values[min(at + 1, len(values) - 1)]):
                self.attempt(best.changed(prompts=(best.prompts + other) // 2))

    def confirm(self) -> None:
        """The best plans with other seeds of training."""
        whole = [p for p in self.tried if self._pace(p) < inf]
        best = [sorted(whole, key=key)[:KEPT] for key in (self._pace, self._got_there)]
        kept = list(dict.fromkeys([*best[0], *best[1], *self.given]))
        for plan in kept:
            while len(self.tried[plan]) < AGAIN * len(self.on):
                self._once(plan)
        self._report(min(kept, key=self._got_there))

    def _report(self, chosen: Plan | None = None) -> None:
        soonest = chosen or self.best
        best = soonest.numbers()
        self.tell(
            {
                "best": {"prompts": best["prompts"]} | {k: best[k] for k in self.values},
                "trials": len(self.tried),
                "tried": [
                    {k: plan.numbers()[k] for k in self.values}
                    | {"runs": [_told(run, self.share) for run in runs]}
                    for plan, runs in self.tried.items()
                ],
            }
        )
        missed, seconds = self._got_there(soonest)
        print(
            f"{self.name} {len(self.tried)}: pace {self._pace(soonest):.2f}, missed {missed} of "
            f"{len(self.tried[soonest])}, {seconds:.2f} s, {best}",
            flush=True,
        )


def _told(run: Run, share: float) -> dict[str, Any]:
    """Where a run got to, and when."""
    return {
        "seconds": run.to(share, "cpu_so_far"),
        "rounds": [[round(r["headroom"], 3), round(r["cpu_so_far"], 2)] for r in run.rounds],
    }
