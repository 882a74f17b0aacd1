"""`python -m trainers RUN_DIR`: load, train, and turn whatever goes wrong into one Failed event."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from trainers import launched, locks, threads
from trainers.events import Event, EventLog, Failed
from trainers.failure import in_words
from trainers.files import DAY, sweep

OWN = {"checkpoints": 0, "samples": 0, "output": DAY, ".": DAY}  # in the last two others write at any time


def main() -> int:
    """Exit code 0 when finished or stopped, 1 when failed (the reason is the last event)."""
    parser = argparse.ArgumentParser(prog="python -m trainers", description="Train the run in a folder.")
    parser.add_argument("run", type=Path, help="run folder holding config.toml")
    run = parser.parse_args().run.resolve()
    if launched.rank()[0] > 0:
        return _follow(run)
    try:
        with locks.alone(run / "lock") as alone:
            if alone:
                return _main(run)
        sys.stderr.write(f"{run.name} is being trained by another process already.\n")
    except OSError as error:  # not even the events can be written
        told = in_words(error, "log.txt of the run")
        sys.stderr.write(f"{told.message} {told.hint}\n")
    return 1


def _main(run: Path) -> int:
    if "DARKROOM_SWEPT" not in os.environ:  # the app has done it, and what lies there now came after the start
        for word in ("stop", "pause", "less_memory"):  # left over from the sitting before
            (run / "control" / word).unlink(missing_ok=True)
    for folder, hours in OWN.items():
        sweep(run / folder, hours)
    emit = EventLog(run / "events.jsonl")
    signal.signal(signal.SIGTERM, lambda *_: _ask_for_a_pause(run))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    threads.wait_passively()
    logging.basicConfig(
        filename=run / "log.txt", level=logging.INFO, format="%(asctime)s %(name)s %(message)s", encoding="utf-8"
    )
    try:
        _train(run, emit)
    except Exception as error:  # the one place where anything unexpected becomes an event
        logging.getLogger(__name__).exception("the run failed")
        told = in_words(error, "log.txt of the run")
        emit(Failed(told.message, told.hint))
        return 1
    return 0


def _ask_for_a_pause(run: Path) -> None:
    """The system is going down, or who started this wants it to end: save first."""
    with suppress(OSError):
        (run / "control").mkdir(exist_ok=True)
        (run / "control" / "pause").touch()


def _follow(run: Path) -> int:
    """What a process does that trains the run with others and is not the first: no file, no event.

    Exit code 0 also where the first one knows what befell it: that one has to write it down before all are ended.
    """
    threads.wait_passively()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the first process hears it too, and pauses the run for all
    try:
        _train(run, lambda event: None)
    except Exception as error:
        told = in_words(error, "log.txt of the run")
        sys.stderr.write(f"process {launched.rank()[0]}: {told.message} {told.hint}\n")
        return 0 if getattr(error, "told", False) else 1
    return 0


def _train(run: Path, emit: Callable[[Event], None]) -> None:
    from trainers import config_io  # noqa: PLC0415 - so that a broken installation is reported as an event too
    from trainers.ranks import Ranks  # noqa: PLC0415 - imports torch, after the log is open
    from trainers.train import Folders, train  # noqa: PLC0415

    cache, ranks = Path(os.environ.get("DARKROOM_CACHE") or run / "cache"), Ranks(*launched.rank())
    if ranks.main:
        sweep(cache, DAY)
    train(config_io.load(run / "config.toml"), Folders(run, cache), emit, ranks)


if __name__ == "__main__":
    sys.exit(main())
