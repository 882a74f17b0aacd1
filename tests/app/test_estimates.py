"""Estimates are asked in the background, the newest question of a project only, and each once."""

import threading

from app.estimates import Estimates
from trainers.config import TrainConfig
from trainers.errors import UserError


class Slow:
    """A worker that answers with the seed it was asked about, when it may."""

    def __init__(self):
        self.may, self.began = threading.Semaphore(0), threading.Semaphore(0)
        self.asked: list[int] = []

    def ask(self, name, report=None, *, config):
        self.asked.append(config["seed"])
        self.began.release()
        assert self.may.acquire(timeout=30)
        if config["seed"] == 13:
            raise UserError("Unlucky.")
        return {"seed": config["seed"]}


def ended(estimates: Estimates) -> None:
    thread = estimates._thread
    if thread:
        thread.join(30)


def ask(estimates: Estimates, seed: int, project: str = "cat"):
    return estimates.ask(project, str(seed), TrainConfig(seed=seed))


def test_only_the_newest_question_of_a_project_is_asked_and_none_twice():
    worker = Slow()
    estimates = Estimates(worker, pause=0)
    assert ask(estimates, 1) is None
    assert worker.began.acquire(timeout=30)
    for seed in (2, 3, 4):
        assert ask(estimates, seed) is None
    assert ask(estimates, 5, "dog") is None
    worker.may.release(3)
    ended(estimates)
    assert worker.asked[0] == 1 and sorted(worker.asked) == [1, 4, 5]
    assert ask(estimates, 4) == estimates.answer("4") == {"seed": 4} and len(worker.asked) == 3


def test_a_failure_is_an_answer_until_it_is_forgotten():
    worker = Slow()
    estimates = Estimates(worker, pause=0)
    ask(estimates, 13)
    worker.may.release()
    ended(estimates)
    assert estimates.answer("13").message == "Unlucky."
    estimates.forget_stale()
    assert estimates.answer("13") is None


def test_it_is_known_whether_an_answer_will_come():
    worker = Slow()
    estimates = Estimates(worker, pause=0)
    ask(estimates, 1)
    assert worker.began.acquire(timeout=30)
    ask(estimates, 2)
    assert estimates.awaits("1") and estimates.awaits("2")
    ask(estimates, 3)
    assert not estimates.awaits("2") and estimates.awaits("3")
    worker.may.release(2)
    ended(estimates)
    assert not estimates.awaits("1") and not estimates.awaits("3") and estimates.answer("3") == {"seed": 3}


def test_an_answer_is_asked_for_again_after_a_while():
    worker, asked = Slow(), []
    for fresh in (60, 0):
        estimates = Estimates(worker, pause=0, fresh=fresh)
        ask(estimates, 1)
        worker.may.release()
        ended(estimates)
        estimates.forget_stale()
        asked.append(estimates.answer("1"))
    assert asked == [{"seed": 1}, None]
