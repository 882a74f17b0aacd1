"""Makes runs on the command line: of a bundled concept, of a folder of pictures, of another trainer's settings."""

from pathlib import Path
from typing import Annotated

import typer

from app import cli_import, cli_runs, new_runs, presets, projects, runs
from app import cli_output as output
from app import demo as demonstration
from app.about import record_preset
from app.cli_options import Json, Set
from app.new_runs import Concept
from app.paths import absolute, find_home
from app.settings import load_settings
from trainers import config_io
from trainers.data.examples import LISTED, scan
from trainers.data.types import Scan
from trainers.errors import UserError

KINDS = ("person", "style", "object", "character")
UNKNOWN_FAMILY = f"{new_runs.UNKNOWN_FAMILY}For another, add --set model.family=sdxl (sd2, sd3)."


def register(app: typer.Typer) -> None:
    app.command()(demo)
    app.command()(new)
    app.command("import")(import_settings)


def demo(
    context: typer.Context,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; enough to see it by default.")] = None,
    concept: Annotated[str, typer.Option(help=" or ".join(demonstration.CONCEPTS_BY_NAME))] = "style",
    out: Annotated[Path | None, typer.Option(help="Folder for the grid and the adapter.")] = None,
) -> None:
    """Train a bundled concept on the built-in base model and show before and after."""
    home = find_home(context.obj)
    out = cli_runs.to_folder(out) if out else None
    run = demonstration.make_run(home, concept, steps)
    output.say(f"Run folder: {run.folder}")
    cli_runs.train_here(run, home)
    grid, adapter = demonstration.show(run, concept, out, output.note)
    output.say(f"Before and after: {grid}")
    output.say(f"Adapter: {adapter}")


def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the project; any letters.")],
    pictures: Annotated[Path, typer.Option(help="Folder with the pictures; it is only read.")],
    kind: Annotated[str, typer.Option(help=f"What the pictures teach: {', '.join(KINDS)}.")],
    base: Annotated[str | None, typer.Option(help="Base model: embedded, a file, a folder, or a hub id.")] = None,
    preset: Annotated[str | None, typer.Option(help="Preset; the kind's own by default.")] = None,
    trigger: Annotated[str, typer.Option(help="Word that stands for the concept in prompts.")] = "",
    changes: Set = [],  # noqa: B006 - typer reads the default, nothing changes it
) -> None:
    """Create a project and a run, and print the run folder."""
    if kind not in KINDS:
        raise typer.BadParameter(f"{kind} is none of {', '.join(KINDS)}.", param_hint="--kind")
    home = find_home(context.obj)
    pictures = absolute(pictures)
    concept = Concept(name, pictures, kind, trigger)
    count = concept.count
    model = {"model": {"base": base or load_settings(home).base}}
    wished = config_io.override(config_io.parse(model), [one for one in changes if one.lstrip().startswith("model.")])
    _, family = new_runs.look_at_base(wished.model)
    chosen = presets.find_preset(preset or kind, presets.all_presets(home))
    config = new_runs.settings(concept, chosen, wished.model.base, family, count)
    config = config_io.override(config, changes)  # before anything is made, so that a typo leaves nothing behind
    output.note("Reading the pictures ...")
    _note_unusable(scan(config.data))
    if not family:
        output.note(UNKNOWN_FAMILY.format(wished.model.base))
    project = projects.create(home, name, pictures, kind, trigger)
    run = runs.create(project, config)
    record_preset(run, chosen.name, chosen.title)
    output.say(str(run.folder))


def _note_unusable(found: Scan) -> None:
    """A line for each picture that will be left out of training."""
    unusable = [str(problem) for problem in found.problems if problem.fatal]
    for line in unusable[:LISTED]:
        output.note(line)
    if len(unusable) > LISTED:
        output.note(f"... and {len(unusable) - LISTED:,} more. `darkroom check` lists them all.")


def import_settings(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="A run's settings; a data set's or prompts.")],
    name: Annotated[str | None, typer.Option(help="Name of the project; the adapter's by default.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder with the pictures, in place of the file's.")] = None,
    base: Annotated[str | None, typer.Option(help="Base model, in place of the file's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write only a settings file, and make no run.")] = None,
    changes: Set = [],  # noqa: B006 - typer reads the default, nothing changes it
    as_json: Json = False,
) -> None:
    """Take over settings of kohya_ss, sd-scripts or OneTrainer, and say what becomes of each."""
    home = find_home(context.obj)
    found = cli_import.read(home, files, pictures, base)
    config = config_io.override(found.config, changes)
    if out:
        cli_import.show(found, {"settings file": str(cli_import.write(config, out))}, as_json)
        return
    name = name or (config.saving.name if "saving.name" in found.settings else files[0].stem)
    try:
        run = cli_import.make_run(home, found, config, name)
    except UserError:
        cli_import.show(found, {}, as_json)
        raise
    cli_import.show(found, {"run folder": str(run.folder)}, as_json)
