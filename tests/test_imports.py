"""Every module imports, the light ones stay light, and imports point one way."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import srlm

ROOT = Path(srlm.__file__).parent
HEAVY = {"torch", "transformers", "sklearn", "plotly", "pyarrow", "scipy", "numpy"}


def name_of(file: Path) -> str:
    parts = ("srlm", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted(ROOT.rglob("*.py"))}


def imports(name: str) -> set[str]:
    """The modules of srlm that a module imports, anywhere in it."""
    found: set[str] = set()
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names} | {base}
    return found & FILES.keys()


def under(name: str, *places: str) -> bool:
    return any(name == f"srlm.{place}" or name.startswith(f"srlm.{place}.") for place in places)


@pytest.mark.parametrize("name", sorted(FILES))
def test_module_imports(name: str) -> None:
    importlib.import_module(name)


@pytest.mark.parametrize(
    "code",
    [
        "import srlm, srlm.cli, srlm.config, srlm.errors, srlm.flags, srlm.progress",
        "import sys; sys.argv = ['srlm', '--help']; from srlm.cli import main; main()",
        "import sys; sys.argv = ['srlm', 'run', '--help']; from srlm.cli import main; main()",
        "import sys; sys.argv = 'srlm run --model m --prompts p --dry-run'.split()\n"
        "from srlm.cli import main; main()",
    ],
)
def test_light_imports(code: str) -> None:
    lines = [
        "import atexit, sys",
        f"atexit.register(lambda: print(sorted({HEAVY} & sys.modules.keys()), file=sys.stderr))",
        code,
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"


# Who may not import whom. The flow is types <- stages <- loop <- cli.
LOOP = ("loop", "durable")
COMMANDS = ("cli", "flags", "probe", "pilot", "demo.show")
BASICS = ("types", "errors", "config")
STAGES = ("data", "grading", "rewards", "pairs", "losses", "policies")
BESIDE = ("measure", "theory", "report", "forecast", "run_folder")
FORBIDDEN = [
    (BASICS, (*STAGES, "train", *BESIDE, "lab", *LOOP, *COMMANDS, "progress", "demo")),
    ((*STAGES, "train"), (*LOOP, *COMMANDS, "report", "lab", "demo")),
    (BESIDE, (*LOOP, *COMMANDS, "lab")),
    (("lab",), ("durable", *COMMANDS)),
    (("theory",), ("policies", "train", "run_folder", "report", "demo")),
    (("demo",), (*LOOP, *COMMANDS)),
    (LOOP, COMMANDS),
    (("progress",), (*STAGES, "train", *BESIDE, "lab", *LOOP, *COMMANDS)),
]


@pytest.mark.parametrize(("who", "whom"), FORBIDDEN)
def test_imports_point_one_way(who: tuple[str, ...], whom: tuple[str, ...]) -> None:
    wrong = [
        f"{name} imports {other}"
        for name in FILES
        if under(name, *who) and not under(name, *COMMANDS)
        for other in sorted(imports(name))
        if under(other, *whom)
    ]
    assert not wrong


def test_the_lab_runs_the_loop_by_its_public_face() -> None:
    """The lab tests the production loop, so it calls ``align``; nothing behind it."""
    for name in FILES:
        if under(name, "lab"):
            for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module == "srlm.loop":
                    assert {alias.name for alias in node.names} <= {"align", "Memory", "Recipe"}


def test_the_reader_of_imports_sees_them() -> None:
    assert {"srlm.errors", "srlm.types"} <= imports("srlm.data")
    assert "srlm.loop" in imports("srlm.cli")
    assert imports("srlm.errors") == set()
