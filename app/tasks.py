"""Tasks: engine work for a page that takes a while, in a process of its own, with its progress on disk.

A task is a folder: task.json (what is called), events.jsonl, log.txt, process.json, lock, answer.json, and the pictures
that it draws. It goes on when the window is closed, and is found again.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import alive, calls
from app.calls import plain
from app.jobs import detached, engine_environment
from app.paths import ROOT, Home, find_home
from app.settings import load_settings
from trainers import events, json_values
from trainers.errors import UserError
from trainers.events import Failed, Finished, RunState
from trainers.files import write_whole


@dataclass(frozen=True)
class TaskStatus:
    """`word`: none (no task in the folder), running, finished, failed, stopped or interrupted.

    `state` holds phase, phase_done, phase_total, samples (their paths inside the folder), message and hint.
    """

    folder: Path
    word: str
    state: RunState
    answer: Any = None  # what the function returned, once it has finished

    @property
    def alive(self) -> bool:
        return self.word == "running"


def start(
    folder: Path, function: str, values: dict[str, Any], home: Home | None = None, module: str = calls.ENGINE
) -> None:
    """Call a function of app.engine in a process of its own, which goes on when this one ends.

    The function gets `values` by name (paths as texts and settings as `model_dump(mode="json")` become what it is
    annotated to take) and, where it has such parameters, `emit` for events (Phase, Sample, ...) and `folder`, to write
    pictures to. What it returns is the answer. An earlier task of the folder is forgotten; its pictures stay.

    It waits for nothing: where a run is in training on the same device, both share it, which the person has decided.

    Raises:
        UserError: a task of this folder is still running.
    """
    if alive.is_worked_in(folder):
        raise UserError("This is being made already.", "Wait for it, or stop it first.")
    folder.mkdir(parents=True, exist_ok=True)
    alive.forget(folder)
    for name in ("events.jsonl", "answer.json", "stop"):
        (folder / name).unlink(missing_ok=True)
    content = {"function": function, "values": values, "module": module}
    write_whole(folder / "task.json", json.dumps(content, default=plain, ensure_ascii=False, indent=1).encode())
    home = home or find_home()
    environment = engine_environment(os.environ, ROOT, load_settings(home).cache_folder(home))
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.task_main", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**environment, "HF_HUB_DISABLE_TELEMETRY": "1"},
            **detached(os.name),
        )
    alive.write_record(folder, process)


def status(folder: Path) -> TaskStatus:
    """What the disk says about the task of a folder."""
    if not (folder / "task.json").is_file():
        return TaskStatus(folder, "none", RunState())
    at_work = alive.is_worked_in(folder)  # asked first, so that what it wrote last is read below
    told = list(events.read(folder / "events.jsonl"))
    state = events.fold(told)
    last = next((event for event in reversed(told) if isinstance(event, (Finished, Failed))), None)
    if isinstance(last, Finished):
        return TaskStatus(folder, "finished", state, _answer(folder))
    if isinstance(last, Failed):
        return TaskStatus(folder, "failed", state)
    if at_work:
        return TaskStatus(folder, "running", state)
    return TaskStatus(folder, "stopped" if (folder / "stop").exists() else "interrupted", state)


def stop(folder: Path) -> None:
    """End the task at once; pictures that are drawn stay, since each is written whole."""
    if not alive.is_worked_in(folder):
        return
    (folder / "stop").touch()
    alive.end(folder, gently=True)


def remove(folder: Path) -> None:
    """End the task, and remove its folder with all that it drew."""
    stop(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _answer(folder: Path) -> Any:
    try:
        return json_values.read(folder / "answer.json")
    except (OSError, ValueError):
        return None
