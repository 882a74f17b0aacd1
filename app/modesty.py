"""Work that lets the page and the training go first."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

LOW = 10  # of Unix's niceness, 0 to 19
LONGEST = 0.3  # seconds that work gives way to an answer, which may take long: it holds up nothing for good

_since: dict[object, float] = {}  # answers that a person waits for -> when they were asked for
_answered = threading.Condition()


@contextmanager
def going_first() -> Iterator[None]:
    """While a person waits for an answer: work that gives way rests."""
    answer = object()
    with _answered:
        _since[answer] = time.monotonic()
    try:
        yield
    finally:
        with _answered:
            del _since[answer]
            _answered.notify_all()


def give_way(longest: float = LONGEST) -> bool:
    """Called between two pieces of work: wait until nobody waits for an answer, or has for so many seconds.

    Returns whether nobody does.
    """
    with _answered:
        newest = max(_since.values(), default=0.0)
        left = newest + longest - time.monotonic()
        return not _since if left <= 0 else _answered.wait_for(lambda: not _since, left)


def step_back() -> None:
    """Lower the priority of the calling thread on Linux; elsewhere threads have none of their own, and it stays."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW)


def step_back_whole() -> None:
    """Lower the priority of this process."""
    with suppress(OSError, psutil.Error):
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if os.name == "nt" else LOW)
