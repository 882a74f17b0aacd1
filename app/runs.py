"""Runs: folders that each tell the whole story of one training, and what that story says right now."""

import difflib
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from app import alive
from app.paths import Home, absolute
from app.projects import Project, list_projects, new_folder, slug
from app.story import read_story
from trainers import config_io
from trainers.config import MODEL_FILES, TrainConfig
from trainers.errors import UserError
from trainers.events import RunState
from trainers.families.detect import identify

MOMENT = "%Y-%m-%d_%H-%M-%S"  # begins the name of a run's folder: the newest is the last
DAY = timedelta(days=1)  # a clock that was wrong by more is not waited for
WEIGHT_FILES = (".safetensors", ".ckpt", ".pt", ".bin")


@dataclass(frozen=True)
class Run:
    folder: Path

    @property
    def key(self) -> str:
        """Names the run in addresses: "<the project's slug>/<the run folder's name>"."""
        return f"{self.folder.parent.parent.name}/{self.folder.name}"

    @property
    def config(self) -> Path:
        return self.folder / "config.toml"

    @property
    def events(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def process(self) -> Path:
        return self.folder / alive.RECORD

    @property
    def lock(self) -> Path:
        """Held by the engine while it trains the run."""
        return self.folder / alive.LOCK

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def control(self) -> Path:
        """Where the app puts what it asks the engine for."""
        return self.folder / "control"

    @property
    def stop_file(self) -> Path:
        return self.control / "stop"

    @property
    def pause_file(self) -> Path:
        return self.control / "pause"

    @property
    def less_memory_file(self) -> Path:
        return self.control / "less_memory"

    @property
    def ended_file(self) -> Path:
        """There while the newest sitting is one that a person ended at once."""
        return self.control / "ended"


@dataclass(frozen=True)
class Status:
    """`word`: new, starting, running, pausing, paused, stopping, stopped, interrupted, finished or failed."""

    run: Run
    state: RunState
    alive: bool
    word: str

    @property
    def seconds_left(self) -> float | None:
        """None until the speed is known."""
        if not self.alive or self.state.seconds_per_step is None:
            return None
        return (self.state.steps - self.state.step) * self.state.seconds_per_step + self.state.beside_left

    @property
    def adapter(self) -> Path | None:
        """The adapter file that the run has written last."""
        if self.state.adapter:
            return absolute(self.state.adapter, self.run.folder)
        files = [file for file in (self.run.folder / "output").glob("*.safetensors") if _is_adapter(file)]
        return max(files, key=lambda file: file.stat().st_mtime, default=None)


def create(project: Project, config: TrainConfig, start: Path | None = None) -> Run:
    """Make a run folder holding the settings, every path in them absolute; relative ones begin at `start`."""
    moment = _newest_moment(project.folder.parent)
    with new_folder(project.runs, f"{moment:{MOMENT}}_{slug(config.saving.name)}") as folder:
        run = Run(folder)
        config_io.save(with_absolute_paths(config, start), run.config)
    return run


def _newest_moment(projects: Path) -> datetime:
    """Now; but after any run of the hours to come, where the clock was put back since, as it is for winter time."""
    now = datetime.now()
    words = (folder.name[: len(f"{now:{MOMENT}}")] for folder in projects.glob("*/runs/*"))
    ahead = max((word for word in words if f"{now:{MOMENT}}" < word < f"{now + DAY:{MOMENT}}"), default="")
    try:
        return datetime.strptime(ahead, MOMENT) + timedelta(seconds=1)
    except ValueError:  # none, or a folder that a person named
        return now


def list_runs(home: Home) -> list[Run]:
    """All runs, the newest first."""
    files = home.projects.glob("*/runs/*/config.toml")
    return [Run(file.parent) for file in sorted(files, key=lambda file: (file.parent.name, file.parent), reverse=True)]


def by_key(home: Home, key: str) -> Run | None:
    """The run of that key, where there is one."""
    slug, _, name = key.partition("/")
    folder = home.projects / slug / "runs" / name
    plain = all(part not in ("", ".", "..") and Path(part).name == part for part in (slug, name))
    there = plain and os.path.isfile(folder / "config.toml")  # pathlib raises where a name is too long
    return Run(folder) if there else None


def find(home: Home, text: str) -> Run:
    """A run by its folder, "last", its folder's name, or its project's name or slug (the newest run of it)."""
    folder = absolute(text)
    if (folder / "config.toml").is_file():
        return Run(folder)
    runs = list_runs(home)
    if text == "last":
        if not runs:
            raise UserError("There is no run yet.", "Make one with `darkroom new`, or try `darkroom demo`.")
        return runs[0]
    shown = {project.slug: project.name for project in list_projects(home)}
    folders, slugs = [run.folder.name for run in runs], [run.folder.parent.parent.name for run in runs]
    called = [shown.get(one, one) for one in slugs]  # a project that was renamed keeps its slug
    exact, alike = (folders, called, slugs), (slugs, [slug(name) for name in called])
    for wanted, names in [(text, names) for names in exact] + [(slug(text), names) for names in alike]:
        if wanted in names:
            return runs[names.index(wanted)]
    if folder.is_dir():
        raise UserError(f"{folder} is not a run: it holds no config.toml.", "`darkroom status` lists all runs.")
    near = difflib.get_close_matches(text, [*folders, *called, *slugs], 1, 0.6)
    raise UserError(
        f"There is no run {text}.", f"Did you mean {near[0]}?" if near else "`darkroom status` lists all runs."
    )


def status(run: Run, state: RunState | None = None) -> Status:
    """What events and the process say about a run, derived from disk each time; `state` spares reading the events."""
    state = state or read_story(run.events).state
    trained = is_alive(run)
    if trained:
        word = _word_alive(run, state)
    elif state.status == "running" or (state.status == "new" and run.process.exists()):
        word = "interrupted"
    else:
        word = state.status
    return Status(run, state, trained, word)


def _word_alive(run: Run, state: RunState) -> str:
    if run.stop_file.exists():
        return "stopping"
    if run.pause_file.exists():
        return "pausing"
    return "running" if state.status == "running" else "starting"


def _is_adapter(file: Path) -> bool:
    """No embedding file of new tokens, which lies beside it; what cannot be read is told of when it is used."""
    try:
        return file.is_file() and identify(file).kind != "textual inversion"
    except UserError:
        return True


def is_alive(run: Run) -> bool:
    """Whether a process trains the run now, whoever started it."""
    return alive.is_worked_in(run.folder)


def with_absolute_paths(config: TrainConfig, start: Path | None = None) -> TrainConfig:
    """`config` with the folders, model files and start file it names as absolute paths; hub ids stay as they are."""

    def place(text: str) -> str:
        path = absolute(text, start)
        written_as_path = text.startswith(("~", ".", "/", "\\")) or text.lower().endswith(WEIGHT_FILES)
        return str(path) if text and (written_as_path or path.exists()) else text

    model = {name: place(getattr(config.model, name)) for name in MODEL_FILES}
    if config.model.base != "embedded":
        model["base"] = place(config.model.base)
    folders = [str(absolute(folder, start)) for folder in config.data.folders]
    adapter = {"init_from": place(config.adapter.init_from)}
    return config_io.merge(config, {"model": model, "data": {"folders": folders}, "adapter": adapter})
