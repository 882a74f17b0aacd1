"""Clocks that are corrected by hours, and a machine that sleeps, change nothing of what is told of a run."""

import ctypes
import json
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest

from app import jobs, projects, runs, watching
from app.paths import ROOT
from app.queue import Queue
from app.story import read_story
from trainers import clock, config_io, locks
from trainers.events import EventLog, Phase, Started, Step

HOUR = 3600.0
CORRECTED = pytest.mark.parametrize("hours", [-5, 5])


@pytest.fixture
def clocks(monkeypatch) -> SimpleNamespace:
    """`day` and `awake` are what the events are told, and what a page reads."""
    now = SimpleNamespace(day=1.8e9, awake=5000.0)
    monkeypatch.setattr("trainers.events.time", SimpleNamespace(time=lambda: now.day))
    for module in ("trainers.events", "app.watching", "app.comparisons"):
        monkeypatch.setattr(f"{module}.awake", lambda: now.awake)
    return now


def go_on(now: SimpleNamespace, seconds: float) -> None:
    now.day += seconds
    now.awake += seconds


@CORRECTED
def test_neither_a_corrected_clock_nor_sleep_is_time_spent_training(run, clocks, hours):
    log = EventLog(run.events)
    log(Phase("Reading the pictures"))
    go_on(clocks, 10)
    log(Started(100, 0, "cpu", 3, "cat"))
    clocks.day += hours * HOUR
    go_on(clocks, 20)
    log(Step(10, 100, 0.5, 1e-4, 2.0, 0.1))
    clocks.day += 8 * HOUR  # asleep over night
    go_on(clocks, 20)
    log(Step(20, 100, 0.5, 1e-4, 2.0, 0.1))
    told = read_story(run.events)
    assert told.seconds == 50 and told.state.losses == [(10, 0.5), (20, 0.5)]


@CORRECTED
def test_a_run_is_seen_to_train_whatever_the_clock_says_of_its_start(run, place, clocks, hours):
    log = EventLog(run.events)
    log(Started(100, 0, "cpu", 3, "cat"))
    offset = run.events.stat().st_size
    run.process.write_text(json.dumps({**locks.identity(), "offset": offset}))
    found = watching.watch(run, Queue(place))
    assert (found.word, found.spoken) == ("starting", False)
    clocks.day += hours * HOUR
    log(Started(100, 0, "cpu", 3, "cat"))
    log(Step(10, 100, 0.5, 1e-4, 2.0, 0.1))
    found = watching.watch(run, Queue(place))
    assert (found.word, found.spoken, found.status.seconds_left) == ("running", True, 180)


@CORRECTED
def test_saving_is_late_by_the_seconds_since_it_was_asked_for_and_by_no_clock(run, place, clocks, hours):
    run.process.write_text(json.dumps(locks.identity()))
    jobs.request_stop(run)
    os.utime(run.stop_file, (time.time() + hours * HOUR,) * 2)
    assert not watching.watch(run, Queue(place)).late
    go_on(clocks, 2 * watching.PATIENCE)
    assert watching.watch(run, Queue(place)).late


def test_the_newest_run_stays_the_newest_when_the_clock_is_put_back(run, place, monkeypatch):
    (project,), config = projects.list_projects(place), config_io.load(run.config)
    back = datetime.now() - timedelta(hours=5)
    monkeypatch.setattr(runs, "datetime", SimpleNamespace(now=lambda: back, strptime=datetime.strptime))
    second, third = runs.create(project, config), runs.create(project, config)
    assert runs.list_runs(place) == [third, second, run]
    back -= timedelta(days=30)
    assert runs.create(project, config).folder.name.startswith(f"{back:%Y-%m-%d}")  # that clock had been wrong


def test_the_queue_keeps_its_order_when_the_clock_is_put_back(run, place, monkeypatch, engine_mode):
    engine_mode("wait")
    (project,), config, queue = projects.list_projects(place), config_io.load(run.config), Queue(place)
    others = []
    for days in (60, 30, 90):
        moment = datetime.now() - timedelta(days=days)
        monkeypatch.setattr(runs, "datetime", SimpleNamespace(now=lambda at=moment: at, strptime=datetime.strptime))
        others.append(runs.create(project, config))
    for one in (run, *others):
        queue.add(one)
    assert queue.running() == run and Queue(place).waiting() == others
    jobs.stop(run, wait=lambda: None)


def test_all_processes_of_a_machine_have_one_clock_of_its_waking_hours():
    before = clock.awake()
    program = "from trainers.clock import awake; print(awake())"
    other = float(subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True).stdout)
    assert before <= other <= clock.awake()


def test_on_windows_the_clock_is_the_one_that_stands_still_in_sleep(monkeypatch):
    def interrupt_time(answer) -> int:
        answer._obj.value = 123_0000000
        return 1

    kernel = SimpleNamespace(QueryUnbiasedInterruptTime=interrupt_time)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    assert clock._unbiased() == 123.0


def test_a_run_that_was_begun_by_a_clock_that_was_ahead_waits_like_any_other(run, place, engine_mode):
    engine_mode("wait")
    (project,), queue = projects.list_projects(place), Queue(place)
    queue.add(run)
    other = runs.create(project, config_io.load(run.config))
    other.process.write_text(json.dumps({"pid": 0, "create_time": 0.0, "started": time.time() + HOUR}))
    queue.add(other)
    assert Queue(place).waiting() == [other]
    jobs.stop(run, wait=lambda: None)
