"""How many threads a CPU may compute with, and how they get on with other programs.

The number is settled once for a run (thread_count.py) and kept when it is resumed: sums that are split among another
number of threads differ in their last bits (after 25 steps on the embedded base, the weights of 1 and of 2 threads
differ in the seventh digit). What adapts is the waiting: threads that wait for each other sleep. By default they spin,
and where another program holds a core they spin through its turns, thousands of times in a step. Imports no torch,
which reads the policy when it is loaded.
"""

import os
import time

import psutil

from trainers.events import Warned

LEAST = 30.0  # seconds over which other programs are watched before anything is said of them
MUCH = 0.5  # cores


def wait_passively() -> None:
    """Call it before torch is imported; what the user has set himself stays."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def wished() -> int:
    """The user's OMP_NUM_THREADS; 0 where he leaves it to us."""
    count = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(count) if count.isdigit() else 0


def choose(earlier: int = 0) -> int:
    """Threads for this process: the user's wish, else `earlier`'s of a resumed run, else a core each."""
    if wish := wished():
        return wish
    allowed = usable()
    if 0 < earlier <= allowed:
        return earlier
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))


def usable() -> int:
    """Logical processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Others:
    """Watches what other programs take of the processor while this one computes."""

    def __init__(self) -> None:
        self.began, self.busy, self.own = time.monotonic(), _busy(), time.process_time()

    def cores(self) -> float | None:
        """How many cores they took on average since the last answer; None while that is too short a time to tell."""
        elapsed = time.monotonic() - self.began
        if elapsed < LEAST:
            return None
        before = self.busy, self.own
        self.began, self.busy, self.own = time.monotonic(), _busy(), time.process_time()
        return max(0.0, (self.busy - before[0] - (self.own - before[1])) / elapsed)


def crowded(others: float, threads: int, cores: int) -> Warned | None:
    """What to say when other programs take `others` of `cores` cores, and `threads` of ours want one each."""
    if others < MUCH or others + threads < cores + MUCH:
        return None
    message = f"Other programs take {others:.1f} of this computer's {cores} processor cores, and the training waits."
    return Warned(message, "Close what is not needed meanwhile; the estimate of the time left follows by itself.")


def _busy() -> float:
    """Seconds that all cores together have worked since the system started."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
