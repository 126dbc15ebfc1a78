"""Every module imports, the light ones stay light, and imports point one way without a cycle."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import srlm

ROOT = Path(srlm.__file__).parent
HEAVY = {"torch", "transformers", "sklearn", "plotly", "pyarrow", "scipy", "numpy"}

LAYERS = (
    ("types", "errors"),
    ("boundary", "settings_errors"),
    ("config", "progress", "writing"),
    ("math_worker",),
    ("math_answers",),
    ("grading", "rows"),
    ("data", "losses", "theory", "engines"),
    ("policies",),
    ("samples", "pairs", "cost"),
    ("engines.base", "engines.served", "engines.vllm", "engines.cluster", "engines.opened"),
    ("exact_updates",),
    ("train",),
    ("parallel",),
    ("defaults",),
    ("measure.intervals",),
    ("rewards",),
    ("measure",),
    ("stopping", "run_cost"),
    ("run_folder",),
    ("forecast",),
    ("rounds",),
    ("loop",),
    ("report", "trackers"),
    ("watch",),
    ("demo.base", "demo.corpus", "demo.network", "demo.paths", "demo.verdicts"),
    ("lab",),
    ("runner",),
    ("integrations",),
    ("samples_file",),
    ("probe", "instruct"),
    ("demo",),
    ("cli",),
    ("__main__",),
    ("__main__",),
)
"""From the bottom to the top. A module imports from its own row or from rows below."""


def name_of(file: Path) -> str:
    parts = ("srlm", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted(ROOT.rglob("*.py"))}


def imports(name: str) -> set[str]:
    """The modules of srlm that a module imports, anywhere in it; of a package, the module meant."""
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
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                if whole != "srlm.__version__":
                    found.add(whole if whole in FILES else base)
    return (found & FILES.keys()) - {name}


GRAPH = {name: imports(name) for name in FILES if name != "srlm"}


def layer(name: str) -> int:
    """The row of a module: of the longest name in ``LAYERS`` that it is, or lies in."""
    inside = [
        (len(place), row)
        for row, places in enumerate(LAYERS)
        for place in places
        if f"{name}.".startswith(f"srlm.{place}.")
    ]
    assert inside, f"{name} is in no layer"
    return max(inside)[1]


def package(name: str) -> str:
    """The package of the second level, or the module that lies there."""
    return ".".join(name.split(".")[:2])


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """A cycle, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("name", sorted(FILES))
def test_module_imports(name: str) -> None:
    importlib.import_module(name)


@pytest.mark.parametrize(
    "code",
    [
        "import srlm, srlm.cli, srlm.config, srlm.errors, srlm.progress",
        "import srlm; srlm.RunConfig, srlm.UserError, dir(srlm)",
        "import sys; sys.argv = ['srlm', '--help']; from srlm.cli import main; main()",
        "import sys; sys.argv = ['srlm', 'run', '--help']; from srlm.cli import main; main()",
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


def test_no_cycle_between_modules() -> None:
    assert cycle(GRAPH) == []


def test_no_cycle_between_packages() -> None:
    between: dict[str, set[str]] = {}
    for name, others in GRAPH.items():
        found = between.setdefault(package(name), set())
        found |= {package(other) for other in others} - {package(name)}
    assert cycle(between) == []


def test_no_import_points_upwards() -> None:
    upwards = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in sorted(others)
        if layer(other) > layer(name)
    ]
    assert upwards == []


def test_the_reader_of_imports_sees_them() -> None:
    assert {"srlm.errors", "srlm.types"} <= GRAPH["srlm.data"]
    assert "srlm.runner" in GRAPH["srlm.cli"]
    assert "srlm.rounds" in GRAPH["srlm.loop"]
    assert GRAPH["srlm.errors"] == set()
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


@pytest.mark.parametrize("module", ["srlm.samples_file", "srlm.report.summary"])
def test_what_needs_no_model_needs_neither_torch_nor_transformers(module: str) -> None:
    code = f"import sys, {module}; print({{'torch', 'transformers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
