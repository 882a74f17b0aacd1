"""Tasks run beside the window, tell their progress on disk, and end in words."""

import json
from pathlib import Path

import psutil
import pytest

from app import tasks
from app.paths import Home
from app.runs import Run, is_alive
from trainers.errors import UserError

MODULE = "tests.app.helpful"


@pytest.fixture
def folder(home: Path) -> Path:
    return home / "grid ‘漢字’"


def done(folder: Path) -> tasks.TaskStatus:
    """The status once the process has ended."""
    pid = json.loads((folder / "process.json").read_text("utf-8"))["pid"]
    try:
        psutil.Process(pid).wait(60)
    except psutil.NoSuchProcess:
        pass
    return tasks.status(folder)


def start(folder: Path, function: str, **values: object) -> None:
    tasks.start(folder, function, values, Home(folder.parent), MODULE)


def test_task_draws_reports_and_answers(folder):
    assert tasks.status(folder).word == "none"
    start(folder, "draw", prompts=["a cat", "‘Ü’ <b>"])
    status = done(folder)
    assert (status.word, status.answer) == ("finished", {"drawn": 2})
    assert [(one.prompt, one.path) for one in status.state.samples] == [("a cat", "0.png"), ("‘Ü’ <b>", "1.png")]
    assert (folder / "1.png").exists() and status.state.phase_total == 2


def test_failure_is_told_in_words_and_a_second_try_starts_anew(folder):
    start(folder, "refuse")
    status = done(folder)
    assert (status.word, status.state.message) == ("failed", "The file is no adapter.")
    start(folder, "draw", prompts=["a cat"])
    assert done(folder).word == "finished"


def test_unexpected_failure_names_its_story(folder):
    start(folder, "stumble")
    status = done(folder)
    assert status.word == "failed" and "ZeroDivisionError" in status.state.message
    assert "Traceback" in (folder / "log.txt").read_text("utf-8")
    assert "log.txt" in status.state.hint


def test_task_is_stopped_for_good_and_not_started_twice(folder):
    start(folder, "wait")
    assert tasks.status(folder).word == "running"
    with pytest.raises(UserError, match="already"):
        start(folder, "wait")
    tasks.stop(folder)
    assert tasks.status(folder).word == "stopped" and not is_alive(Run(folder))


def test_task_that_died_without_a_word_is_interrupted(folder):
    start(folder, "die")
    assert done(folder).word == "interrupted"
    tasks.remove(folder)
    assert not folder.exists() and tasks.status(folder).word == "none"
