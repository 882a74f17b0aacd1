"""What there is to watch: the run that a page shows, and all that it says of it, read from disk each time."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app import alive, jobs
from app.paths import Home
from app.projects import list_projects
from app.queue import Queue
from app.runs import Run, Status, by_key, list_runs, status
from app.story import read_story
from trainers import config_io
from trainers.clock import awake
from trainers.config import TrainConfig
from trainers.control import Control, parse_wishes
from trainers.errors import UserError
from trainers.events import DRAWING
from trainers.prompts import preview_prompts

RECENT = 30  # runs to choose from
PATIENCE = 30.0  # seconds after which a training that should save and end may be ended by hand


@dataclass(frozen=True)
class Watched:
    """A run as it is now. `word` is that of its Status, or "waiting" in the queue."""

    status: Status
    config: TrainConfig
    project: str  # its name
    word: str
    seconds: float = 0.0  # spent training, pauses left out
    spoken: bool = True  # whether the engine has said anything since it was started last
    late: bool = False  # whether it was asked to save and end a good while ago
    sudden: str = ""  # the sentence of an end without a word
    ended: bool = False  # whether a person ended it at once
    problem: str = ""  # why it left the queue without being trained
    queue: tuple[str, ...] = ()  # names of the runs that wait, this one left out
    held: bool = False  # whether those wait although nothing runs, because a run was paused
    pending: tuple[str, ...] = ()  # prompts of the samples that were asked for and are not drawn yet
    prompts: tuple[str, ...] = ()  # of the previews to come
    read: tuple = ()  # how far its events are read

    @property
    def run(self) -> Run:
        return self.status.run

    @property
    def seen(self) -> tuple:
        """The same as before: nothing that a page shows has changed."""
        return (
            self.run.key,
            self.word,
            self.late,
            self.sudden,
            self.ended,
            self.problem,
            self.queue,
            self.read,
            self.pending,
            self.prompts,
        )


def choose(home: Home, queue: Queue, key: str) -> Run | None:
    """The run of that key, else the one that is trained now, else the newest."""
    return by_key(home, key) or queue.running() or next(iter(list_runs(home)), None)


def watch(run: Run, queue: Queue) -> Watched:
    """UserError where its settings cannot be read."""
    story = read_story(run.events)
    found, waiting = status(run, story.state), queue.waiting()
    word = "waiting" if run in waiting and not found.alive else found.word
    spoken = not found.alive or story.offset > alive.record(run.folder).get("offset", 0)
    if word == "running" and not spoken:  # what it said is of the sitting before
        word = "starting"
    ended = word == "interrupted" and run.ended_file.exists()
    sudden = jobs.sudden_end(run) if word == "interrupted" and not ended else ""
    problem = "" if found.alive or word == "waiting" else dict(queue.problems()).get(run, "")
    config = _config(run.config, run.config.stat().st_mtime_ns)
    names = tuple(_name(one) for one in waiting if one != run)
    late = word in ("stopping", "pausing") and _asked_since(run) > PATIENCE
    return Watched(
        found,
        config,
        project_name(run),
        word,
        seconds=story.seconds,
        spoken=spoken,
        late=late,
        sudden=sudden,
        ended=ended,
        problem=problem,
        queue=names,
        held=bool(names) and not found.alive and queue.held(),
        pending=_pending(run, found),
        prompts=tuple(_prompts(run, config)),
        read=(story.born, story.offset),
    )


def _name(run: Run) -> str:
    """What a waiting run is called; one whose settings cannot be read is told of when its turn comes."""
    try:
        return run_name(run)
    except (UserError, OSError):
        return run.folder.name


def recent(home: Home, shown: Run | None) -> Sequence[Run]:
    """The newest runs, and the one that is shown."""
    found = list_runs(home)[:RECENT]
    return found if shown is None or shown in found else [*found, shown]


def names_of_projects(home: Home) -> dict[str, str]:
    """Slug -> name."""
    return {project.slug: project.name for project in list_projects(home)}


def run_name(run: Run) -> str:
    """What its adapter file is called. UserError where its settings cannot be read."""
    return _config(run.config, run.config.stat().st_mtime_ns).saving.name


def project_name(run: Run) -> str:
    """The name of the project that the run belongs to; its folder's name where that cannot be read."""
    folder = run.folder.parent.parent
    try:
        return _project(folder / "project.toml", (folder / "project.toml").stat().st_mtime_ns)
    except (OSError, UserError):
        return folder.name


@functools.lru_cache(64)
def _config(path: Path, written: int) -> TrainConfig:
    """`written`, in nanoseconds, tells a changed file apart."""
    return config_io.load(path)


@functools.lru_cache(64)
def _project(path: Path, written: int) -> str:
    return str(config_io.read_toml(path).get("name") or path.parent.name)


def _pending(run: Run, now: Status) -> tuple[str, ...]:
    """Prompts of samples that a person asked for and that are not there yet; "" for the one that is being drawn."""
    if not now.alive:
        return ()
    try:
        waiting = [wish.prompt for wish in parse_wishes((run.control / "sample_now").read_text("utf-8"))]
    except (OSError, ValueError, UserError):
        waiting = []
    return (*([""] if now.state.phase == DRAWING else []), *waiting)


def _prompts(run: Run, config: TrainConfig) -> list[str]:
    try:
        edited = Control(run.control).prompts()
    except UserError:
        edited = []
    return edited or preview_prompts(config)


def _asked_since(run: Run) -> float:
    """Seconds since the run was first seen to be asked to save and end."""
    asked = [_seen(file, file.stat().st_mtime_ns) for file in (run.stop_file, run.pause_file) if file.exists()]
    return max((awake() - moment for moment in asked), default=0.0)


@functools.lru_cache(64)
def _seen(file: Path, written: int) -> float:
    """When this process saw a file for the first time: its own time of writing is of a clock that may be corrected."""
    return awake()
