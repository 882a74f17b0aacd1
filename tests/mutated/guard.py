"""What no input may do: take long, take much memory, write outside its folder, start a program, or run a pickle's code.

An audit hook hears every file that Python opens to write; the clock and the peak memory are measured around the call.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

SECONDS = 5.0
MEGABYTES = 500
PATHS_OF = {  # audit event -> which of its arguments are paths that it changes, and the folders that they begin at
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.utime": ((0, 3),),
}
PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.startfile", "os.fork", "socket.connect")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Broke(AssertionError):
    """A promise that an input has broken."""


class _TooSlow(BaseException):
    """Raised inside the call: no `except Exception` stops it."""


class _Ears:
    """The one audit hook of the process; it cannot be taken away, and is deaf while no call is watched."""

    def __init__(self) -> None:
        self.inside = ""
        self.heard: list[str] = []
        self.busy = threading.local()
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.inside or getattr(self.busy, "now", False):
            return
        self.busy.now = True
        try:
            for path in _written(event, arguments):
                if not _lies_in(path, self.inside):
                    self.heard.append(f"{event} of {path}")
            if event in PROGRAMS:
                self.heard.append(f"{event} {arguments[:2]}"[:200])
        finally:
            self.busy.now = False


def _written(event: str, arguments: tuple[Any, ...]) -> list[Any]:
    if event == "open":
        path, mode, flags = arguments
        writes = any(letter in mode for letter in "wxa+") if isinstance(mode, str) else bool((flags or 0) & WRITING)
        return [path] if writes else []
    return [_from(arguments[path], start and arguments[start]) for path, start in PATHS_OF.get(event, ())]


def _from(path: Any, start: int | None) -> Any:
    """A path that begins at an open folder, whose number is -1 where there is none."""
    if start is None or start < 0 or isinstance(path, int):
        return path
    return os.path.join(os.readlink(f"/proc/self/fd/{start}"), os.fsdecode(path))


def _lies_in(path: Any, folder: str) -> bool:
    """What is named by a number was opened before, which was heard."""
    if isinstance(path, int) or path is None:
        return True
    name = os.fsdecode(path)
    real = os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(name))), os.path.basename(name))
    return name == os.devnull or real == folder or real.startswith(folder + os.sep) or "__pycache__" in name


_ears = _Ears()


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Inside, only below `folder` may be written. Broke where a promise is broken."""
    before, began = _begin(), time.monotonic()
    _ears.heard, _ears.inside = [], os.path.realpath(folder)
    try:
        with _alarm():
            yield
    except _TooSlow:
        raise Broke(f"it took more than {SECONDS:g} seconds") from None
    finally:
        _ears.inside = ""
    took, grew = time.monotonic() - began, (_peak() - before) / 2**20
    if _ears.heard:
        raise Broke(f"it reached outside its folder: {_ears.heard[:3]}")
    if took > SECONDS:
        raise Broke(f"it took {took:.1f} seconds")
    if grew > MEGABYTES:
        raise Broke(f"it took {grew:,.0f} MB of memory")


@contextmanager
def _alarm() -> Iterator[None]:
    """Ends a call that hangs, where the system has such a clock; elsewhere it is measured when it has ended."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _begin() -> int:
    """Bytes that the process has in memory; from here on Linux counts the peak anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # another system: a peak of before may hide a smaller one, and never invents one
        return max(_peak(), psutil.Process().memory_info().rss)
    return psutil.Process().memory_info().rss


def _peak() -> int:
    """The most bytes that the process had in memory since it was counted anew; 0 where nothing tells."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return getattr(psutil.Process().memory_info(), "peak_wset", 0)
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)
