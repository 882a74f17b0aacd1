"""`python -m app.task_main FOLDER`: calls what task.json says, and turns whatever goes wrong into one Failed event."""

import json
import logging
import sys
import time
from pathlib import Path

from app.calls import call, plain
from trainers import locks
from trainers.events import EventLog, Failed, Finished
from trainers.failure import in_words
from trainers.files import write_whole


def main(folder: Path) -> int:
    """Exit code 0 when finished, 1 when failed (the reason is the last event)."""
    with locks.alone(folder / "lock") as alone:
        return _main(folder) if alone else 1


def _main(folder: Path) -> int:
    begun = time.monotonic()
    emit = EventLog(folder / "events.jsonl")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        task = json.loads((folder / "task.json").read_text("utf-8"))
        given = {"emit": emit, "folder": folder}
        answer = call(task["function"], task["values"], given, task["module"])
        write_whole(folder / "answer.json", json.dumps(answer, default=plain, ensure_ascii=False).encode())
        emit(Finished(0, "", time.monotonic() - begun))
    except Exception as error:  # the one place where anything unexpected becomes an event
        logging.getLogger(__name__).exception("the task failed")
        told = in_words(error, str(folder / "log.txt"))
        emit(Failed(told.message, told.hint))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
