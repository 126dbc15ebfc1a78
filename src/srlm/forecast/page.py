"""One self-contained page of a forecast, or of a measurement alone, in the look of a report.

As every page of srlm it opens offline, asks the network for nothing and shows all text of
prompts and models as text (``report.page``). The same forecast gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from srlm.forecast import readings, tables
from srlm.forecast.figures import charts
from srlm.forecast.foretell import Forecast
from srlm.report.chart import grid
from srlm.report.markup import safe
from srlm.report.page import document, write_document
from srlm.report.words import interval, number
from srlm.types import Estimate

Section = Callable[[Forecast], str]
TONES = {"go": "good", "no-go": "bad", "unclear": "note"}


def write_page(found: Forecast, out: Path, settings: Mapping[str, object] | None = None) -> Path:
    """Write ``forecast.html`` into a folder, whole or not at all; its path.

    Args:
        found: the forecast.
        out: an existing folder.
        settings: what was asked, shown at the end (dotted keys).
    """
    return write_document(out / "forecast.html", page(found, settings))


def write_measurement(
    found: Forecast, out: Path, settings: Mapping[str, object] | None = None
) -> Path:
    """Write ``measure.html``: the base as it is, without a verdict or a trajectory."""
    sections = (key_cards, readings.doubts_now, tables.base, tables.controls, readings.prompts)
    return write_document(
        out / "measure.html", _page(found, "measurement", "Measurement", sections, settings)
    )


def page(found: Forecast, settings: Mapping[str, object] | None = None) -> str:
    """The page of a forecast as HTML."""
    sections = (
        verdict, readings.doubts, trajectory, tables.by_round, tables.base, tables.controls,
        readings.prompts, readings.how_to_read,
    )  # fmt: skip
    title = f"forecast: {found.verdict.verdict}"
    return _page(found, title, "Forecast of self-rewarding", sections, settings)


def _page(
    found: Forecast,
    title: str,
    name: str,
    sections: tuple[Section, ...],
    settings: Mapping[str, object] | None,
) -> str:
    given = settings or {}
    heading = f"{name}: {len(found.measurement.prompts)} prompts"
    if "model" in given:
        heading = f"{name} of {safe(given['model'], 120)}: {len(found.measurement.prompts)} prompts"
    parts = [section(found) for section in sections]
    return document(title, heading, "\n".join(p for p in [*parts, tables.settings(given)] if p))


def verdict(found: Forecast) -> str:
    """The sentence, and the three things that must not be confused, side by side."""
    v = found.verdict
    sentence = safe(v.reason[:1].upper() + v.reason[1:])
    extra = ""
    if v.gain is not None and v.gain.value is not None:
        extra = (
            f"Mode accuracy minus sampling accuracy, prompt by prompt: {_signed(v.gain)} "
            f"({v.gain.n} prompts). "
        )
    return f"""<section class="verdict {TONES[v.verdict]}">
<span class="badge">{safe(v.verdict)}</span>
<p class="sentence">{sentence}.</p>
<p class="faint">{extra}Foretold for exact updates at β {found.beta:g}: they give the destination
and the best pace. Nothing has been trained.</p>
{_cards(found)}
</section>"""


def key_cards(found: Forecast) -> str:
    """The three things, as measured."""
    n = len(found.measurement.prompts)
    return f"""<section class="verdict calm"><span class="badge">measured</span>
<p class="sentence">The model as it is, on {n} prompts.</p>{_cards(found, ahead=False)}</section>"""


def _cards(found: Forecast, ahead: bool = True) -> str:
    now, end = found.measurement.estimates, found.end
    last = found.points[-1]
    rounds = f"{last.round:g} round{'s' * (last.round != 1)}"
    sure = "how sure the policy is of its likeliest response"
    cards = [
        _card("Confidence", now["confidence"], last.confidence if ahead else None,
              f"{sure}; foretold in {rounds}" if ahead else sure),
        _card("Greedy finds the mode", now["greedy_is_mode"], None,
              "prompts whose greedy response is the likeliest one"),
    ]  # fmt: skip
    if found.has_answers:
        text = "sampling accuracy; → mode accuracy, the destination"
        cards.append(_card("Correctness", now["sampling_accuracy"], end.sampling_accuracy, text))
    else:
        cards.append(
            '<div><h3>Right or wrong</h3><div class="big">unknown</div><div class="faint">the '
            "prompts have no answers: nothing on this page says whether responses are right"
            "</div></div>"
        )
    return f'<div class="three">{"".join(cards)}</div>'


def _card(title: str, now: Estimate, then: Estimate | None, meaning: str) -> str:
    shown = now if then is None else then
    big = number(now.value, 2) + (f" → {number(then.value, 2)}" if then is not None else "")
    spread = interval(shown.low, shown.high, 2)
    return (
        f'<div><h3>{title}</h3><div class="big">{big} <span class="faint num">{spread}</span>'
        f'</div><div class="faint">{meaning}</div></div>'
    )


def trajectory(found: Forecast) -> str:
    """The charts."""
    return f"""<section><h2>What is foretold</h2>
<p class="faint">Round 0 is the base; ∞, a diamond, the destination of exact updates. Bands are 95 %
intervals over the prompts.</p>
{grid(charts(found))}</section>"""


def _signed(e: Estimate) -> str:
    def sign(x: float | None) -> str:
        return ("+" if (x or 0) > 0 else "") + number(x)

    return f"{sign(e.value)} [{sign(e.low)}, {sign(e.high)}]"
