"""What runs would take, asked in the background: the newest question of each project, once nothing changes any more."""

import threading
import time
from typing import Any

from app.worker import Worker
from trainers.config import TrainConfig
from trainers.errors import UserError

PAUSE = 0.7  # seconds without a change before a question is asked
KEPT = 50  # answers
FRESH = 120  # seconds that an answer is good for: other programs take memory, and give it back


class Estimates:
    """Answers of `check` by a key that stands for all they depend on. Only the newest question is worth asking."""

    def __init__(self, worker: Worker, pause: float = PAUSE, fresh: float = FRESH):
        self._worker, self._pause, self._fresh = worker, pause, fresh
        self._change = threading.Condition()
        self._known: dict[str, dict[str, Any] | UserError] = {}
        self._answered: dict[str, float] = {}  # key -> when
        self._wanted: dict[str, tuple[str, TrainConfig]] = {}  # by project
        self._asked = ""  # the key that is being answered
        self._last = 0.0
        self._thread: threading.Thread | None = None

    def ask(self, project: str, key: str, config: TrainConfig) -> dict[str, Any] | UserError | None:
        """The answer, or what went wrong; None when it is still to come, for `answer` to give."""
        with self._change:
            if key in self._known or key == self._asked:
                self._wanted.pop(project, None)
                return self._known.get(key)
            self._wanted.pop(project, None)
            self._wanted[project] = (key, config)
            self._last = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="estimates")
                self._thread.start()
        return None

    def answer(self, key: str) -> dict[str, Any] | UserError | None:
        with self._change:
            return self._known.get(key)

    def awaits(self, key: str) -> bool:
        """Whether an answer will come: a newer question of the same project takes the place of one not yet asked."""
        with self._change:
            return key == self._asked or any(key == wanted for wanted, _ in self._wanted.values())

    def forget_stale(self) -> None:
        """So that what could not be estimated is tried again, and what was found a while ago."""
        with self._change:
            latest = time.monotonic() - self._fresh
            for key, found in list(self._known.items()):
                if isinstance(found, UserError) or self._answered[key] < latest:
                    del self._known[key], self._answered[key]

    def _work(self) -> None:
        """Ends when nothing is wanted any more."""
        while (question := self._next()) is not None:
            key, config = question
            try:
                found: dict[str, Any] | UserError = self._worker.ask("check", config=config.model_dump(mode="json"))
            except UserError as error:
                found = error
            except Exception:
                with self._change:
                    self._thread, self._asked = None, ""
                raise
            with self._change:
                self._known[key], self._answered[key] = found, time.monotonic()
                for old in list(self._known)[:-KEPT]:
                    del self._known[old], self._answered[old]

    def _next(self) -> tuple[str, TrainConfig] | None:
        with self._change:
            self._asked = ""
            while self._wanted:
                left = self._last + self._pause - time.monotonic()
                if left <= 0:
                    _, question = self._wanted.popitem()
                    self._asked = question[0]
                    return question
                self._change.wait(left)
            self._thread = None
            return None
