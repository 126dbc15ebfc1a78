"""All settings: small validated models, from a YAML file and options; unknown keys fail.

Each setting is written once: type, default, description, and the option that a command gives it.
``config.yaml`` of a run folder is these models as resolved. Nothing here imports torch.
"""

from __future__ import annotations

import json
import math
from copy import copy
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from srlm.errors import UserError
from srlm.settings_errors import read_yaml, told

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


BETA = 0.5
"""Strength of a round, everywhere."""
C = TypeVar("C", bound=BaseModel)


class Settings(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads ``yes`` as true, and pydantic true as 1."""
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and field.annotation is not bool:
            raise PydanticCustomError("not_truth", "true or false")
        return value


def setting(description: str, default: Any = ..., *, flag: str, panel: str, **checks: Any) -> Any:
    """A field of settings with the option that the command line gives it.

    Args:
        description: what ``--help`` says.
        default: required if left out.
        flag: its option.
        panel: the part of ``--help`` that lists it.
        checks: of pydantic's ``Field``: ge, gt, le, lt.
    """
    extra: dict[str, Any] = {"flag": flag, "panel": panel}
    return Field(default, description=description, json_schema_extra=extra, **checks)


def shared(model: type[BaseModel], name: str, *, flag: str, panel: str, **changes: Any) -> Any:
    """The setting ``name`` of another model, with an option of its own.

    Args:
        model: has the setting: its description, default and checks.
        flag, panel: its option here.
        changes: what else is other here: ``default``, ``description``.
    """
    field = copy(model.model_fields[name])
    field.json_schema_extra = {"flag": flag, "panel": panel}
    for key, value in changes.items():
        setattr(field, key, value)
    return field


INPUT, ROUNDS, JUDGE = "Input", "Rounds", "Judge"
SAMPLES, UPDATE, MEASURE = "Samples and pairs", "Update", "Measure"
SEARCH, FORECAST, PILOT, SERVER = "Samples and search", "Forecast", "Pilot", "Server"


class PromptFile(Settings):
    """Where the prompts are and how answers are read."""

    file: str = setting(
        "prompts: JSONL, JSON, CSV, parquet, gzip of each, a folder of them, or - (stdin)",
        flag="--prompts",
        panel=INPUT,
    )
    prompt_column: str = setting(
        "column of the prompts", "prompt", flag="--prompt-column", panel=INPUT
    )
    answer_column: str = setting(
        "column of the answers; a dot leads inside",
        "answer",
        flag="--answer-column",
        panel=INPUT,
    )
    answer: str = setting(
        "how to read a response's answer: auto, exact, text, last-number, boxed, math-verify,"
        " choice, yes-no, regex:PATTERN or MODULE:FUNCTION",
        "auto",
        flag="--answer",
        panel=INPUT,
    )
    chat: Literal["auto", "never"] = setting(
        "apply the tokenizer's chat template, if it has one", "auto", flag="--chat", panel=INPUT
    )
    system: str | None = setting(
        "system prompt before prompts that are text", None, flag="--system", panel=INPUT
    )
    chat_args: str = setting(
        "arguments of the chat template, as enable_thinking=false,depth=2",
        "",
        flag="--chat-arg",
        panel=INPUT,
    )

    @field_validator("chat_args")
    @classmethod
    def _chat_args(cls, value: str) -> str:
        template_arguments(value)
        return value


class PromptSettings(PromptFile):
    """The prompts of a run."""

    held_out: float = setting(
        "share of the prompts held out for measuring, by hash",
        0.1,
        ge=0,
        lt=1,
        flag="--held-out",
        panel=INPUT,
    )


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
    """The samples of a round."""

    prompts: Count | None = setting(
        "training prompts per round, chosen anew each round (default: all)",
        None,
        flag="--prompts-per-round",
        panel=SAMPLES,
    )
    per_prompt: int = setting("samples per prompt", 4, ge=2, flag="--samples", panel=SAMPLES)
    source: Literal["sampling", "enumerate"] = setting(
        "enumerate: every response with its probability (exact policies only)",
        "sampling",
        flag="--source",
        panel=SAMPLES,
    )
    mu: Positive | None = setting(
        "best-of-n, adaptive sampling: keep sampling until k * max p >= mu; misses a mode with"
        " probability exp(-mu)",
        None,
        flag="--mu",
        panel=SAMPLES,
    )
    max_tokens: Count = setting(
        "length limit of a response, tokens", 256, flag="--max-tokens", panel=SAMPLES
    )
    temperature: Positive = setting(
        "of the training samples, for rewards that are no probabilities; all is measured at 1",
        1.0,
        flag="--temperature",
        panel=SAMPLES,
    )
    top_p: float = setting(
        "sample from the likeliest tokens that together have this probability",
        1.0,
        gt=0,
        le=1,
        flag="--top-p",
        panel=SAMPLES,
    )

    @property
    def plain(self) -> bool:
        """Whether the samples are the policy's own, neither tempered nor truncated."""
        return self.temperature == 1 and self.top_p == 1


class PairSettings(Settings):
    """How samples are compared."""

    kind: Literal["auto", "groups", "pairs", "best-worst", "voted"] = setting(
        "groups: all samples of a prompt together; pairs: two by two; best-worst: by reward; voted:"
        " best-worst, weighted by the reward margin; auto: best-worst for dpo and ipo, else groups",
        "auto",
        flag="--pairs",
        panel=SAMPLES,
    )
    reward_floor: float | None = setting(
        "raise rewards to at least the prompt's best minus this, nats",
        None,
        gt=0,
        flag="--reward-floor",
        panel=SAMPLES,
    )


class UpdateSettings(Settings):
    """From pairs to the next policy."""

    kind: Literal["weighted", "square", "best-of-n", "dpo", "ipo"] = setting(
        "weighted: maximum likelihood, weights exp(reward/beta); square: the paper's loss;"
        " best-of-n: maximum likelihood on the best sample; dpo, ipo: preference losses",
        "weighted",
        flag="--update",
        panel=UPDATE,
    )
    beta: Positive = setting(
        "strength of a round: an exact one gives pi^(1 + 1/beta)", BETA, flag="--beta", panel=UPDATE
    )
    epochs: Count | None = setting(
        "passes over a round's data (default: 2)", None, flag="--epochs", panel=UPDATE
    )
    lr: Positive | None = setting(
        "peak learning rate of AdamW (default: by the model's size)",
        None,
        flag="--lr",
        panel=UPDATE,
    )
    prompts_per_step: Count | None = setting(
        "prompts per optimizer step (default: by the model's size and the prompts)",
        None,
        flag="--prompts-per-step",
        panel=UPDATE,
    )
    pass_tokens: Count | None = setting(
        "tokens per forward pass; changes no result (default: what fits in memory)",
        None,
        flag="--pass-tokens",
        panel=UPDATE,
    )
    warmup: float = setting(
        "share of the steps that warm up", 0.1, ge=0, lt=1, flag="--warmup", panel=UPDATE
    )
    weight_decay: float = setting(
        "weight decay of AdamW", 0.0, ge=0, flag="--weight-decay", panel=UPDATE
    )
    clip: Positive = setting("largest gradient norm", 1.0, flag="--clip", panel=UPDATE)
    nll: float = setting(
        "dpo, ipo: weight of -log pi of the preferred response",
        0.0,
        ge=0,
        flag="--nll",
        panel=UPDATE,
    )
    tail: float = setting(
        "weighted: drop a prompt's lowest-weight responses up to this total weight",
        1e-3,
        ge=0,
        lt=1,
        flag="--tail",
        panel=UPDATE,
    )
    lora: int | None = setting(
        "rank of LoRA adapters; 0: train all weights (default: by the model's size)",
        None,
        ge=0,
        flag="--lora",
        panel=UPDATE,
    )
    lora_alpha: Positive | None = setting(
        "LoRA alpha (default: twice the rank)", None, flag="--lora-alpha", panel=UPDATE
    )


AUTO = "auto"
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

    template: str | None = setting(
        "what the judge is asked, with {prompt} and {response} (default: the additive five-point"
        " rubric)",
        None,
        flag="--judge-template",
        panel=JUDGE,
    )
    read: Literal["generated", "expected"] = setting(
        "generated: sample a judgement and read its score; expected: the mean score under the"
        " probabilities of the score tokens, in one forward pass",
        "generated",
        flag="--judge-read",
        panel=JUDGE,
    )
    scores: str = setting(
        "text of each score and its value, as y=1,n=0",
        "0=0,1=1,2=2,3=3,4=4,5=5",
        flag="--judge-scores",
        panel=JUDGE,
    )
    pattern: str = setting(
        "regular expression of the score in a judgement; its first group is read",
        r"(?i)\bscore\b(?: ?\([^()\n]{0,20}\))?\W{0,6}(?:(?:is|of)\b\W{0,6})?"
        r"([-+]?[0-9]+(?:\.[0-9]+)?)",
        flag="--judge-pattern",
        panel=JUDGE,
    )
    judgements: Count = setting(
        "judgements per response, averaged", 3, flag="--judge-judgements", panel=JUDGE
    )
    max_tokens: Count = setting(
        "length limit of a judgement, tokens", 256, flag="--judge-tokens", panel=JUDGE
    )
    compare_template: str | None = setting(
        "comparison of two responses, with {prompt}, {first} and {second}",
        None,
        flag="--judge-compare",
        panel=JUDGE,
    )
    meta_template: str | None = setting(
        "comparison of two judgements, with {prompt}, {first} and {second}; without {second},"
        " each judgement is judged by itself",
        None,
        flag="--judge-meta",
        panel=JUDGE,
    )
    choices: str = setting(
        "what a comparison answers: first is better, second is better",
        "A,B",
        flag="--judge-choices",
        panel=JUDGE,
    )
    train: bool = setting(
        "meta-judge: train on the preferred judgements too",
        False,
        flag="--judge-train",
        panel=JUDGE,
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
    """Names of rewards and their weights; a name alone has weight 1. What ``auto`` stands for is
    settled by the model and the prompts (``srlm.defaults``); before, it is the likelihood.

    >>> reward_parts("judge:1,likelihood:0.1"), reward_parts("judge")
    ({'judge': 1.0, 'likelihood': 0.1}, {'judge': 1.0})

    Raises:
        ValueError: it is not of that form, or a reward is none of ``REWARDS``.
    """
    spec = "likelihood" if spec == AUTO else spec
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

    prompts: Count = setting(
        "held-out prompts, at most", 512, flag="--measure-prompts", panel=MEASURE
    )
    samples: int = setting("samples per prompt", 16, ge=2, flag="--measure-samples", panel=MEASURE)
    nodes: Count = setting(
        "search: prefixes per prompt, at most", 2000, flag="--measure-nodes", panel=MEASURE
    )
    tokens: Count = setting(
        "search: tokens through the model, at most", 1 << 20, flag="--measure-tokens", panel=MEASURE
    )
    seconds: Positive = setting(
        "search: seconds, at most", 120.0, flag="--measure-seconds", panel=MEASURE
    )


class ModelSettings(Settings):
    """The model of every command."""

    model: str = setting("folder of the model, or a hub id", flag="--model", panel=INPUT)
    download: bool = setting(
        "allow the network for a hub id", False, flag="--download", panel=INPUT
    )
    seed: int = setting("seed of everything random", 0, ge=0, flag="--seed", panel=INPUT)
    device: str = setting("auto, cpu, cuda, cuda:1, ...", "auto", flag="--device", panel=INPUT)
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = setting(
        "number format of the weights", "float32", flag="--dtype", panel=INPUT
    )


def kept(spec: str) -> int | None:
    """How many of the last policies a run keeps: N; None for all, 0 for best and last.

    >>> kept("all"), kept("best-and-last"), kept("3")
    (None, 0, 3)

    Raises:
        ValueError: it is none of these.
    """
    if spec in ("all", "best-and-last"):
        return None if spec == "all" else 0
    if not spec.isdecimal() or int(spec) < 1:
        raise ValueError(f"{spec!r} is not all, best-and-last or a number of policies")
    return int(spec)


class RunConfig(ModelSettings):
    """Everything that decides a run's result."""

    prompts: PromptSettings
    rounds: Count = setting("self-rewarding rounds", 5, flag="--rounds", panel=ROUNDS)
    keep: str | None = setting(
        "policies kept: all, best-and-last, or the last N (default: all up to 50 M parameters,"
        " best-and-last above)",
        None,
        flag="--keep",
        panel=ROUNDS,
    )
    stop: Literal["never", "auto"] = setting(
        "auto: early stopping that never looks at the answers",
        "never",
        flag="--stop",
        panel=ROUNDS,
    )
    reward: str = setting(
        f"what rewards a response: {', '.join(REWARDS)}; or a weighted sum, as"
        " judge:1,likelihood:0.1; auto: likelihood for short responses, consistency for longer ones"
        " whose answers can be read",
        AUTO,
        flag="--reward",
        panel=ROUNDS,
    )
    length_tolerance: float | None = setting(
        "among responses whose reward is this close to the prompt's best, prefer the shorter",
        None,
        ge=0,
        flag="--length-tolerance",
        panel=ROUNDS,
    )
    judge: JudgeSettings = JudgeSettings()
    samples: SampleSettings = SampleSettings()
    pairs: PairSettings = PairSettings()
    update: UpdateSettings = UpdateSettings()
    measure: MeasureSettings = MeasureSettings()

    @field_validator("keep")
    @classmethod
    def _keep(cls, value: str | None) -> str | None:
        if value is not None:
            kept(value)
        return value

    @field_validator("reward")
    @classmethod
    def _reward(cls, value: str) -> str:
        reward_parts(value)
        return value


class ProbeConfig(ModelSettings):
    """What ``srlm measure`` and ``srlm forecast`` look at: a model and some prompts."""

    prompts: PromptFile
    most_prompts: Count = setting(
        "prompts looked at, at most, chosen by hash", 256, flag="--most-prompts", panel=INPUT
    )
    samples: int = setting(
        "samples per prompt; forecast: or a file of samples, and no model is needed",
        64,
        ge=2,
        flag="--samples",
        panel=SEARCH,
    )
    max_tokens: Count = shared(SampleSettings, "max_tokens", flag="--max-tokens", panel=SEARCH)
    nodes: Count = shared(MeasureSettings, "nodes", flag="--nodes", panel=SEARCH)
    tokens: Count = shared(MeasureSettings, "tokens", flag="--tokens", panel=SEARCH)
    seconds: Positive = shared(MeasureSettings, "seconds", flag="--seconds", panel=SEARCH)
    mu: Positive | None = setting(
        "measure: adaptive sampling too, until k * max p >= mu; misses a mode with probability"
        " exp(-mu) (default: 5, where search certifies too little and that takes few more samples)",
        None,
        flag="--mu",
        panel=SEARCH,
    )


class PilotSettings(Settings):
    """Rounds that ``srlm forecast --pilot`` runs first."""

    rounds: int = setting(
        "rounds to run first, to see the pace of training", 0, ge=0, flag="--pilot", panel=PILOT
    )
    prompts: Count | None = shared(
        SampleSettings, "prompts", flag="--prompts-per-round", panel=PILOT
    )
    per_prompt: int = shared(SampleSettings, "per_prompt", flag="--pilot-samples", panel=PILOT)
    held_out: float = shared(PromptSettings, "held_out", flag="--held-out", panel=PILOT)
    epochs: Count = shared(UpdateSettings, "epochs", flag="--epochs", panel=PILOT)
    lr: Positive | None = shared(UpdateSettings, "lr", flag="--lr", panel=PILOT)


class ServerSettings(Settings):
    """A server that samples in the place of a model here."""

    url: str | None = setting(
        "address of an OpenAI-compatible server (vLLM, SGLang, llama.cpp), as"
        " http://localhost:8000/v1; --model is its name for the model. Chat completions, or"
        " completions with --chat never. The key is read from OPENAI_API_KEY",
        None,
        flag="--server",
        panel=SERVER,
    )
    concurrency: Count = setting("requests at once", 16, flag="--concurrency", panel=SERVER)
    timeout: Positive = setting(
        "seconds that a request may take", 600.0, flag="--timeout", panel=SERVER
    )
    retries: int = setting(
        "tries more for a request that failed", 4, ge=0, flag="--retries", panel=SERVER
    )


ALL = "all"


def width_of(until: str) -> float | None:
    """What ``--until`` asks for: a width, or None for the verdict.

    >>> width_of("0.05"), width_of("verdict")
    (0.05, None)

    Raises:
        ValueError: it is neither.
    """
    if until == "verdict":
        return None
    try:
        width = float(until)
    except ValueError:
        width = math.nan
    if not 0 < width < 1:
        raise ValueError(f"{until!r} is neither a width between 0 and 1 nor 'verdict'")
    return width


class ForecastConfig(ProbeConfig):
    """``srlm forecast``: a probe, and the training that it is asked about."""

    beta: Positive = shared(UpdateSettings, "beta", flag="--beta", panel=FORECAST)
    rounds: Count = setting("rounds to forecast", 8, flag="--rounds", panel=FORECAST)
    reward: str = setting(
        "what rewards a response, as in srlm run; all: every reward that the samples tell about,"
        " side by side",
        "likelihood",
        flag="--reward",
        panel=FORECAST,
    )
    until: str | None = setting(
        "consistency: 8 samples per prompt first, then more only where the vote is close, until the"
        " verdict is known, or the limit's interval is so wide, as 0.05; at most --samples"
        " (default: --samples of every prompt)",
        None,
        flag="--until",
        panel=FORECAST,
    )
    judge: JudgeSettings = JudgeSettings()
    server: ServerSettings = ServerSettings()
    pilot: PilotSettings = PilotSettings()

    @field_validator("reward")
    @classmethod
    def _reward(cls, value: str) -> str:
        if value != ALL:
            reward_parts(value)
        return value

    @field_validator("until")
    @classmethod
    def _until(cls, value: str | None) -> str | None:
        if value is not None:
            width_of(value)
        return value


class SamplesConfig(Settings):
    """``srlm forecast --samples FILE``: a file of samples in the place of a model."""

    file: str = shared(PromptFile, "file", flag="--samples", panel=SEARCH)
    answer: str = shared(PromptFile, "answer", flag="--answer", panel=INPUT)
    prompts: str | None = setting(
        "right answers, where the samples have none", None, flag="--prompts", panel=INPUT
    )
    beta: Positive = shared(UpdateSettings, "beta", flag="--beta", panel=FORECAST)
    rounds: Count = shared(RunConfig, "rounds", flag="--rounds", panel=FORECAST)
    seed: int = shared(ModelSettings, "seed", flag="--seed", panel=INPUT)


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
        raise told(kind, error) from None


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Settings that differ, one line each: ``update.lr: 0.0005 -> 0.001``."""
    a, b = flatten(one), flatten(other)
    return [
        f"{key}: {a.get(key)!r} -> {b.get(key)!r}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    ]
