"""What commands do with runs and settings files: find or make the one that is meant, and train it in the foreground."""

from pathlib import Path

import typer

from app import jobs, projects, runs
from app.about import inherit_preset
from app.cli_output import quoted, say
from app.paths import Home, absolute
from app.progress import Display
from app.projects import Project
from app.runs import Run
from trainers import config_io
from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.families.locate import require_base
from trainers.importing.imported import trainer_of

INTERRUPTED = 130  # exit code


def train_here(run: Run, home: Home) -> None:
    """Train in the foreground; leaves the program with 130 when interrupted."""
    with Display() as display:

        def interrupted(times: int) -> None:
            once = "Saving and stopping ... (Ctrl-C again ends it at once, losing the steps since the last checkpoint)"
            display.note(once if times == 1 else "Ended at once.")

        outcome = jobs.foreground(run, home, display, interrupted)
    ended_early = outcome.state.status in ("stopped", "paused")
    if ended_early:
        saved = f"{outcome.state.status.capitalize()} at step {outcome.state.step:,}; everything is saved."
        say(f"{saved} Go on with: darkroom resume {run.folder.name}")
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    if ended_early:
        raise typer.Exit


def require_new(run: Run) -> None:
    """UserError for --set where a run has begun, which keeps the settings it began with."""
    if runs.status(run).word != "new":
        hint = f"A new run with others: darkroom train {quoted(run.config)} --set ... (or check, before it)"
        raise UserError(f"{run.folder.name} has begun, and a run's settings stay as they are.", hint)


def change(run: Run, changes: list[str]) -> None:
    """Apply --set to a run that has not begun."""
    require_new(run)
    config = runs.with_absolute_paths(config_io.override(config_io.load(run.config), changes))
    require_base(config.model)  # before it is saved, so that a mistyped base leaves the settings as they were
    config_io.save(config, run.config)


def run_from_file(home: Home, file: Path, changes: list[str]) -> Run:
    """A new run from a settings file: in the project it lies in, else in one named after the adapter or the file."""
    config = runs.with_absolute_paths(config_io.override(config_of(file), changes))
    require_base(config.model)
    run = runs.create(_project_for(home, file, config), config)
    if file.name == run.config.name:  # of an earlier run
        inherit_preset(run, Run(file.parent))
    return run


def config_of(file: str | Path) -> TrainConfig:
    """A settings file, with its relative paths beginning at its own folder.

    UserError where it is none, or has something wrong; of another trainer's it says how to take that over.
    """
    path = absolute(file)
    try:
        config = config_io.load(path)
    except UserError:
        if trainer := trainer_of(path):
            hint = f"`darkroom import {path}` makes a run of it."
            raise UserError(f"{path.name} is a settings file of {trainer}.", hint) from None
        raise
    return runs.with_absolute_paths(config, path.parent)


def is_file(text: str) -> bool:
    return absolute(text).is_file() or text.lower().endswith((".toml", ".safetensors"))


def is_peft_folder(text: str) -> bool:
    """Whether peft wrote it: a folder of one model, or one that holds some."""
    name = "adapter_model.safetensors"
    folder = absolute(text)
    return folder.is_dir() and ((folder / name).is_file() or any(folder.glob(f"*/{name}")))


def to_folder(path: Path) -> Path:
    """Where results go, absolute. UserError where a file is in the way."""
    path = absolute(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file.", "Name a folder, which need not be there yet.")
    return path


def _project_for(home: Home, file: Path, config: TrainConfig) -> Project:
    known = projects.list_projects(home)
    for project in known:
        if project.folder in file.parents:
            return project
    if not config.data.folders:
        raise UserError(f"{file} names no pictures.", "Set data.folders to the folder that holds them.")
    name = config.saving.name if config.saving.name != TrainConfig().saving.name else file.stem
    for project in known:
        if project.name == name:
            return project
    return projects.create(home, name, Path(config.data.folders[0]), config.data.kind, config.data.trigger)
