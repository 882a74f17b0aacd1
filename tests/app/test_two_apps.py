"""Several apps on one home folder, and apps that are killed: each run is trained once, and none is lost."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from app import jobs, projects, runs
from app.queue import Queue
from app.runs import Run
from tests.app.test_cli_queue import WITH_FAKE_ENGINE
from trainers import config_io, events
from trainers.errors import UserError
from trainers.events import EventLog, Finished, Started

ADD = """
import sys, pathlib
sys.path.insert(0, sys.argv[1])
from app import jobs, paths, queue, runs
jobs.ENGINE = (sys.executable, sys.argv[2], "wait")
for folder in sys.argv[4:]:
    queue.Queue(paths.Home(pathlib.Path(sys.argv[3]))).add(runs.Run(pathlib.Path(folder)))
print("added", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def several(run, place) -> list[Run]:
    config, (project,) = config_io.load(run.config), projects.list_projects(place)
    return [run, *(runs.create(project, config) for _ in range(5))]


def begun(run: Run) -> int:
    """How often it was started."""
    return sum(isinstance(event, Started) for event in events.read(run.events))


def test_two_apps_on_one_home_start_each_run_once(several, place):
    with Queue(place)._locked() as kept:
        kept.waiting = list(several)
    command = [sys.executable, str(WITH_FAKE_ENGINE), "finish", "queue", "work"]
    apps = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for app in apps:
        app.communicate(timeout=120)
    assert [app.returncode for app in apps] == [0, 0]
    assert [begun(run) for run in several] == [1] * len(several)
    assert [runs.status(run).word for run in several] == ["finished"] * len(several)
    first_words = [json.loads(run.events.read_text("utf-8").splitlines()[0])["awake"] for run in several]
    assert first_words == sorted(first_words)


def test_a_run_that_is_started_in_two_places_at_the_same_moment_is_started_once(run, place, engine_mode, monkeypatch):
    engine_mode("wait")
    at_once, looked = threading.Barrier(2), []
    alive = jobs.is_alive

    def seen(one: Run) -> bool:
        """Both look before either has started it, unless one waits for the other."""
        looked.append(alive(one))
        with suppress(threading.BrokenBarrierError):
            at_once.wait(1)
        return looked[-1]

    monkeypatch.setattr(jobs, "is_alive", seen)

    def start() -> str:
        try:
            return str(jobs.start(run, place).process.pid)
        except UserError as error:
            return error.message

    with ThreadPoolExecutor(2) as threads:
        said = sorted((one.result() for one in [threads.submit(start) for _ in range(2)]), key=str.isdigit)
    assert said[1].isdigit() and said[0] == f"{run.folder.name} is being trained already."
    jobs.end(run)


def test_a_run_whose_app_was_killed_is_found_paused_and_followed_by_the_next(several, place, engine_mode):
    first, second, third, *_ = several
    paths = [jobs.ROOT, WITH_FAKE_ENGINE.with_name("fake_engine.py"), place.root, first.folder, second.folder]
    command = [sys.executable, "-c", ADD, *map(str, [*paths, third.folder])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as app:
        assert app.stdout.readline() == "added\n"
        app.kill()
    engine_mode("wait")
    queue = Queue(place)
    assert queue.running() == first and queue.waiting() == [second, third] and runs.is_alive(first)
    queue.pause(first)
    wait_for_end_of(first)
    assert runs.status(first).word == "paused"
    queue.tick()
    assert queue.running() is None and queue.held()
    queue.go_on()
    assert queue.running() == second
    jobs.stop(second, wait=lambda: None)
    queue.tick()
    assert queue.running() == third and queue.waiting() == []
    jobs.end(third)
    assert [begun(run) for run in (first, second)] == [1, 1]


def test_a_run_that_finished_before_a_killed_app_wrote_so_is_not_trained_again(several, place, engine_mode):
    first, second, *_ = several
    EventLog(first.events)(Finished(10, "output/cat.safetensors", 1.0))
    queue = Queue(place)
    with queue._locked() as kept:
        kept.waiting = [first, second]
    queue.tick()
    assert begun(first) == 0 and queue.waiting() == []
    queue._children[0].process.wait(60)
    assert runs.status(second).word == "finished"


def test_a_pause_holds_the_queue_before_any_other_app_can_start_the_next(several, place, engine_mode, monkeypatch):
    engine_mode("wait")
    first, second, *_ = several
    queue, other = Queue(place), Queue(place)
    queue.add(first)
    queue.add(second)
    pause, looked = jobs.pause, []

    def pausing(run: Run) -> None:
        pause(run)
        wait_for_end_of(run)  # its engine is quick, and the other app looks at this very moment
        looked.append(other.waiting() == [second] and not other.held())

    monkeypatch.setattr(jobs, "pause", pausing)
    queue.pause(first)
    other.tick()
    assert looked == [True] and other.running() is None and other.waiting() == [second]


def wait_for_end_of(run: Run) -> None:
    while runs.is_alive(run):
        pass
