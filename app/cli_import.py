"""What `darkroom import` does: settings of other trainers become a project and a run, or a settings file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import cli_output as output
from app import engine, projects, runs
from app.paths import Home, absolute
from app.runs import Run
from app.settings import load_settings
from trainers import config_io
from trainers.config import MODEL_FILES, TrainConfig
from trainers.errors import UserError
from trainers.families.locate import EMBEDDED, require_base
from trainers.importing import report
from trainers.importing.theirs import resolve

if TYPE_CHECKING:
    from trainers.importing.imported import Imported


def read(home: Home, files: list[Path], pictures: Path | None, base: str | None) -> "Imported":
    """Files that belong to one run; `pictures` and `base` replace those that they name."""
    found = engine.import_settings([absolute(file) for file in files], absolute(pictures) if pictures else None)
    if base is None and "model.base" not in found.settings:
        base = load_settings(home).base
    return found.with_base(base) if base else found


def show(found: "Imported", made: dict[str, str], as_json: bool) -> None:
    """The report, and what was made of it."""
    if as_json:
        values: dict[str, Any] = {**report.as_values(found), **made}
        output.show(values, True)
        return
    output.say(report.as_text(found))
    for what, where in made.items():
        output.say(f"\n{what.capitalize()}: {where}")


def write(config: TrainConfig, out: Path) -> Path:
    """A settings file, wherever it lies; one that is there already stays as it is."""
    path = absolute(out)
    if path.exists():
        raise UserError(f"{path} is there already.", "Name another file with --out.")
    config_io.save(_from_anywhere(config), path)
    return path


def make_run(home: Home, found: "Imported", config: TrainConfig, name: str) -> Run:
    """A project named `name` and a run in it. UserError where pictures or base are not on this machine."""
    folders = [str(absolute(folder)) for folder in config.data.folders]
    if not folders:
        raise UserError("No pictures are named.", "Name their folder with --pictures.")
    if "data.folders" in found.missing:
        lost = ", ".join(found.missing["data.folders"])
        raise UserError(f"The pictures are not on this machine: {lost}.", "Name their folder with --pictures.")
    if "model.base" in found.missing:
        raise UserError(f"There is no base model at {config.model.base}.", "Name yours with --base.")
    _require_base(found, config)
    parent = Path(folders[0]) if len(folders) == 1 else _parent(folders)
    project = projects.create(home, name, parent, config.data.kind, config.data.trigger)
    return runs.create(project, config)


def _require_base(found: "Imported", config: TrainConfig) -> None:
    """UserError where the base is no base, or of another family than the file says; it can then do without saying."""
    try:
        require_base(config.model)
    except UserError as error:
        said = ", ".join(line.key for line in found.lines if "model.family" in line.settings)
        if not said or config.model.family == "auto":
            raise
        require_base(config_io.merge(config, {"model": {"family": "auto"}}).model)
        hint = f"{error.hint.removesuffix('.')}, or leave out {said} with --set model.family=auto."
        raise UserError(error.message, hint) from error


def _from_anywhere(config: TrainConfig) -> TrainConfig:
    """What is on this machine with its whole path; what is missing as it was written, which may be for another."""

    def place(text: str) -> str:
        return resolve(text, Path.cwd()) if text and text != EMBEDDED else text

    model = {name: place(getattr(config.model, name)) for name in ("base", *MODEL_FILES)}
    folders = [place(folder) for folder in config.data.folders]
    adapter = {"init_from": place(config.adapter.init_from)}
    return config_io.merge(config, {"model": model, "data": {"folders": folders}, "adapter": adapter})


def _parent(folders: list[str]) -> Path:
    """The folder that holds them all; the first where they share nothing but a drive."""
    first = Path(folders[0])
    shared = next((place for place in first.parents if all(place in Path(f).parents for f in folders)), None)
    return first if shared is None or shared == shared.parent else shared
