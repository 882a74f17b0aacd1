"""What the Monitor page shows follows from the disk alone, and nothing is sent twice."""

import json

import pytest

from app import jobs, projects, runs, watching
from app.gui import monitor_parts, monitor_views
from app.gui.context import Context
from app.gui.kept import mark
from app.queue import Queue
from app.worker import Worker
from trainers import clock, locks
from trainers.control import Control
from trainers.events import DRAWING, EventLog, Phase, Sample, Started, Step


@pytest.fixture
def queue(place, engine_mode) -> Queue:
    return Queue(place)


@pytest.fixture
def alive(run):
    """The run, as if this very process trained it."""
    run.process.write_text(json.dumps(locks.identity()))
    return run


def test_the_run_that_is_named_comes_before_the_one_that_trains_and_the_newest(place, run, queue, pictures):
    assert watching.choose(place, queue, "") == run
    newer = runs.create(projects.list_projects(place)[0], watching.watch(run, queue).config)
    assert watching.choose(place, queue, "") == newer and watching.choose(place, queue, run.key) == run
    assert watching.choose(place, queue, "no/such") == newer and watching.choose(place, queue, "../..") == newer
    run.process.write_text(json.dumps(locks.identity()))
    assert watching.choose(place, queue, "") == run


def test_a_run_that_was_just_started_again_is_starting_and_not_where_it_was(alive, queue):
    log = EventLog(alive.events)
    log(Started(100, 0, "cpu", 3, "cat"))
    assert watching.watch(alive, queue).word == "running"
    alive.process.write_text(json.dumps({**locks.identity(), "offset": alive.events.stat().st_size}))
    found = watching.watch(alive, queue)
    assert found.word == "starting" and not found.spoken


def test_saving_is_late_when_it_was_asked_for_a_while_ago(alive, queue, monkeypatch):
    jobs.request_stop(alive)
    assert watching.watch(alive, queue).word == "stopping" and not watching.watch(alive, queue).late
    later = clock.awake() + 2 * watching.PATIENCE
    monkeypatch.setattr(watching, "awake", lambda: later)
    assert watching.watch(alive, queue).late


def test_samples_are_pending_until_they_are_drawn(alive, queue):
    log = EventLog(alive.events)
    log(Started(100, 0, "cpu", 3, "cat"))
    jobs.sample_now(alive, "first", 1, 1.0)
    jobs.sample_now(alive, "second", 2, 0.5)
    assert watching.watch(alive, queue).pending == ("first", "second")
    wishes = Control(alive.control).take()
    log(Phase(DRAWING))
    assert len(wishes) == 2 and watching.watch(alive, queue).pending == ("",)
    log(Sample(10, "second", "samples/a.png", 2, 0.5, True))
    log(Phase("Training"))
    assert watching.watch(alive, queue).pending == ()


def test_an_end_by_hand_is_no_mystery_and_an_end_without_a_word_is(run, place, queue, engine_mode):
    job = jobs.start(run, place, engine_mode("wait"))
    jobs.end(run)
    job.process.wait(30)
    found = watching.watch(run, queue)
    assert (found.word, found.ended, found.sudden) == ("interrupted", True, "")
    job = jobs.start(run, place, engine_mode("die"))
    job.process.wait(30)
    found = watching.watch(run, queue)
    assert found.word == "interrupted" and not found.ended
    assert found.sudden.startswith("The training ended without a word. The system may have ended it because memory")


def test_why_a_run_left_the_queue_is_told(run, queue, monkeypatch):
    monkeypatch.setattr(queue, "problems", lambda: [(run, "The base model is gone.")])
    found = watching.watch(run, queue)
    assert found.problem == "The base model is gone." and "could not be started" in monitor_views.advice(found)


def test_a_look_with_nothing_new_sends_nothing(place, alive, queue):
    context = Context(place, queue, Worker())
    log = EventLog(alive.events)
    log(Started(100, 0, "cpu", 3, "cat"))
    shown = monitor_parts.look(context, alive, False, {})
    assert {"head", "plot", "samples", "runs", "prompts"} <= set(shown)
    sent = {name: mark(value) for name, value in shown.items()} | {"run": shown["run"]}
    assert monitor_parts.look(context, alive, False, sent) == {}
    log(Step(10, 100, 0.5, 1e-4, 1.0, 0.1))
    new = monitor_parts.look(context, alive, False, sent)
    assert {name for name, value in new.items() if shown[name] != value} == {"seen", "head"}


def test_the_log_is_read_only_while_it_is_open(place, alive, queue):
    context = Context(place, queue, Worker())
    alive.log.write_text("words\n")
    assert "log" not in monitor_parts.look(context, alive, False, {})
    assert "words" in monitor_parts.look(context, alive, True, {})["log"]


def test_settings_that_cannot_be_read_are_told(place, run, queue):
    run.config.write_text("[adapter]\nrnak = 3\n")
    assert "adapter.rnak" in monitor_parts.look(Context(place, queue, Worker()), run, False, {})["head"]


def test_a_waiting_run_whose_settings_cannot_be_read_hides_no_other(alive, queue, pictures, monkeypatch):
    (project,) = projects.list_projects(queue.home)
    broken = runs.create(project, watching.watch(alive, queue).config)
    monkeypatch.setattr(Queue, "waiting", lambda self: [broken])
    broken.config.write_text("adapter.rnak = 3", "utf-8")
    assert watching.watch(alive, queue).queue == (broken.folder.name,)
