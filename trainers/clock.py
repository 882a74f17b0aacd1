"""Seconds that the machine was awake: a clock that is corrected does not change them, and sleep does not count."""

import ctypes
import os
import time

TICKS = 1e7  # of Windows' interrupt time, in a second


def awake() -> float:
    """Only differences mean something: between two moments of one start of the machine, in any of its processes.

    Python's monotonic clock stands still in sleep on Linux and macOS, and goes on on Windows.
    """
    return _unbiased() if os.name == "nt" else time.monotonic()


def _unbiased() -> float:
    ticks = ctypes.c_ulonglong()  # QueryUnbiasedInterruptTime, from the Windows API
    return ticks.value / TICKS if ctypes.windll.kernel32.QueryUnbiasedInterruptTime(ctypes.byref(ticks)) else 0.0
