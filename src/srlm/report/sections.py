"""The sections of a report page: each a function from a summary to HTML, or to "" for none.

``SECTIONS`` is the page from top to bottom; a new section is a function put in its place.
Text that comes from a run passes through ``markup.safe``.
"""

from __future__ import annotations

from collections.abc import Callable

from srlm.config import flatten
from srlm.report.changes import LEAST_CHANGE, Change
from srlm.report.examples import Example, Response
from srlm.report.figures import charts
from srlm.report.markup import safe, script_json, table
from srlm.report.read import Round
from srlm.report.summary import KEY_FIGURES, NEED_ANSWERS, Summary
from srlm.report.words import MEANINGS, NAMES, interval, number, percent, with_interval
from srlm.types import Estimate

TONES = {
    "improved": "good",
    "sharpened": "calm",
    "unchanged": "calm",
    "base only": "calm",
    "failing": "bad",
    "failed": "bad",
}
TEXT_LIMIT = 600
"""Characters of a prompt or response that are shown."""
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
<p class="faint">{progress}. {best}</p>
<div class="three">
{_card(s, "Confidence", "confidence", "how sure the policy is of its likeliest response")}
{_card(s, "Fidelity", "fidelity", "prompts whose likeliest response is still the base's")}
{_answers_card(s)}
</div>
</section>"""


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
    title = title if name == "kappa" else title[0].upper() + title[1:]
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
    figures = "\n".join(
        f"<figure{' class=wide' if c.wide else ''}><h3>{safe(c.title)}</h3>"
        f'<div id="chart-{c.key}" role="img" aria-label="{safe(c.title)}"></div>'
        f"<figcaption>{safe(c.caption)}</figcaption>"
        f'<script type="application/json" data-chart="chart-{c.key}">'
        f"{script_json(c.figure.to_plotly_json())}</script></figure>"
        for c in charts(s)
    )
    return f"""<section><h2>By round</h2>
<p class="faint">Round 0 is the base. Bands are 95 % intervals over the held-out prompts.</p>
<div class="charts">{figures}</div></section>"""


def by_round(s: Summary) -> str:
    """The numbers of every round: what the policy became, and how it was trained."""
    columns = {
        "kappa": "κ",
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


def examples(s: Summary) -> str:
    """Prompts with the likeliest response before and after."""
    groups = [g for g in s.examples if g.examples]
    if not groups:
        return ""
    body = "".join(
        f"<h3>{safe(g.title)} <small class=faint>{g.of} of the prompts; shown: {safe(g.rule)}"
        f"</small></h3>{''.join(_example(e, s.last.round) for e in g.examples)}"
        for g in groups
    )
    return f"<section><h2>Prompts, before and after</h2>{body}</section>"


def _example(e: Example, last: int) -> str:
    prompt = f'<span class="faint">prompt {safe(e.prompt_id, 40)}</span>{_pre(e.prompt)}'
    if e.answer is not None:
        prompt = f"""<div class="pair"><div>{prompt}</div>
<div><span class="faint">answer</span>{_pre(e.answer)}</div></div>"""
    return f"""<div class="example">{prompt}
<div class="pair"><div>{_response("base", e.before)}</div>
<div>{_response(f"round {last}", e.after)}</div></div></div>"""


def _response(title: str, r: Response) -> str:
    tag = ""
    if r.right is not None:
        word = "right" if r.right else "wrong"
        tag = f' <span class="tag {word}">{word}</span>'
    bound = "" if r.certified else "≥ "
    drawn = (
        "" if r.sampling_accuracy is None else f"; {percent(r.sampling_accuracy)} of draws right"
    )
    greedy = "" if r.greedy == r.mode else f'<span class="faint">greedy</span>{_pre(r.greedy)}'
    return (
        f'<span class="faint">{title}: likeliest response, p* {bound}{number(r.p_star)}{drawn}'
        f"</span>{tag}{_pre(r.mode)}{greedy}"
    )


def _pre(text: str) -> str:
    return f'<pre dir="auto">{safe(text, TEXT_LIMIT) or "(empty)"}</pre>'


def how_to_read(s: Summary) -> str:
    """The three things, and the words of this page, plainly."""
    right = (
        """<dt>Correctness: is it right?</dt><dd>Known only where prompts have answers.
Sampling accuracy is how often a random response is right; mode accuracy how often the likeliest
one is. Self-rewarding moves the first towards the second and no further: mode accuracy is the
ceiling.</dd>"""
        if s.has_answers
        else """<dt>Is it right?</dt><dd>Unknown here: that needs prompts with answers. A policy
can become sure of responses that are wrong, and this page could not tell.</dd>"""
    )
    headroom = (
        "<dt>Headroom captured</dt><dd>How much of the way from sampling accuracy at the start to "
        "mode accuracy at the start has been gone.</dd>"
        if s.has_answers
        else ""
    )
    return f"""<section><h2>How to read this</h2>
<p>In self-rewarding a model is trained to prefer the responses that it finds likely already. Three
things can then happen, and none of them follows from another.</p>
<dl><dt>Confidence: is it sure?</dt><dd>The probability of the likeliest response (the mode).
Self-rewarding raises it, whatever the response is worth.</dd>
<dt>Fidelity: are these still the base's own responses?</dt><dd>Sharpening makes the base's
likeliest response likelier and never replaces it. Where the mode has changed, training has
drifted.</dd>
{right}
<dt>κ and F</dt><dd>κ is the mean of 1/p*: 1 when the policy is sure everywhere; about the number of
draws that it takes to see the likeliest response. F is the share of prompts where that response has
probability 1/2 or less; elsewhere greedy decoding is certain to find it.</dd>
{headroom}
<dt>Effective exponent and efficiency</dt><dd>Exact rounds raise the base to the power
(1 + 1/β)<sup>round</sup>. The effective exponent is the power that training really reached;
efficiency compares their logarithms; r² says how near the policy is to a power of the base.</dd>
<dt>Intervals</dt><dd>95 %, over the held-out prompts. Changes are compared prompt by prompt where
the tables of prompts are there, which is sharper than comparing two intervals.</dd></dl>
</section>"""


def what_was_run(s: Summary) -> str:
    """Settings, versions and seconds by stage."""
    stages = sorted({stage for r in s.rounds for stage in r.seconds})
    times = [(str(r.round), [r.seconds.get(k, 0.0) for k in stages]) for r in s.rounds]
    if len(times) > 1:
        times.append(("all", [sum(column) for column in zip(*(t for _, t in times), strict=True)]))
    rows = [[name, *(number(t, 1) for t in [*spent, sum(spent)])] for name, spent in times]
    time = table(["round", *(safe(k) for k in stages), "total"], rows, "numbers") if stages else ""
    return f"""<section><h2>What was run</h2>
{f"<h3>Seconds by stage</h3>{time}" if time else ""}
<details><summary>Settings</summary>{_facts(dict(s.config))}</details>
<details><summary>Versions, machine, seeds and hashes</summary>{_facts(dict(s.manifest))}</details>
</section>"""


def _facts(data: dict[str, object]) -> str:
    if not data:
        return '<p class="faint">not recorded</p>'
    rows = "\n".join(
        f'<tr><th scope="row">{safe(key, 80)}</th><td class="value">{safe(value, 300)}</td></tr>'
        for key, value in flatten(data).items()
    )
    return f'<div class="scroll"><table>{rows}</table></div>'


def methods(s: Summary) -> str:
    """How each number was got and what it guarantees."""
    more = ("headroom_captured", "exponent", "exponent_r2", "efficiency", "kappa_ideal")
    names = [n for n in KEY_FIGURES + more if s.has_answers or n not in NEED_ANSWERS]
    rows = [
        [NAMES[n], safe(e.method, 200), safe(e.guarantee, 200), str(e.n), safe(e.note, 300)]
        for n in names
        if (e := s.last[n]).method not in ("", "none")
    ]
    return f"""<section><h2>Method and guarantee of each number</h2>
<p class="faint">Of round {s.last.round}. n counts the independent units behind a number.</p>
{table(["", "method", "guarantee", "n", "note"], rows)}</section>"""


SECTIONS: tuple[Callable[[Summary], str], ...] = (
    verdict,
    key_figures,
    warnings,
    plots,
    by_round,
    examples,
    how_to_read,
    what_was_run,
    methods,
)
