"""MkDocs hooks: decision records in order; formulas as MathML, so that no script draws them;
doctests as code."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
FUNCTION = re.compile("<mi>(log|exp)</mi>")  # set apart from what they are applied to
DOCTEST = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Fences the doctests of docstrings, which Markdown would take for quotations."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)


def on_config(config: Any) -> None:
    """Append the decision records to the navigation."""
    docs = Path(config.docs_dir)
    pages = sorted(docs.glob("decisions/*.md"))
    config.nav.append({"Decisions": [page.relative_to(docs).as_posix() for page in pages]})


def on_page_content(html: str, **_: Any) -> str:
    """Replace what ``pymdownx.arithmatex`` marked as formulas."""
    return FORMULA.sub(_mathml, html)


def _mathml(found: re.Match[str]) -> str:
    tag, opening, latex = found.groups()
    display = "block" if opening == "[" else "inline"
    mathml = convert(unescape(latex), display=display)
    spaced = FUNCTION.sub(r'<mo lspace="0.17em" rspace="0.17em">\1</mo>', mathml)
    return f'<{tag} class="formula">{spaced}</{tag}>'
