"""Jobs: the engine as a process of its own, started, followed, stopped, and found again after the app was closed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app import alive
from app.paths import ROOT, Home
from app.runs import Run, is_alive, status
from app.settings import load_settings
from trainers import config_io, events
from trainers.control import Control, parse_wishes
from trainers.errors import UserError
from trainers.events import Event, Failed, Finished, RunState, Stopped
from trainers.families.locate import require_base
from trainers.files import write_whole
from trainers.locks import locked
from trainers.prompts import preview_prompts

ENGINE = (sys.executable, "-m", "trainers")
POLL = 0.2  # seconds between looks at the events
ROOM = 64 * 1024  # bytes; with less the engine cannot even say why it ended
OWN_GROUP = 0x08000000 | 0x00000200  # CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP, from the Windows API


@dataclass(frozen=True)
class Job:
    run: Run
    process: subprocess.Popen
    offset: int  # byte of events.jsonl where this sitting begins


@dataclass(frozen=True)
class Outcome:
    """How a sitting ended. `interrupted`: a person pressed Ctrl-C here, and everything is saved."""

    state: RunState
    interrupted: bool


def start(run: Run, home: Home, command: Sequence[str] | None = None) -> Job:
    """Start the engine on a run, detached: it goes on when this process ends.

    `command` stands in for the engine; the run folder is added to it.

    Raises:
        UserError: the run is being trained already, or a glance at its settings and base shows that it cannot be.
    """
    _require_idle(run)  # what is refused leaves no trace in the home folder
    require_base(config_io.load(run.config).model)  # the engine says it too, ten seconds later and in its own log
    home.root.mkdir(parents=True, exist_ok=True)
    with locked(home.root / "start.lock"):  # two could start it at the same moment
        _require_idle(run)
        return _start(run, home, command or ENGINE)


def _require_idle(run: Run) -> None:
    if is_alive(run):
        name = run.folder.name
        raise UserError(f"{name} is being trained already.", f"See it with `darkroom status {name}`, or stop it first.")


def _start(run: Run, home: Home, command: Sequence[str]) -> Job:
    left_over = (run.stop_file, run.pause_file, run.less_memory_file, run.ended_file)  # of the sitting before
    for file in left_over:
        file.unlink(missing_ok=True)
    alive.forget(run.folder)
    offset = run.events.stat().st_size if run.events.exists() else 0
    environment = engine_environment(os.environ, ROOT, load_settings(home).cache_folder(home))
    environment["DARKROOM_SWEPT"] = "1"  # what control/ holds from now on is meant for this sitting
    with run.log.open("ab") as log:
        process = subprocess.Popen(
            [*command, str(run.folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=run.folder,
            env=environment,
            **detached(os.name),
        )
    alive.write_record(run.folder, process, offset=offset, started=time.time())
    return Job(run, process, offset)


def request_stop(run: Run) -> None:
    """Ask the engine to save and stop after the step it is in; the adapter so far is written, and kept."""
    run.control.mkdir(exist_ok=True)
    run.stop_file.touch()


def pause(run: Run) -> None:
    """Ask the engine to save and end after the step it is in, so that the device is free; does not wait for it.

    Nothing is lost: started again, the run goes on to the very weights it would have reached without the pause.
    UserError when the run is not being trained.
    """
    if not is_alive(run):
        raise UserError(f"{run.folder.name} is not being trained.")
    run.control.mkdir(exist_ok=True)
    run.pause_file.touch()


def use_less_memory(run: Run) -> None:
    """Let a run in training save, and go on at once in the next way that needs less memory, with the same pictures.

    UserError when the run is not being trained.
    """
    if not is_alive(run):
        raise UserError(f"{run.folder.name} is not being trained.", "Set memory.parts or memory.budget.")
    run.control.mkdir(exist_ok=True)
    run.less_memory_file.touch()


def sample_now(run: Run, prompt: str, seed: int, strength: float = 1.0) -> None:
    """Ask a run in training for one picture after the step it is in; it comes as a Sample event with `asked`.

    What is asked for while another picture is still awaited is drawn after it. UserError when the run is not being
    trained, or the wish is none: an empty prompt, a seed below 0, a strength beyond -10 to 10.
    """
    if not is_alive(run):
        raise UserError(f"{run.folder.name} is not being trained.", "Draw the picture from one of its checkpoints.")
    wish = {"prompt": prompt, "seed": seed, "strength": strength}
    parse_wishes(json.dumps([wish]))
    file = run.control / "sample_now"
    try:
        awaited = [asdict(one) for one in parse_wishes(file.read_text("utf-8"))]
    except (OSError, ValueError, UserError):
        awaited = []
    run.control.mkdir(exist_ok=True)
    write_whole(file, json.dumps([*awaited, wish], ensure_ascii=False).encode())


def preview_now(run: Run) -> None:
    """Ask a run in training for all its previews after the step it is in."""
    run.control.mkdir(exist_ok=True)
    write_whole(run.control / "sample_now", b"")


def prompts(run: Run) -> list[str]:
    """The prompts of the run's next previews: those that were edited while it trained, else the settings'."""
    try:
        edited = Control(run.control).prompts()
    except UserError:
        edited = []
    return edited or preview_prompts(config_io.load(run.config))


def set_prompts(run: Run, prompts: Sequence[str]) -> None:
    """What previews draw from now on, also after a resume; the settings' own prompts where none is named."""
    named = [" ".join(prompt.split()) for prompt in prompts]
    run.control.mkdir(exist_ok=True)
    content = json.dumps([prompt for prompt in named if prompt], ensure_ascii=False, indent=1)
    write_whole(run.control / "prompts.json", content.encode())


def stop(run: Run, wait: Callable[[], None] = lambda: time.sleep(POLL)) -> None:
    """Ask the engine to save and stop, and wait until its process has ended."""
    while is_alive(run):
        request_stop(run)  # again and again: an engine that just starts may sweep control/ once
        wait()
    for file in (run.stop_file, run.pause_file):
        file.unlink(missing_ok=True)


def foreground(
    run: Run,
    home: Home,
    show: Callable[[list[Event]], None],
    interrupted: Callable[[int], None],
    command: Sequence[str] | None = None,
) -> Outcome:
    """Start the engine on a run and hand its events to `show` until it ends.

    The first Ctrl-C (or a request to terminate) asks the engine to save and stop and goes on waiting for it, the
    second ends it at once. `interrupted` hears the count each time. UserError when the run failed.
    """
    with _counting_interrupts() as presses:  # before the start, so that no Ctrl-C can leave an engine behind
        job = start(run, home, command)
        last = _follow(job, show, interrupted, presses)
    run.stop_file.unlink(missing_ok=True)
    if isinstance(last, Failed):
        raise UserError(last.message, last.hint)
    if last is None and presses.count < 2:
        raise UserError(
            sudden_end(run, job.process.returncode),
            f"Its last words are in {run.log}. `darkroom resume` goes on from there.",
        )
    return Outcome(status(run).state, presses.count > 0 and not isinstance(last, Finished))


def sudden_end(run: Run, code: int | None = None) -> str:
    """Why a process may have ended without a word; `code` is its exit code, where somebody waited for it."""
    if shutil.disk_usage(run.folder).free < ROOM:
        return f"The training ended without a word: the disk of {run.folder} is full."
    reason = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit code {code})"
    killed = " The system may have ended it because memory ran out." if code in (None, -9, 137) else ""
    return f"The training ended without a word{reason}.{killed}"


def end(run: Run) -> None:
    """End the engine at once, and remember that a person did; the steps since the last checkpoint are lost.

    UserError where it is not this computer's, or another account's.
    """
    if is_alive(run):
        run.control.mkdir(exist_ok=True)
        run.ended_file.touch()
        alive.end(run.folder)
    for file in (run.stop_file, run.pause_file):
        file.unlink(missing_ok=True)
    if is_alive(run):
        run.ended_file.unlink(missing_ok=True)
        raise UserError(f"{run.folder.name} could not be ended from here.", "Another computer or account may train it.")


def engine_environment(environment: Mapping[str, str], root: Path, cache: Path) -> dict[str, str]:
    """What the engine's process gets: the shared cache, our packages first, and UTF-8 everywhere."""
    paths = [str(root), *filter(None, [environment.get("PYTHONPATH")])]
    added = {"DARKROOM_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"}
    return {**environment, **added, "PYTHONUNBUFFERED": "1"}


def detached(system: str) -> dict[str, Any]:
    """Popen options that keep Ctrl-C and the closing of a terminal away from the engine."""
    return {"creationflags": OWN_GROUP} if system == "nt" else {"start_new_session": True}


@dataclass
class _Presses:
    count: int = 0


@contextmanager
def _counting_interrupts() -> Iterator[_Presses]:
    """Inside, Ctrl-C and SIGTERM are counted instead of raised, also where a shell started us with them ignored."""
    presses = _Presses()

    def count(*_: object) -> None:
        presses.count += 1

    before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield presses
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow(
    job: Job, show: Callable[[list[Event]], None], interrupted: Callable[[int], None], presses: _Presses
) -> Finished | Stopped | Failed | None:
    """How this sitting ended, in the engine's own words; None where it died without any."""
    last, offset, heard, over = None, job.offset, 0, False
    while not over:
        over = _ended(job.process)  # asked first, so that what it wrote last is read below
        new, offset = events.read_from(job.run.events, offset)
        fresh = [event for _, event in new]
        last = next((event for event in reversed(fresh) if isinstance(event, (Finished, Stopped, Failed))), last)
        show(fresh)
        if presses.count > heard:
            heard = presses.count
            interrupted(heard)
        if presses.count > 1:
            job.process.kill()
        elif presses.count:
            request_stop(job.run)  # again and again: an engine that just starts may sweep control/ once
    return last


def _ended(process: subprocess.Popen) -> bool:
    """Whether the process has ended, after waiting a moment for it."""
    try:
        process.wait(POLL)
        return True
    except subprocess.TimeoutExpired:
        return False
