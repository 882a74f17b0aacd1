"""Trains runs on the command line: checks, starts, stops and goes on, and says how far they are."""

from typing import Annotated, Any

import typer

from app import cli_output as output
from app import cli_runs, engine, jobs, runs
from app.about import read_about
from app.cli_options import WHICH_RUN, Json, RunName, Set
from app.paths import absolute, find_home
from app.queue import Queue
from app.runs import Run
from app.settings import load_settings
from trainers import config_io
from trainers.errors import UserError
from trainers.families.locate import require_base


def register(app: typer.Typer) -> None:
    for command in (check, train, resume, stop, less_memory, status):
        app.command()(command)


def check(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN_OR_CONFIG", help=f"{WHICH_RUN} Or a config.toml.")],
    changes: Set = [],  # noqa: B006 - typer reads the default, nothing changes it
    card: Annotated[str, typer.Option("--card", help='A graphics card that is not here: "RTX 3060 12GB".')] = "",
    as_json: Json = False,
) -> None:
    """Look for problems in settings and pictures, estimate memory and time; starts nothing."""
    home = find_home(context.obj)
    chosen = None if cli_runs.is_file(run) else runs.find(home, run)
    if chosen and changes:
        cli_runs.require_new(chosen)
    config = config_io.load(chosen.config) if chosen else cli_runs.config_of(run)
    config = runs.with_absolute_paths(config_io.override(config, changes))
    output.note(require_base(config.model).text)
    cache, folder = load_settings(home).cache_folder(home), chosen and chosen.folder
    output.show(engine.check(config, output.note, card, cache, folder), as_json)


def train(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN_OR_CONFIG", help=f"{WHICH_RUN} Or a config.toml for a new one.")],
    changes: Set = [],  # noqa: B006 - typer reads the default, nothing changes it
    background: Annotated[bool, typer.Option("--background", help="Start it and return at once.")] = False,
) -> None:
    """Train in the foreground with a progress bar; Ctrl-C saves and stops. Goes on where the run stopped."""
    home = find_home(context.obj)
    if cli_runs.is_file(run):
        chosen = cli_runs.run_from_file(home, absolute(run), changes)
        output.say(f"Run folder: {chosen.folder}")
    else:
        chosen = runs.find(home, run)
        if changes:
            cli_runs.change(chosen, changes)
    if runs.status(chosen).word == "finished":
        output.say(f"{chosen.folder.name} is finished. Adapter: {runs.status(chosen).adapter}")
    elif background:
        job = jobs.start(chosen, home)
        output.say(
            f"Training in the background as process {job.process.pid}. See `darkroom status {chosen.folder.name}`."
        )
    else:
        cli_runs.train_here(chosen, home)
        output.say(f"Adapter: {runs.status(chosen).adapter}")


def resume(context: typer.Context, run: RunName = "last") -> None:
    """Go on with a stopped or interrupted run, from its newest checkpoint."""
    home = find_home(context.obj)
    chosen = runs.find(home, run)
    word = runs.status(chosen).word
    if word == "new":
        raise UserError(f"{chosen.folder.name} has not begun yet.", "Start it with `darkroom train`.")
    if word == "finished":
        hint = (
            f"To train longer, make a new run: darkroom train {output.quoted(chosen.config)} --set schedule.steps=..."
        )
        raise UserError(f"{chosen.folder.name} is finished; there is nothing to resume.", hint)
    train(context, str(chosen.folder))


def stop(context: typer.Context, run: RunName = "last") -> None:
    """Ask a run in training to save and stop, and wait until it has."""
    chosen = runs.find(find_home(context.obj), run)
    if not runs.is_alive(chosen):
        raise UserError(f"{chosen.folder.name} is not being trained.", "`darkroom status` lists all runs.")
    output.note("Saving ...")
    jobs.stop(chosen)
    status = runs.status(chosen)
    output.say(f"{chosen.folder.name} is {status.word} at step {status.state.step:,}.")


def less_memory(context: typer.Context, run: RunName = "last") -> None:
    """Let a run in training go on with less memory: each batch in parts, then activations computed twice."""
    chosen = runs.find(find_home(context.obj), run)
    jobs.use_less_memory(chosen)
    output.say(f"{chosen.folder.name} is asked to save after a step and to go on with less memory.")


def status(
    context: typer.Context,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help=f"{WHICH_RUN} All of them without.")] = None,
    as_json: Json = False,
) -> None:
    """List all runs and the queue, or tell everything about one run."""
    home = find_home(context.obj)
    if run is not None:
        chosen = runs.find(home, run)
        output.run_details(runs.status(chosen), as_json)
        if not as_json:
            output.say("\n".join(output.lines(_settings(chosen))))
    else:
        output.run_list([runs.status(one) for one in runs.list_runs(home)], Queue(home), as_json)


def _settings(run: Run) -> dict[str, Any]:
    """What a run is made of; why it cannot be told where its config.toml is damaged."""
    try:
        config = config_io.load(run.config)
    except UserError as error:
        return {"settings": f"{error.message} {error.hint}".strip()}
    return {
        "base": config.model.base,
        "pictures": list(config.data.folders) if config.data.folders[1:] else "".join(config.data.folders),
        "trigger": config.data.trigger,
        "steps": f"{config.total_steps:,}",
        "preset": read_about(run).preset_title,
    }
