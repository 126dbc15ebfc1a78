"""Published runs beside what a vote of the base gave: writes docs/published.md.

    python -m experiments.forecasts --page

Figures are those that the papers report, in percent; nothing is run here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "published.md"


@dataclass(frozen=True, slots=True)
class Run:
    """One reported run, accuracies in percent."""

    name: str
    paper: str
    """arXiv number."""
    model: str
    task: str
    before: float
    vote: float
    voters: str
    """Samples in the vote, as the paper gives them."""
    after: tuple[float, ...]
    """Successive rounds or variants."""

    @property
    def ratios(self) -> tuple[float, ...]:
        """(after - before) / (vote - before)."""
        return tuple((a - self.before) / (self.vote - self.before) for a in self.after)


RUNS = (
    Run("TTRL", "2504.16084", "Qwen2.5-Math-7B", "AIME 2024", 12.9, 37.0, "64", (40.2,)),
    Run("ScPO", "2411.04109", "Llama-3-8B", "GSM8K", 41.2, 51.8, "8", (61.0, 63.9)),
    Run("ScPO", "2411.04109", "Llama-3-8B", "MATH", 14.5, 18.2, "8", (17.4, 19.7)),
    Run("LMSI", "2210.11610", "", "GSM8K", 56.5, 74.4, "", (73.5,)),
)

HEAD = """# Published runs

What papers report of self-training on the vote, beside a vote of the base without training. Under
exact rounds a vote-based reward takes each prompt's answers to the base's most likely one
([theory](theory.md)), so the vote among many samples of the base is where amplification alone
ends. `gain / vote` is (after - before) / (vote - before).

| run | model, task | before | vote of the base (samples) | after | gain / vote |
| --- | --- | --- | --- | --- | --- |
"""

TAIL = """
What the figures carry, and no more:

- Gains lie between {low:.2f} and {high:.2f} of what the vote gives: the vote of the base is
  neither a floor nor a ceiling of training.
- A ratio above 1 is not explained by taking each prompt to the reported vote. What is left has
  three candidates that these figures do not distinguish: a vote of few samples is worse than the
  vote of many; responses that could not be read are given up (format); one prompt's training helps
  others (transfer). `srlm forecast --samples FILE` gives intervals for the first two, and says that
  the third is not known before a pilot round.
- A ratio below 1 says that training went part of the way, or that some of it was lost.
- Figures of a base differ between papers (Qwen3-8B-Base on GSM8K: 27.8 in one, 84.8 in another), so
  ratios compare numbers within a paper only.

Written by `experiments/published.py`.
"""


def row(run: Run) -> str:
    model = ", ".join(part for part in (run.model, run.task) if part)
    voters = f" ({run.voters})" if run.voters else ""
    after = ", ".join(f"{a:.1f}" for a in run.after)
    ratios = ", ".join(f"{r:.2f}" for r in run.ratios)
    return (
        f"| {run.name}, arXiv {run.paper} | {model} | {run.before:.1f} | {run.vote:.1f}{voters} | "
        f"{after} | {ratios} |\n"
    )


def page() -> str:
    ratios = [r for run in RUNS for r in run.ratios]
    tail = TAIL.format(low=min(ratios), high=max(ratios))
    return HEAD + "".join(map(row, RUNS)) + tail


def write_page() -> None:
    """docs/published.md."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write_page()
