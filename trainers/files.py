"""Files written whole or not at all."""

import io
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from trainers import json_values

DAY = 24  # hours; no file takes as long to write
PAUSES = (0.1, 0.2, 0.4, 0.6, 0.7) if os.name == "nt" else ()  # seconds


def write_whole(path: Path, content: bytes, check: Callable[[Path], object] | None = None) -> Path:
    """Write under a temporary name beside `path`, flush to the disk, and rename into place; returns `path`.

    Whatever fails, `path` stays as it was and nothing is left beside it. `check` is called with the temporary file
    before it gets its name, and refuses it by raising. OSError where the disk or the folder refuses.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")  # own name: several runs share a cache
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if check:
            check(partial)
        rename(partial, path)
        flush_folder(path.parent)
    finally:
        with suppress(OSError):  # renamed by now, unless something failed
            partial.unlink()
    return path


def rename(source: Path, target: Path) -> None:
    """os.replace, tried again for two seconds where another program has a file open: Windows refuses meanwhile."""
    for pause in PAUSES:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            time.sleep(pause)
    os.replace(source, target)


def sweep(folder: Path, hours: float = 0) -> None:
    """Remove the temporary files and folders that a killed process left in a folder, where they are older than that.

    With 0 hours nobody else may be writing there.
    """
    for left in folder.glob(".*partial*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime < 3600 * hours:
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


def flush_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk: a file that was renamed keeps its new name when the power fails.

    As far as the file system can. Windows does that by itself, and opens no folders.
    """
    if os.name == "posix":
        with suppress(OSError):  # what was renamed is there all the same
            opened = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)


def encoded(picture: Image.Image, form: str = "PNG") -> bytes:
    """A picture as the bytes of a file of that form."""
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


def remembered(path: Path) -> dict[str, Any]:
    """What `remember` wrote; nothing where the file is missing or damaged."""
    try:
        known = json_values.read(path)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def remember(path: Path, known: dict[str, Any]) -> None:
    """Keep JSON values that can be found out again; where they cannot be written, that only costs time."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(known).encode())
