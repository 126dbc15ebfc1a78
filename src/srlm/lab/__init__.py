"""The lab: every claim of the theory, run and measured.

``CLAIMS`` is importable without torch; ``run`` imports a claim's experiment when it is wanted.
Each experiment is one file in ``srlm.lab.claims`` with a function ``experiment(setting)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from srlm.errors import UserError

if TYPE_CHECKING:
    from srlm.lab.result import Finding
    from srlm.progress import Progress


@dataclass(frozen=True, slots=True)
class Claim:
    """What is claimed, and by whom."""

    statement: str
    source: str


CLAIMS: dict[str, Claim] = {
    "minimiser": Claim(
        "One round on pairs that span the features gives pi^(1 + 1/beta), normalised.",
        "[SR] eq. 4; theory.md section 1",
    ),
    "lower-bound": Claim(
        "One round of n triples loses mass of order sqrt(kappa_0 log|Pi| / n) on some instance.",
        "[SR] Thm 4.1; [SM] Thm 3.1'",
    ),
    "greedy": Claim(
        "Greedy decoding finds the mode whenever p* > 1/2; below, some policy makes it miss.",
        "[SR] Prop. 4.3; [SM] Prop. 3.1",
    ),
    "recursion": Claim(
        "kappa_{t+1} stays under the tail-integral bound in kappa_t, eps, beta, margin and mu.",
        "[SR] Thm 5.3, App. C",
    ),
    "contraction": Claim(
        "The compact recursion contracts to its fixed point by a factor lambda < 1/2 a round.",
        "[SR] App. C, Cor. 5.7",
    ),
    "rate": Claim(
        "The final failure falls with the pairs of a round at least as n^(-1/2).",
        "[SR] Thm 5.3",
    ),
    "forgetting": Claim(
        "The start is forgotten exponentially fast: rounds needed grow with log kappa_0.",
        "[SR] Cor. 5.7",
    ),
    "dimension": Claim(
        "For linear softmax the (effective) dimension takes the place of log|Pi|.",
        "[SR] Thm 6.2, Cor. 6.4",
    ),
    "spectrum": Claim(
        "d_eff(l) is O(log(1/l)), O(l^(-1/alpha)) or r + tau/l by the spectrum's decay.",
        "[SR] Cor. 6.4, App. G",
    ),
    "classification": Claim(
        "Ten rounds on digits: kappa falls, sampling accuracy rises to mode accuracy.",
        "[SR] summary",
    ),
    "initialisation": Claim(
        "A poor start contracts too, and stays as wrong as it was.",
        "[SR] summary; theory.md section 1",
    ),
    "forecast": Claim(
        "Samples of the base alone forecast the trained loop, as far as they support it.",
        "theory.md section 3 (our own)",
    ),
    "families": Claim(
        "kappa, spectrum and forecast behave alike over small transformer families.",
        "[SR] summary",
    ),
}


TASKS = (
    ("families", "spectrum"),
    ("classification", "initialisation", "forecast"),
    ("dimension",),
    ("minimiser", "lower-bound", "greedy", "recursion", "contraction", "rate", "forgetting"),
)
"""Claims that share work, the longest first; each lot may run in a process of its own."""


def run(
    claims: Sequence[str],
    *,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
    progress: Progress | None = None,
    workers: int = 1,
) -> list[Finding]:
    """Run claims' experiments; the findings come in the order asked for.

    Args:
        claims: ids of ``CLAIMS``; ``["all"]`` for all of them.
        seed: decides every sample; the same seed gives the same figures.
        quick: fewer replicates, no transformer is trained.
        out: folder for a JSON file a claim, ``lab.html``, and the cells of unfinished sweeps;
            started again with the same folder, the lab continues where it stopped. None: keep
            nothing.
        progress: where to show stages; silent if left out.
        workers: processes of one thread each, which is the faster way (their stages are not
            shown); 1 runs here.

    Raises:
        UserError: an unknown claim, or none; a worker that failed.
    """
    from srlm.lab.work import experiments, spread
    from srlm.progress import Progress

    names = list(CLAIMS) if list(claims) == ["all"] else list(dict.fromkeys(claims))
    unknown = [name for name in names if name not in CLAIMS]
    if unknown or not names:
        raise UserError(
            f"no such claim: {', '.join(unknown) or 'none given'}",
            f"choose among all, {', '.join(CLAIMS)}",
        )
    progress = progress or Progress.silent()
    if workers > 1:
        found = spread(names, seed=seed, quick=quick, out=out, progress=progress, workers=workers)
    else:
        found = experiments(names, seed=seed, quick=quick, out=out, progress=progress)
    if out is not None:
        from srlm.lab.page import page
        from srlm.lab.setting import write_whole

        write_whole(out / "lab.html", page(found))
    return found
