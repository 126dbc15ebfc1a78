"""The later sections of a report page: examples, how to read it, what was run, methods."""

from __future__ import annotations

from srlm.config import flatten
from srlm.report.examples import Example, Response
from srlm.report.markup import safe, table
from srlm.report.summary import KEY_FIGURES, NEED_ANSWERS, Summary
from srlm.report.words import NAMES, number, percent, probability

TEXT_LIMIT = 600
"""Characters of a prompt or response that are shown."""


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
    greedy = f'<span class="faint">greedy</span>{_pre(r.greedy)}' if r.greedy != r.mode else ""
    return (
        f'<span class="faint">{title}: likeliest response, p* {bound}{probability(r.p_star)}{drawn}'
        f"</span>{tag}{_pre(r.mode)}{greedy}"
    )


def _pre(text: str | None) -> str:
    if text is None:
        return '<p class="faint">not known</p>'
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
