"""Text of a run as HTML that cannot act, and the tables built from it."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

from srlm.report.words import shorten, visible


def safe(text: object, limit: int | None = None) -> str:
    """Foreign text for HTML: shortened first, hidden characters spelt out, then escaped.

    >>> safe('</script><b title="x">')
    '&lt;/script&gt;&lt;b title=&quot;x&quot;&gt;'
    >>> safe("abcdef", 4)
    'abcd … [2 more characters]'
    """
    whole = str(text)
    return html.escape(visible(whole if limit is None else shorten(whole, limit)), quote=True)


def script_json(data: Any) -> str:
    """JSON that can stand inside a ``<script>`` element whatever its strings hold.

    >>> script_json({"a": "</script><!--&"})
    '{"a":"\\\\u003c/script\\\\u003e\\\\u003c!--\\\\u0026"}'
    """
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table of cells that are HTML already; the first of a row is its heading."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join(_row(row) for row in rows)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{top}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _row(row: Sequence[str]) -> str:
    first, *rest = row
    return f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{c}</td>" for c in rest) + "</tr>"
