"""What is done with a run's adapter on the command line: draw with it, export it."""

import os
from pathlib import Path
from typing import Annotated

import typer

from app import cli_output as output
from app import cli_runs, engine, projects, runs
from app import demo as demonstration
from app.cli_options import WHICH_RUN, Json, RunName
from app.paths import absolute, find_home
from app.picks import FORMS
from app.settings import load_settings
from trainers import config_io
from trainers.errors import UserError


def register(app: typer.Typer) -> None:
    for command in (sample, export):
        app.command()(command)


def sample(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="RUN_OR_ADAPTER", help=f"{WHICH_RUN} Or an adapter file.")],
    prompt: Annotated[list[str], typer.Option(help="What to draw; may be given again.")],
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="Same seed, same picture; 42 by default.")
    ] = None,
    strength: Annotated[float, typer.Option(help="How much of the adapter; 0 is the base alone.")] = 1.0,
    base: Annotated[str | None, typer.Option(help="Base model in place of the run's.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures per prompt.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures.")] = None,
) -> None:
    """Draw pictures with an adapter; those that are there already stay."""
    home = find_home(context.obj)
    out = cli_runs.to_folder(out) if out else None
    if cli_runs.is_file(source) or cli_runs.is_peft_folder(source):
        adapter, folder = absolute(source), absolute("samples")
        config = config_io.parse({"model": {"base": base or load_settings(home).base}})
    else:
        chosen = runs.find(home, source)
        found = runs.status(chosen).adapter
        if found is None:
            raise UserError(f"{chosen.folder.name} has no adapter file yet.", "Train it, or export a checkpoint of it.")
        adapter, folder, config = found, chosen.folder / "pictures", config_io.load(chosen.config)
        config = config_io.merge(config, {"model": {"base": base}}) if base else config
    config = runs.with_absolute_paths(config)
    first = config.preview.seed if seed is None else seed
    pictures = engine.sample(config, adapter, prompt, first, strength, count)
    folder = out or folder
    folder.mkdir(parents=True, exist_ok=True)
    share = f"_{strength:g}" if strength != 1 else ""
    for text, row in zip(prompt, pictures, strict=True):
        for i, picture in enumerate(row):
            path = _free(folder, f"{projects.slug(text)}_{first + i}{share}")
            output.say(str(demonstration.save_picture(picture, path)))


def export(
    context: typer.Context,
    run: RunName,
    checkpoint: Annotated[str | None, typer.Option(help="Step of a checkpoint; the newest by default.")] = None,
    form: Annotated[str, typer.Option("--format", help="kohya, diffusers or peft.")] = "kohya",
    to: Annotated[Path | None, typer.Option(help="Folder to write to; the run's output folder by default.")] = None,
    as_json: Json = False,
) -> None:
    """Write and verify a run's adapter file."""
    chosen = runs.find(find_home(context.obj), run)
    if form not in FORMS:
        raise UserError(f'There is no adapter layout "{form}".', f"Choose one of {', '.join(FORMS)}.")
    output.show(engine.export(chosen.folder, checkpoint, form, cli_runs.to_folder(to) if to else None), as_json)


def _free(folder: Path, name: str) -> Path:
    """A path that nothing lies at: name.png, name-2.png, name-3.png, ..."""
    path, number = folder / f"{name}.png", 1
    while os.path.lexists(path):
        number += 1
        path = folder / f"{name}-{number}.png"
    return path
