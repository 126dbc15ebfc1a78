"""What was foretold after each round, at the pace seen until then, and what came of it."""

from __future__ import annotations

import json
from typing import Any

from srlm.report.markup import safe, table
from srlm.report.summary import Summary
from srlm.report.words import interval, number

SHOWN = (("kappa", "κ"), ("sampling_accuracy", "sampling accuracy"))


def followed(s: Summary) -> str:
    """Rows: the round after which it was foretold; columns: the rounds to come, foretold and seen.

    From rounds/NNN/forecast.json (``srlm.forecast.follow``); nothing where there is none.
    """
    made = [told for r in s.rounds if (told := _read(s, r.round)) is not None and told["ahead"]]
    if not made:
        return ""
    seen = {r.round: r for r in s.rounds}
    later = sorted({a["round"] for told in made for a in told["ahead"]})
    blocks = []
    for name, title in SHOWN:
        if all(a[name]["value"] is None for told in made for a in told["ahead"]):
            continue
        rows = []
        for told in made:
            ahead = {a["round"]: a[name] for a in told["ahead"]}
            rows.append(
                [str(told["made"]), number(told["efficiency"])]
                + [_cell(ahead[t]) if t in ahead else "" for t in later]
            )
        measured = [number(seen[t][name].value) if t in seen else "to come" for t in later]
        rows.append(["measured", "", *(f"<strong>{m}</strong>" for m in measured)])
        head = ["after round", "efficiency", *(f"round {t}" for t in later)]
        blocks.append(
            f"<h3>{safe(title[0].upper() + title[1:])}</h3>{table(head, rows, 'numbers')}"
        )
    return f"""<section><h2>Foretold along the way</h2>
<p class="faint">After each round the next ones are foretold from the policy as it then was, at the
pace of the rounds done (efficiency: 1 is an exact round's). In brackets: a slower and a faster
pace, with the intervals over prompts. After round 0 the pace is that of exact rounds.</p>
{"".join(blocks)}</section>"""


def _cell(told: dict[str, Any]) -> str:
    if told["value"] is None:
        return ""
    return f"{number(told['value'])}<small>{interval(told['low'], told['high'])}</small>"


def _read(s: Summary, t: int) -> dict[str, Any] | None:
    file = s.folder / "rounds" / f"{t:03d}" / "forecast.json"
    if not file.is_file():
        return None
    told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return told
