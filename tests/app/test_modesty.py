"""What works in the background has the lower priority, and nothing else has."""

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest

from app import modesty
from app.gui.answers import PREDICT, GoesFirst
from app.modesty import LOW, give_way, going_first, step_back
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


def test_an_answer_that_takes_long_holds_up_no_work(monkeypatch):
    now = time.monotonic()
    with going_first():
        monkeypatch.setattr(modesty.time, "monotonic", lambda: now + 60)
        assert not give_way(30)  # at once
        with going_first():
            assert not give_way(0.01)


def test_work_gives_way_until_all_answers_are_given_and_not_for_good():
    assert give_way(0)
    with going_first():
        with going_first():
            assert not give_way(0)
        assert not give_way(0.01)
        waiting = threading.Thread(target=give_way, args=[60])
        waiting.start()
    waiting.join(30)
    assert not waiting.is_alive() and give_way(0)


@pytest.mark.parametrize(
    ("kind", "path", "first"), [("http", PREDICT, True), ("http", "/", False), ("lifespan", "", False)]
)
def test_what_a_person_did_is_answered_first_and_failures_hold_up_nothing(kind, path, first):
    seen = []

    async def answer(*_):
        seen.append(give_way(0))
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        asyncio.run(GoesFirst(answer)({"type": kind, "path": path}, None, None))
    assert seen == [not first] and give_way(0)
