"""The run's settings: small validated models, from a YAML file and flags; unknown keys fail.

``config.yaml`` of a run folder is these models as resolved. Nothing here imports torch.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from srlm.errors import UserError

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


C = TypeVar("C", bound=BaseModel)


class Settings(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PromptSettings(Settings):
    """Where the prompts are and how answers are read."""

    file: str = Field(description="JSONL file of prompts")
    prompt_column: str = Field("prompt", description="column of prompts in the file")
    answer_column: str = Field("answer", description="column of answers in the file")
    answer: str = Field(
        "exact", description="how a response's answer is read: exact, last-number, boxed, regex:..."
    )
    held_out: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of prompts held out for measuring, by hash of the prompt",
    )
    chat: Literal["auto", "never"] = Field(
        "auto", description="auto: wrap prompts in the tokenizer's chat template if it has one"
    )
    system: str | None = Field(None, description="system prompt before prompts that are text")
    chat_args: str = Field(
        "", description="arguments of the chat template, as enable_thinking=false,depth=2"
    )

    @field_validator("chat_args")
    @classmethod
    def _chat_args(cls, value: str) -> str:
        template_arguments(value)
        return value


def template_arguments(spec: str) -> dict[str, Any]:
    """Arguments of a chat template; a value that is JSON is read as such.

    >>> template_arguments("enable_thinking=false,depth=2,tone=kind")
    {'enable_thinking': False, 'depth': 2, 'tone': 'kind'}

    Raises:
        ValueError: it is not of that form.
    """
    out: dict[str, Any] = {}
    for item in spec.split(",") if spec else ():
        name, found, value = (part.strip() for part in item.partition("="))
        if not (name and found):
            raise ValueError(f"{item.strip()!r} is not NAME=VALUE")
        try:
            out[name] = json.loads(value)
        except ValueError:
            out[name] = value
    return out


class SampleSettings(Settings):
    """The draws of a round."""

    prompts: Count | None = Field(
        None, description="training prompts a round, drawn anew each round (all of them if empty)"
    )
    per_prompt: int = Field(4, ge=2, description="samples per prompt, k")
    source: Literal["sampling", "enumerate"] = Field(
        "sampling", description="enumerate: every response with its probability (exact policies)"
    )
    mu: Positive | None = Field(
        None,
        description="best-of-n: draw on until k times the likeliest draw's probability is this;"
        " a mode is missed with probability exp(-mu)",
    )
    max_tokens: Count = Field(256, description="length limit of a response, tokens")


class PairSettings(Settings):
    """How draws are compared."""

    kind: Literal["auto", "groups", "pairs", "best-worst", "voted"] = Field(
        "auto",
        description="groups: all k draws of a prompt together; pairs: two by two; best-worst: by"
        " reward; voted: best-worst, weighted by the reward's margin; auto: as the update asks,"
        " best-worst for dpo and ipo, else groups",
    )
    reward_floor: float | None = Field(
        None,
        gt=0,
        description="rewards further than this under a prompt's best draw are raised to it, nats",
    )


class UpdateSettings(Settings):
    """From pairs to the next policy."""

    kind: Literal["weighted", "square", "best-of-n", "dpo", "ipo"] = Field(
        "weighted",
        description="weighted: maximum likelihood, weights exp(reward/beta); square: the paper's;"
        " best-of-n: maximum likelihood on the best draw; dpo, ipo: preferences",
    )
    beta: Positive = Field(0.5, description="one exact round is pi^(1 + 1/beta)")
    epochs: Count = Field(2, description="passes over a round's data")
    lr: Positive | None = Field(
        None, description="peak learning rate of AdamW (by the model's size if empty)"
    )
    prompts_per_step: Count = Field(128, description="groups an optimiser step")
    pass_tokens: Count | None = Field(
        None, description="tokens a forward pass; changes no result (what fits in memory if empty)"
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps that warm up")
    weight_decay: float = Field(0.0, ge=0, description="weight decay of AdamW")
    clip: Positive = Field(1.0, description="largest gradient norm")
    nll: float = Field(
        0.0, ge=0, description="dpo, ipo: weight of -log pi of the preferred response"
    )
    tail: float = Field(
        1e-3,
        ge=0,
        lt=1,
        description="weighted: largest share of a prompt's target that is left out, the rows of"
        " least weight (log-linear policies leave out nothing)",
    )
    lora: Count | None = Field(
        None,
        description="train adapters of this rank, merged after each round (all weights if empty)",
    )
    lora_alpha: Positive | None = Field(
        None, description="scale of the adapters, times rank (twice the rank if empty)"
    )


REWARDS = (
    "likelihood",
    "likelihood-per-token",
    "self-certainty",
    "consistency",
    "judge",
    "judge-pairwise",
    "meta-judge",
)


class JudgeSettings(Settings):
    """How the model judges responses (``--reward judge`` and its kin)."""

    template: str | None = Field(
        None,
        description="what the judge is asked, with {prompt} and {response} (the additive five-point"
        " rubric if empty)",
    )
    read: Literal["generated", "expected"] = Field(
        "generated",
        description="generated: scores are drawn as text and read out of it; expected: the mean"
        " score under the probabilities of the score tokens, one forward pass",
    )
    scores: str = Field(
        "0=0,1=1,2=2,3=3,4=4,5=5", description="text of each score and its value, as y=1,n=0"
    )
    pattern: str = Field(
        r"Score:\s*([0-9]+(?:\.[0-9]+)?)",
        description="pattern of the score in what the judge generated; its first group is read",
    )
    judgements: Count = Field(3, description="judgements drawn a response, averaged")
    max_tokens: Count = Field(256, description="length limit of a judgement, tokens")
    compare_template: str | None = Field(
        None, description="comparison of two responses, with {prompt}, {first} and {second}"
    )
    meta_template: str | None = Field(
        None,
        description="comparison of two judgements, with {prompt}, {first} and {second}; without"
        " {second} each judgement is asked about by itself",
    )
    choices: str = Field(
        "A,B",
        description="what a comparison answers where the first is better, and where the second is",
    )
    train: bool = Field(
        False,
        description="meta-judge: train on the preferred judgements too, beside the responses",
    )

    @field_validator("scores")
    @classmethod
    def _scores(cls, value: str) -> str:
        score_values(value)
        return value

    @field_validator("choices")
    @classmethod
    def _choices(cls, value: str) -> str:
        first, comma, second = value.partition(",")
        if not (first and comma and second) or first == second or "," in second:
            raise ValueError(f"{value!r} is not FIRST,SECOND")
        return value


def score_values(spec: str) -> dict[str, float]:
    """Texts of scores and their values.

    >>> score_values("y=1,n=0")
    {'y': 1.0, 'n': 0.0}

    Raises:
        ValueError: it is not of that form, or names fewer than two scores.
    """
    return _weights(spec, "=", least=2)


def reward_parts(spec: str) -> dict[str, float]:
    """Names of rewards and their weights; a name alone has weight 1.

    >>> reward_parts("judge:1,likelihood:0.1"), reward_parts("judge")
    ({'judge': 1.0, 'likelihood': 0.1}, {'judge': 1.0})

    Raises:
        ValueError: it is not of that form, or a reward is none of ``REWARDS``.
    """
    parts = _weights(",".join(x if ":" in x else f"{x}:1" for x in spec.split(",")), ":", least=1)
    for name in parts:
        if name not in REWARDS:
            raise ValueError(f"{name!r} is no reward; choose of {', '.join(REWARDS)}")
    return parts


def _weights(spec: str, sign: str, *, least: int) -> dict[str, float]:
    out: dict[str, float] = {}
    for item in spec.split(","):
        name, found, number = (part.strip() for part in item.rpartition(sign))
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (name and found and math.isfinite(value)):
            raise ValueError(f"{item.strip()!r} is not NAME{sign}NUMBER")
        if name in out:
            raise ValueError(f"{name!r} is named twice")
        out[name] = value
    if len(out) < least:
        raise ValueError(f"{least} or more are needed")
    return out


class MeasureSettings(Settings):
    """What is measured on the held-out prompts after each round."""

    prompts: Count = Field(512, description="held-out prompts at most")
    samples: int = Field(16, ge=2, description="samples per prompt")
    nodes: Count = Field(2000, description="prefixes that search may expand a prompt")
    tokens: Count = Field(
        1 << 20, description="tokens that search may put through the model, prompts not counted"
    )
    seconds: Positive = Field(120.0, description="time that search may take, seconds")


class RunConfig(Settings):
    """Everything that decides a run's result."""

    model: str = Field(description="folder of the base policy, or a hub id")
    download: bool = Field(False, description="allow the network for a hub id")
    prompts: PromptSettings
    rounds: Count = Field(5, description="self-rewarding rounds")
    stop: Literal["never", "auto"] = Field(
        "never", description="auto: stop when further rounds gain nothing, by what needs no answers"
    )
    seed: int = Field(0, ge=0, description="decides every draw")
    reward: str = Field(
        "likelihood",
        description=f"what rewards a response, of {', '.join(REWARDS)}; several with their weights"
        " as judge:1,likelihood:0.1",
    )
    length_tolerance: float | None = Field(
        None,
        ge=0,
        description="among responses whose reward is this near to the prompt's best, prefer the"
        " shorter",
    )
    judge: JudgeSettings = JudgeSettings()
    samples: SampleSettings = SampleSettings()
    pairs: PairSettings = PairSettings()
    update: UpdateSettings = UpdateSettings()
    measure: MeasureSettings = MeasureSettings()
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = Field(
        "float32", description="number format of the weights"
    )

    @field_validator("reward")
    @classmethod
    def _reward(cls, value: str) -> str:
        reward_parts(value)
        return value


class ProbeConfig(Settings):
    """What ``srlm measure`` and ``srlm forecast`` look at: a policy and some prompts."""

    model: str = Field(description="folder of the policy, or a hub id")
    download: bool = Field(False, description="allow the network for a hub id")
    prompts: PromptSettings
    most_prompts: Count = Field(256, description="prompts looked at, chosen by hash")
    samples: int = Field(64, ge=2, description="samples per prompt")
    max_tokens: Count = Field(256, description="length limit of a response, tokens")
    nodes: Count = Field(2000, description="prefixes that search may expand a prompt")
    tokens: Count = Field(
        1 << 20, description="tokens that search may put through the model, prompts not counted"
    )
    seconds: Positive = Field(120.0, description="time that search may take, seconds")
    mu: Positive | None = Field(
        None,
        description="measure: adaptive sampling too, which misses a mode with probability exp(-mu)"
        " at most (left out: 5 where search certifies too little and few samples more are needed)",
    )
    seed: int = Field(0, ge=0, description="decides every draw")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = Field(
        "float32", description="number format of the weights"
    )


class ForecastConfig(ProbeConfig):
    """``srlm forecast``: a probe, and the training that it is asked about."""

    beta: Positive = Field(2.0, description="one exact round is pi^(1 + 1/beta)")
    rounds: Count = Field(8, description="rounds foretold")
    pilot: int = Field(0, ge=0, description="rounds to run first, to see the pace")
    train: SampleSettings = SampleSettings()
    update: UpdateSettings = UpdateSettings()


def flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted keys.

    >>> flatten({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    out: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            out |= flatten(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """The inverse of ``flatten``.

    >>> nest({"a.b": 1, "c": 2})
    {'a': {'b': 1}, 'c': 2}
    """
    out: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        place = out
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return out


def resolve(file: Path | None, flags: dict[str, Any]) -> RunConfig:
    """Settings of a run: ``resolve_as`` for ``RunConfig``."""
    return resolve_as(RunConfig, file, flags)


def resolve_as(kind: type[C], file: Path | None, flags: dict[str, Any]) -> C:
    """Settings from a YAML file, overridden by flags (dotted keys; None means not given).

    Raises:
        UserError: the file is missing or no mapping, or any value or key is wrong; all of the
            wrong ones are named at once.
    """
    data: dict[str, Any] = {}
    if file is not None:
        data = flatten(read_yaml(file))
    data |= {key: value for key, value in flags.items() if value is not None}
    for key in data:
        if any(other.startswith(f"{key}.") for other in data):
            raise UserError(
                f"{file}: {key} is {data[key]!r}, not a section of settings",
                f"write its settings indented below `{key}:`, as `srlm run --dry-run` prints them",
            )
    try:
        return kind.model_validate(nest(data))
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']} (got {e['input']!r})"
            if e["type"] != "missing"
            else f"{'.'.join(str(p) for p in e['loc'])}: missing"
            for e in error.errors()
        ]
        raise UserError(
            "settings: " + "; ".join(lines), "correct them; the command's --help lists the settings"
        ) from None


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML mapping, or a UserError that names the file."""
    if not file.is_file():
        raise UserError(f"{file}: no such file", "give the path of a YAML file of settings")
    try:
        data = yaml.safe_load(file.read_bytes())
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not YAML: {error}", "correct the file") from None
    if not isinstance(data, dict):
        raise UserError(f"{file}: not a mapping of settings", "write `key: value` lines")
    return data


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Settings that differ, one line each: ``update.lr: 0.0005 -> 0.001``."""
    a, b = flatten(one), flatten(other)
    return [
        f"{key}: {a.get(key)!r} -> {b.get(key)!r}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    ]
