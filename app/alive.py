"""Whether a process works in a folder, and which: its lock says so, and its number only until it holds that.

A number alone proves nothing, numbers are given out again. A clock that is corrected moves the times of birth that the
system tells. A folder that is copied takes with it what was written about the process of the other one.
"""

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from trainers import json_values, locks
from trainers.files import write_whole

LOCK, RECORD = "lock", "process.json"
PATIENCE = 5  # seconds until a process that was killed has ended


def is_worked_in(folder: Path) -> bool:
    """Whether the process that was started for a folder is there, from its start on; or any other that works there."""
    held = locks.held(folder / LOCK)
    if held:
        return True
    process = _recorded(folder)
    if process is None:
        return False
    if held is False and locks.holder(folder / LOCK):  # somebody was inside, and at most winds up
        with suppress(psutil.Error):
            return _as_born(process, record(folder)) and str(folder) in process.cmdline()
        return False
    return True  # it has not come as far as the lock


def processes(folder: Path) -> list[psutil.Process]:
    """Those that certainly work in a folder: who holds its lock, who was started for it, and what they started."""
    found = [_process(locks.holder(folder / LOCK), folder) if locks.held(folder / LOCK) else None, _recorded(folder)]
    parents = {process for process in found if process and process.pid != os.getpid()}
    with suppress(psutil.Error):
        return [*{child for parent in parents for child in parent.children(recursive=True)} - parents, *parents]
    return list(parents)


def write_record(folder: Path, process: subprocess.Popen, **more: Any) -> None:
    """Write down who was started for a folder; one that cannot be written down is ended, nobody could find it again."""
    try:
        write_whole(folder / RECORD, json.dumps({**locks.identity(process.pid), **more}).encode())
    except BaseException:
        process.kill()
        process.wait()
        raise


def forget(folder: Path) -> None:
    """What was written of processes that have ended, so that the next one is told from them. OSError on a full disk."""
    if (folder / RECORD).exists():  # not removed: on a full disk that would make room for what must not begin there
        write_whole(folder / RECORD, b"{}")
    locks.forget_holder(folder / LOCK)


def record(folder: Path) -> dict[str, Any]:
    """What was written when a process was started for the folder; {} where none was."""
    try:
        found = json_values.read(folder / RECORD)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def end(folder: Path, gently: bool = False) -> None:
    """End what works in a folder at once; what it was about to write is lost. `gently`: asked first, killed if deaf."""
    found = processes(folder)
    for process in found:
        with suppress(psutil.Error):
            process.terminate() if gently else process.kill()
    for process in psutil.wait_procs(found, timeout=PATIENCE)[1]:
        with suppress(psutil.Error):
            process.kill()
            process.wait(PATIENCE)


def _recorded(folder: Path) -> psutil.Process | None:
    return _process(record(folder), folder)


def _process(written: dict[str, Any], folder: Path) -> psutil.Process | None:
    """The process of an identity, while it is there: as it was born, or called with this folder."""
    try:
        process = psutil.Process(int(written["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process if _as_born(process, written) or str(folder) in process.cmdline() else None
    except (ValueError, KeyError, TypeError, OverflowError, psutil.Error):
        return None


def _as_born(process: psutil.Process, written: dict[str, Any]) -> bool:
    return abs(process.create_time() - float(written["create_time"])) < 1
