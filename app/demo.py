"""The demo: train a bundled concept on the built-in base, and show what the base and the adapter draw."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from app import engine, grid, presets, projects, runs
from app.about import record_preset
from app.paths import CONCEPTS, Home
from app.projects import Project
from app.runs import Run
from trainers import config_io
from trainers.errors import UserError
from trainers.files import encoded, write_whole

GRID = "before_after.png"
BUNDLED = 3  # a bundled folder is known by the end of its path, assets/concepts/...


@dataclass(frozen=True)
class Concept:
    """A bundled folder of pictures; `prompts` use words that are in none of its captions."""

    project: str
    folder: Path
    preset: str
    trigger: str
    prompts: tuple[str, ...]
    steps: int | None = None  # None: the preset's


CONCEPTS_BY_NAME = {
    "style": Concept(
        "demo",
        CONCEPTS / "fluent",
        "style",
        "fluent",
        tuple(f"a fluent style {word}" for word in ("cat", "red apple", "sailboat", "penguin", "sunflower", "cookie")),
        steps=500,  # half the preset's: the style shows, and a slow machine is done in minutes
    ),
    "mascot": Concept(
        "demo mascot",
        CONCEPTS / "mascot",
        "character",
        "zibbo",
        ("zibbo", "zibbo in the snow", "a noto style cat", "a twemoji style sailboat"),
    ),
}


def make_run(home: Home, name: str, steps: int | None) -> Run:
    """A new run of a concept, with its preset for the built-in base; `steps` shortens or lengthens it."""
    if name not in CONCEPTS_BY_NAME:
        raise UserError(f'There is no concept "{name}".', f"Choose one of {', '.join(CONCEPTS_BY_NAME)}.")
    concept = CONCEPTS_BY_NAME[name]
    preset = presets.find_preset(concept.preset)
    pictures = projects.require_pictures(concept.folder)
    project = _project(home, concept, preset.name)
    config = presets.apply(preset, pictures, presets.EMBEDDED)
    changes = {
        "data": {"folders": [str(concept.folder)], "trigger": concept.trigger},
        "preview": {"prompts": list(concept.prompts[:4])},
        "saving": {"name": f"demo-{name}"},
        "schedule": {"steps": steps or concept.steps or config.schedule.steps},
    }
    run = runs.create(project, config_io.merge(config, changes))
    record_preset(run, preset.name, preset.title)
    return run


def _project(home: Home, concept: Concept, kind: str) -> Project:
    """The demo's project. Where another copy of Darkroom made it, it links to this one's pictures from now on."""
    known = projects.named(home, concept.project)
    if known and Path(known.pictures).parts[-BUNDLED:] == concept.folder.parts[-BUNDLED:]:
        return projects.update(known, pictures=str(concept.folder))
    return projects.create(home, concept.project, concept.folder, kind, concept.trigger)


def show(run: Run, name: str, out: Path | None, say: Callable[[str], None]) -> tuple[Path, Path]:
    """Draw the prompts with the base alone and with the adapter; returns the grid's and the adapter's path.

    Both lie in `out`, or in the run's output folder.
    """
    adapter = runs.status(run).adapter
    if adapter is None:
        raise UserError("The run has written no adapter file.", f"Its story is in {run.log}.")
    prompts = CONCEPTS_BY_NAME[name].prompts
    config = config_io.load(run.config)
    seed = config.preview.seed
    say("Drawing with the base model alone ...")
    before = [pictures[0] for pictures in engine.sample(config, None, prompts, seed)]
    say("Drawing with the adapter ...")
    after = [pictures[0] for pictures in engine.sample(config, adapter, prompts, seed)]
    title = "Before and after training: same prompts, same seeds"
    sheet = grid.before_after([before, after], ["base model", "with the adapter"], prompts, title=title)
    folder = out or adapter.parent
    folder.mkdir(parents=True, exist_ok=True)
    if not folder.samefile(adapter.parent):
        for file in adapter.parent.glob(f"{adapter.stem}.*"):
            write_whole(folder / file.name, file.read_bytes())
    return save_picture(sheet, folder / GRID), folder / adapter.name


def save_picture(picture: Image.Image, path: Path) -> Path:
    """Write a PNG, whole or not at all; returns `path`."""
    return write_whole(path, encoded(picture))
