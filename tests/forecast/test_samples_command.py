"""``srlm forecast --samples FILE``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from srlm.cli import main
from tests.engines.make_files import FILES, SUMS


def srlm(monkeypatch: pytest.MonkeyPatch, *words: Any) -> int:
    monkeypatch.setattr("sys.argv", ["srlm", *map(str, words)])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_a_file_is_forecast(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, out = tmp_path / "p.jsonl", tmp_path / "f.json"
    prompts.write_text("".join(json.dumps({"prompt": p, "answer": a}) + "\n" for p, a in SUMS))
    words = ["--samples", FILES / "vllm.jsonl", "--json", out]  # --answer auto: all are numbers
    assert not srlm(monkeypatch, "forecast", *words, "--prompts", prompts, "--rounds", 2)
    found = json.loads(out.read_text())
    assert (found["format"], found["answered"], len(found["paths"][0]["accuracy"])) == (
        "vllm",
        4,
        3,
    )
    printed = capsys.readouterr().out
    assert found["verdict"].upper() in printed and "vllm" in printed


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--model", "m"], "model"),
        (["--nodes", "8"], "nodes"),
        (["--answer", "tarot"], "tarot"),
        (["--beta", "0"], "beta"),
    ],
)
def test_what_a_file_cannot_use_is_named(
    words: list[str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["forecast", "--samples", FILES / "verl.jsonl", *words]
    assert srlm(monkeypatch, *given) == 2
    assert named in capsys.readouterr().err
