"""`python -m trainers RUN_DIR`: load, train, and turn whatever goes wrong into one Failed event."""

import argparse
import logging
import os
import sys
from pathlib import Path

from trainers.errors import UserError, disk_error
from trainers.events import EventLog, Failed


def main() -> int:
    """Exit code 0 when finished or stopped, 1 when failed (the reason is the last event)."""
    parser = argparse.ArgumentParser(prog="python -m trainers", description="Train the run in a folder.")
    parser.add_argument("run", type=Path, help="run folder holding config.toml")
    run = parser.parse_args().run.resolve()
    for word in ("stop", "pause"):  # left over from the sitting before
        (run / "control" / word).unlink(missing_ok=True)
    emit = EventLog(run / "events.jsonl")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    logging.basicConfig(
        filename=run / "log.txt", level=logging.INFO, format="%(asctime)s %(name)s %(message)s", encoding="utf-8"
    )
    try:
        _train(run, emit)
    except Exception as error:  # the one place where anything unexpected becomes an event
        logging.getLogger(__name__).exception("the run failed")
        emit(_failure(error))
        return 1
    return 0


def _train(run: Path, emit: EventLog) -> None:
    from trainers import config_io  # noqa: PLC0415 - so that a broken installation is reported as an event too
    from trainers.train import Folders, train  # noqa: PLC0415 - imports torch, after the log is open

    cache = Path(os.environ.get("DARKROOM_CACHE") or run / "cache")
    train(config_io.load(run / "config.toml"), Folders(run, cache), emit)


def _failure(error: Exception) -> Failed:
    if isinstance(error, UserError):
        return Failed(error.message, error.hint)
    if disk := disk_error(error):
        return Failed(disk.message, "Make room and resume: the run goes on from its last checkpoint.")
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        hint = "Lower data.batch_size or data.resolution, or turn on memory.checkpointing."
        return Failed(f"The memory ran out ({(str(error).splitlines() or ['no number'])[0][:160]}).", hint)
    if isinstance(error, OSError) and error.filename:
        hint = "Check that it is there and that your account may read and write it, then resume."
        return Failed(f"{error.filename}: {error.strerror or error}.", hint)
    return Failed(
        f"Something unexpected went wrong: {type(error).__name__}: {error}", "The whole story is in log.txt of the run."
    )


if __name__ == "__main__":
    sys.exit(main())
