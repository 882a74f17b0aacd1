"""Shows a folder in the system's file manager."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAMS = {"win32": "explorer", "darwin": "open"}


def open_folder(path: Path) -> str:
    """Open a folder (or the one that a file lies in), and say so; where there is no desktop, say where it is."""
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        return f"The folder {folder} is no longer there."
    program = shutil.which(PROGRAMS.get(sys.platform, "xdg-open"))
    desktop = sys.platform in PROGRAMS or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if not program or not desktop:
        return f"The folder is {folder}"
    try:
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        subprocess.Popen([program, str(folder)], start_new_session=os.name != "nt", **streams)
    except OSError:
        return f"The folder is {folder}"
    return f"Opened {folder}"
