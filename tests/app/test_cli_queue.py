"""`darkroom queue`: the queue that the window shows, seen and changed from the command line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from app import jobs, projects, runs
from app.paths import Home
from app.queue import Queue
from app.runs import Run
from trainers import config_io
from trainers.config import ModelConfig
from trainers.events import EventLog, Finished

WITH_FAKE_ENGINE = Path(__file__).with_name("with_fake_engine.py")


@pytest.fixture
def three(run, place) -> list[Run]:
    """Three runs of one project, none begun."""
    config, project = config_io.load(run.config), projects.list_projects(place)[0]
    return [run, runs.create(project, config), runs.create(project, config)]


@pytest.fixture
def waiting(three, darkroom, engine_mode):
    """The first is in training, the others wait; at the end none is."""
    engine_mode("wait")
    said = [darkroom("queue", "add", one.folder) for one in three]
    assert [one.code for one in said] == [0, 0, 0]
    assert said[0].out.startswith(f"{three[0].folder.name} is in training.") and said[0].err == ""
    assert said[2].out == f"{three[2].folder.name} waits, number 2 of 2.\n" and "`darkroom queue work`" in said[2].err
    yield three
    for one in three:
        if runs.is_alive(one):
            jobs.stop(one, wait=lambda: None)


def test_an_empty_queue_says_how_to_fill_it(darkroom):
    said = darkroom("queue")
    assert (said.code, said.err) == (0, "") and "`darkroom queue add RUN`" in said.out


def test_runs_are_listed_in_their_order_as_text_and_json(darkroom, waiting):
    first, second, third = waiting
    listed = f"In training: {first.folder.name}\n1. {second.folder.name}\n2. {third.folder.name}\n"
    assert darkroom("queue").out == darkroom("queue", "list").out == listed
    assert json.loads(darkroom("queue", "--json").out) == {
        "running": str(first.folder),
        "waiting": [str(second.folder), str(third.folder)],
        "held": False,
        "problems": [],
    }
    assert darkroom("queue", "list", "--json").out == darkroom("queue", "--json").out


def test_runs_move_and_leave_in_a_window_that_is_open_too(darkroom, waiting, place):
    _, second, third = waiting
    window = Queue(place)
    assert darkroom("queue", "move", third.folder.name, 1).out == f"{third.folder.name} is number 1 of 2.\n"
    assert window.waiting() == [third, second]
    assert darkroom("queue", "move", third.folder.name, 9).out == f"{third.folder.name} is number 2 of 2.\n"
    assert window.waiting() == [second, third]
    assert darkroom("queue", "remove", second.folder.name).code == 0
    assert window.waiting() == [third] and runs.status(second).word == "new"
    window.remove(third)  # in the window; the command line sees it
    assert third.folder.name not in darkroom("queue").out


def test_what_cannot_be_done_is_a_sentence(darkroom, waiting, place):
    first, second, third = (one.folder.name for one in waiting)
    for arguments, words in [
        (["add", first], f"{first} is being trained already."),
        (["add", second], f"{second} is in the queue already."),
        (["add", "nobody"], "There is no run nobody."),
        (
            ["remove", first],
            f"{first} is in training, so it does not wait. `darkroom stop {first}` saves and stops it.",
        ),
        (["move", first, 1], f"{first} is in training, so it does not wait."),
        (["remove", "nobody"], "There is no run nobody."),
    ]:
        said = darkroom("queue", *arguments)
        assert (said.code, said.out) == (1, "") and said.err.startswith(words) and "Traceback" not in said.err
    darkroom("queue", "remove", third)
    for action in (["remove", third], ["move", third, 1]):
        assert darkroom("queue", *action).err == (
            f"{third} does not wait in the queue. `darkroom queue` lists what does.\n"
        )
    assert [one.folder.name for one in Queue(place).waiting()] == [second]


@pytest.mark.parametrize("arguments", [["add"], ["remove"], ["move", "last"], ["move", "last", "0"], ["dance"]])
def test_wrong_usage_exits_with_2(darkroom, run, arguments):
    assert darkroom("queue", *arguments).code == 2


def test_a_finished_run_and_a_missing_base_are_refused(darkroom, three):
    done, broken, _ = three
    EventLog(done.events)(Finished(10, "output/cat.safetensors", 1.0))
    config = config_io.load(broken.config)
    config_io.save(config.model_copy(update={"model": ModelConfig(base="/gone.safetensors")}), broken.config)
    for run, words in ((done, "is finished"), (broken, "gone.safetensors")):
        said = darkroom("queue", "add", run.folder)
        assert said.code == 1 and words in said.err


def test_a_paused_run_holds_the_queue_until_it_goes_on(darkroom, waiting, place):
    first, second, third = waiting
    pause(first, place)
    assert "darkroom queue go-on" in darkroom("queue").out and json.loads(darkroom("queue", "--json").out)["held"]
    assert "The queue is held" in darkroom("queue", "work").out and not runs.is_alive(second)
    assert darkroom("queue", "go-on").out == f"{second.folder.name} is in training.\n"
    assert runs.is_alive(second) and Queue(place).waiting() == [third]


def test_going_on_with_nothing_that_waits_is_a_sentence(darkroom):
    said = darkroom("queue", "go-on")
    assert said.code == 1 and said.err.startswith("Nothing waits in the queue.")


def test_work_trains_all_that_waits_and_names_what_could_not_start(darkroom, waiting, engine_mode):
    first, second, third = waiting
    engine_mode("finish")
    second.config.write_text("adapter = 3", "utf-8")
    jobs.stop(first, wait=lambda: None)
    said = darkroom("queue", "work")
    assert said.code == 1 and f"{second.folder.name} could not start: " in said.err
    assert runs.status(third).word == "finished" and f"{third.folder.name} is in training ..." in said.err
    assert said.out == "Nothing waits any more.\n"
    assert darkroom("queue", "work").code == 0
    assert f"{second.folder.name} left the queue: " in darkroom("queue").out


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("fail", " failed: The model is a text file. Choose a .safetensors file.\n"),
        ("die", " was interrupted: The training ended without a word. "),
    ],
)
def test_work_names_every_run_that_ended_badly(darkroom, waiting, engine_mode, mode, words):
    first, second, third = waiting
    engine_mode(mode)
    jobs.stop(first, wait=lambda: None)
    said = darkroom("queue", "work")
    assert said.code == 1 and said.out == "Nothing waits any more.\n"
    assert f"{first.folder.name} was" not in said.err and f"{first.folder.name} failed" not in said.err
    assert said.err.index(second.folder.name + words) < said.err.index(third.folder.name + words)


def test_a_failure_of_before_is_none_of_the_work(darkroom, three, engine_mode, place):
    first, second, _ = three
    engine_mode("fail")
    darkroom("train", second.folder)
    engine_mode("wait")
    for one in (first, second):
        darkroom("queue", "add", one.folder)
    Queue(place).remove(second)
    jobs.stop(first, wait=lambda: None)
    assert runs.status(second).word == "failed" and darkroom("queue", "work").code == 0


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to another process there")
def test_ctrl_c_ends_work_and_the_run_in_training_goes_on(darkroom, waiting, place):
    first, second, _ = waiting
    command = [sys.executable, str(WITH_FAKE_ENGINE), "wait", "queue", "work"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == f"{first.folder.name} is in training ...\n"
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130 and "Traceback" not in err
    assert runs.is_alive(first) and Queue(place).waiting()[0] == second


def pause(run: Run, place: Home) -> None:
    """Pause a run as the window does, and wait until its process has ended."""
    process = psutil.Process(json.loads(run.process.read_text("utf-8"))["pid"])
    Queue(place).pause(run)
    process.wait(60)
