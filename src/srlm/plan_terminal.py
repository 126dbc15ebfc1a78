"""A plan in the terminal, in 80 columns."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from srlm.lab.words import cell
from srlm.planning import RunPlan
from srlm.theory import Bound, Plan, kappa_bound, plan

WIDTH = 80
LATE = (
    "A floor of kappa that has not shown yet is not forecast; the intervals leave room for one "
    "of the size of the last fall."
)
STATES = {"holds": "green", "fails": "bold red", "cannot be told": "yellow"}
SYMBOLS = {
    "kappa0": "κ₀, condition number of the start",
    "margin": "γ, least margin, nats",
    "confidence": "μ, least confidence",
    "beta": "β",
    "complexity": "log|Π|, complexity, nats",
    "rounds": "T, rounds",
    "samples": "n, pairs a round",
}


def print_plan(made: Plan, console: Console) -> None:
    """What limits it, rounds and pairs needed, and the bounds, vacuous ones by that word."""
    limits = made.limited_by
    head = "NOTHING IS IN THE WAY: " if limits == "nothing" else f"LIMITED BY {limits.upper()}: "
    style = "bold green" if limits == "nothing" else "bold yellow"
    width = min(console.width, WIDTH)
    console.print(Text(head, style).append(f"{made.why}.", "default"), width=width)
    console.print()
    console.print(_rows(_needed(made)), width=width)
    console.print()
    console.print(_rows(_bounds(made)), width=width)
    console.print()
    rho, constant = made.problem.rho, made.problem.constant
    footer = (
        f"Upper bounds hold up to a universal constant c = {constant:g}, with probability "
        f"{1 - rho:g}. They rank choices; as predictions they are too high by orders of magnitude."
    )
    console.print(Text(footer, "dim"), width=width)


def print_run_plan(made: RunPlan, console: Console) -> None:
    """A run's numbers, the assumptions, the bounds, and the rounds to come as predicted."""
    width = min(console.width, WIDTH)
    measured = f"{len(made.kappa_T) - 1} rounds, {made.prompts} held-out prompts"
    console.print(Text(made.folder, "bold").append(f": {measured}", "default"), width=width)
    console.print()
    console.print(_title("The run's own numbers"))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for name in SYMBOLS:
        if name in made.numbers:
            stated = made.numbers[name]
            table.add_row(SYMBOLS[name], cell(float(stated.value)), Text(stated.source))
    console.print(table, width=width)
    console.print()
    console.print(_title("The theorem's assumptions"))
    for found in made.assumptions:
        line = Text(f"{found.name}: ").append(found.state, STATES[found.state])
        console.print(line.append(f". {'; '.join(found.evidence)}.", "dim"), width=width)
    for note in made.notes:
        console.print(Text(f"Note: {note}.", "dim"), width=width)
    console.print()
    console.print(_title("The bounds"))
    if made.plan is None:
        console.print(
            Text("None: ", "bold yellow").append(f"{made.unplanned}.", "default"), width=width
        )
    else:
        print_plan(made.plan, console)
    console.print()
    _print_ahead(made, console, width)


def _title(text: str) -> Text:
    return Text(text, "bold")


def _needed(made: Plan) -> list[tuple[str, str]]:
    target = f"{made.problem.target:g}"
    at = "" if made.samples is None else f" with {cell(float(made.samples))} pairs a round"
    rows = [
        (f"rounds needed for failure {target}{at}", _or(made.rounds_needed, "no number does")),
        (
            "pairs needed a round"
            + ("" if made.rounds is None else f" in {_times(made.rounds, 'round')}"),
            _or(made.samples_needed, "no number does"),
        ),
        ("pairs needed in all", _or(made.pairs_needed, "no number does")),
    ]
    if made.limited_by == "beta":
        rows.append(("beta needed, at most", cell(made.beta_needed)))
    if made.limited_by in ("pairs", "rounds"):  # then another choice of both does
        least = plan(**asdict(made.problem))
        if least.rounds is not None and least.samples is not None:
            does = f"{_times(least.rounds, 'round')} of {cell(float(least.samples))} pairs"
            rows.append(("cheapest that does", does))
    return rows


def _bounds(made: Plan) -> list[tuple[str, str]]:
    if made.failure is None or made.failure_closed is None or made.rounds is None:
        return [("bounds", "none: no number of rounds and pairs meets the target")]
    problem, after = made.problem, f"after {_times(made.rounds, 'round')}"
    ceiling = 1.0 / problem.confidence
    settled = made.fixed_point < ceiling * (1.0 - 1e-9)
    lower = f">= {cell(made.lower_bound)}" if made.lower_bound > 0 else "no claim: kappa_0 < 2"
    empty = f"vacuous (not below 1/mu = {cell(ceiling)})"
    kappa = kappa_bound(made.kappa_path[-1], problem.confidence, "iterated")
    return [
        ("statistical error of a round, nats", cell(made.eps)),
        (f"P[p* <= 1/2] {after}, iterated", _bound(made.failure)),
        ("  the same in closed form", _bound(made.failure_closed)),
        (f"kappa {after}", _bound(kappa)),
        ("kappa settles at", f"<= {cell(made.fixed_point)}" if settled else empty),
        ("  nearer each round by a factor", cell(made.contraction) if settled else "vacuous"),
        ("rounds to forget the start", f"{made.rounds_to_forget}" if settled else "vacuous"),
        ("worst instance, one round, any learner", lower),
    ]


def _bound(bound: Bound) -> str:
    if not bound.vacuous:
        return f"<= {cell(bound.value)}"
    if bound.raw > bound.value:
        return f"vacuous ({cell(bound.raw)} before the ceiling {cell(bound.value)})"
    return f"vacuous (the ceiling {cell(bound.value)})"


def _or(count: int | None, otherwise: str) -> str:
    return otherwise if count is None else cell(float(count))


def _times(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _rows(rows: list[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(overflow="fold")
    table.add_column(justify="right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # brackets are no markup
    return table


def _print_ahead(made: RunPlan, console: Console, width: int) -> None:
    console.print(_title("The calibrated planner"))
    if made.ahead is None:
        console.print(Text(f"Predicts nothing: {made.unforeseen}."), width=width)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("round", "kappa", f"{made.ahead.level:.0%} interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for t, kappa in enumerate(made.kappa_T):
        table.add_row(str(t), _kappa(kappa), "measured")
    ahead = zip(made.ahead.round_R, made.ahead.kappa_R, made.ahead.low_R, made.ahead.high_R,
                strict=True)  # fmt: skip
    for t, kappa, low, high in ahead:
        table.add_row(str(t), _kappa(kappa), Text(f"[{_kappa(low)}, {_kappa(high)}]"))
    console.print(table, width=width)
    console.print(
        Text(f"{_arrival(made)} {_score(made)} {_sentence(made.ahead.note)} {LATE}", "dim"),
        width=width,
    )


def _kappa(kappa: float | None) -> str:
    return "–" if kappa is None else f"{kappa:.4f}" if kappa < 100 else cell(float(kappa))


def _arrival(made: RunPlan) -> str:
    ahead = made.ahead
    assert ahead is not None
    goal = f"kappa {made.kappa_target:g} (then P[p* <= 1/2] <= {made.kappa_target - 1:g})"
    if made.reached is not None:
        return f"{goal}: reached in round {made.reached}."
    if ahead.reached is None:
        return f"{goal}: not reached; the fit settles at {ahead.calibration.limit:.4g}."
    latest = "never" if ahead.reached_high is None else str(ahead.reached_high)
    return f"{goal}: round {ahead.reached}, between {ahead.reached_low} and {latest}."


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _score(made: RunPlan) -> str:
    if made.score is None:
        return "Too few rounds to score it on."
    score = made.score
    inside = round(score.coverage * score.predicted)
    return (
        f"Back-test: fitted on the first three rounds, it misses log kappa of the later ones by "
        f"{score.mean_error:.2g} on average (no change at all: "
        f"{score.mean_error_of['as it was']:.2g}), and {inside} of {score.predicted} lie in the "
        "interval."
    )
