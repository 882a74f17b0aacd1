"""One process at a time: a lock on a file, which the system opens again when its holder ends in any way."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

if os.name == "nt":
    import msvcrt
else:
    import fcntl

TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # what systems say of a lock that another process has


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


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Inside, whether no other process is inside such a block with the same file; none is waited for.

    A file system without locks lets everybody in. OSError where the file cannot be made.
    """
    with path.open("ab") as file:
        try:
            _try(file)
        except OSError as error:
            yield error.errno not in TAKEN
            return
        try:
            yield True
        finally:
            _give(file)


def _try(file: IO[bytes]) -> None:
    if os.name != "nt":
        return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    file.seek(0)
    return msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)


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
