"""The command line: thin commands over the package. torch is imported inside them.

The options of measure, forecast, run and instruct are made of the settings (``srlm.config``).
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from srlm import boundary
from srlm.config import (
    ForecastConfig,
    ProbeConfig,
    RunConfig,
    SamplesConfig,
    resolve_as,
    seconds_of,
)
from srlm.errors import UserError
from srlm.lab import CLAIMS, TASKS
from srlm.settings_errors import options, plain

if TYPE_CHECKING:
    from srlm.report.summary import Summary

Command = Callable[..., None]
Flags = dict[str, str | bool | None]
"""What was given for each setting, by dotted key; None: nothing."""

# ---- options made of settings


def with_settings(
    model: type[BaseModel], read: Callable[[Path | None, Flags], BaseModel] | None = None
) -> Callable[[Command], Command]:
    """Make a command of a function of settings: an option for each setting, and ``--config``.

    typer reads a function's signature, and this one is written from the settings.

    Args:
        model: the settings.
        read: makes the settings of a file and the options; ``resolve_as`` if left out.
    """
    read = read or partial(resolve_as, model)

    def give(command: Command) -> Command:
        @wraps(command)
        def given(*, config: Path | None, **values: Any) -> None:
            flags = {key: values.pop(_name(field)) for key, field in options(model)}
            command(read(config, flags), **values)

        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        made = [_option(_name(field), field) for _, field in options(model)]
        file = inspect.Parameter(
            "config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=SettingsFile
        )
        kept = [p.replace(kind=p.KEYWORD_ONLY) for p in own]
        vars(given)["__signature__"] = inspect.Signature([*made, *kept, file])
        return given

    return give


def flag_of(field: FieldInfo) -> str:
    """The flag of a setting, as ``--lr``."""
    return _extra(field, "flag")


def _extra(field: FieldInfo, name: str) -> str:
    assert isinstance(field.json_schema_extra, dict)
    return str(field.json_schema_extra[name])


def _name(field: FieldInfo) -> str:
    return flag_of(field).removeprefix("--").replace("-", "_")


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    """The option of a setting; None where it is not given.

    Values stay text until ``resolve`` sees them, so that all wrong ones are named at once.
    """
    switch = field.annotation is bool
    metavars = {bool: " ", str: "TEXT", int: "INT", float: "NUMBER"}
    option = typer.Option(
        flag_of(field),
        help=_help(field),
        metavar=metavars.get(plain(field.annotation), "NAME"),
        rich_help_panel=_extra(field, "panel"),
    )
    kind = bool if switch else str
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _help(field: FieldInfo) -> str:
    """Description, choices and default."""
    kind, default = field.annotation, field.default
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    facts = ["|".join(choices)] if len(choices) > 1 else []
    if not (field.is_required() or default in (None, "") or kind is bool):
        facts.append(f"default {default:g}" if kind is float else f"default {default}")
    return f"{field.description} ({', '.join(facts)})" if facts else f"{field.description}"


# ---- commands

Json = Annotated[
    bool, typer.Option("--json", metavar=" ", help="Print JSON, for programs; no progress.")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", metavar=" ", help="No progress on standard error.")
]
Budget = Annotated[
    float | None,
    typer.Option(
        parser=seconds_of,
        metavar="TIME",
        help="Fit the work to a time, as 30s, 10m or 2h: fewer prompts, then samples, then rounds.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", metavar=" ", help="Say what it would cost (run: with all settings), and stop."
    ),
]
SettingsFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Settings as YAML; flags override them.")
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", dir_okay=False, help="Write the numbers there as JSON."),
]
Page = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Write a page and a per-prompt table there.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")]

app = typer.Typer(
    help="Self-rewarding language models, known before they are trained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
@with_settings(ProbeConfig)
def measure(
    settings: ProbeConfig,
    out: Page = None,
    json_file: JsonFile = None,
    fisher: Annotated[
        bool,
        typer.Option(
            "--fisher", metavar=" ", help="The Fisher information's spectrum too. Takes a while."
        ),
    ] = False,
    budget: Budget = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model: condition number, confidence, accuracy, certified."""
    from srlm.probe import measure as command
    from srlm.probe import planned
    from srlm.progress import Progress

    progress = Progress(quiet=quiet)
    if dry_run:
        planned(settings, budget, progress)
        return
    command(settings, out=out, json_file=json_file, fisher=fisher, budget=budget, progress=progress)


def _model_or_file(file: Path | None, flags: Flags) -> ForecastConfig | SamplesConfig:
    """Settings of a forecast, by whether ``--samples`` is a number or a file."""
    if not flags["samples"] or str(flags["samples"]).isdecimal():
        return resolve_as(ForecastConfig, file, flags)
    places = {"samples": "file", "prompts.file": "prompts", "prompts.answer": "answer"}
    named = {places.get(k, k): v for k, v in flags.items()}
    if others := [k for k, v in named.items() if v and k not in SamplesConfig.model_fields]:
        flag = ", ".join("--" + k.rpartition(".")[2].replace("_", "-") for k in others)
        raise UserError(
            f"{flag} with --samples FILE: it is about samples that are still to be made",
            "leave it out; where a model makes the samples, --samples is their number",
        )
    return resolve_as(SamplesConfig, file, named)


@app.command()
@with_settings(ForecastConfig, _model_or_file)
def forecast(
    settings: ForecastConfig | SamplesConfig,
    out: Page = None,
    json_file: JsonFile = None,
    budget: Budget = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Forecast what self-rewarding will do to a model, before any training.

    With --samples FILE no model is needed: samples made anywhere say it all.
    """
    if isinstance(settings, SamplesConfig):
        from srlm.samples_file import forecast_samples

        if dry_run or budget is not None:
            raise UserError(
                "--dry-run or --budget with --samples FILE: reading a file takes seconds",
                "leave them out",
            )
        forecast_samples(settings, out=out, json_file=json_file)
        return
    from srlm.probe import forecast_any
    from srlm.progress import Progress

    progress = Progress(quiet=quiet)
    forecast_any(
        settings, out=out, json_file=json_file, budget=budget, dry=dry_run, progress=progress
    )


@app.command()
@with_settings(RunConfig)
def run(
    settings: RunConfig,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the run.")] = None,
    processes: Annotated[
        int,
        typer.Option(
            min=1, metavar="INT", help="Processes here that share samples and updates (torchrun)."
        ),
    ] = 1,
    budget: Budget = None,
    dry_run: DryRun = False,
    report_to: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Report each round to tensorboard, trackio, wandb (offline unless WANDB_MODE is"
            " set), mlflow.",
        ),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", metavar=" ", help="Serve a page that follows the run, as srlm watch."
        ),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Self-reward a model, measure each round, write a report.

    The same command on the same folder continues where it stopped; a finished run can be given
    more --rounds.
    """
    from srlm.progress import Progress

    if dry_run:
        from srlm.runner import dry_run as planned

        settings = planned(settings, budget=budget, progress=Progress(quiet=quiet))
        _print_settings(settings, as_json)
        return
    if out is None:
        raise UserError("--out: missing", "name the folder of the run, as in --out runs/mine")
    from srlm.parallel import joined, launch

    if processes > 1:
        launch(processes, sys.argv[1:])
        return
    from srlm.runner import follow
    from srlm.runner import run as command
    from srlm.trackers import nothing, tracking

    with joined(settings.device) as team:
        if team is not None and team.rank:
            follow(settings, team)
            return
        progress = Progress(quiet=quiet or as_json)
        track = nothing if report_to is None else tracking(report_to)
        with ExitStack() as stack:
            if live:
                from srlm.watch.server import serving

                typer.echo(f"Watch: {stack.enter_context(serving([out]))}", err=True)
            made = command(settings, out, budget=budget, progress=progress, team=team, track=track)
        _tell(made, as_json)


@app.command()
@with_settings(ProbeConfig)
def instruct(
    settings: ProbeConfig,
    out: Annotated[Path, typer.Option(metavar="FILE", help="New prompts as JSONL, a new file.")],
    count: Annotated[int, typer.Option(min=1, metavar="INT", help="New prompts wanted.")] = 100,
) -> None:
    """Let a model write new prompts from a few of yours.

    Each is answered --samples times; prompts on which all the answers agree are left out.
    """
    from srlm.instruct import command

    typer.echo(command(settings, count, out))


@app.command()
def merge(
    policy: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a policy.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
) -> None:
    """Write a policy as a whole Hugging Face folder.

    For a run's adapters (rounds/003/policy of a run with --lora), merged onto their base.
    """
    from srlm.policies.load import load
    from srlm.writing import commit

    if out.exists():
        raise UserError(f"{out}: is there already", "give a new folder")
    made = load(policy)
    out.parent.mkdir(parents=True, exist_ok=True)
    commit(out, made.save)
    typer.echo(f"Written: {out}")


@app.command()
def report(
    folder: RunFolder,
    as_json: Json = False,
) -> None:
    """Write a run's report page again and print its verdict."""
    from srlm.report.page import write_page
    from srlm.report.summary import summarise

    summary = summarise(folder)
    write_page(summary)
    _tell(summary, as_json)


@app.command()
def watch(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of runs, also of runs to come.")
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="INT", help="0: any that is free.")
    ] = 0,
) -> None:
    """Serve a page that follows runs: stage, curves, samples with their rewards.

    For this machine alone, at an address with a secret token; ends with Ctrl-C.
    """
    import threading

    from srlm.watch.server import serving

    with serving(folders, port) as url, suppress(KeyboardInterrupt):
        typer.echo(url)
        threading.Event().wait()


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of runs.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page there, as runs.html.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put runs side by side; the others' differences to the first have intervals."""
    from rich.console import Console

    from srlm.report import compare as comparing
    from srlm.report.page import write_comparison
    from srlm.report.summary import summary_of
    from srlm.report.terminal import print_comparison
    from srlm.run_folder import read_run

    found = comparing.compared([summary_of(read_run(x), lambda _: None) for x in folders])
    if out is not None:
        write_comparison(found, out)
    if as_json:
        typer.echo(json.dumps(comparing.to_json(found)))
        return
    print_comparison(found, Console(highlight=False))
    if out is not None:
        typer.echo(f"Page: {out}")


@app.command()
def check(
    folder: RunFolder,
    as_json: Json = False,
) -> None:
    """Check every file of a run folder against its hash.

    Exit code 0 if all are as they were written, else 2.
    """
    from srlm.run_folder.check import check as checked

    found = checked(folder)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    else:
        for damage in found.damage:
            typer.echo(f"{damage.name}: {damage.what}. Remedy: {damage.remedy}")
        bad = len(found.damage) or "none"
        typer.echo(f"{found.rounds} rounds, {found.files} files of rounds; damaged: {bad}")
    if found.damage:
        raise typer.Exit(2)


@app.command()
def demo(
    start: Annotated[
        Literal["good", "diffuse", "giveup"] | None,
        typer.Option(
            help="Base model. diffuse: far from sure of its mode; giveup: its mode is a short,"
            " useless response. Both good and giveup if left out."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, metavar="INT", help="Seed of the base models and of the runs.")
    ] = 0,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the forecasts and runs.")
    ] = Path("runs"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Forecast and run self-rewarding on small models that are trained here.

    They learn to add from a corpus that is noisy like the web, half a minute each, and are kept
    in your cache folder. One is forecast to improve, the other to fail.
    """
    from rich.console import Console

    from srlm.demo.show import print_shown, show
    from srlm.progress import Progress

    console = Console(highlight=False, quiet=as_json)
    progress = Progress(quiet=quiet or as_json)
    shown = [
        show(name, seed, out / f"demo-{name}-{seed}", progress=progress, console=console)
        for name in ([start] if start else ["good", "giveup"])
    ]
    print_shown(shown, console)
    if as_json:
        typer.echo(json.dumps([s.to_json() for s in shown]))


@app.command(epilog="\n\n".join(f"{name}: {claim.statement}" for name, claim in CLAIMS.items()))
def lab(
    claims: Annotated[list[str], typer.Argument(metavar="CLAIM...|all", help="What to try.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a page and a file a claim there.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="INT", help="Seed of everything random.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", metavar=" ", help="Fewer replicates; nothing is trained.")
    ] = False,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            help="Where the cells of the sweeps are made: processes here, or workers of a Ray"
            " cluster, to the same figures."
        ),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="ray: HOST:PORT of its head (default: RAY_ADDRESS, or a cluster started on this"
            " machine).",
        ),
    ] = None,
    json_file: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """Test claims of the theory on instances: figures, a plot and a verdict each.

    The same command on the same folder continues where it stopped.
    """
    from rich.console import Console

    from srlm.lab.words import print_findings
    from srlm.lab.work import run as try_claims
    from srlm.progress import Progress
    from srlm.writing import write_json

    over = None
    if engine == "ray":
        from srlm.engines.cluster import answering, mapped

        over = mapped(answering(ray_address))
    elif ray_address is not None:
        raise UserError(
            "--engine local with --ray-address: it uses no Ray cluster",
            "use --engine ray, or leave it out",
        )
    several = len(claims) > 1 or claims == ["all"]
    found = try_claims(
        claims,
        seed=seed,
        quick=quick,
        out=out,
        progress=Progress(quiet=quiet),
        workers=min(os.cpu_count() or 1, len(TASKS)) if several else 1,
        over=over,
    )
    console = Console(highlight=False)
    print_findings(found, console)
    if out is not None:
        console.print(f"\nPage: {out / 'lab.html'}", soft_wrap=True, markup=False)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(json_file, [json.loads(one.to_json()) for one in found])


@app.callback(invoke_without_command=True)
def _srlm(
    version: Annotated[
        bool, typer.Option("--version", metavar=" ", help="Print the version and stop.")
    ] = False,
) -> None:
    if version:
        from srlm import __version__

        typer.echo(__version__)


def main() -> None:
    """Run the command line. Exit code 2: the user can put it right; 130: interrupted,
    143: terminated.

    Whatever is raised gets its words here (``srlm.boundary``), and nowhere else. What is no error
    of the user's, the system's or a device's is raised on: a bug, for ``boundary.bug``.
    """
    try:
        with boundary.interruptible():
            typer.main.get_command(app)()
    except UserError as error:
        boundary.fail(error)
    except boundary.kinds() as error:
        found = boundary.told(error)
        if found is None:
            raise
        boundary.fail(found)


def _tell(summary: Summary, as_json: bool) -> None:
    """Print what a run came to, and where its report is."""
    from rich.console import Console

    from srlm.report.page import NAME
    from srlm.report.terminal import print_summary

    folder = summary.folder
    if as_json:
        data = {
            "folder": str(folder),
            "report": str(folder / NAME),
            "status": summary.verdict.status,
            "reason": summary.verdict.reason,
            "verdict": summary.verdict.sentence,
            "advice": summary.verdict.advice,
            "warnings": [warning.code for warning in summary.warnings],
            "stop": dict(summary.stop) or None,
            "rounds": [r.to_json() for r in summary.rounds],
        }
        typer.echo(json.dumps(data))
        return
    print_summary(summary, Console(highlight=False))


def _print_settings(settings: RunConfig, as_json: bool) -> None:
    import yaml

    data = settings.model_dump(mode="json")
    typer.echo(json.dumps(data) if as_json else yaml.safe_dump(data, sort_keys=False), nl=as_json)
