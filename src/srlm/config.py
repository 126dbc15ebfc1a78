"""All settings: small validated models, from a YAML file and options; unknown keys fail.

Each setting is written once: type, default, description, and the option that a command gives it.
``config.yaml`` of a run folder is these models as resolved. Nothing here imports torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
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
"""Strength of a round, where a reward has none of its own."""
SCALED = ("weighted", "square")
"""Updates that weigh responses by exp(reward/beta)."""
C = TypeVar("C", bound=BaseModel)


class Settings(BaseModel):
    """Frozen, and an unknown key is an error.

    The option of a setting is ``--``, ``prefix`` and its name, in the part ``panel`` of ``--help``,
    where its field says nothing else.
    """

    panel: ClassVar[str] = "Input"
    prefix: ClassVar[str] = ""
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        for name, field in cls.model_fields.items():
            if isinstance(own := field.json_schema_extra, dict):
                flag = f"--{cls.prefix}{name}".replace("_", "-")
                field.json_schema_extra = {"flag": flag, "panel": cls.panel, **own}

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads ``yes`` as true, and pydantic true as 1."""
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and field.annotation is not bool:
            raise PydanticCustomError("not_truth", "must be no truth value")
        return value


def setting(description: str, default: Any = ..., **checks: Any) -> Any:
    """A field of settings.

    Args:
        description: what ``--help`` says.
        default: required if left out.
        checks: of pydantic's ``Field`` (ge, gt, le, lt); ``flag`` and ``panel`` where they are not
            as ``Settings`` makes them.
    """
    extra: dict[str, Any] = {x: checks.pop(x) for x in ("flag", "panel") if x in checks}
    return Field(default, description=description, json_schema_extra=extra, **checks)


def shared(model: type[BaseModel], name: str, **extra: str) -> Any:
    """The setting ``name`` of another model, with an option of its own; ``flag``, ``panel``: as of
    ``setting``.
    """
    field = copy(model.model_fields[name])
    field.json_schema_extra = dict(extra)
    return field


def read_by(parse: Callable[[str], object]) -> AfterValidator:
    """A text that ``parse`` must be able to read; the text itself is the setting."""

    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


# ---- settings that are small languages


AUTO = "auto"
BETAS = {
    "likelihood": BETA,
    "likelihood-per-token": 0.04,
    "self-certainty": 0.04,
    "consistency": 0.1,
    "judge": 0.1,
    "judge-pairwise": 0.1,
    "meta-judge": 0.1,
}
"""Rewards and their default beta."""
REWARDS = tuple(BETAS)


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


def beta_of(reward: str, update: str = "weighted") -> float:
    """The default strength of a round, by how far a reward tells responses apart: a vote of 8 moves
    in steps of 1/8, a mean of tokens less than their sum. Parts of a sum add up; where pairs alone
    are learned from, the reward's scale is nothing to them.

    >>> [beta_of(x) for x in ("likelihood", "consistency", "consistency:2,likelihood:0.1")]
    [0.5, 0.1, 0.25]
    """
    if update not in SCALED:
        return BETA
    return beta_of_parts(reward_parts(reward))


def beta_of_parts(parts: Mapping[str, float]) -> float:
    """``beta_of`` a reward by its parts and their weights; a score named NAME/WHAT is NAME's, and
    one of another name has ``BETA``."""
    return sum(abs(w) * BETAS.get(name.partition("/")[0], BETA) for name, w in parts.items())


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


def two_choices(spec: str) -> tuple[str, str]:
    """What a comparison answers, FIRST,SECOND.

    >>> two_choices("A,B")
    ('A', 'B')

    Raises:
        ValueError: it is not of that form.
    """
    first, comma, second = spec.partition(",")
    if not (first and comma and second) or first == second or "," in second:
        raise ValueError(f"{spec!r} is not FIRST,SECOND")
    return first, second


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


def seconds_of(text: str) -> float:
    """A time as a person writes it.

    >>> seconds_of("30s"), seconds_of("10m"), seconds_of("1.5h")
    (30.0, 600.0, 5400.0)

    Raises:
        UserError: it is none.
    """
    number, unit = text[:-1], {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
    try:
        value = float(number) * (unit or math.nan)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"--budget {text}: not a time", "write it as 30s, 10m or 2h")
    return value


# ---- settings


class PromptFile(Settings):
    """Where the prompts are and how answers are read."""

    file: str = setting(
        "prompts: JSONL, JSON, CSV, parquet, gzip of each, a folder of them, or - (stdin)",
        flag="--prompts",
    )
    prompt_column: str = setting("column of the prompts", "prompt")
    answer_column: str = setting("column of the answers; a dot leads inside", "answer")
    answer: str = setting(
        "how to read a response's answer: auto, exact, text, last-number, boxed, math-verify,"
        " choice, yes-no, regex:PATTERN or MODULE:FUNCTION",
        "auto",
    )
    chat: Literal["auto", "never"] = setting(
        "apply the tokenizer's chat template, if it has one", "auto"
    )
    system: str | None = setting("system prompt before prompts that are text", None)
    chat_args: Annotated[str, read_by(template_arguments)] = setting(
        "arguments of the chat template, as enable_thinking=false,depth=2", "", flag="--chat-arg"
    )


class PromptSettings(PromptFile):
    """The prompts of a run."""

    held_out: float = setting(
        "share of the prompts held out for measuring, by hash", 0.1, ge=0, lt=1
    )


class SampleSettings(Settings):
    """The samples of a round."""

    panel: ClassVar[str] = "Samples and pairs"

    prompts: Count | None = setting(
        "training prompts per round, chosen anew each round (default: all)",
        None,
        flag="--prompts-per-round",
    )
    per_prompt: int = setting("samples per prompt", 4, ge=2, flag="--samples")
    source: Literal["sampling", "enumerate"] = setting(
        "enumerate: every response with its probability (exact policies only)", "sampling"
    )
    mu: Positive | None = setting(
        "best-of-n, adaptive sampling: keep sampling until k * max p >= mu; misses a mode with"
        " probability exp(-mu)",
        None,
    )
    max_tokens: Count = setting("length limit of a response, tokens", 256)
    temperature: Positive = setting(
        "of the training samples, for rewards that are no probabilities; all is measured at 1", 1.0
    )
    top_p: float = setting(
        "sample from the likeliest tokens that together have this probability", 1.0, gt=0, le=1
    )

    @property
    def plain(self) -> bool:
        """Whether the samples are the policy's own, neither tempered nor truncated."""
        return self.temperature == 1 and self.top_p == 1


class PairSettings(Settings):
    """How samples are compared."""

    panel: ClassVar[str] = "Samples and pairs"

    kind: Literal["auto", "groups", "pairs", "best-worst", "voted"] = setting(
        "groups: all samples of a prompt together; pairs: two by two; best-worst: by reward; voted:"
        " best-worst, weighted by the reward margin; auto: best-worst for dpo and ipo, else groups",
        "auto",
        flag="--pairs",
    )
    reward_floor: float | None = setting(
        "raise rewards to at least the prompt's best minus this, nats", None, gt=0
    )


class UpdateSettings(Settings):
    """From pairs to the next policy."""

    panel: ClassVar[str] = "Update"

    kind: Literal["weighted", "square", "best-of-n", "dpo", "ipo"] = setting(
        "weighted: maximum likelihood, weights exp(reward/beta); square: the paper's loss;"
        " best-of-n: maximum likelihood on the best sample; dpo, ipo: preference losses",
        "weighted",
        flag="--update",
    )
    beta: Positive | None = setting(
        "strength of a round: weights exp(reward/beta), so that an exact one of likelihood gives"
        " pi^(1 + 1/beta) (default: likelihood, and losses on pairs, 0.5; votes and judges 0.1;"
        " per token and self-certainty 0.04)",
        None,
    )
    epochs: Count | None = setting("passes over a round's data (default: 2)", None)
    lr: Positive | None = setting(
        "peak learning rate of AdamW (default: by the model's size)", None
    )
    prompts_per_step: Count | None = setting(
        "prompts per optimizer step (default: by the model's size and the prompts)", None
    )
    pass_tokens: Count | None = setting(
        "tokens per forward pass; changes no result (default: what fits in memory)", None
    )
    warmup: float = setting("share of the steps that warm up", 0.1, ge=0, lt=1)
    weight_decay: float = setting("weight decay of AdamW", 0.0, ge=0)
    clip: Positive = setting("largest gradient norm", 1.0)
    nll: float = setting("dpo, ipo: weight of -log pi of the preferred response", 0.0, ge=0)
    tail: float = setting(
        "weighted: drop a prompt's lowest-weight responses up to this total weight",
        1e-3,
        ge=0,
        lt=1,
    )
    lora: int | None = setting(
        "rank of LoRA adapters; 0: train all weights (default: by the model's size)", None, ge=0
    )
    lora_alpha: Positive | None = setting("LoRA alpha (default: twice the rank)", None)

    @property
    def strength(self) -> float:
        """beta; ``BETA`` while it is left open (``srlm.defaults`` chooses by the reward)."""
        return self.beta or BETA


class JudgeSettings(Settings):
    """How the model judges responses (``--reward judge`` and its kin)."""

    panel: ClassVar[str] = "Judge"
    prefix: ClassVar[str] = "judge-"

    template: str | None = setting(
        "what the judge is asked, with {prompt} and {response} (default: the additive five-point"
        " rubric)",
        None,
    )
    read: Literal["generated", "expected"] = setting(
        "generated: sample a judgement and read its score; expected: the mean score under the"
        " probabilities of the score tokens, in one forward pass",
        "generated",
    )
    scores: Annotated[str, read_by(score_values)] = setting(
        "text of each score and its value, as y=1,n=0", "0=0,1=1,2=2,3=3,4=4,5=5"
    )
    pattern: str = setting(
        "regular expression of the score in a judgement; its first group is read",
        r"(?i)\bscore\b(?: ?\([^()\n]{0,20}\))?\W{0,6}(?:(?:is|of)\b\W{0,6})?"
        r"([-+]?[0-9]+(?:\.[0-9]+)?)",
    )
    judgements: Count = setting("judgements per response, averaged", 3)
    max_tokens: Count = setting("length limit of a judgement, tokens", 256, flag="--judge-tokens")
    compare_template: str | None = setting(
        "comparison of two responses, with {prompt}, {first} and {second}",
        None,
        flag="--judge-compare",
    )
    meta_template: str | None = setting(
        "comparison of two judgements, with {prompt}, {first} and {second}; without {second},"
        " each judgement is judged by itself",
        None,
        flag="--judge-meta",
    )
    choices: Annotated[str, read_by(two_choices)] = setting(
        "what a comparison answers: first is better, second is better", "A,B"
    )
    train: bool = setting("meta-judge: train on the preferred judgements too", False)


class MeasureSettings(Settings):
    """What is measured on the held-out prompts after each round."""

    panel: ClassVar[str] = "Measure"
    prefix: ClassVar[str] = "measure-"

    prompts: Count = setting("held-out prompts, at most", 512)
    samples: int = setting("samples per prompt", 16, ge=2)
    nodes: Count = setting("search: prefixes per prompt, at most", 2000)
    tokens: Count = setting("search: tokens through the model, at most", 1 << 20)
    seconds: Positive = setting("search: seconds, at most; of ray's workers together", 120.0)


class ModelSettings(Settings):
    """The model of every command."""

    model: str = setting("folder of the model, or a hub id")
    download: bool = setting("allow the network for a hub id", False)
    seed: int = setting("seed of everything random", 0, ge=0)
    device: str = setting("auto, cpu, cuda, cuda:1, ...", "auto")
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = setting(
        "number format of the weights", "float32"
    )


class EngineSettings(Settings):
    """What makes samples. No setting here decides what they are of."""

    panel: ClassVar[str] = "Engine"

    kind: Literal["local", "server", "vllm", "ray"] = setting(
        "what makes the samples (run: the training samples): this process; OpenAI-compatible"
        " servers; vLLM on this machine; workers of a Ray cluster, to the same bytes as this"
        " process, which search and judge too (run: and make the held-out samples)",
        "local",
        flag="--engine",
    )
    url: str | None = setting(
        "server: its address, as http://localhost:8000/v1, or several with commas between."
        " forecast without --engine: a server (vLLM, SGLang, llama.cpp) in the place of a model"
        " here; --model is its name for the model. Chat completions, or completions with --chat"
        " never. The key is read from OPENAI_API_KEY",
        None,
        flag="--server",
    )
    served_model: str | None = setting(
        "server: its name for the model (default: the only one that it has)", None
    )
    reload: str | None = setting(
        "server: command after which it serves the weights in the folder {policy} (default: vLLM's"
        " reload_weights, where it runs with VLLM_SERVER_DEV_MODE=1)",
        None,
    )
    ray_address: str | None = setting(
        "ray: HOST:PORT of its head (default: RAY_ADDRESS, or a cluster started on this machine)",
        None,
    )
    concurrency: Count = setting("server: requests at once", 16)
    timeout: Positive = setting(
        "seconds that a request, a reload, or a shard of vLLM may take", 600.0
    )
    retries: int = setting("server: tries more for a request that failed", 4, ge=0)
    rescore: float = setting(
        "server, vllm: share of the samples whose log-probabilities are checked; 1: all are made"
        " here, and a server is asked for none",
        0.05,
        gt=0,
        le=1,
    )
    gap: Positive = setting(
        "server, vllm: largest mean gap of a response's log-probability, nats; over it all samples"
        " are scored here",
        0.1,
    )


class RunConfig(ModelSettings):
    """Everything that decides a run's result."""

    panel: ClassVar[str] = "Rounds"

    prompts: PromptSettings
    rounds: Count = setting("self-rewarding rounds", 5)
    keep: Annotated[str, read_by(kept)] | None = setting(
        "policies kept: all, best-and-last, or the last N (default: all up to 50 M parameters,"
        " best-and-last above)",
        None,
    )
    stop: Literal["never", "auto"] = setting(
        "auto: early stopping that never looks at the answers", "never"
    )
    reward: Annotated[str, read_by(reward_parts)] = setting(
        f"what rewards a response: {', '.join(REWARDS)}; or a weighted sum, as"
        " judge:1,likelihood:0.1; auto: likelihood for short responses, consistency for longer ones"
        " whose answers can be read",
        AUTO,
    )
    length_tolerance: float | None = setting(
        "among responses whose reward is this close to the prompt's best, prefer the shorter",
        None,
        ge=0,
    )
    judge: JudgeSettings = JudgeSettings()
    samples: SampleSettings = SampleSettings()
    engine: EngineSettings = EngineSettings()
    pairs: PairSettings = PairSettings()
    update: UpdateSettings = UpdateSettings()
    measure: MeasureSettings = MeasureSettings()


class ProbeConfig(ModelSettings):
    """What ``srlm measure`` and ``srlm forecast`` look at: a model and some prompts."""

    panel: ClassVar[str] = "Samples and search"

    prompts: PromptFile
    most_prompts: Count = setting("prompts looked at, at most, chosen by hash", 256, panel="Input")
    samples: int = setting(
        "samples per prompt; forecast: or a file of samples, and no model is needed", 64, ge=2
    )
    max_tokens: Count = shared(SampleSettings, "max_tokens")
    nodes: Count = shared(MeasureSettings, "nodes")
    tokens: Count = shared(MeasureSettings, "tokens")
    seconds: Positive = shared(MeasureSettings, "seconds")
    mu: Positive | None = setting(
        "measure: adaptive sampling too, until k * max p >= mu; misses a mode with probability"
        " exp(-mu) (default: 5, where search certifies too little and that takes few more samples)",
        None,
    )
    engine: EngineSettings = EngineSettings()


class PilotSettings(Settings):
    """Rounds that ``srlm forecast --pilot`` runs first."""

    panel: ClassVar[str] = "Pilot"

    rounds: int = setting(
        "rounds to run first, to see the pace of training", 0, ge=0, flag="--pilot"
    )
    prompts: Count | None = shared(SampleSettings, "prompts", flag="--prompts-per-round")
    per_prompt: int = shared(SampleSettings, "per_prompt", flag="--pilot-samples")
    held_out: float = shared(PromptSettings, "held_out")
    epochs: Count = shared(UpdateSettings, "epochs")
    lr: Positive | None = shared(UpdateSettings, "lr")


class ForecastConfig(ProbeConfig):
    """``srlm forecast``: a probe, and the training that it is asked about."""

    panel: ClassVar[str] = "Forecast"

    beta: Positive | None = shared(UpdateSettings, "beta")
    rounds: Count = setting("rounds to forecast", 8)
    reward: Annotated[str, read_by(lambda x: x == ALL or reward_parts(x))] = setting(
        "what rewards a response, as in srlm run; all: every reward that the samples tell about,"
        " side by side",
        "likelihood",
    )
    until: Annotated[str, read_by(width_of)] | None = setting(
        "consistency: 8 samples per prompt first, then more only where the vote is close, until the"
        " verdict is known, or the limit's interval is so wide, as 0.05; at most --samples"
        " (default: --samples of every prompt)",
        None,
    )
    judge: JudgeSettings = JudgeSettings()
    pilot: PilotSettings = PilotSettings()


class SamplesConfig(Settings):
    """``srlm forecast --samples FILE``: a file of samples in the place of a model."""

    panel: ClassVar[str] = "Forecast"

    file: str = shared(PromptFile, "file", flag="--samples", panel="Samples and search")
    answer: str = shared(PromptFile, "answer", panel="Input")
    prompts: str | None = setting("right answers, where the samples have none", None, panel="Input")
    beta: Positive | None = shared(UpdateSettings, "beta")
    rounds: Count = shared(RunConfig, "rounds")
    seed: int = shared(ModelSettings, "seed", panel="Input")


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
