"""The pages and the code agree: links lead somewhere, citations and code names exist."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
THEORY = (ROOT / "docs/theory.md").read_text(encoding="utf-8")
SECTIONS = set(re.findall(r"^## (\d+)\.", THEORY, re.MULTILINE))
EQUATIONS = set(re.findall(r"\\qquad \((\d+\.\d+)\)", THEORY))
MEASURED = {"CHANGELOG", "cluster", "starts", "updates", "rewards", "paths", "real-model", "speed"}
CITATION = re.compile(r"theory\.md,? sections? (\d+)(?: and (\d+))?(?:,? eq\. \((\d+\.\d+)\))?")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        other = page.parent / name if name else page
        assert other.exists(), target
        assert not anchor or anchor in _slugs(other), target


def test_equations_are_numbered_by_their_section_in_order() -> None:
    numbers = [tuple(map(int, n.split("."))) for n in re.findall(r"\\qquad \((.*?)\)", THEORY)]
    assert numbers == sorted(set(numbers))
    assert {str(section) for section, _ in numbers} <= SECTIONS


def test_citations_of_the_theory_exist() -> None:
    found = 0
    for path in sorted((ROOT / "src").rglob("*.py")):
        text = " ".join(path.read_text(encoding="utf-8").split())
        for first, second, equation in CITATION.findall(text):
            found += 1
            assert {first, second or first} <= SECTIONS, path
            assert not equation or equation in EQUATIONS, path
    assert found


def test_keys_of_the_glossary_are_in_the_code() -> None:
    code = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "src").rglob("*.py"))
    glossary = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    keys = set(re.findall(r"`([a-z]\w*)`", glossary))
    assert {key for key in keys if not re.search(rf"\b{key}\b", code)} == set()


OTHERS = {"--nnodes", "--nproc-per-node", "--head", "--address", "--parallel"} | {
    "--no-enable-chunked-prefill"
}
"""Options of torchrun, ray, llama-server and vLLM that the pages show."""


def test_flags_exist() -> None:
    import typer

    from srlm.cli import app

    commands = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
    known = {option for command in commands for p in command.params for option in p.opts}
    pages = [p for p in PAGES if p.stem not in MEASURED and p.parent.name != "decisions"]
    for page in pages:
        used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8")))
        assert used <= known | OTHERS | {"--help"}, page


def test_the_api_page_lists_the_public_names() -> None:
    import srlm

    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: srlm\.(\w+)$", page, re.MULTILINE)) == sorted(srlm.__all__)


def test_theorems_name_functions_tests_and_claims_that_exist() -> None:
    from srlm.lab import CLAIMS

    for functions, checks in _rows(ROOT / "docs/theorems.md"):
        assert functions
        for name in functions:
            pkgutil.resolve_name(name if name.startswith("srlm.") else f"srlm.{name}")
        for check in checks:
            assert (ROOT / check).exists() if "/" in check else check in CLAIMS, check


def _rows(page: Path) -> Iterator[tuple[list[str], list[str]]]:
    """The code names in the last two columns of each table row."""
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        if line.startswith("|") and not line.startswith("| ---") and "`" in line:
            yield re.findall(r"`(.*?)`", cells[-3]), re.findall(r"`(.*?)`", cells[-2])


def _prose(page: Path) -> str:
    """A page without its code and formulas."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", "", text, flags=re.DOTALL)


def _slugs(page: Path) -> set[str]:
    """Anchors of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", t.lower()).strip()) for t in titles}
