"""Progress of what takes long, told not too often; a person's wish to end it is seen there."""

import time
from collections.abc import Callable

from trainers.control import Control
from trainers.errors import EndedEarly
from trainers.events import Event, Phase

Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much


def throttled(emit: Callable[[Event], None], every: float = 0.5) -> Progress:
    """Progress as Phase events, at most one per `every` seconds; a new name and the last one always."""
    last, told = 0.0, ""

    def progress(name: str, done: int, total: int) -> None:
        nonlocal last, told
        if done == total or name != told or time.monotonic() - last > every:
            last, told = time.monotonic(), name
            emit(Phase(name, done, total))

    return progress


def ended_by(control: Control, progress: Progress) -> Progress:
    """Progress of what can take minutes: EndedEarly as soon as a person asks for the end of the run."""

    def heard(name: str, done: int, total: int) -> None:
        if control.ends:
            raise EndedEarly
        progress(name, done, total)

    return heard
