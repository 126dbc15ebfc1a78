from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from srlm.config import RunConfig, differences, flatten, nest, resolve
from srlm.errors import UserError

pytestmark = pytest.mark.smoke

NEEDED = {"model": "m", "prompts.file": "p.jsonl"}


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, "model: m\nprompts: {file: p.jsonl}\nseed: 3\nupdate: {lr: 1.0e-3}\n")
    config = resolve(file, {"seed": "4", "samples.per_prompt": "2", "update.beta": None})
    assert (config.seed, config.update.lr, config.samples.per_prompt) == (4, 1e-3, 2)
    assert config.update.beta == RunConfig.model_fields["update"].default.beta


def test_what_is_written_is_read_back_the_same(tmp_path: Path) -> None:
    config = resolve(None, NEEDED | {"measure.seconds": "1.5", "update.lr": 1e-5, "seed": 7})
    file = write(tmp_path, yaml.safe_dump(config.model_dump(mode="json")))
    assert resolve(file, {}) == config


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"model": "m"}, ["prompts.file (--prompts): missing"]),
        (
            {"prompts.prompt_column": "q"},
            ["model (--model): missing", "prompts.file (--prompts): missing"],
        ),
        (
            NEEDED | {"rounds": 0, "samples.per_prompt": 1},
            ["--rounds): 0 must be greater than or equal to 1", "--samples): 1 must be"],
        ),
        (NEEDED | {"update.kind": "best"}, ["'weighted', 'square'", "'best'"]),
        (NEEDED | {"prompts.held_out": 1.0}, ["prompts.held_out"]),
        (NEEDED | {"update.lr": "nan"}, ["update.lr"]),
        (NEEDED | {"update.lr": "inf"}, ["update.lr"]),
        (NEEDED | {"update.rate": 1}, ["update.rate: no such setting"]),
        (NEEDED | {"speed": 1}, ["speed: no such setting"]),
    ],
)
def test_all_wrong_settings_are_named(flags: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(UserError) as error:
        resolve(None, flags)
    for name in named:
        assert name in error.value.problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- 1\n", "not a mapping"),
        ("", "not a mapping"),
        ("a: [1\n", "not YAML"),
        ("prompts: 3\nmodel: m\n", "prompts: "),
        ("prompts: p.jsonl\n", "prompts is 'p.jsonl', not a section"),
        ("1: 2\n", "1: no such"),
    ],
)
def test_files_that_are_no_settings(tmp_path: Path, text: str, problem: str) -> None:
    flags = {"prompts.answer": "boxed"} if "section" in problem else {}
    with pytest.raises(UserError, match=problem):
        resolve(write(tmp_path, text), flags)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(b"model: \xff\n")
    with pytest.raises(UserError, match="not YAML"):
        resolve(file, {})


def test_a_missing_file() -> None:
    with pytest.raises(UserError, match=r"none\.yaml: no such file"):
        resolve(Path("none.yaml"), {})


def test_settings_are_frozen() -> None:
    config = resolve(None, NEEDED)
    with pytest.raises(ValidationError):
        config.seed = 1  # type: ignore[misc]


def test_every_setting_is_described() -> None:
    def bare(model: Any, prefix: str = "") -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                found += bare(field.annotation, f"{prefix}{name}.")
            elif not field.description:
                found.append(prefix + name)
        return found

    assert bare(RunConfig) == []


def test_differences_are_named_line_by_line() -> None:
    one = resolve(None, NEEDED).model_dump()
    two = resolve(None, NEEDED | {"seed": 1, "update.lr": 1e-3}).model_dump()
    assert differences(one, one) == []
    assert differences(one, two) == ["seed: 0 -> 1", "update.lr: None -> 0.001"]


names = st.text("abc", min_size=1, max_size=2)
trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3), max_leaves=8
).filter(lambda tree: isinstance(tree, dict))


@given(trees)
def test_nest_is_the_inverse_of_flatten(tree: dict[str, Any]) -> None:
    assert nest(flatten(tree)) == tree
