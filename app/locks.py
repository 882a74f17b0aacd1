"""One process at a time: a lock on a file, which the system opens again when its holder ends in any way."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

if os.name == "nt":
    import msvcrt
else:
    import fcntl


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other thread or process is inside a block locked with the same file. Do not nest it.

    The file is made when it is missing, and stays. OSError where it cannot be made.
    """
    with path.open("ab") as file:
        _take(file)
        try:
            yield
        finally:
            _give(file)


def _take(file: IO[bytes]) -> None:
    if os.name != "nt":
        fcntl.flock(file, fcntl.LOCK_EX)
        return
    while True:
        file.seek(0)
        try:
            return msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        except OSError:  # it gives up after ten seconds
            continue


def _give(file: IO[bytes]) -> None:
    if os.name != "nt":
        fcntl.flock(file, fcntl.LOCK_UN)
        return
    file.seek(0)
    msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
