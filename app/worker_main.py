"""The worker's own side: reads questions from its input, line by line, and writes reports and answers to its output."""

import json
import logging
import os
import queue
import sys
import threading
from typing import IO, Any

from app.calls import call, plain
from app.modesty import step_back_whole
from trainers.errors import UserError
from trainers.failure import in_words


def main(module: str, idle: float, log: str) -> None:
    """Answer questions until the input ends, or until none has come for `idle` seconds."""
    step_back_whole()
    questions, said = _pipes()
    waiting: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(questions, waiting), daemon=True).start()
    while True:
        try:
            asked = json.loads(waiting.get(timeout=idle))
        except queue.Empty:
            return
        said.write(json.dumps(_answer(asked, module, log, said), default=plain) + "\n")
        said.flush()


def _answer(asked: dict[str, Any], module: str, log: str, said: IO[str]) -> dict[str, Any]:
    def report(text: str) -> None:
        said.write(json.dumps({"report": str(text)}) + "\n")
        said.flush()

    try:
        answer = call(asked["name"], asked["values"], {"report": report}, module)
        return {"answer": json.loads(json.dumps(answer, default=plain))}
    except UserError as error:
        return _error(error)
    except Exception as error:  # every other question must still be answered
        logging.getLogger(__name__).exception("%s failed", asked["name"])
        return {**_error(in_words(error, log)), "unexpected": True}


def _error(error: UserError) -> dict[str, Any]:
    return {"error": {"message": error.message, "hint": error.hint}}


def _listen(questions: IO[str], waiting: "queue.Queue[str]") -> None:
    for line in questions:
        waiting.put(line)
    os._exit(0)  # the window has gone: whatever it is doing, nobody waits for it


def _pipes() -> tuple[IO[str], IO[str]]:
    """The pipes to the window. Whatever libraries print or read goes to the log, or finds nothing."""
    questions = os.fdopen(os.dup(0), encoding="utf-8")
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return questions, said


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3])
