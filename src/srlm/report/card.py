"""The model card of a policy: README.md with what was measured, as the Hugging Face hub reads it.

The same rounds give the same bytes: no times, no paths. Foreign text (names of models and files,
settings) stands in code spans; prompts and responses are not shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from srlm.config import RunConfig, flatten
from srlm.forecast.pace import FORECAST
from srlm.policies.base import Policy
from srlm.policies.hf import CausalLM
from srlm.report.best import best_round
from srlm.report.warnings import warnings
from srlm.report.words import MEANINGS, NAMES, count, interval, number, sentence, shorten, visible
from srlm.run_folder import Run
from srlm.types import Estimate, Round

FIGURES = (
    "sampling_accuracy",
    "greedy_accuracy",
    "mode_accuracy",
    "vote_accuracy",
    "confidence",
    "vote_share",
    "kappa",
    "log10_kappa",
    "failure_fraction",
    "fidelity",
    "answer_agreement",
    "readable",
    "length",
    "truncated",
    "kl_to_base",
)
TASK = "text-generation"


def model_card(
    config: RunConfig,
    policy: Policy,
    records: Sequence[Round],
    forecasts: Sequence[Mapping[str, Any]],
) -> str:
    """The card of the policy of the last record.

    Args:
        config: settings of the run, with nothing left open.
        policy: of the run; says which library reads it.
        records: of rounds 0 to t.
        forecasts: made after rounds 0 to t, those that there are.
    """
    last = records[-1]
    known = [name for name in FIGURES if last[name].value is not None]
    base = Path(config.model).name or "model"
    return "\n".join(
        [
            "---",
            _metadata(config, policy, last, known, f"{base}, round {last.round} of self-rewarding"),
            "---",
            "",
            f"# {code(base)}, round {last.round} of self-rewarding",
            "",
            f"{code(base)} after {count(last.round, 'round')} of self-rewarding with srlm: "
            f"reward {code(config.reward)}, "
            f"update {code(config.update.kind)}, β = {config.update.strength:g}, "
            f"prompts of {code(Path(config.prompts.file).name)}, seed {config.seed}. Its own "
            "samples were rewarded by the model itself; answers were used to measure alone.",
            "",
            "## Measured",
            "",
            f"On {count(max(last[x].n for x in known), 'held-out prompt')} of the same file, never "
            "trained on; 95% intervals over prompts.",
            "",
            "| | base | this policy | interval | method; guarantee |",
            "| --- | --- | --- | --- | --- |",
            *(_figure(name, records[0][name], last[name]) for name in known),
            "",
            *_forecast(last, forecasts),
            "## Limits",
            "",
            *_limits(config, records),
            "",
        ]
    )


def _metadata(
    config: RunConfig, policy: Policy, last: Round, known: Sequence[str], title: str
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=TASK,
            dataset_type="held-out",
            dataset_name="held-out prompts",
            metric_type="accuracy" if name == "sampling_accuracy" else name,
            metric_name=NAMES[name],
            metric_value=last[name].value,
            metric_args={k: v for k, v in last[name].to_json().items() if k != "value"},
        )
        for name in known
    ]
    library = None
    if isinstance(policy, CausalLM):
        library = "peft" if config.update.lora else "transformers"
    data = ModelCardData(
        base_model=None if Path(config.model).is_dir() else config.model,
        library_name=library,
        pipeline_tag=None if library is None else TASK,
        tags=["srlm", "self-rewarding"],
        model_name=visible(title),
        eval_results=results,
    )
    return str(data.to_yaml(line_break="\n"))


def _figure(name: str, before: Estimate, now: Estimate) -> str:
    how = "; ".join(filter(None, (now.method, now.guarantee)))
    title = f"{NAMES[name]}: {MEANINGS[name]}"
    cells = (title, number(before.value), number(now.value), interval(now), how)
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _forecast(last: Round, forecasts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was forecast of this round before any training, and after the round before."""
    rows: dict[int, Mapping[str, Any]] = {}
    for made in forecasts:
        for row in made["later"]:
            if row["round"] == last.round and made["made"] in (0, last.round - 1):
                rows[made["made"]] = row
    if not rows:
        return []
    heads = " | ".join(f"forecast after round {t}" for t in rows)
    out = ["## Forecast and measured", "", f"| | {heads} | measured |"]
    out.append("| --- |" + " --- |" * (len(rows) + 1))
    for name in FORECAST:
        told = [Estimate.from_json(row.get(name)) for row in rows.values()]
        if any(e.value is not None for e in told):
            cells = [f"{number(e.value)} {interval(e)}".strip() for e in told]
            out.append(f"| {NAMES[name]} | {' | '.join(cells)} | {number(last[name].value)} |")
    return [*out, ""]


def _limits(config: RunConfig, records: Sequence[Round]) -> list[str]:
    """What the numbers do not say, and every warning up to this round."""
    out = [
        "- Self-rewarding makes a policy surer of what it already prefers; confidence is not "
        "correctness.",
        "- The numbers are of these prompts, this length limit "
        f"({count(config.samples.max_tokens, 'token')}) and this way to read answers "
        f"({code(config.prompts.answer)}); nothing else was evaluated, safety neither.",
    ]
    if records[-1]["sampling_accuracy"].value is None:
        out.append("- The prompts have no answers: whether responses are right is not known.")
    run = Run(Path(), flatten(config.model_dump(mode="json")), {}, tuple(records))
    best = best_round(run)
    if best.round != records[-1].round:
        out.append(
            f"- Of the rounds so far, round {best.round} is the best: {_plain(best.reason)}."
        )
    for notice in warnings(run, best):
        out.append(f"- **{_plain(sentence(notice.title))}** {_plain(notice.evidence)}")
    return out


def code(text: str) -> str:
    """Foreign text as a code span, whatever it holds.

    >>> code("a"), code("a`b")
    ('`a`', '`` a`b ``')
    """
    plain = " ".join(visible(shorten(text, 80)).split()) or "–"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{plain}{space}{fence}".replace("|", "\\|")


def _plain(text: str) -> str:
    """A text that is markdown's in no part.

    >>> print(_plain("a|b <i> *c*"))
    a\\|b \\<i\\> \\*c\\*
    """
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(visible(text).split()))
