"""Work that lets the page and the training go first."""

import os
import sys
import threading
from contextlib import suppress

import psutil

LOW = 10  # of Unix's niceness, 0 to 19


def step_back() -> None:
    """Lower the priority of the calling thread on Linux; elsewhere threads have none of their own, and it stays."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW)


def step_back_whole() -> None:
    """Lower the priority of this process."""
    with suppress(OSError, psutil.Error):
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if os.name == "nt" else LOW)
