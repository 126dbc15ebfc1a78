"""Updates by the names of the command line: an objective, and the pairings that it can take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from srlm import losses, pairs
from srlm import train as update
from srlm.config import RunConfig
from srlm.errors import UserError
from srlm.policies.lora import require_peft
from srlm.types import Floats, Pairs, Samples

Pair = Callable[[Samples, Floats], Pairs]
"""Samples and their rewards -> what is compared."""


@dataclass(frozen=True, slots=True)
class Update:
    """A choice of ``--update``."""

    objective: Callable[[float], update.Objective]
    """From the weight of the likelihood term."""
    pairings: tuple[str, ...]
    """The first is the one that ``--pairs auto`` takes."""
    prefers: bool = False
    """It sees preferences only, and may have a likelihood term beside."""


PAIRINGS: dict[str, Callable[..., Pairs]] = {
    "groups": pairs.groups,
    "pairs": pairs.pairs,
    "best": pairs.best,
    "best-worst": pairs.best_worst,
    "voted": pairs.voted,
}
UPDATES = {
    "weighted": Update(lambda _: update.weighted_objective, ("groups", "pairs")),
    "square": Update(lambda _: update.square_objective, ("groups", "pairs", "best-worst", "voted")),
    "best-of-n": Update(lambda _: update.weighted_objective, ("best",)),
    "dpo": Update(
        lambda nll: update.preference(losses.dpo, nll, attained=False),
        ("best-worst", "voted", "pairs"),
        prefers=True,
    ),
    "ipo": Update(
        lambda nll: update.preference(losses.ipo, nll, attained=True),
        ("best-worst", "voted", "pairs"),
        prefers=True,
    ),
}


def objective_of(config: RunConfig) -> update.Objective:
    """The objective that the settings name.

    Raises:
        UserError: a likelihood term or an adaptive number of samples with an update that has none;
            adapters without peft.
    """
    if config.update.lora is not None:
        require_peft()
    kind, chosen = config.update.kind, UPDATES[config.update.kind]
    if config.update.nll and not chosen.prefers:
        raise UserError(
            f"--nll {config.update.nll:g} with --update {kind}: it has no likelihood term beside",
            "leave --nll out, or use --update dpo or ipo",
        )
    if config.samples.mu is not None and (
        kind != "best-of-n" or config.samples.source == "enumerate"
    ):
        raise UserError(
            f"--mu with --update {kind}, --source {config.samples.source}: only best-of-n may "
            "stop sampling by what was sampled",
            "leave --mu out, or use --update best-of-n and --source sampling",
        )
    return chosen.objective(config.update.nll)


def pair_of(config: RunConfig) -> Pair:
    """The pairing that the settings name.

    Raises:
        UserError: the update cannot be trained on it.
    """
    possible = UPDATES[config.update.kind].pairings
    name = possible[0] if config.pairs.kind == "auto" else config.pairs.kind
    if name not in possible:
        raise UserError(
            f"--pairs {name} with --update {config.update.kind}: it is not made of those",
            f"use --pairs {' or '.join(x for x in (*possible, 'auto') if x != 'best')}",
        )
    return partial(PAIRINGS[name], reward_floor=config.pairs.reward_floor)
