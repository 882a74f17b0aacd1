"""The queue trains one run at a time, in order, and what it knows is on disk."""

import json
import os
import threading

import psutil
import pytest

from app import jobs, projects, runs
from app.queue import Queue
from app.runs import Run
from trainers import config_io
from trainers.config import ModelConfig
from trainers.errors import UserError
from trainers.events import EventLog, Finished
from trainers.locks import locked


@pytest.fixture
def queue(place) -> Queue:
    return Queue(place)


@pytest.fixture
def make_run(run, place):
    """Further runs of the same project."""
    config = config_io.load(run.config)
    return lambda: runs.create(projects.list_projects(place)[0], config)


def test_first_run_starts_and_the_others_wait_their_turn(queue, run, make_run, engine_mode):
    engine_mode("wait")
    second, third = make_run(), make_run()
    queue.add(run)
    queue.add(second)
    queue.add(third)
    assert queue.running() == run and queue.waiting() == [second, third]
    engine_mode("finish")
    end(queue, run)
    for expected, left in ((second, [third]), (third, [])):
        queue.tick()
        assert queue.waiting() == left
        wait(queue)
        assert runs.status(expected).word == "finished"
    assert queue.running() is None


def test_queue_survives_the_app_and_every_window_sees_the_same(queue, run, make_run, place, engine_mode):
    engine_mode("wait")
    second, third = make_run(), make_run()
    for one in (run, second, third):
        queue.add(one)
    other = Queue(place)
    assert other.waiting() == [second, third] and other.running() == run
    other.move(third, 0)
    assert queue.waiting() == [third, second]
    other.remove(second)
    assert queue.waiting() == [third] and runs.status(second).word == "new"
    other.tick()  # while the first one runs, nothing is started
    assert queue.waiting() == [third]
    end(queue, run)


def test_watching_starts_what_waits_and_closing_leaves_it_running(queue, run, make_run, engine_mode):
    engine_mode("wait")
    second = make_run()
    queue.add(run)
    queue.add(second)
    queue.watch()
    jobs.stop(run, wait=lambda: None)
    while queue.running() != second:
        pass
    queue.close()
    assert runs.is_alive(second) and queue.waiting() == []
    end(queue, second)


def test_two_processes_never_start_the_same_run(queue, run, make_run, place, engine_mode, monkeypatch):
    engine_mode("wait")
    second = make_run()
    queue.add(run)
    queue.add(second)
    end(queue, run)
    started = []
    start = jobs.start
    monkeypatch.setattr(jobs, "start", lambda *given: (started.append(given[0]), start(*given))[1])
    windows = [Queue(place) for _ in range(4)]
    threads = [threading.Thread(target=window.tick) for window in windows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert started == [second]
    for window in windows:
        end(window, second)


def test_lock_keeps_others_out_until_its_block_ends(tmp_path):
    entered = threading.Event()

    def enter() -> None:
        with locked(tmp_path / "lock"):
            entered.set()

    with locked(tmp_path / "lock"):
        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.05)
    assert entered.wait(30)
    thread.join()


def test_what_cannot_be_trained_is_refused_in_words(queue, run, make_run, engine_mode):
    engine_mode("wait")
    second, done, broken = make_run(), make_run(), make_run()
    EventLog(done.events)(Finished(10, "output/cat.safetensors", 1.0))
    config = config_io.load(broken.config)
    config_io.save(config.model_copy(update={"model": ModelConfig(base="/gone.safetensors")}), broken.config)
    queue.add(run)
    queue.add(second)
    for wrong, words in ((run, "being trained"), (second, "in the queue"), (done, "finished"), (broken, "gone.safe")):
        with pytest.raises(UserError, match=words):
            queue.add(wrong)
    with pytest.raises(UserError, match="no longer waits"):
        queue.move(done, 0)
    assert queue.waiting() == [second]
    end(queue, run)


def test_run_that_was_stopped_may_go_on(queue, run, engine_mode):
    engine_mode("wait")
    queue.add(run)
    end(queue, run)
    queue.add(run)
    assert queue.running() == run
    end(queue, run)


def test_run_that_cannot_start_leaves_with_its_reason_and_the_next_one_starts(queue, run, make_run, place, engine_mode):
    engine_mode("wait")
    second, third = make_run(), make_run()
    for one in (run, second, third):
        queue.add(one)
    good = second.config.read_text("utf-8")
    second.config.write_text("adapter = 3", "utf-8")
    end(queue, run)
    queue.tick()
    assert queue.running() == third and queue.waiting() == []
    ((left, problem),) = Queue(place).problems()
    assert left == second and "adapter" in problem
    second.config.write_text(good, "utf-8")
    queue.add(second)  # mended
    assert queue.problems() == [] and queue.waiting() == [second]
    end(queue, third)


def test_pause_frees_the_device_until_the_person_goes_on(queue, run, make_run, place, engine_mode):
    engine_mode("wait")
    second = make_run()
    queue.add(run)
    queue.add(second)
    queue.pause(run)
    wait(queue)
    assert runs.status(run).word == "paused"
    queue.tick()
    assert queue.running() is None and queue.waiting() == [second] and Queue(place).held()
    queue.add(run)  # it goes on before those that wait
    assert queue.running() == run and queue.waiting() == [second] and not queue.held()
    queue.pause(run)
    wait(queue)
    queue.go_on()
    assert queue.running() == second and queue.waiting() == []
    end(queue, second)


@pytest.mark.parametrize("ending", [jobs.pause, jobs.request_stop])
def test_a_run_whose_start_was_not_written_down_does_not_start_again_by_itself(
    queue, run, make_run, place, engine_mode, monkeypatch, ending
):
    engine_mode("wait")
    other = make_run()
    with queue._locked() as kept:
        kept.waiting = [run, other]
    with monkeypatch.context() as killed:
        killed.setattr("app.queue.write_whole", lambda file, content: None)  # the app was killed before that
        queue.tick()
    assert queue.running() == run
    ending(run)
    wait(queue)
    queue.tick()
    assert queue.running() == other and queue.waiting() == []
    end(queue, other)
    queue.add(run)  # it may wait again when a person wants it
    assert queue.running() == run
    end(queue, run)


def test_problem_that_was_read_is_gone(queue, run, place):
    (place.root / "queue.json").write_text(
        json.dumps({"waiting": [], "problems": [{"run": str(run.folder), "message": "No.", "hint": ""}]}), "utf-8"
    )
    assert queue.problems() == [(run, "No.")]
    queue.dismiss(run.key)
    assert queue.problems() == []


def test_runs_that_are_gone_and_files_that_are_damaged_do_no_harm(queue, run, place):
    file = place.root / "queue.json"
    assert queue.waiting() == []
    file.write_text(json.dumps({"waiting": ["gone/runs/x", str(run.folder)], "problems": []}), "utf-8")
    assert queue.waiting() == [run]
    for damaged in ("", "[]", '{"waiting": 3}', '{"waiting": [1, null], "problems": "no"}'):
        file.write_text(damaged, "utf-8")
        assert queue.waiting() == []


def test_a_waiting_run_whose_folder_was_moved_away_is_named_and_waits_again_once_it_is_back(
    queue, run, make_run, place
):
    waiting, elsewhere = make_run(), place.root / "elsewhere"
    (place.root / "queue.json").write_text(
        json.dumps({"waiting": [waiting.folder.as_posix()], "problems": [], "held": True}), "utf-8"
    )
    assert queue.held()
    waiting.folder.rename(elsewhere)
    assert queue.waiting() == [] and not queue.held()
    assert queue.problems() == [
        (waiting, f"Its folder is not there any more. Put it back: {waiting.folder}. Then train it again.")
    ]
    elsewhere.rename(waiting.folder)
    assert queue.waiting() == [waiting] and queue.problems() == []
    waiting.folder.rename(elsewhere)
    queue.dismiss(waiting.key)
    assert queue.problems() == [] and queue.waiting() == []


def test_ended_processes_are_looked_at_once(queue, run, make_run, monkeypatch):
    for one in [run, *(make_run() for _ in range(5))]:
        one.process.write_text(json.dumps({"pid": os.getpid(), "create_time": 0}), "utf-8")
    assert queue.running() is None
    monkeypatch.setattr(psutil, "Process", None)  # would fail
    assert queue.running() is None


def test_status_tells_the_places_in_the_queue(queue, run, make_run, darkroom, engine_mode):
    engine_mode("wait")
    second = make_run()
    queue.add(run)
    queue.add(second)
    assert f"{second.folder.name}: new, number 1 of the queue" in darkroom("status").out
    places = {one["run"]: one["queue_place"] for one in json.loads(darkroom("status", "--json").out)}
    assert places == {str(run.folder): None, str(second.folder): 1}
    end(queue, run)


def end(queue: Queue, run: Run) -> None:
    """Stop a run of the fake engine, and let its process be forgotten."""
    jobs.stop(run, wait=lambda: None)
    wait(queue)


def wait(queue: Queue) -> None:
    for job in queue._children:
        job.process.wait(30)


def test_a_name_that_no_disk_allows_hides_no_other_run(queue, run, place):
    waiting = ["x" * 5000, f"{run.folder.relative_to(place.projects).as_posix()}", "\0"]
    problems = [{"run": "y" * 5000, "message": "No.", "hint": ""}]
    (place.root / "queue.json").write_text(json.dumps({"waiting": waiting, "problems": problems}), "utf-8")
    assert queue.waiting() == [run] and queue.problems() == []
