"""What is measured of a policy on the held-out prompts, each round.

Three things are kept apart (theory.md section 1): confidence p*, fidelity to the base's modes,
and correctness where answers exist. Every number is an ``Estimate``; the definitions are in
``quantities.py`` and ``condition.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from srlm.config import MeasureSettings, SampleSettings
from srlm.engines.base import Advance, Executor, Piece, cut, greedily, prompts_per_shard, sampled
from srlm.errors import UserError
from srlm.grading import EXACT, Grader
from srlm.measure import condition, quantities
from srlm.measure.intervals import by_prompt
from srlm.measure.modes import Modes, enumerated, improved, unsearched
from srlm.measure.search import hopeless, lots, searched
from srlm.policies.base import Exact, Policy
from srlm.types import (
    Bools,
    Estimate,
    Floats,
    Ints,
    Prompt,
    PromptTable,
    Samples,
    Tokens,
    undefined,
)

SETTINGS = MeasureSettings()
LogProb = Callable[[Sequence[Prompt], Ints, Sequence[Tokens]], Floats]
"""``Policy.log_prob``."""
Draw = Callable[[Policy, Sequence[Prompt], SampleSettings, int, Advance], Samples]
"""(policy, prompts, settings, seed, advance) -> samples of another making."""


@dataclass(frozen=True, slots=True)
class BaseReference:
    """What later rounds are compared with: the base policy's measurement, in short."""

    ids_P: tuple[str, ...]
    """Prompt ids, so that a comparison over other prompts is refused."""
    mode_P: tuple[Tokens, ...]
    unique_P: Bools
    """The base's mode is certified and no other response is as likely."""
    samples: Samples
    """The base's held-out samples, with their log-probabilities under the base."""
    sampling_P: Floats
    """Share of right samples of each prompt; not-a-number without an answer."""
    mode_right_P: Floats
    """1.0 where the base's mode is right, 0.0 where wrong; not-a-number without an answer."""
    log_prob: LogProb | None = None
    """log pi_0(y|x): ``base_policy.log_prob``. None: the KL to the base is not measured."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """A policy on P held-out prompts."""

    estimates: dict[str, Estimate]
    """By name: kappa, log10_kappa, failure_fraction, confidence, least_confidence, margin (the
    least), greedy_is_mode, fidelity, sampling_accuracy, greedy_accuracy,
    mode_accuracy, headroom_captured, entropy, length, truncated, distinct_responses,
    kl_to_base, exponent, exponent_r2."""
    prompts: tuple[Prompt, ...]
    samples: Samples
    """Held-out samples, or all responses with their probabilities."""
    modes: Modes
    greedy: Samples
    spread: condition.Spread
    """Of 1/p* over prompts."""
    table: dict[str, list[Any]]
    """Columns of prompts.parquet, one row per prompt; None where unknown."""


def reference(measurement: Measurement, log_prob: LogProb | None = None) -> BaseReference:
    """The reference that a measurement of the base gives.

    Args:
        measurement: of the base policy.
        log_prob: the base policy's ``log_prob``, if it can still be asked in later rounds.
    """
    return BaseReference(
        ids_P=tuple(x.id for x in measurement.prompts),
        mode_P=measurement.modes.tokens_P,
        unique_P=measurement.modes.unique_P,
        samples=measurement.samples,
        sampling_P=_column(measurement.table["sampling_accuracy"]),
        mode_right_P=_column(measurement.table["mode_correct"]),
        log_prob=log_prob,
    )


def reference_of(
    table: PromptTable, samples: Samples, log_prob: LogProb | None = None
) -> BaseReference:
    """``reference`` from the base's table and held-out samples, as a run keeps them."""
    return BaseReference(
        ids_P=table.prompt_id,
        mode_P=table.mode_tokens,
        unique_P=table.unique,
        samples=samples,
        sampling_P=table.sampling_accuracy,
        mode_right_P=table.mode_correct,
        log_prob=log_prob,
    )


def evaluate(
    policy: Policy,
    prompts: Sequence[Prompt],
    grader: Grader = EXACT,
    settings: MeasureSettings = SETTINGS,
    *,
    seed: int = 0,
    max_tokens: int = 256,
    base: BaseReference | None = None,
    executor: Executor | None = None,
    draw: Draw | None = None,
    advance: Advance = lambda prompts: None,
) -> Measurement:
    """Measure a policy on the first ``settings.prompts`` of ``prompts``.

    Args:
        policy: one that is ``Exact`` is enumerated; others are searched for their modes and
            sampled; the search is left off where the samples show that it could certify next to
            nothing (``search.hopeless``).
        prompts: held-out prompts. Those without an answer count in everything but accuracy.
        grader: reads answers and compares them with the prompts'.
        settings: samples per prompt, and what search may spend.
        seed: of the samples and of the bootstrap.
        max_tokens: length limit H; modes are those among responses within it.
        advance: called with the number of prompts sampled for, for progress.
        base: None where ``policy`` is the base itself.
        executor: has samples, greedy responses and search made, in pieces; in this process if left
            out.
        draw: makes the samples instead.

    The same policy, prompts, settings and seed give the same result bit for bit, whatever executor,
    unless ``settings.seconds`` cut the search short: then what was found depends on the time that
    it took, and is as true.

    Raises:
        UserError: no prompts, another set of prompts than the base's, or a policy that gives
            not-a-number.
    """
    chosen = tuple(prompts[: settings.prompts])
    if not chosen:
        raise UserError("measure: no held-out prompts", "hold out a larger share of the prompts")
    if base is not None and base.ids_P != tuple(x.id for x in chosen):
        raise UserError(
            "measure: the held-out prompts are not those that the base was measured on",
            "measure the base on these prompts, or give the same prompts",
        )
    if isinstance(policy, Exact):
        greedy = policy.greedy(chosen, max_tokens=max_tokens)
        samples = policy.enumerate(chosen)
        advance(len(chosen))
        modes = enumerated(samples, len(chosen))
    else:
        executor = executor or Executor()
        greedy, samples = _outcomes(
            policy, chosen, settings, max_tokens, seed, executor, draw, advance
        )
        if note := hopeless(samples, greedy, settings.nodes):
            modes = unsearched(len(chosen), note)
        else:
            search = partial(lots, chosen, settings, max_tokens)
            found = executor.each("modes", policy, searched, search)
            modes = Modes.joined([lot for _, lot in found])
    modes = improved(improved(modes, greedy), samples)
    P, exact = len(chosen), isinstance(policy, Exact)
    mode_text_P = [policy.text(t) if t else None for t in modes.tokens_P]
    right_R = grader.grades(samples.text_R, samples.finished_R, chosen, samples.prompt_R)
    sampling_P = by_prompt(right_R, samples.weight_R, samples.prompt_R, P)
    greedy_right_P = grader.grades(greedy.text_R, greedy.finished_R, chosen)
    mode_right_P = grader.grades(mode_text_P, modes.finished_P, chosen)
    is_greedy_P = quantities.greedy_is_mode(modes, greedy)
    method = "enumeration" if exact else f"{settings.samples} samples per prompt"
    name = "enumeration" if exact else "best of samples and greedy" if modes.note else "search"
    out = quantities.confidence(modes, name, seed)
    out["greedy_is_mode"] = quantities.known_share(is_greedy_P, "no certificate")
    out |= quantities.accuracies(
        sampling_P, greedy_right_P, mode_right_P, modes, method, exact, seed
    )
    out |= quantities.of_samples(samples, settings.samples, P, method, exact, seed)
    if base is None:
        kept_P = np.full(P, np.nan)
        out |= _of_base(P, out["sampling_accuracy"].value is not None)
    else:
        kept_P = quantities.mode_kept(modes, base.mode_P, base.unique_P)
        out |= _against(policy, base, chosen, samples, method, exact, seed)
        out["fidelity"] = quantities.known_share(kept_P, "a tie or no certificate")
        out["headroom_captured"] = quantities.headroom(
            sampling_P, base.sampling_P, base.mode_right_P, seed
        )
    margin_low_P, margin_high_P = quantities.margin(modes)
    table: dict[str, list[Any]] = {
        "prompt_id": [x.id for x in chosen],
        "prompt": [_readable(x.content) for x in chosen],
        "answers": [list(x.answers) for x in chosen],
        "line": [x.line for x in chosen],
        "p_star": np.exp(modes.logp_P).tolist(),
        "log_p_star": modes.logp_P.tolist(),
        "log_p_star_upper": modes.upper_P.tolist(),
        "certified": modes.certified_P.tolist(),
        "unique": modes.unique_P.tolist(),
        "margin": margin_low_P.tolist(),
        "margin_high": margin_high_P.tolist(),
        "nodes": modes.nodes_P.tolist(),
        "mode_text": mode_text_P,
        "mode_tokens": [list(tokens) for tokens in modes.tokens_P],
        "mode_finished": modes.finished_P.tolist(),
        "greedy_text": list(greedy.text_R),
        "greedy_is_mode": _nullable(is_greedy_P, bool),
        "mode_is_base_mode": _nullable(kept_P, bool),
        "mode_correct": _nullable(mode_right_P, bool),
        "greedy_correct": _nullable(greedy_right_P, bool),
        "sampling_accuracy": _nullable(sampling_P, float),
        "truncated": by_prompt(
            1.0 - samples.finished_R.astype(np.float64), samples.weight_R, samples.prompt_R, P
        ).tolist(),
    }
    return Measurement(out, chosen, samples, modes, greedy, condition.spread(modes.logp_P), table)


def _outcomes(
    policy: Policy,
    prompts: Sequence[Prompt],
    settings: MeasureSettings,
    max_tokens: int,
    seed: int,
    executor: Executor,
    draw: Draw | None,
    advance: Advance,
) -> tuple[Samples, Samples]:
    """Greedy responses and samples."""

    def joined(found: Iterator[tuple[Any, Samples]]) -> Samples:
        return Samples.joined([replace(x, prompt_R=x.prompt_R + p.first) for p, x in found])

    greedy = joined(
        executor.each("greedy", policy, greedily, partial(_decoded, policy, prompts, max_tokens))
    )
    asked = SampleSettings(per_prompt=settings.samples, max_tokens=max_tokens)
    if draw is not None:
        return greedy, draw(policy, prompts, asked, seed, advance)
    shards = partial(cut, policy, prompts, asked, seed)
    return greedy, joined(executor.each("held_out", policy, sampled, shards, advance))


def _decoded(policy: Policy, prompts: Sequence[Prompt], max_tokens: int) -> Iterator[Piece]:
    """Pieces of greedy decoding."""
    step = prompts_per_shard(policy, max_tokens, 1)
    for number, first in enumerate(range(0, len(prompts), step)):
        some = tuple(prompts[first : first + step])
        yield Piece(number, first, some, max_tokens, f"greedy {max_tokens}")


def _of_base(P: int, answers: bool) -> dict[str, Estimate]:
    """What compares a policy with the base, for the base itself."""

    def known(value: float) -> Estimate:
        return Estimate(value, value, value, P, "by definition", "exact", "this is the base")

    out = {"fidelity": known(1.0), "kl_to_base": known(0.0)}
    out |= {"exponent": known(1.0), "exponent_r2": known(1.0)}
    headroom = known(0.0) if answers else undefined("by definition", "no answers")
    return out | {"headroom_captured": headroom}


def _against(
    policy: Policy,
    base: BaseReference,
    prompts: tuple[Prompt, ...],
    samples: Samples,
    method: str,
    exact: bool,
    seed: int,
) -> dict[str, Estimate]:
    """KL to the base and the pace along its path; one pass each over the distinct samples that the
    other policy did not sample too (the log-probabilities of sampling are those of scoring)."""
    P = len(prompts)
    then = base.samples
    now_R = log_probs(policy.log_prob, prompts, then.prompt_R, then.tokens_R, samples)
    exponent, r2 = quantities.pace(now_R, then, P, seed)
    kl = undefined(method, "the base policy cannot be asked")
    if base.log_prob is not None:
        base_logp_R = log_probs(base.log_prob, prompts, samples.prompt_R, samples.tokens_R, then)
        kl = quantities.kl(samples, base_logp_R, P, method, exact, seed)
    return {"kl_to_base": kl, "exponent": exponent, "exponent_r2": r2}


def log_probs(
    log_prob: LogProb,
    prompts: tuple[Prompt, ...],
    prompt_R: Ints,
    tokens_R: Sequence[Tokens],
    drawn: Samples,
) -> Floats:
    """``log_prob`` of responses, [R], nats: equal ones are scored once, and those that are among
    the policy's own samples, ``drawn``, not again."""
    known = dict(zip(_rows(drawn.prompt_R, drawn.tokens_R), drawn.logp_R.tolist(), strict=True))
    rows = _rows(prompt_R, tokens_R)
    new = [row for row in dict.fromkeys(rows) if row not in known]
    if new:
        prompt_D = np.array([p for p, _ in new], dtype=np.int64)
        logp_D = log_prob(prompts, prompt_D, [tokens for _, tokens in new])
        known |= zip(new, logp_D.tolist(), strict=True)
    return np.array([known[row] for row in rows])


def _rows(prompt_R: Ints, tokens_R: Sequence[Tokens]) -> list[tuple[int, Tokens]]:
    return list(zip(prompt_R.tolist(), tokens_R, strict=True))


def _readable(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _nullable(value_P: Floats, kind: type) -> list[Any]:
    return [None if np.isnan(v) else kind(v) for v in value_P]


def _column(values: list[Any]) -> Floats:
    return np.array([np.nan if v is None else float(v) for v in values])
