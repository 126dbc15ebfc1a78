"""The pages: self-contained HTML that opens offline and asks the network for nothing.

All HTML is in ``templates/``. Whatever a template prints is escaped, its hidden characters spelt
out and its length limited (``_shown``); only our own markup and scripts pass as they are. A page
carries plotly's script once (the Python package has only the full bundle, 4.8 MB). Its content
security policy allows that script and the few lines that draw, by their hashes, and nothing else:
no other script, no request, no frame, no form. The bytes depend on what is shown and the installed
plotly alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from srlm.config import flatten
from srlm.forecast.from_samples import SamplesForecast
from srlm.report import charts, compare, samples_words, words
from srlm.report.compare import Comparison
from srlm.report.forecast_warnings import forecast_warnings
from srlm.report.plots import DARK
from srlm.report.prompts import to_read
from srlm.report.summary import KEY_FIGURES, NEED_ANSWERS, Summary
from srlm.run_folder import sharpens
from srlm.run_folder.record import sealed_page
from srlm.writing import clear_abandoned, write_text

if TYPE_CHECKING:
    from srlm.forecast.make import Forecast

NAME = "report.html"
LONGEST, LONG = 600, 6000
"""Characters of any text that a page shows; of a response that is looked at by itself."""


def write_page(summary: Summary) -> Path:
    """Write ``report.html`` into a run's folder, atomically; its path."""
    return _write(summary.folder / NAME, sealed_page(run_page(summary)))


def write_forecast(
    found: Forecast, out: Path, settings: Mapping[str, object] | None = None
) -> Path:
    """Write ``forecast.html`` into an existing folder; its path."""
    return _write(out / "forecast.html", forecast_page(found, settings))


def write_samples_forecast(
    found: SamplesForecast, out: Path, settings: Mapping[str, object] | None = None
) -> Path:
    """Write ``forecast.html`` of a forecast of samples into an existing folder; its path."""
    page = render(
        "samples.html.j2",
        drawn=True,
        f=found,
        plots=charts.of_samples(found),
        curve=charts.of_vote_curve(found),
        settings=settings or {},
        **{name: getattr(samples_words, name) for name in ("BASE", "MEANS", "TERMS", "WHERE")},
    )
    return _write(out / "forecast.html", page)


def write_comparison(found: Comparison, page: Path) -> Path:
    """Write runs side by side to a file; its path."""
    plots = compare.curves(found)
    text = render("compare.html.j2", drawn=bool(plots), found=found, plots=plots)
    page.parent.mkdir(parents=True, exist_ok=True)
    return _write(page, text)


def write_measurement(
    found: Forecast, out: Path, settings: Mapping[str, object] | None = None
) -> Path:
    """Write ``measure.html``: the model as it is, without a verdict or a trajectory."""
    return _write(out / "measure.html", forecast_page(found, settings, ahead=False))


def _write(page: Path, text: str) -> Path:
    clear_abandoned(page)
    write_text(page, text)
    return page


def run_page(s: Summary) -> str:
    """The page of a run."""
    plots = charts.of_run(s) if s.last.round else ()
    gap_plots = charts.of_gap(s.gap) if s.gap is not None else ()
    ahead_plots = charts.of_forecasts(s)
    names = [n for n in METHODS if s.has_answers or n not in NEED_ANSWERS]
    return render(
        "run.html.j2",
        drawn=bool(plots or gap_plots or ahead_plots),
        s=s,
        plots=plots,
        gap_plots=gap_plots,
        ahead_plots=ahead_plots,
        methods=[(n, s.last[n]) for n in names if s.last[n].method not in ("", "none")],
        sharpens=sharpens(s.config),
        stages=sorted({stage for r in s.rounds for stage in r.seconds}),
    )


def forecast_page(
    found: Forecast, settings: Mapping[str, object] | None = None, ahead: bool = True
) -> str:
    """The page of a forecast; of the measurement alone without ``ahead``."""
    plots = charts.of_forecast(found) if ahead else ()
    votes = charts.of_votes(found)
    return render(
        "forecast.html.j2",
        drawn=bool(plots or votes),
        f=found,
        n=len(found.measurement.prompts),
        now=found.measurement.estimates,
        ahead=ahead,
        plots=plots,
        votes=votes,
        warnings=forecast_warnings(found, ahead=ahead),
        reading=to_read(found),
        settings=flatten(dict(settings or {})),
    )


def fragment(template: str, **context: Any) -> str:
    """A part of a page from a template, escaped as pages are."""
    return _templates().get_template(template).render(**context)


def render(template: str, *, drawn: bool, live: bool = False, **context: Any) -> str:
    """A page from a template.

    Args:
        template: its name in ``templates/``.
        drawn: whether the page holds charts, and so the scripts that draw them.
        live: whether it asks the server that it came from for its parts, by ``watch.js``.
        context: what the template shows.
    """
    scripts = _scripts(drawn, live)
    made = _templates().get_template(template)
    return made.render(
        policy=Markup(policy(drawn=drawn, live=live)),
        style=Markup(_asset("page.css")),
        scripts=[Markup(script) for script in scripts],
        dark=sorted(DARK.items()),
        **context,
    )


def policy(*, drawn: bool, live: bool) -> str:
    """The content security policy of a page: its own scripts by their hashes, and nothing else."""
    allowed = " ".join(map(_hash, _scripts(drawn, live))) or "'none'"
    parts = [
        "default-src 'none'", f"script-src {allowed}", "style-src 'unsafe-inline'",
        "img-src data:", "base-uri 'none'", "form-action 'none'",
        *(["connect-src 'self'"] if live else []),
    ]  # fmt: skip
    return "; ".join(parts)


def _scripts(drawn: bool, live: bool) -> list[str]:
    own = [plotly_script(), _asset("page.js")] if drawn else []
    return [*own, _asset("watch.js")] if live else own


METHODS = (
    *KEY_FIGURES,
    "headroom_captured",
    "exponent",
    "exponent_r2",
    "efficiency",
    "kappa_ideal",
)


def script_json(data: Any) -> str:
    """JSON that can stand inside a ``<script>`` element whatever its strings hold.

    >>> script_json({"a": "</script><!--&"})
    '{"a":"\\\\u003c/script\\\\u003e\\\\u003c!--\\\\u0026"}'
    """
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def plotly_script() -> str:
    """The plotly bundle of the installed Python package."""
    from plotly.offline import get_plotlyjs

    script = str(get_plotlyjs())
    if "</script" in script.lower() or "\r" in script:
        raise AssertionError("this plotly bundle cannot stand inline in a page")
    return script


def _shown(value: Any) -> Any:
    """What a template prints: foreign text shortened and made visible, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, Markup):
        return value
    return words.visible(words.shorten(str(value), LONGEST))


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("srlm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(NAMES=words.NAMES, MEANINGS=words.MEANINGS, SYMBOL=words.SYMBOL)
    for name in (
        "count",
        "interval",
        "number",
        "percent",
        "place",
        "probability",
        "sentence",
        "signed",
    ):
        made.filters[name] = getattr(words, name)
    made.filters["long"] = lambda text: escape(words.visible(words.shorten(str(text), LONG)))
    made.filters["json"] = lambda data: Markup(script_json(data))
    return made


def _asset(name: str) -> str:
    return (files("srlm.report") / "templates" / name).read_text(encoding="utf-8")


@cache
def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
