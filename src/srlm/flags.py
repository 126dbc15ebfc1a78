"""Flags made of settings: a command has one for each setting of its model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

F = TypeVar("F", bound=Callable[..., None])

Flags = dict[str, dict[str, str]]
"""By panel: flag and dotted key of a setting. Help, type and default are the setting's own."""

RUN: Flags = {
    "Input": {
        "--model": "model",
        "--download": "download",
        "--prompts": "prompts.file",
        "--prompt-column": "prompts.prompt_column",
        "--answer-column": "prompts.answer_column",
        "--answer": "prompts.answer",
        "--held-out": "prompts.held_out",
        "--chat": "prompts.chat",
        "--system": "prompts.system",
        "--chat-arg": "prompts.chat_args",
    },
    "Rounds": {
        "--rounds": "rounds",
        "--stop": "stop",
        "--seed": "seed",
        "--reward": "reward",
        "--length-tolerance": "length_tolerance",
        "--device": "device",
        "--dtype": "dtype",
    },
    "Judge": {
        "--judge-template": "judge.template",
        "--judge-read": "judge.read",
        "--judge-scores": "judge.scores",
        "--judge-pattern": "judge.pattern",
        "--judge-judgements": "judge.judgements",
        "--judge-tokens": "judge.max_tokens",
        "--judge-compare": "judge.compare_template",
        "--judge-meta": "judge.meta_template",
        "--judge-choices": "judge.choices",
        "--judge-train": "judge.train",
    },
    "Samples and pairs": {
        "--prompts-per-round": "samples.prompts",
        "--samples": "samples.per_prompt",
        "--mu": "samples.mu",
        "--max-tokens": "samples.max_tokens",
        "--source": "samples.source",
        "--pairs": "pairs.kind",
        "--reward-floor": "pairs.reward_floor",
    },
    "Update": {
        "--update": "update.kind",
        "--beta": "update.beta",
        "--epochs": "update.epochs",
        "--lr": "update.lr",
        "--prompts-per-step": "update.prompts_per_step",
        "--pass-tokens": "update.pass_tokens",
        "--tail": "update.tail",
        "--warmup": "update.warmup",
        "--weight-decay": "update.weight_decay",
        "--clip": "update.clip",
        "--nll": "update.nll",
        "--lora": "update.lora",
        "--lora-alpha": "update.lora_alpha",
    },
    "Measure": {
        "--measure-prompts": "measure.prompts",
        "--measure-samples": "measure.samples",
        "--measure-nodes": "measure.nodes",
        "--measure-tokens": "measure.tokens",
        "--measure-seconds": "measure.seconds",
    },
}


PROBE: Flags = {
    "Input": {
        "--model": "model",
        "--download": "download",
        "--prompts": "prompts.file",
        "--prompt-column": "prompts.prompt_column",
        "--answer-column": "prompts.answer_column",
        "--answer": "prompts.answer",
        "--chat": "prompts.chat",
        "--system": "prompts.system",
        "--chat-arg": "prompts.chat_args",
        "--most-prompts": "most_prompts",
    },
    "Draws and search": {
        "--samples": "samples",
        "--max-tokens": "max_tokens",
        "--nodes": "nodes",
        "--tokens": "tokens",
        "--seconds": "seconds",
        "--mu": "mu",
        "--seed": "seed",
        "--device": "device",
        "--dtype": "dtype",
    },
}
PILOT = {
    "--pilot": "pilot",
    "--prompts-per-round": "train.prompts",
    "--pilot-samples": "train.per_prompt",
    "--held-out": "prompts.held_out",
    "--epochs": "update.epochs",
    "--lr": "update.lr",
}
FORECAST: Flags = {
    "Forecast": {"--beta": "beta", "--rounds": "rounds"},
    "Pilot": PILOT,
} | PROBE


def with_settings(model: type[BaseModel], flags: Flags) -> Callable[[F], F]:
    """Give a command an option for each setting of ``model`` in the place of its ``**flags``.

    typer reads a function's signature, and this one is written from ``flags``.
    """

    def give(command: F) -> F:
        own = inspect.signature(command, eval_str=True).parameters.values()
        kept = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.kind is not p.VAR_KEYWORD]
        made = [_parameter(flag, _setting(model, key), panel) for flag, key, panel in _flags(flags)]
        vars(command)["__signature__"] = inspect.Signature([*made, *kept])
        return command

    return give


def by_key(flags: Flags, values: dict[str, str | bool | None]) -> dict[str, str | bool | None]:
    """The options' values by dotted key, as ``config.resolve`` takes them."""
    return {key: values[_name(flag)] for flag, key, _ in _flags(flags)}


def _flags(flags: Flags) -> Iterator[tuple[str, str, str]]:
    """Flag, dotted key and panel."""
    for panel, rows in flags.items():
        for flag, key in rows.items():
            yield flag, key, panel


def _name(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _setting(model: type[BaseModel], key: str) -> FieldInfo:
    place: Any = model
    *path, last = key.split(".")
    for part in path:
        place = place.model_fields[part].annotation
    field: FieldInfo = place.model_fields[last]
    return field


def _parameter(flag: str, setting: FieldInfo, panel: str) -> inspect.Parameter:
    """The option of a setting; None where it is not given.

    Values stay text until ``resolve`` sees them, so that all wrong ones are named at once.
    """
    switch = setting.annotation is bool
    option = typer.Option(
        flag,
        help=_help(setting),
        metavar=" " if switch else _metavar(setting.annotation),
        rich_help_panel=panel,
    )
    kind = bool if switch else str
    return inspect.Parameter(
        _name(flag),
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _help(setting: FieldInfo) -> str:
    """Description, choices and default."""
    kind, default = setting.annotation, setting.default
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    facts = ["|".join(choices)] if len(choices) > 1 else []
    if not (setting.is_required() or default is None or kind is bool):
        facts.append(f"default {default:g}" if kind is float else f"default {default}")
    return f"{setting.description} ({', '.join(facts)})" if facts else f"{setting.description}"


def _metavar(kind: Any) -> str:
    """What a setting's value looks like.

    >>> _metavar(float | None), _metavar(Literal["a", "b"])
    ('NUMBER', 'NAME')
    """
    if get_origin(kind) is Literal:
        return "NAME"
    if get_origin(kind) in (Annotated, Union, UnionType):
        return _metavar(get_args(kind)[0])
    return {str: "TEXT", int: "INT", float: "NUMBER"}[kind]
