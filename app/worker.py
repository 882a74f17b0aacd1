"""A process beside the window that has loaded torch, and answers what needs it: estimates, inspections, exports."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import calls, jobs
from app.calls import plain
from app.paths import ROOT, Home, find_home
from app.settings import load_settings
from trainers.errors import UserError

IDLE = 600  # seconds without a question after which it ends and gives its memory back


class Worker:
    """Started at the first question, ended with `close` or after a while without questions; one question at a time.

    Args:
        home: whose cache folder it uses; the usual one where none is named.
        module: where the functions are.
        idle: seconds without a question after which the process ends; the next question starts another.
    """

    def __init__(self, home: Home | None = None, module: str = calls.ENGINE, idle: float = IDLE):
        self.home, self.module, self.idle = home, module, idle
        self._asking = threading.Lock()
        self._child: _Child | None = None

    def ask(self, name: str, report: Callable[[str], None] | None = None, **values: Any) -> Any:
        """Call a function of app.engine by name in the worker and give back what it returns.

        Values and answer are what JSON can hold; paths as texts, a TrainConfig as `model_dump(mode="json")`. What the
        function is annotated to take, such as Path and TrainConfig, is made of them. `report` hears what it is busy
        with.

        Raises:
            UserError: the function raised one, or the worker died.
        """
        question = json.dumps({"name": name, "values": values}, default=plain) + "\n"
        with self._asking:
            for _ in range(2):
                child = self._alive() or self._start()
                answer = _answer(child, question, report or (lambda text: None))
                if answer is not None:
                    break
                code = child.process.wait()
                if code != 0 or child.closed:  # else it had just ended for want of questions
                    raise _ended(code, child)
            else:
                raise _ended(0, child)
        if "error" in answer:
            raise UserError(answer["error"]["message"], answer["error"]["hint"])
        return answer["answer"]

    def close(self) -> None:
        """End the process, also in the middle of an answer."""
        child, self._child = self._child, None
        if child is None:
            return
        child.closed = True
        with suppress(OSError):
            child.process.stdin.close()  # at which it ends by itself
        try:
            child.process.wait(2)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        with self._asking:  # who asked has heard by now that it ended
            child.forget()

    def _alive(self) -> "_Child | None":
        child = self._child
        if child is not None and child.process.poll() is not None:
            child.forget()
            self._child = None
        return self._child

    def _start(self) -> "_Child":
        home = self.home or find_home()
        environment = jobs.engine_environment(os.environ, ROOT, load_settings(home).cache_folder(home))
        with tempfile.NamedTemporaryFile(prefix="darkroom-worker-", suffix=".txt", delete=False) as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.worker_main", self.module, str(self.idle), log.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env={**environment, "HF_HUB_DISABLE_TELEMETRY": "1"},
                encoding="utf-8",
                **jobs.detached(os.name),
            )
        self._child = child = _Child(process, Path(log.name))
        threading.Thread(target=self._forget, args=[child], name="worker", daemon=True).start()
        return child

    def _forget(self, child: "_Child") -> None:
        """Once it has ended for want of questions; else its number, its pipes and its log stay till the next one."""
        child.process.wait()
        with self._asking:
            if self._child is child:
                child.forget()
                self._child = None


@dataclass
class _Child:
    process: subprocess.Popen
    log: Path
    told: bool = False  # its log was named to a person, and stays
    closed: bool = False

    def forget(self) -> None:
        """Once it has ended: close the pipes, and remove a log that nobody was told of."""
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                pipe.close()
        if not self.told:
            with suppress(OSError):
                self.log.unlink()


def _answer(child: _Child, question: str, report: Callable[[str], None]) -> dict[str, Any] | None:
    """{"answer": ...} or {"error": ...}; None where the process ended without either."""
    try:
        child.process.stdin.write(question)
        child.process.stdin.flush()
        for line in child.process.stdout:
            said = json.loads(line)
            if "report" not in said:
                child.told |= bool(said.get("unexpected"))
                return said
            report(said["report"])
    except (OSError, ValueError):  # a broken pipe, a closed one, half a line
        pass
    return None


def _ended(code: int, child: _Child) -> UserError:
    if child.closed:
        return UserError("The window was closed before this was done.")
    child.told = True
    reason = f"signal {-code}" if code < 0 else f"exit code {code}"
    killed = " The system may have ended it because memory ran out." if code in (-9, 137) else ""
    message = f"The helper process ended before it had answered ({reason}).{killed}"
    return UserError(message, f"Try again; its last words are in {child.log}.")
