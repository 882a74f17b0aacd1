"""What works in the background has the lower priority, and nothing else has."""

import os
import subprocess
import sys
import threading

import pytest

from app.modesty import LOW, step_back
from app.paths import ROOT


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux only")
def test_only_the_thread_that_steps_back_does():
    found = []

    def work() -> None:
        step_back()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [max(before, LOW)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has classes of priority in place of numbers")
def test_a_whole_process_steps_back():
    program = "import os; from app.modesty import step_back_whole; step_back_whole(); print(os.getpriority(0, 0))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert int(done.stdout) >= LOW, done.stderr
