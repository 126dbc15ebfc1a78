"""What is wrong with settings: everything at once, with what is allowed and the nearest key."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from srlm.errors import UserError

DEEPEST = 20
"""Levels of a file of settings."""


def options(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted key and field of every setting of a model, sections within it too."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from options(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def told(kind: type[BaseModel], error: ValidationError) -> UserError:
    """All that pydantic finds wrong with settings of a kind, a line each."""
    known = dict(options(kind))
    lines: dict[str, None] = {}
    for one in error.errors():
        key = ".".join(str(part) for part in one["loc"])
        given = repr(one["input"])
        given = given if len(given) <= 60 else f"{given[:57]}..."
        sections = [name for name in known if name.startswith(f"{key}.")]
        if one["type"] == "missing":
            needed = [n for n in sections if known[n].is_required()] or [key]
            lines |= {f"{_named(name, known)}: missing": None for name in needed}
        elif one["type"] == "extra_forbidden":
            lines[f"{key}: no such setting{_nearest(key, list(known))}"] = None
        elif sections:
            lines[f"{key}: {given} is no section of settings, as {sections[0]}"] = None
        elif "error" in one.get("ctx", {}):
            lines[f"{_named(key, known)}: {one['ctx']['error']}"] = None
        else:
            what = one["msg"].replace("Input should be", "must be")
            lines[f"{_named(key, known)}: {given} {what}"] = None
    return UserError(
        "settings: " + "\n  ".join(["", *lines] if len(lines) > 1 else lines),
        "correct them; the command's --help lists the settings",
    )


def plain(kind: Any) -> Any:
    """A type without its checks and without None.

    >>> plain(Annotated[float, "positive"] | None)
    <class 'float'>
    """
    while get_origin(kind) in (Annotated, Union, UnionType):
        kind = get_args(kind)[0]
    return kind


def _named(key: str, known: dict[str, FieldInfo]) -> str:
    """A setting by key and option: ``update.lr (--lr)``."""
    extra = known[key].json_schema_extra if key in known else None
    return f"{key} ({extra['flag']})" if isinstance(extra, dict) else key


def _nearest(key: str, known: list[str]) -> str:
    """A guess at what is meant: the same name in another section, or a name like it."""
    last = key.rpartition(".")[2]
    same = [name for name in known if name.rpartition(".")[2] == last]
    near = difflib.get_close_matches(key, known, n=1)
    ends = {name.rpartition(".")[2]: name for name in known}
    alike = [ends[x] for x in difflib.get_close_matches(last, list(ends), n=1)]
    guess = next(iter(same + near + alike), None)
    return f"; is it {guess}?" if guess else ""


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML mapping, each key once.

    Raises:
        UserError: there is no such file, it is no YAML or no mapping, a key comes twice, or it has
            references (their expansion has no bound) or more than ``DEEPEST`` levels.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file", "give the path of a YAML file of settings")
    text = file.read_bytes()
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST:
                what = "references (*name)" if depth <= DEEPEST else f"over {DEEPEST} levels"
                raise UserError(f"{file}: not YAML for settings: {what}", "write settings out")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{file}: not YAML: {error}", "correct the file") from None
    if not isinstance(data, dict):
        raise UserError(f"{file}: not a mapping of settings", "write `key: value` lines")
    if twice := list(_twice(node)):
        raise UserError(f"{file}: named twice: {', '.join(twice)}", "leave one of them out")
    return data


def _twice(node: Any, prefix: str = "") -> Iterator[str]:
    """Keys that come again in their mapping, with their lines."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        name = str(key.value)
        if name in seen:
            yield f"{prefix}{name} (line {key.start_mark.line + 1})"
        seen.add(name)
        yield from _twice(value, f"{prefix}{name}.")
