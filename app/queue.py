"""The queue: runs that wait for the device, on disk, so that it survives a restart of the app."""

import json
import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app import jobs
from app.alive import LOCK, RECORD, forget, record
from app.paths import Home
from app.runs import Run, is_alive, status
from app.story import read_story
from trainers import config_io, json_values
from trainers.errors import UserError, disk_error
from trainers.families.locate import require_base
from trainers.files import write_whole
from trainers.json_values import is_number
from trainers.locks import locked

PAUSE = 1.0  # seconds between looks at what runs
STARTED = (RECORD, LOCK)  # a run has them when it was ever begun
WINDING_DOWN = ("pausing", "stopping")
GONE = "Its folder is not there any more."
log = logging.getLogger(__name__)


class Queue:
    """Runs in the order in which they will be trained; one at a time.

    Kept in queue.json of the home folder: two windows, and the command line, see the same queue. Whoever changes it or
    starts a run from it holds the lock of queue.lock meanwhile, so that no two processes start a run at the same time.
    """

    def __init__(self, home: Home):
        self.home = home
        self._ended: dict[Path, tuple] = {}  # run folder -> what was written of a process that was seen to have ended
        self._children: list[jobs.Job] = []  # asked for their exit code, so that the system can forget them
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, run: Run) -> None:
        """Train the run now, or when those before it have ended; a run that was begun goes on where it stopped.

        A queue that was held goes on, with this run. UserError when it cannot be trained: it is in training, waits
        already, is finished, or has no base model.
        """
        with self._locked() as kept:
            self._require_trainable(run, kept)
            kept.problems = [problem for problem in kept.problems if problem.run != run]
            first = kept.held or not kept.waiting
            kept.held = False
            if first and self.running() is None:
                self._start(run)
            else:
                forget(run.folder)  # by a clock that was put back since, it would have been started later than this
                kept.waiting.insert(0 if first else len(kept.waiting), run)
                self._start_next(kept)

    def pause(self, run: Run) -> None:
        """Pause a run (see jobs.pause); what waits does not take its place, since a person wants the device free.

        The queue is held until a run is added again, which is how a paused one goes on, or until `go_on`.
        """
        with self._locked() as kept:  # so that no other window starts the next one between these
            jobs.pause(run)
            kept.held = bool(kept.waiting)

    def held(self) -> bool:
        """Whether runs wait although nothing runs, because a person paused one."""
        return self._read().held

    def go_on(self) -> None:
        """Start what waits, after a pause."""
        with self._locked() as kept:
            kept.held = False
            self._start_next(kept)

    def waiting(self) -> list[Run]:
        """The runs that wait, the next one first."""
        return self._read().waiting

    def running(self) -> Run | None:
        """The run that is being trained now, whoever started it."""
        there = {}  # run folder -> when each was written
        for folder in {file.parent for name in STARTED for file in self.home.projects.glob(f"*/runs/*/{name}")}:
            there[folder] = tuple(_written(folder / name) for name in STARTED)
        self._ended = {folder: written for folder, written in self._ended.items() if there.get(folder) == written}
        for folder in sorted(there.keys() - self._ended.keys(), reverse=True):
            if is_alive(Run(folder)):
                return Run(folder)
            self._ended[folder] = there[folder]  # a process that has ended never comes back
        return None

    def move(self, run: Run, place: int) -> None:
        """Put a waiting run at a place of the queue, 0 being the next. UserError when it no longer waits."""
        with self._locked() as kept:
            kept.take(run)
            kept.waiting.insert(min(max(place, 0), len(kept.waiting)), run)

    def remove(self, run: Run) -> None:
        """Take a waiting run out; it stays what it was before. UserError when it no longer waits."""
        with self._locked() as kept:
            kept.take(run)
            kept.held = kept.held and bool(kept.waiting)

    def problems(self) -> list[tuple[Run, str]]:
        """Runs that left the queue because they could not be started, each with the reason, the newest last."""
        return [(problem.run, problem.text) for problem in self._read().problems]

    def dismiss(self, key: str) -> None:
        """Forget the problems of the run of that key, which a person has read."""
        with self._locked() as kept:
            kept.problems = [problem for problem in kept.problems if problem.run.key != key]

    def tick(self) -> None:
        """Start the next run if one waits and nothing runs."""
        self._children = [job for job in self._children if job.process.poll() is None]
        if self.waiting():  # without the lock: most of the time there is nothing to do
            with self._locked() as kept:
                self._start_next(kept)

    def watch(self) -> None:
        """From now on, in a thread of this process, start the next run whenever nothing runs."""
        if self._thread is None:
            self._closing.clear()
            self._thread = threading.Thread(target=self._watch, name="queue", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop watching. Runs go on."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(5)
            self._thread = None

    def _watch(self) -> None:
        while not self._closing.is_set():
            try:
                self.tick()
            except Exception:  # a full disk, a drive that is gone for a moment: the next look may find it well again
                log.exception("the queue could not be looked at")
            self._closing.wait(PAUSE)

    def _require_trainable(self, run: Run, kept: "_Kept") -> None:
        name = run.folder.name
        if run in kept.waiting:
            raise UserError(f"{name} is in the queue already.")
        word = status(run).word
        if word == "finished":
            raise UserError(f"{name} is finished.", "To train longer, make a new run with more steps.")
        if word in WINDING_DOWN:
            raise UserError(f"{name} is still {word}.", "Try again when it has saved everything.")
        if is_alive(run):
            raise UserError(f"{name} is being trained already.")
        require_base(config_io.load(run.config).model)  # better now than in the night, when its turn comes

    def _start_next(self, kept: "_Kept") -> None:
        """Start the first waiting run that can be started, if nothing runs; the others leave with their reason."""
        while kept.waiting and not kept.held and self.running() is None:
            run = kept.waiting.pop(0)
            if read_story(run.events).state.status == "finished":  # trained, but the app was killed before it wrote so
                continue
            try:
                self._start(run)
            except UserError as error:
                kept.problems.append(_Problem(run, error.message, error.hint))
            except OSError as error:
                told = disk_error(error) or UserError(f"It could not be started: {error.strerror or error}.")
                kept.problems.append(_Problem(run, told.message, told.hint))

    def _start(self, run: Run) -> None:
        self._children.append(jobs.start(run, self.home))

    @contextmanager
    def _locked(self) -> Iterator["_Kept"]:
        """What is on disk, to be changed inside the block; written back at its end, if it was changed."""
        with locked(self.home.root / "queue.lock"):
            kept = self._read()
            before = kept.as_json(self.home)
            yield kept
            if kept.as_json(self.home) != before:
                content = {**kept.as_json(self.home), "written": time.time()}
                write_whole(self._file, json.dumps(content, ensure_ascii=False, indent=1).encode())

    def _read(self) -> "_Kept":
        try:
            found = json_values.read(self._file)
            waiting = [self.home.projects / str(name) for name in found["waiting"]]
            problems = [
                _Problem(Run(self.home.projects / str(one["run"])), str(one["message"]), str(one["hint"]))
                for one in found["problems"]
            ]
            written = float(found.get("written", math.inf))
        except (OSError, ValueError, KeyError, TypeError, OverflowError):  # none yet, or of no version of this app
            return _Kept()
        there, gone = [], []
        for run in map(Run, dict.fromkeys(waiting)):
            if os.path.isfile(run.config):  # pathlib raises where a name is too long
                there.append(run)
            elif run.folder.parent.name == "runs" and os.path.isdir(run.folder.parent):
                gone.append(_Problem(run, GONE, f"Put it back: {run.folder}. Then train it again."))
        left = [run for run in there if not is_alive(run) and not _started_since(run, written)]
        return _Kept(
            left,
            [one for one in problems if one.message == GONE or os.path.isfile(one.run.config)] + gone,
            bool(left) and found.get("held") is True,
        )

    @property
    def _file(self) -> Path:
        return self.home.root / "queue.json"


def _started_since(run: Run, moment: float) -> bool:
    """Whether it was started after the queue was written last: the app was killed before it wrote so."""
    started = record(run.folder).get("started")
    return is_number(started) and started > moment


def _written(file: Path) -> tuple[int, int]:
    """Which file it is, and when it was written; zeros where it is not there."""
    try:
        facts = file.stat()
    except OSError:
        return 0, 0
    return facts.st_ino, facts.st_mtime_ns


@dataclass(frozen=True)
class _Problem:
    run: Run
    message: str
    hint: str

    @property
    def text(self) -> str:
        return f"{self.message} {self.hint}".strip()


@dataclass
class _Kept:
    waiting: list[Run] = field(default_factory=list)
    problems: list[_Problem] = field(default_factory=list)
    held: bool = False

    def take(self, run: Run) -> None:
        if run not in self.waiting:
            raise UserError(f"{run.folder.name} no longer waits in the queue.")
        self.waiting.remove(run)

    def as_json(self, home: Home) -> dict[str, Any]:
        def name(run: Run) -> str:  # inside the home where it lies there, so that a portable folder can be moved
            inside = run.folder.is_relative_to(home.projects)
            return run.folder.relative_to(home.projects).as_posix() if inside else str(run.folder)

        problems = [{"run": name(one.run), "message": one.message, "hint": one.hint} for one in self.problems]
        return {"waiting": [name(run) for run in self.waiting], "problems": problems, "held": self.held}
