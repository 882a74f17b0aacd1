"""Chores: long work on files in a thread of the window, one at a time, with progress that every tab can see."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from trainers.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chore:
    """`said`: what came of it, in a sentence; empty while it goes on."""

    title: str
    done: int = 0  # bytes
    total: int = 0
    said: str = ""
    hint: str = ""
    failed: bool = False

    @property
    def over(self) -> bool:
        return bool(self.said)


class Chores:
    """What one window is busy with beside its answers."""

    def __init__(self):
        self._lock = threading.Lock()
        self._now: Chore | None = None
        self._told = 0.0

    def now(self) -> Chore | None:
        """The chore that goes on, or the last one; None before the first, or after `dismiss`."""
        return self._now

    def dismiss(self) -> None:
        with self._lock:
            if self._now and self._now.over:
                self._now = None

    def start(self, title: str, work: Callable[[Callable[[int, int], None]], str]) -> threading.Thread:
        """Call `work(report)` in a thread; it returns what to say at its end. UserError while another goes on."""
        with self._lock:
            if self._now and not self._now.over:
                raise UserError(f"{self._now.title} goes on.", "Wait for its end.")
            self._now = Chore(title)
        thread = threading.Thread(target=self._do, args=(work,), daemon=True)
        thread.start()
        return thread

    def _do(self, work: Callable[[Callable[[int, int], None]], str]) -> None:
        try:
            said = work(self._report)
            self._now = replace(self._now, said=said)
        except UserError as error:
            self._now = replace(self._now, said=error.message, hint=error.hint, failed=True)
        except Exception as error:
            log.exception("a chore failed")
            self._now = replace(self._now, said=f"{self._now.title} failed: {error}", failed=True)

    def _report(self, done: int, total: int) -> None:
        if time.monotonic() - self._told > 0.2 or done == total:
            self._told = time.monotonic()
            self._now = replace(self._now, done=done, total=total)
