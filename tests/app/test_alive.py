"""Whether a run is trained is told by its lock: no number, no copy and no clock makes it seem so, or hides it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from app import alive, jobs, runs
from app.queue import Queue
from app.runs import Run
from tests.app.conftest import FAKE
from trainers import locks
from trainers.errors import UserError

OWN = b'{"pid": %d, "create_time": 1%s}' % (os.getpid(), b"0" * 400)
WORDLESS = [sys.executable, "-c", "import sys; sys.stdin.read()"]


@pytest.fixture
def trained(run, place, engine_mode) -> Iterator[jobs.Job]:
    """A run in training, whose engine is inside its lock."""
    job = jobs.start(run, place, engine_mode("wait"))
    inside(run)
    yield job
    job.process.kill()
    job.process.wait()


@pytest.fixture
def stranger() -> Iterator[psutil.Process]:
    """A program that has nothing to do with Darkroom."""
    process = subprocess.Popen(WORDLESS, stdin=subprocess.PIPE)
    yield psutil.Process(process.pid)
    process.kill()
    process.communicate()


def inside(run: Run) -> None:
    while not locks.holder(run.lock):
        pass


def test_the_number_of_an_engine_that_was_killed_may_be_another_programs_now(trained, place, stranger):
    run = trained.run
    trained.process.kill()
    trained.process.wait()
    for born in (stranger.create_time(), stranger.create_time() - 3600):  # even at the very same second of another day
        written = {"pid": stranger.pid, "create_time": born}
        run.process.write_text(json.dumps(written))
        run.lock.write_bytes(bytes(locks.GUARD) + json.dumps(written).encode())
        assert not runs.is_alive(run) and runs.status(run).word == "interrupted"
        assert Queue(place).running() is None
        jobs.end(run)
        jobs.stop(run)
        assert stranger.is_running() and not run.ended_file.exists()


def test_an_engine_that_died_before_its_lock_leaves_a_number_that_proves_nothing(run, stranger):
    alive.forget(run.folder)
    run.process.write_text(json.dumps({"pid": stranger.pid, "create_time": stranger.create_time() - 60}))
    assert not runs.is_alive(run)
    jobs.end(run)
    assert stranger.is_running()


def test_another_programs_number_is_never_ended_though_the_run_is_trained(trained, stranger):
    """As where another computer trains it in a shared folder: the numbers are not of this one."""
    run, written = trained.run, {"pid": stranger.pid, "create_time": 0}
    run.process.write_text(json.dumps(written))
    run.lock.write_bytes(bytes(locks.GUARD) + json.dumps(written).encode())
    assert runs.is_alive(run)
    with pytest.raises(UserError, match="could not be ended from here"):
        jobs.end(run)
    assert stranger.is_running() and trained.process.poll() is None
    jobs.stop(run, wait=lambda: None)  # a word in the folder reaches it anywhere
    assert trained.process.wait(30) == 0


def test_a_copy_of_a_run_in_training_is_a_run_of_its_own(trained, place, engine_mode):
    run = trained.run
    copy = Run(shutil.copytree(run.folder, run.folder.with_name("copy")))
    assert runs.is_alive(run) and not runs.is_alive(copy) and runs.status(copy).word == "interrupted"
    jobs.end(copy)
    assert runs.is_alive(run) and Queue(place).running() == run
    outcome = jobs.foreground(copy, place, lambda events: None, lambda count: None, engine_mode("finish"))
    assert outcome.state.status == "finished" and runs.status(run).word == "running"


def test_a_run_that_was_moved_goes_on_where_it_is_now(run, place, engine_mode):
    jobs.foreground(run, place, lambda events: None, lambda count: count, engine_mode("finish"))
    first = runs.status(run).state
    moved = Run(run.folder.rename(run.folder.with_name("moved")))
    assert runs.status(moved).word == "finished" and runs.status(moved).state == first
    assert runs.status(moved).adapter == moved.folder / "output" / "cat.safetensors"
    assert runs.list_runs(place) == [moved] and Queue(place).running() is None
    jobs.start(moved, place, engine_mode("wait"))
    assert Queue(place).running() == moved
    jobs.stop(moved, wait=lambda: None)
    assert not run.folder.exists()


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_corrected_clock_makes_no_run_seem_dead(trained, place, monkeypatch, hours):
    """It moves the times of birth that the system tells."""
    birth = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: birth(self) + 3600 * hours)
    assert runs.is_alive(trained.run) and Queue(place).running() == trained.run
    with pytest.raises(UserError, match="being trained already"):
        jobs.start(trained.run, place)
    jobs.end(trained.run)
    trained.process.wait(30)
    assert not runs.is_alive(trained.run) and trained.run.ended_file.exists()


def test_a_training_that_no_app_started_is_found_and_paused(run, place):
    process = subprocess.Popen([sys.executable, str(FAKE), "wait", str(run.folder)])
    inside(run)
    assert not run.process.exists() and runs.is_alive(run)
    queue = Queue(place)
    assert queue.running() == run
    with pytest.raises(UserError, match="being trained already"):
        jobs.start(run, place)
    queue.pause(run)
    assert process.wait(30) == 0 and runs.status(run).word == "paused"


def test_the_second_of_two_engines_of_one_run_leaves_it_to_the_first(trained):
    other = subprocess.run([sys.executable, str(FAKE), "wait", str(trained.run.folder)])
    assert other.returncode == 1 and runs.is_alive(trained.run)


def test_without_locks_the_number_and_its_birth_decide(run, monkeypatch, stranger):
    monkeypatch.setattr(locks, "held", lambda path: None)
    run.process.write_text(json.dumps(locks.identity(stranger.pid)))
    assert runs.is_alive(run)
    run.process.write_text(json.dumps({"pid": stranger.pid, "create_time": stranger.create_time() - 3600}))
    assert not runs.is_alive(run)


@pytest.mark.parametrize("damaged", [b"", b"[]", b"[" * 3000, b"\xff", b'{"pid": "1"}', b'{"pid": 1e999}', OWN])
def test_a_damaged_record_names_nobody(run, damaged):
    run.process.write_bytes(damaged)
    assert not runs.is_alive(run) and runs.status(run).word == "interrupted" and alive.processes(run.folder) == []
