"""What a run folder says of the constants of [SR] Theorem 5.3."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors import safe_open

from srlm.errors import UserError
from srlm.report.read import Run
from srlm.theory import Assumption
from srlm.types import Floats

BITS = {"F64": 64, "F32": 32, "BF16": 16, "F16": 16}
EXPLAINED = 0.01
"""Share of the target's square that may be left unexplained where realizability holds."""


@dataclass(frozen=True, slots=True)
class Stated:
    """A number, and where it comes from."""

    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Seen:
    """P held-out prompts over all rounds measured; each end is the least over the rounds."""

    margin_low_P: Floats
    """Certified ends of min_t log pi_t(y*) - max_{y != y*} log pi_t(y), nats; 0 and inf where the
    search was stopped early."""
    margin_high_P: Floats
    logp_low_P: Floats
    """Certified ends of min_t log p*_t, nats."""
    logp_high_P: Floats
    kappa0: float
    """The upper certified end; inf where it overflows."""
    how_certain: str


def seen_of(run: Run) -> Seen:
    """Margins and confidences from the rounds' prompts.parquet.

    Raises:
        UserError: a round without its table, or with other prompts than round 0.
    """
    names = ("margin", "margin_high", "log_p_star", "log_p_star_upper")
    tables = [_table(run, t, names) for t in range(len(run.rounds))]
    low, high, logp, upper = (np.min([t[name] for t in tables], axis=0) for name in names)
    open_ = int(np.sum(tables[0]["log_p_star"] < tables[0]["log_p_star_upper"]))
    with np.errstate(over="ignore"):
        kappa0 = float(np.mean(np.exp(-tables[0]["log_p_star"])))
    return Seen(
        margin_low_P=low,
        margin_high_P=high,
        logp_low_P=logp,
        logp_high_P=np.maximum(upper, logp),
        kappa0=max(1.0, kappa0),
        how_certain=f", an upper end: {open_} of {len(logp)} modes are not certified"
        if open_
        else "",
    )


def _table(run: Run, t: int, names: tuple[str, ...]) -> dict[str, Floats]:
    file = run.folder / "rounds" / f"{t:03d}" / "prompts.parquet"
    if not file.is_file():
        raise UserError(f"{file}: no such file", "give a run folder with its rounds' tables")
    table = pq.read_table(file)
    lacking = [name for name in names if name not in table.column_names]
    if lacking:
        raise UserError(
            f"{file}: no column {', '.join(lacking)}", "measure the run again with this version"
        )
    base = run.rounds[0].table
    if base is not None and table["prompt_id"].to_pylist() != list(base.prompt_id):
        raise UserError(f"{file}: other prompts than round 0's", "give a run folder as it was made")
    return {name: table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in names}


def pairs_of(run: Run) -> Stated | None:
    """n, the pairs of a round: two samples a pair, the fewest over the rounds.

    All k(k-1)/2 pairs of a prompt's k samples hold no more independent ones than floor(k/2). None
    where no pairs were made yet, or responses were enumerated, not sampled.
    """
    if run.config.get("samples.source") == "enumerate":
        return None
    files = sorted((run.folder / "rounds").glob("*/pairs.parquet"))
    counts = [int((pq.read_schema(f).metadata or {})[b"draws"]) // 2 for f in files]
    if not counts or min(counts) < 1:
        return None
    return Stated(
        min(counts), f"samples of a round, two a pair; the fewest of {len(counts)} rounds"
    )


def complexity_of(folder: Path) -> Stated | None:
    """log|Pi| <= parameters x bits x log 2, nats: a network of d numbers of b bits has at most
    2^(b d) settings, so its class is finite. None without a saved policy."""
    files = sorted((folder / "rounds" / "000" / "policy").glob("*.safetensors"))
    parameters, nats = 0, 0.0
    for file in files:
        with safe_open(file, framework="numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                if name == "phi":  # a linear softmax policy's features are given, not trained
                    continue
                part: Any = tensors.get_slice(name)
                size = math.prod(part.get_shape())
                parameters += size
                nats += size * BITS[part.get_dtype()] * math.log(2.0)
    if not parameters:
        return None
    return Stated(nats, f"bits of the policy's {parameters:,} parameters x log 2; crude")


def realizability_of(run: Run) -> Assumption:
    """Does the class contain pi_0^(1 + 1/beta)? From the first round's exponent p and its r^2.

    With log pi_1 = p log pi_0 + e within a prompt, the share of the target's square that the
    update left unexplained on the base's held-out samples is
    u = (beta (p - 1) - 1)^2 + beta^2 p^2 (1 - r^2)/r^2. It holds where u's upper end (at the ends
    of the intervals of p and r^2) is at most 1%. A larger u does not tell: a trained policy may
    not have arrived at its class's minimiser.
    Source: [SR] Theorem 5.3, assumption; the test is our own, as ``theory.realizability``.
    """
    name, beta = "realizability", run.config.get("update.beta")
    reasons = {
        "no round was made": len(run.rounds) < 2,
        "config.yaml has no update.beta": beta is None,
        "the reward is not the likelihood": run.config.get("reward", "likelihood") != "likelihood",
        "its rewards were altered": run.config.get("pairs.reward_floor") is not None
        or run.config.get("length_tolerance") is not None,
        "the update has another target": run.config.get("update.kind", "square")
        not in ("square", "weighted"),
    }
    against = [reason for reason, found in reasons.items() if found]
    if not against:
        p, r2 = run.rounds[1]["exponent"], run.rounds[1]["exponent_r2"]
        if p.value is None or r2.value is None or not r2.value > 0.0:
            against = ["the effective exponent of round 1 is not known"]
    if against:
        return Assumption(name, "cannot be told", ("; ".join(against),), math.nan)

    assert beta is not None and p.value is not None and r2.value is not None  # else: against
    strength = float(beta)

    def unexplained(p: float, r2: float) -> float:
        missed = strength * (p - 1.0) - 1.0
        return float(missed**2 + strength**2 * p**2 * (1.0 - r2) / r2)

    share = unexplained(p.value, r2.value)
    least_r2 = max(r2.low if r2.low is not None else r2.value, 1e-12)
    ends = [x for x in (p.low, p.value, p.high) if x is not None]
    worst = max(unexplained(x, least_r2) for x in ends)
    text = (
        f"round 1 left {share:.3g} (at most {worst:.3g}) of the target's square unexplained on "
        "the base's held-out samples"
    )
    if worst <= EXPLAINED:
        return Assumption(
            name, "holds", (text, f"up to {EXPLAINED:g}, on those samples"), 1 - share
        )
    why = "a policy that has not reached its class's minimiser leaves the same trace"
    return Assumption(name, "cannot be told", (text, why), 1.0 - share)
