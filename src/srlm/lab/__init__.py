"""The lab: every claim of the theory, run and measured.

``CLAIMS`` is importable without torch; ``srlm.lab.work.run`` imports an experiment when it is
wanted. Each is one file in ``srlm.lab.claims`` with a function ``experiment(setting)``.
"""

from __future__ import annotations

from dataclasses import dataclass


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
        "The compact recursion contracts to its fixed point by a factor lambda < 1/2 per round.",
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
"""Claims that share work, the longest first; each group may run in a process of its own."""
