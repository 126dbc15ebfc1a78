"""What adaptive samples save, and whether their intervals hold: ``srlm forecast --until``.

    python -m experiments.adaptive            # writes docs/adaptive.md
    python -m experiments.adaptive --quick    # ten problems, prints the table

Simulated problems as in ``tests/forecast/coverage.py``: 50 prompts whose answers are Dirichlet, in
part with unreadable samples and with weights that differ from prompt to prompt. Each is sampled
with a fixed number per prompt, and as ``--until`` does. Seeds from 20,000 on; the rule was chosen
without them.

Cost: 10 minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from experiments.common import write
from srlm.data import prompt_id
from srlm.engines.files import Sampled
from srlm.forecast import answers
from srlm.forecast.sampling import collect
from srlm.forecast.verdict import WORTH
from srlm.grading import EXACT
from srlm.types import Floats, Prompt
from tests.forecast.coverage import MANY, setting, shares

PROMPTS, MOST, FIRST_SEED = 50, 64, 20_000
WAYS: dict[str, tuple[int, str | None]] = {
    "fixed 16": (16, None),
    "fixed 32": (32, None),
    "fixed 64": (MOST, None),
    "until verdict": (MOST, "verdict"),
    "until 0.05": (MOST, "0.05"),
    "until 0.01": (MOST, "0.01"),
}


class Source:
    """Samples of known shares: the next ones of a prompt each time it is asked."""

    def __init__(self, v_PA: Floats, silent_P: Floats, rng: np.random.Generator) -> None:
        cells_PA = np.column_stack([v_PA, silent_P])
        self.said = [rng.choice(len(c), MOST, p=c / c.sum()) for c in cells_PA]
        self.prompts = [Prompt(prompt_id(f"q{p}"), f"q{p}", ("0",)) for p in range(len(v_PA))]
        self.silent = v_PA.shape[1]
        self.asked = dict.fromkeys((x.id for x in self.prompts), 0)

    def __call__(self, some: Sequence[Prompt], count: int, look: int) -> Iterable[Sampled]:
        for x in some:
            first = self.asked[x.id]
            self.asked[x.id] += count
            for n, a in enumerate(self.said[int(x.content[1:])][first : first + count]):
                read = bool(a != self.silent)
                yield Sampled(x.id, None, None, str(a) if read else f"{n} {look}", finished=read)


def problem(seed: int) -> dict[str, Any]:
    """Of each way: samples per prompt, errors, intervals that held, the verdict's truth."""
    rng = np.random.default_rng(seed)
    s = setting(rng)
    v_PA, silent_P = shares(s, PROMPTS, rng)
    many_PA, _ = shares(s, MANY, rng)
    truth = {
        "these": float((v_PA.argmax(1) == 0).mean()),
        "like": float((many_PA.argmax(1) == 0).mean()),
        "kappa": float((1 / v_PA.max(1)).mean()),
        "gain": float(((many_PA.argmax(1) == 0) - many_PA[:, 0]).mean()),
    }
    draws = rng.integers(1 << 31)
    out: dict[str, Any] = {}
    for name, (most, until) in WAYS.items():
        source = Source(v_PA, silent_P, np.random.default_rng(draws))
        every, _ = collect(source, source.prompts, most, EXACT, until=until, seed=seed)
        counts = [t.counts() for t in every]
        post = answers.posterior(counts, seed=seed)
        drawn = [post.shares(p) for p in range(len(counts))]
        end_BP = np.column_stack([x.mode_right_B() for x in drawn])
        now_BP = np.column_stack([x.accuracy_B() for x in drawn])
        kappa_BP = np.column_stack([1 / x.top_B() for x in drawn])
        found = {
            "these": answers.estimate(end_BP, "", seed=seed, these=True),
            "like": answers.estimate(end_BP, "", seed=seed),
            "kappa": answers.estimate(kappa_BP, "", seed=seed, these=True, inverse=True),
        }
        gain = answers.estimate(end_BP - now_BP, "", seed=seed)
        assert gain.low is not None and gain.high is not None
        said = "go" if gain.low >= WORTH else "no-go" if gain.high < WORTH else "unclear"
        right = "go" if truth["gain"] >= WORTH else "no-go"
        out[name] = {
            "samples": sum(source.asked.values()) / PROMPTS,
            "error": abs((found["these"].value or 0.0) - truth["these"]),
            "width": (found["these"].high or 0.0) - (found["these"].low or 0.0),
            "wrong": said not in (right, "unclear"),
            "unclear": said == "unclear",
            **{
                f"{k} holds": bool((e.low or 0.0) - 1e-12 <= truth[k] <= (e.high or 0.0) + 1e-12)
                for k, e in found.items()
            },
        }
    return out


def result(first: int, count: int) -> dict[str, Any]:
    """Means over the problems."""
    runs = [problem(seed) for seed in range(first, first + count)]
    return {
        "problems": count,
        "first seed": first,
        "ways": {
            way: {k: float(np.mean([r[way][k] for r in runs])) for k in runs[0][way]}
            for way in WAYS
        },
    }


def saving(ways: dict[str, Any]) -> str:
    """What the narrowest way saves beside the fixed number with as small an error."""
    whole, fine, rough = ways["fixed 64"], ways["until 0.01"], ways["until verdict"]
    return (
        f"Beside {MOST} samples of each prompt (error {whole['error']:.3f}), `--until 0.01` takes "
        f"{fine['samples']:.1f} on average, {1 - fine['samples'] / whole['samples']:.0%} less, at "
        f"an error of {fine['error']:.3f}; `--until verdict` {rough['samples']:.1f}, "
        f"{1 - rough['samples'] / whole['samples']:.0%} less, at {rough['error']:.3f}."
    )


def page(found: dict[str, Any]) -> str:
    """docs/adaptive.md."""
    lines = [
        "# Adaptive samples",
        "",
        "`srlm forecast --reward consistency --until verdict|WIDTH` takes 8 samples per prompt,",
        "then twice as many of the prompts whose vote is close, up to `--samples`, until the",
        "verdict is known, or the interval of the limit of voting for these prompts is so narrow.",
        "A vote is close where no answer is the mode with a posterior probability of 0.95.",
        "",
        "When to stop depends on the answers, so plain means of the samples are biased. All that",
        "is told of votes comes from the posterior of the answers' shares, which the rule does not",
        "bias; the bound on κ of answers without it shares its level among the looks.",
        "",
        f"{found['problems']} simulated problems of {PROMPTS} prompts, seeds from"
        f" {found['first seed']:,} on (the rule was chosen on others). Intervals are at 90%. Error:"
        " mean |estimate - truth| of the limit's accuracy on these prompts. Wrong: a verdict of go"
        f" where the true gain is under {WORTH}, or of no-go where it is not.",
        "",
        saving(found["ways"]),
        "",
        "| samples | per prompt | error | width | holds: limit, these | limit, like these |"
        " κ of answers | verdict wrong | unclear |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for way, x in found["ways"].items():
        lines.append(
            f"| {way} | {x['samples']:.1f} | {x['error']:.3f} | {x['width']:.3f} |"
            f" {x['these holds']:.1%} | {x['like holds']:.1%} | {x['kappa holds']:.1%} |"
            f" {x['wrong']:.1%} | {x['unclear']:.1%} |"
        )
    return "\n".join([*lines, "", "Made by `python -m experiments.adaptive`.", ""])


def main() -> None:
    """Command line."""
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    asked.add_argument("--quick", action="store_true", help="ten problems, nothing is written")
    asked.add_argument("--problems", type=int, default=60)
    asked.add_argument("--first", type=int, default=FIRST_SEED, help="first seed")
    given = asked.parse_args()
    found = result(given.first, 10 if given.quick else given.problems)
    made = page(found)
    if given.quick or given.first != FIRST_SEED:
        print(made)
    else:
        write("adaptive", found, made)


if __name__ == "__main__":
    main()
