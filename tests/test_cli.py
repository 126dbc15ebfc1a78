from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from srlm import cli
from srlm.config import ForecastConfig, ProbeConfig, RunConfig, flatten, resolve
from srlm.errors import UserError
from tests import tiny

NEEDED = ["--model", "m", "--prompts", "p.jsonl"]


@pytest.fixture
def srlm(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command in this process; gives its exit code."""

    def command(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["srlm", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert isinstance(stop.value.code, int)
        return stop.value.code

    return command


def loop_that(monkeypatch: pytest.MonkeyPatch, act: Callable[..., Any]) -> None:
    """Put another ``run`` in the place of ``srlm.runner``'s."""
    runner = types.ModuleType("srlm.runner")
    runner.run, runner.follow = act, None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "srlm.runner", runner)


def raising(error: BaseException) -> Callable[..., Any]:
    def act(*_: Any, **__: Any) -> Any:
        raise error

    return act


def test_every_setting_has_one_flag() -> None:
    keys = [key for key, _ in cli.options(RunConfig)]
    every = flatten(resolve(None, {"model": "m", "prompts.file": "p"}).model_dump())
    assert sorted(keys) == sorted(every)
    for model in (RunConfig, ProbeConfig, ForecastConfig):
        flags = [field.json_schema_extra["flag"] for _, field in cli.options(model)]  # type: ignore[index, call-overload]
        assert len(flags) == len(set(flags))


def test_dry_run_prints_settings_that_can_be_given_back(
    srlm: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tiny.saved(tmp_path / "lm")
    tiny.write_prompts(tmp_path / "p.jsonl", tiny.texts(20))
    before = sorted(tmp_path.rglob("*"))
    given = ["--model", str(tmp_path / "lm"), "--prompts", str(tmp_path / "p.jsonl")]
    given += ["--lr", "1e-3", "--prompts-per-round", "9", "--measure-samples", "3"]
    given += ["--held-out", "0.3"]
    assert srlm("run", *given, "--download", "--dry-run", "--out", str(tmp_path / "out")) == 0
    said = capsys.readouterr()
    text = said.out
    assert "Cost: " in said.err
    assert sorted(tmp_path.rglob("*")) == before
    config = RunConfig.model_validate(yaml.safe_load(text))
    assert (config.update.lr, config.samples.prompts, config.measure.samples) == (1e-3, 9, 3)
    assert config.download
    assert (config.update.epochs, config.reward) == (2, "likelihood")  # nothing is left open
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert srlm("run", "--config", str(file), "--dry-run", "--json") == 0
    assert RunConfig.model_validate(json.loads(capsys.readouterr().out)) == config


def test_the_run_gets_settings_and_folder(
    srlm: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def act(config: RunConfig, out: Path, **_: Any) -> Any:
        seen.extend([config, out])
        raise UserError("enough", "stop")

    loop_that(monkeypatch, act)
    assert srlm("run", *NEEDED, "--samples", "4", "--out", "runs/a") == 2
    expected = {"model": "m", "prompts.file": "p.jsonl", "samples.per_prompt": 4}
    assert seen == [resolve(None, expected), Path("runs/a")]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run"], ["(--model): missing", "(--prompts): missing"]),
        (["run", *NEEDED, "--lr", "x", "--samples", "1"], ["update.lr", "samples.per_prompt"]),
        (["run", *NEEDED], ["--out: missing"]),
        (["run", "--config", "none.yaml"], ["none.yaml: no such file"]),
    ],
)
def test_what_the_user_can_put_right(
    srlm: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    named: list[str],
) -> None:
    assert srlm(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("Error: ")
    assert "\nRemedy: " in shown.err
    for name in named:
        assert name in shown.err


def test_unknown_options_exit_with_2(srlm: Callable[..., int]) -> None:
    assert srlm("run", "--bogus", "1") == 2
    assert srlm("demo", "--start", "bogus") == 2


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "runs/a/samples.parquet"),
        OSError(errno.EDQUOT, "Disk quota exceeded", "runs/a/samples.parquet"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_full_disk(
    srlm: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    loop_that(monkeypatch, raising(error))
    assert srlm("run", *NEEDED, "--out", "runs/a") == 2
    shown = capsys.readouterr().err
    assert "no space left on the disk" in shown
    assert "the same command" in shown
    assert ("samples.parquet" in shown) == isinstance(error, OSError)


def test_a_bug_is_raised_on(monkeypatch: pytest.MonkeyPatch) -> None:
    loop_that(monkeypatch, raising(ValueError("a bug")))
    monkeypatch.setattr(sys, "argv", ["srlm", "run", *NEEDED, "--out", "runs/a"])
    with pytest.raises(ValueError, match="a bug"):
        cli.main()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(number: signal.Signals) -> None:
    code = """
import signal, sys, time, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs
runner = types.ModuleType("srlm.runner")
def run(*_, **__):
    print("ready", flush=True)
    time.sleep(60)
runner.run, runner.follow = run, None
sys.modules["srlm.runner"] = runner
sys.argv = "srlm run --model m --prompts p --out runs/a".split()
from srlm.cli import main
main()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, shown = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "The same command continues" in shown
    assert "Traceback" not in shown


def test_a_file_of_samples_is_forecast_without_a_model(
    srlm: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"prompt": f"p{i}", "responses": ["1"] * 5 + ["2"] * 3, "answer": "1"} for i in range(9)
    ]
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["forecast", "--samples", str(file), "--answer", "last-number"]
    assert srlm(*given, "--json", str(tmp_path / "found.json")) == 0
    assert json.loads((tmp_path / "found.json").read_text())
    assert capsys.readouterr().out
    assert srlm(*given, "--model", "m") == 2
    assert "--model with --samples FILE" in capsys.readouterr().err
