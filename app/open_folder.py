"""Opens a folder in the system's file manager."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from app.jobs import detached
from trainers.errors import UserError

PROGRAMS = {"win32": "explorer", "darwin": "open"}  # elsewhere xdg-open


def open_folder(path: Path) -> None:
    """Show a folder, or the folder of a file.

    Raises:
        UserError: it is gone, or there is no desktop here; the sentence says the path.
    """
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        raise UserError(f"The folder {folder} is no longer there.")
    program = find_program(sys.platform, os.environ)
    try:
        if not program:
            raise FileNotFoundError
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.Popen([program, str(folder)], **quiet, **detached(os.name))
    except OSError as error:
        raise UserError("There is no desktop here that could open a folder.", f"It is {folder}") from error


def find_program(system: str, environment: Mapping[str, str]) -> str | None:
    """The program that opens folders; None where nobody could see it."""
    if system in PROGRAMS:
        return PROGRAMS[system]
    seen = environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")
    return shutil.which("xdg-open", path=environment.get("PATH")) if seen else None
