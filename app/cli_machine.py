"""What the command line says of this machine: what it has, and how fast it trains."""

import typer

from app import cli_output as output
from app import engine, hardware
from app.cli_options import Json
from app.paths import find_home

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}  # to the engine


def register(app: typer.Typer) -> None:
    app.command()(doctor)
    app.command(context_settings=PASSED_ON)(bench)


def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Show what this machine has, what will be used, and what is wrong and how to mend it."""
    found = hardware.facts(find_home(context.obj))
    output.doctor(found, hardware.will_use(found), hardware.findings(found), as_json)


def bench(context: typer.Context) -> None:
    """Measure seconds, dispatches, host syncs and memory per training step (`darkroom bench --help`)."""
    raise typer.Exit(engine.bench(context.args) or 0)
