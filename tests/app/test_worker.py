"""The worker answers what needs torch in a process of its own, and no accident in it reaches the window."""

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.paths import Home
from app.worker import Worker
from trainers.config import AdapterConfig, TrainConfig
from trainers.errors import UserError

MODULE = "tests.app.helpful"


@pytest.fixture
def worker(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    worker = Worker(Home(home), MODULE)
    yield worker
    worker.close()


def test_questions_are_answered_by_one_process_whatever_libraries_print(worker):
    assert worker.ask("add", one=2, other=3) == 5
    assert worker.ask("who") == worker.ask("who")
    worker.close()
    assert list(worker.home.root.glob("darkroom-worker-*")) == []  # the log, of which nobody was told


def test_values_become_what_the_function_takes(worker, tmp_path):
    config = TrainConfig(adapter=AdapterConfig(rank=3)).model_dump(mode="json")
    file = str(tmp_path / "a 漢字.safetensors")
    answer = worker.ask("kinds", config=config, file=file, files=[file, file], none=None)
    assert answer == {"rank": 3, "file": str(tmp_path), "files": 2}
    with pytest.raises(UserError, match="adapter.rank"):
        worker.ask("kinds", config={"adapter": {"rank": -1}}, file=file, files=[file], none=None)


def test_reports_are_heard_in_order(worker):
    heard = []
    assert worker.ask("busy", heard.append, words=["one", "zwei ü"]) == "done"
    assert heard == ["one", "zwei ü"]


def test_errors_arrive_as_sentences_and_unexpected_ones_name_their_story(worker):
    with pytest.raises(UserError) as caught:
        worker.ask("refuse")
    assert (caught.value.message, caught.value.hint) == ("The file is no adapter.", "Choose another. 漢字")
    with pytest.raises(UserError, match="ZeroDivisionError: by nothing") as caught:
        worker.ask("stumble")
    log = Path(caught.value.hint.removeprefix("The whole story is in ").removesuffix("."))
    assert "Traceback" in log.read_text("utf-8")
    assert worker.ask("add", one=1, other=1) == 2
    log.unlink()


def test_worker_that_died_says_so_and_the_next_question_starts_another(worker):
    first = worker.ask("who")
    with pytest.raises(UserError, match="exit code 7"):
        worker.ask("die")
    assert worker.ask("who") != first


def test_closing_ends_it_even_in_the_middle_of_an_answer(worker):
    pid = worker.ask("who")
    raised = []

    def ask() -> None:
        with pytest.raises(UserError, match="closed") as caught:
            worker.ask("wait", folder=str(worker.home.root))
        raised.append(caught.value)

    thread = threading.Thread(target=ask)
    thread.start()
    while not (worker.home.root / "waiting").exists():
        pass
    worker.close()
    thread.join(30)
    assert raised and not psutil.pid_exists(pid)


def test_it_ends_without_a_trace_when_nobody_asks_and_comes_back_when_somebody_does(home, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    worker = Worker(Home(home), MODULE, idle=0.01)
    pid = worker.ask("who")
    while psutil.pid_exists(pid) or worker._child:  # its pipes are closed, too
        pass
    assert list(home.glob("darkroom-worker-*")) == []
    assert worker.ask("add", one=1, other=2) == 3
    worker.close()


def test_questions_from_several_threads_get_their_own_answers(worker):
    answers = {}
    threads = [
        threading.Thread(target=lambda i=i: answers.update({i: worker.ask("add", one=i, other=i)})) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == {i: 2 * i for i in range(8)}
