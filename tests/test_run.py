"""``srlm run`` whole: on tiny models of four families, on real digits, and on input that is bad."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from srlm import cli, writing
from srlm.policies.linear_softmax import LinearSoftmax
from srlm.policies.load import load
from tests import tiny

Command = Callable[..., int]
SHORT = ["--rounds", "2", "--samples", "4", "--max-tokens", "4", "--held-out", "0.3"]
SHORT += ["--measure-samples", "4", "--prompts-per-step", "8", "--lr", "3e-3", "--quiet"]
ESTIMATES = [
    *("kappa", "failure_fraction", "confidence", "fidelity", "sampling_accuracy"),
    *("greedy_accuracy", "mode_accuracy", "headroom_captured", "entropy", "length"),
    *("kl_to_base", "distinct_responses"),
]
NAMES = ["round", *ESTIMATES, "loss_before", "loss_after", "seconds"]


@pytest.fixture
def srlm(monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command in this process; gives its exit code. Any other exception is a failed test."""

    def command(*arguments: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["srlm", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert isinstance(stop.value.code, int)
        return stop.value.code

    return command


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


# ---- whole runs


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_run_on_every_family(
    family: str, srlm: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny.saved(tmp_path / "model", family)
    x = tiny.texts(24)
    file = tiny.write_prompts(tmp_path / "p.jsonl", x, ["a", "b"] * 12)
    out = tmp_path / "runs" / "mine"
    given = ("run", "--model", model, "--prompts", file, "--out", out, *SHORT)
    assert srlm(*given) == 0
    shown = capsys.readouterr()
    assert "report.html" in shown.out
    rounds = metrics(out)
    assert [line["round"] for line in rounds] == [0, 1, 2]
    for line in rounds:
        assert set(NAMES) <= set(line)
        for name in ESTIMATES:
            assert {"value", "low", "high", "n", "method"} <= set(line[name])
        assert line["kappa"]["value"] >= 1
    assert rounds[0]["loss_before"] is rounds[0]["loss_after"] is None
    assert rounds[1]["loss_after"] < rounds[1]["loss_before"]
    assert {"samples", "pairs", "update", "measure"} <= set(rounds[1]["seconds"])
    page = (out / "report.html").read_text(encoding="utf-8")
    assert len(page) > 10_000
    trained = AutoModelForCausalLM.from_pretrained(out / "rounds" / "002" / "policy")
    base = AutoModelForCausalLM.from_pretrained(model)
    moved = [
        float((a - b).detach().abs().max())
        for a, b in zip(trained.parameters(), base.parameters(), strict=True)
    ]
    assert max(moved) > 1e-3
    assert load(out / "rounds" / "002" / "policy").greedy(x, max_tokens=4).finished_R.any()


def digits(folder: Path) -> tuple[Path, Path]:
    """scikit-learn's digits: softmax regression on 300 labels, and all images as prompts."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    images, labels = load_digits(return_X_y=True)
    vectors = images / 16
    start = LogisticRegression(C=0.07, fit_intercept=False, max_iter=200)
    start.fit(vectors[:300], labels[:300])
    policy = LinearSoftmax(start.coef_.ravel(), tuple("0123456789"))
    policy.save(folder / "model")
    rows = [
        json.dumps({"x": v.round(4).tolist(), "y": int(y)})
        for v, y in zip(vectors[300:1100], labels[300:1100], strict=True)
    ]
    (folder / "digits.jsonl").write_text("\n".join(rows))
    return folder / "model", folder / "digits.jsonl"


def test_a_run_on_digits(srlm: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, file = digits(tmp_path)
    out = tmp_path / "out"
    columns = ["--prompt-column", "x", "--answer-column", "y"]
    square = ["--update", "square", "--beta", "2", "--rounds", "3", "--pairs", "pairs"]
    given = ["--model", model, "--prompts", file, "--out", out, "--held-out", "0.4"]
    assert srlm("run", *given, *columns, *square, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["folder"] == str(out)
    assert answer["stop"] is None
    assert answer["rounds"] == metrics(out)
    kappa = [line["kappa"]["value"] for line in answer["rounds"]]
    accuracy = [line["sampling_accuracy"]["value"] for line in answer["rounds"]]
    assert all(b < a for a, b in pairwise(kappa))
    assert all(b > a for a, b in pairwise(accuracy))
    assert accuracy[-1] <= answer["rounds"][0]["mode_accuracy"]["value"] + 0.02
    assert answer["rounds"][0]["kappa"]["guarantee"] == "exact"


def test_chat_prompts(srlm: Command, tmp_path: Path) -> None:
    words = tiny.tokenizer(template=tiny.TEMPLATE)
    model = tiny.saved(tmp_path / "model", words=words)
    texts = [x.content for x in tiny.texts(16)]
    messages = tiny.prompts([[{"role": "user", "content": text}] for text in texts])
    file = tiny.write_prompts(tmp_path / "p.jsonl", messages)
    given = ["run", "--model", model, "--prompts", file, *SHORT, "--rounds", "1"]
    assert srlm(*given, "--out", tmp_path / "chat") == 0
    assert metrics(tmp_path / "chat")[1]["sampling_accuracy"]["value"] is None
    assert srlm(*given, "--out", tmp_path / "never", "--chat", "never") == 2


def test_the_program_itself(tmp_path: Path) -> None:
    """As a user starts it: nothing but results on standard output, no traceback, exit code 2."""
    tiny.linear().save(tmp_path / "model")
    tiny.write_prompts(tmp_path / "p.jsonl", tiny.vectors(20))
    given = [sys.executable, "-m", "srlm", "run", "--model", str(tmp_path / "model")]
    given += ["--prompts", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "out"), "--rounds=1"]
    given += ["--held-out", "0.3", "--beta", "1", "--stop", "auto", "--json"]
    first = subprocess.run(given, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    said = json.loads(first.stdout)
    assert said["rounds"][1]["round"] == 1
    kept = json.loads((tmp_path / "out/stop.json").read_text())
    assert said["stop"].items() <= kept.items()
    assert said["stop"]["code"] in ("rounds", "floor")
    assert first.stderr == ""
    other = subprocess.run([*given, "--beta", "3"], capture_output=True, text=True, check=False)
    assert other.returncode == 2
    assert other.stdout == ""
    assert "update.beta: 1.0 -> 3.0" in other.stderr
    assert "Traceback" not in other.stderr


# ---- bad input


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and prompts that are fine."""
    folder = tmp_path_factory.mktemp("good")
    tiny.saved(folder / "model")
    tiny.write_prompts(folder / "p.jsonl", tiny.texts(16))
    return folder


Change = Callable[[Path], None]


def _lines(*lines: str) -> Change:
    return lambda folder: (folder / "p.jsonl").write_text("\n".join(lines)) and None


def _missing(name: str) -> Change:
    def change(folder: Path) -> None:
        for file in folder.glob(name):
            file.unlink()

    return change


def _network(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        tiny.network(**changes).save_pretrained(folder / "model")

    return change


def _no_end(folder: Path) -> None:
    tiny.network(eos=None).save_pretrained(folder / "model")
    tiny.tokenizer(eos=False).save_pretrained(folder / "model")


def _cut(folder: Path) -> None:
    file = folder / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _pickle(folder: Path) -> None:
    weights = load_file(folder / "model" / "model.safetensors")
    torch.save(weights, folder / "model" / "pytorch_model.bin")
    (folder / "model" / "model.safetensors").unlink()


def _not_a_number(folder: Path) -> None:
    file = folder / "model" / "model.safetensors"
    weights = load_file(file)
    weights["lm_head.weight"] *= np.nan
    save_file(weights, file, metadata={"format": "pt"})


GOOD = '{"prompt": "abc"}'
LONG = json.dumps({"prompt": "a" * 40})
BAD: dict[str, tuple[Change, list[str], list[str]]] = {
    "no prompts file": (_missing("p.jsonl"), [], ["p.jsonl: no such file"]),
    "empty file": (_lines(""), [], ["p.jsonl: the file is empty"]),
    "malformed lines": (
        _lines(GOOD, "{", GOOD, "[1]", '{"prompt": 3}'),
        [],
        ["p.jsonl: 3 bad lines", "line 2: not JSON", "line 4: not a JSON object", "line 5: "],
    ),
    "no such column": (
        _lines(GOOD),
        ["--prompt-column", "question"],
        ["line 1: no column 'question'", "--prompt-column prompt"],
    ),
    "no such answers": (_lines(GOOD), ["--answer-column", "gold"], ["'gold'", "--answer-column"]),
    "too few to split": (_lines(GOOD), [], ["held-out", "--held-out"]),
    "longer than the context": (
        _lines(GOOD, LONG, '{"prompt": "h"}', *(GOOD.replace("abc", c * 2) for c in "abcdefgh")),
        [],
        ["1 of 11 prompts leave no room", "context of 32", "line 2"],
    ),
    "no tokenizer": (_missing("model/tokenizer*"), [], ["no tokenizer", "save_pretrained"]),
    "no end token": (_no_end, [], ["no end-of-sequence token", "eos_token"]),
    "not a model folder": (_missing("model/config.json"), [], ["config.json"]),
    "broken weights": (_cut, [], ["model.safetensors"]),
    "pickled weights": (_pickle, [], ["pickle"]),
    "weights of another shape": (
        lambda folder: _config(folder, '"hidden_size": 16', '"hidden_size": 32'),
        [],
        ["another shape"],
    ),
    "weights that are no numbers": (_not_a_number, [], ["not numbers"]),
    "enumeration of a network": (
        lambda _: None,
        ["--source", "enumerate"],
        ["cannot be enumerated", "--source sampling"],
    ),
    "no such device": (lambda _: None, ["--device", "abacus"], ["--device abacus"]),
}


def _config(folder: Path, old: str, new: str) -> None:
    file = folder / "model" / "config.json"
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize("name", BAD)
def test_bad_input(
    name: str,
    good: Path,
    srlm: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, the thing and a remedy named, no traceback, and no half-made files."""
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    change, flags, named = BAD[name]
    change(tmp_path)
    given = ["--model", tmp_path / "model", "--prompts", tmp_path / "p.jsonl", *SHORT]
    assert srlm("run", *given, "--out", tmp_path / "out", *flags) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Error: " in shown.err
    assert "\nRemedy: " in shown.err
    for text in named:
        assert text in shown.err
    assert "Traceback" not in shown.err
    assert list(tmp_path.rglob("*.partial")) == []


def test_settings_can_be_mended_until_the_run_has_begun(
    good: Path, srlm: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The remedy named is taken with the same --out."""
    given = ["run", "--model", good / "model", "--prompts", good / "p.jsonl", *SHORT]
    given += ["--out", tmp_path / "out", "--rounds", "1"]
    assert srlm(*given, "--answer-column", "gold") == 2
    assert "--answer-column" in capsys.readouterr().err
    assert srlm(*given) == 0
    assert srlm(*given, "--max-tokens", "3") == 2
    assert "samples.max_tokens: 4 -> 3" in capsys.readouterr().err


def test_a_full_disk(
    good: Path,
    srlm: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2 at the ninth write, and the same command goes on after room is made."""
    given = ["run", "--model", good / "model", "--prompts", good / "p.jsonl", *SHORT]
    given += ["--out", tmp_path / "out", "--rounds", "1"]
    real, left = writing.commit, 9

    def commit(path: Path, write: Callable[[Path], None]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, write)

    with monkeypatch.context() as patch:
        patch.setattr(writing, "commit", commit)
        assert srlm(*given) == 2
    shown = capsys.readouterr().err
    assert "no space left on the disk" in shown
    assert "the same command" in shown
    assert srlm(*given) == 0
    assert len(metrics(tmp_path / "out")) == 2


def test_no_pad_token_is_fine(good: Path, srlm: Command, tmp_path: Path) -> None:
    tiny.saved(tmp_path / "model", words=tiny.tokenizer(pad=False))
    outs = []
    for name, model in (("with", good / "model"), ("without", tmp_path / "model")):
        given = ["--model", model, "--prompts", good / "p.jsonl", *SHORT, "--rounds", "1"]
        assert srlm("run", *given, "--out", tmp_path / name) == 0
        # the reward report reads the text, in which a pad token is no text but an unnamed one is
        outs.append([x | {"seconds": None, "rewards": None} for x in metrics(tmp_path / name)])
    assert outs[0] == outs[1]


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("./nowhere", "no such folder"),
        ("nobody/none-such", "--download"),
        ("p.jsonl", "no such folder"),
    ],
)
def test_models_that_are_not_there(
    model: str,
    named: str,
    good: Path,
    srlm: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(good)
    given = ["run", "--model", model, "--prompts", "p.jsonl", *SHORT]
    assert srlm(*given, "--out", tmp_path / "out") == 2
    shown = capsys.readouterr().err
    assert model in shown
    assert named in shown


def test_a_limit_beyond_the_context_is_lowered_and_said(
    good: Path, srlm: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["run", "--model", good / "model", "--prompts", good / "p.jsonl", *SHORT]
    given += ["--out", tmp_path / "out", "--rounds", "1", "--max-tokens", "256"]
    given.remove("--quiet")
    assert srlm(*given) == 0
    out = capsys.readouterr()
    assert "--max-tokens 256 is lowered to" in out.out + out.err
