"""The forecast of samples: no training, and of a file of samples no model.

Votes depend on a response through its answer only, so the answers of a prompt are a closed system
(``srlm.forecast.dynamics``) and their counts are enough (``srlm.forecast.tally``). The shares
behind the counts get a posterior (``srlm.forecast.answers``), and everything is computed on its
draws, so that every number has an interval. Other rewards are followed on the samples themselves,
as far as their effective number carries (``srlm.forecast.reward_paths``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from srlm.config import ALL
from srlm.engines.files import SamplesFile
from srlm.errors import UserError, quoted
from srlm.forecast import answers as posteriors
from srlm.forecast.answers import Counts, Shares
from srlm.forecast.recommend import NONE, UNREAD, choose, of_path, of_votes, pct
from srlm.forecast.reward_paths import (
    FROM_FILE,
    VOTES,
    About,
    Parts,
    RewardPath,
    sample_paths,
    vote_path,
)
from srlm.forecast.tally import Known, Tally, tallies
from srlm.grading import Grader
from srlm.measure.answer_level import vote_curve
from srlm.measure.intervals import clopper_pearson
from srlm.run_folder import LARGE
from srlm.types import Estimate, Floats, Ints, Samples, undefined

SURE = 0.95
"""Posterior probability from which on an answer counts as the mode."""
MANY, DISTINCT = 8, 0.9
"""Answers of a prompt, and distinct ones among them, from which they are scattered."""
VOTED = 0.1
"""Share of prompts that the curve of votes may leave out."""
FEW = 30
"""Prompts under which a forecast is flagged."""
ONE_VOTE = 0.5
"""Share of the prompts with one and the same majority answer from which on it is named."""
LEAST_SHARED = 5
"""Prompts with it, at least."""
MISSING = 0.1
"""Share of responses without a score from which on it is said."""
KS = (1, 4, 8, 16, 32, 64)
OTHERS: dict[str, Parts] = {name: {name: 1.0} for name in FROM_FILE}


@dataclass(frozen=True, slots=True)
class Source:
    """Where samples came from, and how they are read."""

    name: str
    """A file, a model or a server."""
    format: str
    grader: str
    """How answers were read."""
    doubts: tuple[str, ...] = ()
    """What is known to be wrong with them."""
    looks: int = 1
    """How often it was decided from the answers whether to sample on."""


@dataclass(frozen=True, slots=True)
class SamplesForecast:
    """What self-rewarding would do, told from samples. Intervals are at ``level``."""

    file: str
    """The file, the model or the server that the samples are of."""
    format: str
    grader: str
    """How answers were read."""
    prompts: int
    samples: int
    """Per prompt; the median."""
    total: int
    """Of all prompts."""
    answered: int
    """Prompts whose right answer is known."""
    reward: str
    """The reward asked about; ``all``: every one that the samples tell about."""
    beta: float | None
    """Of all rewards; None: of each its default, as its path says."""
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
        plain = ("file", "format", "grader", "prompts", "samples", "total", "answered", "reward",
                 "beta", "level", "verdict", "reason", "advice", "best", "why", "risk")  # fmt: skip
        return (
            {name: getattr(self, name) for name in plain}
            | {name: {k: e.to_json() for k, e in part.items()} for name, part in named.items()}
            | {"doubts": list(self.doubts)}
            | {
                "paths": [
                    {
                        "reward": p.reward,
                        "beta": p.beta,
                        "accuracy": [e.to_json() for e in p.accuracy],
                        "kappa_answer": [e.to_json() for e in p.kappa],
                        "length": list(p.length),
                        "gain": p.gain.to_json() if p.gain else None,
                        "note": p.note,
                    }
                    for p in self.paths
                ]
            }
        )


def forecast_file(
    file: SamplesFile,
    grader: Grader,
    *,
    known: Known | None = None,
    beta: float | None = None,
    rounds: int = 5,
    seed: int = 0,
    level: float = posteriors.LEVEL,
) -> SamplesForecast:
    """Forecast every reward that a file of samples can tell about.

    Args:
        file: of ``srlm.engines.files.open_samples``.
        grader: how answers are read and compared.
        known: right answers by a prompt's text or key, where the file has none.
        beta: of the rounds; None: of each reward its default. Rounds are exact, gradient training
            goes part of the way.
        rounds: T.
        seed: of the posterior's draws.
        level: of the intervals.

    Raises:
        UserError: no prompt has two samples.

    Cost: seconds for 200 prompts x 64 samples; memory O(samples), without their texts.
    """
    every = tallies(file, grader, known)
    doubts = []
    if file.problems.count:
        doubts.append(file.problems.sentence())
    if known and not any(t.references for t in every):
        doubts.append("no prompt of --prompts is in the file: compare their texts or ids")
    if file.problems.misspelt:
        doubts.append(
            f"{file.problems.misspelt} responses have log-probabilities of other tokens than "
            "theirs: not used"
        )
    source = Source(str(file.path), file.format, grader.name, tuple(doubts))
    return forecast_tallies(every, source, beta=beta, rounds=rounds, seed=seed, level=level)


def forecast_tallies(
    every: Sequence[Tally],
    source: Source,
    *,
    reward: str = ALL,
    others: Mapping[str, Parts] = OTHERS,
    beta: float | None = None,
    rounds: int = 5,
    seed: int = 0,
    level: float = posteriors.LEVEL,
) -> SamplesForecast:
    """``forecast_file`` of samples that are counted already.

    Args:
        every: the prompts.
        source: where they came from.
        reward: the one that the verdict is about; ``all``: the one recommended.
        others: rewards beside votes, by name, with their parts; those that too many prompts lack
            something for are left out.
    """
    used = [t for t in every if len(t.answer_K) >= 2]
    if not used:
        have = f"{len(every)} prompts with one sample each" if every else "no samples"
        raise UserError(
            f"{source.name} ({source.format}): {'; '.join((have, *source.doubts))}",
            "a forecast needs at least two samples per prompt, better 16; where requests have "
            "ids of their own, give samples of a prompt one id",
        )
    counts = [t.counts() for t in used]
    post = posteriors.posterior(counts, seed=seed)
    drawn = [post.shares(p) for p in range(len(counts))]
    labelled = [p for p, c in enumerate(counts) if c.right is not None]

    about = About(seed, level)
    base = _base(used, counts, drawn, source.looks, about)
    terms, destination = _terms(counts, drawn, labelled, about)
    paths = [vote_path(name, drawn, labelled, beta, rounds, about) for name in VOTES]
    paths += sample_paths(used, others, beta, rounds, about)
    if source.looks > 1:
        vote = _votes_of_shares(counts, drawn, labelled, about)
    else:
        vote = _votes(used, labelled, seed)
    best, why, risk = choose(paths, destination, base)
    if best == NONE:
        terms, destination, paths = (
            _untold(terms),
            _untold(destination),
            [_left_out(p) for p in paths],
        )
        base |= _untold({"effective_answers": base["effective_answers"]})
    named = {p.reward: p for p in paths if p.reward not in VOTES}
    subject = named.get(best if reward == ALL else reward)
    if subject is None:
        verdict, reason, advice = of_votes(base, terms, destination, vote, len(labelled))
        if verdict == "no-go":
            best, why = NONE, "votes do not help here, and no other reward is told to do better"
    else:
        verdict, reason, advice = of_path(subject)
    return SamplesForecast(
        file=source.name,
        format=source.format,
        grader=source.grader,
        prompts=len(counts),
        samples=int(np.median([c.samples for c in counts])),
        total=sum(c.samples for c in counts),
        answered=len(labelled),
        reward=reward,
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
        doubts=(*source.doubts, *_doubts(every, used, counts, base)),
    )


def _base(
    used: Sequence[Tally],
    counts: Sequence[Counts],
    drawn: Sequence[Shares],
    looks: int,
    about: About,
) -> dict[str, Estimate]:
    """The answer level as it is."""
    top_BP = np.column_stack([s.top_B() for s in drawn])
    kind_BP = np.column_stack([(s.share_BA.sum(1) ** 2) / (s.share_BA**2).sum(1) for s in drawn])
    kappa = about(1 / top_BP, "mean of 1 / max share", inverse=True)
    large = kappa.value is not None and kappa.value > LARGE
    out = {
        "kappa_answer": kappa,
        **({"log10_kappa_answer": log10_of(kappa)} if large else {}),
        "kappa_answer_bound": split(used, looks),
        "effective_answers": about(
            kind_BP, "1 / sum of squared shares among the readable", inverse=True
        ),
        "vote_share": about(
            np.column_stack([s.share_BA.max(1) for s in drawn]), "share of the commonest answer"
        ),
        "readable": about(1 - np.column_stack([s.silent_B for s in drawn]), "share with an answer"),
    }
    if any(t.unsaid < len(t.answer_K) for t in used):
        cut_P = np.array([c.cut / c.samples for c in counts])
        method = "share cut off by the length limit"
        whole = cut_P.max() == 0 or cut_P.min() == 1
        out["truncated"] = about.share(cut_P == 1, method) if whole else about.still(cut_P, method)
    else:
        out["truncated"] = undefined("share cut off", "the file does not say which were")
    some = [s.accuracy_B() for s in drawn if s.right is not None]
    if some:
        out["accuracy"] = about(np.column_stack(some), "share of right responses")
    return out


def log10_of(e: Estimate) -> Estimate:
    """The logarithm of an estimate and of its ends.

    >>> log10_of(Estimate(1e5, 1e4, 1e6, 9, "")).value
    5.0
    """
    value, low, high = (None if x is None else float(np.log10(x)) for x in (e.value, e.low, e.high))
    return replace(e, value=value, low=low, high=high, method=f"log10 of: {e.method}")


def split(used: Sequence[Tally], looks: int = 1) -> Estimate:
    """kappa_answer at most this: each prompt's answer chosen on one half, tested on the other.

    Where the answers decided whether to sample on, the looks share the level (Bonferroni), so that
    a prompt's bound holds at whichever it was stopped.
    """
    low = []
    level = 1 - 0.1 / looks
    for t in used:
        chosen, test = t.answer_K[0::2], t.answer_K[1::2]
        best = max(set(chosen), key=chosen.count)
        low.append(clopper_pearson(test.count(best), len(test), level)[0])
    with np.errstate(divide="ignore"):
        bound = float((1 / np.array(low)).mean())
    method = f"split sample, each prompt's share at its {level:.1%} Clopper-Pearson lower end"
    if not np.isfinite(bound):
        return undefined(method, "some prompt's share has no lower end above 0", len(low))
    return Estimate(bound, None, bound, len(low), method, "upper bound")


def _untold(some: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Without their values, which the prior of the shares alone would give."""
    return {name: undefined(e.method, UNREAD, e.n) for name, e in some.items()}


def _left_out(path: RewardPath) -> RewardPath:
    """A vote's rounds without their values; rewards followed on the samples stay."""
    if path.reward not in VOTES:
        return path
    accuracy, kappa = (
        (e_T[0], *(undefined(e.method, UNREAD, e.n) for e in e_T[1:]))
        for e_T in (path.accuracy, path.kappa)
    )
    return replace(path, accuracy=accuracy, kappa=kappa)


def _terms(
    counts: Sequence[Counts], drawn: Sequence[Shares], labelled: Sequence[int], about: About
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Accuracy = P(readable) P(right | readable): what a vote's training changes, by cause."""
    sure_P = np.array([mode_probability(s) for s in drawn])
    where = {
        "mode_known": about.share(sure_P >= SURE, f"prompts with P(mode) >= {SURE}"),
        "mode_posterior": about.still(sure_P, "probability that the likeliest mode is it"),
        "tied": about.share([_tied(c) for c in counts], "prompts with two most voted answers"),
        "majority_misses": about(
            np.column_stack(
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
    now_BP = np.column_stack([s.accuracy_B() for s in mine])
    given_BP = np.column_stack([s.accuracy_B() / s.share_BA.sum(1) for s in mine])
    end_BP = np.column_stack([s.mode_right_B() for s in mine])
    terms = {
        "amplification": about(end_BP - given_BP, "accuracy of the mode - accuracy if readable"),
        "format repair": about(given_BP - now_BP, "accuracy if readable - accuracy"),
        "gain": about(end_BP - now_BP, "accuracy of the mode - accuracy"),
        "transfer": undefined("between prompts", "not known before a pilot"),
    }
    where = {
        "accuracy": about(end_BP, "accuracy of the mode"),
        "accuracy_these": about(end_BP, "accuracy of the mode", these=True),
    } | where
    return terms, where


def mode_probability(shares: Shares) -> float:
    """Posterior probability of the answer that is most probably the mode."""
    top_B = shares.share_BA.argmax(1)
    return float(np.bincount(top_B).max() / len(top_B))


def _tied(counts: Counts) -> bool:
    count_A = np.sort(counts.count_A)
    return len(count_A) > 1 and bool(count_A[-1] == count_A[-2])


def _misses(shares: Shares, k: int, p: int) -> Floats:
    """1 where a vote of k samples, one for each draw, misses the mode; ties by lot, [B]."""
    return 1 - _wins(shares, shares.share_BA.argmax(1), k, p)


def _votes_of_shares(
    counts: Sequence[Counts], drawn: Sequence[Shares], labelled: Sequence[int], about: About
) -> dict[int, Estimate]:
    """Majority of k fresh samples under the posterior, where votes decided how many there are."""
    most = max(c.samples for c in counts)
    return {
        k: about(
            np.column_stack([_right_wins(drawn[p], k, p) for p in labelled]),
            f"majority of {k}, one vote for each draw of the shares",
        )
        for k in sorted({k for k in KS if k < most} | {most})
        if labelled
    }


def _right_wins(shares: Shares, k: int, p: int) -> Floats:
    """1 where a vote of k samples, one for each draw, finds the right answer; ties by lot, [B]."""
    assert shares.right is not None
    return _wins(shares, np.full(len(shares.share_BA), shares.right), k, p)


def _wins(shares: Shares, answer_B: Ints, k: int, p: int) -> Floats:
    """Share of a vote of k samples, one for each draw, that an answer wins, [B]."""
    rng = np.random.default_rng([k, p])
    cell_BA = np.column_stack([shares.share_BA, shares.silent_B])
    count_BA = rng.multinomial(k, cell_BA / cell_BA.sum(1, keepdims=True))[:, :-1]
    top_BA = (count_BA == count_BA.max(1, keepdims=True)) & (count_BA > 0)
    won_B = top_BA[np.arange(len(top_BA)), answer_B]
    return np.asarray(won_B / np.maximum(top_BA.sum(1), 1))


def _votes(used: Sequence[Tally], labelled: Sequence[int], seed: int) -> dict[int, Estimate]:
    """Majority of k, subsets of the samples without replacement; 95% over prompts. Prompts of far
    fewer samples than others are left out."""
    if not labelled:
        return {}
    sizes = [len(used[p].answer_K) for p in labelled]
    least = int(np.quantile(sizes, VOTED, method="lower"))
    some = [used[p] for p in labelled if len(used[p].answer_K) >= least]
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


def _doubts(
    every: Sequence[Tally],
    used: Sequence[Tally],
    counts: Sequence[Counts],
    base: Mapping[str, Estimate],
) -> list[str]:
    out = []
    if len(every) > len(used):
        out.append(f"{len(every) - len(used)} prompts have one sample: left out")
    asked = sum(bool(t.references) for t in used) or len(used)
    if asked < FEW:
        out.append(f"{asked} prompts: intervals over prompts like these are rough")
    same = sum(not t.varied and len(t.answer_K) >= 4 for t in used)
    if same > len(used) / 2:
        out.append(
            f"on {pct(same / len(used))} of prompts all responses are the same text: made at "
            "temperature 0? A forecast needs samples at temperature 1"
        )
    if all(t.unsaid == len(t.answer_K) for t in used):
        out.append("nothing says which responses were cut off: their answers count")
    unread = sum(c.readable == 0 for c in counts)
    if unread:
        out.append(
            f"{unread} prompts have no readable response: what is said of them (limit, gain, "
            "rounds, kappa_answer) leans on the prior"
        )
    scattered = sum(c.readable >= MANY and len(c.count_A) > DISTINCT * c.readable for c in counts)
    if scattered > len(used) / 10:
        out.append(
            f"on {pct(scattered / len(used))} of prompts nearly every response has an answer of "
            "its own: effective answers and kappa_answer are at least what is said; does --answer "
            "read what it should?"
        )
    answered = [c for c in counts if c.right is not None and c.readable]
    if len(answered) >= MANY and not any(c.hits for c in answered):
        out.append("no response is right on any prompt: does --answer read what it should?")
    twice = sum(t.others > 0 for t in used)
    if twice:
        out.append(f"{twice} prompts come with several right answers: the first is used")
    unsaid = sum(t.unsaid for t in used) / sum(len(t.answer_K) for t in used)
    if 0.1 < unsaid < 1:
        out.append(f"of {pct(unsaid)} of the responses nothing says whether they were cut off")
    missing = sum(not t.references for t in used)
    if 0 < missing < len(used):
        out.append(f"{missing} prompts have no right answer: accuracy is about the others")
    for name in sorted({name for t in used for name in t.scores_K}):
        scores = [x for t in used for x in t.scores_K.get(name, ())]
        lost = float(np.mean(np.isnan(scores)))
        if lost > MISSING:
            out.append(f"{name}: {pct(lost)} of the responses have no score")
    if (shared := _shared_vote(used)) is not None:
        out.append(shared)
    if base["kappa_answer_bound"].value is None:
        out.append("no bound on kappa_answer without the model of the shares: too few samples")
    return out


def _shared_vote(used: Sequence[Tally]) -> str | None:
    """Said where many prompts have the same majority answer: on a pretrained model training then
    made it, or another common one, the answer to nearly every prompt (docs/real-model.md)."""
    votes: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for t in used:
        names, counts = list(t.names), Counter(a for a in t.answer_K if a >= 0).most_common(2)
        if counts and (len(counts) == 1 or counts[0][1] > counts[1][1]):  # a tie is no majority
            votes[names[counts[0][0]]] += 1
        right.update(names[a] for a in t.right)
    answer, times = next(iter(votes.most_common(1)), ("", 0))
    if len(votes) <= 2 or times <= 1.2 * right[answer]:  # as it should be, or cannot but be
        return None
    if times < max(ONE_VOTE * len(used), LEAST_SHARED):
        return None
    return (
        f"{quoted(answer)} is the majority answer on {times} of {len(used)} prompts: training may "
        "make it the answer to all; a run says so (answer_spread)"
    )
