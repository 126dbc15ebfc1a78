"""The loop: the page to read first.

    prompts -> samples -> rewards -> pairs -> update -> measure -> report

``align`` runs rounds of these words on any policy; ``run`` is ``align`` on a run folder, from
settings to report. The equations are in ``losses``, the folder in ``runs``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from srlm import data as reading
from srlm import pairs as pairing
from srlm import samples as drawing
from srlm import stopping as stopping
from srlm import train as update
from srlm.config import (
    MeasureSettings,
    RunConfig,
    SampleSettings,
    UpdateSettings,
    template_arguments,
)
from srlm.forecast.powers import kappa_next
from srlm.grading import EXACT, Grader, grader
from srlm.measure.agreement import kept
from srlm.measure.evaluate import BaseReference, Measurement, evaluate, reference
from srlm.policies.base import Exact, Policy
from srlm.progress import Progress
from srlm.report.summary import Summary, summarise
from srlm.rewards.base import Reward, scored
from srlm.rewards.named import reward_of
from srlm.rewards.report import RewardReport, Seen, joined, seen, summary
from srlm.types import Estimate, Pairs, Prompt, Samples, UpdateReport, undefined
from srlm.updates import Pair, objective_of, pair_of


@dataclass(frozen=True, slots=True)
class Recipe:
    """The words of a round as functions and settings."""

    samples: SampleSettings
    reward: Reward
    pair: Pair
    objective: update.Objective
    update: UpdateSettings
    measure: MeasureSettings
    grader: Grader = EXACT
    """How answers are read and compared: for votes, and to measure accuracy."""
    stop: stopping.Rule | None = None
    """None: all rounds are run."""


@dataclass(frozen=True, slots=True)
class Round:
    """What is known of pi_t."""

    number: int
    """t; 0 is the base."""
    estimates: dict[str, Estimate]
    update: UpdateReport | None
    """Of the update that made pi_t; None for the base."""


class Store(Protocol):
    """Where rounds are kept: in memory (``Memory``) or in a run folder (``durable.Durable``)."""

    def begin(self, policy: Policy) -> Lazy:
        """Keep the base, give the policy to start from."""
        ...

    def base(self) -> Policy:
        """The base, to score with."""
        ...

    def samples(
        self, t: int, prompts: list[Prompt], make: Callable[[], Iterator[Samples]]
    ) -> Iterable[Samples]:
        """Keep the draws as they come; they are gone through in parts, all of a prompt in one."""
        ...

    def pairs(self, t: int, prompts: list[Prompt], make: Callable[[], Pairs]) -> Pairs: ...

    def rewarded(self, t: int, report: RewardReport) -> None:
        """Keep what the rewards of round t were like."""
        ...

    def votes(self, t: int) -> Estimate:
        """Correlation of round t's rewards with the votes, from what was kept."""
        ...

    def stopped(self, stop: stopping.Stop) -> None:
        """Keep why the run ended."""
        ...

    def policy(
        self, t: int, make: Callable[[], tuple[Policy, UpdateReport]]
    ) -> tuple[Lazy, UpdateReport]: ...

    def measure(
        self, t: int, make: Callable[[], Measurement]
    ) -> tuple[dict[str, Estimate], Callable[[], BaseReference]]: ...


Lazy = Callable[[], Policy]
"""A policy that is read only when it is needed."""


def align(
    policy: Policy,
    prompts: Sequence[Prompt],
    held_out: Sequence[Prompt],
    recipe: Recipe,
    *,
    rounds: int,
    seed: int = 0,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Iterator[Round]:
    """Self-reward ``policy`` for ``rounds`` rounds ([SR] eq. 1-4); yields rounds 0, 1, ..., T.

    Round t draws from pi_t, rewards the draws by pi_t, pairs them, and updates towards
    pi_{t+1} = argmin of the objective, which for the likelihood reward is
    pi_t^(1 + 1/beta) normalised, where the policy class contains it. Every policy is measured
    on held-out prompts. With ``recipe.stop`` the run may end before (``srlm.stopping``).

    Args:
        policy: pi_0. Left as it is by the in-memory store.
        prompts: training prompts.
        held_out: prompts measured on, never trained on.
        recipe: reward, pairing, objective and settings.
        rounds: T.
        seed: of everything drawn.
        store: where to keep the rounds; in memory if left out.
        progress: where to show stages; silent if left out.

    Raises:
        UserError: prompts that the policy cannot take, probabilities that are not numbers, an
            update that diverges.
    """
    store = store or Memory()
    progress = progress or Progress(quiet=True)
    current = store.begin(policy)
    del policy
    base: BaseReference | None = None
    report: UpdateReport | None = None
    foretold = undefined("one exact round from the policy before", "this is the base")
    history: list[dict[str, Estimate]] = []
    votes: list[Estimate] = []
    for t in range(rounds + 1):
        seen = held_out[: recipe.measure.prompts]
        with progress.stage(f"round {t}: measure", total=len(seen)) as bar:
            estimates, as_reference = store.measure(
                t, _measuring(current, seen, recipe, seed, base, bar.advance)
            )
        base = base or _with_scores(as_reference(), store)
        paced = _paced(estimates, t, recipe.update.beta)
        yield Round(t, paced | {"kappa_ideal": foretold}, report)
        foretold = estimates["kappa_next"]
        history.append(estimates)
        if _ended(history, recipe, rounds, store):
            return
        chosen = round_prompts(prompts, recipe.samples.prompts, seed, t)
        with progress.stage(f"round {t + 1}: samples", total=len(chosen)) as bar:
            samples = store.samples(
                t, chosen, _drawing(current, chosen, recipe.samples, seed, t, bar.advance)
            )
        with progress.stage(f"round {t + 1}: pairs"):
            pairs = store.pairs(t, chosen, _pairing(current, chosen, samples, recipe, store, t))
        votes.append(store.votes(t))
        if recipe.stop and (
            end := stopping.by_rewards(history, pairs.distinguishable, recipe.stop)
            or stopping.by_judge(history, votes, recipe.stop)
        ):
            store.stopped(end)
            return
        work = pairs.groups * recipe.update.epochs
        with progress.stage(f"round {t + 1}: update", total=work) as bar:
            current, report = store.policy(
                t + 1, _updating(current, chosen, pairs, recipe, seed, t, bar.advance)
            )


def _ended(history: list[dict[str, Estimate]], recipe: Recipe, rounds: int, store: Store) -> bool:
    """Whether the round just measured is the last."""
    last = len(history) - 1 == rounds
    if recipe.stop is None:
        return last
    end = stopping.by_measurement(history, recipe.stop)
    if end is None and last:
        end = stopping.at_the_end(history, recipe.stop)
    if end is not None:
        store.stopped(end)
    return end is not None


# ---- the stages, put off until the store wants them


def _measuring(
    current: Lazy,
    held_out: Sequence[Prompt],
    recipe: Recipe,
    seed: int,
    base: BaseReference | None,
    advance: Callable[[int], None],
) -> Callable[[], Measurement]:
    def measure() -> Measurement:
        policy = current()
        made = evaluate(
            policy,
            held_out,
            recipe.grader,
            recipe.measure,
            seed=derived(seed, "measure"),
            max_tokens=recipe.samples.max_tokens,
            base=base,
            advance=advance,
        )
        ahead = kappa_next(
            made.samples,
            made.modes,
            recipe.update.beta,
            seed=seed,
            exact=isinstance(policy, Exact),
        )
        still = kept(policy, made, base, recipe.grader, seed=seed)
        return replace(made, estimates=made.estimates | {"kappa_next": ahead} | still)

    return measure


def _drawing(
    current: Lazy,
    prompts: list[Prompt],
    settings: SampleSettings,
    seed: int,
    t: int,
    advance: Callable[[int], None],
) -> Callable[[], Iterator[Samples]]:
    return lambda: drawing.stream(
        current(), prompts, settings, derived(seed, "samples", t), advance=advance
    )


def _pairing(
    current: Lazy,
    prompts: list[Prompt],
    samples: Iterable[Samples],
    recipe: Recipe,
    store: Store,
    t: int,
) -> Callable[[], Pairs]:
    """Rewards and pairs, part by part: a reward sees all the draws of a prompt at once."""

    def pair() -> Pairs:
        policy = current()
        rewards: list[Seen] = []
        made: list[tuple[Pairs, int]] = []
        judged: list[tuple[Pairs, int]] = []
        questions: list[Prompt] = []
        for part in samples:
            first = int(part.prompt_R[0])
            own = replace(part, prompt_R=part.prompt_R - first)
            found = scored(recipe.reward(policy, prompts[first : part.prompt_R[-1] + 1], own), own)
            rewards.append(seen(part, found, recipe.grader))
            if np.isfinite(found.reward_R).any():
                made.append((recipe.pair(own, found.reward_R), first))
            if (judge := found.training) is not None:
                judged.append((recipe.pair(judge.samples, judge.reward_J), len(questions)))
                questions += judge.prompts
        store.rewarded(t, summary(joined(rewards)))
        responses = pairing.joined(made)
        if not judged:
            return responses
        return pairing.with_judge(responses, pairing.joined(judged), len(prompts), questions)

    return pair


def _updating(
    current: Lazy,
    prompts: list[Prompt],
    pairs: Pairs,
    recipe: Recipe,
    seed: int,
    t: int,
    advance: Callable[[int], None],
) -> Callable[[], tuple[Policy, UpdateReport]]:
    return lambda: update.fit(
        current(),
        [*prompts, *pairs.asked],
        pairs,
        recipe.objective,
        recipe.update,
        seed=derived(seed, "update", t),
        advance=advance,
    )


def round_prompts(prompts: Sequence[Prompt], count: int | None, seed: int, t: int) -> list[Prompt]:
    """The training prompts of a round: all, or ``count`` drawn without replacement."""
    if count is None or count >= len(prompts):
        return list(prompts)
    order = np.random.default_rng(derived(seed, "prompts", t)).permutation(len(prompts))
    return [prompts[i] for i in np.sort(order[:count])]


def derived(seed: int, purpose: str, t: int = 0) -> int:
    """A seed for one purpose of one round, 63 bits.

    >>> derived(0, "samples", 1) != derived(0, "samples", 2)
    True
    """
    state = np.random.SeedSequence([seed, t, *purpose.encode()]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def _paced(estimates: dict[str, Estimate], t: int, beta: float) -> dict[str, Estimate]:
    """Update efficiency log p_eff / log p_t beside the effective exponent (theory.md section 3)."""
    p_eff = estimates["p_eff"]
    ideal = t * log(1 + 1 / beta)
    if t == 0 or p_eff.value is None or p_eff.value <= 0:
        return estimates | {"efficiency": undefined("log p_eff / log p_t", "no update yet")}
    low, high = (None if x is None or x <= 0 else log(x) / ideal for x in (p_eff.low, p_eff.high))
    return estimates | {
        "efficiency": Estimate(log(p_eff.value) / ideal, low, high, p_eff.n, "log p_eff / log p_t")
    }


def _with_scores(base: BaseReference, store: Store) -> BaseReference:
    return replace(base, log_prob=lambda *rows: store.base().log_prob(*rows))


# ---- stores


class Memory:
    """Rounds in memory: nothing is kept but the base and the present policy."""

    def begin(self, policy: Policy) -> Lazy:
        """The base is the caller's policy; the loop works on a copy."""
        self._base = policy
        return _held(policy.copy())

    def base(self) -> Policy:
        """The caller's policy."""
        return self._base

    def samples(
        self, t: int, prompts: list[Prompt], make: Callable[[], Iterator[Samples]]
    ) -> Iterable[Samples]:
        """Draws of round t."""
        return tuple(make())

    def pairs(self, t: int, prompts: list[Prompt], make: Callable[[], Pairs]) -> Pairs:
        """Pairs of round t."""
        return make()

    def rewarded(self, t: int, report: RewardReport) -> None:
        """What the rewards of the last round were like."""
        self.reward_report = report

    def votes(self, t: int) -> Estimate:
        """Of the last round's rewards."""
        return self.reward_report.vote_correlation

    def stopped(self, stop: stopping.Stop) -> None:
        """Why the run ended."""
        self.stop = stop

    def policy(
        self, t: int, make: Callable[[], tuple[Policy, UpdateReport]]
    ) -> tuple[Lazy, UpdateReport]:
        """pi_t, and what its update did."""
        self.last, report = make()
        return _held(self.last), report

    def measure(
        self, t: int, make: Callable[[], Measurement]
    ) -> tuple[dict[str, Estimate], Callable[[], BaseReference]]:
        """Estimates of pi_t."""
        self.measurement = make()
        return self.measurement.estimates, lambda: reference(self.measurement)


def _held(policy: Policy) -> Lazy:
    return lambda: policy


# ---- a run on a folder


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Where a run ended."""

    folder: Path
    report: Path
    rounds: list[dict[str, Any]]
    """The lines of metrics.jsonl."""
    summary: Summary


def recipe_of(config: RunConfig) -> Recipe:
    """Settings to functions."""
    return Recipe(
        samples=config.samples,
        reward=reward_of(config),
        pair=pair_of(config),
        objective=objective_of(config),
        update=config.update,
        measure=config.measure,
        grader=grader(config.prompts.answer),
        stop=stopping.rule_of(config.reward) if config.stop == "auto" else None,
    )


def run(config: RunConfig, out: Path, *, progress: Progress | None = None) -> RunSummary:
    """``srlm run``: the loop on a run folder, to its report. Goes on where it stopped.

    Raises:
        UserError: anything in the settings, the prompts, the model or the folder that the user
            can put right; found before the first draw where it can be.
    """
    from srlm.durable import Durable
    from srlm.forecast.after_round import forecast_after
    from srlm.policies.load import check_fit, load
    from srlm.report.page import write_page

    progress = progress or Progress(quiet=True)
    recipe = recipe_of(config)
    everything = reading.read_prompts(
        Path(config.prompts.file),
        prompt_column=config.prompts.prompt_column,
        answer_column=config.prompts.answer_column,
    )
    recipe.grader.check(everything)
    train, held_out = reading.split(everything, config.prompts.held_out)

    def open_policy(folder: str | Path) -> Policy:
        return load(
            folder,
            device=config.device,
            dtype=config.dtype,
            chat=config.prompts.chat == "auto",
            system=config.prompts.system,
            chat_args=template_arguments(config.prompts.chat_args),
            download=config.download,
            trained=True,
        )

    with Durable(out, config, open_policy) as store:
        policy = store.first_policy()
        check_fit(policy, everything, config.samples.max_tokens)
        store.describe(train, held_out)
        for done in align(
            policy,
            train,
            held_out,
            recipe,
            rounds=config.rounds,
            seed=config.seed,
            store=store,
            progress=progress,
        ):
            store.write_metrics(done.number, done)
            if config.reward == "likelihood":  # other rewards do not lead to powers of the base
                forecast_after(out, done.number, config)
        with progress.stage("report"):
            summary = summarise(out)
            report = write_page(summary)
        return RunSummary(out, report, store.metrics(), summary)
