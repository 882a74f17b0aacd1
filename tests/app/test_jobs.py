"""The engine runs as a process of its own, and its end is told truthfully."""

import json
import signal

import pytest

from app import jobs, runs
from trainers.control import Control, Wish
from trainers.errors import UserError
from trainers.events import Finished, Started


def test_foreground_hands_over_every_event_in_order(run, place, engine_mode):
    seen = []
    outcome = jobs.foreground(run, place, seen.extend, lambda count: None, engine_mode("finish"))
    assert [event.type for event in seen] == ["phase", "started", "step", "checkpoint", "finished"]
    assert outcome.state.status == "finished" and not outcome.interrupted
    assert not runs.is_alive(run)


def test_second_sitting_shows_only_its_own_events(run, place, engine_mode):
    jobs.foreground(run, place, lambda events: None, lambda count: None, engine_mode("finish"))
    seen = []
    jobs.foreground(run, place, seen.extend, lambda count: None, engine_mode("finish"))
    assert sum(isinstance(event, Started) for event in seen) == 1


def test_engine_gets_the_shared_cache_and_our_packages(run, place, engine_mode, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "mine")
    jobs.foreground(run, place, lambda events: None, lambda count: None, engine_mode("finish"))
    environment = json.loads((run.folder / "environment.json").read_text("utf-8"))
    assert environment["DARKROOM_CACHE"] == str(place.cache)
    assert environment["PYTHONPATH"].endswith("mine") and environment["PYTHONUTF8"] == "1"


def test_old_failure_is_not_taken_for_a_new_one(run, place, engine_mode):
    with pytest.raises(UserError, match="text file"):
        jobs.foreground(run, place, lambda events: None, lambda count: None, engine_mode("fail"))
    with pytest.raises(UserError, match="without a word"):
        jobs.foreground(run, place, lambda events: None, lambda count: None, engine_mode("die"))
    outcome = jobs.foreground(run, place, lambda events: None, lambda count: None, engine_mode("finish"))
    assert outcome.state.status == "finished"


def test_first_ctrl_c_saves_even_while_the_engine_starts(run, place, engine_mode):
    pressed, heard, handler = [], [], signal.getsignal(signal.SIGINT)

    def press(events: list) -> None:
        if not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)  # the engine may sweep control/ after this

    outcome = jobs.foreground(run, place, press, heard.append, engine_mode("wait"))
    assert heard == [1] and outcome.interrupted and outcome.state.status == "stopped"
    assert not run.stop_file.exists()
    assert signal.getsignal(signal.SIGINT) is handler


def test_second_ctrl_c_ends_the_engine_at_once(run, place, engine_mode):
    heard = []

    def press(events: list) -> None:
        if any(isinstance(event, Started) for event in events):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    outcome = jobs.foreground(run, place, press, heard.append, engine_mode("wait"))
    assert heard == [2] and outcome.interrupted
    assert runs.status(run).word == "interrupted"


def test_ctrl_c_after_the_last_step_is_no_interruption(run, place, engine_mode):
    def press(events: list) -> None:
        if any(isinstance(event, Finished) for event in events):
            signal.raise_signal(signal.SIGINT)

    outcome = jobs.foreground(run, place, press, lambda count: None, engine_mode("finish"))
    assert outcome.state.status == "finished" and not outcome.interrupted


def test_run_in_training_is_not_started_twice_and_stops_when_asked(run, place, engine_mode):
    job = jobs.start(run, place, engine_mode("wait"))
    assert runs.status(run).word in ("starting", "running")
    with pytest.raises(UserError, match="being trained already"):
        jobs.start(run, place)
    jobs.stop(run, wait=lambda: job.process.poll())
    assert job.process.wait(30) == 0 and runs.status(run).word == "stopped"
    assert not run.stop_file.exists()


def test_pause_asked_for_at_once_is_heard_and_the_run_goes_on_later(run, place, engine_mode):
    with pytest.raises(UserError, match="not being trained"):
        jobs.pause(run)
    job = jobs.start(run, place, engine_mode("wait"))
    jobs.pause(run)  # before the engine has read a thing
    assert runs.status(run).word == "pausing"
    assert job.process.wait(30) == 0
    assert runs.status(run).word == "paused"
    outcome = jobs.foreground(run, place, lambda events: None, lambda count: None, engine_mode("finish"))
    assert outcome.state.status == "finished"


def test_stop_outweighs_a_pause(run, place, engine_mode):
    job = jobs.start(run, place, engine_mode("wait"))
    run.control.mkdir(exist_ok=True)
    jobs.request_stop(run)
    run.pause_file.touch()
    assert runs.status(run).word == "stopping"
    assert job.process.wait(30) == 0 and runs.status(run).word == "stopped"


def test_pictures_are_asked_for_in_turn_and_only_of_a_run_in_training(run, place, engine_mode):
    with pytest.raises(UserError, match="not being trained"):
        jobs.sample_now(run, "a cat", 1)
    jobs.start(run, place, engine_mode("wait"))
    for wrong in ((" ", 1, 1.0), ("a cat", -1, 1.0), ("a cat", 1, float("nan"))):
        with pytest.raises(UserError):
            jobs.sample_now(run, *wrong)
    jobs.sample_now(run, "a cat", 1)
    jobs.sample_now(run, "‘Ü’", 2, 0.5)
    assert Control(run.control).take() == [Wish("a cat", 1, 1.0), Wish("‘Ü’", 2, 0.5)]
    jobs.preview_now(run)
    assert Control(run.control).take() == []
    assert Control(run.control).take() is None
    jobs.stop(run, wait=lambda: None)


def test_preview_prompts_can_be_edited_and_given_back(run):
    usual = jobs.prompts(run)
    assert len(usual) == 4 and usual[0] == "object"
    jobs.set_prompts(run, ["a  cat\n", "", "漢字"])
    assert jobs.prompts(run) == ["a cat", "漢字"]
    jobs.set_prompts(run, [])
    assert jobs.prompts(run) == usual
    (run.control / "prompts.json").write_text("{", "utf-8")
    assert jobs.prompts(run) == usual


def test_engine_is_cut_off_from_the_terminal_on_every_system():
    assert jobs.detached("posix") == {"start_new_session": True}
    assert jobs.detached("nt") == {"creationflags": 0x08000200}


def test_a_sudden_end_is_told_with_and_without_the_exit_code(run):
    assert jobs.sudden_end(run, 3) == "The training ended without a word (exit code 3)."
    assert "(signal 9)" in jobs.sudden_end(run, -9) and "memory ran out" in jobs.sudden_end(run, -9)
    assert jobs.sudden_end(run).startswith("The training ended without a word. The system may have ended it")


def test_an_engine_is_ended_at_once_and_its_run_goes_on_later(run, place, engine_mode):
    jobs.start(run, place, engine_mode("wait"))
    jobs.end(run)
    assert not runs.is_alive(run) and run.ended_file.exists()
    jobs.foreground(run, place, lambda events: None, lambda count: None, engine_mode("finish"))
    assert runs.status(run).word == "finished" and not run.ended_file.exists()
