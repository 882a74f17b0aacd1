"""One process at a time: a lock on a file, which the system opens again when its holder ends in any way."""

import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from trainers import json_values

if os.name == "nt":
    import msvcrt
else:
    import fcntl

TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # what systems say of a lock that another process has
GUARD = 1  # bytes at the beginning: Windows locks them, and nobody else can read them meanwhile; what follows, all can
MOMENT = 0.002  # seconds; a look at a lock takes less


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other thread or process is inside a block locked with the same file. Do not nest it.

    The file is made when it is missing, and stays. A file system without locks lets everybody in. OSError where the
    file cannot be made.
    """
    with path.open("ab") as file:
        taken = _taken(file)
        try:
            yield
        finally:
            if taken:
                _give(file)


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Inside, whether no other process is inside such a block with the same file; none is waited for.

    The file then says who holds it, and stays. A file system without locks lets everybody in. OSError where the file
    cannot be made.
    """
    with path.open("a+b", buffering=0) as file:
        try:
            taken = _try(file)
        except OSError:  # no locks here
            yield True
            return
        if not taken:
            yield False
            return
        try:
            with suppress(OSError):  # a full disk is told of by who writes what matters
                file.truncate(GUARD)
                file.write(json.dumps(identity()).encode())
            yield True
        finally:
            _give(file)


def held(path: Path) -> bool | None:
    """Whether a process is inside such a block now; None where nobody can tell. Who enters is not kept out by it."""
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    with file:
        try:
            if os.name == "nt":
                return _unreadable(file)
            free = _taken_at_once(file, exclusive=False)  # others may look at the same time
        except OSError:
            return None
        if free:
            fcntl.flock(file, fcntl.LOCK_UN)
        return not free


def holder(path: Path) -> dict[str, Any]:
    """The identity of who is or was inside last; {} where nobody has been since `forget_holder`."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(GUARD)
            found = json_values.parse(file.read(4096))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def forget_holder(path: Path) -> None:
    """So that it can be seen when somebody has entered. Only while nobody is inside."""
    path.write_bytes(bytes(GUARD))


def identity(pid: int | None = None) -> dict[str, Any]:
    """By what a process is found again; this one where none is named."""
    pid = pid or os.getpid()
    born = time.time()
    with suppress(psutil.Error):  # it has ended already
        born = psutil.Process(pid).create_time()
    return {"pid": pid, "create_time": born}


def _try(file: IO[bytes]) -> bool:
    """Take it, unless another process is inside. OSError where the file system has no locks."""
    while not _taken_at_once(file, exclusive=True):
        if os.name == "nt" or not _taken_at_once(file, exclusive=False):
            return False
        fcntl.flock(file, fcntl.LOCK_UN)  # somebody only looks
        time.sleep(MOMENT)
    return True


def _taken_at_once(file: IO[bytes], exclusive: bool) -> bool:
    try:
        if os.name == "nt":
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno in TAKEN:
            return False
        raise


def _unreadable(file: IO[bytes]) -> bool:
    try:
        file.read(GUARD)
        return False
    except PermissionError:
        return True


def _taken(file: IO[bytes]) -> bool:
    """Wait for it; False where the file system has no locks."""
    if os.name != "nt":
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            return False
        return True
    while True:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            return True
        except OSError:  # it gives up after ten seconds
            continue


def _give(file: IO[bytes]) -> None:
    if os.name != "nt":
        fcntl.flock(file, fcntl.LOCK_UN)
        return
    file.seek(0)
    msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
