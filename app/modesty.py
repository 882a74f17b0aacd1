"""Work that lets the page and the training go first."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

LOW = 10  # of Unix's niceness, 0 to 19
LONGEST = 0.3  # seconds that a piece of work gives way: an answer that takes long holds up nothing for good

_answering = 0  # what a person waits for just now
_answered = threading.Condition()


@contextmanager
def going_first() -> Iterator[None]:
    """While a person waits for an answer: work that gives way rests."""
    global _answering  # noqa: PLW0603 - all threads of the process share one interpreter
    with _answered:
        _answering += 1
    try:
        yield
    finally:
        with _answered:
            _answering -= 1
            _answered.notify_all()


def give_way(longest: float = LONGEST) -> bool:
    """Called between two pieces of work: wait, so many seconds at most, until nobody waits. Whether nobody does."""
    with _answered:
        return _answered.wait_for(lambda: not _answering, longest)


def step_back() -> None:
    """Lower the priority of the calling thread on Linux; elsewhere threads have none of their own, and it stays."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW)


def step_back_whole() -> None:
    """Lower the priority of this process."""
    with suppress(OSError, psutil.Error):
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if os.name == "nt" else LOW)
