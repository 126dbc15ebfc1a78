"""One self-contained page of a run: opens offline, asks the network for nothing.

The page carries plotly's script once (the Python package has only the full bundle, 4.8 MB). Its
content security policy allows that script and the few lines that draw, by their hashes, and
nothing else: no other script, no request, no frame, no form. The bytes depend on the folder's
content and the installed plotly alone.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path

from srlm.report.chart import DARK
from srlm.report.markup import safe, script_json
from srlm.report.sections import SECTIONS
from srlm.report.summary import Summary, summarise

NAME = "report.html"


def write_page(folder: Path) -> Path:
    """Write ``report.html`` into a run folder, whole or not at all; its path.

    Raises:
        UserError: as ``summarise``.
    """
    return write_document(folder / NAME, page(summarise(folder)))


def write_document(target: Path, text: str) -> Path:
    """Write a page, whole or not at all; its path."""
    content = text.encode("utf-8")
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o644)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def page(summary: Summary) -> str:
    """The page of a run as HTML."""
    body = "\n".join(html for section in SECTIONS if (html := section(summary)))
    return document(summary.verdict.badge, _heading(summary), body)


def document(title: str, heading: str, body: str, style: str = "") -> str:
    """A page around ``body``; ``heading`` and ``body`` are HTML already, ``title`` is text.

    ``style`` is CSS after the house's own.
    """
    drawn = "data-chart=" in body
    scripts = (plotly_script(), _asset("page.js")) if drawn else ()
    allowed = " ".join(_hash(script) for script in scripts) or "'none'"
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    swap = script_json(sorted(DARK.items()))
    tail = "".join(f"<script>{script}</script>\n" for script in scripts)
    noscript = "<noscript><p>The plots need JavaScript; the tables say the same.</p></noscript>"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>srlm: {safe(title)}</title>
<style>
{_asset("page.css")}{style}</style>
</head>
<body>
<main>
<h1>{heading}</h1>
{noscript if drawn else ""}
{body}
</main>
<script type="application/json" id="dark">{swap}</script>
{tail}</body>
</html>
"""


def _heading(summary: Summary) -> str:
    config = summary.config
    model = safe(config.get("model", "a model"), 120)
    prompts = safe(config.get("prompts.file", "its prompts"), 120)
    created = summary.manifest.get("created")
    when = f" · {safe(created, 40)}" if created is not None else ""
    return f"Self-rewarding of {model} on {prompts}{when}"


@cache
def plotly_script() -> str:
    """The plotly bundle of the installed Python package."""
    from plotly.offline import get_plotlyjs

    script = str(get_plotlyjs())
    if "</script" in script.lower() or "\r" in script:
        raise AssertionError("this plotly bundle cannot stand inline in a page")
    return script


def _asset(name: str) -> str:
    return (files("srlm.report") / name).read_text(encoding="utf-8")


@cache
def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
