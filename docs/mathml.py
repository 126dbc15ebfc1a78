"""MkDocs hook: formulas become MathML when the site is built, so no script has to draw them."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
FUNCTION = re.compile("<mi>(log|exp)</mi>")  # set apart from what they are applied to


def on_page_content(html: str, **_: Any) -> str:
    """Replace what ``pymdownx.arithmatex`` marked as formulas."""
    return FORMULA.sub(_mathml, html)


def _mathml(found: re.Match[str]) -> str:
    tag, opening, latex = found.groups()
    display = "block" if opening == "[" else "inline"
    mathml = convert(unescape(latex), display=display)
    spaced = FUNCTION.sub(r'<mo lspace="0.17em" rspace="0.17em">\1</mo>', mathml)
    return f'<{tag} class="formula">{spaced}</{tag}>'
