"""The parts of a forecast's page that are to be read: doubts, prompts and modes, how to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from srlm.forecast.doubts import doubts as reasons
from srlm.forecast.foretell import Forecast
from srlm.report.markup import safe, table
from srlm.report.words import percent, probability

EACH = 6
"""Prompts shown of a kind."""
TEXT = 400
"""Characters of a prompt or response that are shown."""


def doubts(found: Forecast) -> str:
    """Reasons to trust the numbers less, each with what to do about it."""
    return _doubts(found, True)


def doubts_now(found: Forecast) -> str:
    """The same of a measurement alone."""
    return _doubts(found, False)


def _doubts(found: Forecast, ahead: bool) -> str:
    items = "\n".join(
        f'<li class="note"><strong>{safe(doubt.title)}</strong><br>{safe(doubt.why)}<br>'
        f'<span class="faint">{safe(doubt.advice)}</span></li>'
        for doubt in reasons(found, ahead=ahead)
    )
    text = (
        f'<ul class="alarms">{items}</ul>'
        if items
        else (
            "<p>None of the checks was set off: modes certified, draws enough, no response cut "
            "off.</p>"
        )
    )
    return f"<section><h2>Reasons to doubt</h2>{text}</section>"


def prompts(found: Forecast) -> str:
    """The modes for a person to read: least sure, surest wrong, greedy differs, commonest."""
    data = found.measurement.table
    p_star_P = np.array(data["p_star"])
    everything = np.arange(len(p_star_P))
    parts = [_commonest(found)]
    wrong = np.array([p for p in everything if data["mode_right"][p] is False], dtype=int)
    if len(wrong):
        top = wrong[np.argsort(-p_star_P[wrong], kind="stable")]
        parts.append(
            _listed(found, f"Likeliest response wrong: {len(wrong)} prompts, the surest first",
                    "Self-rewarding makes the policy surer of exactly these.", top)
        )  # fmt: skip
    differ = np.array([p for p in everything if data["greedy_is_mode"][p] is False], dtype=int)
    if len(differ):
        parts.append(
            _listed(found, f"Greedy response is another: {len(differ)} prompts",
                    "Greedy decoding does not show where self-rewarding leads on these.",
                    differ[np.argsort(p_star_P[differ], kind="stable")])
        )  # fmt: skip
    order = np.argsort(p_star_P, kind="stable")
    parts.append(
        _listed(found, "Least sure prompts", "Lowest p*, the probability of the likeliest "
                "response.", order)
    )  # fmt: skip
    return f"<section><h2>The likeliest responses, to read</h2>{''.join(parts)}</section>"


def _commonest(found: Forecast) -> str:
    modes = found.measurement.table["mode"]
    counts = Counter(m for m in modes if m is not None)
    common = [(m, n) for m, n in sorted(counts.items(), key=lambda x: (-x[1], x[0])) if n > 1]
    if not common:
        text = "No two prompts have the same likeliest response."
        return f'<h3>Commonest</h3><p class="faint">{text}</p>'
    rows = [[_pre(m), str(n), percent(n / len(modes))] for m, n in common[:EACH]]
    return (
        "<h3>Commonest</h3>"
        '<p class="faint">One response that is likeliest for many prompts, unless they have one '
        f"answer, answers none of them. {len(counts)} different ones on {len(modes)} prompts.</p>"
        + table(["likeliest response", "prompts", "share"], rows)
    )


def _listed(found: Forecast, title: str, why: str, chosen: Sequence[int] | np.ndarray) -> str:
    data, asked = found.measurement.table, found.measurement.prompts
    answers = found.has_answers
    head = ["prompt", "p*", "likeliest response", "greedy response"]
    head += ["answer", "draws right"] * answers
    rows = []
    for p in list(chosen)[:EACH]:
        mode, greedy = data["mode"][p], data["greedy"][p]
        bound = "" if data["certified"][p] else "≥ "
        row = [
            _pre(str(asked[p].content)),
            f'<span class="num">{bound}{probability(data["p_star"][p])}</span>',
            _pre(mode) + _tag(data["mode_right"][p]),
            '<span class="faint">the same</span>'
            if greedy == mode
            else _pre(greedy) + _tag(data["greedy_right"][p]),
        ]
        if answers:
            answer = asked[p].answer
            row += [
                '<span class="faint">none</span>' if answer is None else _pre(answer),
                percent(data["sampling_accuracy"][p]),
            ]
        rows.append(row)
    return f'<h3>{safe(title)}</h3><p class="faint">{safe(why)}</p>{table(head, rows)}'


def _pre(text: str | None) -> str:
    if text is None:
        return '<span class="faint">not found</span>'
    return f'<pre dir="auto">{safe(text, TEXT) or "(empty)"}</pre>'


def _tag(right: bool | None) -> str:
    if right is None:
        return ""
    word = "right" if right else "wrong"
    return f'<span class="tag {word}">{word}</span>'


def how_to_read(found: Forecast) -> str:
    """What the numbers say and what they do not."""
    right = (
        """<dt>Is it right?</dt><dd>Confidence is not correctness. Exact updates keep every
likeliest response and make it likelier, right or wrong: sampling accuracy goes to mode accuracy and
stays there. On the way it can be above it, where likely responses other than the likeliest are
right.</dd>"""
        if found.has_answers
        else """<dt>Is it right?</dt><dd>Unknown here: that needs prompts with answers. A policy can
become sure of responses that are wrong, and this page could not tell. Read the likeliest responses
above: they are what self-rewarding leads to.</dd>"""
    )
    source = (
        "all responses, enumerated"
        if found.evidence.known.exact
        else "draws of the base, each different response counted once by its own probability, and "
        "the likeliest response found by search"
    )
    return f"""<section><h2>How to read this</h2><dl>
<dt>Where it leads, and how fast</dt><dd>A round of self-rewarding whose update is exact turns the
base π into π<sup>1+1/β</sup>, normalised; t of them into the power (1+1/β)<sup>t</sup>. So the
trajectory is known from the base alone. Gradient training follows the same path more slowly, and
drifts off it a little: read the rounds as the best pace, and the destination as the
destination.</dd>
{right}
<dt>κ and F</dt><dd>κ is the mean of 1/p*, p* the probability of the likeliest response: 1 when the
policy is sure everywhere. F is the share of prompts where p* is 1/2 or less.</dd>
<dt>What it rests on</dt><dd>Estimated from {source}. A round that too few draws carry is called
extrapolated and never joined to the others by a full line.</dd>
<dt>Intervals</dt><dd>95 %, over the choice of prompts. They do not cover training that departs from
exact updates.</dd></dl></section>"""
