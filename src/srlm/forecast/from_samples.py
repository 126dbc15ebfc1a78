"""The forecast of a file of samples: no model, no training.

Votes depend on a response through its answer only, so the answers of a prompt are a closed system
(``srlm.forecast.dynamics``) and their counts are enough: ``tallies`` keeps no text. The shares
behind the counts get a posterior (``srlm.forecast.answers``), and everything is computed on its
draws, so that every number has an interval. Likelihood rewards need the file's log-probabilities
and are followed on the samples themselves, as far as their effective number carries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from srlm.engines.files import Sampled, SamplesFile
from srlm.errors import UserError
from srlm.forecast import answers as posteriors
from srlm.forecast import dynamics
from srlm.forecast.answers import Counts, Shares
from srlm.forecast.verdict import WORTH
from srlm.grading import Grader
from srlm.measure.answer_level import vote_curve
from srlm.measure.intervals import clopper_pearson
from srlm.types import Bools, Estimate, Floats, Ints, Prompt, Samples, undefined

LONG = 200
"""Characters of an answer that is kept as it is; longer ones are kept as a hash."""
PATHS = 100
"""Draws of the posterior that are followed round by round."""
LEAST = 8.0
"""Effective samples under which a prompt does not carry a likelihood forecast."""
CARRIED = 0.8
"""Share of prompts that must be carried."""
SURE = 0.95
"""Posterior probability from which on an answer counts as the mode."""
NEAR = 0.02
"""Accuracy within which the vote is preferred to another reward: it needs no log-probabilities."""
FEW = 30
"""Prompts under which a forecast is flagged."""
LOOKED_AT = 10_000
"""Responses among whose right answers ``--answer auto`` looks."""
KS = (1, 4, 8, 16, 32, 64)


# ---- from responses to counts


@dataclass(slots=True)
class Tally:
    """The samples of one prompt, without their texts."""

    key: str
    prompt: str | None
    reference: str | None
    names: dict[str, int] = field(default_factory=dict)
    """Number of each distinct answer."""
    right: set[int] = field(default_factory=set)
    answer_K: list[int] = field(default_factory=list)
    """Answer of each sample, in the file's order; -1 where none can be read."""
    logp_K: list[float | None] = field(default_factory=list)
    tokens_K: list[int | None] = field(default_factory=list)
    cut: int = 0
    unsaid: int = 0
    """Samples of which the file does not say whether they were cut off."""
    text: int = 0
    """Hash of the first text."""
    varied: bool = False
    """Whether two texts differ."""

    def counts(self) -> Counts:
        """How often each answer was given; spellings that are all right count as one."""
        count_A = np.bincount([a for a in self.answer_K if a >= 0], minlength=len(self.names))
        silent = self.answer_K.count(-1)
        if self.reference is None:
            return Counts(count_A.astype(np.int64), None, silent, self.cut)
        wrong = [int(n) for a, n in enumerate(count_A) if a not in self.right]
        hits = int(sum(count_A[a] for a in self.right))
        if not hits:
            return Counts(np.array(wrong, dtype=np.int64), -1, silent, self.cut)
        return Counts(np.array([hits, *wrong], dtype=np.int64), 0, silent, self.cut)


def tallies(
    rows: Iterable[Sampled], grader: Grader, known: Mapping[str, str] | None = None
) -> list[Tally]:
    """Count the answers of each prompt. One response is in memory at a time.

    Args:
        rows: responses in any order.
        grader: reads answers and compares them; a response that was cut off has none.
        known: right answers by a prompt's text or key, where the file has none.
    """
    found: dict[str, Tally] = {}
    for row in rows:
        tally = found.get(row.key)
        if tally is None:
            reference = row.answer
            if reference is None and known:
                reference = known.get(row.prompt or "", known.get(row.key))
            tally = found[row.key] = Tally(row.key, row.prompt, reference, text=hash(row.text))
        answer = grader.read(row.text, row.finished is not False)
        number = -1
        if answer is not None:
            name = grader.normal(answer)
            name = name if len(name) <= LONG else hashlib.sha256(name.encode()).hexdigest()
            new = name not in tally.names
            number = tally.names.setdefault(name, len(tally.names))
            if new and tally.reference is not None and grader.right(answer, (tally.reference,)):
                tally.right.add(number)
        tally.answer_K.append(number)
        tally.logp_K.append(row.logp)
        tally.tokens_K.append(row.tokens)
        tally.cut += row.finished is False
        tally.unsaid += row.finished is None
        tally.varied |= hash(row.text) != tally.text
    return [found[key] for key in sorted(found)]


def references(file: SamplesFile, known: Mapping[str, str] | None = None) -> list[Prompt]:
    """Right answers that tell how to read them: ``known``, or those of a file's first prompts."""
    if known:
        return [Prompt(key, key, (answer,)) for key, answer in known.items()]
    rows = islice(file, LOOKED_AT)
    return [Prompt(row.key, row.prompt, (row.answer,)) for row in rows if row.answer is not None]


# ---- the forecast


@dataclass(frozen=True, slots=True)
class RewardPath:
    """What a reward does, round by round; round 0 is the base."""

    reward: str
    """``vote share`` is ``--reward consistency``, ``hard vote`` is TTRL's."""
    accuracy: tuple[Estimate, ...]
    """Sampling accuracy; undefined without right answers."""
    kappa: tuple[Estimate, ...]
    """kappa_answer."""
    length: tuple[float, ...] = ()
    """Mean tokens of a response, for rewards of likelihood."""


@dataclass(frozen=True, slots=True)
class SamplesForecast:
    """What self-rewarding would do, told from a file of samples. Intervals are at ``level``."""

    file: str
    format: str
    grader: str
    """How answers were read."""
    prompts: int
    samples: int
    """Per prompt; the median."""
    answered: int
    """Prompts whose right answer is known."""
    beta: float
    level: float
    verdict: str
    """``go``, ``no-go`` or ``unclear``."""
    reason: str
    advice: str
    base: dict[str, Estimate]
    """The samples as they are."""
    terms: dict[str, Estimate]
    """What training would add to accuracy, by cause."""
    destination: dict[str, Estimate]
    """Where votes lead: accuracy of the mode; and how well these samples tell the mode."""
    paths: tuple[RewardPath, ...]
    vote: dict[int, Estimate]
    """Accuracy of a majority vote over k samples: no training, k responses a query."""
    best: str
    """Which reward to use."""
    why: str
    risk: str
    doubts: tuple[str, ...]
    """Numbers that cannot be trusted, and why."""

    def to_json(self) -> dict[str, Any]:
        """All of it; estimates as objects."""
        named = {
            "base": self.base,
            "terms": self.terms,
            "destination": self.destination,
            "vote": {str(k): e for k, e in self.vote.items()},
        }
        plain = ("file", "format", "grader", "prompts", "samples", "answered", "beta", "level",
                 "verdict", "reason", "advice", "best", "why", "risk")  # fmt: skip
        return (
            {name: getattr(self, name) for name in plain}
            | {name: {k: e.to_json() for k, e in part.items()} for name, part in named.items()}
            | {"doubts": list(self.doubts)}
            | {
                "paths": [
                    {
                        "reward": p.reward,
                        "accuracy": [e.to_json() for e in p.accuracy],
                        "kappa_answer": [e.to_json() for e in p.kappa],
                        "length": list(p.length),
                    }
                    for p in self.paths
                ]
            }
        )


VOTES: dict[str, dynamics.Votes] = {
    "vote share": dynamics.by_share,
    "log-vote": dynamics.by_log,
    "hard vote": dynamics.by_mode,
}


def forecast_file(
    file: SamplesFile,
    grader: Grader,
    *,
    known: Mapping[str, str] | None = None,
    beta: float = 1.0,
    rounds: int = 5,
    seed: int = 0,
    level: float = posteriors.LEVEL,
) -> SamplesForecast:
    """Forecast every reward that a file of samples can tell about.

    Args:
        file: of ``srlm.engines.files.open_samples``.
        grader: how answers are read and compared.
        known: right answers by a prompt's text or key, where the file has none.
        beta: of the rounds; rounds are exact, gradient training goes part of the way.
        rounds: T.
        seed: of the posterior's draws.
        level: of the intervals.

    Raises:
        UserError: no prompt has two samples.

    Cost: seconds for 200 prompts x 64 samples; memory O(samples), without their texts.
    """
    every = tallies(file, grader, known)
    used = [t for t in every if len(t.answer_K) >= 2]
    if not used:
        have = f"{len(every)} prompts with one sample each" if every else "no samples"
        raise UserError(
            f"{file.path} ({file.format}): {have}; {file.problems.sentence()}".rstrip("; "),
            "a forecast needs at least two samples per prompt, better 16; where requests have "
            "ids of their own, give samples of a prompt one id",
        )
    counts = [t.counts() for t in used]
    post = posteriors.posterior(counts, seed=seed)
    drawn = [post.shares(p) for p in range(len(counts))]
    labelled = [p for p, c in enumerate(counts) if c.right is not None]

    about = _About(seed, level)
    base = _base(used, counts, drawn, about)
    terms, destination = _terms(counts, drawn, labelled, about)
    paths = [
        _vote_path(name, votes, drawn, labelled, beta, rounds, about)
        for name, votes in VOTES.items()
    ]
    paths += _likelihood_paths(used, labelled, beta, rounds, about)
    vote = _votes(used, labelled, seed)
    verdict, reason, advice = _verdict(base, terms, destination, vote, len(counts), len(labelled))
    best, why, risk = _choose(paths, destination, base)
    return SamplesForecast(
        file=str(file.path),
        format=file.format,
        grader=grader.name,
        prompts=len(counts),
        samples=int(np.median([c.samples for c in counts])),
        answered=len(labelled),
        beta=beta,
        level=level,
        verdict=verdict,
        reason=reason,
        advice=advice,
        base=base,
        terms=terms,
        destination=destination,
        paths=tuple(paths),
        vote=vote,
        best=best,
        why=why,
        risk=risk,
        doubts=tuple(_doubts(file, every, used, counts, base)),
    )


@dataclass(frozen=True, slots=True)
class _About:
    """Means over prompts with intervals, all of one seed and level."""

    seed: int
    level: float

    def __call__(self, value_BP: Floats, method: str, these: bool = False) -> Estimate:
        return posteriors.estimate(value_BP, method, seed=self.seed, level=self.level, these=these)

    def share(self, hit_P: Sequence[bool] | Bools, method: str) -> Estimate:
        """The share of prompts that are hits, with its Clopper-Pearson interval."""
        hits, n = int(np.sum(hit_P)), len(hit_P)
        low, high = clopper_pearson(hits, n, self.level)
        return Estimate(hits / n, low, high, n, f"{method}; {self.level:.0%} (Clopper-Pearson)")


def _columns(parts: Sequence[Floats]) -> Floats:
    return np.column_stack(parts)


def _base(
    used: Sequence[Tally], counts: Sequence[Counts], drawn: Sequence[Shares], about: _About
) -> dict[str, Estimate]:
    """The answer level as it is."""
    top_BP = _columns([s.top_B() for s in drawn])
    kind_BP = _columns([(s.share_BA.sum(1) ** 2) / (s.share_BA**2).sum(1) for s in drawn])
    out = {
        "kappa_answer": about(1 / top_BP, "mean of 1 / max share"),
        "kappa_answer_bound": _split(used),
        "effective_answers": about(kind_BP, "1 / sum of squared shares among the readable"),
        "vote_share": about(top_BP, "share of the commonest answer"),
        "readable": about(1 - _columns([s.silent_B for s in drawn]), "share with an answer"),
    }
    if any(t.unsaid < len(t.answer_K) for t in used):
        cut_P = np.array([c.cut / c.samples for c in counts])
        method = "share cut off by the length limit"
        whole = cut_P.max() == 0 or cut_P.min() == 1
        out["truncated"] = (
            about.share(cut_P == 1, method) if whole else about(_still(cut_P), method)
        )
    else:
        out["truncated"] = undefined("share cut off", "the file does not say which were")
    some = [s.accuracy_B() for s in drawn if s.right is not None]
    if some:
        out["accuracy"] = about(_columns(some), "share of right responses")
    return out


def _still(value_P: Floats) -> Floats:
    """Values that do not vary over the posterior's draws, [B, P]."""
    return np.broadcast_to(value_P, (posteriors.DRAWS, len(value_P)))


def _split(used: Sequence[Tally]) -> Estimate:
    """kappa_answer at most this: each prompt's answer chosen on one half, tested on the other."""
    low = []
    for t in used:
        chosen = [a for a in t.answer_K[0::2] if a >= 0]
        test = t.answer_K[1::2]
        best = max(set(chosen), key=chosen.count, default=None)
        hits = 0 if best is None else test.count(best)
        low.append(clopper_pearson(hits, len(test), 0.9)[0])
    with np.errstate(divide="ignore"):
        bound = float((1 / np.array(low)).mean())
    method = "split sample, each prompt's share at its 90% Clopper-Pearson lower end"
    if not np.isfinite(bound):
        return undefined(method, "some prompt's share has no lower end above 0", len(low))
    return Estimate(bound, None, bound, len(low), method, "upper bound")


def _terms(
    counts: Sequence[Counts], drawn: Sequence[Shares], labelled: Sequence[int], about: _About
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Accuracy = P(readable) P(right | readable): what a vote's training changes, by cause."""
    sure_P = np.array([_mode_probability(s) for s in drawn])
    where = {
        "mode_known": about.share(sure_P >= SURE, f"prompts with P(mode) >= {SURE}"),
        "mode_posterior": about(_still(sure_P), "probability that the likeliest mode is it"),
        "tied": about.share([_tied(c) for c in counts], "prompts with two most voted answers"),
        "majority_misses": about(
            _columns(
                [
                    _misses(s, c.samples, p)
                    for p, (s, c) in enumerate(zip(drawn, counts, strict=True))
                ]
            ),
            "P(majority of as many samples is not the mode)",
        ),
    }
    if not labelled:
        return {}, where
    mine = [drawn[p] for p in labelled]
    now_BP = _columns([s.accuracy_B() for s in mine])
    given_BP = _columns([s.accuracy_B() / s.share_BA.sum(1) for s in mine])
    end_BP = _columns([s.mode_right_B() for s in mine])
    terms = {
        "amplification": about(end_BP - given_BP, "accuracy of the mode - accuracy if readable"),
        "format repair": about(given_BP - now_BP, "accuracy if readable - accuracy"),
        "gain": about(end_BP - now_BP, "accuracy of the mode - accuracy"),
        "transfer": undefined("between prompts", "not known before a pilot"),
    }
    where = {
        "accuracy": about(end_BP, "accuracy of the mode"),
        "accuracy_these": about(end_BP, "accuracy of the mode", True),
    } | where
    return terms, where


def _mode_probability(shares: Shares) -> float:
    """Posterior probability of the answer that is most probably the mode."""
    top_B = shares.share_BA.argmax(1)
    return float(np.bincount(top_B).max() / len(top_B))


def _tied(counts: Counts) -> bool:
    count_A = np.sort(counts.count_A)
    return len(count_A) > 1 and bool(count_A[-1] == count_A[-2])


def _misses(shares: Shares, k: int, p: int) -> Floats:
    """1 where a vote of k samples, one for each draw, misses the mode; ties by lot, [B]."""
    rng = np.random.default_rng([k, p])
    cell_BA = np.column_stack([shares.share_BA, shares.silent_B])
    count_BA = rng.multinomial(k, cell_BA / cell_BA.sum(1, keepdims=True))[:, :-1]
    top_BA = (count_BA == count_BA.max(1, keepdims=True)) & (count_BA > 0)
    won_B = top_BA[np.arange(len(top_BA)), shares.share_BA.argmax(1)]
    return np.asarray(1 - won_B / np.maximum(top_BA.sum(1), 1))


def _vote_path(
    name: str,
    votes: dynamics.Votes,
    drawn: Sequence[Shares],
    labelled: Sequence[int],
    beta: float,
    rounds: int,
    about: _About,
) -> RewardPath:
    right: list[list[Floats]] = [[] for _ in range(rounds + 1)]
    kappa: list[list[Floats]] = [[] for _ in range(rounds + 1)]
    for s in drawn:
        share_BA = s.share_BA  # round 0 from all draws, as in the base's numbers
        for t in range(rounds + 1):
            if t:
                share_BA = dynamics.vote_round(share_BA[:PATHS], votes, beta)
            kappa[t].append(1 / share_BA.max(1))
            if s.right is not None:
                right[t].append(share_BA[:, s.right])
    none = undefined(name, "no right answers")
    return RewardPath(
        name,
        tuple(about(_columns(r), f"{name}, exact rounds") if labelled else none for r in right),
        tuple(about(_columns(k), f"{name}, exact rounds") for k in kappa),
    )


def _likelihood_paths(
    used: Sequence[Tally], labelled: Sequence[int], beta: float, rounds: int, about: _About
) -> list[RewardPath]:
    """Likelihood rewards on the samples of the prompts that have log-probabilities."""
    some = [used[p] for p in labelled if all(x is not None for x in used[p].logp_K)]
    if len(some) < CARRIED * max(len(labelled), 1) or not some:
        return []
    prompt_R = np.repeat(np.arange(len(some)), [len(t.answer_K) for t in some])
    logp_R = np.array([x for t in some for x in t.logp_K], dtype=np.float64)
    right_R = np.array([a in t.right for t in some for a in t.answer_K], dtype=np.float64)
    weight_R = 1 / np.bincount(prompt_R)[prompt_R]
    start = dynamics.Mass(prompt_R, np.log(weight_R), logp_R)
    scores: dict[str, dynamics.Score] = {"likelihood": dynamics.likelihood}
    lengths = [x for t in some for x in t.tokens_K]
    length_R = np.array([np.nan if x is None else x for x in lengths])
    if np.isfinite(length_R).all():
        scores["likelihood per token"] = dynamics.likelihood_per_token(length_R.astype(np.int64))
    out = []
    for name, score in scores.items():
        path = dynamics.trajectory(start, dynamics.exact(score, beta), rounds)
        accuracy = []
        for mass in path:
            method = f"{name}, self-normalised weights on the samples"
            e = about(_still(mass.expect(right_R)), method)
            carried = float((mass.effective_samples() >= LEAST).mean())
            if carried < CARRIED:
                note = f"only {carried:.0%} of prompts have {LEAST:g} effective samples"
                e = Estimate(e.value, e.low, e.high, e.n, method, "extrapolation", note)
            accuracy.append(e)
        length = tuple(float(m.expect(length_R).mean()) for m in path)
        none = undefined(name, "votes are not its measure")
        out.append(RewardPath(name, tuple(accuracy), (none,) * len(path), length))
    return out


def _votes(used: Sequence[Tally], labelled: Sequence[int], seed: int) -> dict[int, Estimate]:
    """Majority of k, subsets of the samples without replacement; 95% over prompts."""
    if not labelled:
        return {}
    some = [used[p] for p in labelled]
    least = min(len(t.answer_K) for t in some)
    prompt_R = np.repeat(np.arange(len(some)), [len(t.answer_K) for t in some])
    answers = [None if a < 0 else str(a) for t in some for a in t.answer_K]
    right_R = np.array([a in t.right for t in some for a in t.answer_K])
    ks = [k for k in KS if k <= least]
    if least not in ks:
        ks.append(least)
    return vote_curve(_rows(prompt_R), answers, right_R, len(some), ks, seed=seed)


def _rows(prompt_R: Ints) -> Samples:
    """Samples of which only the prompt is known."""
    R = len(prompt_R)
    return Samples(prompt_R, ((),) * R, np.zeros(R), np.ones(R), np.ones(R, dtype=bool), ("",) * R)


# ---- what it means


def _verdict(
    base: Mapping[str, Estimate],
    terms: Mapping[str, Estimate],
    destination: Mapping[str, Estimate],
    vote: Mapping[int, Estimate],
    prompts: int,
    answered: int,
) -> tuple[str, str, str]:
    readable, share = base["readable"], base["vote_share"]
    assert readable.high is not None and share.low is not None
    if readable.high < 0.05:
        return (
            "unclear",
            f"only {_pct(readable.value)} of the responses have an answer that can be read",
            "Check --answer, the prompt's format and the length limit.",
        )
    if not answered:
        if share.low > 0.98:
            return (
                "no-go",
                f"the commonest answer already has {_n(share)} of the samples: nothing to sharpen",
                "Use harder prompts or a reward that is not a vote.",
            )
        return (
            "unclear",
            f"votes would take the commonest answer from {_n(share)} of the samples to all; "
            "without right answers nothing says whether that is good",
            "Give a file with answers, or --prompts with them.",
        )
    gain, end = terms["gain"], destination["accuracy"]
    assert gain.low is not None and gain.high is not None
    text = f"accuracy {_n(base['accuracy'])}, limit of voting {_n(end)}: gain {_signed(gain)}"
    k = max(vote)
    if gain.low >= WORTH:
        advice = "Train with a vote."
        repair = terms["format repair"].value or 0.0
        if repair > (gain.value or 0.0) / 2:
            advice += (
                " Most of the gain is format: a prompt or a few examples may give it for nothing."
            )
        return "go", text, f"{advice} A vote over {k} samples gives {vote[k].value:.3f} untrained."
    if gain.high < WORTH:
        return (
            "no-go",
            text,
            "Do not train on votes. A reward that knows right from wrong may help.",
        )
    these = destination["accuracy_these"]
    assert None not in (these.low, these.high, end.low, end.high)
    own = these.high - these.low  # type: ignore[operator]
    more = "more samples per prompt" if own > 0.7 * (end.high - end.low) else "more prompts"  # type: ignore[operator]
    return "unclear", text, f"The interval holds both gain and loss: give {more}."


def _choose(
    paths: Sequence[RewardPath], destination: Mapping[str, Estimate], base: Mapping[str, Estimate]
) -> tuple[str, str, str]:
    """Which reward, why, and the risk."""
    unsure = 1 - (destination["mode_known"].value or 0.0)
    told = f"on {_pct(unsure)} of prompts these samples do not tell which answer is the mode"
    if "accuracy" not in destination:
        return (
            "consistency (vote share)",
            "it is the only reward that this file tells about without right answers",
            f"how often the mode is wrong is not known; {told}",
        )
    reached = {
        p.reward: max(
            (e.value or 0.0 for e in p.accuracy if e.guarantee != "extrapolation"), default=0.0
        )
        for p in paths
    }
    top = max(reached, key=lambda name: reached[name])
    wrong = 1 - (destination["accuracy"].value or 0.0)
    votes = max(reached[name] for name in VOTES)
    if top in VOTES or reached[top] <= votes + NEAR:
        others = [f"{n} {v:.3f}" for n, v in reached.items() if n not in VOTES]
        why = (
            f"every vote has the same limit; within these rounds vote share gives "
            f"{reached['vote share']:.3f}, hard vote {reached['hard vote']:.3f} (a smaller beta "
            f"is as fast); {', '.join(others) or 'the file has no log-probabilities'}"
        )
        risk = f"the mode is wrong on {_pct(wrong)} of prompts, and grows there; {told}"
        return "consistency (vote share)", why, risk
    path = next(p for p in paths if p.reward == top)
    why = f"{reached[top]:.3f} within these rounds, votes {reached['vote share']:.3f}"
    risk = f"length {path.length[0]:.0f} → {path.length[-1]:.0f} tokens by the last round; "
    return top, why, risk + "its limit is the likeliest response, which this file cannot tell"


def _doubts(
    file: SamplesFile,
    every: Sequence[Tally],
    used: Sequence[Tally],
    counts: Sequence[Counts],
    base: Mapping[str, Estimate],
) -> list[str]:
    out = []
    if file.problems.count:
        out.append(file.problems.sentence())
    if file.problems.misspelt:
        out.append(
            f"{file.problems.misspelt} responses have log-probabilities of other tokens than "
            "theirs: not used"
        )
    if len(every) > len(used):
        out.append(f"{len(every) - len(used)} prompts have one sample: left out")
    if len(used) < FEW:
        out.append(f"{len(used)} prompts: intervals over prompts like these are rough")
    same = sum(not t.varied and len(t.answer_K) >= 4 for t in used)
    if same > len(used) / 2:
        out.append(
            f"on {_pct(same / len(used))} of prompts all responses are the same text: made at "
            "temperature 0? A forecast needs samples at temperature 1"
        )
    if all(t.unsaid == len(t.answer_K) for t in used):
        out.append("the file does not say which responses were cut off: their answers count")
    unread = sum(c.readable == 0 for c in counts)
    if unread:
        out.append(
            f"{unread} prompts have no readable response: kappa_answer leans on the prior there"
        )
    missing = sum(t.reference is None for t in used)
    if 0 < missing < len(used):
        out.append(f"{missing} prompts have no right answer: accuracy is about the others")
    if base["kappa_answer_bound"].value is None:
        out.append("no bound on kappa_answer without the model of the shares: too few samples")
    return out


def known_answers(path: Path) -> dict[str, str]:
    """Right answers by prompt text, or by the ids of requests, from a file of prompts.

    Lines with ``id`` (or ``custom_id``) and ``answer`` but no prompt are about a batch's requests.

    Raises:
        UserError: as ``srlm.data.read_prompts``.
    """
    by_id = {}
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                break
            if not isinstance(row, dict):
                break
            key = row.get("custom_id", row.get("id"))
            if key is None or "prompt" in row or "answer" not in row:
                break
            by_id[str(key)] = str(row["answer"])
        else:
            if by_id:
                return by_id
    from srlm.data import read_prompts

    found = [x for x in read_prompts(path) if x.answers]
    return {
        x.content if isinstance(x.content, str) else json.dumps(x.content, ensure_ascii=False): (
            x.answers[0]
        )
        for x in found
    }


def _n(e: Estimate) -> str:
    return f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]"


def _signed(e: Estimate) -> str:
    return f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}]"


def _pct(x: float | None) -> str:
    return f"{x or 0.0:.0%}"
