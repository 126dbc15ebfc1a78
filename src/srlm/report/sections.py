"""The sections of a report page: each a function from a summary to HTML, or to "" for none.

``SECTIONS`` is the page from top to bottom; a new section is a function put in its place.
Text that comes from a run passes through ``markup.safe``.
"""

from __future__ import annotations

from collections.abc import Callable

from srlm.report.appendix import examples, how_to_read, methods, what_was_run
from srlm.report.changes import LEAST_CHANGE, Change
from srlm.report.chart import grid
from srlm.report.figures import charts
from srlm.report.followed import followed
from srlm.report.foretold_section import foretold_section
from srlm.report.markup import safe, table
from srlm.report.read import Round, sharpens
from srlm.report.summary import NEED_ANSWERS, Summary
from srlm.report.words import MEANINGS, NAMES, SYMBOL, interval, number, percent, with_interval
from srlm.types import Estimate

TONES = {
    "improved": "good",
    "sharpened": "calm",
    "unchanged": "calm",
    "base only": "calm",
    "failing": "bad",
    "failed": "bad",
}
WORDS = {"rose": "rose", "fell": "fell", "level": "no change", "unknown": "no interval"}


def verdict(s: Summary) -> str:
    """The sentence, and the three things that must not be confused, side by side."""
    v, tone = s.verdict, TONES[s.verdict.status]
    sentence = safe(v.sentence[:1].upper() + v.sentence[1:])
    progress = f"{s.last.round} of {s.planned} rounds done"
    best = f"Best round: {s.best.round} ({safe(s.best.reason)})."
    return f"""<section class="verdict {tone}">
<span class="badge">{safe(v.badge)}</span>
<p class="sentence">{sentence}</p>
<p class="faint">{progress}. {best}{_stopped(s)}</p>
<div class="three">
{_card(s, "Confidence", "confidence", "how sure the policy is of its likeliest response")}
{_card(s, "Fidelity", "fidelity", "prompts whose likeliest response is still the base's")}
{_answers_card(s)}
</div>
</section>"""


def _stopped(s: Summary) -> str:
    """Why the run ended by itself, and the round it offers without knowing any answer."""
    if not s.stop:
        return ""
    reason, best = safe(str(s.stop.get("reason")), 300), safe(str(s.stop.get("best_reason")))
    return f"<br>Stopped: {reason}. Best round without answers: {s.stop.get('best')} ({best})."


def _card(s: Summary, title: str, name: str, meaning: str) -> str:
    start, end = s.rounds[0][name], s.last[name]
    big = number(start.value, 2)
    if s.last.round:
        big += f" → {number(end.value, 2)}"
    return (
        f'<div><h3>{title}</h3><div class="big">{big} <span class="faint num">'
        f'{interval(end.low, end.high, 2)}</span></div><div class="faint">{meaning}</div></div>'
    )


def _answers_card(s: Summary) -> str:
    if s.has_answers:
        ceiling = number(s.rounds[0]["mode_accuracy"].value, 2)
        text = f"sampling accuracy; the base's mode accuracy is {ceiling}"
        if sharpens(s.config):
            text = f"sampling accuracy; self-rewarding leads to the base's mode accuracy, {ceiling}"
        return _card(s, "Correctness", "sampling_accuracy", text)
    return (
        '<div><h3>Right or wrong</h3><div class="big">unknown</div>'
        '<div class="faint">the prompts have no answers: nothing on this page says whether '
        "responses are right</div></div>"
    )


def key_figures(s: Summary) -> str:
    """Start, end and change of each number, with intervals."""
    if s.last.round == 0:
        rows = [[_named(c.name), with_interval(c.start)] for c in s.changes]
        body = table(["", "base"], rows, "numbers")
    else:
        rows = [_figure_row(c) for c in s.changes]
        body = table(["", "base", f"round {s.last.round}", "change", ""], rows, "numbers key")
    headroom = s.last["headroom_captured"]
    extra = ""
    if s.has_answers and s.last.round:
        said, meaning = percent(headroom.value), MEANINGS["headroom_captured"]
        if headroom.value is None:
            said = f"undefined, {safe(headroom.note or 'for the modes are no better')}"
        extra = f"""<p><strong>Headroom captured</strong>: {said}<br>
<span class="faint">{meaning}</span></p>"""
    return f"""<section><h2>Key figures</h2>
<p class="faint">On the held-out prompts, with 95 % intervals over the prompts. A change that is
inside its interval, or smaller than {number(LEAST_CHANGE)} (times the value where that is above 1),
is not a change.</p>
{body}{extra}</section>"""


def _figure_row(c: Change) -> list[str]:
    spread = f"<small>{interval(c.low, c.high)}</small>" if c.low is not None else ""
    known = c.direction in ("rose", "fell")
    sign = "+" if (c.value or 0) > 0 else ""
    return [
        _named(c.name),
        _cell(c.start),
        _cell(c.end),
        f"{sign}{number(c.value)}{spread}" if c.value is not None else "–",
        f'<span class="{"up" if known else "same"}">{WORDS[c.direction]}</span>',
    ]


def _named(name: str) -> str:
    title = NAMES[name]
    title = title if name.endswith("kappa") else title[0].upper() + title[1:]
    return f"{title}<small>{MEANINGS[name]}</small>"


def _cell(e: Estimate) -> str:
    spread = interval(e.low, e.high)
    return number(e.value) + (f"<small>{spread}</small>" if spread else "")


def warnings(s: Summary) -> str:
    """Each alarm with its evidence and advice."""
    if not s.alarms:
        text = "<p>None of the checks was set off.</p>" if s.last.round else ""
        return f"<section><h2>Warnings</h2>{text}</section>" if text else ""
    tones = {"serious": "bad", "note": "note"}
    items = "\n".join(
        f'<li class="{tones[a.severity]}"><strong>{safe(a.title)}</strong>'
        f'<br>{safe(a.evidence)}<br><span class="faint">{safe(a.advice)}</span></li>'
        for a in s.alarms
    )
    return f'<section><h2>Warnings</h2><ul class="alarms">{items}</ul></section>'


def plots(s: Summary) -> str:
    """The charts; nothing where only the base is measured."""
    if s.last.round == 0:
        return ""
    return f"""<section><h2>By round</h2>
<p class="faint">Round 0 is the base. Bands are 95 % intervals over the held-out prompts.</p>
{grid(charts(s))}</section>"""


def by_round(s: Summary) -> str:
    """The numbers of every round: what the policy became, and how it was trained."""
    columns = {
        s.kappa_name: SYMBOL[s.kappa_name],
        "failure_fraction": "F",
        "confidence": "confidence",
        "fidelity": "fidelity",
        "sampling_accuracy": "sampling<small>accuracy</small>",
        "greedy_accuracy": "greedy<small>accuracy</small>",
        "mode_accuracy": "mode<small>accuracy</small>",
        "headroom_captured": "headroom<small>captured</small>",
    }
    names = [n for n in columns if s.has_answers or n not in NEED_ANSWERS]
    rows = [
        [
            f"{r.round}{' ★' if r.round == s.best.round and s.last.round else ''}",
            *(percent(r[n].value) if n == "headroom_captured" else _cell(r[n]) for n in names),
        ]
        for r in s.rounds
    ]
    notes = "".join(f"<li>Round {r.round}: {safe(n, 300)}</li>" for r in s.rounds for n in r.notes)
    star = '<p class="faint">★ best round by what is known.</p>' if s.last.round else ""
    return f"""<section><h2>Every round</h2>
{table(["round", *(columns[n] for n in names)], rows, "numbers")}{star}
{_training(s)}{f"<h3>Notes</h3><ul>{notes}</ul>" if notes else ""}</section>"""


def _training(s: Summary) -> str:
    head = [
        "round", "entropy<small>nats</small>", "length<small>tokens</small>",
        "KL<small>nats</small>", "loss<small>before</small>", "loss<small>after</small>",
        "loss<small>floor</small>", "way to<small>the floor</small>",
        "exponent<small>measured</small>", "exponent<small>exact rounds</small>", "r²",
        "efficiency", "κ<small>exact round</small>",
    ]  # fmt: skip
    rows = [_trained(s, r) for r in s.rounds]
    return f"<h3>Responses and training</h3>{table(head, rows, 'numbers')}"


def _trained(s: Summary, r: Round) -> list[str]:
    return [
        str(r.round), number(r["entropy"].value), number(r["length"].value, 1),
        number(r["kl_to_base"].value), number(r.loss_before), number(r.loss_after),
        number(r.loss_floor), percent(r.loss_progress), number(r["exponent"].value, 2),
        number(s.ideal_exponent(r.round), 2), number(r["exponent_r2"].value, 2),
        number(r["efficiency"].value, 2), number(r["kappa_ideal"].value),
    ]  # fmt: skip


SECTIONS: tuple[Callable[[Summary], str], ...] = (
    verdict,
    key_figures,
    warnings,
    plots,
    foretold_section,
    followed,
    by_round,
    examples,
    how_to_read,
    what_was_run,
    methods,
)
