"""What a reward does to accuracy, round by round, told from samples.

Votes are followed on the draws of the answers' posterior, so that they have no horizon. Every
other reward is followed on the samples themselves: rewards of likelihood are read anew each round,
a vote within a sum too, and whatever else was scored keeps the scores of the base. That carries as
far as the samples' effective number; where the model scores itself (a judge, self-certainty), whose
scores move with it, for one round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from srlm.config import BETA, BETAS, beta_of_parts
from srlm.forecast import answers as posteriors
from srlm.forecast import dynamics
from srlm.forecast.answers import Shares
from srlm.forecast.tally import Tally
from srlm.measure.intervals import clopper_pearson
from srlm.types import Bools, Estimate, Floats, undefined

PATHS = 100
"""Draws of the posterior that are followed round by round."""
LEAST = 8.0
"""Effective samples under which a prompt does not carry a forecast on the samples."""
CARRIED = 0.8
"""Share of prompts that must be carried, and that must have what a reward needs."""
EXTRAPOLATED = "extrapolation"
VOTES: dict[str, dynamics.Votes] = {
    "vote share": dynamics.by_share,
    "log-vote": dynamics.by_log,
    "hard vote": dynamics.by_mode,
}
"""``vote share`` is ``--reward consistency``, ``hard vote`` is TTRL's."""
VOTE_BETAS = {"vote share": BETAS["consistency"], "hard vote": BETAS["consistency"]}
"""Default beta of ``VOTES``, where it is not ``BETA``."""
FROM_FILE = ("likelihood", "likelihood-per-token")
"""Rewards that log-probabilities and lengths are enough for."""
ITSELF = ("judge", "judge-pairwise", "meta-judge", "self-certainty")
"""Rewards that the policy gives in ways that its samples do not show."""
Parts = Mapping[str, float]
"""Parts of a reward with their weights: ``consistency``, of ``FROM_FILE``, or names of scores."""
FROZEN = "scores of the base, not read anew"
MOVES = "the model's own scores move as it is trained: one round is told"


@dataclass(frozen=True, slots=True)
class RewardPath:
    """What a reward does, round by round; round 0 is the base."""

    reward: str
    """A name of ``VOTES``, or what ``--reward`` calls it."""
    accuracy: tuple[Estimate, ...]
    """Sampling accuracy; undefined without right answers."""
    kappa: tuple[Estimate, ...]
    """kappa_answer, of votes."""
    length: tuple[float, ...] = ()
    """Mean tokens of a response, of rewards that are followed on samples; empty where the samples
    do not say how long each is."""
    gain: Estimate | None = None
    """Accuracy of the last round that the samples carry minus that of the base, paired over
    prompts, of rewards that are followed on samples and have right answers."""
    beta: float = BETA
    """Of its rounds."""
    note: str = ""
    """What it leaves out."""
    whole: bool = True
    """Whether it is about all prompts with right answers (without any: all prompts)."""

    @property
    def carried(self) -> int:
        """The last round that is no extrapolation."""
        sure = [t for t, e in enumerate(self.accuracy) if e.guarantee != EXTRAPOLATED]
        return max(sure, default=0)


@dataclass(frozen=True, slots=True)
class About:
    """Means over prompts with intervals, all of one seed and level."""

    seed: int
    level: float

    def __call__(
        self, value_BP: Floats, method: str, *, these: bool = False, inverse: bool = False
    ) -> Estimate:
        return posteriors.estimate(
            value_BP, method, seed=self.seed, level=self.level, these=these, inverse=inverse
        )

    def still(self, value_P: Floats, method: str) -> Estimate:
        """Of values that do not vary over the posterior's draws, [P]."""
        return self(np.broadcast_to(value_P, (posteriors.DRAWS, len(value_P))), method)

    def share(self, hit_P: Sequence[bool] | Bools, method: str) -> Estimate:
        """The share of prompts that are hits, with its Clopper-Pearson interval."""
        hits, n = int(np.sum(hit_P)), len(hit_P)
        low, high = clopper_pearson(hits, n, self.level)
        return Estimate(hits / n, low, high, n, f"{method}; {self.level:.0%} (Clopper-Pearson)")


def vote_path(
    name: str, drawn: Sequence[Shares], labelled: Sequence[int], beta: float | None, rounds: int,
    about: About,
) -> RewardPath:  # fmt: skip
    """A vote of ``VOTES`` on the posterior's draws, exact rounds; beta None: its default."""
    beta = beta or VOTE_BETAS.get(name, BETA)
    right: list[list[Floats]] = [[] for _ in range(rounds + 1)]
    kappa: list[list[Floats]] = [[] for _ in range(rounds + 1)]
    for s in drawn:
        share_BA = s.share_BA  # round 0 from all draws, as in the base's numbers
        kappa[0].append(1 / s.top_B())
        for t in range(rounds + 1):
            if t == 1:  # draws of one bag follow each other: some of every bag
                share_BA = share_BA[:: len(share_BA) // PATHS]
            if t:
                share_BA = dynamics.vote_round(share_BA, VOTES[name], beta)
                kappa[t].append(1 / share_BA.max(1))
            if s.right is not None:
                right[t].append(share_BA[:, s.right])
    none = undefined(name, "no right answers")
    method = f"{name}, exact rounds"
    return RewardPath(
        name,
        tuple(about(np.column_stack(r), method) if labelled else none for r in right),
        tuple(about(np.column_stack(k), method, inverse=True) for k in kappa),
        beta=beta,
    )


def sample_paths(
    used: Sequence[Tally],
    rewards: Mapping[str, Parts],
    beta: float | None,
    rounds: int,
    about: About,
) -> list[RewardPath]:
    """Rewards on the samples, those that enough prompts have what is needed for.

    Args:
        used: prompts with their samples.
        rewards: by name.
        beta: of all; None: of each its default.
    """
    labelled = [t for t in used if t.references]
    of = labelled or list(used)
    out = []
    for name, parts in rewards.items():
        some = [t for t in of if all(_has(t, part) for part in parts)]
        if some and len(some) >= CARRIED * len(of):
            own = beta or beta_of_parts(parts)
            path = _sample_path(name, parts, some, bool(labelled), own, rounds, about)
            if len(some) < len(of):
                note = f"{len(some)} of {len(of)} prompts, which have what it needs"
                path = replace(path, whole=False, note="; ".join(filter(None, (note, path.note))))
            out.append(path)
    return out


def _has(tally: Tally, part: str) -> bool:
    """Whether the samples of a prompt have what a reward needs."""
    if part == "consistency":
        return True
    if part not in FROM_FILE:
        return bool(np.isfinite(tally.scores_K.get(part, ())).any())
    lengths = part == "likelihood" or all(tally.tokens_K)
    return lengths and all(x is not None for x in tally.logp_K)


def _sample_path(
    name: str,
    parts: Parts,
    some: Sequence[Tally],
    labelled: bool,
    beta: float,
    rounds: int,
    about: About,
) -> RewardPath:
    prompt_R = np.repeat(np.arange(len(some)), [len(t.answer_K) for t in some])
    log_mass_R = -np.log(np.bincount(prompt_R)[prompt_R])
    logp_R = np.array([np.nan if x is None else x for t in some for x in t.logp_K])
    right_R = np.array([a in t.right for t in some for a in t.answer_K], dtype=np.float64)
    length_R = np.array([np.nan if x is None else float(x) for t in some for x in t.tokens_K])

    def score(part: str) -> dynamics.Score:
        if part == "consistency":
            names = [None if a < 0 else str(a) for t in some for a in t.answer_K]
            return dynamics.vote_share(dynamics.ballot(prompt_R, names))
        if part == "likelihood":
            return dynamics.likelihood
        if part == "likelihood-per-token":
            return dynamics.likelihood_per_token(length_R.astype(np.int64))
        return dynamics.frozen(np.array([x for t in some for x in t.scores_K[part]]))

    start = dynamics.Mass(prompt_R, log_mass_R, logp_R)
    whole = dynamics.combined([(score(part), weight) for part, weight in parts.items()])
    path = dynamics.trajectory(start, dynamics.exact(whole, beta), rounds)
    moves = any(part.partition("/")[0] in ITSELF for part in parts)
    method = f"{name}, self-normalised weights on the samples"
    right_TP = [mass.expect(right_R) for mass in path]
    carried_T = [float((mass.effective_samples() >= LEAST).mean()) for mass in path]
    carried_T[0] = 1.0  # the samples as they are
    accuracy = []
    for t, (right_P, carried) in enumerate(zip(right_TP, carried_T, strict=True)):
        e = about.still(right_P, method) if labelled else undefined(name, "no right answers")
        if carried < CARRIED:
            note = f"only {carried:.0%} of prompts have {LEAST:g} effective samples"
            e = Estimate(e.value, e.low, e.high, e.n, method, EXTRAPOLATED, note)
        elif moves and t > 1:
            e = Estimate(e.value, e.low, e.high, e.n, method, EXTRAPOLATED, MOVES)
        accuracy.append(e)
    none = undefined(name, "votes are not its measure")
    made = RewardPath(
        name,
        tuple(accuracy),
        (none,) * len(path),
        tuple(float(m.expect(length_R).mean()) for m in path if np.isfinite(length_R).all()),
        beta=beta,
        note=MOVES if moves else FROZEN if set(parts) - {*FROM_FILE, "consistency"} else "",
    )
    if not labelled:
        return made
    gain = about.still(right_TP[made.carried] - right_TP[0], f"{method}, last round minus base")
    return replace(made, gain=gain)
