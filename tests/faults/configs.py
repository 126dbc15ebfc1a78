"""Settings, in a YAML file and as options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests import tiny
from tests.faults.cases import Case
from tests.faults.models import run_command

NEEDED = ("--model", "m", "--prompts", "p.jsonl")


def options(name: str, *given: str, refused: str = "", also: tuple[str, ...] = ()) -> Case:
    """Options of a run, which says what it would cost and stops."""

    def build(folder: Path) -> Sequence[str]:
        if not refused:
            return run_command(tiny.saved(folder / "model"), folder, *given, "--dry-run")
        return ["run", *NEEDED, *given, "--dry-run"]

    return Case(name, build, refused, also=also)


def yaml(name: str, text: str | bytes, refused: str = "", *also: str) -> Case:
    """A file of settings."""

    def build(folder: Path) -> Sequence[str]:
        file = folder / "settings.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        if not refused:
            model = tiny.saved(folder / "model")
            return run_command(model, folder, "--config", str(file), "--dry-run")
        return ["run", *NEEDED, "--config", str(file), "--dry-run"]

    return Case(name, build, refused, also=also)


def place(name: str, make: str, refused: str) -> Case:
    """A path of settings that is no file."""

    def build(folder: Path) -> Sequence[str]:
        (folder / "loop").symlink_to(folder / "loop")
        (folder / "nowhere.yaml").symlink_to(folder / "none")
        return ["run", *NEEDED, "--config", str(folder / make), "--dry-run"]

    return Case(name, build, refused)


def instead(name: str, *given: str, refused: str, also: tuple[str, ...] = ()) -> Case:
    """Another command line."""
    return Case(name, lambda _: given, refused, also=also)


CONFIGS = (
    options("settings as they should be"),
    yaml("a file as it should be", "rounds: 3\nupdate:\n  lr: 1.0e-3\n"),
    options("three wrong at once", "--lr", "x", "--samples", "1", "--held-out", "1",
            refused="--lr", also=("--samples", "equal to 2", "--held-out", "less than 1")),
    options("not a number", "--lr", "fast", refused="--lr", also=("a valid number", "'fast'")),
    options("NaN", "--beta", "nan", refused="--beta", also=("a finite number",)),
    options("infinite", "--beta", "inf", refused="--beta", also=("a finite number",)),
    options("zero", "--beta", "0", refused="--beta", also=("greater than 0",)),
    options("below zero", "--rounds", "-1", refused="--rounds", also=("equal to 1",)),
    options("half a round", "--rounds", "1.5", refused="--rounds", also=("valid integer",)),
    options("a seed below zero", "--seed", "-1", refused="--seed", also=("equal to 0",)),
    options("beta of 1e-9", "--beta", "1e-9"),
    options("beta of 1e9", "--beta", "1e9"),
    options("an update unheard of", "--update", "wieghted", refused="--update",
            also=("weighted", "square")),
    options("a reward unheard of", "--reward", "likelyhood", refused="--reward",
            also=("likelihood",)),
    options("a weighted reward that is none", "--reward", "judge:a", refused="--reward"),
    options("a reward twice", "--reward", "judge:1,judge:2", refused="twice"),
    options("scores that are none", "--judge-scores", "a", refused="--judge-scores"),
    options("choices that are one", "--judge-choices", "A,A", refused="--judge-choices"),
    options("chat arguments that are none", "--chat-arg", "x", refused="--chat-arg"),
    options("a number format unheard of", "--dtype", "float8", refused="--dtype",
            also=("bfloat16",)),
    options("an option unheard of", "--roundz", "3", refused="--roundz", also=("--rounds",)),
    options("an option without its value", "--lr", refused="--lr"),
    options("an option of another command", "--nodes", "3", refused="--nodes"),
    options("too many figures", "--rounds", "9" * 5000, refused="--rounds"),
    instead("a command unheard of", "messure", refused="measure"),
    instead("no model and no prompts", "run", refused="--model", also=("--prompts",)),
    instead("no folder", "run", *NEEDED, refused="--out"),
    instead("a report of nothing", "report", "nowhere/at/all", refused="no such folder"),
    instead("a claim unheard of", "lab", "no-such-claim", refused="no-such-claim"),
    instead("a time that is none", "measure", *NEEDED, "--budget", "soon", refused="soon"),
    yaml("a key unheard of", "roundz: 3\n", "roundz", "rounds"),
    yaml("a key unheard of in a section", "update:\n  lrr: 1\n", "update.lrr", "update.lr"),
    yaml("a key in the wrong section", "lr: 1.0e-3\n", "lr", "update.lr"),
    yaml("several keys wrong at once", "roundz: 3\nupdate:\n  beta: -1\n  clip: x\n",
         "roundz", "update.beta", "greater than 0", "update.clip", "a valid number"),
    yaml("a section that is a number", "update: 3\n", "update"),
    yaml("a setting that is a section", "rounds:\n  a: 3\n", "rounds"),
    yaml("a number as text", "rounds: three\n", "rounds", "'three'"),
    yaml("true for a number", "rounds: yes\n", "rounds"),
    yaml("a list", "- rounds\n", "mapping"),
    yaml("nothing", "", "mapping"),
    yaml("no YAML", "rounds: [1\n", "not yaml"),
    yaml("not UTF-8", b"model: \xff\n", "not yaml"),
    yaml("a tag that makes objects", "model: !!python/object/apply:os.system ['touch owned']\n",
         "not yaml"),
    yaml("keys that are numbers", "1: 2\n", "1"),
    yaml("a key twice", "rounds: 3\nrounds: 4\n", "twice"),
    yaml("an alias of itself", "update: &a\n  lr: *a\n", "references"),
    yaml("a billion laughs", "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join(9 * [f'*{a}'])}]\n" for a, b in zip("abcdefgh", "bcdefghi",
        strict=True)), "references"),
    yaml("nesting 10,000 deep", "a: " + "[" * 10_000, "not yaml"),
    yaml("a date for a number", "rounds: 2026-01-01\n", "rounds"),
    place("no such file", "none.yaml", "no such file"),
    place("a folder", ".", "no such file"),
    place("links in a circle", "loop", "loop"),
    place("a link that leads nowhere", "nowhere.yaml", "no such file"),
    place("a name too long", "c" * 300, "too long"),
)  # fmt: skip
